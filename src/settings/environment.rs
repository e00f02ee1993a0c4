use std::sync::Arc;
use std::time::Duration;

use super::config_repository::read_branch;
use super::names::Names;
use super::nearest::hint;
use super::paths;
use super::reader::Section;
use super::{argocd, duration, freeze, site, tag};
use crate::argocd::Selection;
use crate::config_repo::EnvironmentPaths;
use crate::policy::{FreezeSchedule, GatePolicy, GateScope, TagRule};
use tagrelay_manifest::{ImageNames, ManifestSettings, Pin};

/// `[[environment]]`: a set of paths on a branch of a config repository, with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSettings {
    /// The name that other sections refer to.
    pub name: String,
    /// The name of its config repository.
    pub config_repository: String,
    /// Its branch; `None`: the config repository's `branch`.
    pub branch: Option<String>,
    /// Globs over the config repository's paths, without `/` at either end. A folder includes everything below it.
    pub paths: Vec<String>,
    /// Whether new versions are deployed automatically.
    pub update: UpdateMode,
    /// Which tags are versions in this environment; `None`: those of the image rules.
    pub tag: Option<TagRule>,
    /// Environments whose versions may be promoted to this one.
    pub promote_from: Vec<String>,
    /// Image names, site rules and digest pinning.
    pub manifests: ManifestSettings,
    /// What a promotion needs; `None`: no gate. Applies to promotions into this environment if it has `promote_from`, otherwise to
    /// promotions out of it.
    pub gate: Option<GatePolicy>,
    /// Windows without automatic updates.
    pub freezes: FreezeSchedule,
    /// Its applications in Argo CD.
    pub applications: Selection,
    /// Its first line in the settings, from 1.
    pub line: u32,
}

impl EnvironmentSettings {
    /// Returns the part that its config repository needs.
    pub fn in_repository(&self) -> EnvironmentPaths {
        EnvironmentPaths { name: self.name.clone(), paths: self.paths.clone(), manifests: self.manifests.clone() }
    }
}

/// Whether an environment deploys announced versions automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// It deploys them at once.
    Automatic,
    /// It changes by promotion and rollback only.
    Manual,
    /// As manual, and versions of the environments in `promote_from` move on by themselves.
    Follow,
}

pub(super) fn read(section: Section<'_>, names: &Names, image_names: &Arc<ImageNames>) -> Option<EnvironmentSettings> {
    let name = section.name();
    let config_repository = names.config_repository_of(section);
    let branch = read_branch(section);
    let paths = paths::read(section);
    let update = read_update(section);
    let tag = tag::read_own(section);
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
        tag,
        promote_from,
        manifests,
        gate: read_gate(section),
        freezes,
        applications: argocd::read_selection(section),
        line: section.report().line(section.offset),
    })
}

/// Reads `update`. The default is `manual`, so that nothing is deployed by accident.
fn read_update(section: Section<'_>) -> UpdateMode {
    let Some(text) = section.text("update") else { return UpdateMode::Manual };
    match text.value {
        "automatic" => return UpdateMode::Automatic,
        "follow" => return UpdateMode::Follow,
        "manual" => {}
        "pull-request" => {
            let hint = "use `automatic`, `manual` or `follow` with this version".to_owned();
            section.report().fault_with_hint(text.offset, "update = \"pull-request\" is not supported yet", hint);
        }
        other => {
            let message = format!("`update`: unknown value `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["automatic", "manual", "follow"]));
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
            let message = format!("`pin`: unknown value `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["digest", "keep"]));
        }
    }
    Pin::Keep
}

/// A longer soak time than a month is a mistake.
const SOAKS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 60 * 60);

/// A promotion that waits for a month is forgotten.
const WAITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 60 * 60);

/// Reads `promote_when`, `soak`, `gate`, `untracked` and `wait_timeout`. `soak` implies `promote_when = "healthy"`.
fn read_gate(section: Section<'_>) -> Option<GatePolicy> {
    let when = section.text("promote_when");
    if let Some(when) = when.filter(|when| when.value != "healthy") {
        let message = format!("`promote_when`: unknown value `{}`", when.value.escape_debug());
        section.report().fault_with_hint(when.offset, message, hint(when.value, ["healthy"]));
    }
    let soak = duration::read(section, "soak", SOAKS);
    let scope = read_scope(section);
    let allow_untracked = read_untracked(section);
    let wait_timeout = duration::read(section, "wait_timeout", WAITS).unwrap_or(GatePolicy::DEFAULT_WAIT_TIMEOUT);
    let asks = section.has("promote_when") || section.has("soak");
    if !asks {
        for key in ["gate", "untracked", "wait_timeout"].into_iter().filter(|key| section.has(key)) {
            let hint = "add `promote_when = \"healthy\"`, or remove it".to_owned();
            let message = format!("`{key}` has no effect: the environment has no gate");
            section.report().fault_with_hint(section.offset_of(key), message, hint);
        }
    }
    asks.then_some(GatePolicy { soak: soak.unwrap_or(Duration::ZERO), scope, allow_untracked, wait_timeout })
}

fn read_scope(section: Section<'_>) -> GateScope {
    let Some(text) = section.text("gate") else { return GateScope::Version };
    let known = GateScope::ALL.iter().find(|scope| scope.as_str() == text.value);
    if known.is_none() {
        let message = format!("`gate`: unknown value `{}`", text.value.escape_debug());
        let words = GateScope::ALL.iter().map(|scope| scope.as_str());
        section.report().fault_with_hint(text.offset, message, hint(text.value, words));
    }
    known.copied().unwrap_or(GateScope::Version)
}

/// Reads `untracked`. Returns whether versions pass that no application runs; default: they do not.
pub(super) fn read_untracked(section: Section<'_>) -> bool {
    let Some(text) = section.text("untracked") else { return false };
    match text.value {
        "allow" => return true,
        "refuse" => {}
        other => {
            let message = format!("`untracked`: unknown value `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["refuse", "allow"]));
        }
    }
    false
}

fn read_promote_from(section: Section<'_>, own: &str, names: &Names) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for from in section.texts("promote_from").unwrap_or_default() {
        let shown = from.value.escape_debug();
        if from.value == own {
            section.report().fault(from.offset, format!("`promote_from`: `{shown}` is the environment itself"));
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
