//! `tagrelay sites`: lists the sites in a folder or repository, and edits those of a folder.

mod folder;
mod inherited;
mod management;
mod remote;
mod replace;
mod set;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output::{self, Cell, DIM, GOOD, HEAD, PLAIN, Table, WARN, short_digest};
use crate::settings::Settings;
use management::{Management, territory};
use tagrelay_image::{Repository, Version};
use tagrelay_manifest::{Format, ManifestSettings, Wanted};

/// Lists the places in manifests that name a version of an image. With --set, changes them.
///
/// With --config, also shows which places a server with these settings would change. Reads a folder, a file, standard input,
/// or one branch of a repository. Needs no server. Changes files only with --set and --write.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay sites .                                          this folder
  tagrelay sites ~/platform --config tagrelay.toml          with environment and rule of each site
  tagrelay sites https://git.example.com/uyou/platform-config.git --branch main
  tagrelay sites --set docker.io/uyou/user-service=9f8e7d6 environments/staging            the diff
  tagrelay sites --set docker.io/uyou/user-service=9f8e7d6 environments/staging --write    do it
  kustomize build . | tagrelay sites --set docker.io/uyou/user-service=9f8e7d6 --write -   a filter

Exit code of --set: 0 when every image was found and has the version now (without --write: would \
have). 1 when an image was not found, a place cannot be changed, or a file cannot be written: \
then no file is written, unless it was the writing that failed.

A repository is read without a password, unless --config has a [[config_repository]] with its URL.")]
pub(super) struct Options {
    /// A folder, a file, - for standard input, a bare repository, or the URL of a repository (https, http, ssh, file). With
    /// --config, the root of the config repository: paths of environments are relative to it
    #[arg(value_name = "PATH|URL")]
    place: String,
    /// The settings: shows the environments and the [[image]] rule of each site. With --set, also uses names in markers,
    /// [[environment.site]] and `pin`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The branch of the repository [default: the one in the settings, otherwise main]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Set every place of an image to this version, and print the diff. May be repeated
    #[arg(long, value_name = "IMAGE=TAG[@DIGEST]", value_parser = set::parse_wanted, conflicts_with = "branch")]
    set: Vec<Wanted>,
    /// Write the changes of --set to the files; for standard input, print the new text
    #[arg(long, requires = "set")]
    write: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A site with its file.
#[derive(Debug, Serialize)]
pub(super) struct FoundSite {
    pub(super) path: String,
    line: u32,
    format: Format,
    pub(super) repository: Repository,
    pub(super) tag: Option<String>,
    digest: Option<String>,
    #[serde(flatten)]
    management: Option<Management>,
}

impl FoundSite {
    fn new(path: &str, line: u32, format: Format, repository: &Repository, version: &Version) -> Self {
        Self {
            path: path.to_owned(),
            line,
            format,
            repository: repository.clone(),
            tag: version.tag().map(ToString::to_string),
            digest: version.digest().map(ToString::to_string),
            management: None,
        }
    }
}

#[cfg(test)]
impl FoundSite {
    pub(super) fn for_test(path: &str, repository: &str, tag: &str) -> Self {
        let (repository, tag) = (repository.parse().unwrap(), Some(tag.to_owned()));
        Self {
            path: path.to_owned(),
            line: 1,
            format: Format::Kubernetes,
            repository,
            tag,
            digest: None,
            management: None,
        }
    }
}

/// A file that could not be read, and why.
#[derive(Debug, Serialize)]
struct UnreadFile {
    path: String,
    reason: String,
}

/// The sites, in the order of paths and lines.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// The commit that was read from a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    sites: Vec<FoundSite>,
    problems: Vec<UnreadFile>,
    /// The kustomizations of a folder, with their bytes.
    #[serde(skip)]
    kustomizations: Vec<(String, Vec<u8>)>,
}

impl Found {
    /// Removes duplicates of files that several environments share.
    fn drop_repeated(&mut self) {
        let mut sites = BTreeSet::new();
        self.sites.retain(|site| {
            let version = (site.tag.clone(), site.digest.clone());
            site.format != Format::Inherited
                || sites.insert((site.path.clone(), site.line, site.repository.clone(), version))
        });
        let mut problems = BTreeSet::new();
        self.problems.retain(|problem| problems.insert((problem.path.clone(), problem.reason.clone())));
    }

    fn sort(&mut self) {
        self.sites.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
    }
}

