//! Sets every site of any bytes, all at once and each repository alone: what was wanted is there afterwards, and nothing
//! else is different.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tagrelay_fuzz::image::{Tag, Version};
use tagrelay_fuzz::manifest::{ManifestSettings, Reading, Refused, Wanted, edit_with, read};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const TAGS: [&str; 8] = ["v2", "123e456", "0b1", "1.27", "9f8e7d6", "1_0", "null", "2026-01-02"];

fuzz_target!(|input: &[u8]| {
    let Some((path, settings, bytes)) = tagrelay_fuzz::file(input) else { return };
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
});

fn set(path: &str, bytes: &[u8], settings: &ManifestSettings, before: &Reading, wanted: &[Wanted]) {
    let edited = match edit_with(path, bytes, wanted, settings) {
        Ok(edited) => edited,
        Err(Refused::Unprovable { reason }) => panic!("{reason}"),
        Err(Refused::Unreadable(reason)) => panic!("read before, and now: {reason}"),
        Err(_) => return,
    };
    assert_eq!(edited.changes.is_empty(), edited.bytes == bytes, "changes that are none");
    let after = read(path, &edited.bytes, settings).expect("what was edited can be read");
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
    let again = edit_with(path, &edited.bytes, wanted, settings).expect("what was edited can be edited");
    assert!(again.changes.is_empty() && again.bytes == edited.bytes, "a second time changes more");
}
