use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/v1/registries`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Registries {
    pub registries: Vec<RegistryView>,
}

/// A registry whose tags catch-up lists, to find pushes that no webhook announced.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RegistryView {
    /// The host, as in image references.
    pub registry: String,
    pub catch_up: CatchUpView,
}

/// The state of catch-up with a registry.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CatchUpView {
    /// The result of the last request.
    ///
    /// `waiting` (no list yet), `listed`, `unsupported` (the registry lists no tags), `no_list` (the answer is not a list of tags),
    /// `not_allowed` (authentication failed or access denied) or `not_now` (no answer, or the registry asked us to wait).
    pub state: String,
    /// Why the state is not `listed`.
    pub reason: Option<String>,
    /// The number of managed repositories of the registry that run in an automatic environment.
    pub repositories: usize,
    /// When the last list was received.
    #[schema(value_type = Option<String>)]
    pub listed_at: Option<Timestamp>,
    /// When the registry's tags are listed again, if not in the next round.
    #[schema(value_type = Option<String>)]
    pub ask_again_at: Option<Timestamp>,
}
