//! The rooms that read what strangers send, and nothing else of the program: they build in a minute, all of it in ten.

#[path = "../../src/image/mod.rs"]
pub mod image;
#[path = "../../src/secret/mod.rs"]
pub mod secret;
#[path = "../../src/webhook/mod.rs"]
pub mod webhook;
