//! The daemon: from settings to running listeners and a running pipeline.
//!
//! [`start`] creates all parts once. [`Server::reload`] replaces the pipeline and the routes with new ones made from new settings.
//! Listeners, store, metrics and the stream stay. In reading order: `running` is the server, `parts` makes the parts of the
//! pipeline from settings, `reload` watches the settings file.

mod parts;
mod reload;
mod running;

pub(crate) use parts::{open_branch, watched_branch};
pub(crate) use reload::Reloader;
pub use running::{Server, start};
