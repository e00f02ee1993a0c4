//! `tagrelay open`: pages of commits and comparisons in the browser.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use clap::Args;

use super::api::{Api, ServerOptions};
use super::links;
use super::output;
use crate::api::{DiffView, Matrix};

/// Opens the commit that wrote a version, or the comparison of two environments' versions, in the browser.
///
/// Works for config and source repositories on GitHub, GitLab, Gitea, Forgejo and Bitbucket.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay open production user-service                  the commit of the running version
  tagrelay open production user-service --compare staging   what staging has and production lacks
  tagrelay open production user-service --print          only prints the address

The browser is BROWSER, otherwise xdg-open or open. The token needs the permission read.")]
pub(super) struct Options {
    /// The environment
    environment: String,
    /// The repository: the whole name, or the last component
    repository: String,
    /// The environment whose version is compared
    #[arg(long, value_name = "ENVIRONMENT")]
    compare: Option<String>,
    /// Print the address instead
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { environment, repository, compare, print, server } = options;
    let api = Api::new(server)?;
    let address = match compare {
        Some(from) => comparison(&api, &from, &environment, &repository).await?,
        None => commit(&api, &environment, &repository).await?,
    };
    if print {
        output::print(&format!("{address}\n"))?;
    } else {
        browse(&address)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn commit(api: &Api, environment: &str, repository: &str) -> anyhow::Result<String> {
    let query = [("environment", environment.to_owned()), ("repository", repository.to_owned())];
    let matrix: Matrix = api.get(&["environments"], &query).await?.read()?;
    let environment = matrix.environments.first().context("there is no such environment")?;
    let cell = environment.repositories.first().context("there is no such repository")?;
    let id = cell.commit.as_deref().or(environment.tip.as_deref()).context("the branch has not been read yet")?;
    let url = environment.config_repository_url.as_deref().unwrap_or_default();
    links::commit(url, id).with_context(|| format!("the pages of `{url}` are not known; the commit is {id}"))
}

async fn comparison(api: &Api, from: &str, to: &str, repository: &str) -> anyhow::Result<String> {
    let diff: DiffView = api.get(&["diff"], &[("from", from.to_owned()), ("to", to.to_owned())]).await?.read()?;
    let is_wanted = |name: &str| name == repository || name.ends_with(&format!("/{repository}"));
    let row = diff.repositories.iter().find(|row| is_wanted(&row.repository));
    let row = row.with_context(|| format!("neither {from} nor {to} runs `{repository}`"))?;
    let source = row.source.as_deref().with_context(|| {
        format!("{} has no known source repository, or both environments run the same version", row.repository)
    })?;
    super::diff::compare_page(row).with_context(|| format!("the pages of `{source}` are not known"))
}

/// Starts the browser and does not wait for it.
fn browse(address: &str) -> anyhow::Result<()> {
    let browser = std::env::var("BROWSER").ok().filter(|browser| !browser.is_empty());
    let programs = match &browser {
        Some(browser) => vec![browser.as_str()],
        None => vec!["xdg-open", "open"],
    };
    for program in programs {
        let started = Command::new(program).arg(address).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if started.is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("no browser was found; the address is {address}")
}
