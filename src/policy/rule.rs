use globset::{GlobBuilder, GlobMatcher};

use crate::image::{Repository, Tag};

/// A glob over normalised repositories: `docker.io/uyou/*`.
///
/// `*` stays inside one path component and `**` does not, as in the paths of environments.
#[derive(Debug, Clone)]
pub struct RepositoryPattern {
    text: String,
    matcher: GlobMatcher,
}

/// Why a text is no pattern over repositories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// The glob does not parse.
    #[error("`{pattern}` is not a glob: {reason}")]
    Glob {
        /// What was written.
        pattern: String,
        /// What the glob parser says.
        reason: String,
    },
    /// No normalised repository can ever match.
    #[error("`{pattern}` matches no repository: {reason}")]
    NeverMatches {
        /// What was written.
        pattern: String,
        /// Why, and what to write instead.
        reason: String,
    },
}

impl RepositoryPattern {
    /// Returns whether the pattern takes the repository.
    pub fn matches(&self, repository: &Repository) -> bool {
        self.matcher.is_match(repository.as_str())
    }

    /// Returns the pattern as it was written.
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
        } else if let Some(reason) = host_that_never_matches(text) {
            return never(reason);
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        match glob {
            Ok(glob) => Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() }),
            Err(error) => Err(InvalidPattern::Glob { pattern: text.to_owned(), reason: error.kind().to_string() }),
        }
    }
}

/// Returns why the literal first component of a glob is the host of no normalised repository.
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
        return Some(format!("`{host}` is no registry host; for Docker Hub write `docker.io/{host}/{path}`"));
    }
    match Repository::new(host, "a/b") {
        Ok(sample) if sample.registry() != host => {
            Some(format!("the registry `{host}` is `{}` in normalised repositories", sample.registry()))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Which tags of a repository are versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagRule {
    /// The commit that the image was built from, as in `sha-860c190` or 40 digits alone.
    CommitSha {
        /// What stands before the digits.
        prefix: String,
        /// What stands behind them.
        suffix: String,
        /// The fewest digits that are taken, 7 to 40.
        min_length: usize,
    },
}

/// Why a tag is no version under a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tag `{tag}` does not match the rule of `{pattern}`: {rule}")]
pub struct TagRefused {
    /// The tag.
    pub tag: Tag,
    /// The `[[image]] repository` of the rule.
    pub pattern: String,
    /// What the rule asks for.
    pub rule: String,
}

impl TagRule {
    /// The longest commit id in a tag: SHA-1, as `git rev-parse HEAD` prints it.
    pub const FULL_SHA_LENGTH: usize = 40;

    /// Returns whether the rule takes the tag.
    pub fn accepts(&self, tag: &Tag) -> bool {
        match self {
            Self::CommitSha { prefix, suffix, min_length } => {
                let digits =
                    tag.as_str().strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_suffix(suffix.as_str()));
                digits.is_some_and(|digits| {
                    (*min_length..=Self::FULL_SHA_LENGTH).contains(&digits.len())
                        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                })
            }
        }
    }
}

impl std::fmt::Display for TagRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CommitSha { prefix, suffix, min_length } => {
                write!(f, "commit-sha (")?;
                if !prefix.is_empty() {
                    write!(f, "`{prefix}`, then ")?;
                }
                if *min_length == Self::FULL_SHA_LENGTH {
                    write!(f, "{min_length}")?;
                } else {
                    write!(f, "{min_length} to {}", Self::FULL_SHA_LENGTH)?;
                }
                write!(f, " lower-case hexadecimal digits")?;
                if !suffix.is_empty() {
                    write!(f, ", then `{suffix}`")?;
                }
                write!(f, ")")
            }
        }
    }
}

/// What is asked of the registry before a tag is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The image must be there; its digest is what the registry says.
    Exists,
    /// Nothing: for air-gapped trials only.
    Nothing,
}

/// One `[[image]]`: which repositories are managed, and which of their tags are versions.
#[derive(Debug, Clone)]
pub struct ImageRule {
    /// The repositories.
    pub pattern: RepositoryPattern,
    /// Their tags.
    pub tag: TagRule,
    /// How they are verified.
    pub verify: Verification,
}

impl ImageRule {
    /// Returns the tag again when the rule takes it.
    ///
    /// # Errors
    ///
    /// [`TagRefused`], with the rule's name and what it asks for.
    pub fn check_tag(&self, tag: &Tag) -> Result<(), TagRefused> {
        if self.tag.accepts(tag) {
            Ok(())
        } else {
            Err(TagRefused { tag: tag.clone(), pattern: self.pattern.as_str().to_owned(), rule: self.tag.to_string() })
        }
    }
}

/// Returns the rule that manages a repository: the first in the order of the settings that matches.
pub fn rule_for<'a>(rules: &'a [ImageRule], repository: &Repository) -> Option<&'a ImageRule> {
    rules.iter().find(|rule| rule.pattern.matches(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha_rule(prefix: &str, suffix: &str, min_length: usize) -> TagRule {
        TagRule::CommitSha { prefix: prefix.into(), suffix: suffix.into(), min_length }
    }

    #[test]
    fn patterns_stay_inside_a_component() {
        let pattern: RepositoryPattern = "docker.io/uyou/*".parse().unwrap();
        assert!(pattern.matches(&"uyou/user-service".parse().unwrap()));
        assert!(!pattern.matches(&"uyou/team/user-service".parse().unwrap()));
        assert!(!pattern.matches(&"ghcr.io/uyou/user-service".parse().unwrap()));
        let deep: RepositoryPattern = "ghcr.io/uyou/**".parse().unwrap();
        assert!(deep.matches(&"ghcr.io/uyou/team/user-service".parse().unwrap()));
    }

    #[test]
    fn patterns_that_match_nothing_say_what_to_write() {
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
    fn commit_shas_are_counted() {
        let full = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";
        let accepts = |rule: &TagRule, tag: &str| rule.accepts(&tag.parse().unwrap());
        let strict = sha_rule("", "", 40);
        assert!(accepts(&strict, full));
        for tag in ["latest", &full[..39], &full.to_uppercase(), &format!("{full}.sig"), &format!("sha256-{full}")] {
            assert!(!accepts(&strict, tag), "{tag}");
        }
        let short = sha_rule("sha-", "-ci", 7);
        assert!(accepts(&short, "sha-860c190-ci"));
        assert!(!accepts(&short, "sha-860c19-ci"));
        assert!(!accepts(&short, "860c190"));
        assert_eq!(strict.to_string(), "commit-sha (40 lower-case hexadecimal digits)");
        assert_eq!(short.to_string(), "commit-sha (`sha-`, then 7 to 40 lower-case hexadecimal digits, then `-ci`)");
    }

    #[test]
    fn the_first_matching_rule_manages() {
        let rule = |pattern: &str, min_length| ImageRule {
            pattern: pattern.parse().unwrap(),
            tag: sha_rule("", "", min_length),
            verify: Verification::Exists,
        };
        let rules = [rule("docker.io/uyou/special", 7), rule("docker.io/uyou/*", 40)];
        let found = rule_for(&rules, &"uyou/special".parse().unwrap()).unwrap();
        assert!(found.check_tag(&"1234567".parse().unwrap()).is_ok());
        let refused = rule_for(&rules, &"uyou/a".parse().unwrap()).unwrap().check_tag(&"1234567".parse().unwrap());
        assert!(refused.unwrap_err().to_string().contains("docker.io/uyou/*"));
        assert!(rule_for(&rules, &"etcd".parse().unwrap()).is_none());
    }
}
