use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use super::error::OpenError;
use tagrelay_manifest::{ManifestSettings, is_manifest_path};

/// An environment and its paths in a config repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentPaths {
    pub name: String,
    /// Globs over the paths of the repository. `*` does not match a slash, `**` does, and a folder matches all paths below it.
    pub paths: Vec<String>,
    /// How the manifests of the environment are read.
    pub manifests: ManifestSettings,
}

/// Maps files of a repository to environments. An environment is identified by its number: its position in the settings.
#[derive(Debug)]
pub struct Territory {
    names: Vec<String>,
    manifests: Vec<ManifestSettings>,
    globs: GlobSet,
    /// The environment of each glob.
    owners: Vec<usize>,
    /// The environment of each path of the settings, and the longest folder above all matches of the path.
    ///
    /// The folder has a trailing slash.
    roots: Vec<(usize, Vec<u8>)>,
}

impl Territory {
    /// Compiles the paths of environments.
    ///
    /// # Errors
    ///
    /// [`OpenError::Path`] for an invalid path.
    pub fn new(environments: &[EnvironmentPaths]) -> Result<Self, OpenError> {
        let mut set = GlobSetBuilder::new();
        let mut owners = Vec::new();
        let mut roots = Vec::new();
        for (owner, environment) in environments.iter().enumerate() {
            for path in &environment.paths {
                let invalid = |reason: String| OpenError::Path {
                    environment: environment.name.clone(),
                    path: path.clone(),
                    reason,
                };
                let normal = normalise(path).map_err(|reason| invalid(reason.to_owned()))?;
                for pattern in patterns(&normal) {
                    let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
                    set.add(glob.map_err(|error| invalid(format!("is not a valid glob: {}", error.kind())))?);
                    owners.push(owner);
                }
                roots.push((owner, root_of(&normal)));
            }
        }
        let globs = set.build().map_err(|error| OpenError::Path {
            environment: String::new(),
            path: error.glob().unwrap_or_default().to_owned(),
            reason: format!("is not a valid glob: {}", error.kind()),
        })?;
        Ok(Self {
            names: environments.iter().map(|environment| environment.name.clone()).collect(),
            manifests: environments.iter().map(|environment| environment.manifests.clone()).collect(),
            globs,
            owners,
            roots,
        })
    }

    /// The names of the environments, by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the environments of a file, sorted.
    pub fn owners_of(&self, path: &[u8]) -> Vec<usize> {
        let matched = self.globs.matches_candidate(&Candidate::from_bytes(path));
        let mut owners: Vec<usize> = matched.into_iter().map(|glob| self.owners[glob]).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// How the manifests of an environment are read.
    pub(super) fn manifests(&self, owner: usize) -> &ManifestSettings {
        &self.manifests[owner]
    }

    /// Returns the number of an environment.
    pub(super) fn number_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Whether a file can contain sites.
    ///
    /// True if it has the name of a manifest, or if a rule of the settings matches it.
    pub(super) fn may_hold_sites(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        is_manifest_path(&path) || (0..self.names.len()).any(|owner| self.has_rules(owner, &path))
    }

    /// Groups the environments of a file that read it in the same way.
    pub(super) fn readers(&self, path: &[u8], owners: Vec<usize>) -> Vec<Vec<usize>> {
        let path = String::from_utf8_lossy(path);
        let (special, mut plain): (Vec<usize>, Vec<usize>) =
            owners.into_iter().partition(|owner| self.has_rules(*owner, &path));
        // A file that is not a manifest is read only through rules.
        if !is_manifest_path(&path) {
            plain.clear();
        }
        let special = special.into_iter().map(|owner| vec![owner]);
        special.chain([plain]).filter(|owners| !owners.is_empty()).collect()
    }

    fn has_rules(&self, owner: usize, path: &str) -> bool {
        self.manifests(owner).rules.iter().any(|rule| rule.takes(path))
    }

    /// Whether a folder (with a trailing slash) can contain a file of any environment.
    pub(super) fn may_hold(&self, folder: &[u8]) -> bool {
        self.holders_of(folder).next().is_some()
    }

    /// Returns the environments that can have files in a folder, possibly repeated.
    pub(super) fn holders_of(&self, folder: &[u8]) -> impl Iterator<Item = usize> {
        let holders = self.roots.iter().filter(move |(_, root)| root.starts_with(folder) || folder.starts_with(root));
        holders.map(|(owner, _)| *owner)
    }
}

/// Returns the path without a trailing slash, or why it is invalid.
fn normalise(path: &str) -> Result<String, &'static str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') {
        return Err("starts with `/`: paths are relative to the root of the repository");
    }
    let path = path.trim_end_matches('/');
    match path {
        "" => return Err("is empty: write `**` for the whole repository"),
        "." => return Ok("**".to_owned()),
        _ => {}
    }
    if path.split('/').any(|part| part == "..") {
        return Err("contains `..`: an environment cannot leave its repository");
    }
    if path.split('/').any(|part| part.is_empty() || part == ".") {
        return Err("contains an empty part or `.`: remove it");
    }
    Ok(path.to_owned())
}

