//! The temporary folder of the demo: settings, secrets, store, config repository and log.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use ring::rand::{SecureRandom as _, SystemRandom};
use tempfile::TempDir;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;
use url::Url;

/// The receiver that the registry notifies.
pub(super) const REGISTRY_RECEIVER: &str = "registry";
/// The receiver for requests by hand or from CI.
pub(super) const CI_RECEIVER: &str = "ci";
/// The name of the API token.
pub(super) const API_TOKEN: &str = "demo";

/// Only the user who runs the demo may enter the folder.
pub(super) struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Creates the folder in the system's folder for temporary files.
    pub(super) fn create() -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("tagrelay-demo-").permissions(Permissions::from_mode(0o700)).tempdir();
        let place = std::env::temp_dir();
        let folder = folder
            .with_context(|| format!("no folder can be created in {}: set TMPDIR to another one", place.display()))?;
        std::fs::create_dir(folder.path().join("secrets"))
            .with_context(|| format!("{} cannot be written", folder.path().display()))?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config_repository(&self) -> PathBuf {
        self.path().join("platform-config.git")
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.path().join("tagrelay.toml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path().join("tagrelay.log")
    }

    /// Returns the file of a secret.
    pub(super) fn secret(&self, name: &str) -> PathBuf {
        self.path().join("secrets").join(name)
    }

    /// Creates a random secret, writes it to its file and returns it.
    pub(super) fn make_secret(&self, name: &str) -> anyhow::Result<String> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
        let secret = hex::encode(bytes);
        write_private(&self.secret(name), &format!("{secret}\n"))?;
        Ok(secret)
    }

    /// Writes settings for a server on `port` (0: a free one) that manages the images of the registry `host`.
    pub(super) fn write_settings(&self, host: &str, port: u16) -> anyhow::Result<()> {
        let repository = self.config_repository();
        let url = Url::from_file_path(&repository).map_err(|()| {
            anyhow!("{} cannot be written as a URL: set TMPDIR to another folder", repository.display())
        })?;
        let store = self.path().join("tagrelay.db");
        let text = format!(
            r#"# Written by `tagrelay demo`.
[server]
listen = {listen}

[store]
url = {store}

[[config_repository]]
name = "platform"
url = {url}
branch = "main"
author = "Tagrelay <tagrelay@example.com>"

[[environment]]
name = "development"
paths = ["environments/development/**"]
update = "automatic"
tag = {{ kind = "commit-sha", prefix = "dev-" }}

[[environment]]
name = "staging"
paths = ["environments/staging/**"]
update = "automatic"

[[environment]]
name = "production"
paths = ["environments/production/**"]
update = "manual"
promote_from = ["staging"]

[[image]]
repository = {images}
tag = {{ kind = "commit-sha" }}

[[registry]]
host = {host}
plain_http = true

[[receiver]]
name = "{REGISTRY_RECEIVER}"
kind = "distribution"
secret = {{ file = {registry_secret} }}

[[receiver]]
name = "{CI_RECEIVER}"
kind = "generic"
secret = {{ file = {ci_secret} }}

[[api_token]]
name = "{API_TOKEN}"
token = {{ file = {api_token} }}
permissions = ["admin"]
"#,
            listen = quoted(&format!("127.0.0.1:{port}")),
            store = quoted(&format!("sqlite:{}", text_of(&store)?)),
            url = quoted(url.as_str()),
            images = quoted(&format!("{host}/uyou/*")),
            host = quoted(host),
            registry_secret = quoted(text_of(&self.secret(REGISTRY_RECEIVER))?),
            ci_secret = quoted(text_of(&self.secret(CI_RECEIVER))?),
            api_token = quoted(text_of(&self.secret(API_TOKEN))?),
        );
        write_private(&self.settings(), &text)
    }

    /// Writes the log of this process to the folder, so that it does not mix with the output of the tour.
    ///
    /// `TAGRELAY_LOG` sets the levels. Does nothing if a log was started already, as in tests.
    pub(super) fn take_log(&self) -> anyhow::Result<()> {
        let path = self.log();
        let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        let filter = EnvFilter::builder().with_env_var("TAGRELAY_LOG").try_from_env();
        let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
        let layer = tracing_subscriber::fmt::layer().with_writer(std::sync::Mutex::new(file)).with_ansi(false);
        drop(tracing_subscriber::registry().with(filter).with(layer.with_target(false)).try_init());
        Ok(())
    }

    /// Returns at most `at_most` of the last warnings and errors of the log.
    pub(super) fn complaints(&self, at_most: usize) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let is_complaint = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
        complaints[complaints.len().saturating_sub(at_most)..].iter().map(|line| (*line).to_owned()).collect()
    }

    pub(super) fn remove(self) -> anyhow::Result<()> {
        let path = self.path().to_owned();
        self.folder.close().with_context(|| format!("{} cannot be removed: remove it by hand", path.display()))
    }
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn text_of(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8: set TMPDIR to another folder", path.display()))
}

/// Quotes a text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn settings_load_and_secrets_are_private() {
        let workspace = Workspace::create().unwrap();
        let path = workspace.path().to_owned();
        let secrets = [REGISTRY_RECEIVER, CI_RECEIVER, API_TOKEN].map(|name| workspace.make_secret(name).unwrap());
        assert_ne!(secrets[0], secrets[1]);
        workspace.write_settings("127.0.0.1:5000", 0).unwrap();
        let settings = Settings::load(&workspace.settings()).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
        assert_eq!(settings.receivers.len(), 2);
        for file in [workspace.secret(API_TOKEN), workspace.settings()] {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        workspace.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn last_warnings_are_found_in_the_log() {
        let workspace = Workspace::create().unwrap();
        assert!(workspace.complaints(2).is_empty(), "there is no log yet");
        let log = "2026-11-23T08:00:00Z  WARN one\n2026-11-23T08:00:01Z  INFO two\n2026-11-23T08:00:02Z ERROR three\n\
                   2026-11-23T08:00:03Z  WARN four\n";
        std::fs::write(workspace.log(), log).unwrap();
        assert_eq!(workspace.complaints(2), ["2026-11-23T08:00:02Z ERROR three", "2026-11-23T08:00:03Z  WARN four"]);
    }

    #[test]
    fn odd_characters_are_quoted_in_toml() {
        assert_eq!(quoted(r#"/tmp/a"b\c"#).parse::<toml::Value>().unwrap().as_str(), Some(r#"/tmp/a"b\c"#));
    }
}
