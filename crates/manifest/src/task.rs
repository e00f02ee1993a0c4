//! The parameters of a search.

use super::embedded::{Content, Embedded, Rule};
use super::file_name::is_json;
use super::settings::{ImageNames, ManifestSettings, SiteRule};

/// A text to search, with the names and rules that apply.
pub(crate) struct Task<'task> {
    pub(crate) role: Role<'task>,
    pub(crate) names: &'task ImageNames,
    /// The rules in the settings that apply to the text.
    pub(crate) rules: Vec<Rule<'task>>,
}

/// The kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role<'task> {
    /// A file with this name.
    File(&'task str),
    /// Helm values inside another file. Texts in these values are not searched.
    Values,
    /// A patch inside a kustomization.
    Patch,
    /// A part of an ApplicationSet, inside its file.
    Argocd,
    /// Another text inside a file, in which only rules find sites.
    Unknown,
}

impl<'task> Task<'task> {
    /// Creates the task for a whole file.
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

    /// Creates the task for a text inside a file.
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
