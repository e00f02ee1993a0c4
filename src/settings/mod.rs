//! Reads `tagrelay.toml` into typed settings for each room, or into a list of all faults.
//!
//! The TOML parser keeps the position of every key and value. A reader walks its tree and collects all faults; then the
//! sections are checked against each other. No message quotes a secret or a text that may contain one: a URL, a value
//! of the wrong type, a line that does not parse.

mod api_token;
mod argocd;
mod commits;
mod config_repository;
mod duration;
mod environment;
mod fault;
mod fingerprint;
mod freeze;
mod image;
mod image_names;
mod keys;
mod names;
mod nearest;
mod paths;
mod pipeline;
mod questionable;
mod reader;
mod receiver;
mod registry;
mod remote_url;
mod report;
mod secrets;
mod server;
mod site;
mod source;
mod tag;
mod template;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeTable;

use crate::access::ApiToken;
use crate::argocd::ArgoCdSettings;
use crate::config_repo::RemoteSettings;
use crate::policy::ImageRule;
use crate::registry::RegistriesSettings;
use crate::source_repo::SourceSettings;
use crate::store::{Retention, StoreSettings};
pub use config_repository::ConfigRepositorySettings;
pub use environment::{EnvironmentSettings, UpdateMode};
pub use fault::{Fault, Faults, Position};
pub use fingerprint::{ChangeKind, ChangedSection, Fingerprint};
pub use keys::{KEY_SETS, KeySet};
pub(crate) use nearest::nearest_names;
pub use pipeline::{CatchUpSettings, MessageSettings, WritingSettings};
pub use server::ServerSettings;
use tagrelay_manifest::ManifestSettings;
use tagrelay_webhook::ReceiverSettings;
pub use template::{ChangeFields, Fields, InvalidTemplate, MessageTemplate};

use names::{Names, report_twins};
use reader::{Context, Section};
use report::Report;

/// Looks up a variable of the environment by its name, as [`std::env::var`] does.
pub type EnvironmentLookup<'a> = dyn Fn(&str) -> Result<String, std::env::VarError> + 'a;

/// The settings of one process, checked as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[store]`.
    pub store: StoreSettings,
    /// How long the store keeps ended events and history.
    pub retention: Retention,
    /// `catch_up` and `catch_up_concurrency` in `[server]`.
    pub catch_up: CatchUpSettings,
    /// Each `[[config_repository]]`; at least one.
    pub config_repositories: Vec<ConfigRepositorySettings>,
    /// Each `[[environment]]`; at least one.
    pub environments: Vec<EnvironmentSettings>,
    /// `[argocd]`; `None`: rollouts are not followed.
    pub argocd: Option<ArgoCdSettings>,
    /// Each `[[image]]` in the order of the file; the first that matches applies. At least one.
    pub images: Vec<ImageRule>,
    /// The first line of each of `images`, from 1.
    pub image_lines: Vec<u32>,
    /// The source repositories, to which `images` refer by index.
    pub sources: Vec<SourceSettings>,
    /// `[registries]` and each `[[registry]]`.
    pub registries: RegistriesSettings,
    /// Each `[[receiver]]`.
    pub receivers: Vec<ReceiverSettings>,
    /// Each `[[api_token]]`.
    pub api_tokens: Vec<ApiToken>,
    /// Valid but doubtful settings.
    pub warnings: Vec<Fault>,
    /// Compared with the files to detect a change.
    pub fingerprint: Fingerprint,
}

/// The result of a reload.
#[derive(Debug)]
pub struct Reading {
    /// Detects the next change, also after a failed reload.
    pub fingerprint: Fingerprint,
    /// The settings, or all faults.
    pub result: Result<Settings, Faults>,
}

