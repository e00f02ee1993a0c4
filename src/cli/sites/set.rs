//! `tagrelay sites --set`: changes the versions in a folder, a file or standard input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::folder::{self, Manifest, STDIN};
use super::management::{environments_of, territory};
use super::replace::replace_file;
use super::{Options, UnreadFile, as_url};
use crate::cli::output::{self, BAD, WARN, clean, colour_diff};
use crate::config_repo::{Territory, unified_diff};
use crate::settings::Settings;
use tagrelay_image::{Repository, Version};
use tagrelay_manifest::{ManifestSettings, Reading, Refused, SiteChange, Wanted, edit_with, read};

/// Parses `repository=tag`, `repository=tag@digest` or `repository=@digest`.
pub(super) fn parse_wanted(text: &str) -> Result<Wanted, String> {
    let (repository, version) =
        text.split_once('=').ok_or("write IMAGE=TAG, for instance docker.io/uyou/user-service=9f8e7d6")?;
    let repository: Repository = repository.parse().map_err(|error| format!("{error}"))?;
    let (tag, digest) = match version.split_once('@') {
        Some((tag, digest)) => (tag, Some(digest)),
        None => (version, None),
    };
    let tag = (!tag.is_empty()).then(|| tag.parse().map_err(|error| format!("{error}"))).transpose()?;
    let digest = digest.map(|digest| digest.parse().map_err(|error| format!("{error}"))).transpose()?;
    let version = Version::from_parts(tag, digest).ok_or("there is no tag after the =")?;
    Ok(Wanted { repository, version })
}

/// The result of the edit.
#[derive(Default, Serialize)]
struct Outcome {
    /// The changed files, in the order of their paths.
    files: Vec<ChangedFile>,
    /// All changes as a unified diff, for `git apply`.
    diff: String,
    /// Whether the files were written.
    written: bool,
    /// Images that no file names with a version.
    not_found: Vec<Repository>,
    /// Files with a site that cannot be changed, and files that could not be written.
    refused: Vec<UnreadFile>,
    /// Files that could not be read, and sites that were skipped.
    problems: Vec<UnreadFile>,
    /// The new text, if standard input was read.
    #[serde(skip)]
    stdin: Vec<u8>,
}

#[derive(Serialize)]
struct ChangedFile {
    path: String,
    changes: Vec<SiteChange>,
    #[serde(skip)]
    manifest: Manifest,
    #[serde(skip)]
    new: Vec<u8>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.not_found.is_empty() && self.refused.is_empty()
    }
}

/// The manifest settings of each file.
#[derive(Default)]
struct Manifests {
    /// For files outside of all environments.
    any: ManifestSettings,
    environments: BTreeMap<String, ManifestSettings>,
    territory: Option<Territory>,
}

impl Manifests {
    fn of(settings: &Settings) -> anyhow::Result<Self> {
        let environments = settings.environments.iter();
        Ok(Self {
            any: settings.manifests(),
            environments: environments.map(|each| (each.name.clone(), each.manifests.clone())).collect(),
            territory: Some(territory(&settings.environments)?),
        })
    }

    /// Returns the settings of a file: those of its first environment.
    fn about(&self, path: &str) -> &ManifestSettings {
        let names = self.territory.iter().flat_map(|territory| environments_of(territory, path));
        names.filter_map(|name| self.environments.get(&name)).next().unwrap_or(&self.any)
    }
}

