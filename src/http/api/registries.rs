use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Caller, Problem};
use crate::relay::{RegistryNews, Relay};

#[derive(Serialize, ToSchema)]
pub(super) struct Registries {
    registries: Vec<RegistryView>,
}

/// A registry that is asked for what no webhook told of.
#[derive(Serialize, ToSchema)]
pub(super) struct RegistryView {
    /// The host, as references write it.
    registry: String,
    catch_up: CatchUpView,
}

/// How catching up with a registry goes.
#[derive(Serialize, ToSchema)]
struct CatchUpView {
    /// `listed`; `waiting` until it was asked; `unsupported`: it lists no tags; `no_list`: its answer is no list of tags; `not_allowed`: it does not let us;
    /// `not_now`: it did not answer, or wants to be left alone.
    state: &'static str,
    /// Why it is not `listed`.
    reason: Option<String>,
    /// How many of its repositories are managed and run in an automatic environment.
    repositories: usize,
    /// When it last gave a list.
    listed_at: Option<String>,
    /// When it will be asked again, where that is not the next round.
    ask_again_at: Option<String>,
}

impl From<RegistryNews> for RegistryView {
    fn from(news: RegistryNews) -> Self {
        let RegistryNews { registry, repositories, state, reason, listed_at, ask_again_at } = news;
        let time = |at: Option<jiff::Timestamp>| at.map(|at| at.to_string());
        let (listed_at, ask_again_at) = (time(listed_at), time(ask_again_at));
        Self { registry, catch_up: CatchUpView { state, reason, repositories, listed_at, ask_again_at } }
    }
}

/// Returns the registries that are asked; none where catching up is turned off.
pub(super) fn views(relay: &Relay) -> Vec<RegistryView> {
    relay.registry_news().unwrap_or_default().into_iter().map(Into::into).collect()
}

/// The registries that are asked for what no webhook told of, and how that goes. Empty where it is turned off.
#[utoipa::path(get, path = "/registries", responses((status = 200, body = Registries)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Registries>, Problem> {
    caller.must_read()?;
    Ok(Json(Registries { registries: views(&app.0.relay) }))
}