impl Settings {
    /// Reads a settings file and the files that it names, with the environment variables of the process.
    ///
    /// # Errors
    ///
    /// All faults.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        Self::load_with(path, &|name| std::env::var(name))
    }

    /// Reads a settings file, with the variables that `environment` returns.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_with(path: &Path, environment: &EnvironmentLookup<'_>) -> Result<Self, Faults> {
        Self::load_text(path).and_then(|text| Self::parse(&path.display().to_string(), &text, environment))
    }

    /// Reads a settings file to replace the `running` settings. A change that needs a restart is a fault.
    pub fn load_again(path: &Path, running: &Self) -> Reading {
        let text = Self::load_text(path);
        let fingerprint = Fingerprint::new(path, text.as_deref().unwrap_or_default());
        let environment = |name: &str| std::env::var(name);
        let file = path.display().to_string();
        let result = text.and_then(|text| Self::parse_beside(&file, &text, &environment, Some(running)));
        // Its stamps were taken before the files were read.
        let result = result.map(|settings| Self { fingerprint: fingerprint.clone(), ..settings });
        Reading { fingerprint, result }
    }

    fn load_text(path: &Path) -> Result<String, Faults> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            let hint = "name the settings with --config FILE; config.example.toml is an example".to_owned();
            let report = Report::new(&file, "");
            report.fault_of_file(format!("the settings cannot be read: {error}"), hint);
            report.into_faults()
        })?;
        String::from_utf8(bytes).map_err(|error| {
            let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let report = Report::new(&file, &valid);
            report.fault(valid.len(), "the settings are not UTF-8");
            report.into_faults()
        })
    }

    /// Reads settings from a text; `file` is the file's name in messages.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn parse(file: &str, text: &str, environment: &EnvironmentLookup<'_>) -> Result<Self, Faults> {
        Self::parse_beside(file, text, environment, None)
    }

    fn parse_beside(
        file: &str,
        text: &str,
        environment: &EnvironmentLookup<'_>,
        running: Option<&Self>,
    ) -> Result<Self, Faults> {
        // Take the stamps first, so that a change while the files are read is detected later.
        let fingerprint = Fingerprint::new(Path::new(file), text);
        let report = Report::new(file, text);
        let (tree, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            report_syntax(&report, errors);
            return Err(report.into_faults());
        }
        let context = Context { report: &report, environment };
        let top = Section::new(context, &keys::TOP, tree.get_ref(), 0);
        let settings = read(top);
        if let Some(running) = running.filter(|_| report.is_clean()) {
            server::report_fixed(top, &settings, running);
        }
        let warnings = report.finish()?;
        Ok(Self { warnings, fingerprint, ..settings })
    }

    /// Returns the manifest settings of all environments together, for commands that read files without an environment.
    pub fn manifests(&self) -> ManifestSettings {
        let rules = self.environments.iter().flat_map(|environment| environment.manifests.rules.iter().cloned());
        let first = self.environments.first();
        ManifestSettings {
            names: first.map(|environment| environment.manifests.names.clone()).unwrap_or_default(),
            rules: rules.collect(),
            ..ManifestSettings::default()
        }
    }

    /// Returns the settings of each branch with the environments on it, in the order of the file. Each branch has its
    /// own mirror.
    pub fn remotes(&self) -> Vec<(RemoteSettings, Vec<EnvironmentSettings>)> {
        let mut remotes: Vec<(RemoteSettings, Vec<EnvironmentSettings>)> = Vec::new();
        for environment in &self.environments {
            let Some(repository) =
                self.config_repositories.iter().find(|repository| repository.name == environment.config_repository)
            else {
                continue;
            };
            let branch = environment.branch.as_deref().unwrap_or(&repository.branch);
            let known = remotes.iter_mut().find(|(known, _)| known.name == repository.name && known.branch == branch);
            match known {
                Some((_, environments)) => environments.push(environment.clone()),
                None => remotes.push((remote(repository, branch), vec![environment.clone()])),
            }
        }
        remotes
    }
}

