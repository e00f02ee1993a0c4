use std::collections::HashMap;

use axum::Json;
use axum::extract::State;

use super::{App, Caller, Problem};
use crate::api::{LastRequest, ReceiverView, Receivers};
use crate::store::ReceiverHeard;
use tagrelay_webhook::ReceiverSettings;

/// The receivers: how to configure each sender, and its last request.
#[utoipa::path(get, path = "/receivers", responses((status = 200, body = Receivers)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Receivers>, Problem> {
    caller.must_read()?;
    let stored = app.0.relay.store().heard().await?;
    let mut stored: HashMap<String, ReceiverHeard> =
        stored.into_iter().map(|heard| (heard.receiver.clone(), heard)).collect();
    let view = |gate: &std::sync::Arc<super::super::gate::Gate>| {
        let settings = gate.receiver.settings();
        let stored = stored.remove(&settings.name);
        // The memory of this process is newer than the store, except for the last accepted request of an earlier process.
        let accepted_before = stored.as_ref().and_then(|heard| heard.accepted_at);
        let heard = gate.last().or(stored);
        let accepted_at = heard.as_ref().and_then(|heard| heard.accepted_at).or(accepted_before);
        ReceiverView {
            name: settings.name.clone(),
            kind: settings.kind.name().to_owned(),
            sender: settings.kind.title().to_owned(),
            url_path: url_path(settings),
            events: settings.kind.events().to_owned(),
            credential: credential(settings),
            registry: settings.registry.clone(),
            rate_limit: settings.rate_limit.map(|limit| limit.to_string()),
            duplicate_window_seconds: settings.duplicate_window.as_secs(),
            last_heard: heard.map(|heard| LastRequest { at: heard.heard_at, outcome: heard.outcome }),
            last_accepted_at: accepted_at,
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
        (None, None) => "none: every request is accepted".to_owned(),
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
