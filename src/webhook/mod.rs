//! webhook
mod kind;
mod settings;
pub use kind::{Kind, UnknownKind};
pub use settings::ReceiverSettings;
