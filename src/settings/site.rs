use globset::GlobBuilder;

use super::keys;
use super::nearest::hint;
use super::paths;
use super::reader::Section;
use tagrelay_image::Repository;
use tagrelay_manifest::{InvalidSiteRule, RulePart, SiteRule};

/// Returns the rules of `[[environment.site]]`; `environment_paths` are the environment's own.
pub(super) fn read(environment: Section<'_>, environment_paths: &[String]) -> Vec<SiteRule> {
    let read_one = |section: Section<'_>| read_one(section, environment_paths);
    environment.tables("site", &keys::SITE).into_iter().filter_map(read_one).collect()
}

fn read_one(section: Section<'_>, environment_paths: &[String]) -> Option<SiteRule> {
    let file = section.required_text("file", "file = \"environments/staging/values.yaml\"");
    let path = section.required_text("path", "path = \"$.image.tag\"");
    let repository = section.text("repository").map(|text| section.parse::<Repository>(text));
    let part = read_part(section, repository.is_some());
    let (file, path) = (file?, path?);
    // An invalid repository has been reported.
    let repository = match repository {
        Some(repository) => Some(repository?.value),
        None => None,
    };
    let checked = match paths::check(file.value) {
        Ok(checked) => checked,
        Err((message, hint)) => {
            let message = format!("`file`: `{}` {message}", file.value.escape_debug());
            section.report().fault_with_hint(file.offset, message, hint);
            return None;
        }
    };
    if !may_be_in(&checked, environment_paths) {
        let message = format!("`file`: `{}` is in none of the environment's `paths`", checked.escape_debug());
        section.report().fault_with_hint(file.offset, message, "only files of the environment are edited".to_owned());
        return None;
    }
    match SiteRule::new(&checked, path.value, repository, part?) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let offset = match &error {
                InvalidSiteRule::File(_) => file.offset,
                // Skips the opening quote. Escapes before the position would shift it; paths do not need any.
                InvalidSiteRule::Path(invalid) => path.offset + 1 + invalid.position,
                InvalidSiteRule::RepositoryMissing => section.offset,
            };
            section.report().fault(offset, error.to_string());
            None
        }
    }
}

/// Returns the part. The default is the tag if the rule names a repository, else the whole reference.
fn read_part(section: Section<'_>, has_repository: bool) -> Option<RulePart> {
    if !section.has("part") {
        return Some(if has_repository { RulePart::Tag } else { RulePart::Reference });
    }
    let text = section.text("part")?;
    match text.value {
        "tag" => Some(RulePart::Tag),
        "digest" => Some(RulePart::Digest),
        "reference" => Some(RulePart::Reference),
        other => {
            let message = format!("`part`: there is no part called `{}`", other.escape_debug());
            section.report().fault_with_hint(text.offset, message, hint(other, ["tag", "digest", "reference"]));
            None
        }
    }
}

/// Returns whether a file lies in one of the paths. A glob counts as inside, because its files are not known here.
fn may_be_in(file: &str, environment_paths: &[String]) -> bool {
    let takes = |pattern: &str| {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        glob.is_ok_and(|glob| glob.compile_matcher().is_match(file))
    };
    file.contains(['*', '?', '[', '{'])
        || environment_paths.iter().any(|path| takes(path) || takes(&format!("{path}/**")))
}
