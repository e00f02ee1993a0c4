use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Caller, Problem};
use crate::store::ReceiverHeard;
use crate::webhook::ReceiverSettings;

#[derive(Serialize, ToSchema)]
pub(super) struct Receivers {
    receivers: Vec<ReceiverView>,
}

/// A receiver: what its sender has to be told, and what it last heard.
#[derive(Serialize, ToSchema)]
struct ReceiverView {
    name: String,
    /// As in the settings: `docker-hub`, `harbor`, ….
    kind: &'static str,
    /// What people call the sender.
    sender: &'static str,
    /// The path of the URL to paste at the sender, behind the address under which it reaches Tagrelay. `SECRET`
    /// stands for the secret.
    url_path: String,
    /// The events to tick at the sender.
    events: &'static str,
    /// What the sender must show with every request.
    credential: String,
    /// The host that counts for every image; `null`: the one that the sender names.
    registry: Option<String>,
    /// As `50/s`; `null`: no limit.
    rate_limit: Option<String>,
    /// For how long a delivery that was seen before is a duplicate.
    duplicate_window_seconds: u64,
    /// The last request, whoever sent it; `null`: there was none.
    last_heard: Option<LastHeard>,
    /// When a request last held an event that was stored.
    last_accepted_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct LastHeard {
    at: String,
    /// `accepted`, `ignored`, `unauthorized`, `rate_limited`, `too_large`, `too_slow`, `unavailable` or `failed`.
    outcome: String,
}

/// The receivers: what to enter at each sender, and when it was last heard of.
#[utoipa::path(get, path = "/receivers", responses((status = 200, body = Receivers)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Receivers>, Problem> {
    caller.must_read()?;
    let stored = app.0.relay.store().heard().await?;
    let mut stored: HashMap<String, ReceiverHeard> =
        stored.into_iter().map(|heard| (heard.receiver.clone(), heard)).collect();
    let view = |gate: &std::sync::Arc<super::super::gate::Gate>| {
        let settings = gate.receiver.settings();
        let stored = stored.remove(&settings.name);
        // What this process has heard is newer than what is stored, but for the last event of an earlier process.
        let accepted_before = stored.as_ref().and_then(|heard| heard.accepted_at);
        let heard = gate.heard().or(stored);
        let accepted_at = heard.as_ref().and_then(|heard| heard.accepted_at).or(accepted_before);
        ReceiverView {
            name: settings.name.clone(),
            kind: settings.kind.name(),
            sender: settings.kind.title(),
            url_path: url_path(settings),
            events: settings.kind.events(),
            credential: credential(settings),
            registry: settings.registry.clone(),
            rate_limit: settings.rate_limit.map(|limit| limit.to_string()),
            duplicate_window_seconds: settings.duplicate_window.as_secs(),
            last_heard: heard.map(|heard| LastHeard { at: heard.heard_at.to_string(), outcome: heard.outcome }),
            last_accepted_at: accepted_at.map(|at| at.to_string()),
        }
    };
    Ok(Json(Receivers { receivers: app.0.receivers.values().map(view).collect() }))
}

fn url_path(settings: &ReceiverSettings) -> String {
    let parameter = settings.kind.query_parameter().filter(|_| settings.secret.is_some());
    match parameter {
        Some(parameter) => format!("/webhooks/{}?{parameter}=SECRET", settings.name),
        None => format!("/webhooks/{}", settings.name),
    }
}

fn credential(settings: &ReceiverSettings) -> String {
    match (&settings.secret, &settings.identity_token) {
        (None, None) => "none: everybody may send".to_owned(),
        (Some(_), None) => settings.kind.credentials(),
        (None, Some(tokens)) => identity(&tokens.issuer, &tokens.audience),
        (Some(_), Some(tokens)) => {
            format!("{}; and {}", identity(&tokens.issuer, &tokens.audience), settings.kind.credentials())
        }
    }
}

fn identity(issuer: &str, audience: &str) -> String {
    format!("an OpenID Connect token of {issuer} for the audience {audience}")
}
