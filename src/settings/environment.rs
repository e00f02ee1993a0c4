use std::sync::Arc;
use std::time::Duration;

use super::config_repository::read_branch;
use super::names::Names;
use super::nearest::hint;
use super::paths;
use super::reader::Section;
use super::{argocd, duration, freeze, site};
use crate::argocd::Selection;
use crate::config_repo::EnvironmentPaths;
use crate::manifest::{ImageNames, ManifestSettings, Pin};
use crate::policy::FreezeSchedule;

/// `[[environment]]`: a set of paths on a branch of a config repository, with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSettings {
    /// Its name.
    pub name: String,
    /// The name of its config repository.
    pub config_repository: String,
    /// Its branch, where that is not the config repository's.
    pub branch: Option<String>,
    /// Globs over the paths of the config repository, `/` between components and none at either end; a folder
    /// means everything below it.
    pub paths: Vec<String>,
    /// What happens to new versions.
    pub update: UpdateMode,
    /// The environments whose versions may be promoted to this one.
    pub promote_from: Vec<String>,
    /// What is said about its manifests.
    pub manifests: ManifestSettings,
    /// How long the source of a promotion must have been healthy, zero where it has to be healthy only; `None`: promotions
    /// do not ask. Where it takes promotions it is about those, else about promotions that come from it.
    pub soak: Option<Duration>,
    /// When it takes nothing by itself.
    pub freezes: FreezeSchedule,
    /// Its applications in Argo CD.
    pub applications: Selection,
    /// The line of the settings on which it begins, from 1.
    pub line: u32,
}

impl EnvironmentSettings {
    /// Returns what its config repository has to know of it.
    pub fn in_repository(&self) -> EnvironmentPaths {
        EnvironmentPaths { name: self.name.clone(), paths: self.paths.clone(), manifests: self.manifests.clone() }
    }
}

/// What an environment does with a version that a registry announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Takes it at once.
    Automatic,
    /// Waits for a promotion.
    Manual,
}

pub(super) fn read(section: Section<'_>, names: &Names, image_names: &Arc<ImageNames>) -> Option<EnvironmentSettings> {
    let name = section.name();
    let config_repository = names.config_repository_of(section);
    let branch = read_branch(section);
    let paths = paths::read(section);
    let update = read_update(section);
    let own = name.as_ref().map_or("", |name| name.value.as_str());
    let promote_from = read_promote_from(section, own, names);
    let pin = read_pin(section);
    let freezes = freeze::read(section);
    let paths = paths?;
    let manifests = ManifestSettings { names: image_names.clone(), rules: site::read(section, &paths), pin };
    Some(EnvironmentSettings {
        name: name?.value,
        config_repository: config_repository?,
        branch,
        paths,
        update,
        promote_from,
        manifests,
        soak: read_gate(section),
        freezes,
        applications: argocd::read_selection(section),
        line: section.report().line(section.offset),
    })
}

/// The careful one is the default: nothing moves that nobody asked for.
fn read_update(section: Section<'_>) -> UpdateMode {
    let Some(text) = section.text("update") else { return UpdateMode::Manual };
    match text.value {
        "automatic" => return UpdateMode::Automatic,
        "manual" => {}
        "pull-request" => {
            let hint = "use `automatic` or `manual` with this version".to_owned();
            section.report().fault_with_hint(text.offset, "update = \"pull-request\" is not supported yet", hint);
        }
        other => {
            let message = format!("`update`: there is no way of updating called `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["automatic", "manual"]));
        }
    }
    UpdateMode::Manual
}

fn read_pin(section: Section<'_>) -> Pin {
    let Some(text) = section.text("pin") else { return Pin::Keep };
    match text.value {
        "digest" => return Pin::Digest,
        "keep" => {}
        other => {
            let message = format!("`pin`: nothing is pinned by `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["digest", "keep"]));
        }
    }
    Pin::Keep
}

/// A version that has not run for a month is not tried by waiting another one.
const SOAKS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 60 * 60);

/// Returns how long the source of a promotion must have been healthy; `soak` alone says that it has to be, too.
fn read_gate(section: Section<'_>) -> Option<Duration> {
    let when = section.text("promote_when");
    if let Some(when) = when.filter(|when| when.value != "healthy") {
        let message = format!("`promote_when`: there is no condition called `{}`", when.value.escape_debug());
        section.report().fault_with_hint(when.offset, message, hint(when.value, ["healthy"]));
    }
    let soak = duration::read(section, "soak", SOAKS);
    let asks = section.has("promote_when") || section.has("soak");
    asks.then_some(soak.unwrap_or(Duration::ZERO))
}

fn read_promote_from(section: Section<'_>, own: &str, names: &Names) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for from in section.texts("promote_from").unwrap_or_default() {
        let shown = from.value.escape_debug();
        if from.value == own {
            section.report().fault(from.offset, format!("`promote_from`: `{shown}` is this environment itself"));
        } else if !names.environments.iter().any(|known| known == from.value) {
            let message = format!("`promote_from`: there is no [[environment]] called `{shown}`");
            let others = names.environments.iter().map(String::as_str).filter(|name| *name != own);
            section.report().fault_with_hint(from.offset, message, hint(from.value, others));
        } else if found.iter().any(|known| known == from.value) {
            section.report().fault(from.offset, format!("`promote_from` names `{shown}` twice"));
        } else {
            found.push(from.value.to_owned());
        }
    }
    found
}
