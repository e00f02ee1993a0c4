//! The wire types of the HTTP API, defined once for server and clients.
//!
//! Plain data with `Serialize`, `Deserialize` and an OpenAPI schema. `http` converts rows and decisions into these types; `cli`
//! reads them. Clients ignore members that are not listed here, so a newer server may add members.
//!
//! In reading order: `word` (states), `problem` (errors), `update`, `event`, `request`, `block` (holds and freezes),
//! `environment`, `diff`, `history`, `receiver`, `registry`, `reload`, `stream`.

mod block;
mod diff;
mod environment;
mod event;
mod history;
mod problem;
mod receiver;
mod registry;
mod reload;
mod request;
mod stream;
mod update;
mod word;

pub use block::{FreezeBody, FreezeView, Freezes, FrozenByView, FrozenView, HoldBody, HoldView, Holds, WindowView};
pub use diff::{DiffView, DiffedView};
pub use environment::{
    ApplicationView, CellView, DriftView, EnvironmentView, HealthView, Matrix, ProblemView, SiteView,
};
pub use event::{
    AttemptView, EventDetailView, EventView, Events, RefusedIn, ReplayFilter, ReplayedEvent, ReplayedEvents, StepView,
};
pub use history::{FileView, History, HistoryView};
pub use problem::{FaultView, Problem};
pub use receiver::{AnswerBranch, AnswerEvent, AnswerIgnored, LastRequest, ReceiverView, Receivers, WebhookAnswer};
pub use registry::{CatchUpView, Registries, RegistryView};
pub use reload::{Reloaded, SectionChange};
pub use request::{PreviewView, PreviewedView, PromotionBody, Promotions, RequestView, RollbackBody, RolloutSummary};
pub use stream::{StreamMessage, StreamSubject};
pub use update::{ChangeView, RolledView, RolloutView, UpdateView, VersionView};
pub use word::{DeliveryState, DiffState, Direction, FreezeKind, HealthState, PreviewState, Word};
