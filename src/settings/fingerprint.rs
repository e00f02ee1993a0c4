//! Detects changes of the settings: hashes of sections, and stamps of the files that they name.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Keys whose value is the path of a file that is read.
const FILE_KEYS: [&str; 4] = ["file", "ca_bundle", "known_hosts", "docker_config"];

/// Keys whose value identifies a table of a list, in the order in which they are looked up.
const NAME_KEYS: [&str; 3] = ["name", "host", "repository"];

/// The state of the settings when they were read: hashes of sections, and stamps of files.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash of each section and the stamps of its files, in the order of the file.
    sections: Vec<(SectionName, [u8; 32])>,
    files: BTreeMap<PathBuf, Option<Stamp>>,
}

/// A section's name in messages, and the name of its table in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SectionName {
    section: String,
    name: Option<String>,
}

/// Metadata that changes when a file changes. A Kubernetes volume replaces the file by another with the same name, which
/// changes the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A section of the settings with a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedSection {
    /// As in the settings, such as `[[receiver]]`.
    pub section: String,
    /// The name of the table in a list; `None`: not a list, or all tables of the list.
    pub name: Option<String>,
    pub change: ChangeKind,
}

/// The kind of a change of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The section is new.
    Added,
    /// The section no longer exists.
    Removed,
    /// The section or a file that it names has changed.
    Changed,
    /// The same sections are in another order.
    Reordered,
}

impl ChangeKind {
    /// Returns its name in the API and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Reordered => "reordered",
        }
    }
}

/// Writes `[[receiver]] ci: added`.
impl std::fmt::Display for ChangedSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.section)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        write!(f, ": {}", self.change.as_str())
    }
}

impl Fingerprint {
    /// Creates the fingerprint of settings that are about to be read.
    ///
    /// The stamps are taken now, so that a change while the settings are read is detected later. Text that is not TOML has
    /// no sections.
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let mut fingerprint = Self::default();
        fingerprint.watch(file);
        let Ok(top) = text.parse::<toml::Table>() else { return fingerprint };
        for (key, value) in &top {
            match value {
                toml::Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let name = name_of(item).unwrap_or_else(|| format!("#{}", index + 1));
                        fingerprint.add(format!("[[{key}]]"), Some(name), item);
                    }
                }
                value => fingerprint.add(format!("[{key}]"), None, value),
            }
        }
        fingerprint
    }

    fn watch(&mut self, file: &Path) -> Option<Stamp> {
        *self.files.entry(file.to_owned()).or_insert_with(|| Stamp::of(file))
    }

    fn add(&mut self, section: String, name: Option<String>, value: &toml::Value) {
        let mut hash = Sha256::new();
        hash.update(value.to_string());
        let mut files = Vec::new();
        collect_files(value, &mut files);
        for file in files {
            let stamp = self.watch(Path::new(file));
            hash.update(format!("{stamp:?}"));
        }
        self.sections.push((SectionName { section, name }, hash.finalize().into()));
    }

    /// Returns whether no file has changed since. Reads metadata only.
    pub fn is_current(&self) -> bool {
        self.files.iter().all(|(file, stamp)| Stamp::of(file) == *stamp)
    }

    /// Returns the same sections with the files' current stamps.
    pub fn now(&self) -> Self {
        let files = self.files.keys().map(|file| (file.clone(), Stamp::of(file))).collect();
        Self { sections: self.sections.clone(), files }
    }

    /// Returns whether a named table of a list, such as `[[receiver]]`, and its files are the same in both.
    pub fn has_same(&self, other: &Self, section: &str, name: &str) -> bool {
        let hash = |of: &Self| {
            let mut named = of.sections.iter().filter(|(found, _)| found.section == section);
            named.find(|(found, _)| found.name.as_deref() == Some(name)).map(|(_, hash)| *hash)
        };
        hash(self).is_some_and(|own| Some(own) == hash(other))
    }

    /// Returns whether all tables of a list, their order and their files are the same in both.
    pub fn has_all_same(&self, other: &Self, section: &str) -> bool {
        let all = |of: &Self| {
            let own = of.sections.iter().filter(|(found, _)| found.section == section);
            own.cloned().collect::<Vec<_>>()
        };
        all(self) == all(other)
    }

    /// Returns the changes in `new`, in the order of its sections; removed sections come last but reordered ones.
    pub fn changes(&self, new: &Self) -> Vec<ChangedSection> {
        let find =
            |of: &Self, name: &SectionName| of.sections.iter().find(|(found, _)| found == name).map(|(_, hash)| *hash);
        let change = |name: &SectionName, change| ChangedSection {
            section: name.section.clone(),
            name: name.name.clone(),
            change,
        };
        let mut changes = Vec::new();
        for (name, hash) in &new.sections {
            match find(self, name) {
                None => changes.push(change(name, ChangeKind::Added)),
                Some(old) if old != *hash => changes.push(change(name, ChangeKind::Changed)),
                Some(_) => {}
            }
        }
        let gone = self.sections.iter().filter(|(name, _)| find(new, name).is_none());
        changes.extend(gone.map(|(name, _)| change(name, ChangeKind::Removed)));
        for (name, _) in &new.sections {
            let section = &name.section;
            let is_told = changes.iter().any(|change| change.section == *section);
            if !is_told && !self.has_all_same(new, section) {
                changes.push(ChangedSection { section: section.clone(), name: None, change: ChangeKind::Reordered });
            }
        }
        changes
    }
}

