//! Checks that Argo CD answers and has the applications that environments select.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::remotes::Read;
use super::report::Report;
use crate::argocd::{
    Access, Application, ApplicationName, ApplicationSet, ArgoCd, ArgoCdError, Member, Reach, Refresh, Selection,
    WatchedBranch, members,
};
use crate::policy::rule_for;
use crate::server::watched_branch;
use crate::settings::{EnvironmentSettings, Settings};
use tagrelay_image::Repository;

/// Reads the version of Argo CD and, with a token, the applications of each environment.
pub(super) async fn check(settings: &Settings, argocd: &ArgoCd, read: &Read, report: &mut Report) {
    let subject = "Argo CD";
    match argocd.version().await {
        Ok(version) => report.ok(subject, format!("answers; its version is {version}")),
        Err(error) => return report.fault(subject, error.to_string()),
    }
    if let Access::Webhook(_) = argocd.settings().access {
        let message = "without a token, Argo CD is only notified of pushes; rollouts are unknown";
        return report.ok(subject, message.to_owned());
    }
    for environment in &settings.environments {
        let subject = format!("applications of {}", environment.name);
        match find(settings, argocd, read, environment).await {
            Ok(Found::Applications(names)) => report.ok(&subject, names.join(", ")),
            Ok(Found::Nothing(message)) => report.warning(&subject, message),
            Err(error) => report.fault_at(environment.line, &subject, error.to_string()),
        }
    }
    if let Ok(all) = argocd.applications(None).await {
        describe(settings, argocd, read, &all, report).await;
    }
}

/// Reports for each environment which applications run which managed repositories, which repositories none runs, and which
/// applications the token may not see.
async fn describe(settings: &Settings, argocd: &ArgoCd, read: &Read, all: &[Application], report: &mut Report) {
    let sets = argocd.application_sets().await.unwrap_or_default();
    let mut known: Vec<Known<'_>> = Vec::new();
    for environment in &settings.environments {
        let Some(branch) = branch_of(settings, environment) else { continue };
        let labelled = match &environment.applications {
            Selection::Labels(labels) => {
                let found = argocd.applications(Some(labels)).await.unwrap_or_default();
                Some(found.into_iter().map(|app| app.name).collect())
            }
            Selection::Paths | Selection::Named(_) => None,
        };
        let managed = managed(settings, read, environment);
        let files = managed.values().flatten().copied().collect();
        known.push(Known { environment, branch, labelled, managed, files });
    }
    for of in &known {
        let others: Vec<Reach<'_>> =
            known.iter().filter(|other| other.environment.name != of.environment.name).map(Known::reach).collect();
        let mine = members(all, &sets, &of.reach(), &others);
        report_running(&of.environment.name, &mine, &of.managed, report);
        report_unseen(&of.environment.name, &mine, all, &sets, &of.reach(), report);
    }
}

/// An environment with what Argo CD is compared with.
struct Known<'a> {
    environment: &'a EnvironmentSettings,
    branch: WatchedBranch,
    /// The applications with its labels, if it selects by labels.
    labelled: Option<HashSet<ApplicationName>>,
    /// The managed repositories, each with the files that name it.
    managed: BTreeMap<&'a Repository, BTreeSet<&'a str>>,
    files: BTreeSet<&'a str>,
}

impl Known<'_> {
    fn reach(&self) -> Reach<'_> {
        Reach {
            branch: &self.branch,
            files: &self.files,
            selection: &self.environment.applications,
            labelled: self.labelled.as_ref(),
        }
    }
}

fn branch_of(settings: &Settings, environment: &EnvironmentSettings) -> Option<WatchedBranch> {
    let remote = settings.remotes().into_iter().find(|(_, on_it)| on_it.contains(environment))?;
    Some(watched_branch(settings, remote.0))
}

/// Returns the managed repositories of an environment, each with the files that name it.
fn managed<'a>(
    settings: &Settings,
    read: &'a Read,
    environment: &EnvironmentSettings,
) -> BTreeMap<&'a Repository, BTreeSet<&'a str>> {
    let sites = read.environments.get(&environment.name).into_iter().flat_map(|found| &found.sites);
    let managed = sites.filter(|(repository, _)| rule_for(&settings.images, repository).is_some());
    managed.map(|(repository, places)| (repository, places.iter().map(|place| place.path.as_ref()).collect())).collect()
}