/// Returns the sites of a folder, or of a branch of a repository.
pub(super) async fn find(place: &str, branch: Option<String>) -> anyhow::Result<Vec<FoundSite>> {
    let mut found = match as_url(place)? {
        Some(url) => remote::read(&url, branch, None).await?.0,
        None => {
            let place = PathBuf::from(place);
            let reading = tokio::task::spawn_blocking(move || folder::read(&place, &ManifestSettings::default()));
            reading.await??
        }
    };
    found.sort();
    Ok(found.sites)
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = match options.config.as_deref().map(Settings::load).transpose() {
        Ok(settings) => settings,
        Err(faults) => {
            output::print_faults(&faults);
            return Ok(ExitCode::FAILURE);
        }
    };
    if !options.set.is_empty() {
        return set::run(options, settings.as_ref()).await;
    }
    let (mut found, territory) = if let Some(url) = as_url(&options.place)? {
        remote::read(&url, options.branch, settings.as_ref()).await?
    } else {
        if let Some(url) = as_ssh_url(&options.place) {
            anyhow::bail!("`{}` is neither a folder nor a URL; the repository is {url}", options.place);
        }
        anyhow::ensure!(options.branch.is_none(), "--branch needs a URL; for a folder, check out the branch");
        let place = PathBuf::from(options.place);
        let manifests = settings.as_ref().map(Settings::manifests).unwrap_or_default();
        let territory = settings.as_ref().map(|settings| territory(&settings.environments)).transpose()?;
        let reading = tokio::task::spawn_blocking(move || {
            let mut found = folder::read(&place, &manifests)?;
            if let Some(territory) = &territory {
                inherited::add(&place, territory, &mut found);
            }
            anyhow::Ok((found, territory))
        });
        reading.await??
    };
    found.sort();
    if let (Some(settings), Some(territory)) = (&settings, &territory) {
        for site in &mut found.sites {
            site.management = Some(Management::of(site, &settings.images, territory));
        }
    }
    if options.json {
        output::print_json(&found)?;
    } else {
        output::print(&render(&found))?;
        if found.sites.is_empty() {
            output::note("no sites: no YAML file here names an image with a tag or digest");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the URL of a repository: the argument itself, or the path of a bare repository as a URL.
fn as_url(place: &str) -> anyhow::Result<Option<String>> {
    if place.contains("://") {
        return Ok(Some(place.to_owned()));
    }
    let path = Path::new(place);
    let is_bare = path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir();
    if !is_bare {
        return Ok(None);
    }
    let path = path.canonicalize().with_context(|| format!("{place} cannot be read"))?;
    let url = url::Url::from_file_path(&path).map_err(|()| anyhow::anyhow!("{place} has no URL"))?;
    Ok(Some(url.into()))
}

/// Returns the URL for Git's short form `git@host:path`, unless a file has that name.
fn as_ssh_url(place: &str) -> Option<String> {
    let (host, path) = place.split_once(':')?;
    let is_address = host.contains('@') && !host.contains('/') && !Path::new(place).exists();
    is_address.then(|| format!("ssh://{host}/{}", path.trim_start_matches('/')))
}

fn render(found: &Found) -> String {
    let mut text = String::new();
    let managed = found.sites.first().is_some_and(|site| site.management.is_some());
    if !found.sites.is_empty() {
        let mut headings = vec!["site", "format", "repository", "tag", "digest"];
        if managed {
            headings.extend(["environment", "managed by"]);
        }
        let mut table = Table::new(&headings);
        for site in &found.sites {
            table.row(row(site));
        }
        text.push_str(&table.render(0));
    }
    if !found.problems.is_empty() {
        let mut table = Table::bare();
        for problem in &found.problems {
            table.row(vec![Cell::plain(&problem.path), Cell::new(&problem.reason, WARN)]);
        }
        text.push_str(&format!("\n{HEAD}Files that cannot be read, and ignored places{HEAD:#}\n{}", table.render(2)));
    }
    text
}

fn row(site: &FoundSite) -> Vec<Cell> {
    let mut cells = vec![
        Cell::plain(&format!("{}:{}", site.path, site.line)),
        Cell::new(&site.format.to_string(), DIM),
        Cell::plain(site.repository.as_str()),
        Cell::plain(&site.tag.as_deref().map(|tag| output::short_version(Some(tag), None)).unwrap_or_default()),
        Cell::new(&site.digest.as_deref().map(short_digest).unwrap_or_default(), DIM),
    ];
    if let Some(management) = &site.management {
        let environments = management.environments.join(", ");
        cells.push(Cell::new(if environments.is_empty() { "-" } else { &environments }, PLAIN));
        cells.push(match (&management.rule, &management.reason) {
            (Some(rule), None) => Cell::new(rule, GOOD),
            (Some(rule), Some(reason)) => Cell::new(&format!("{rule}, but {reason}"), WARN),
            (None, reason) => Cell::new(&format!("not managed: {}", reason.as_deref().unwrap_or_default()), DIM),
        });
    }
    cells
}
