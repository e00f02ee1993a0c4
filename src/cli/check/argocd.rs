//! Checks that Argo CD answers and has the applications that environments select.

use std::collections::BTreeSet;

use super::remotes::Read;
use super::report::Report;
use crate::argocd::{Access, Application, ArgoCd, ArgoCdError, Refresh, Selection};
use crate::server::watched_branch;
use crate::settings::{EnvironmentSettings, Settings};

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
