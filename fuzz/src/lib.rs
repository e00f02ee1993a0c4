//! The crates that read foreign input. Nothing else of the program is built: one minute instead of ten.

#[path = "../../tests/manifest/checks.rs"]
pub mod checks;
