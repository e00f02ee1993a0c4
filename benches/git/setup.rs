//! A config repository opened on a remote, and plans for it.

use std::path::PathBuf;
use std::sync::Arc;

use tagrelay::config_repo::{
    Authentication, CommitSettings, ConfigRepository, EnvironmentPaths, EnvironmentPlan, Identity, Plan, PlannedCommit,
    Prepared, RemoteSettings, WantedVersion,
};
use tagrelay_image::Version;
use tagrelay_manifest::ManifestSettings;
use tempfile::TempDir;

/// The settings of a mirror, and the folder that holds it.
pub struct Setup {
    pub settings: RemoteSettings,
    environments: Vec<EnvironmentPaths>,
    _folder: TempDir,
}

impl Setup {
    pub fn new(url: &str, authentication: Authentication, ca_bundle: Option<PathBuf>) -> Self {
        let folder = TempDir::new().unwrap();
        let author = Identity { name: "Tagrelay".to_owned(), email: "tagrelay@example.com".to_owned() };
        let settings = RemoteSettings {
            name: "platform".to_owned(),
            url: url.parse().unwrap(),
            branch: "main".to_owned(),
            authentication,
            ca_bundle,
            commits: CommitSettings::by(author),
            mirror: folder.path().join("mirror.git"),
        };
        let environments = ["staging", "production"].map(|name| EnvironmentPaths {
            name: name.to_owned(),
            paths: vec![format!("environments/{name}/**")],
            manifests: ManifestSettings::default(),
        });
        Self { settings, environments: environments.into(), _folder: folder }
    }

    pub async fn open(&self) -> ConfigRepository {
        ConfigRepository::open(self.settings.clone(), self.environments.clone()).await.unwrap()
    }
}

/// A plan for one environment; `wanted` is image and tag, and the key is `image:tag`.
pub fn environment_plan(environment: &str, wanted: &[(&str, &str)]) -> EnvironmentPlan {
    let wanted = wanted.iter().map(|(image, tag)| WantedVersion {
        key: format!("{image}:{tag}"),
        repository: image.parse().unwrap(),
        version: Version::tagged(tag.parse().unwrap(), None),
    });
    EnvironmentPlan { environment: environment.to_owned(), wanted: wanted.collect() }
}

pub fn plan(environment: &str, wanted: &[(&str, &str)]) -> Plan {
    Plan { environments: vec![environment_plan(environment, wanted)] }
}

/// Prepares with a message that names the keys.
pub async fn prepare(repository: &ConfigRepository, plan: Plan) -> Prepared {
    let message = |commit: &PlannedCommit| {
        let keys: Vec<&str> = commit.changes.iter().map(|(key, _)| key.as_str()).collect();
        format!("{}: {}", commit.environments.join(", "), keys.join(", "))
    };
    repository.prepare(plan, Arc::new(message)).await.unwrap()
}
