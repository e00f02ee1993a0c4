//! Manifests, values files, kustomizations and Compose files of public projects in `tests/manifest/public`. Every site is set
//! to tags that look like numbers, dates and booleans. The results are checked independently of the editor: line by line and
//! by PyYAML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::process::{Command, Stdio};

use tagrelay_image::{Repository, Version};
use tagrelay_manifest::{Edited, Site, SiteChange, Wanted, edit, is_manifest_path, scan};
use tagrelay_test_support::{folder, pyyaml};

/// A full SHA, and tags that look like a number, exponent, octal, binary, date and boolean.
const TAGS: [&str; 7] =
    ["9f8e7d6c5b4a39281706f5e4d3c2b1a098765432", "1234567", "123e456", "0123456", "0b10101", "2026-01-02", "on"];
const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

struct File {
    /// The path below `tests/manifest/public`.
    name: String,
    bytes: Vec<u8>,
}

/// The files, ordered by path.
fn files() -> Vec<File> {
    let files = folder::files("tests/manifest/public").into_iter().filter(|(name, _)| is_manifest_path(name));
    files.map(|(name, bytes)| File { name, bytes }).collect()
}

/// A plan that sets every site of these repositories to `tag`.
fn all_to<'a>(repositories: impl IntoIterator<Item = &'a Repository>, tag: &str) -> Vec<Wanted> {
    let version = Version::tagged(tag.parse().unwrap(), Some(DIGEST.parse().unwrap()));
    let distinct: BTreeSet<_> = repositories.into_iter().collect();
    distinct.into_iter().map(|repository| Wanted { repository: repository.clone(), version: version.clone() }).collect()
}

/// Sets all sites to a tag, except refused ones. Returns the refusals, too.
fn edit_all(file: &File, sites: &[Site], tag: &str) -> (Edited, BTreeSet<String>) {
    let mut repositories: BTreeSet<&Repository> = sites.iter().map(|site| &site.repository).collect();
    let mut refusals = BTreeSet::new();
    loop {
        match edit(&file.name, &file.bytes, &all_to(repositories.iter().copied(), tag)) {
            Ok(edited) => return (edited, refusals),
            Err(refused) => {
                let blamed = refused.repository().unwrap_or_else(|| panic!("{}: {refused}", file.name));
                assert!(repositories.remove(blamed), "{}: {refused}", file.name);
                refusals.insert(refused.to_string());
            }
        }
    }
}

/// Fails unless each line of `after` equals that of `before`, except versions and their quotes.
fn assert_lines(name: &str, before: &[u8], edited: &Edited) {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(&edited.bytes));
    let lines: Vec<_> = before.split_inclusive('\n').collect();
    assert_eq!(lines.len(), after.split_inclusive('\n').count(), "{name}");
    let mut reported: BTreeSet<u32> = edited.changes.iter().map(|change| change.line).collect();
    for (number, (old, new)) in (1..).zip(lines.iter().zip(after.split_inclusive('\n'))) {
        if *old == new {
            continue;
        }
        let is_version = |change: &SiteChange| {
            let bare = |line: &str| line.replace(['"', '\''], "");
            let parts =
                |version: &Version| [version.tag().map(ToString::to_string), version.digest().map(ToString::to_string)];
            let mut possible = vec![bare(new)];
            for (old, new) in parts(&change.old).iter().zip(parts(&change.new)) {
                let (Some(old), Some(new)) = (old, new) else { continue };
                for line in possible.clone() {
                    let places = line.match_indices(&new).map(|(at, _)| at);
                    possible.extend(places.map(|at| [&line[..at], old, &line[at + new.len()..]].concat()));
                }
            }
            possible.contains(&bare(old))
        };
        assert!(edited.changes.iter().any(is_version), "{name}:{number}: {old} -> {new}");
        reported.remove(&number);
    }
    assert!(reported.is_empty(), "{name}: unchanged lines are reported as changes: {reported:?}");
}

/// Fails unless the edit changed exactly the versions that the changes report.
fn assert_sites(file: &File, sites: &[Site], edited: &Edited) {
    let after = scan(&file.name, &edited.bytes).unwrap();
    let mut expected = sites.to_vec();
    for change in &edited.changes {
        let site = expected.iter_mut().find(|site| {
            site.line == change.line && site.repository == change.repository && site.version == change.old
        });
        site.unwrap_or_else(|| panic!("{}: {change:?} was not a site", file.name)).version = change.new.clone();
    }
    assert_eq!(after, expected, "{}", file.name);
}

