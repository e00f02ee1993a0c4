//! Whether the folders of the store and of the mirrors can be written.

use std::fs::OpenOptions;
use std::path::Path;

use super::report::Report;
use crate::settings::Settings;

/// Looks at the store's file and at each mirror's folder. Opens no store: a running service may have it.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    let store = &settings.store.path;
    match writable_store(store) {
        Ok(state) => report.ok("store", format!("{} {state}", store.display())),
        Err(reason) => report.fault("store", format!("{} cannot be written: {reason}", store.display())),
    }
    for repository in &settings.config_repositories {
        if let Err(reason) = writable_below(&repository.mirror) {
            let message = format!("the mirror {} cannot be written: {reason}", repository.mirror.display());
            report.fault_at(repository.line, &format!("config repository {}", repository.name), message);
        }
    }
}

fn writable_store(store: &Path) -> Result<&'static str, String> {
    let folder = store.parent().unwrap_or(Path::new(""));
    // SQLite also makes files beside it.
    writable_below(folder)?;
    if !store.exists() {
        return Ok("can be made");
    }
    OpenOptions::new().append(true).open(store).map_err(|error| error.to_string())?;
    Ok("can be written")
}

/// Tries to write to the folder or, where it is not there, to the folder in which it would be made.
fn writable_below(folder: &Path) -> Result<(), String> {
    let there = folder.ancestors().find(|folder| folder.exists());
    let there = there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::tempfile_in(there) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{}: {error}", there.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_there_yet_is_fine_where_it_can_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("new/tagrelay.db");
        assert_eq!(writable_store(&store), Ok("can be made"));
        assert!(!store.parent().unwrap().exists(), "a check makes nothing");
        assert_eq!(writable_store(Path::new("tagrelay-test-no-such.db")), Ok("can be made"));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(writable_store(&file), Ok("can be written"));
        assert!(writable_store(&file.join("below/a/file.db")).unwrap_err().contains("file: "));
    }
}
