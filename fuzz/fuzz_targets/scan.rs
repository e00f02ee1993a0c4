//! Any bytes as a manifest: what is found is the same each time, in bounds, and in the order of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tagrelay_fuzz::manifest::{ManifestSettings, RulePart, SiteRule, read};

fuzz_target!(|input: &[u8]| {
    let Some((path, settings, bytes)) = tagrelay_fuzz::file(input) else { return };
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
    // A rule that meets nothing has the file read past the byte search.
    let rule = SiteRule::new("**", "$.nothing.is.here", None, RulePart::Reference).unwrap();
    let unfiltered = ManifestSettings { rules: vec![rule], ..ManifestSettings::default() };
    if let Ok(unfiltered) = read(path, bytes, &unfiltered) {
        let filtered = read(path, bytes, &ManifestSettings::default()).expect("read past the search");
        assert_eq!(filtered.sites, unfiltered.sites, "the byte search misses a site");
    }
});
