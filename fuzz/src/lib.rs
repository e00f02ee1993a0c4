//! The crates that read foreign input. Nothing else of the program is built: one minute instead of ten.

#[path = "../../tests/manifest/checks.rs"]
pub mod checks;

pub use tagrelay_image as image;
pub use tagrelay_manifest as manifest;
pub use tagrelay_secret as secret;
pub use tagrelay_webhook as webhook;
