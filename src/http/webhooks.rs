use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::{HeaderMap, StatusCode};

use super::gate::Gate;
use super::trace::RequestTrace;
use super::{App, Problem, bodies};
use crate::api::{AnswerBranch, AnswerEvent, AnswerIgnored, DeliveryState, WebhookAnswer};
use crate::relay::BranchAnnouncement;
use crate::store::ReceivedState;
use crate::telemetry::TraceContext;
use tagrelay_image::CommitSha;
use tagrelay_webhook::{Delivery, Errand, Ignored, MovedBranch, PushEvent, Receiver, Unauthorized};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/webhooks/{receiver}", post(receive).options(allow))
}

fn answer(events: Vec<AnswerEvent>, ignored: Vec<Ignored>) -> WebhookAnswer {
    let ignored = ignored.into_iter();
    let ignored = ignored.map(|one| AnswerIgnored { class: one.class.name().to_owned(), reason: one.reason }).collect();
    WebhookAnswer { events, branches: Vec::new(), ignored }
}

async fn receive(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(RequestTrace(trace)): Extension<RequestTrace>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(gate) = app.0.receivers.get(&name) else {
        return Err(Problem::nothing_at("receiver", &name));
    };
    let result = app.handle(gate, &trace, request).await;
    let outcome = match &result {
        Ok((StatusCode::ACCEPTED, _)) => "accepted",
        Ok(_) => "ignored",
        Err(problem) => problem.outcome(),
    };
    app.0.relay.metrics().webhook_request(&name, outcome);
    app.record(gate, outcome);
    result.map(|(status, body)| (status, body).into_response())
}

/// Answers the validation request that CloudEvents senders make before their first event.
async fn allow(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let gate = app.0.receivers.get(&name).ok_or_else(|| Problem::nothing_at("receiver", &name))?;
    let allowed = gate.receiver.allow_sender(&headers);
    allowed.map(|headers| (StatusCode::OK, headers).into_response()).ok_or_else(|| {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("/webhooks/{name} does not support OPTIONS from this sender"),
        )
    })
}

/// How many entries one request may contain: more than any sender puts into one, and few enough not to delay the next request.
const MAX_ENTRIES: usize = 1000;

/// How long after a request the last requests of all receivers are stored, so that a flood of requests causes one write.
const STORE_LAST_AFTER: Duration = Duration::from_secs(1);

