//! Checks whether the applications of an environment run the versions to be promoted from it.
//!
//! The promoted versions are those on the branch. An application runs them if the commit that Argo CD compares it with names the
//! same versions in the files of the application. That commit is read; the order of commits does not matter. So commits of other
//! writers, an Argo CD behind the tip and restarts need no special case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Following;
use crate::argocd::{Application, ApplicationName, ArgoCdError, Refresh, WatchedBranch};
use crate::config_repo::{CommitId, IndexedSite, Snapshot};
use crate::domain::runs;
use crate::relay::branch::sites;
use crate::relay::matrix::versions;
use crate::relay::{Branch, Relay};
use tagrelay_image::{Repository, Version};

/// A repository and its promoted version.
pub(in crate::relay) type Promoted = (Repository, Version);

/// The most concurrent requests to Argo CD.
const AT_ONCE: usize = 32;

/// The versions that an application must run, with the files that name them.
type Wanted<'a> = BTreeMap<&'a Repository, (&'a Version, BTreeSet<Arc<str>>)>;

impl Relay {
    /// Returns the applications of an environment that do not run the promoted versions, with the reasons, as text.
    ///
    /// `list`: the applications of the environment.
    pub(super) async fn behind(
        &self,
        following: &Following,
        environment: &str,
        list: &[Application],
        promoted: &[Promoted],
    ) -> Vec<String> {
        let (Some(branch), Some(watched)) = (self.branch_of(environment), self.watched(following, environment)) else {
            return Vec::new();
        };
        let Some(snapshot) = branch.snapshot() else { return vec!["the branch has not been read yet".to_owned()] };
        let wanted = wanted(&snapshot, environment, (list, watched), promoted);
        let wanted: Vec<(ApplicationName, Wanted<'_>)> = wanted.into_iter().collect();
        let mut behind = Vec::new();
        for some in wanted.chunks(AT_ONCE) {
            let asked = some.iter().map(async |(name, wanted)| {
                let found = following.argocd.application(name, Refresh::No, None).await;
                self.count("get", found.as_ref().err());
                let why = why_behind(branch, environment, watched, &found, wanted).await?;
                Some(format!("application {name} {why}"))
            });
            behind.extend(futures_util::future::join_all(asked).await.into_iter().flatten());
        }
        behind
    }
}

/// Returns the versions that each application must run.
///
/// A file that belongs to no known application counts for all of them: they may include it indirectly, as overlays include a
/// base.
fn wanted<'a>(
    snapshot: &Snapshot,
    environment: &str,
    (list, watched): (&[Application], &WatchedBranch),
    promoted: &'a [Promoted],
) -> BTreeMap<ApplicationName, Wanted<'a>> {
    let parts: Vec<_> = list.iter().map(|app| (app, app.is_made_of(watched))).collect();
    let mut all: BTreeMap<ApplicationName, Wanted<'a>> = BTreeMap::new();
    for (repository, version) in promoted {
        let places = places(snapshot, environment, repository);
        for path in places.iter().map(|place| &place.path) {
            let is_made_of_it = |(_, is_part): &&(&Application, Option<_>)| is_touched(is_part.as_ref(), path);
            let mut apps: Vec<&Application> = parts.iter().filter(is_made_of_it).map(|(app, _)| *app).collect();
            if apps.is_empty() {
                apps = list.iter().collect();
            }
            for app in apps {
                let wanted = all.entry(app.name.clone()).or_default();
                wanted.entry(repository).or_insert_with(|| (version, BTreeSet::new())).1.insert(path.clone());
            }
        }
    }
    all
}

fn is_touched(is_part: Option<&impl Fn(&str) -> bool>, path: &str) -> bool {
    is_part.is_some_and(|is_part| is_part(path))
}

fn places<'a>(snapshot: &'a Snapshot, environment: &str, repository: &Repository) -> &'a [IndexedSite] {
    let found = sites(snapshot, environment).and_then(|found| found.sites.get(repository));
    found.map(|places| places.as_slice()).unwrap_or_default()
}

/// Returns why an application does not run the wanted versions; `None`: it runs them.
async fn why_behind(
    branch: &Branch,
    environment: &str,
    watched: &WatchedBranch,
    found: &Result<Application, ArgoCdError>,
    wanted: &Wanted<'_>,
) -> Option<String> {
    let app = match found {
        Ok(app) => app,
        Err(error) => return Some(format!("its commit cannot be read: {error}")),
    };
    // Checked again, because the list is older than this response.
    if app.is_syncing || !app.is_healthy() {
        let syncing = if app.is_syncing { ", and is being synced" } else { "" };
        return Some(format!("is {} and {}{syncing}", app.sync.as_str(), app.health.as_str()));
    }
    let Some(revision) = app.revision_in(watched) else {
        return Some("has no commit yet: Argo CD has not read the branch".to_owned());
    };
    let short = revision.get(..7).unwrap_or(revision);
    let tip = branch.tip().map(|tip| tip.to_string()).unwrap_or_default();
    let tip = tip.get(..7).unwrap_or("its tip");
    let read = match revision.parse::<CommitId>() {
        Ok(commit) => branch.repository().snapshot_at(commit).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let past = match read {
        Ok(past) => past,
        Err(error) => {
            return Some(format!("is at commit {short}, which cannot be read ({error}); the branch is at {tip}"));
        }
    };
    wanted.iter().find_map(|(repository, (version, paths))| {
        let then = places(&past, environment, repository).iter();
        let then: Vec<IndexedSite> = then.filter(|place| paths.contains(&place.path)).cloned().collect();
        let is_there = paths.iter().all(|path| then.iter().any(|place| place.path == *path));
        let said = versions(&then);
        if is_there && runs(&said, version) {
            return None;
        }
        let said: Vec<String> = said.iter().map(Version::short).collect();
        let said = if said.is_empty() { "nothing".to_owned() } else { said.join(" and ") };
        let (name, version) = (repository.name(), version.short());
        Some(format!("is at commit {short} with {name} {said}; it must run {version} (branch at {tip})"))
    })
}
