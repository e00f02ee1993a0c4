//! A config repository opened on a remote, and helpers for plans.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tagrelay::config_repo::{
    Authentication, CommitSettings, ConfigRepository, EnvironmentPaths, EnvironmentPlan, Identity, Outcome, Plan,
    Prepared, PushError, RemoteSettings, WantedVersion,
};
use tagrelay_image::Version;
use tagrelay_manifest::ManifestSettings;
pub use tagrelay_test_support::fleet::deployment;
use tempfile::TempDir;

/// The mirror's folder and the settings.
pub struct Setup {
    pub folder: TempDir,
    pub settings: RemoteSettings,
    pub environments: Vec<EnvironmentPaths>,
}

impl Setup {
    pub fn new(url: &str) -> Self {
        // The built program installs it in `main`. A second installation fails without harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        let settings = RemoteSettings {
            name: "platform".to_owned(),
            url: url.parse().unwrap(),
            branch: "main".to_owned(),
            authentication: Authentication::None,
            ca_bundle: None,
            commits: CommitSettings::by(Identity {
                name: "Tagrelay".to_owned(),
                email: "tagrelay@example.com".to_owned(),
            }),
            mirror: folder.path().join("mirror.git"),
        };
        let environments = ["staging", "production"].map(|name| EnvironmentPaths {
            name: name.to_owned(),
            paths: vec![format!("environments/{name}/**")],
            manifests: ManifestSettings::default(),
        });
        Self { folder, settings, environments: environments.into() }
    }

    pub fn with_authentication(mut self, authentication: Authentication) -> Self {
        self.settings.authentication = authentication;
        self
    }

    pub fn mirror(&self) -> &Path {
        &self.settings.mirror
    }

    pub async fn open(&self) -> ConfigRepository {
        ConfigRepository::open(self.settings.clone(), self.environments.clone()).await.unwrap()
    }

    /// The view of another process: the same remote, another mirror.
    pub async fn open_rival(&self, name: &str) -> ConfigRepository {
        let settings = RemoteSettings { mirror: self.folder.path().join(name), ..self.settings.clone() };
        ConfigRepository::open(settings, self.environments.clone()).await.unwrap()
    }
}

/// An open repository that keeps its temporary folder.
pub struct Opened {
    repository: ConfigRepository,
    _folder: TempDir,
}

impl std::ops::Deref for Opened {
    type Target = ConfigRepository;

    fn deref(&self) -> &ConfigRepository {
        &self.repository
    }
}

impl Setup {
    /// Opens the repository if the test needs nothing else of the setup.
    pub async fn open_kept(self) -> Opened {
        Opened { repository: self.open().await, _folder: self.folder }
    }
}

pub fn version(tag: &str) -> Version {
    Version::tagged(tag.parse().unwrap(), None)
}

/// A plan for one environment. `wanted` is image and tag; keys are `image:tag`.
pub fn plan(environment: &str, wanted: &[(&str, &str)]) -> Plan {
    Plan { environments: vec![environment_plan(environment, wanted)] }
}

pub fn environment_plan(environment: &str, wanted: &[(&str, &str)]) -> EnvironmentPlan {
    let wanted = wanted.iter().map(|(image, tag)| WantedVersion {
        key: format!("{image}:{tag}"),
        repository: image.parse().unwrap(),
        version: version(tag),
    });
    EnvironmentPlan { environment: environment.to_owned(), wanted: wanted.collect() }
}

/// Prepares a push with a message that lists the keys.
pub async fn prepare(repository: &ConfigRepository, plan: Plan) -> Prepared {
    repository
        .prepare(
            plan,
            Arc::new(|commit| {
                let keys: Vec<&str> = commit.changes.iter().map(|(key, _)| key.as_str()).collect();
                format!("{}: {}", commit.environments.join(", "), keys.join(", "))
            }),
        )
        .await
        .unwrap()
}

/// Like the caller of a config repository: prepares and pushes, and repeats after a lost race or answer.
pub async fn apply(repository: &ConfigRepository, plan: Plan) -> Vec<(String, Outcome)> {
    for _ in 0..100 {
        let prepared = prepare(repository, plan.clone()).await;
        let outcomes = prepared.outcomes().to_vec();
        match repository.push(prepared).await {
            Ok(()) => return outcomes,
            Err(PushError::Outdated { .. } | PushError::Unknown { .. }) => {
                repository.refresh().await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a hundred races were lost");
}

/// The indexed versions of an image in an environment.
pub fn versions(repository: &ConfigRepository, environment: &str, image: &str) -> Vec<String> {
    let snapshot = repository.snapshot().unwrap();
    let places = snapshot.environments[environment].sites.get(&image.parse().unwrap()).cloned().unwrap_or_default();
    places.iter().map(|place| place.version.to_string()).collect()
}

/// The packs of a mirror.
pub fn packs(mirror: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(mirror.join("objects/pack")).unwrap();
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "pack")).collect()
}
