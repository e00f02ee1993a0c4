//! Accounts from a Docker config file, such as a mounted `kubernetes.io/dockerconfigjson` Secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::Deserialize;

use super::host_pattern::HostPattern;

/// An account of a Docker config file.
#[derive(Debug, Clone)]
pub(super) enum Account {
    /// `auth`, or `username` and `password`.
    Password { username: String, password: SecretString },
    /// `identitytoken`: an OAuth 2.0 refresh token, which the token service exchanges.
    IdentityToken(SecretString),
}

/// Why a Docker config file cannot be used. The message quotes no value of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// The file cannot be read.
    #[error("the file {path} cannot be read: {reason}")]
    Unreadable {
        path: PathBuf,
        /// The operating system's error.
        reason: String,
    },
    /// The content is not a Docker config.
    #[error("the file {path} is not a Docker config: {reason}")]
    Invalid {
        path: PathBuf,
        /// The position or the faulty entry.
        reason: String,
    },
}

/// A Docker config file. The file is read at each login, so a rotated Secret needs no restart.
pub(super) struct DockerConfig {
    path: PathBuf,
    /// The last content that could be read. It stays in use while the file cannot be read.
    last: Mutex<Option<Arc<Entries>>>,
}

impl DockerConfig {
    /// Reads the file for the first time.
    pub(super) fn open(path: PathBuf) -> Result<Self, DockerConfigError> {
        let entries = Entries::read(&path)?;
        Ok(Self { path, last: Mutex::new(Some(Arc::new(entries))) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the account for a repository; `None`: the file has no matching account.
    pub(super) fn account(&self, host: &str, path: &str) -> Result<Option<Account>, DockerConfigError> {
        Ok(self.entries()?.account(host, path).cloned())
    }

    /// Returns the accounts for a host, whatever the repository, as of the last login.
    pub(super) fn accounts_of(&self, host: &str) -> Vec<Account> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let entries = last.iter().flat_map(|entries| &entries.list);
        entries.filter(|entry| entry.host.matches(host)).map(|entry| entry.account.clone()).collect()
    }

    fn entries(&self) -> Result<Arc<Entries>, DockerConfigError> {
        let read = Entries::read(&self.path);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, last.as_ref()) {
            (Ok(entries), _) => Ok(Arc::clone(last.insert(Arc::new(entries)))),
            (Err(error), Some(entries)) => {
                tracing::warn!(%error, "docker_config: {error}; its last credentials stay in use");
                Ok(Arc::clone(entries))
            }
            (Err(error), None) => Err(error),
        }
    }
}

/// Returns the names of the credential helpers in a Docker config file, which Tagrelay does not run.
///
/// # Errors
///
/// The file cannot be read, or is not a Docker config.
pub fn docker_config_helpers(path: &Path) -> Result<Vec<String>, DockerConfigError> {
    Entries::read(path).map(|entries| entries.helpers)
}

struct Entries {
    list: Vec<Entry>,
    /// `credsStore`, and `credHelpers` as `HOST: HELPER`.
    helpers: Vec<String>,
}

struct Entry {
    host: HostPattern,
    /// Leading components of the repository's path; empty: all repositories.
    prefix: String,
    account: Account,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Entries {
    fn read(path: &Path) -> Result<Self, DockerConfigError> {
        let unreadable = |error: std::io::Error| error.to_string();
        let bytes = std::fs::read(path).map_err(unreadable);
        let bytes = bytes.map_err(|reason| DockerConfigError::Unreadable { path: path.to_owned(), reason })?;
        Self::parse(&bytes).map_err(|reason| DockerConfigError::Invalid { path: path.to_owned(), reason })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The text of the parser's error may quote a password.
        let file: File = serde_json::from_slice(bytes)
            .map_err(|error| format!("wrong JSON at line {}, column {}", error.line(), error.column()))?;
        let mut list = Vec::new();
        for (key, auth) in file.auths {
            let Some(account) = auth.account().map_err(|reason| format!("entry `{}`: {reason}", key.escape_debug()))?
            else {
                continue;
            };
            let (host, prefix) = split_key(&key);
            let host =
                HostPattern::new(&host).ok_or_else(|| format!("entry `{}`: this is not a host", key.escape_debug()))?;
            list.push(Entry { host, prefix, account });
        }
        let helpers = file.cred_helpers.into_iter().map(|(host, helper)| format!("{host}: {helper}"));
        Ok(Self { list, helpers: file.creds_store.into_iter().chain(helpers).collect() })
    }

    /// Returns the account of the entry with the most specific host. Of several, the longest path wins.
    fn account(&self, host: &str, path: &str) -> Option<&Account> {
        let matching = self.list.iter().filter(|entry| entry.host.matches(host) && is_below(path, &entry.prefix));
        let best = matching.max_by_key(|entry| (entry.host.specificity(), entry.prefix.len()));
        best.map(|entry| &entry.account)
    }
}

impl Auth {
    /// Returns the account; `None`: the entry is empty, which means that a credential helper is in use.
    fn account(self) -> Result<Option<Account>, &'static str> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = some(self.identitytoken) {
            return Ok(Some(Account::IdentityToken(token.into())));
        }
        if let Some(auth) = some(self.auth) {
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| "`auth` is not base64")?;
            let decoded = String::from_utf8(decoded).map_err(|_| "`auth` is not UTF-8")?;
            let (username, password) = decoded.split_once(':').ok_or("`auth` is not USERNAME:PASSWORD in base64")?;
            // Docker pads the password with zero bytes.
            let (username, password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
            return Ok(Some(Account::Password { username, password: password.into() }));
        }
        match (some(self.username), some(self.password)) {
            (Some(username), Some(password)) => Ok(Some(Account::Password { username, password: password.into() })),
            (None, None) => Ok(None),
            (Some(_), None) => Err("`username` has no `password`"),
            (None, Some(_)) => Err("`password` has no `username`"),
        }
    }
}

