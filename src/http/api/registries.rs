use axum::Json;
use axum::extract::State;

use super::{App, Caller, Problem};
use crate::api::{CatchUpView, Registries, RegistryView};
use crate::relay::{RegistryStatus, Relay};

impl From<RegistryStatus> for RegistryView {
    fn from(news: RegistryStatus) -> Self {
        let RegistryStatus { registry, repositories, state, reason, listed_at, ask_again_at } = news;
        let state = state.to_owned();
        Self { registry, catch_up: CatchUpView { state, reason, repositories, listed_at, ask_again_at } }
    }
}

/// Returns the registries of catch-up; empty if catch-up is off.
pub(super) fn views(relay: &Relay) -> Vec<RegistryView> {
    relay.registry_status().unwrap_or_default().into_iter().map(Into::into).collect()
}

/// The registries whose tags catch-up lists. Empty if catch-up is off.
#[utoipa::path(get, path = "/registries", responses((status = 200, body = Registries)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Registries>, Problem> {
    caller.must_read()?;
    Ok(Json(Registries { registries: views(&app.0.relay) }))
}
