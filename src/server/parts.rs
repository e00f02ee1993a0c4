//! Makes the parts of the pipeline from settings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use tokio::sync::watch;

use crate::argocd::{ArgoCd, WatchedBranch};
use crate::config_repo::{ConfigRepository, EnvironmentPaths, RemoteSettings};
use crate::http::{self, Reloads};
use crate::registry::Registries;
use crate::relay::{Branch, Environment, Following, Relay, UpdateMode};
use crate::settings::{self, EnvironmentSettings, Settings};
use crate::store::Retention;
use crate::telemetry::Metrics;
use tagrelay_webhook::Receiver;

/// Returns how long ended rows are kept.
///
/// At least as long as the longest duplicate window of a receiver.
pub(super) fn retention(settings: &Settings) -> Retention {
    let windows = settings.receivers.iter().map(|receiver| receiver.duplicate_window);
    let ended = windows.fold(settings.retention.ended, Duration::max);
    Retention { ended, history: settings.retention.history.max(ended) }
}

pub(super) fn receivers(settings: &Settings) -> anyhow::Result<Vec<Receiver>> {
    Ok(settings.receivers.iter().cloned().map(Receiver::new).collect::<Result<_, _>>()?)
}

pub(super) fn http_parts(
    settings: &Settings,
    relay: Relay,
    receivers: Vec<Receiver>,
    reloads: Option<Reloads>,
    stopped: watch::Receiver<bool>,
) -> http::Parts {
    let (tokens, max_body_bytes) = (settings.api_tokens.clone(), settings.server.max_body_bytes);
    http::Parts { relay, receivers, tokens, max_body_bytes, reloads, stopped }
}

/// Creates the metrics of all names in the settings with value zero.
///
/// Without this, the first failure would not show as an increase.
pub(super) fn begin_metrics(metrics: &Metrics, settings: &Settings) {
    settings.receivers.iter().for_each(|receiver| metrics.expect_receiver(&receiver.name));
    settings.environments.iter().for_each(|environment| metrics.expect_environment(&environment.name));
    if settings.argocd.is_some() {
        metrics.expect_argocd(settings.environments.iter().map(|environment| environment.name.as_str()));
    }
    settings.registry_hosts().iter().for_each(|host| metrics.expect_registry(host));
}

/// Creates the registries, and logs which of them use a cloud login that the settings do not mention.
pub(super) fn open_registries(settings: &Settings) -> anyhow::Result<Arc<Registries>> {
    let registries = Registries::open(settings.registries.clone())?;
    for host in settings.registry_hosts() {
        if let Some(login) = registries.automatic_login(host) {
            tracing::info!(registry = host, "registry {host} {login}");
        }
    }
    Ok(Arc::new(registries))
}

/// Opens each branch.
///
/// A branch of the running pipeline is reused if its settings are the same. Otherwise only the mirror is reused.
pub(super) async fn open_branches(
    settings: &Settings,
    metrics: &Metrics,
    running: Option<(&Relay, &Settings)>,
) -> anyhow::Result<Vec<Branch>> {
    let mut branches = Vec::new();
    for (remote, environments) in settings.remotes() {
        let (name, branch) = (remote.name.clone(), remote.branch.clone());
        let old = running.and_then(|(relay, old_settings)| {
            let old = relay.branches().iter().find(|old| old.repository().mirror() == remote.mirror)?;
            Some((old, is_same(old, old_settings, settings, &remote, &environments)))
        });
        let repository = match old {
            Some((old, true)) => old.repository().clone(),
            Some((old, false)) => {
                let reopened = old.repository().reopen(remote, paths(&environments)).await;
                reopened.with_context(|| cannot_be_opened(&name, &branch))?
            }
            None => open_branch(remote, &environments).await?,
        };
        let environments = environments.into_iter().map(environment).collect();
        let writing = settings.writing_of(&name);
        branches.push(Branch::new(repository, name, branch, environments, writing, metrics.clone()));
    }
    Ok(branches)
}

/// Returns the client of Argo CD with the branches and applications of each environment. `None`: no `[argocd]`.
pub(super) fn following(settings: &Settings) -> anyhow::Result<Option<Following>> {
    let Some(argocd) = &settings.argocd else { return Ok(None) };
    let branches = settings.remotes().into_iter().map(|(remote, _)| watched_branch(settings, remote)).collect();
    let selections = settings.environments.iter();
    let selections =
        selections.map(|environment| (environment.name.clone(), environment.applications.clone())).collect();
    Ok(Some(Following::new(ArgoCd::new(argocd.clone())?, branches, selections)))
}

/// Returns a branch in the form that Argo CD's applications use.
pub(crate) fn watched_branch(settings: &Settings, remote: RemoteSettings) -> WatchedBranch {
    let repository = settings.config_repositories.iter().find(|repository| repository.name == remote.name);
    WatchedBranch {
        repository: repository.and_then(|found| found.argocd_url.clone()).unwrap_or(remote.url),
        is_default: repository.is_some_and(|found| found.branch == remote.branch),
        branch: remote.branch,
    }
}

/// Returns whether the settings of a branch and its environments are unchanged.
fn is_same(
    old: &Branch,
    old_settings: &Settings,
    settings: &Settings,
    remote: &RemoteSettings,
    environments: &[EnvironmentSettings],
) -> bool {
    let has_same = |section, name: &str| old_settings.fingerprint.has_same(&settings.fingerprint, section, name);
    let names = environments.iter().map(|environment| environment.name.as_str());
    old.repository_name() == remote.name
        && old.branch_name() == remote.branch
        && has_same("[[config_repository]]", &remote.name)
        && names.clone().eq(old.environments().iter().map(|environment| environment.name.as_str()))
        && names.clone().all(|name| has_same("[[environment]]", name))
        // Image rules also define the aliases under which manifests name images.
        && old_settings.fingerprint.has_all_same(&settings.fingerprint, "[[image]]")
}

/// Opens one branch of a config repository with its environments.
pub(crate) async fn open_branch(
    remote: RemoteSettings,
    environments: &[EnvironmentSettings],
) -> anyhow::Result<ConfigRepository> {
    let (name, branch) = (remote.name.clone(), remote.branch.clone());
    let opened = ConfigRepository::open(remote, paths(environments)).await;
    opened.with_context(|| cannot_be_opened(&name, &branch))
}

fn paths(environments: &[EnvironmentSettings]) -> Vec<EnvironmentPaths> {
    environments.iter().map(EnvironmentSettings::in_repository).collect()
}

fn cannot_be_opened(name: &str, branch: &str) -> String {
    format!("config repository `{name}`, branch `{branch}`, cannot be opened")
}

fn environment(settings: EnvironmentSettings) -> Environment {
    let mode = match settings.update {
        settings::UpdateMode::Automatic => UpdateMode::Automatic,
        settings::UpdateMode::Manual => UpdateMode::Manual,
        settings::UpdateMode::Follow => UpdateMode::Follow,
    };
    let EnvironmentSettings { name, tag, promote_from, gate, freezes, .. } = settings;
    Environment { name, mode, tag, promote_from, gate, freezes }
}
