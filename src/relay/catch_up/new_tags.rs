//! Selects the new tags of a list, in the order in which they become events. Pure.

use jiff::Timestamp;

use crate::policy::{ImageRule, TagFacts, TagVersion, compare};
use crate::store::SeenTags;
use tagrelay_image::{Tag, Version};

/// The most events of one look. The next look finds the rest.
const MAX_FOUND: usize = 100;

/// The most tags that are remembered per repository: as many as are listed.
const MAX_SEEN: usize = 100_000;

/// The result of comparing a list of tags with the seen tags.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewTags {
    /// The tags that become events, in this order. Of tags that can be ordered, the newest comes last.
    pub(super) found: Vec<Tag>,
    /// The tags that count as seen from now on.
    pub(super) seen: SeenTags,
}

/// Compares a list of tags with the seen tags, for each rule with the versions that run under it.
pub(super) fn of_list(users: &[(ImageRule, Vec<Version>)], listed: &[Tag], before: Option<&SeenTags>) -> NewTags {
    let mut each = users.iter().map(|(rule, running)| of_rule(rule, listed, before, running));
    let Some(mut all) = each.next() else {
        return NewTags { found: Vec::new(), seen: before.cloned().unwrap_or_default() };
    };
    for new_tags in each {
        all.found.extend(new_tags.found.into_iter().filter(|tag| !all.found.contains(tag)).collect::<Vec<_>>());
        // A tag that one of the rules leaves for the next look is not seen yet.
        all.seen = all.seen.intersection(&new_tags.seen);
    }
    all
}

/// Compares a list of tags with the seen tags under one rule.
///
/// A first list (`before` is `None`) does not show when its tags were pushed. So all its tags count as old, except the newest one
/// by the order of the tags, and that one only if it is newer than a running version.
fn of_rule(rule: &ImageRule, listed: &[Tag], before: Option<&SeenTags>, running: &[Version]) -> NewTags {
    let is_new = |tag: &&Tag| before.is_none_or(|before| !before.contains(tag));
    let read = |tag: &'_ Tag| rule.check_tag(tag).ok().map(|facts| (tag.clone(), facts));
    let mut taken: Vec<(Tag, TagFacts)> = listed.iter().filter(is_new).filter_map(read).collect();
    // A repository that was missing or hidden and now shows its whole history is handled like a first list.
    let before = before.filter(|before| !before.is_empty() || listed.len() <= MAX_FOUND);
    // Stable: tags that cannot be ordered stay in the order of their names.
    taken.sort_by_cached_key(|(_, facts)| Rank::of(facts));
    let Some(before) = before else {
        let newest = taken.pop().filter(|(_, facts)| is_newer_than_some(rule, facts, running));
        return NewTags { found: newest.into_iter().map(|(tag, _)| tag).collect(), seen: listed.iter().collect() };
    };
    let too_many = taken.len().saturating_sub(MAX_FOUND);
    let left: Vec<Tag> = taken.drain(..too_many).map(|(tag, _)| tag).collect();
    let left: SeenTags = left.iter().collect();
    let seen = listed.iter().filter(|tag| !left.contains(tag)).collect();
    NewTags { found: taken.into_iter().map(|(tag, _)| tag).collect(), seen: remembered(before, seen) }
}

/// Returns the tags that count as seen, including tags that are no longer listed.
///
/// A registry that is being restored, or that omits a page, lists the missing tags again later; they must not count as new. If
/// the union exceeds [`MAX_SEEN`], unlisted tags are forgotten.
fn remembered(before: &SeenTags, now: SeenTags) -> SeenTags {
    let all = before.union(&now);
    if all.len() <= MAX_SEEN { all } else { now }
}

fn is_newer_than_some(rule: &ImageRule, facts: &TagFacts, running: &[Version]) -> bool {
    let runs = running.iter().filter_map(|version| rule.tag.read(version.tag()?).ok());
    runs.filter_map(|runs| compare::by_tag(facts, &runs)).any(|(ordering, _)| ordering.is_gt())
}

/// The sort key of a tag, in the order of the criteria.
///
/// `compare::by_tag` gives no answer if a tag lacks the criterion. Sorting needs a total order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    number: Option<u128>,
    time: Option<Timestamp>,
    semantic: Option<semver::Version>,
    calendar: Option<Vec<u64>>,
}

