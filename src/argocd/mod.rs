//! Argo CD: finds the applications that a commit affects, refreshes them, and reports their rollouts.
//!
//! With a token, [`ArgoCd`] uses the API: it lists the applications with the files that they read, refreshes exactly
//! those that a commit affects, and polls them until they run it. Without a token it only sends a push event to Argo CD's
//! webhook, as a Git host does.
//!
//! Pure functions over [`Application`] interpret the answers: [`Application::is_touched_by`] (does it read these files?),
//! [`members`] (which applications belong to an environment?), [`Application::progress`] (how far is the rollout?) and
//! [`running`] (which versions does it run?).

mod application;
mod application_set;
mod client;
mod document;
mod error;
mod members;
mod progress;
mod running;
mod settings;
mod touched;
mod tree;
mod webhook;

pub use application::{
    Application, ApplicationName, Health, Hydration, Hydrator, InvalidApplicationName, Source, SyncStatus,
};
pub use application_set::ApplicationSet;
pub use client::{ArgoCd, Refresh};
pub use error::ArgoCdError;
pub use members::{Member, Reach, Via, members};
pub use progress::{Progress, RolloutEnd};
pub use running::{RunningImages, running};
pub use settings::{Access, ArgoCdSettings, Selection, Webhook};
pub use touched::WatchedBranch;
pub use tree::LivePods;
pub use webhook::PushedCommit;
