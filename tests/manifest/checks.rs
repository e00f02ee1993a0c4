//! Properties of arbitrary bytes as a manifest. The fuzz targets check them on new inputs, `finds` on the recorded ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_yaml::Value;

use tagrelay_image::{Tag, Version};
use tagrelay_manifest::{
    Beside, Format, ManifestSettings, Pin, Reading, Refused, RulePart, SiteRule, Surroundings, Wanted, edit_overlay,
    edit_with, read, read_overlay,
};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const TAGS: [&str; 8] = ["v2", "123e456", "0b1", "1.27", "9f8e7d6", "1_0", "null", "2026-01-02"];

/// Arbitrary bytes as a manifest: the sites are deterministic, in bounds and in the order of the text.
pub fn scan(input: &[u8]) {
    let Some((path, settings, bytes)) = file(input) else { return };
    let reading = read(path, bytes, &settings);
    assert_eq!(reading, read(path, bytes, &settings), "not the same twice");
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    match reading {
        Ok(reading) => {
            assert!(reading.sites.iter().all(|site| site.line as usize <= lines), "a site behind the file");
            assert!(reading.notes.iter().all(|note| note.line as usize <= lines), "a note behind the file");
        }
        Err(unreadable) => assert!(unreadable.line.is_none_or(|line| line as usize <= lines + 1), "{unreadable}"),
    }
    // A rule without match disables the byte search for the file.
    let rule = SiteRule::new("**", "$.nothing.is.here", None, RulePart::Reference).unwrap();
    let unfiltered = ManifestSettings { rules: vec![rule], ..ManifestSettings::default() };
    if let Ok(unfiltered) = read(path, bytes, &unfiltered) {
        let filtered = read(path, bytes, &ManifestSettings::default()).expect("read past the search");
        assert_eq!(filtered.sites, unfiltered.sites, "the byte search misses a site");
    }
}

/// Edits all sites of arbitrary bytes, first together, then per repository: every site has its wanted value afterwards, and no
/// other byte changed.
pub fn edit(input: &[u8]) {
    let Some((path, settings, bytes)) = file(input) else { return };
    let Ok(reading) = read(path, bytes, &settings) else { return };
    let tag: Tag = TAGS[bytes.len() % TAGS.len()].parse().unwrap();
    let version = Version::tagged(tag, Some(DIGEST.parse().unwrap()));
    let mut repositories: Vec<_> = reading.sites.iter().map(|site| site.repository.clone()).collect();
    repositories.sort();
    repositories.dedup();
    let mut wanted: Vec<Wanted> =
        repositories.into_iter().map(|repository| Wanted { repository, version: version.clone() }).collect();
    set(path, bytes, &settings, &reading, &wanted);
    wanted.truncate(1);
    set(path, bytes, &settings, &reading, &wanted);
}

fn set(path: &str, bytes: &[u8], settings: &ManifestSettings, before: &Reading, wanted: &[Wanted]) {
    let edited = match edit_with(path, bytes, wanted, settings) {
        Ok(edited) => edited,
        Err(Refused::Unprovable { reason }) => panic!("{reason}"),
        Err(Refused::Unreadable(reason)) => panic!("read before, and now: {reason}"),
        Err(_) => return,
    };
    assert_eq!(edited.changes.is_empty(), edited.bytes == bytes, "changes that are none");
    let after = read(path, &edited.bytes, settings).expect("the edited file can be read");
    assert_eq!(edited.before, *before, "the edit reports the bytes before it");
    assert_eq!(edited.after.as_ref(), Some(&after), "the edit reports the bytes after it");
    assert_eq!(before.sites.len(), after.sites.len(), "other sites");
    for (old, new) in before.sites.iter().zip(&after.sites) {
        assert_eq!((&old.repository, old.format), (&new.repository, new.format));
        match wanted.iter().find(|wanted| wanted.repository == old.repository) {
            Some(wanted) => {
                assert!(new.version.tag().is_none() || new.version.tag() == wanted.version.tag());
                assert!(new.version.digest().is_none() || new.version.digest() == wanted.version.digest());
                assert!(old.version.tag().is_some() == new.version.tag().is_some());
                assert!(old.version.digest().is_none() || new.version.digest().is_some());
            }
            None => assert_eq!(old.version, new.version),
        }
    }
    let again = edit_with(path, &edited.bytes, wanted, settings).expect("the edited file can be edited again");
    assert!(again.changes.is_empty() && again.bytes == edited.bytes, "a second time changes more");
}

const PATH: &str = "env/kustomization.yaml";

/// The files of the input: the overlay, the base and its manifest.
struct Files<'input>([(&'static str, &'input [u8]); 3]);

impl Surroundings for Files<'_> {
    fn at(&self, path: &str) -> Beside {
        match self.0.iter().find(|(name, _)| *name == path) {
            Some((_, bytes)) => Beside::File(bytes.to_vec()),
            None if path == "base" || path == "env" => Beside::Folder,
            None => Beside::Nothing,
        }
    }

    fn is_own(&self, path: &str) -> bool {
        path.starts_with("env/")
    }
}