/// Returns the globs of a path: the path itself, and all paths below it, because it may be a folder.
fn patterns(path: &str) -> Vec<String> {
    if path == "**" || path.ends_with("/**") {
        vec![path.to_owned()]
    } else {
        vec![path.to_owned(), format!("{path}/**")]
    }
}

/// Returns the leading folders of a path that contain no wildcard, with a trailing slash.
fn root_of(path: &str) -> Vec<u8> {
    let mut root = Vec::new();
    for part in path.split('/').take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])) {
        root.extend_from_slice(part.as_bytes());
        root.push(b'/');
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn territory(environments: &[(&str, &[&str])]) -> Result<Territory, OpenError> {
        let environments: Vec<EnvironmentPaths> = environments
            .iter()
            .map(|(name, paths)| EnvironmentPaths {
                name: (*name).to_owned(),
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                manifests: ManifestSettings::default(),
            })
            .collect();
        Territory::new(&environments)
    }

    #[test]
    fn folder_matches_everything_below_it() {
        let territory = territory(&[("staging", &["env/staging/"]), ("one", &["env/*/one.yaml", "one"])]).unwrap();
        let owners = |path: &str| territory.owners_of(path.as_bytes());
        assert_eq!(owners("env/staging/a/b.yaml"), [0]);
        assert_eq!(owners("env/staging/one.yaml"), [0, 1]);
        assert_eq!(owners("env/production/one.yaml"), [1]);
        assert_eq!(owners("env/a/b/one.yaml"), [0; 0], "a star stops at a slash");
        assert_eq!(owners("env/staging2/a.yaml"), [0; 0]);
        assert_eq!(owners("one/a.yaml"), [1]);
    }

    #[test]
    fn only_folders_of_environments_are_entered() {
        let territory = territory(&[("staging", &["env/staging"]), ("all", &["apps/*/overlays"])]).unwrap();
        for (folder, expected) in [
            ("env/", true),
            ("env/staging/", true),
            ("env/staging/deep/er/", true),
            ("env/production/", false),
            ("apps/", true),
            ("apps/x/base/", true),
            ("charts/", false),
        ] {
            assert_eq!(territory.may_hold(folder.as_bytes()), expected, "{folder}");
        }
        assert!(self::territory(&[("all", &["**"])]).unwrap().may_hold(b"x/y/"));
        assert_eq!(self::territory(&[("all", &["."])]).unwrap().owners_of(b"x/y.yaml"), [0]);
    }

    #[test]
    fn invalid_paths_are_refused() {
        for (path, words) in [
            ("../other", "cannot leave"),
            ("a/../../b", "cannot leave"),
            ("/etc", "relative to the root"),
            ("", "is empty"),
            ("a//b", "empty part"),
            ("a/[b", "is not a valid glob"),
        ] {
            let error = territory(&[("staging", &[path])]).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("`staging`"), "{path}: {error}");
        }
    }
}