/// The results for one project.
#[derive(Default)]
struct Origin {
    files: usize,
    with_sites: usize,
    sites: BTreeMap<String, usize>,
    unreadable: usize,
    refused: usize,
}

#[test]
fn every_site_of_public_manifests_can_be_set() {
    let files = files();
    assert!(files.len() >= 300, "{}", files.len());
    let mut origins: BTreeMap<&str, Origin> = BTreeMap::new();
    let (mut details, mut pairs) = (String::new(), Vec::new());
    for file in &files {
        let (origin, path) = file.name.split_once('/').unwrap();
        let counts = origins.entry(origin).or_default();
        counts.files += 1;
        let sites = match scan(&file.name, &file.bytes) {
            Ok(sites) => sites,
            Err(unreadable) => {
                counts.unreadable += 1;
                assert!(edit(&file.name, &file.bytes, &[]).is_err(), "{}", file.name);
                writeln!(details, "{origin} {path}: unreadable: {unreadable}").unwrap();
                continue;
            }
        };
        if sites.is_empty() {
            continue;
        }
        counts.with_sites += 1;
        for site in &sites {
            *counts.sites.entry(site.format.to_string()).or_default() += 1;
        }
        let list = sites.iter().map(|site| format!("{}:{}", site.line, site.version.short())).collect::<Vec<_>>();
        writeln!(details, "{origin} {path}: {}", list.join(" ")).unwrap();
        for tag in TAGS {
            let (edited, refusals) = edit_all(file, &sites, tag);
            if tag == TAGS[0] {
                counts.refused += refusals.len();
                refusals.iter().for_each(|refusal| writeln!(details, "  refused: {refusal}").unwrap());
            }
            assert!(!edited.changes.is_empty() || !refusals.is_empty(), "{}", file.name);
            assert_lines(&file.name, &file.bytes, &edited);
            assert_sites(file, &sites, &edited);
            pairs.push((file, edited));
        }
    }
    let mut summary = String::new();
    for (name, Origin { files, with_sites, sites, unreadable, refused }) in &origins {
        writeln!(
            summary,
            "{name}: files {files}, with sites {with_sites}, sites {sites:?}, unreadable {unreadable}, refused {refused}"
        )
        .unwrap();
    }
    insta::assert_snapshot!(format!("{summary}\n{details}"));
    ask_pyyaml(&pairs);
}

/// Fails unless PyYAML parses each edited file like the original, except the versions, which are strings.
fn ask_pyyaml(pairs: &[(&File, Edited)]) {
    if pyyaml::is_left_out() {
        return;
    }
    let script = folder::root().join("tests/manifest/same_but_scalars.py");
    let mut python = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = python.stdin.take().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let input: Vec<_> = pairs.iter().map(|(file, edited)| (text(&file.bytes), text(&edited.bytes))).collect();
    let input = serde_json::to_vec(&input).unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), pairs.len());
    let mut unread = BTreeSet::new();
    for (answer, (file, edited)) in answers.iter().zip(pairs) {
        if let Some(problem) = answer.as_str() {
            assert!(problem.starts_with("cannot be read"), "{}: {problem}", file.name);
            unread.insert(format!("{}: {problem}", file.name));
            continue;
        }
        let differences = answer.as_array().unwrap();
        assert_eq!(differences.is_empty(), edited.changes.is_empty(), "{}: {differences:?}", file.name);
        let says = |value: &str, part: Option<&str>| part.is_none_or(|part| value.contains(part));
        for difference in differences {
            let (old, new) = (difference[1].as_str().unwrap(), difference[2].as_str().unwrap());
            let is_reported = edited.changes.iter().any(|change| {
                let parts = |version: &Version| {
                    (version.tag().map(|tag| tag.as_str().to_owned()), version.digest().map(ToString::to_string))
                };
                let ((old_tag, old_digest), (new_tag, new_digest)) = (parts(&change.old), parts(&change.new));
                let both = |tag: &Option<String>, digest: &Option<String>, value: &str| {
                    says(value, tag.as_deref()) || digest.as_deref().is_some_and(|digest| value.contains(digest))
                };
                both(&old_tag, &old_digest, old) && both(&new_tag, &new_digest, new)
            });
            assert!(is_reported, "{}: {difference}", file.name);
        }
    }
    insta::assert_snapshot!("not_read_by_pyyaml", unread.into_iter().collect::<Vec<_>>().join("\n"));
}
