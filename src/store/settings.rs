use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The SQLite file. It is created, with its folder, if it does not exist.
    pub path: PathBuf,
}
