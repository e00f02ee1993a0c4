//! Reads the sites of one branch of a remote repository.

use anyhow::Context as _;
use url::Url;

use super::management::territory;
use super::{Found, FoundSite, UnreadFile};
use crate::config_repo::{
    Authentication, CommitSettings, ConfigRepository, EnvironmentPaths, RemoteSettings, Territory,
};
use crate::registry::install_tls_provider;
use crate::settings::{ConfigRepositorySettings, EnvironmentSettings, Settings};
use tagrelay_manifest::{Format, ManifestSettings};

const DEFAULT_BRANCH: &str = "main";

/// Reads a branch into a temporary folder. With settings, also finds the environments of each site.
///
/// # Errors
///
/// If the repository cannot be read.
pub(super) async fn read(
    url: &str,
    branch: Option<String>,
    settings: Option<&Settings>,
) -> anyhow::Result<(Found, Option<Territory>)> {
    // Errors do not repeat the URL, which may contain a password.
    let url: Url = url.parse().context("the URL is invalid")?;
    anyhow::ensure!(
        url.password().is_none(),
        "the URL contains a password, which is visible in the list of processes: put it into settings and use --config"
    );
    let known = settings.and_then(|settings| {
        settings.config_repositories.iter().find(|repository| repository.url == url).map(|known| (settings, known))
    });
    let branch = branch.or_else(|| known.map(|(_, known)| known.branch.clone()));
    let branch = branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned());
    let mirror = tempfile::tempdir().context("no temporary folder can be created")?;
    let remote = RemoteSettings {
        name: known.map_or_else(|| url.to_string(), |(_, known)| known.name.clone()),
        url,
        branch: branch.clone(),
        authentication: known.map_or(Authentication::None, |(_, known)| known.authentication.clone()),
        ca_bundle: known.and_then(|(_, known)| known.ca_bundle.clone()),
        // Nothing is committed here.
        commits: CommitSettings::default(),
        mirror: mirror.path().join("mirror"),
    };
    install_tls_provider();
    // The repository is not in the settings, so any environment may be in it.
    let is_there =
        |environment: &&EnvironmentSettings| known.is_none_or(|(_, known)| lives_on(environment, known, &branch));
    let environments: Vec<&EnvironmentSettings> =
        settings.iter().flat_map(|settings| &settings.environments).filter(is_there).collect();
    let manifests = settings.map(Settings::manifests).unwrap_or_default();
    let found = read_everything(remote, manifests, &environments).await?;
    let territory = settings.map(|_| territory(environments));
    Ok((found, territory.transpose()?))
}

fn lives_on(environment: &EnvironmentSettings, repository: &ConfigRepositorySettings, branch: &str) -> bool {
    environment.config_repository == repository.name
        && environment.branch.as_deref().unwrap_or(&repository.branch) == branch
}

/// The name under which the whole branch is read. No environment can have it.
const EVERYTHING: &str = "**";

/// Reads all sites of a branch, and those that environments inherit from bases elsewhere on it.
async fn read_everything(
    remote: RemoteSettings,
    manifests: ManifestSettings,
    environments: &[&EnvironmentSettings],
) -> anyhow::Result<Found> {
    let own = environments.iter().map(|environment| environment.in_repository());
    let everything = EnvironmentPaths { name: EVERYTHING.to_owned(), paths: vec!["**".to_owned()], manifests };
    let repository = ConfigRepository::open(remote, own.chain([everything]).collect()).await?;
    repository.refresh().await?;
    let snapshot = repository.snapshot().context("the repository was read, but has no snapshot")?;
    let mut found = Found { commit: Some(snapshot.tip.to_string()), ..Found::default() };
    for (name, environment) in &snapshot.environments {
        let is_wanted =
            |place: &&crate::config_repo::IndexedSite| name == EVERYTHING || place.format == Format::Inherited;
        for (repository, places) in &environment.sites {
            let site = |place: &crate::config_repo::IndexedSite| {
                FoundSite::new(&place.path, place.line, place.format, repository, &place.version)
            };
            found.sites.extend(places.iter().filter(is_wanted).map(site));
        }
        let problem = |problem: &crate::config_repo::FileProblem| UnreadFile {
            path: problem.path.clone(),
            reason: problem.reason.clone(),
        };
        found.problems.extend(environment.problems.iter().map(problem));
    }
    found.drop_repeated();
    Ok(found)
}