/// Splits a key of `auths` into host and path prefix, as Kubernetes does.
///
/// Source: <https://kubernetes.io/docs/concepts/containers/images/#config-json>. `docker login` writes
/// `https://index.docker.io/v1/` for Docker Hub, and other hosts may also have `/v1/` or `/v2/`.
fn split_key(key: &str) -> (String, String) {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = match host.to_ascii_lowercase() {
        hub if ["index.docker.io", "registry-1.docker.io"].contains(&hub.as_str()) => "docker.io".to_owned(),
        host => host,
    };
    let path = path.trim_matches('/');
    let path = match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        None if matches!(path, "v1" | "v2") => "",
        _ => path,
    };
    (host, path.to_owned())
}

fn is_below(path: &str, prefix: &str) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn user(json: &str, host: &str, path: &str) -> Option<String> {
        match Entries::parse(json.as_bytes()).unwrap().account(host, path)? {
            Account::Password { username, password } => Some(format!("{username}:{}", password.expose_secret())),
            Account::IdentityToken(token) => Some(format!("token {}", token.expose_secret())),
        }
    }

    fn account(name: &str) -> String {
        format!(r#"{{"username":"{name}","password":"p"}}"#)
    }

    #[test]
    fn most_specific_host_and_path_win() {
        let json = format!(
            r#"{{"auths":{{"*.example.com/uyou/team/app":{},"r.example.com":{},"r.example.com/uyou":{},"https://r.example.com/v2/uyou/team":{},"*.example.com":{}}}}}"#,
            account("glob-path"),
            account("host"),
            account("org"),
            account("team"),
            account("glob")
        );
        for (host, path, expected) in [
            ("r.example.com", "uyou/team/app", Some("team:p")),
            ("r.example.com", "uyou/other", Some("org:p")),
            ("r.example.com", "uyoux/other", Some("host:p")),
            ("s.example.com", "uyou/team/app", Some("glob-path:p")),
            ("s.example.com", "a", Some("glob:p")),
            ("r.example.com:5000", "uyou/a", None),
            ("example.com", "uyou/a", None),
        ] {
            assert_eq!(user(&json, host, path).as_deref(), expected, "{host}/{path}");
        }
    }

    #[test]
    fn each_form_of_an_account_is_read() {
        let auth = STANDARD.encode("robot$a:pa:ss\0\0");
        let entries = [
            (format!(r#"{{"auth":"{auth}"}}"#), Some("robot$a:pa:ss")),
            (account("a"), Some("a:p")),
            (r#"{"auth":"","username":"a","password":"p"}"#.to_owned(), Some("a:p")),
            (format!(r#"{{"auth":"{auth}","identitytoken":"t"}}"#), Some("token t")),
            ("{}".to_owned(), None),
        ];
        for (entry, expected) in entries {
            let json = format!(r#"{{"auths":{{"r.example.com":{entry}}}}}"#);
            assert_eq!(user(&json, "r.example.com", "a").as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn key_of_docker_hub_is_known_in_each_form() {
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://registry-1.docker.io/v2/"] {
            let json = format!(r#"{{"auths":{{"{key}":{}}}}}"#, account("a"));
            assert_eq!(user(&json, "docker.io", "library/nginx").as_deref(), Some("a:p"), "{key}");
        }
    }

    #[test]
    fn faults_name_the_entry_and_quote_no_secret() {
        let auth = STANDARD.encode("hunter2");
        for (json, expected) in [
            (r#"{"auths":{"r":{"password":["hunter2"]}}}"#.to_owned(), "wrong JSON at line 1"),
            ("hunter2".to_owned(), "wrong JSON at line 1, column 1"),
            (r#"{"auths":{"r":{"auth":"hunter2!"}}}"#.to_owned(), "entry `r`: `auth` is not base64"),
            (format!(r#"{{"auths":{{"r":{{"auth":"{auth}"}}}}}}"#), "entry `r`: `auth` is not USERNAME:PASSWORD"),
            (r#"{"auths":{"r":{"password":"hunter2"}}}"#.to_owned(), "entry `r`: `password` has no `username`"),
        ] {
            let Err(reason) = Entries::parse(json.as_bytes()) else { panic!("{json}") };
            assert!(reason.starts_with(expected) && !reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn credential_helpers_are_listed() {
        let json = r#"{"credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"}}"#;
        assert_eq!(Entries::parse(json.as_bytes()).unwrap().helpers, ["desktop", "gcr.io: gcloud"]);
    }
}
