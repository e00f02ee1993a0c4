//! The corpus in `tests/manifest/corpus`: every file of `original/` becomes the one in `expected/`; files in `leave/` do not
//! change. `rules/` and `pinned/` have their own `original/` and `expected/`, for settings with rules and pinning.

use std::collections::BTreeMap;

use tagrelay_image::{ImageReference, Version};
use tagrelay_manifest::{
    ManifestSettings, Pin, Refused, RulePart, SiteRule, Wanted, edit, edit_with, is_manifest_path, read, scan,
};
use tagrelay_test_support::folder;

/// The edits of every corpus file.
const WANTED: [&str; 4] = [
    "registry.example.com/shop/user-service:9f8e7d6c5b4a39281706f5e4d3c2b1a098765432",
    "registry.example.com/shop/order-service:123e456",
    "localhost:5000/gateway:v2",
    "nginx:1.28",
];
const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn wanted() -> Vec<Wanted> {
    let with_digest = |reference: &str| format!("{reference}@{DIGEST}").parse::<ImageReference>().unwrap();
    let wanted = |reference: ImageReference| {
        let version: Version = reference.version().unwrap();
        Wanted { repository: reference.repository, version }
    };
    WANTED.iter().map(|reference| wanted(with_digest(reference))).collect()
}

/// The files of a corpus folder.
fn files(part: &str) -> BTreeMap<String, Vec<u8>> {
    folder::files(&format!("tests/manifest/corpus/{part}"))
}

#[test]
fn originals_become_expected_files() {
    become_expected("", &ManifestSettings::default());
}

#[test]
fn rules_find_the_sites_they_name() {
    let rule = |file: &str, path: &str, repository: Option<&str>, part| {
        let repository = repository.map(|repository| repository.parse().unwrap());
        SiteRule::new(file, path, repository, part).unwrap()
    };
    let shop = |name: &str| format!("registry.example.com/shop/{name}");
    let (user, order) = (shop("user-service"), shop("order-service"));
    let rules = vec![
        rule("helmfile.yaml", "$.releases[?name=='user'].version", Some(&user), RulePart::Tag),
        rule("config-map.yaml", "$.data['edge.yaml'].proxy.image", None, RulePart::Reference),
        rule("config-map.yaml", "$.data['edge.yaml'].proxy.build", Some("localhost:5000/gateway"), RulePart::Tag),
        rule("*.json", "$.order.digest", Some(&order), RulePart::Digest),
    ];
    become_expected("rules/", &ManifestSettings { rules, ..ManifestSettings::default() });
}

#[test]
fn pinned_tags_get_their_digests() {
    become_expected("pinned/", &ManifestSettings { pin: Pin::Digest, ..ManifestSettings::default() });
}

fn become_expected(part: &str, settings: &ManifestSettings) {
    let originals = files(&format!("{part}original"));
    assert!(!originals.is_empty());
    let expected = files(&format!("{part}expected"));
    assert!(originals.keys().eq(expected.keys()));
    for (name, original) in originals {
        assert!(is_manifest_path(&name), "{name}");
        let expected = &expected[&name];
        assert_ne!(original, *expected, "{name} belongs to leave/");
        let edited =
            edit_with(&name, &original, &wanted(), settings).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(String::from_utf8_lossy(&edited.bytes), String::from_utf8_lossy(expected), "{name}");

        // A second scan finds the new versions, the changes report them, and a second edit changes nothing.
        let sites = read(&name, &edited.bytes, settings).unwrap().sites;
        for change in &edited.changes {
            let says_it = sites.iter().any(|site| site.line == change.line && site.version == change.new);
            assert!(says_it && change.old != change.new, "{name}: {change:?}");
        }
        assert_eq!(read(&name, &original, settings).unwrap().sites.len(), sites.len(), "{name}");
        let again = edit_with(&name, &edited.bytes, &wanted(), settings).unwrap();
        assert_eq!((again.changes.as_slice(), again.bytes == edited.bytes), (&[][..], true), "{name}");
    }
}

#[test]
fn files_of_leave_stay_unchanged() {
    let outcomes: String = files("leave").into_iter().filter(|(name, _)| is_manifest_path(name)).map(outcome).collect();
    insta::assert_snapshot!(outcomes);
}

/// Describes the result for a file of `leave/` in one line. A change is a failure.
fn outcome((name, bytes): (String, Vec<u8>)) -> String {
    match edit(&name, &bytes, &wanted()) {
        Ok(edited) => {
            assert!(edited.bytes == bytes && edited.changes.is_empty(), "{name}: {:?}", edited.changes);
            let reading = read(&name, &bytes, &ManifestSettings::default()).unwrap();
            let notes = reading.notes.iter().map(|note| format!("    line {}: {}\n", note.line, note.reason));
            format!("{name}: {} sites, none changed\n{}", reading.sites.len(), notes.collect::<String>())
        }
        Err(Refused::Unreadable(unreadable)) => {
            assert_eq!(scan(&name, &bytes), Err(unreadable.clone()), "{name}");
            format!("{name}: unreadable: {unreadable}\n")
        }
        Err(refused) => format!("{name}: refused: {refused}\n"),
    }
}
