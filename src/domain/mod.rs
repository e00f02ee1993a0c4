//! The concepts of the pipeline as values: states, transitions and decisions. Pure, without SQL and without a network.
//!
//! In: the rows of the store, the versions on the branch, the facts of the intake. Out: the next state of a row with its effects,
//! and for each candidate whether it is written, waits or ends.
//!
//! In reading order:
//!
//! - `words`: enums that are words in tables, API and metrics;
//! - `event`, `update`, `request`, `block`, `wait`, `push`: the rows and their states;
//! - `transition`: (state, input) -> state and effects, one table for each kind of row;
//! - `versions`: whether two descriptions mean the same version;
//! - `compare`: which of two versions is newer, or which fact is missing for the comparison;
//! - `decide`: the decisions on the candidates of a place;
//! - `gate`: whether a version may leave an environment;
//! - `soak`: since when an application runs a version healthy;
//! - `landing`: the effect of a landed update on earlier updates of its place;
//! - `explain`: the sentences for people;
//! - `outbox`: the entries for the subscribers.

mod block;
mod compare;
mod decide;
mod event;
mod explain;
mod gate;
mod landing;
mod outbox;
mod push;
mod request;
mod soak;
mod transition;
mod update;
mod versions;
mod wait;
mod words;

pub use block::{Block, BlockKind, Blocks, Frozen, FrozenBy, NewBlock};
pub use compare::{BuildTime, CatchUpDoubt, Comparison, Descent, Fact, Facts, Missing, Other, Subject, compare};
pub use decide::{Candidate, Decided, Decision, Ground, Landed, Place, Running, decide};
pub use event::{Event, EventState, Party};
pub use explain::{note_in, overtaken, unconfirmed, waiting as explain_waiting, with_note};
pub use gate::{ClosedGate, Condition, Obstacle, ObstacleKind, Passage, Statement, Subject as GateSubject, gate};
pub use landing::{AfterLanding, after_landing};
pub use outbox::{Change, Entry};
pub use push::{AttemptedUpdate, PushAttempt, PushState};
pub use request::{Request, RequestKind, RequestState, first_state};
pub use soak::{RunObservation, VersionRun};
pub use transition::{
    Effect, EventInput, PushInput, UpdateInput, event_transition, push_transition, update_transition,
};
pub use update::{Cause, SiteChange, Update, UpdateGate, UpdateState};
pub use versions::{is_same, runs, versions_of};
pub use wait::{Wait, WaitCause, may_go};
pub use words::UnknownWord;
pub(crate) use words::words;
