//! config_repo
mod settings;
pub use settings::{Authentication, Identity, RemoteSettings};