impl Settings {
    /// Returns the registry hosts that the settings name without wildcards.
    pub fn registry_hosts(&self) -> BTreeSet<&str> {
        let named = self.registries.sections.iter().map(|registry| registry.host.as_str());
        // The first component of a pattern is its registry.
        let managed = self.images.iter().filter_map(|rule| rule.pattern.as_str().split('/').next());
        named.chain(managed).filter(|host| !host.contains(['*', '?', '[', '{'])).collect()
    }

    /// Returns the quiet period and commit messages of a config repository.
    pub fn writing_of(&self, config_repository: &str) -> WritingSettings {
        let found = self.config_repositories.iter().find(|repository| repository.name == config_repository);
        found.map(|repository| repository.writing.clone()).unwrap_or_default()
    }
}

fn remote(repository: &ConfigRepositorySettings, branch: &str) -> RemoteSettings {
    RemoteSettings {
        name: repository.name.clone(),
        url: repository.url.clone(),
        branch: branch.to_owned(),
        authentication: repository.authentication.clone(),
        ca_bundle: repository.ca_bundle.clone(),
        commits: repository.commits.clone(),
        mirror: repository.mirror_of(branch),
    }
}

/// Reports syntax errors. Uses only the parser's `message`, a fixed text: its `Display` quotes the line, which may
/// contain a secret.
fn report_syntax(report: &Report<'_>, errors: Vec<toml::de::Error>) {
    let mut errors: Vec<(usize, &str)> = errors.iter().map(|error| (start_of(error), error.message())).collect();
    errors.sort_by_key(|(offset, _)| *offset);
    // One mistake often causes several errors on its line.
    errors.dedup_by_key(|(offset, _)| report.line(*offset));
    for (offset, message) in errors {
        match report.table_before_list(offset) {
            Some((name, line)) if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => report
                .fault_with_hint(
                    offset,
                    format!("[{name}] on line {line} is a single table, and [[{name}]] is a list of tables"),
                    format!("write [[{name}]] on line {line}, too"),
                ),
            _ => report.fault(offset, format!("this is not TOML: {message}")),
        }
    }
}

fn start_of(error: &toml::de::Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// Reads every section and reports all faults. The result is valid only if there are none.
fn read(top: Section<'_>) -> Settings {
    let config_repositories = top.tables("config_repository", &keys::CONFIG_REPOSITORY);
    let environments = top.tables("environment", &keys::ENVIRONMENT);
    let images = top.tables("image", &keys::IMAGE);
    let registries = top.tables("registry", &keys::REGISTRY);
    let receivers = top.tables("receiver", &keys::RECEIVER);
    let api_tokens = top.tables("api_token", &keys::API_TOKEN);
    report_missing(top);
    for sections in [&config_repositories, &environments, &receivers, &api_tokens] {
        report_twins(sections, "name");
    }
    report_twins(&registries, "host");
    report_twins(&config_repositories, "mirror");

    let names = Names::new(&config_repositories, &environments);
    let (store, retention) = server::read_store(top);
    let image_names = Arc::new(image_names::read(&images));
    let images = image::read(&images, &store.path);
    let (server, catch_up) = server::read(top);
    let settings = Settings {
        server,
        catch_up,
        config_repositories: each(&config_repositories, |section| config_repository::read(section, &store.path)),
        environments: each(&environments, |section| environment::read(section, &names, &image_names)),
        argocd: argocd::read(top),
        images: images.rules,
        image_lines: images.lines,
        sources: images.sources,
        registries: registry::read_all(top, &registries),
        receivers: each(&receivers, |section| receiver::read(section, &names)),
        api_tokens: each(&api_tokens, |section| api_token::read(section, &names)),
        store,
        retention,
        warnings: Vec::new(),
        fingerprint: Fingerprint::default(),
    };
    if top.report().is_clean() {
        check_together(&settings, &config_repositories, &environments);
        api_token::check_distinct(&settings.api_tokens, &api_tokens);
        questionable::warn(&settings, &receivers, &registries);
    }
    settings
}

fn each<'a, T>(sections: &[Section<'a>], read: impl Fn(Section<'a>) -> Option<T>) -> Vec<T> {
    sections.iter().copied().filter_map(read).collect()
}

