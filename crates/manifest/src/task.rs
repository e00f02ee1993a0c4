//! What is searched for in a text.

use super::embedded::{Content, Embedded, Rule};
use super::file_name::is_json;
use super::settings::{ImageNames, ManifestSettings, SiteRule};

/// What is to be found in a text.
pub(crate) struct Task<'task> {
    pub(crate) role: Role<'task>,
    pub(crate) names: &'task ImageNames,
    /// The rules of the settings that are about the text.
    pub(crate) rules: Vec<Rule<'task>>,
}

/// What the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role<'task> {
    /// A file of this name.
    File(&'task str),
    /// Helm values inside another file, which hold no further file.
    Values,
    /// A patch inside a kustomization.
    Patch,
    /// A part of an ApplicationSet inside it.
    Argocd,
    /// Something inside another file, in which only rules find sites.
    Unknown,
}

impl<'task> Task<'task> {
    /// The task for a whole file.
    pub(crate) fn of_file(path: &'task str, settings: &'task ManifestSettings) -> Self {
        let takes = |rule: &&SiteRule| rule.takes(path);
        let rules = settings.rules.iter().filter(takes).map(|rule| Rule {
            steps: &rule.path.steps,
            repository: rule.repository.as_ref(),
            part: rule.part,
        });
        Self { role: Role::File(path), names: &settings.names, rules: rules.collect() }
    }

    /// Returns whether the text is JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.role, Role::File(path) if is_json(path))
    }

    /// The task for a text inside a file.
    pub(crate) fn of_embedded(embedded: &Embedded<'task>, names: &'task ImageNames) -> Self {
        let role = match embedded.content {
            Content::Values => Role::Values,
            Content::Patch => Role::Patch,
            Content::Argocd => Role::Argocd,
            Content::Unknown => Role::Unknown,
        };
        Self { role, names, rules: embedded.rules.clone() }
    }
}
