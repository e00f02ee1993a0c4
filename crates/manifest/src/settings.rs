//! The settings of an environment that concern its manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::site_path::{InvalidSitePath, SitePath};
use tagrelay_image::Repository;

/// The settings of an environment that concern its manifests. The default has no names and rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestSettings {
    /// The meaning of the names in markers.
    pub names: Arc<ImageNames>,
    /// The sites that `[[environment.site]]` declares.
    pub rules: Vec<SiteRule>,
    /// Whether digests are added.
    pub pin: Pin,
}

/// Whether an edit adds a digest to a site that has only a tag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pin {
    /// A site keeps its form.
    #[default]
    Keep,
    /// A tag becomes `tag@digest` with the next version.
    Digest,
}

/// Resolves the names in markers.
///
/// The repository of a name is, in this order: the repository with this name in the settings, the repository with this whole name,
/// or the only managed repository whose last component is the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageNames {
    given: BTreeMap<String, Repository>,
    policies: BTreeMap<String, Repository>,
    repositories: BTreeSet<Repository>,
    /// Managed folders of registries with a trailing slash, from the patterns that end in `/*`.
    folders: BTreeSet<String>,
}

impl ImageNames {
    /// Sets the name of a repository for `# tagrelay: name`.
    pub fn name(&mut self, name: &str, repository: &Repository) {
        self.given.insert(name.to_owned(), repository.clone());
    }

    /// Sets the repository of Flux's policy `namespace:name`.
    pub fn flux_policy(&mut self, policy: &str, repository: &Repository) {
        self.policies.insert(policy.to_owned(), repository.clone());
    }

    /// Adds a pattern of managed repositories, to resolve last components.
    ///
    /// Only patterns without a wildcard, or with a single `*` at the end, are used.
    pub fn pattern(&mut self, pattern: &str) {
        let is_literal = |text: &str| !text.contains(['*', '?', '[', '{']);
        match pattern.strip_suffix('*') {
            Some(folder) if folder.ends_with('/') && is_literal(folder) => {
                self.folders.insert(folder.to_owned());
            }
            None if is_literal(pattern) => self.repositories.extend(pattern.parse::<Repository>()),
            _ => {}
        }
    }

    /// Returns the repository of a name in a marker.
    pub(crate) fn of_marker(&self, name: &str) -> Option<Repository> {
        if let Some(repository) = self.given.get(name) {
            return Some(repository.clone());
        }
        if name.contains('/') {
            return name.parse().ok();
        }
        let named = self.repositories.iter().filter(|repository| repository.name() == name).cloned();
        let in_folders = self.folders.iter().filter_map(|folder| format!("{folder}{name}").parse().ok());
        let mut candidates = named.chain(in_folders).collect::<BTreeSet<Repository>>().into_iter();
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// Returns the repository of a Flux policy, from the settings only.
    pub(crate) fn of_policy(&self, policy: &str) -> Option<Repository> {
        self.policies.get(policy).cloned()
    }
}

/// A rule: scalars at a path in some files are sites.
#[derive(Debug, Clone)]
pub struct SiteRule {
    file: String,
    matcher: GlobMatcher,
    pub(crate) path: SitePath,
    pub(crate) repository: Option<Repository>,
    pub(crate) part: RulePart,
}

impl PartialEq for SiteRule {
    fn eq(&self, other: &Self) -> bool {
        let Self { file, matcher: _, path, repository, part } = self;
        (file, path, repository, part) == (&other.file, &other.path, &other.repository, &other.part)
    }
}

impl Eq for SiteRule {}

/// The content of a scalar that a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulePart {
    /// A tag.
    Tag,
    /// A digest.
    Digest,
    /// A reference with a tag, a digest or both.
    Reference,
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSiteRule {
    /// The file is not a glob.
    #[error("`file` is not a glob: {0}")]
    File(String),
    /// The path is invalid.
    #[error(transparent)]
    Path(#[from] InvalidSitePath),
    /// Only a reference contains its repository.
    #[error("`repository` is missing: a tag or digest does not contain its repository")]
    RepositoryMissing,
}

impl SiteRule {
    /// Creates a rule for the files that match the glob `file`, relative to the repository.
    ///
    /// # Errors
    ///
    /// See [`InvalidSiteRule`].
    pub fn new(
        file: &str,
        path: &str,
        repository: Option<Repository>,
        part: RulePart,
    ) -> Result<Self, InvalidSiteRule> {
        let glob = GlobBuilder::new(file).literal_separator(true).build();
        let matcher = glob.map_err(|error| InvalidSiteRule::File(error.kind().to_string()))?.compile_matcher();
        let path = path.parse()?;
        if repository.is_none() && part != RulePart::Reference {
            return Err(InvalidSiteRule::RepositoryMissing);
        }
        Ok(Self { file: file.to_owned(), matcher, path, repository, part })
    }

    /// Returns whether the rule applies to a file.
    pub fn takes(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_to_one_repository_or_none() {
        let mut names = ImageNames::default();
        for pattern in ["docker.io/uyou/*", "ghcr.io/x/api", "docker.io/uyou/api", "quay.io/**", "ghcr.io/y/a*"] {
            names.pattern(pattern);
        }
        names.name("front", &"ghcr.io/x/web".parse().unwrap());
        names.flux_policy("flux-system:web", &"ghcr.io/x/web".parse().unwrap());
        for (name, expected) in [
            ("front", Some("ghcr.io/x/web")),
            ("user-service", Some("docker.io/uyou/user-service")),
            ("api", None),
            ("ghcr.io/z/api", Some("ghcr.io/z/api")),
            ("uyou/api", Some("docker.io/uyou/api")),
            ("No Name", None),
        ] {
            let found = names.of_marker(name);
            assert_eq!(found.as_ref().map(Repository::as_str), expected, "{name}");
        }
        assert!(names.of_policy("flux-system:web").is_some() && names.of_policy("web").is_none());
    }

    #[test]
    fn invalid_rules_are_refused_with_the_cause() {
        let repository = || Some("a".parse().unwrap());
        let rule = |file, path, repository, part| SiteRule::new(file, path, repository, part);
        assert!(rule("a/*.yaml", "$.a", repository(), RulePart::Tag).unwrap().takes("a/b.yaml"));
        assert!(!rule("a/*.yaml", "$.a", None, RulePart::Reference).unwrap().takes("a/b/c.yaml"));
        assert!(matches!(rule("a/[", "$.a", repository(), RulePart::Tag), Err(InvalidSiteRule::File(_))));
        assert!(matches!(rule("a", "a", repository(), RulePart::Tag), Err(InvalidSiteRule::Path(_))));
        assert_eq!(rule("a", "$.a", None, RulePart::Digest), Err(InvalidSiteRule::RepositoryMissing));
    }
}
