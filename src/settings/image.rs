use super::keys;
use super::nearest::hint;
use super::reader::Section;
use super::report::At;
use crate::image::{Repository, Tag};
use crate::policy::{ImageRule, RepositoryPattern, TagRule, Verification};

/// Kinds of tags of the contract that this version does not know.
const LATER_TAG_KINDS: &[&str] = &["semver", "regex", "calver", "digest", "any"];

/// Below seven digits a commit id is not unique in a repository of some size, and Git never prints fewer.
const MIN_SHA_DIGITS: usize = 7;

const TAG_EXAMPLE: &str = "tag = { kind = \"commit-sha\" }";

/// Returns the rules with the lines on which they begin, and reports those that no image can reach.
pub(super) fn read(sections: &[Section<'_>]) -> (Vec<ImageRule>, Vec<u32>) {
    let mut rules: Vec<ImageRule> = Vec::new();
    let mut lines: Vec<u32> = Vec::new();
    for section in sections {
        let Some(At { value: rule, offset }) = read_one(*section) else { continue };
        if let Some(earlier) = shadow(&rules, &rule) {
            let line = lines.get(earlier).copied().unwrap_or_default();
            let message = format!(
                "the rule for `{}` is never reached: the rule on line {line} comes first",
                rule.pattern.as_str()
            );
            let hint = "the first rule that matches decides; put the narrower one above".to_owned();
            section.report().fault_with_hint(offset, message, hint);
        }
        rules.push(rule);
        lines.push(section.report().line(section.offset));
    }
    (rules, lines)
}

/// Returns the index of an earlier rule that takes everything that `rule` would, as far as the texts show it.
fn shadow(earlier: &[ImageRule], rule: &ImageRule) -> Option<usize> {
    let text = rule.pattern.as_str();
    let only = text.parse::<Repository>().ok().filter(|only| only.as_str() == text);
    let shadows = |earlier: &ImageRule| {
        let earlier = &earlier.pattern;
        earlier.as_str() == "**" || earlier.as_str() == text || only.as_ref().is_some_and(|only| earlier.matches(only))
    };
    earlier.iter().position(shadows)
}

fn read_one(section: Section<'_>) -> Option<At<ImageRule>> {
    let text = section.required_text("repository", "repository = \"docker.io/uyou/*\"");
    let pattern = text.and_then(|text| section.parse::<RepositoryPattern>(text));
    let tag = read_tag(section);
    let verify = read_verify(section);
    let pattern = pattern?;
    Some(At { value: ImageRule { pattern: pattern.value, tag: tag?, verify }, offset: pattern.offset })
}

fn read_tag(section: Section<'_>) -> Option<TagRule> {
    let default =
        TagRule::CommitSha { prefix: String::new(), suffix: String::new(), min_length: TagRule::FULL_SHA_LENGTH };
    if !section.has("tag") {
        return Some(default);
    }
    let tag = section.table("tag", &keys::TAG, TAG_EXAMPLE)?;
    let kind = read_kind(tag);
    let prefix = read_affix(tag, "prefix", |prefix| format!("{prefix}0"));
    let suffix = read_affix(tag, "suffix", |suffix| format!("0{suffix}"));
    let digits = tag.number("min_length", MIN_SHA_DIGITS..=TagRule::FULL_SHA_LENGTH);
    let min_length = digits.map_or(TagRule::FULL_SHA_LENGTH, |digits| digits.value);
    let (prefix, suffix) = (prefix?, suffix?);
    let shortest = format!("{prefix}{}{suffix}", "0".repeat(min_length));
    if let Err(error) = shortest.parse::<Tag>() {
        tag.report().fault(tag.offset, format!("no tag can match: {error}"));
        return None;
    }
    kind?;
    Some(TagRule::CommitSha { prefix, suffix, min_length })
}

/// Checks the kind, which is `commit-sha` where it is left out.
fn read_kind(tag: Section<'_>) -> Option<()> {
    if !tag.has("kind") {
        return Some(());
    }
    let kind = tag.text("kind")?;
    if kind.value == "commit-sha" {
        return Some(());
    }
    let shown = kind.value.escape_debug();
    if LATER_TAG_KINDS.contains(&kind.value) {
        let hint = "this version takes `commit-sha` only".to_owned();
        tag.report().fault_with_hint(kind.offset, format!("the tag kind `{shown}` is not supported yet"), hint);
    } else {
        let message = format!("there is no tag kind called `{shown}`");
        tag.report().fault_with_hint(kind.offset, message, hint(kind.value, ["commit-sha"]));
    }
    None
}

/// Returns a text that can stand in a tag in its place, which `sample` shows; empty where it is left out.
fn read_affix(tag: Section<'_>, key: &str, sample: impl Fn(&str) -> String) -> Option<String> {
    if !tag.has(key) {
        return Some(String::new());
    }
    let text = tag.any_text(key)?;
    match sample(text.value).parse::<Tag>() {
        Ok(_) => Some(text.value.to_owned()),
        Err(_) => {
            let message = format!("`{key}`: no tag has `{}` there", text.value.escape_debug());
            let hint = "tags have letters, digits and `_`, and from the second place on `.` and `-`".to_owned();
            tag.report().fault_with_hint(text.offset, message, hint);
            None
        }
    }
}

fn read_verify(section: Section<'_>) -> Verification {
    let verify = section.table("verify", &keys::VERIFY, "verify = { exists = true }");
    match verify.and_then(|verify| verify.boolean("exists")) {
        Some(At { value: false, .. }) => Verification::Nothing,
        _ => Verification::Exists,
    }
}
