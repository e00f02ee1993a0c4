use std::collections::HashMap;

use crate::policy::{ImageRule, TagRule, rule_for};
use crate::relay::Environment;
use tagrelay_image::{Repository, Tag};

/// The `[[image]]` rules. An environment with its own `tag` has a copy of them with that tag rule.
pub(super) struct Rules {
    shared: Vec<ImageRule>,
    own: HashMap<String, Vec<ImageRule>>,
}

impl Rules {
    pub(super) fn new<'e>(shared: Vec<ImageRule>, environments: impl Iterator<Item = &'e Environment>) -> Self {
        let own = environments.filter_map(|environment| {
            let tag = environment.tag.as_ref()?;
            Some((environment.name.clone(), shared.iter().map(|rule| with_tag(rule, tag)).collect()))
        });
        Self { own: own.collect(), shared }
    }

    /// Returns the rule that manages a repository. Its tag rule applies in environments without their own.
    pub(super) fn shared(&self, repository: &Repository) -> Option<&ImageRule> {
        rule_for(&self.shared, repository)
    }

    /// Returns the rule of a repository in an environment.
    pub(super) fn at(&self, environment: &str, repository: &Repository) -> Option<&ImageRule> {
        rule_for(self.own.get(environment).unwrap_or(&self.shared), repository)
    }

    /// Returns whether an environment has its own tag rule.
    pub(super) fn has_own(&self, environment: &str) -> bool {
        self.own.contains_key(environment)
    }

    /// Returns whether a tag is a version of the repository in an environment.
    pub(super) fn accepts(&self, environment: &str, repository: &Repository, tag: &Tag) -> bool {
        self.at(environment, repository).is_some_and(|rule| rule.check_tag(tag).is_ok())
    }
}

/// Returns the rule of an environment with its own tag rule.
///
/// A rule that follows a moving tag keeps it. Builds of several branches have no order in the source repository, so the source
/// is not asked.
fn with_tag(rule: &ImageRule, tag: &TagRule) -> ImageRule {
    if rule.tag.moves() {
        return rule.clone();
    }
    ImageRule { tag: tag.clone(), source: None, ..rule.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{FreezeSchedule, Verification};
    use crate::relay::UpdateMode;

    fn environment(name: &str, tag: Option<TagRule>) -> Environment {
        Environment {
            name: name.to_owned(),
            mode: UpdateMode::Automatic,
            tag,
            promote_from: Vec::new(),
            gate: None,
            freezes: FreezeSchedule::default(),
        }
    }

    fn rule(pattern: &str, tag: TagRule) -> ImageRule {
        let pattern = pattern.parse().unwrap();
        ImageRule {
            pattern,
            tag,
            verify: Verification::Exists,
            source: Some(0),
            allow_older: false,
            allow_untracked: false,
        }
    }

    #[test]
    fn own_tag_rule_replaces_the_shared_one() {
        let development = environment("development", Some(TagRule::commit_sha("dev-", "", 40).unwrap()));
        let staging = environment("staging", None);
        let moving = TagRule::Digest { name: "latest".parse().unwrap() };
        let shared = vec![
            rule("docker.io/uyou/tool", moving),
            rule("docker.io/uyou/*", TagRule::commit_sha("", "", 40).unwrap()),
        ];
        let rules = Rules::new(shared, [&development, &staging].into_iter());
        let service: Repository = "docker.io/uyou/user-service".parse().unwrap();
        let released: Tag = "a".repeat(40).parse().unwrap();
        let branch_build: Tag = format!("dev-{released}").parse().unwrap();
        for (environment, tag, is_accepted) in [
            ("development", &branch_build, true),
            ("development", &released, false),
            ("staging", &branch_build, false),
            ("staging", &released, true),
        ] {
            assert_eq!(rules.accepts(environment, &service, tag), is_accepted, "{environment} {tag}");
        }
        assert_eq!(rules.at("development", &service).unwrap().source, None);
        assert_eq!(rules.at("staging", &service).unwrap().source, Some(0));
        let tool: Repository = "docker.io/uyou/tool".parse().unwrap();
        assert!(rules.at("development", &tool).unwrap().tag.moves(), "a moving tag is followed everywhere");
        assert!(rules.at("development", &"docker.io/library/redis".parse().unwrap()).is_none());
    }
}