impl Rank {
    fn of(facts: &TagFacts) -> Self {
        let (semantic, calendar) = match &facts.version {
            Some(TagVersion::Semantic(version)) => (Some(version.clone()), None),
            Some(TagVersion::Calendar(parts)) => (None, Some(parts.clone())),
            None => (None, None),
        };
        Self { number: facts.number, time: facts.time, semantic, calendar }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{TagRule, Verification};

    fn rule(tag: TagRule) -> ImageRule {
        ImageRule {
            pattern: "docker.io/uyou/*".parse().unwrap(),
            tag,
            verify: Verification::Exists,
            source: None,
            allow_older: false,
            allow_untracked: false,
        }
    }

    fn semver() -> ImageRule {
        rule(TagRule::semver("", "", None, false).unwrap())
    }

    fn tags(texts: &[&str]) -> Vec<Tag> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn seen(texts: &[&str]) -> SeenTags {
        tags(texts).iter().collect()
    }

    fn versions(texts: &[&str]) -> Vec<Version> {
        tags(texts).into_iter().map(|tag| Version::tagged(tag, None)).collect()
    }

    fn found(rule: &ImageRule, listed: &[&str], before: Option<&SeenTags>, running: &[&str]) -> Vec<String> {
        let new_tags = of_rule(rule, &tags(listed), before, &versions(running));
        new_tags.found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unseen_tags_that_match_the_rule_are_found() {
        let before = seen(&["1.0.0", "latest"]);
        let listed = ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "latest", "nightly"];
        assert_eq!(found(&semver(), &listed, Some(&before), &["1.0.0"]), ["1.9.0", "1.10.0"], "the newest comes last");
        let new_tags = of_rule(&semver(), &tags(&listed), Some(&before), &[]);
        assert_eq!(new_tags.seen, seen(&listed), "tags that match no rule are also recorded as seen");
    }

    #[test]
    fn tags_that_return_are_not_found_again() {
        let new_tags = of_rule(&semver(), &tags(&["1.1.0"]), Some(&seen(&["1.0.0", "1.1.0"])), &[]);
        assert_eq!(new_tags, NewTags { found: Vec::new(), seen: seen(&["1.0.0", "1.1.0"]) });
        assert_eq!(of_rule(&semver(), &tags(&["1.0.0", "1.1.0"]), Some(&new_tags.seen), &[]).found, []);
    }

    #[test]
    fn tags_missing_from_a_short_list_stay_seen() {
        let before = seen(&["1.0.0", "1.1.0", "1.2.0"]);
        let new_tags = of_rule(&semver(), &tags(&["1.3.0"]), Some(&before), &[]);
        assert_eq!(new_tags, NewTags { found: tags(&["1.3.0"]), seen: seen(&["1.0.0", "1.1.0", "1.2.0", "1.3.0"]) });
        let back = of_rule(&semver(), &tags(&["1.0.0", "1.1.0", "1.2.0", "1.3.0"]), Some(&new_tags.seen), &[]);
        assert_eq!(back.found, []);
    }

    #[test]
    fn small_first_list_is_found_and_a_large_one_is_not() {
        let few: Vec<Tag> = (0..100).map(|number| format!("1.0.{number}").parse().unwrap()).collect();
        assert_eq!(of_rule(&semver(), &few, Some(&SeenTags::default()), &[]).found.len(), 100);
        let many: Vec<Tag> = (0..101).map(|number| format!("1.0.{number}").parse().unwrap()).collect();
        assert_eq!(of_rule(&semver(), &many, Some(&SeenTags::default()), &[]).found, []);
    }

    #[test]
    fn first_list_finds_only_a_newest_tag_that_is_newer_than_a_running_one() {
        let listed = ["1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "latest"];
        assert_eq!(found(&semver(), &listed, None, &["1.9.0"]), ["1.10.0"]);
        assert_eq!(found(&semver(), &listed, None, &["1.10.0", "1.9.0"]), ["1.10.0"], "one environment is behind");
        for running in [&["1.10.0"][..], &["3.0.0"], &["latest"], &[]] {
            assert_eq!(found(&semver(), &listed, None, running), Vec::<String>::new(), "{running:?}");
        }
        let new_tags = of_rule(&semver(), &tags(&listed), None, &versions(&["1.10.0"]));
        assert_eq!(new_tags.seen, seen(&listed));
    }

    #[test]
    fn unordered_tags_of_a_first_list_are_not_found() {
        let sha = rule(TagRule::commit_sha("", "", 7).unwrap());
        let listed = ["1111111", "2222222"];
        assert_eq!(found(&sha, &listed, None, &["0000000"]), Vec::<String>::new());
        assert_eq!(found(&sha, &listed, Some(&seen(&["1111111"])), &["0000000"]), ["2222222"]);
        let numbered = rule(TagRule::commit_sha("", "-{number}", 7).unwrap());
        assert_eq!(found(&numbered, &["fffffff-9", "aaaaaaa-10"], None, &["0000000-8"]), ["aaaaaaa-10"]);
    }

    #[test]
    fn many_tags_are_found_in_parts() {
        let listed: Vec<Tag> = (0..250).map(|number| format!("1.0.{number}").parse().unwrap()).collect();
        let mut before = seen(&["latest"]);
        let mut all = Vec::new();
        for expected in [100, 100, 50, 0] {
            let new_tags = of_rule(&semver(), &listed, Some(&before), &[]);
            assert_eq!(new_tags.found.len(), expected);
            all.extend(new_tags.found);
            before = new_tags.seen;
        }
        assert_eq!(all[99].as_str(), "1.0.249", "the newest tags come first");
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 250);
    }

    #[test]
    fn signature_tags_are_not_found() {
        let any = rule(TagRule::Any);
        let signature = format!("sha256-{}.sig", "0".repeat(64));
        assert_eq!(found(&any, &["1", &signature], Some(&SeenTags::default()), &[]), ["1"]);
    }

    #[test]
    fn each_rule_selects_its_own_tags() {
        let sha = |digit: char, prefix: &str| format!("{prefix}{}", digit.to_string().repeat(40));
        let shared = (rule(TagRule::commit_sha("", "", 40).unwrap()), Vec::new());
        let own = (rule(TagRule::commit_sha("dev-", "", 40).unwrap()), Vec::new());
        let listed = [sha('a', ""), sha('b', "dev-"), "nightly".to_owned()];
        let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
        let new_tags = of_list(&[own, shared.clone()], &tags(&listed), Some(&seen(&["latest"])));
        assert_eq!(new_tags.found, tags(&[listed[1], listed[0]]));
        assert_eq!(new_tags.seen, seen(&["latest", listed[0], listed[1], listed[2]]));
        assert_eq!(of_list(&[shared], &tags(&listed), Some(&seen(&["latest"]))).found, tags(&[listed[0]]));
        let nothing = of_list(&[], &tags(&listed), Some(&seen(&["latest"])));
        assert_eq!(
            nothing,
            NewTags { found: Vec::new(), seen: seen(&["latest"]) },
            "no environment names the repository any more"
        );
    }
}
