use std::path::{Path, PathBuf};

use url::Url;

use super::pipeline::WritingSettings;
use super::reader::Section;
use super::remote_url::{self, Transport, is_loopback};
use super::report::At;
use super::{commits, keys};
use crate::config_repo::{Authentication, CommitSettings, GitHubApp};

/// `[[config_repository]]`: a Git repository that Argo CD watches.
#[derive(Debug, Clone)]
pub struct ConfigRepositorySettings {
    /// The name that other sections refer to.
    pub name: String,
    /// `https`, `http`, `ssh` or `file`, without a password.
    pub url: Url,
    /// Default branch of its environments, without `refs/heads/`.
    pub branch: String,
    /// Credentials for the server.
    pub authentication: Authentication,
    /// PEM file of CA certificates to trust in addition to the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Author, committer, signature and grouping of commits.
    pub commits: CommitSettings,
    /// Quiet period and commit messages.
    pub writing: WritingSettings,
    /// The folder with one mirror per branch.
    pub mirror: PathBuf,
    /// Its URL in Argo CD's applications; `None`: the same as `url`.
    pub argocd_url: Option<Url>,
    /// Its first line in the settings, from 1.
    pub line: u32,
}

impl ConfigRepositorySettings {
    /// Returns the folder of one branch's mirror.
    pub fn mirror_of(&self, branch: &str) -> PathBuf {
        // Slashes are escaped: otherwise the mirror of `a/b` would lie inside the mirror of `a`.
        self.mirror.join(branch.replace('%', "%25").replace('/', "%2F"))
    }
}

const DEFAULT_BRANCH: &str = "main";

/// `store`: the SQLite file; mirrors are stored beside it.
pub(super) fn read(section: Section<'_>, store: &Path) -> Option<ConfigRepositorySettings> {
    let name = section.name();
    let url = read_url(section);
    let branch = read_branch(section);
    let transport = url.as_ref().map(|url| url.value.1);
    let authentication = read_authentication(section, transport, url.as_ref().map(|url| &url.value.0));
    let ca_bundle = section.ca_bundle();
    if let Some(transport) = transport
        && transport != Transport::Https
        && section.has("ca_bundle")
    {
        section.report().fault(section.offset_of("ca_bundle"), "`ca_bundle` is for https URLs only");
    }
    let commits = commits::read(section);
    let mirror = section.text("mirror");
    if let (Some(url), Some(Authentication::Basic { .. } | Authentication::GitHubApp(_))) = (&url, &authentication) {
        warn_of_plain_http(section, &url.value.0);
    }
    let name = name?.value;
    let beside = store.parent().unwrap_or(Path::new(""));
    Some(ConfigRepositorySettings {
        url: url?.value.0,
        branch: branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned()),
        authentication: authentication?,
        ca_bundle,
        writing: commits::read_writing(section, commits.as_ref()),
        commits: commits?,
        mirror: mirror.map_or_else(|| beside.join("mirrors").join(&name), |mirror| PathBuf::from(mirror.value)),
        argocd_url: super::argocd::read_repository_url(section),
        line: section.report().line(section.offset),
        name,
    })
}

fn read_url(section: Section<'_>) -> Option<At<(Url, Transport)>> {
    let text = section.required_text("url", "url = \"https://host/path.git\"")?;
    match remote_url::parse(text.value) {
        Ok(value) => Some(At { value, offset: text.offset }),
        Err(error) => {
            section.report().fault_with_hint(text.offset, error.message, error.hint);
            None
        }
    }
}

/// Returns `branch`, if it is a valid name of a branch.
pub(super) fn read_branch(section: Section<'_>) -> Option<String> {
    let branch = section.text("branch")?;
    let shown = branch.value.escape_debug();
    if let Some(short) = branch.value.strip_prefix("refs/heads/") {
        let hint = format!("write branch = \"{}\"", short.escape_debug());
        section.report().fault_with_hint(branch.offset, format!("`branch`: `{shown}` is a reference"), hint);
        return None;
    }
    // An error means that the name contains a zero byte.
    if git2::Branch::name_is_valid(branch.value).unwrap_or(false) {
        return Some(branch.value.to_owned());
    }
    section.report().fault(branch.offset, format!("`branch`: `{shown}` is not a valid name of a branch"));
    None
}

