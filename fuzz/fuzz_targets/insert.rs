//! A kustomization of any bytes upon a base of any bytes: the entries that are added give the base's images their
//! versions, and every other reader of YAML sees nothing else that is different.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_yaml::Value;
use tagrelay_fuzz::image::{Tag, Version};
use tagrelay_fuzz::manifest::{
    Beside, Format, ManifestSettings, Pin, Refused, Surroundings, Wanted, edit_overlay, edit_with, read_overlay,
};

const PATH: &str = "env/kustomization.yaml";
const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const TAGS: [&str; 8] = ["v2", "123e456", "0b1", "1.27", "9f8e7d6", "1_0", "null", "2026-01-02"];

/// The files of the input: the overlay, and the base with its manifest.
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

// A byte that chooses tag and settings, and the three files with 0xff between them, which no text holds.
fuzz_target!(|input: &[u8]| {
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
    // What has a site of its own is set too; the entries are added to that.
    let before = edit_with(PATH, overlay, &wanted, &settings).expect("the first half of what was done").bytes;
    let mut rest = edited.bytes.iter();
    assert!(before.iter().all(|byte| rest.any(|other| other == byte)), "a byte that was there is gone");
    same_but_for_images(&before, &edited.bytes);

    let files = Files([(PATH, &edited.bytes), files.0[1], files.0[2]]);
    let after = read_overlay(PATH, &edited.bytes, &files);
    let left = after.inherited.iter().any(|image| wanted.iter().any(|wanted| wanted.repository == image.site.repository));
    assert!(!left, "what has an entry is inherited no more");
    let again = edit_overlay(PATH, &edited.bytes, &wanted, &settings, &after.inherited).expect("a second time");
    assert!(again.changes.is_empty() && again.bytes == edited.bytes, "a second time changes more");
});

/// Compares the values that the serde reader has of both; it knows nothing of the parser of the editor.
fn same_but_for_images(before: &[u8], after: &[u8]) {
    let Ok(Value::Mapping(mut before)) = serde_yaml::from_slice::<Value>(before) else { return };
    let Ok(Value::Mapping(mut after)) = serde_yaml::from_slice::<Value>(after) else { panic!("readable no more") };
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
