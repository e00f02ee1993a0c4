use super::reader::Section;
use super::report::At;

/// The names that other sections refer to, right or wrong otherwise: a repository with a bad author is still no
/// unknown repository.
pub(super) struct Names {
    pub(super) config_repositories: Vec<String>,
    pub(super) environments: Vec<String>,
}

impl Names {
    pub(super) fn new(config_repositories: &[Section<'_>], environments: &[Section<'_>]) -> Self {
        Self { config_repositories: all(config_repositories), environments: all(environments) }
    }
}

fn all(sections: &[Section<'_>]) -> Vec<String> {
    sections.iter().filter_map(|section| section.value("name")?.value.as_str().map(str::to_owned)).collect()
}

/// Reports each value of `key` that an earlier section has already.
pub(super) fn report_twins(sections: &[Section<'_>], key: &str) {
    let mut seen: Vec<At<&str>> = Vec::new();
    for section in sections {
        let Some(At { value, offset }) = section.value(key) else { continue };
        let Some(value) = value.as_str() else { continue };
        match seen.iter().find(|earlier| earlier.value == value) {
            Some(earlier) => {
                let line = section.report().line(earlier.offset);
                let message = format!(
                    "the {key} `{}` is taken by the {} on line {line}",
                    value.escape_debug(),
                    section.section_name()
                );
                section.report().fault(offset, message);
            }
            None => seen.push(At { value, offset }),
        }
    }
}
