//! Puts the daemon together: settings in, listeners and pipeline running.
//!
//! [`start`] builds everything once. [`Server::reload`] replaces the pipeline and the routes by ones made from new settings;
//! listeners, store, metrics and the stream stay. In reading order: `running` is the server, `parts` makes the parts of the
//! pipeline from settings, `reload` watches the settings file.

mod parts;
mod reload;
mod running;

pub(crate) use parts::{open_branch, watched_branch};
pub(crate) use reload::Reloader;
pub use running::{Server, start};
