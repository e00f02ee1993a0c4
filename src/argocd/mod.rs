//! Argo CD: finds the applications that a commit affects, refreshes them, and reports their rollouts.
//!
//! With a token, [`ArgoCd`] uses the API: it lists the applications with the files that they read, refreshes exactly
//! those that a commit affects, and polls them until they run it. Without a token it only sends a push event to Argo CD's
//! webhook, as a Git host does.
//!
//! Pure functions over [`Application`] interpret the answers: [`Application::is_touched_by`] (does it read these files?)
//! and [`Application::progress`] (how far is the rollout?).

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