/// Reads the credentials of a repository. `url`: its URL, used for a GitHub App; `None`: no app can be configured.
pub(super) fn read_authentication(
    section: Section<'_>,
    transport: Option<Transport>,
    url: Option<&Url>,
) -> Option<Authentication> {
    report_misplaced(section, transport);
    let ssh_key = section.secret("ssh_key");
    let passphrase = section.secret("ssh_key_passphrase");
    let known_hosts = section.readable_file("known_hosts");
    let username = section.text("username");
    let password = section.secret("password");
    match transport? {
        Transport::File => Some(Authentication::None),
        Transport::Ssh => {
            let missing = |key: &str, hint: &str| {
                let message = format!("`{key}` is missing in {}, whose URL is ssh", section.section_name());
                section.report().fault_with_hint(section.offset, message, hint.to_owned());
            };
            if !section.has("ssh_key") {
                missing("ssh_key", "write ssh_key = { file = \"/run/secrets/ssh_key\" }");
            }
            if !section.has("known_hosts") {
                missing("known_hosts", "write what `ssh-keyscan HOST` prints into a file, check it, and name the file");
            }
            let key = ssh_key?;
            check_private_key(section, &key)?;
            Some(Authentication::SshKey { key, passphrase, known_hosts: known_hosts?.0.value })
        }
        Transport::Https | Transport::Http if section.has("github_app") => {
            for key in ["username", "password"].into_iter().filter(|key| section.has(key)) {
                let message = format!("`{key}` has no effect with `github_app`");
                section.report().fault_with_hint(section.offset_of(key), message, "leave one of them out".to_owned());
            }
            read_github_app(section, url?).map(Authentication::GitHubApp)
        }
        Transport::Https | Transport::Http => match (section.has("username"), section.has("password")) {
            (false, false) => Some(Authentication::None),
            (true, true) => Some(Authentication::Basic { username: username?.value.to_owned(), password: password? }),
            (true, false) => {
                let hint = "write password = { env = \"NAME\" }".to_owned();
                section.report().fault_with_hint(section.offset_of("username"), "`username` has no `password`", hint);
                None
            }
            (false, true) => {
                let hint = "write one; with a token most hosts accept any user name".to_owned();
                section.report().fault_with_hint(section.offset_of("password"), "`password` has no `username`", hint);
                None
            }
        },
    }
}

const GITHUB_APP_EXAMPLE: &str =
    "{ app_id = 123456, installation_id = 12345678, private_key = { file = \"/run/secrets/github-app.pem\" } }";

fn read_github_app(section: Section<'_>, repository: &Url) -> Option<GitHubApp> {
    let app = section.table("github_app", &keys::GITHUB_APP, GITHUB_APP_EXAMPLE)?;
    for key in ["app_id", "installation_id"].into_iter().filter(|key| !app.has(key)) {
        let message = format!("`{key}` is missing in `github_app` of [[config_repository]]");
        app.report().fault_with_hint(app.offset, message, format!("write github_app = {GITHUB_APP_EXAMPLE}"));
    }
    // GitHub identifies an app by its numeric id or by its client id, which is a string.
    let is_number = app.value("app_id").is_some_and(|found| found.value.as_integer().is_some());
    let issuer = if is_number {
        app.number("app_id", 1..=usize::MAX >> 1).map(|number| number.value.to_string())
    } else {
        app.text("app_id").map(|text| text.value.to_owned())
    };
    let installation = app.number("installation_id", 1..=usize::MAX >> 1);
    let key = app.required_secret("private_key", "generate it in the app's settings on GitHub");
    let api = match app.text("api_url") {
        None if app.has("api_url") => return None,
        None => None,
        Some(text) => match Url::parse(text.value) {
            Ok(url) if is_api(&url) => Some(url),
            _ => {
                let hint = "write \"https://github.example.com/api/v3\"".to_owned();
                let message = "`api_url` must be an https URL without user name and query";
                app.report().fault_with_hint(text.offset, message, hint);
                return None;
            }
        },
    };
    match GitHubApp::new(issuer?, installation?.value as u64, key?, api.as_ref(), repository) {
        Ok(app) => Some(app),
        Err(error) => {
            app.report().fault(app.offset_of("private_key"), format!("`private_key`: {error}"));
            None
        }
    }
}

/// The app's JWT must not be sent unencrypted, except to this machine.
fn is_api(url: &Url) -> bool {
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback(url.host());
    is_safe && url.has_host() && url.username().is_empty() && url.password().is_none() && url.query().is_none()
}

/// Reports credentials that the transport does not use.
fn report_misplaced(section: Section<'_>, transport: Option<Transport>) {
    const HTTP_KEYS: [&str; 3] = ["username", "password", "github_app"];
    const SSH_KEYS: [&str; 3] = ["ssh_key", "ssh_key_passphrase", "known_hosts"];
    let (keys, hint): (Vec<&str>, &str) = match transport {
        None => return,
        Some(Transport::Ssh) => {
            (HTTP_KEYS.to_vec(), "ssh uses `ssh_key` and `known_hosts`, and the user name in the URL")
        }
        Some(Transport::Https | Transport::Http) => {
            (SSH_KEYS.to_vec(), "https uses `username` and `password`, or `github_app`")
        }
        Some(Transport::File) => ([HTTP_KEYS.as_slice(), &SSH_KEYS].concat(), "a file URL uses no credentials"),
    };
    for key in keys.into_iter().filter(|key| section.has(key)) {
        let message = format!("`{key}` does not fit the URL");
        section.report().fault_with_hint(section.offset_of(key), message, hint.to_owned());
    }
}

/// Reports a public key or another file in place of the private key, before the first connection fails.
fn check_private_key(section: Section<'_>, key: &tagrelay_secret::Secret) -> Option<()> {
    use tagrelay_secret::ExposeSecret;
    let text = key.reveal().ok()?;
    if text.expose_secret().contains("PRIVATE KEY-----") {
        return Some(());
    }
    section.report().fault(section.offset_of("ssh_key"), "`ssh_key` is not a private key in OpenSSH or PEM format");
    None
}

fn warn_of_plain_http(section: Section<'_>, url: &Url) {
    if url.scheme() == "http" && !is_loopback(url.host()) {
        let message = "the password of the config repository is sent unencrypted over http";
        section.report().warning(section.offset_of("url"), message, "use https".to_owned());
    }
}
