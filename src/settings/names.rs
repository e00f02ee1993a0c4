use super::nearest::hint;
use super::reader::Section;
use super::report::At;

/// The names that other sections may refer to. Sections with faults count too, so that one fault does not cause others.
pub(super) struct Names {
    pub(super) config_repositories: Vec<String>,
    pub(super) environments: Vec<String>,
}

impl Names {
    pub(super) fn new(config_repositories: &[Section<'_>], environments: &[Section<'_>]) -> Self {
        Self { config_repositories: all(config_repositories), environments: all(environments) }
    }

    /// Returns the config repository that a section names, or the only one if it names none.
    pub(super) fn config_repository_of(&self, section: Section<'_>) -> Option<String> {
        if section.has("config_repository") {
            let named = section.text("config_repository")?;
            if self.config_repositories.iter().any(|known| known == named.value) {
                return Some(named.value.to_owned());
            }
            let message = format!("there is no [[config_repository]] called `{}`", named.value.escape_debug());
            let hint = hint(named.value, self.config_repositories.iter().map(String::as_str));
            section.report().fault_with_hint(named.offset, message, hint);
            return None;
        }
        match self.config_repositories.as_slice() {
            [only] => Some(only.clone()),
            // `report_missing` reports this fault.
            [] => None,
            several => {
                let missing = section.section_name();
                let message = format!("`config_repository` is missing in {missing}, and there are several");
                let known: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                section.report().fault_with_hint(section.offset, message, format!("name one of {}", known.join(", ")));
                None
            }
        }
    }
}

fn all(sections: &[Section<'_>]) -> Vec<String> {
    sections.iter().filter_map(|section| section.value("name")?.value.as_str().map(str::to_owned)).collect()
}

/// Reports each value of `key` that an earlier section also has.
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
