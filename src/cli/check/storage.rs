//! Checks that the folders of the store and of the mirrors can be written.

use std::fs::OpenOptions;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::report::Report;
use crate::config_repo::refuse_repository;
use crate::settings::Settings;

/// Checks the store's file and each mirror's folder. Locks and creates nothing: a running service may use them.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let store = &settings.store.path;
    let state = match writable_store(store) {
        Ok(state) => database(store).await.map(|()| state),
        Err(reason) => Err(format!("cannot be written: {reason}")),
    };
    match state {
        Ok(state) => report.ok("store", format!("{} {state}", store.display())),
        Err(reason) => report.fault("store", format!("{} {reason}", store.display())),
    }
    for repository in &settings.config_repositories {
        let mirror = &repository.mirror;
        let writable = || {
            writable_below(mirror)
                .map_err(|reason| format!("the mirror {} cannot be written: {reason}", mirror.display()))
        };
        let fault = refuse_repository(mirror).map_err(|error| error.to_string()).and_then(|()| writable()).err();
        if let Some(message) = fault {
            report.fault_at(repository.line, &format!("config repository {}", repository.name), message);
        }
    }
}

fn writable_store(store: &Path) -> Result<&'static str, String> {
    let folder = store.parent().unwrap_or(Path::new(""));
    // SQLite also creates files beside it.
    writable_below(folder)?;
    if !store.exists() {
        return Ok("can be made");
    }
    OpenOptions::new().append(true).open(store).map_err(|error| error.to_string())?;
    Ok("can be written")
}

/// Checks that the file is an SQLite database, or empty.
async fn database(store: &Path) -> Result<(), String> {
    if !store.exists() {
        return Ok(());
    }
    // Opened as immutable, so that SQLite neither locks it nor creates files beside it.
    let options = SqliteConnectOptions::new().filename(store).read_only(true).immutable(true);
    let looking = async {
        let mut connection = options.disable_statement_logging().connect().await?;
        sqlx::query("PRAGMA schema_version").execute(&mut connection).await?;
        connection.close().await
    };
    looking.await.map_err(|error: sqlx::Error| match error {
        sqlx::Error::Database(error) => format!("cannot be used: {}", error.message()),
        other => format!("cannot be used: {other}"),
    })
}

/// Tries to write to the folder, or to its nearest existing parent.
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
    fn missing_store_is_accepted_if_it_can_be_created() {
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

    #[tokio::test]
    async fn store_must_be_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b?.db");
        assert_eq!(database(&file).await, Ok(()), "it is not there yet");
        std::fs::write(&file, "").unwrap();
        assert_eq!(database(&file).await, Ok(()));
        std::fs::write(&file, "neither text nor database ".repeat(200)).unwrap();
        assert_eq!(database(&file).await.unwrap_err(), "cannot be used: file is not a database");

        let store = folder.path().join("real.db");
        let open = crate::store::Store::open(&crate::store::StoreSettings { path: store.clone() }).await.unwrap();
        assert_eq!(database(&store).await, Ok(()), "while a service has it");
        drop(open);
        // In a folder of its own: the database above may still be removing its side files.
        let apart = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(apart.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let alone = apart.path().join("alone.db");
        std::fs::copy(&store, &alone).unwrap();
        let before = names();
        assert_eq!(database(&alone).await, Ok(()));
        assert_eq!(names(), before, "a check makes nothing");
    }
}
