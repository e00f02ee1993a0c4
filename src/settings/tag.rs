use super::keys;
use super::nearest::hint;
use super::reader::Section;
use super::report::At;
use crate::policy::{InvalidTagRule, TagRule};
use tagrelay_image::Tag;

/// Git abbreviates commit ids to at least seven digits; fewer are not unique in larger repositories.
const MIN_SHA_DIGITS: usize = 7;

const TAG_EXAMPLE: &str = "tag = { kind = \"commit-sha\" }";
const OWN_EXAMPLE: &str = "tag = { kind = \"commit-sha\", prefix = \"dev-\" }";

/// Each kind with its keys.
const KINDS: [(&str, &[&str]); 6] = [
    ("commit-sha", &["prefix", "suffix", "min_length"]),
    ("regex", &["pattern"]),
    ("semver", &["prefix", "suffix", "range", "prereleases"]),
    ("calver", &["prefix", "suffix", "format"]),
    ("digest", &["name"]),
    ("any", &[]),
];

/// The default `name` of a `digest` rule.
const DEFAULT_MOVING_TAG: &str = "latest";

/// Returns the tag rule of an `[[image]]`. The default is `commit-sha` with 40 digits.
pub(super) fn read(image: Section<'_>) -> Option<TagRule> {
    if !image.has("tag") {
        return TagRule::commit_sha("", "", TagRule::FULL_SHA_LENGTH).ok();
    }
    read_rule(image.table("tag", &keys::TAG, TAG_EXAMPLE)?)
}

/// Returns the tag rule of an `[[environment]]`; `None`: it has none.
pub(super) fn read_own(environment: Section<'_>) -> Option<TagRule> {
    if !environment.has("tag") {
        return None;
    }
    let tag = environment.table("tag", &keys::ENVIRONMENT_TAG, OWN_EXAMPLE)?;
    let rule = read_rule(tag)?;
    if rule.moves() {
        let hint = "set it in the [[image]] rule: a moving tag is followed in every environment".to_owned();
        let message = "`tag` of [[environment]] cannot have the kind `digest`";
        tag.report().fault_with_hint(tag.offset_of("kind"), message, hint);
        return None;
    }
    Some(rule)
}

fn read_rule(tag: Section<'_>) -> Option<TagRule> {
    let kind = read_kind(tag)?;
    let misfits = report_misfits(tag, kind);
    let rule = match kind {
        "commit-sha" => read_commit_sha(tag),
        "regex" => read_regex(tag),
        "semver" => read_semver(tag),
        "calver" => read_calver(tag),
        "digest" => read_digest(tag),
        _ => Some(TagRule::Any),
    };
    if misfits { None } else { rule }
}

fn read_kind(tag: Section<'_>) -> Option<&'static str> {
    if !tag.has("kind") {
        return Some(KINDS[0].0);
    }
    let text = tag.text("kind")?;
    let known = KINDS.map(|(kind, _)| kind);
    let found = known.into_iter().find(|kind| *kind == text.value);
    if found.is_none() {
        let message = format!("there is no tag kind called `{}`", text.value.escape_debug());
        tag.report().fault_with_hint(text.offset, message, hint(text.value, known));
    }
    found
}

/// Reports keys that do not belong to the kind. Returns whether there are any.
fn report_misfits(tag: Section<'_>, kind: &str) -> bool {
    let mut found = false;
    for key in keys::TAG.keys.iter().filter(|key| **key != "kind" && tag.has(key)) {
        let takers: Vec<&str> = KINDS.iter().filter(|(_, keys)| keys.contains(key)).map(|(kind, _)| *kind).collect();
        if !takers.contains(&kind) {
            let message = format!("`{key}` has no effect with the tag kind `{kind}`");
            let hint =
                format!("it is for {}", takers.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", "));
            tag.report().fault_with_hint(tag.offset_of(key), message, hint);
            found = true;
        }
    }
    found
}

fn read_commit_sha(tag: Section<'_>) -> Option<TagRule> {
    let affixes = read_affixes(tag);
    let digits = tag.number("min_length", MIN_SHA_DIGITS..=TagRule::FULL_SHA_LENGTH);
    let min_length = digits.map_or(TagRule::FULL_SHA_LENGTH, |digits| digits.value);
    let (prefix, suffix) = affixes?;
    must_fit(tag, &prefix, &"0".repeat(min_length), &suffix)?;
    built(tag, tag.offset, TagRule::commit_sha(&prefix, &suffix, min_length))
}

