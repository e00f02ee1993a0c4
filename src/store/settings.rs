use std::path::PathBuf;

/// Where events, updates, promotions, holds and history are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The SQLite file. It is made, with its folder, when it is not there.
    pub path: PathBuf,
}
