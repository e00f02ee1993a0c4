//! Checks that config repositories can be read, and that image rules and environments match sites in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::join_all;

use super::report::Report;
use super::trial::{self, Refusals};
use crate::config_repo::{EnvironmentSites, RemoteSettings, Snapshot};
use crate::policy::rule_for;
use crate::server::open_branch;
use crate::settings::{EnvironmentSettings, Settings};
use tagrelay_image::Repository;

/// The config repositories that could be read.
pub(super) struct Read {
    /// The sites by environment.
    pub(super) environments: BTreeMap<String, Arc<EnvironmentSites>>,
    /// Managed sites that would refuse a new version.
    refusals: Refusals,
    /// Whether all branches could be read.
    is_whole: bool,
}

/// Reads every branch into a temporary folder: a running service may be using the mirrors.
///
/// # Errors
///
/// If no temporary folder can be created.
pub(super) async fn read(settings: &Settings, report: &mut Report) -> anyhow::Result<Read> {
    let folder = tempfile::tempdir().context("no temporary folder can be created")?;
    let reading = settings.remotes().into_iter().enumerate().map(|(index, (remote, environments))| {
        let remote = RemoteSettings { mirror: folder.path().join(index.to_string()), ..remote };
        let subject = format!("config repository {}, branch {}", remote.name, remote.branch);
        async move { (subject, read_one(remote, &environments, settings).await) }
    });
    let mut read = Read { environments: BTreeMap::new(), refusals: Refusals::new(), is_whole: true };
    for (subject, result) in join_all(reading).await {
        match result {
            Ok((snapshot, refusals)) => {
                report.ok(&subject, format!("can be read; it is at {}", snapshot.tip.short()));
                read.environments.extend(snapshot.environments.clone());
                read.refusals.extend(refusals);
            }
            Err(error) => {
                report.fault(&subject, format!("{error:#}"));
                read.is_whole = false;
            }
        }
    }
    Ok(read)
}

async fn read_one(
    remote: RemoteSettings,
    environments: &[EnvironmentSettings],
    settings: &Settings,
) -> anyhow::Result<(Arc<Snapshot>, Refusals)> {
    let repository = open_branch(remote, environments).await?;
    repository.refresh().await?;
    let snapshot = repository.snapshot().context("the branch was read, but has no snapshot")?;
    let refusals = trial::refusals(&repository, &snapshot, &settings.images).await?;
    Ok((snapshot, refusals))
}

/// Checks that each environment has a managed site. Warns about sites that would refuse a new version, and files that cannot
/// be read.
pub(super) fn check_environments(settings: &Settings, read: &Read, report: &mut Report) {
    for environment in &settings.environments {
        // An unreadable branch has been reported already.
        let Some(sites) = read.environments.get(&environment.name) else { continue };
        let subject = format!("environment {}", environment.name);
        let count = |is_counted: &dyn Fn(&Repository) -> bool| -> usize {
            sites.sites.iter().filter(|(repository, _)| is_counted(repository)).map(|(_, places)| places.len()).sum()
        };
        let all = count(&|_| true);
        let managed = count(&|repository| rule_for(&settings.images, repository).is_some());
        if managed == 0 {
            let paths = environment.paths.join(", ");
            let message = match all {
                0 => format!("no file in {paths} names an image with a tag or digest; check `paths`"),
                _ => format!("no [[image]] rule matches any of the {all} sites in {paths}"),
            };
            report.fault_at(environment.line, &subject, message);
        } else {
            report.ok(&subject, format!("{managed} of {all} sites are managed"));
        }
        for reason in read.refusals.get(&environment.name).into_iter().flatten() {
            report.warning(&subject, format!("a new version would be refused: {reason}"));
        }
        for problem in &sites.problems {
            report.warning(&subject, format!("{} is ignored: {}", problem.path, problem.reason));
        }
    }
}

/// Checks that each image rule matches a site. Skipped if a branch could not be read: the site may be there.
pub(super) fn check_rules(settings: &Settings, read: &Read, report: &mut Report) {
    if !read.is_whole {
        return;
    }
    for (index, rule) in settings.images.iter().enumerate() {
        let manages = |repository: &Repository| {
            rule_for(&settings.images, repository).is_some_and(|found| std::ptr::eq(found, rule))
        };
        let is_used = read.environments.values().flat_map(|sites| sites.sites.keys()).any(manages);
        if !is_used {
            let message = "it matches no site in any environment, so it has no effect".to_owned();
            let subject = format!("image rule {}", rule.pattern.as_str());
            report.fault_at(settings.image_lines.get(index).copied().unwrap_or_default(), &subject, message);
        }
    }
}