/// An arbitrary kustomization with an arbitrary base: the inserted entries set the versions of the base's images, and another
/// YAML parser sees no other difference.
///
/// The input is a byte that chooses tag and settings, and three files separated by 0xff, which is in no UTF-8 text.
pub fn insert(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0xff);
    let overlay = parts.next().unwrap_or_default();
    let base = parts.next().unwrap_or(b"resources: [a.yaml]");
    let manifest = parts.next().unwrap_or(b"kind: Pod\ncontainers: [{image: a:1}, {image: 'b/c:1'}]");
    let files = Files([(PATH, overlay), ("base/kustomization.yaml", base), ("base/a.yaml", manifest)]);
    let pin = if choice & 8 == 0 { Pin::Keep } else { Pin::Digest };
    let settings = ManifestSettings { pin, ..ManifestSettings::default() };

    let found = read_overlay(PATH, overlay, &files);
    let tag: Tag = TAGS[usize::from(choice & 7)].parse().unwrap();
    let version = Version::tagged(tag, Some(DIGEST.parse().unwrap()));
    let mut wanted: Vec<Wanted> = Vec::new();
    for image in &found.inherited {
        if wanted.iter().all(|other| other.repository != image.site.repository) {
            wanted.push(Wanted { repository: image.site.repository.clone(), version: version.clone() });
        }
    }
    let edited = match edit_overlay(PATH, overlay, &wanted, &settings, &found.inherited) {
        Ok(edited) => edited,
        Err(Refused::Unprovable { reason }) => panic!("{reason}"),
        Err(_) => return,
    };
    assert_eq!(edited.changes.is_empty(), edited.bytes == overlay, "changes that are none");
    if edited.changes.iter().all(|change| change.format != Format::Inherited) {
        return;
    }
    // Images with their own site are edited too, and entries are added for the others.
    let before = edit_with(PATH, overlay, &wanted, &settings).expect("the first edit succeeds").bytes;
    let mut rest = edited.bytes.iter();
    assert!(before.iter().all(|byte| rest.any(|other| other == byte)), "a byte that was there is gone");
    same_but_for_images(&before, &edited.bytes);

    let files = Files([(PATH, &edited.bytes), files.0[1], files.0[2]]);
    let after = read_overlay(PATH, &edited.bytes, &files);
    let left =
        after.inherited.iter().any(|image| wanted.iter().any(|wanted| wanted.repository == image.site.repository));
    assert!(!left, "an image with an entry is no longer inherited");
    let again = edit_overlay(PATH, &edited.bytes, &wanted, &settings, &after.inherited).expect("a second time");
    assert!(again.changes.is_empty() && again.bytes == edited.bytes, "a second time changes more");
}

/// Compares the values according to serde_yaml, which shares no code with the editor's parser.
fn same_but_for_images(before: &[u8], after: &[u8]) {
    // serde_yaml counts a BOM as a column of the first line, so a second key is not aligned with the first.
    let value = |bytes: &[u8]| serde_yaml::from_slice::<Value>(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let Ok(Value::Mapping(mut before)) = value(before) else { return };
    let Ok(Value::Mapping(mut after)) = value(after) else { panic!("readable no more") };
    let old = before.remove("images").unwrap_or_default();
    let new = after.remove("images").expect("the entries are there");
    assert_eq!(before, after, "something else than images");
    let (old, new) = (old.as_sequence().map_or(&[][..], Vec::as_slice), new.as_sequence().expect("a list"));
    assert_eq!(old, &new[..old.len()], "other entries");
    for entry in &new[old.len()..] {
        let entry = entry.as_mapping().expect("an entry");
        let are_strings = entry.iter().all(|(key, value)| key.is_string() && value.is_string());
        assert!(are_strings && (2..=3).contains(&entry.len()), "{entry:?}");
    }
}

/// A file made from an input: the first byte chooses name and settings, the rest is the content.
fn file(input: &[u8]) -> Option<(&'static str, tagrelay_manifest::ManifestSettings, &[u8])> {
    const NAMES: [&str; 8] = [
        "a.yaml",
        "kustomization.yaml",
        "values.json",
        ".argocd-source-a.yaml",
        "values.yaml",
        "a.json",
        "compose.yaml",
        "x/Kustomization",
    ];
    let (choice, bytes) = input.split_first()?;
    let mut settings = tagrelay_manifest::ManifestSettings::default();
    if choice & 8 != 0 {
        settings.pin = tagrelay_manifest::Pin::Digest;
    }
    if choice & 16 != 0 {
        let mut names = tagrelay_manifest::ImageNames::default();
        names.pattern("docker.io/library/*");
        names.flux_policy("ns:b", &"b".parse().ok()?);
        settings.names = std::sync::Arc::new(names);
        let rules = [
            ("$.a[?b=='c'].d", Some("a"), tagrelay_manifest::RulePart::Tag),
            ("$.*.*", None, tagrelay_manifest::RulePart::Reference),
        ];
        let rule = |(path, repository, part): (&str, Option<&str>, _)| {
            let repository = repository.and_then(|repository| repository.parse().ok());
            tagrelay_manifest::SiteRule::new("**", path, repository, part).ok()
        };
        settings.rules.extend(rules.into_iter().filter_map(rule));
    }
    Some((NAMES[usize::from(choice & 7)], settings, bytes))
}
