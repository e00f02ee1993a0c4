use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/v1/reload`: the changed sections of the settings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// One entry for each section whose text, or a file that it names, changed.
    pub changes: Vec<SectionChange>,
}

/// A section of the settings that changed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SectionChange {
    /// The kind of section, as in the settings: `[[receiver]]`.
    pub section: String,
    /// The name of the section; `null` if there is only one of its kind.
    pub name: Option<String>,
    /// `added`, `removed`, `changed` or `reordered`.
    pub change: String,
}
