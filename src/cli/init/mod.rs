//! `tagrelay init`: writes settings for an existing config repository.
//!
//! - `survey.rs`: environments and image rules from the sites of the repository;
//! - `questions.rs`: answers of a person, or the proposals;
//! - `text.rs`: the settings file, webhooks and next steps.

mod questions;
mod survey;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use url::Url;

use super::{output, sites};
use crate::settings::Settings;
use questions::Questions;
use survey::{Environment, Rule};
use tagrelay_webhook::Kind;
use text::{Plan, Webhook};

/// Writes settings for an existing config repository.
///
/// Reads the manifests of a folder or URL, proposes environments, image rules and receivers, asks about each, and writes settings
/// that `check` accepts. Prints the webhook URLs and the next commands. Changes nothing else.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay init                                    asks about the repository in this folder
  tagrelay init ../platform-config --yes           takes every proposal
  tagrelay init --yes --image 'harbor.example.com/shop/*' --receiver harbor --manual staging

Environments are folders with a usual name, such as `staging` and `production`. Image rules are proposed for repositories whose \
tags look like commits; name others with --image.")]
pub(super) struct Options {
    /// A working copy of the config repository, or its URL
    #[arg(value_name = "FOLDER|URL", default_value = ".")]
    place: String,
    /// The URL for Tagrelay to push to [default: that of the remote `origin`]
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The branch that Argo CD watches [default: the one checked out, or main]
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// An environment that deploys new versions itself; repeat it for several
    #[arg(long, value_name = "ENVIRONMENT")]
    automatic: Vec<String>,
    /// An environment that changes by promotion only; repeat it for several
    #[arg(long, value_name = "ENVIRONMENT")]
    manual: Vec<String>,
    /// Repositories to manage, such as `docker.io/uyou/*`; repeat it for several
    #[arg(long, value_name = "PATTERN")]
    image: Vec<String>,
    /// The kind of the receiver for registries whose kind the host does not show [default: generic, for CI]
    #[arg(long, value_name = "KIND")]
    receiver: Option<Kind>,
    /// Tagrelay's address as the registry reaches it
    #[arg(long, value_name = "URL", default_value = "https://tagrelay.example.com")]
    public_url: Url,
    /// The settings file to write, or `-` for standard output
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_SETTINGS)]
    output: String,
    /// Replace the settings file if it exists
    #[arg(long)]
    force: bool,
    /// Ask nothing: take flags and proposals
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let to_stdout = options.output == "-";
    let is_there = !to_stdout && Path::new(&options.output).exists();
    anyhow::ensure!(!is_there || options.force, "{} exists: use --force or --output", options.output);
    let found = sites::find(&options.place, options.branch.clone()).await?;
    anyhow::ensure!(!found.is_empty(), "{}: no YAML file names an image with a tag or digest", options.place);
    let local = LocalRepository::of(&options.place)?;
    let mut questions = if options.yes { Questions::none() } else { Questions::on_stdin() };

    let repository = repository_url(&options, local.as_ref(), &mut questions)?;
    let branch = options.branch.clone().or_else(|| local.and_then(|local| local.branch));
    let mut environments = survey::environments(&found);
    choose_modes(&mut environments, &options, &mut questions)?;
    let patterns = choose_images(&options, &found, &mut questions)?;
    let rules: Vec<Rule> = patterns.iter().map(|pattern| survey::rule(pattern, &found, &mut environments)).collect();
    let webhooks = choose_webhooks(&rules, &options, &mut questions)?;
    let plan = Plan { repository, branch: branch.unwrap_or_else(|| "main".to_owned()), environments, rules, webhooks };

    let text = plan.settings();
    let known = Settings::parse(&options.output, &checkable(&text), &|name| Ok(stand_in(name)));
    known.map_err(|faults| anyhow::anyhow!("the settings would not be valid; correct the flags:\n{faults}"))?;
    if to_stdout {
        output::print(&text)?;
        output::note(&plan.next_steps("tagrelay.toml", &options.public_url));
        return Ok(ExitCode::SUCCESS);
    }
    let file = PathBuf::from(&options.output);
    std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    output::print(&format!(
        "{}\n{}",
        plan.summary(&options.output),
        plan.next_steps(&options.output, &options.public_url)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A working copy.
struct LocalRepository {
    origin: Option<String>,
    branch: Option<String>,
}

impl LocalRepository {
    /// Reads the working copy in a folder; `None`: it is not one.
    fn of(place: &str) -> anyhow::Result<Option<Self>> {
        let Ok(folder) = Path::new(place).canonicalize() else { return Ok(None) };
        let Ok(repository) = git2::Repository::discover(&folder) else { return Ok(None) };
        if let Some(root) = repository.workdir().and_then(|root| root.canonicalize().ok()) {
            // Paths in the settings begin at the root.
            anyhow::ensure!(root == folder, "{place} is inside the repository {0}: use {0}", root.display());
        }
        let origin = repository.find_remote("origin").ok();
        let origin = origin.and_then(|origin| origin.url().ok().map(str::to_owned));
        let head = repository.head().ok();
        let branch = head.filter(git2::Reference::is_branch).and_then(|head| head.shorthand().ok().map(str::to_owned));
        Ok(Some(Self { origin, branch }))
    }
}

/// Returns the URL of the config repository, without credentials.
fn repository_url(
    options: &Options,
    local: Option<&LocalRepository>,
    questions: &mut Questions,
) -> anyhow::Result<Url> {
    let own = if options.place.contains("://") { Some(options.place.clone()) } else { None };
    let proposed = options.repository.clone().or(own).or_else(|| local.and_then(|local| local.origin.clone()));
    let proposed = proposed.map(|text| over_https(&text));
    let answer = match &options.repository {
        Some(_) => proposed,
        None => questions.ask("URL of the config repository", proposed.as_deref())?,
    };
    let answer = answer.context("the URL of the config repository is unknown: use --repository URL")?;
    // The message must not repeat the URL, which may contain a password.
    let mut url: Url = answer.parse().context("the URL of the config repository is invalid")?;
    if url.scheme() != "ssh" {
        let _ = url.set_username("");
    }
    let _ = url.set_password(None);
    Ok(url)
}

/// Returns the HTTPS URL for Git's short form `git@host:path`. Tagrelay needs a token there, which is easier to limit than a key.
fn over_https(url: &str) -> String {
    match url.split_once('@').and_then(|(_, rest)| rest.split_once(':')) {
        Some((host, path)) if !url.contains("://") => format!("https://{host}/{}", path.trim_start_matches('/')),
        _ => url.to_owned(),
    }
}

fn choose_modes(environments: &mut [Environment], options: &Options, questions: &mut Questions) -> anyhow::Result<()> {
    for name in options.automatic.iter().chain(&options.manual) {
        let names: Vec<&str> = environments.iter().map(|environment| environment.name.as_str()).collect();
        anyhow::ensure!(
            names.contains(&name.as_str()),
            "there is no environment `{name}`; found: {}",
            names.join(", ")
        );
    }
    for environment in environments.iter_mut() {
        environment.is_automatic = if options.automatic.contains(&environment.name) {
            true
        } else if options.manual.contains(&environment.name) {
            false
        } else {
            let question =
                format!("{} ({}): deploy new versions automatically", environment.name, environment.paths.join(", "));
            questions.confirm(&question, environment.is_automatic)?
        };
    }
    survey::connect(environments);
    Ok(())
}

fn choose_images(
    options: &Options,
    found: &[sites::FoundSite],
    questions: &mut Questions,
) -> anyhow::Result<Vec<String>> {
    if !options.image.is_empty() {
        return Ok(options.image.clone());
    }
    let proposed: Vec<String> = survey::patterns(found).into_iter().collect();
    let proposed = if proposed.is_empty() { None } else { Some(proposed.join(" ")) };
    let answer = questions.ask("repositories to manage, separated by spaces", proposed.as_deref())?;
    let all = || survey::all_patterns(found).into_iter().collect::<Vec<_>>().join(", ");
    let answer = answer.with_context(|| {
        format!("no image has a tag that looks like a commit: name yours with --image; found: {}", all())
    })?;
    Ok(answer.split_whitespace().map(str::to_owned).collect())
}

/// Returns one webhook per registry.
fn choose_webhooks(rules: &[Rule], options: &Options, questions: &mut Questions) -> anyhow::Result<Vec<Webhook>> {
    let mut hosts: Vec<&str> = rules.iter().filter_map(|rule| rule.repository.split('/').next()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let mut webhooks = Vec::new();
    for host in hosts {
        let proposed = Webhook::kind_of(host).or(options.receiver).unwrap_or(Kind::Generic);
        let answer = questions.ask(&format!("kind of the receiver for {host}"), Some(&proposed.to_string()))?;
        let kind = answer.map_or(Ok(proposed), |answer| answer.parse::<Kind>());
        let kind = kind.map_err(|_| anyhow::anyhow!("docs/registries.md lists the kinds of receivers"))?;
        webhooks.push(Webhook::new(kind, host, &webhooks));
    }
    Ok(webhooks)
}

/// Returns the settings with an existing file in place of `known_hosts`, which is written by hand later.
fn checkable(text: &str) -> String {
    text.replace("known_hosts = \"known_hosts\"", "known_hosts = \"/dev/null\"")
}

/// Returns a value for a secret that is not set yet: of the right form, so that everything else is checked.
fn stand_in(name: &str) -> String {
    match name {
        "GIT_SSH_KEY" => "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
        _ => format!("value of {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_becomes_https() {
        assert_eq!(over_https("git@github.com:uyou/config.git"), "https://github.com/uyou/config.git");
        for url in ["https://github.com/uyou/config.git", "ssh://git@git.example.com/a.git", "file:///srv/a.git"] {
            assert_eq!(over_https(url), url);
        }
    }
}