/// Omits the hashes, because the hash of a short secret could be used to guess it.
impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fingerprint").field("files", &self.files.keys()).finish_non_exhaustive()
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let found = std::fs::metadata(file).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

fn name_of(table: &toml::Value) -> Option<String> {
    let name = NAME_KEYS.iter().find_map(|key| table.get(key)?.as_str())?;
    Some(name.escape_debug().to_string())
}

fn collect_files<'a>(value: &'a toml::Value, files: &mut Vec<&'a str>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value.as_str() {
                    Some(file) if FILE_KEYS.contains(&key.as_str()) => files.push(file),
                    _ => collect_files(value, files),
                }
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| collect_files(item, files)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> Vec<String> {
        let fingerprint = |text| Fingerprint::new(Path::new("/no/such/tagrelay.toml"), text);
        fingerprint(old).changes(&fingerprint(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_are_reported_by_name() {
        let old = "[server]\nlisten = 'a'\n[[receiver]]\nname = 'ci'\nsecret = { value = 'one' }\n[[receiver]]\nname = 'hub'\n";
        assert_eq!(changes(old, old), Vec::<String>::new());
        assert_eq!(changes(old, &format!("# a comment\n\n{old}")), Vec::<String>::new());
        let rotated = old.replace("'one'", "'two'");
        assert_eq!(changes(old, &rotated), ["[[receiver]] ci: changed"]);
        let renamed = old.replace("'hub'", "'quay'");
        assert_eq!(changes(old, &renamed), ["[[receiver]] quay: added", "[[receiver]] hub: removed"]);
        assert_eq!(changes(old, "[server]\nlisten = 'b'\n")[0], "[server]: changed");
        let images = "[[image]]\nrepository = 'a/*'\n[[image]]\nrepository = 'b/*'\n";
        let turned = "[[image]]\nrepository = 'b/*'\n[[image]]\nrepository = 'a/*'\n";
        assert_eq!(changes(images, turned), ["[[image]]: reordered"]);
    }

    #[test]
    fn change_of_a_named_file_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "one").unwrap();
        let text = format!("[[receiver]]\nname = 'ci'\nsecret = {{ file = '{}' }}\n", secret.display());
        let read = || Fingerprint::new(Path::new("/no/such/tagrelay.toml"), &text);
        let old = read();
        assert!(old.is_current());
        // Replaces the file by another, as a Kubernetes volume does.
        let other = folder.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &secret).unwrap();
        assert!(!old.is_current());
        let new = read();
        assert!(!old.has_same(&new, "[[receiver]]", "ci") && new.has_same(&new, "[[receiver]]", "ci"));
        std::fs::remove_file(&secret).unwrap();
        assert!(!new.is_current(), "a removed file is a change");
    }

    #[test]
    fn debug_omits_hashes() {
        let text = "[[receiver]]\nname = 'ci'\nsecret = { value = 'sesame' }\n";
        let shown = format!("{:?}", Fingerprint::new(Path::new("a.toml"), text));
        assert_eq!(shown, r#"Fingerprint { files: ["a.toml"], .. }"#);
    }
}
