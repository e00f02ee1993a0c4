//! store
mod settings;
pub use settings::StoreSettings;
