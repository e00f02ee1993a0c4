//! The rooms that read what others have written, and nothing else of the program: they build in a minute, all of it in
//! ten.

pub mod checks;
#[path = "../../src/manifest/mod.rs"]
pub mod manifest;
#[path = "../../src/webhook/mod.rs"]
pub mod webhook;

pub use tagrelay_image as image;
pub use tagrelay_secret as secret;