impl App {
    /// Records the outcome of a request, and schedules its storage.
    fn record(&self, gate: &Gate, outcome: &'static str) {
        gate.record(outcome);
        if self.0.storing_last.swap(true, Ordering::AcqRel) {
            return;
        }
        let app = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(STORE_LAST_AFTER).await;
            // Outcomes recorded from here on are stored by the next task.
            app.0.storing_last.store(false, Ordering::Release);
            let heard = app.0.receivers.values().filter_map(|gate| gate.last()).collect();
            if let Err(error) = app.0.relay.store().keep_heard(heard).await {
                tracing::warn!(%error, "the last requests of the receivers cannot be stored");
            }
        });
    }

    async fn handle(
        &self,
        gate: &Gate,
        trace: &TraceContext,
        request: Request,
    ) -> Result<(StatusCode, Response), Problem> {
        let mut delivery = self.read(gate, trace, request).await?;
        if let Some(Errand::Visit(address)) = delivery.errand.take() {
            self.confirm_subscription(&gate.receiver, address).await?;
        }
        self.store(&gate.receiver, trace, delivery).await
    }

    /// Reads and authenticates a request. The body and its slot are released when this returns: the events that then wait for
    /// the store are small, and waiting ones are stored together.
    async fn read(&self, gate: &Gate, trace: &TraceContext, request: Request) -> Result<Delivery, Problem> {
        let receiver = &gate.receiver;
        let (parts, body) = request.into_parts();
        gate.bodies.check_length(&parts.headers)?;
        let head = tagrelay_webhook::Request { headers: &parts.headers, query: parts.uri.query(), body: &[] };
        self.learn_keys(gate, &head).await?;
        if let Err(unauthorized) = receiver.check_head(&head) {
            bodies::discard(body).await;
            return Err(rejected(receiver, trace, unauthorized));
        }
        let body = gate.bodies.read(body).await?;
        let request = tagrelay_webhook::Request { body: &body.bytes, ..head };
        let mut delivery = authenticate(receiver, trace, &request)?;
        gate.count()?;
        if let Some(Errand::LearnCertificate(_)) = &delivery.errand {
            let _one_at_a_time = gate.errand.lock().await;
            // Another request may have fetched it meanwhile.
            delivery = authenticate(receiver, trace, &request)?;
            if let Some(Errand::LearnCertificate(address)) = &delivery.errand {
                self.learn_certificate(receiver, address).await?;
                delivery = authenticate(receiver, trace, &request)?;
            }
        }
        let entries = delivery.events.len() + delivery.ignored.len();
        if entries > MAX_ENTRIES {
            let detail =
                format!("the request has {entries} entries; at most {MAX_ENTRIES} are accepted: send fewer at once");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok(delivery)
    }

    async fn store(
        &self,
        receiver: &Receiver,
        trace: &TraceContext,
        delivery: Delivery,
    ) -> Result<(StatusCode, Response), Problem> {
        let Delivery { events, moved, ignored, reply, errand: _ } = delivery;
        for Ignored { class, reason } in &ignored {
            tracing::debug!(receiver = receiver.name(), %class, reason, "part of a webhook ignored");
        }
        if !moved.is_empty() {
            return Ok(self.refresh_branches(receiver, &moved, ignored));
        }
        if events.is_empty() {
            let response = match reply {
                Some(reply) => Json(reply.json).into_response(),
                None => Json(answer(Vec::new(), ignored)).into_response(),
            };
            return Ok((StatusCode::OK, response));
        }
        let window = receiver.settings().duplicate_window;
        let received = self.0.relay.receive(receiver.name(), &events, window, trace).await?;
        let events = events.iter().zip(received).map(|(event, row)| answer_event(event, row.id, row.state)).collect();
        Ok((StatusCode::ACCEPTED, Json(answer(events, ignored)).into_response()))
    }

    /// Has the branches that moved read again. Nothing is stored: every branch is read every few minutes anyway.
    fn refresh_branches(
        &self,
        receiver: &Receiver,
        moved: &[MovedBranch],
        ignored: Vec<Ignored>,
    ) -> (StatusCode, Response) {
        let repository = receiver.settings().config_repository.as_deref().unwrap_or_default();
        let mut status = StatusCode::OK;
        let mut branches = Vec::new();
        for MovedBranch { branch, commit } in moved {
            let commit = commit.as_ref().map(CommitSha::as_str);
            let state = match self.0.relay.branch_moved(repository, branch, commit) {
                BranchAnnouncement::Reading => {
                    status = StatusCode::ACCEPTED;
                    "reading"
                }
                BranchAnnouncement::Known => "known",
                BranchAnnouncement::Foreign => "foreign",
            };
            tracing::debug!(
                receiver = receiver.name(),
                repository,
                branch,
                state,
                "branch moved, according to the Git host"
            );
            branches.push(AnswerBranch { branch: branch.clone(), state: state.to_owned() });
        }
        (status, Json(WebhookAnswer { branches, ..answer(Vec::new(), ignored) }).into_response())
    }

    /// Fetches the keys of an issuer if the token names an unknown one. Without any key no token can be checked, so the sender
    /// gets a 503.
    async fn learn_keys(&self, gate: &Gate, request: &tagrelay_webhook::Request<'_>) -> Result<(), Problem> {
        let receiver = &gate.receiver;
        if receiver.settings().identity_token.is_none() {
            return Ok(());
        }
        let _one_at_a_time = gate.errand.lock().await;
        if let Some(address) = receiver.keys_to_fetch(request) {
            let learned = match self.fetch(&address).await {
                Ok(keys) => receiver.learn_keys(&keys).map_err(|error| error.to_string()),
                Err(reason) => Err(reason),
            };
            match learned {
                Ok(()) => tracing::info!(receiver = receiver.name(), %address, "keys of the issuer fetched"),
                Err(reason) => {
                    tracing::warn!(receiver = receiver.name(), %address, reason, "the issuer's keys cannot be fetched")
                }
            }
        }
        if receiver.lacks_keys() {
            let detail = "the keys of the token's issuer cannot be fetched: try again later";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        Ok(())
    }

    /// Fetches the certificate that a sender signs with. Without it no signature can be checked, so the sender gets a 503.
    async fn learn_certificate(&self, receiver: &Receiver, address: &url::Url) -> Result<(), Problem> {
        let learned = match self.fetch(address).await {
            Ok(pem) => receiver.learn_certificate(address, &pem).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        learned.map_err(|reason| {
            tracing::warn!(receiver = receiver.name(), reason, "the sender's certificate cannot be fetched");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the sender's certificate cannot be fetched: try again later")
        })
    }

    /// Fetches a document of at most 64 KiB. The error is a sentence.
    async fn fetch(&self, address: &url::Url) -> Result<Vec<u8>, String> {
        const MAX_BYTES: usize = 64 * 1024;
        let request = async {
            let mut response = self.0.errands.get(address.clone()).send().await?.error_for_status()?;
            let mut document = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                document.extend_from_slice(&chunk);
                if document.len() > MAX_BYTES {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(document)
        };
        match request.await {
            Ok(document) if document.len() > MAX_BYTES => Err(format!("it is larger than {MAX_BYTES} bytes")),
            Ok(document) => Ok(document),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Confirms a subscription by a request to the address that the sender named.
    async fn confirm_subscription(&self, receiver: &Receiver, address: url::Url) -> Result<(), Problem> {
        let host = address.host_str().unwrap_or_default().to_owned();
        match self.0.errands.get(address).send().await.and_then(reqwest::Response::error_for_status) {
            Ok(_) => {
                tracing::info!(receiver = receiver.name(), host, "subscription confirmed");
                Ok(())
            }
            Err(error) => {
                // Without the address, which contains a token.
                tracing::warn!(receiver = receiver.name(), host, error = %error.without_url(), "subscription not confirmed");
                Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the subscription cannot be confirmed: try again later",
                ))
            }
        }
    }
}

fn authenticate(
    receiver: &Receiver,
    trace: &TraceContext,
    request: &tagrelay_webhook::Request<'_>,
) -> Result<Delivery, Problem> {
    receiver.receive(request).map_err(|unauthorized| rejected(receiver, trace, unauthorized))
}

fn rejected(receiver: &Receiver, trace: &TraceContext, unauthorized: Unauthorized) -> Problem {
    let trace_id = trace.trace_id();
    tracing::warn!(receiver = receiver.name(), reason = %unauthorized, %trace_id, "webhook rejected");
    if unauthorized.undecided {
        // Some senders give up after a 401, and the credential may be right.
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the credential cannot be checked: try again later");
    }
    Problem::bad_credential(unauthorized.challenge)
}

fn answer_event(event: &PushEvent, id: String, state: ReceivedState) -> AnswerEvent {
    AnswerEvent {
        id,
        repository: event.repository.to_string(),
        tag: event.tag.to_string(),
        digest: event.digest.as_ref().map(ToString::to_string),
        state: match state {
            ReceivedState::Queued => DeliveryState::Queued,
            ReceivedState::Duplicate => DeliveryState::Duplicate,
        }
        .into(),
    }
}