fn report_running(
    environment: &str,
    mine: &[Member<'_>],
    managed: &BTreeMap<&Repository, BTreeSet<&str>>,
    report: &mut Report,
) {
    let subject = format!("running in {environment}");
    let runs = |app: &Application, repository: &Repository| !app.runs(repository, None, None).is_empty();
    let running: Vec<String> = mine
        .iter()
        .filter_map(|member| {
            let names =
                managed.keys().filter(|repository| runs(member.app, repository)).map(|repository| repository.name());
            let names: Vec<&str> = names.collect();
            (!names.is_empty()).then(|| format!("{} runs {}", member.app.name, names.join(", ")))
        })
        .collect();
    if !running.is_empty() {
        report.ok(&subject, running.join("; "));
    }
    let none: Vec<&str> = managed
        .keys()
        .filter(|repository| !mine.iter().any(|member| runs(member.app, repository)))
        .map(|repository| repository.as_str())
        .collect();
    if !none.is_empty() && !mine.is_empty() {
        let message = format!(
            "no application of it runs {}; a gate refuses these versions unless `untracked = \"allow\"`",
            none.join(", ")
        );
        report.warning(&subject, message);
    }
}

/// Reports applications that others name and the list does not have, and applications that have left the environment.
fn report_unseen(
    environment: &str,
    mine: &[Member<'_>],
    all: &[Application],
    sets: &[ApplicationSet],
    reach: &Reach<'_>,
    report: &mut Report,
) {
    let subject = format!("applications of {environment}");
    let children =
        mine.iter().flat_map(|member| member.app.children.iter().map(|name| (name, member.app.name.to_string())));
    let touched = sets.iter().filter(|set| set.is_touched_by(reach.branch, reach.files.iter().copied()));
    let products =
        touched.flat_map(|set| set.applications.iter().map(|name| (name, format!("the ApplicationSet {}", set.name))));
    for (name, by) in children.chain(products) {
        if !all.iter().any(|app| name.names(&app.name)) {
            let message =
                format!("the token may not see {name}, which {by} names: check its project and namespace rights");
            report.warning(&subject, message);
        }
    }
    let has_left = |app: &&Application| {
        app.would_read(reach.branch, reach.files.iter().copied())
            && !mine.iter().any(|member| member.app.name == app.name)
    };
    for app in all.iter().filter(has_left).filter(|_| *reach.selection == Selection::Paths) {
        let why = match app.other_revision_of(reach.branch) {
            Some(revision) if !app.is_deleted => format!("it reads `{revision}` instead of the branch"),
            _ => "it is being deleted".to_owned(),
        };
        report.warning(&subject, format!("{} does not belong to it: {why}", app.name));
    }
}

enum Found {
    Applications(Vec<String>),
    Nothing(String),
}

async fn find(
    settings: &Settings,
    argocd: &ArgoCd,
    read: &Read,
    environment: &EnvironmentSettings,
) -> Result<Found, ArgoCdError> {
    let names = |apps: &[&Application]| apps.iter().map(|app| app.name.to_string()).collect::<Vec<_>>();
    match &environment.applications {
        Selection::Named(wanted) => {
            for name in wanted {
                argocd.application(name, Refresh::No, None).await?;
            }
            Ok(Found::Applications(wanted.iter().map(ToString::to_string).collect()))
        }
        Selection::Labels(labels) => {
            let found = argocd.applications(Some(labels)).await?;
            Ok(match found.is_empty() {
                true => Found::Nothing(format!("no application has the labels {labels}, or the token may not see it")),
                false => Found::Applications(names(&found.iter().collect::<Vec<_>>())),
            })
        }
        Selection::Paths => {
            let all = argocd.applications(None).await?;
            let remote = settings.remotes().into_iter().find(|(_, on_it)| on_it.contains(environment));
            let Some((remote, _)) = remote else { return Ok(Found::Applications(Vec::new())) };
            let watched = watched_branch(settings, remote);
            let sites = read.environments.get(&environment.name);
            let places = sites.iter().flat_map(|sites| sites.sites.values()).flat_map(|places| places.iter());
            let files: BTreeSet<&str> = places.map(|place| place.path.as_ref()).collect();
            let touched = |app: &&Application| app.is_touched_by(&watched, files.iter().copied());
            let found: Vec<&Application> = all.iter().filter(touched).collect();
            Ok(if found.is_empty() {
                let reads = all.iter().filter(|app| app.reads(&watched)).count();
                Found::Nothing(format!(
                    "none of the {} applications that the token may see is made of its files ({reads} read the branch); its \
                     commits are not followed. Argo CD may know the repository by another URL (`argocd_url`)",
                    all.len()
                ))
            } else {
                Found::Applications(names(&found))
            })
        }
    }
}
