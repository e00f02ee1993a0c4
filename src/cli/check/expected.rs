//! Checks that the settings use the store that the installation provides.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::report::Report;
use crate::store::StoreSettings;

/// The store that an installation provides, for example the Helm chart with its volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpectedStore {
    /// An SQLite file; with a folder, below this folder.
    Sqlite(Option<PathBuf>),
    Postgres,
}

impl FromStr for ExpectedStore {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "sqlite" => Ok(Self::Sqlite(None)),
            Some(("sqlite", folder)) if !folder.is_empty() => Ok(Self::Sqlite(Some(PathBuf::from(folder)))),
            None if text == "postgres" => Ok(Self::Postgres),
            _ => Err("expected sqlite, sqlite:FOLDER or postgres"),
        }
    }
}

impl ExpectedStore {
    /// Reports a fault if the settings name another store.
    pub(super) fn check(&self, store: &StoreSettings, report: &mut Report) {
        let subject = "store";
        let file = store.path.display();
        match self {
            Self::Postgres => {
                let message = format!(
                    "--expect-store=postgres, but [store] is the SQLite file {file}. Set `url` in [store], or install \
                     Tagrelay with the SQLite store"
                );
                report.fault(subject, message);
            }
            Self::Sqlite(Some(folder)) if !is_below(&store.path, folder) => {
                let folder = folder.display();
                let message = format!(
                    "--expect-store=sqlite:{folder}, but [store] is {file}, which is not on that volume: it is lost with the \
                     pod. Set `url = \"sqlite:{folder}/tagrelay.db\"` in [store]"
                );
                report.fault(subject, message);
            }
            Self::Sqlite(_) => report.ok(subject, format!("is the SQLite file {file}, as expected")),
        }
    }
}

/// Whether a file is in a folder or below it, by their names. Relative paths start in the working directory.
fn is_below(file: &Path, folder: &Path) -> bool {
    match (std::path::absolute(file), std::path::absolute(folder)) {
        (Ok(file), Ok(folder)) => {
            let climbs = file.components().any(|part| part == std::path::Component::ParentDir);
            !climbs && file.starts_with(folder)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_and_others_are_refused() {
        let folder = PathBuf::from("/var/lib/tagrelay");
        assert_eq!("sqlite".parse(), Ok(ExpectedStore::Sqlite(None)));
        assert_eq!("sqlite:/var/lib/tagrelay".parse(), Ok(ExpectedStore::Sqlite(Some(folder))));
        assert_eq!("postgres".parse(), Ok(ExpectedStore::Postgres));
        for wrong in ["", "sqlite:", "mysql", "postgres:x", "SQLite"] {
            assert!(wrong.parse::<ExpectedStore>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn folder_must_contain_the_file() {
        for (file, folder, expected) in [
            ("/data/tagrelay.db", "/data", true),
            ("/data/a/tagrelay.db", "/data/", true),
            ("/database/tagrelay.db", "/data", false),
            ("/data/../tmp/tagrelay.db", "/data", false),
            ("tagrelay.db", ".", true),
            ("tagrelay.db", "/data", false),
        ] {
            assert_eq!(is_below(Path::new(file), Path::new(folder)), expected, "{file} {folder}");
        }
    }
}