pub(super) async fn run(options: Options, settings: Option<&Settings>) -> anyhow::Result<ExitCode> {
    let is_filter = options.place == STDIN && options.write;
    if options.place != STDIN && as_url(&options.place)?.is_some() {
        anyhow::bail!("--set needs a folder, a file or standard input: clone the repository and name its folder");
    }
    anyhow::ensure!(!(is_filter && options.json), "with --write, the new text is printed: leave out --json");
    let (wanted, place) = (options.set, PathBuf::from(options.place));
    let manifests = settings.map(Manifests::of).transpose()?.unwrap_or_default();
    let outcome = tokio::task::spawn_blocking(move || {
        let mut outcome = plan(&place, &wanted, &manifests)?;
        if options.write && outcome.is_good() {
            outcome.written = true;
            if !is_filter {
                write_files(&mut outcome)?;
            }
        }
        anyhow::Ok(outcome)
    })
    .await??;
    if options.json {
        output::print_json(&outcome)?;
    } else if !is_filter {
        print_diff(&outcome.diff)?;
    } else if outcome.is_good() {
        print_exactly(&outcome.stdin)?;
    }
    tell(&outcome);
    Ok(if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Computes the changes below `place` without writing them.
fn plan(place: &Path, wanted: &[Wanted], manifests: &Manifests) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut notes = Vec::new();
    let mut missing: BTreeSet<Repository> = wanted.iter().map(|wanted| wanted.repository.clone()).collect();
    outcome.problems = folder::walk(place, &manifests.any, &mut |manifest| {
        let about = manifests.about(&manifest.shown);
        let mut note = |reading: &Reading| {
            for site in &reading.sites {
                missing.remove(&site.repository);
            }
            notes.extend(reading.notes.iter().map(|note| UnreadFile {
                path: manifest.shown.clone(),
                reason: format!("line {}: {}", note.line, note.reason),
            }));
        };
        let edited = match edit_with(&manifest.shown, &manifest.bytes, wanted, about) {
            Ok(edited) => edited,
            Err(Refused::Unreadable(unreadable)) => return Err(unreadable.to_string()),
            Err(refused) => {
                note(&read(&manifest.shown, &manifest.bytes, about).unwrap_or_default());
                outcome.refused.push(UnreadFile { path: manifest.shown, reason: refused.to_string() });
                return Ok(());
            }
        };
        note(&edited.before);
        if !edited.changes.is_empty() || manifest.shown == STDIN {
            outcome.files.push(ChangedFile {
                path: manifest.shown.clone(),
                changes: edited.changes,
                new: edited.bytes,
                manifest,
            });
        }
        Ok(())
    })?;
    if place == Path::new(STDIN) {
        outcome.stdin = outcome.files.first().map(|file| file.new.clone()).unwrap_or_default();
        outcome.files.retain(|file| !file.changes.is_empty());
    }
    // A single file that cannot be read is an error, not a remark.
    if !place.is_dir() {
        outcome.refused.append(&mut outcome.problems);
    }
    outcome.problems.append(&mut notes);
    outcome.files.sort_by(|a, b| a.path.cmp(&b.path));
    outcome.refused.sort_by(|a, b| a.path.cmp(&b.path));
    outcome.problems.sort_by(|a, b| a.path.cmp(&b.path));
    outcome.not_found = missing.into_iter().collect();
    outcome.diff = diff_of(&outcome.files)?;
    Ok(outcome)
}

fn diff_of(files: &[ChangedFile]) -> anyhow::Result<String> {
    let mut diff = String::new();
    for file in files {
        let path = file.path.trim_start_matches('/');
        diff.push_str(&unified_diff(path, &file.manifest.bytes, &file.new).context("out of memory")?);
    }
    Ok(diff)
}

/// Writes the changed files. A file that cannot be written moves to `refused`; the others are still written.
fn write_files(outcome: &mut Outcome) -> anyhow::Result<()> {
    let refused = &mut outcome.refused;
    outcome.files.retain(|file| match replace_file(&file.manifest.path, &file.manifest.bytes, &file.new) {
        Ok(()) => true,
        Err(error) => {
            refused.push(UnreadFile { path: file.path.clone(), reason: format!("writing failed: {error:#}") });
            false
        }
    });
    if !outcome.refused.is_empty() {
        outcome.written = !outcome.files.is_empty();
        outcome.diff = diff_of(&outcome.files)?;
    }
    Ok(())
}

/// Prints the diff, in colours on a terminal, otherwise unchanged for `git apply`.
fn print_diff(diff: &str) -> anyhow::Result<()> {
    match anstream::AutoStream::choice(&std::io::stdout()) {
        anstream::ColorChoice::Never => print_exactly(diff.as_bytes()),
        _ => Ok(output::print(&colour_diff(diff))?),
    }
}

fn print_exactly(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints to standard error what is not in the diff.
fn tell(outcome: &Outcome) {
    for problem in &outcome.problems {
        output::note(&format!("{WARN}ignored:{WARN:#} {}: {}", clean(&problem.path), clean(&problem.reason)));
    }
    for refused in &outcome.refused {
        output::note(&format!("{BAD}refused:{BAD:#} {}: {}", clean(&refused.path), clean(&refused.reason)));
    }
    for repository in &outcome.not_found {
        output::note(&format!("{BAD}not found:{BAD:#} no file here names {repository} with a tag or digest"));
    }
    let changes: usize = outcome.files.iter().map(|file| file.changes.len()).sum();
    let done = match (outcome.files.len(), outcome.written, outcome.is_good()) {
        (_, false, false) => "nothing was written".to_owned(),
        (0, _, true) => "nothing to change: every site names this version already".to_owned(),
        (files, true, true) => format!("sites changed: {changes}, in files: {files}"),
        (files, true, false) => format!("sites changed: {changes}, in files: {files}, without those listed above"),
        (files, false, true) => format!("sites to change: {changes}, in files: {files}; --write changes them"),
    };
    output::note(&done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_parsed_after_its_image() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let parse = |text: &str| {
            let wanted = parse_wanted(&text.replace('$', &digest)).unwrap();
            format!("{} {}", wanted.repository, wanted.version).replace(&digest, "$")
        };
        assert_eq!(parse("uyou/user-service=123e456"), "docker.io/uyou/user-service 123e456");
        assert_eq!(parse("localhost:5000/a=v1@$"), "localhost:5000/a v1@$");
        assert_eq!(parse("a=@$"), "docker.io/library/a @$");
        for text in ["a", "a=", "=v1", "a=v1@", "a=@", "a=v1@sha256:1", "A b=v1", "a=v 1", "a:v1=v2"] {
            assert!(parse_wanted(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unwritten_file_is_not_reported_as_changed() {
        let folder = tempfile::tempdir().unwrap();
        let changed = |name: &str, on_disk: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, on_disk).unwrap();
            let manifest = Manifest { shown: name.to_owned(), path, bytes: b"old\n".to_vec() };
            ChangedFile { path: name.to_owned(), changes: Vec::new(), manifest, new: b"new\n".to_vec() }
        };
        let files = vec![changed("a.yaml", "old\n"), changed("b.yaml", "somebody was faster\n")];
        let mut outcome = Outcome { files, written: true, ..Outcome::default() };
        write_files(&mut outcome).unwrap();
        assert!(outcome.written && outcome.diff.contains("a.yaml") && !outcome.diff.contains("b.yaml"));
        assert_eq!((outcome.files.len(), outcome.refused[0].path.as_str()), (1, "b.yaml"));

        outcome.files.clear();
        outcome.files.push(changed("b.yaml", "somebody was faster\n"));
        write_files(&mut outcome).unwrap();
        assert!(!outcome.written && outcome.files.is_empty() && outcome.diff.is_empty());
    }
}
