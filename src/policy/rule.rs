use globset::{GlobBuilder, GlobMatcher};

use super::{TagFacts, TagRule};
use tagrelay_image::{Repository, Tag};

/// A glob over normalised repositories: `docker.io/uyou/*`.
///
/// `*` matches within one path component, `**` across components, as in the paths of environments.
#[derive(Debug, Clone)]
pub struct RepositoryPattern {
    text: String,
    matcher: GlobMatcher,
}

/// Why a text is not a repository pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// The glob does not parse.
    #[error("`{pattern}` is not a glob: {reason}")]
    Glob {
        /// As written.
        pattern: String,
        /// The glob parser's error.
        reason: String,
    },
    /// The pattern matches no normalised repository.
    #[error("`{pattern}` matches no repository: {reason}")]
    NeverMatches {
        /// As written.
        pattern: String,
        /// The cause and a correct pattern.
        reason: String,
    },
}

impl RepositoryPattern {
    /// Returns whether the repository matches.
    pub fn matches(&self, repository: &Repository) -> bool {
        self.matcher.is_match(repository.as_str())
    }

    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for RepositoryPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let never = |reason: String| Err(InvalidPattern::NeverMatches { pattern: text.to_owned(), reason });
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return never("normalised repositories are lower-case".to_owned());
        }
        let is_literal = !text.contains(['*', '?', '[', '{']);
        if is_literal {
            match text.parse::<Repository>() {
                Ok(repository) if repository.as_str() != text => {
                    return never(format!("write it as `{repository}`"));
                }
                Ok(_) => {}
                Err(error) => return never(error.to_string()),
            }
        } else if let Some(reason) = host_that_never_matches(text).or_else(|| tag_that_never_matches(text)) {
            return never(reason);
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        match glob {
            Ok(glob) => Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() }),
            Err(error) => Err(InvalidPattern::Glob { pattern: text.to_owned(), reason: error.kind().to_string() }),
        }
    }
}

/// Returns why the last component of a glob can never be part of a repository; `None`: it can.
fn tag_that_never_matches(text: &str) -> Option<String> {
    let (_, last) = text.rsplit_once('/')?;
    let at = last.find(['@', ':'])?;
    let (name, tag) = last.split_at(at);
    Some(format!("a repository has no tag or digest; leave out `{tag}` after `{name}`, and write `tag` in [[image]]"))
}

/// Returns why the first component of a glob can never be a registry host; `None`: it can.
fn host_that_never_matches(text: &str) -> Option<String> {
    let (host, path) = match text.split_once('/') {
        Some(parts) => parts,
        None if text == "**" || text.starts_with("**") => return None,
        None => return Some(format!("it has no registry host; for Docker Hub write `docker.io/library/{text}`")),
    };
    if host.contains(['*', '?', '[', '{']) {
        return None;
    }
    if !host.contains(['.', ':']) && host != "localhost" {
        return Some(format!("`{host}` is not a registry host; for Docker Hub write `docker.io/{host}/{path}`"));
    }
    match Repository::new(host, "a/b") {
        Ok(sample) if sample.registry() != host => {
            Some(format!("the registry `{host}` is `{}` in normalised repositories", sample.registry()))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The tag is not a version under a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag `{tag}` does not match the rule of `{pattern}`: {rule}")]
pub struct TagRefused {
    /// The refused tag.
    pub tag: Tag,
    /// The `[[image]] repository` of the rule.
    pub pattern: String,
    /// The rule's name and the form that it requires; also the reason, if the tag has that form.
    pub rule: String,
}

/// How an announced image is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The image must exist; the registry returns its digest.
    Exists,
    /// No request is sent. For trials without network only.
    Nothing,
}

/// One `[[image]]`: which repositories are managed, and which of their tags are versions.
#[derive(Debug, Clone)]
pub struct ImageRule {
    /// The managed repositories.
    pub pattern: RepositoryPattern,
    /// Which tags are versions.
    pub tag: TagRule,
    /// How its images are verified.
    pub verify: Verification,
    /// Index of the source repository in the list of all sources; `None`: no `source`.
    pub source: Option<usize>,
    /// Whether the last announced build wins, even if it is older.
    pub allow_older: bool,
    /// Whether a gate lets versions pass that no application of Argo CD runs.
    pub allow_untracked: bool,
}

impl ImageRule {
    /// Returns the facts in the tag, if it is a version under this rule.
    ///
    /// # Errors
    ///
    /// [`TagRefused`] if it is not.
    pub fn check_tag(&self, tag: &Tag) -> Result<TagFacts, TagRefused> {
        self.tag.read(tag).map_err(|reason| {
            let mut rule = self.tag.to_string();
            if let Some(reason) = reason {
                rule.push_str("; ");
                rule.push_str(&reason);
            }
            TagRefused { tag: tag.clone(), pattern: self.pattern.as_str().to_owned(), rule }
        })
    }
}

/// Returns the first rule, in the order of the settings, that matches the repository.
pub fn rule_for<'a>(rules: &'a [ImageRule], repository: &Repository) -> Option<&'a ImageRule> {
    rules.iter().find(|rule| rule.pattern.matches(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_star_matches_within_a_component() {
        let pattern: RepositoryPattern = "docker.io/uyou/*".parse().unwrap();
        assert!(pattern.matches(&"uyou/user-service".parse().unwrap()));
        assert!(!pattern.matches(&"uyou/team/user-service".parse().unwrap()));
        assert!(!pattern.matches(&"ghcr.io/uyou/user-service".parse().unwrap()));
        let deep: RepositoryPattern = "ghcr.io/uyou/**".parse().unwrap();
        assert!(deep.matches(&"ghcr.io/uyou/team/user-service".parse().unwrap()));
    }

    #[test]
    fn pattern_that_never_matches_is_refused_with_a_correction() {
        for (pattern, hint) in [
            ("uyou/*", "docker.io/uyou/*"),
            ("nginx", "docker.io/library/nginx"),
            ("index.docker.io/uyou/*", "docker.io"),
            ("docker.io/Uyou/*", "lower-case"),
            ("*", "docker.io/library/*"),
        ] {
            let error = pattern.parse::<RepositoryPattern>().unwrap_err();
            assert!(matches!(error, InvalidPattern::NeverMatches { .. }), "{pattern}");
            assert!(error.to_string().contains(hint), "{pattern}: {error}");
        }
        assert!(matches!("docker.io/[".parse::<RepositoryPattern>(), Err(InvalidPattern::Glob { .. })));
        assert!("**".parse::<RepositoryPattern>().is_ok());
        assert!("registry.internal:5000/**".parse::<RepositoryPattern>().is_ok());
    }

    #[test]
    fn first_matching_rule_applies() {
        let rule = |pattern: &str, min_length| ImageRule {
            pattern: pattern.parse().unwrap(),
            tag: TagRule::commit_sha("", "", min_length).unwrap(),
            verify: Verification::Exists,
            source: None,
            allow_older: false,
            allow_untracked: false,
        };
        let rules = [rule("docker.io/uyou/special", 7), rule("docker.io/uyou/*", 40)];
        let found = rule_for(&rules, &"uyou/special".parse().unwrap()).unwrap();
        assert!(found.check_tag(&"1234567".parse().unwrap()).is_ok());
        let refused = rule_for(&rules, &"uyou/a".parse().unwrap()).unwrap().check_tag(&"1234567".parse().unwrap());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "the tag `1234567` does not match the rule of `docker.io/uyou/*`: commit-sha (40 lower-case hexadecimal digits)"
        );
        assert!(rule_for(&rules, &"etcd".parse().unwrap()).is_none());
    }
}
