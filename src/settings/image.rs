use std::path::Path;

use super::reader::Section;
use super::report::At;
use super::{keys, source, tag};
use crate::policy::{ImageRule, RepositoryPattern, Verification};
use crate::source_repo::SourceSettings;
use tagrelay_image::Repository;

/// All `[[image]]` rules with their sources.
#[derive(Default)]
pub(super) struct Images {
    pub(super) rules: Vec<ImageRule>,
    /// The first line of each rule, from 1.
    pub(super) lines: Vec<u32>,
    /// Source repositories, to which rules refer by index.
    pub(super) sources: Vec<SourceSettings>,
}

/// Reads the rules and reports those that never apply. `store`: the SQLite file.
pub(super) fn read(sections: &[Section<'_>], store: &Path) -> Images {
    let Images { mut rules, mut lines, mut sources } = Images::default();
    for section in sections {
        let Some((At { value: mut rule, offset }, source)) = read_one(*section, store) else { continue };
        rule.source = source.map(|source| index_of(source, &mut sources));
        if let Some(earlier) = shadow(&rules, &rule) {
            let line = lines.get(earlier).copied().unwrap_or_default();
            let message = format!(
                "the rule for `{}` is never reached: the rule on line {line} comes first",
                rule.pattern.as_str()
            );
            let hint = "the first rule that matches applies; put the narrower one above".to_owned();
            section.report().fault_with_hint(offset, message, hint);
        }
        rules.push(rule);
        lines.push(section.report().line(section.offset));
    }
    Images { rules, lines, sources }
}

/// Returns the index of a source and adds it if it is new. Rules with the same URL and branches share one source, with
/// the credentials of the first rule.
fn index_of(source: SourceSettings, sources: &mut Vec<SourceSettings>) -> usize {
    let same = |known: &SourceSettings| known.url == source.url && known.branches == source.branches;
    sources.iter().position(same).unwrap_or_else(|| {
        sources.push(source);
        sources.len() - 1
    })
}

/// Returns the index of an earlier rule that matches everything that `rule` matches. Finds obvious cases only.
fn shadow(earlier: &[ImageRule], rule: &ImageRule) -> Option<usize> {
    let text = rule.pattern.as_str();
    let only = text.parse::<Repository>().ok().filter(|only| only.as_str() == text);
    let shadows = |earlier: &ImageRule| {
        let earlier = &earlier.pattern;
        earlier.as_str() == "**" || earlier.as_str() == text || only.as_ref().is_some_and(|only| earlier.matches(only))
    };
    earlier.iter().position(shadows)
}

fn read_one(section: Section<'_>, store: &Path) -> Option<(At<ImageRule>, Option<SourceSettings>)> {
    let text = section.required_text("repository", "repository = \"docker.io/uyou/*\"");
    let pattern = text.and_then(|text| section.parse::<RepositoryPattern>(text));
    let tag = tag::read(section);
    let source = source::read(section, tag.as_ref(), store);
    let verify = read_verify(section);
    let allow_older = section.boolean("allow_older").is_some_and(|found| found.value);
    let allow_untracked = super::environment::read_untracked(section);
    let pattern = pattern?;
    let rule = ImageRule { pattern: pattern.value, tag: tag?, verify, source: None, allow_older, allow_untracked };
    Some((At { value: rule, offset: pattern.offset }, source))
}

fn read_verify(section: Section<'_>) -> Verification {
    let verify = section.table("verify", &keys::VERIFY, "verify = { exists = true }");
    match verify.and_then(|verify| verify.boolean("exists")) {
        Some(At { value: false, .. }) => Verification::Nothing,
        _ => Verification::Exists,
    }
}