fn read_regex(tag: Section<'_>) -> Option<TagRule> {
    let example = "pattern = \"(?<number>[0-9]+)-(?<sha>[0-9a-f]{7,40})\"";
    let pattern = tag.required_text("pattern", example)?;
    built(tag, pattern.offset, TagRule::regex(pattern.value))
}

fn read_semver(tag: Section<'_>) -> Option<TagRule> {
    let affixes = read_affixes(tag);
    let prereleases = tag.boolean("prereleases").is_some_and(|found| found.value);
    let mut range = None;
    if tag.has("range") {
        let text = tag.text("range")?;
        match text.value.parse() {
            Ok(parsed) => range = Some(parsed),
            Err(error) => {
                let message = format!("`range`: `{}` is not a version range: {error}", text.value.escape_debug());
                tag.report().fault_with_hint(
                    text.offset,
                    message,
                    "write \">=1.2, <2\", \"^1.2\" or \"1.*\"".to_owned(),
                );
                return None;
            }
        }
    }
    let (prefix, suffix) = affixes?;
    must_fit(tag, &prefix, "0.0.0", &suffix)?;
    built(tag, tag.offset, TagRule::semver(&prefix, &suffix, range, prereleases))
}

fn read_calver(tag: Section<'_>) -> Option<TagRule> {
    let affixes = read_affixes(tag);
    let format = match tag.has("format") {
        true => Some(tag.text("format").and_then(|text| tag.parse(text))?.value),
        false => None,
    };
    let (prefix, suffix) = affixes?;
    must_fit(tag, &prefix, "2026.1", &suffix)?;
    built(tag, tag.offset, TagRule::calver(&prefix, &suffix, format))
}

fn read_digest(tag: Section<'_>) -> Option<TagRule> {
    if !tag.has("name") {
        return DEFAULT_MOVING_TAG.parse().ok().map(|name| TagRule::Digest { name });
    }
    let name = tag.text("name").and_then(|text| tag.parse::<Tag>(text))?;
    let rule = TagRule::Digest { name: name.value.clone() };
    if let Err(reason) = rule.read(&name.value) {
        tag.report().fault(name.offset, format!("no tag can match: {}", reason.unwrap_or_default()));
        return None;
    }
    Some(rule)
}

fn built(tag: Section<'_>, offset: usize, rule: Result<TagRule, InvalidTagRule>) -> Option<TagRule> {
    match rule {
        Ok(rule) => Some(rule),
        Err(error) => {
            tag.report().fault(offset, format!("no tag can match: {error}"));
            None
        }
    }
}

fn read_affixes(tag: Section<'_>) -> Option<(String, String)> {
    let prefix = read_affix(tag, "prefix", |prefix| format!("{prefix}0"));
    let suffix = read_affix(tag, "suffix", |suffix| format!("0{suffix}"));
    Some((prefix?, suffix?))
}

/// Returns `prefix` or `suffix`; empty if it is absent. `sample` puts it into a tag, to check that a tag can contain it.
fn read_affix(tag: Section<'_>, key: &str, sample: impl Fn(&str) -> String) -> Option<String> {
    if !tag.has(key) {
        return Some(String::new());
    }
    let text: At<&str> = tag.any_text(key)?;
    match sample(&shortest(text.value)).parse::<Tag>() {
        Ok(_) => Some(text.value.to_owned()),
        Err(_) => {
            let message = format!("`{key}`: no tag can have `{}` there", text.value.escape_debug());
            let hint =
                "tags consist of letters, digits and `_`, and after the first character also `.` and `-`".to_owned();
            tag.report().fault_with_hint(text.offset, message, hint);
            None
        }
    }
}

/// Returns the shortest text that an affix matches.
fn shortest(affix: &str) -> String {
    let shortest = affix.replace("{number}", "0").replace("{time}", "20260101").replace('*', "");
    // No tag begins with `-` or `.`, but `*` may match a character before it.
    let is_inside = affix.starts_with('*') && shortest.starts_with(['-', '.']);
    if is_inside { format!("0{shortest}") } else { shortest }
}

/// Reports a prefix and suffix that make every tag too long.
fn must_fit(tag: Section<'_>, prefix: &str, version: &str, suffix: &str) -> Option<()> {
    match format!("{}{version}{}", shortest(prefix), shortest(suffix)).parse::<Tag>() {
        Ok(_) => Some(()),
        Err(error) => {
            tag.report().fault(tag.offset, format!("no tag can match: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_may_precede_a_dash_or_dot() {
        let begins = |prefix: &str| format!("{}1234567", shortest(prefix)).parse::<Tag>().is_ok();
        assert!(["*-", "*.", "*-sha-", "*", "main-"].into_iter().all(begins));
        assert!(!["-", ".", "-*"].into_iter().any(begins));
    }
}
