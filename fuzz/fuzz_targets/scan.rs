//! Any bytes as a manifest: what is found is the same each time, in bounds, and in the order of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tagrelay_fuzz::manifest::{ManifestSettings, may_hold_sites, read};

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
    if let Ok(reading) = read(path, bytes, &ManifestSettings::default()) {
        assert!(reading.sites.is_empty() || may_hold_sites(bytes), "the byte search misses a site");
    }
});
