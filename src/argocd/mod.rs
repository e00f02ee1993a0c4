//! Argo CD: which applications take a change, telling them, and what has become of it.
//!
//! With a token, [`ArgoCd`] asks the API: the list of applications says what each is made of, so that exactly those
//! that a commit touches are refreshed and asked again until they run it. Without one it sends Argo CD's own webhook
//! what a Git host would send, and hears no more of it.
//!
//! What an answer means is decided by pure functions over [`Application`]: does it read these files
//! ([`Application::is_touched_by`]), and has it come to an end ([`Application::progress`])?

mod application;
mod client;
mod error;
mod progress;
mod settings;
mod touched;
mod webhook;

pub use application::{Application, ApplicationName, Health, InvalidApplicationName, Source, SyncStatus};
pub use client::{ArgoCd, Refresh};
pub use error::ArgoCdError;
pub use progress::{Progress, RolloutEnd};
pub use settings::{Access, ArgoCdSettings, Selection};
pub use touched::WatchedBranch;
pub use webhook::PushedCommit;
