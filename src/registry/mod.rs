//! registry
mod settings;
pub use settings::{Credentials, RegistrySettings};