/// Reports missing sections that are required.
fn report_missing(top: Section<'_>) {
    for (key, reason) in [
        ("config_repository", "there is no Git repository to write to"),
        ("environment", "no environment receives new versions"),
        ("image", "no repository is managed"),
    ] {
        let absent = top.value(key).is_none_or(|value| value.value.as_array().is_some_and(|array| array.is_empty()));
        if absent {
            let hint = "config.example.toml is an example".to_owned();
            top.report().fault_of_file(format!("there is no [[{key}]]: {reason}"), hint);
        }
    }
}

/// Checks the sections against each other. Both lists are in the order of the file, and no section has a fault.
fn check_together(settings: &Settings, config_repositories: &[Section<'_>], environments: &[Section<'_>]) {
    for (index, (repository, section)) in settings.config_repositories.iter().zip(config_repositories).enumerate() {
        let others = &settings.config_repositories[..index];
        if let Some(other) = others.iter().find(|other| other.mirror == repository.mirror) {
            let message = format!("`{}` has the same mirror as `{}`", repository.name, other.name);
            section.report().fault(section.offset_of("mirror"), message);
        }
        if !settings.environments.iter().any(|environment| environment.config_repository == repository.name) {
            let message = format!("no [[environment]] uses the config repository `{}`", repository.name);
            section.report().warning(section.offset, message, None);
        }
    }
    check_argocd(settings, environments);
    let remotes = settings.remotes();
    let same_branch = |a: &EnvironmentSettings, b: &EnvironmentSettings| {
        remotes.iter().any(|(_, on_it)| on_it.contains(a) && on_it.contains(b))
    };
    for (index, (environment, section)) in settings.environments.iter().zip(environments).enumerate() {
        for other in &settings.environments[..index] {
            if let Some(path) =
                paths::overlap(&other.paths, &environment.paths).filter(|_| same_branch(other, environment))
            {
                let message = format!(
                    "`{path}` of `{}` is also in `{}`: both environments write to it",
                    environment.name, other.name
                );
                let at = section.offset_of("paths");
                // A push to the automatic one would change the other without a promotion.
                if is_automatic(other) == is_automatic(environment) {
                    section.report().warning(at, message, None);
                } else {
                    let hint =
                        "give each its own folders; shared manifests belong to a base that neither lists".to_owned();
                    section.report().fault_with_hint(at, message, hint);
                }
            }
        }
    }
}

fn is_automatic(environment: &EnvironmentSettings) -> bool {
    environment.update == UpdateMode::Automatic
}

/// Checks that settings which need Argo CD's API have it.
fn check_argocd(settings: &Settings, environments: &[Section<'_>]) {
    let may_ask = matches!(&settings.argocd, Some(ArgoCdSettings { access: crate::argocd::Access::Token(_), .. }));
    for (environment, section) in settings.environments.iter().zip(environments) {
        if environment.gate.is_some() && !may_ask {
            let key = if section.has("promote_when") { "promote_when" } else { "soak" };
            let message = format!("`{key}` needs the health of applications, which only Argo CD's API provides");
            let hint = "write [argocd] with `url` and `token`".to_owned();
            section.report().fault_with_hint(section.offset_of(key), message, hint);
        }
        if environment.update == UpdateMode::Follow
            && (environment.promote_from.is_empty() || environment.gate.is_none())
        {
            let key = if environment.promote_from.is_empty() { "promote_from" } else { "promote_when" };
            let message = format!("`update = \"follow\"` needs `{key}`");
            let hint = "write promote_from = [\"staging\"] and promote_when = \"healthy\"".to_owned();
            section.report().fault_with_hint(section.offset_of("update"), message, hint);
        }
        if section.has("argocd") && settings.argocd.is_none() {
            let hint = "write [argocd] with `url` and `token`".to_owned();
            section.report().fault_with_hint(section.offset_of("argocd"), "there is no [argocd]", hint);
        }
    }
}
