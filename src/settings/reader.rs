use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::keys::{KeySet, section_of};
use super::nearest::{hint, nearest};
use super::report::{At, Report};
use super::{EnvironmentLookup, keys};

/// Dependencies of the reader.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) report: &'a Report<'a>,
    /// Looks up an environment variable.
    pub(super) environment: &'a EnvironmentLookup<'a>,
}

/// One table of the settings. Its unknown keys have been reported.
///
/// Methods return `None` if a key is absent, and if it is invalid after reporting the fault.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) context: Context<'a>,
    /// Offset of the table's header or opening brace.
    pub(super) offset: usize,
    keys: &'static KeySet,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn new(context: Context<'a>, keys: &'static KeySet, table: &'a DeTable<'a>, offset: usize) -> Self {
        let section = Self { context, offset, keys, table };
        section.report_unknown_keys();
        section
    }

    fn report_unknown_keys(&self) {
        for key in self.table.keys() {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let section = self.keys.section;
            if self.keys.later.contains(&name) {
                let message = format!("`{name}` in {section} is not supported yet");
                self.report().fault_with_hint(offset, message, "leave it out with this version".to_owned());
            } else if !self.keys.keys.contains(&name) {
                self.report().fault_with_hint(offset, self.unknown_key(name), self.hint_for_unknown_key(name));
            }
        }
    }

    /// An unknown key in a secret's table may be the secret itself, so it is shown only if it resembles a known key.
    fn unknown_key(&self, name: &str) -> String {
        let section = self.keys.section;
        if *self.keys == keys::SECRET && nearest(name, self.keys.keys.iter().copied()).is_none() {
            format!("unknown key in {section}")
        } else {
            format!("unknown key `{}` in {section}", name.escape_debug())
        }
    }

    fn hint_for_unknown_key(&self, name: &str) -> Option<String> {
        let known = self.keys.keys.iter().copied();
        match section_of(name) {
            Some(section) if nearest(name, known.clone()).is_none() => Some(format!("it belongs in {section}")),
            _ => hint(name, known),
        }
    }

    /// Returns the section's name for messages, such as `[[image]]`.
    pub(super) fn section_name(&self) -> &'static str {
        self.keys.section
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.context.report
    }

    /// Returns the value of a key with its offset.
    pub(super) fn value(&self, key: &str) -> Option<At<&'a DeValue<'a>>> {
        debug_assert!(self.keys.keys.contains(&key), "{key} is not in the key set of {}", self.keys.section);
        self.table.get(key).map(|value| At { value: value.get_ref(), offset: value.span().start })
    }

    /// Returns whether the key is present, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Returns the offset of the key's value, or of the table if the key is absent.
    pub(super) fn offset_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.offset, |value| value.span().start)
    }

    /// Returns the offset of a key's value in the table `table`, else of that table, else of this section.
    pub(super) fn offset_in(&self, table: &str, key: &str) -> usize {
        let Some(found) = self.table.get(table) else { return self.offset };
        let value = found.get_ref().as_table().and_then(|table| table.get(key));
        value.map_or(found.span().start, |value| value.span().start)
    }

    fn wrong_type(&self, key: &str, expected: &str, found: At<&DeValue<'_>>) {
        let message = format!("`{key}` in {} must be {expected}, not {}", self.keys.section, type_name(found.value));
        self.report().fault(found.offset, message);
    }

    fn missing(&self, key: &str, example: &str) {
        let message = format!("`{key}` is missing in {}", self.keys.section);
        self.report().fault_with_hint(self.offset, message, format!("write {example}"));
    }

    /// Returns a string, which may be empty.
    pub(super) fn any_text(&self, key: &str) -> Option<At<&'a str>> {
        let found = self.value(key)?;
        let text = found.value.as_str();
        if text.is_none() {
            self.wrong_type(key, "a string", found);
        }
        text.map(|text| At { value: text, offset: found.offset })
    }

    /// Returns a string that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<At<&'a str>> {
        let text = self.any_text(key)?;
        if text.value.is_empty() {
            self.report().fault(text.offset, format!("`{key}` in {} is empty", self.keys.section));
            return None;
        }
        Some(text)
    }

    /// Returns a required string; `example` is the hint if it is missing.
    pub(super) fn required_text(&self, key: &str, example: &str) -> Option<At<&'a str>> {
        if !self.has(key) {
            self.missing(key, example);
        }
        self.text(key)
    }

    /// Parses a string of this section. The error's message is shown, so it must not contain a secret.
    pub(super) fn parse<T>(&self, text: At<&str>) -> Option<At<T>>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        match text.value.parse() {
            Ok(value) => Some(At { value, offset: text.offset }),
            Err(error) => {
                self.report().fault(text.offset, error.to_string());
                None
            }
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Option<At<bool>> {
        let found = self.value(key)?;
        let boolean = found.value.as_bool();
        if boolean.is_none() {
            self.wrong_type(key, "true or false", found);
        }
        boolean.map(|value| At { value, offset: found.offset })
    }

    /// Returns an integer within bounds.
    pub(super) fn number(&self, key: &str, bounds: std::ops::RangeInclusive<usize>) -> Option<At<usize>> {
        let found = self.value(key)?;
        let Some(integer) = found.value.as_integer() else {
            self.wrong_type(key, "a whole number", found);
            return None;
        };
        let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.filter(|number| bounds.contains(number)) {
            Some(value) => Some(At { value, offset: found.offset }),
            None => {
                let section = self.keys.section;
                let message = format!("`{key}` in {section} must be {} to {}", bounds.start(), bounds.end());
                self.report().fault(found.offset, message);
                None
            }
        }
    }

    /// Returns a list of strings, without the items that are not strings or are empty.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<At<&'a str>>> {
        let found = self.value(key)?;
        let Some(array) = found.value.as_array() else {
            self.wrong_type(key, "a list of strings, as in [\"…\"]", found);
            return None;
        };
        let text = |item: &'a toml::Spanned<DeValue<'a>>| {
            let found = At { value: item.get_ref(), offset: item.span().start };
            match found.value.as_str() {
                Some("") => self.report().fault(found.offset, format!("an empty string in `{key}`")),
                Some(value) => return Some(At { value, offset: found.offset }),
                None => self.wrong_type(key, "a list of strings", found),
            }
            None
        };
        Some(array.iter().filter_map(text).collect())
    }

    /// Returns a required list of strings that is not empty.
    pub(super) fn required_texts(&self, key: &str, example: &str) -> Option<Vec<At<&'a str>>> {
        if !self.has(key) {
            self.missing(key, example);
        }
        if self.value(key)?.value.as_array().is_some_and(|array| array.is_empty()) {
            let message = format!("`{key}` in {} is an empty list", self.keys.section);
            self.report().fault_with_hint(self.offset_of(key), message, format!("write {example}"));
            return None;
        }
        self.texts(key)
    }

    /// Returns the table under a key; `example` shows its form.
    pub(super) fn table(&self, key: &str, keys: &'static KeySet, example: &str) -> Option<Section<'a>> {
        let found = self.value(key)?;
        match found.value.as_table() {
            Some(table) => Some(Section::new(self.context, keys, table, found.offset)),
            None => {
                self.wrong_type(key, &format!("a table, as in {example}"), found);
                None
            }
        }
    }

    /// Returns the tables of `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, key: &str, keys: &'static KeySet) -> Vec<Section<'a>> {
        let Some(found) = self.value(key) else { return Vec::new() };
        let Some(array) = found.value.as_array() else {
            let message = format!("`{key}` is a list of sections");
            self.report().fault_with_hint(found.offset, message, format!("write [[{key}]]"));
            return Vec::new();
        };
        let section = |item: &'a toml::Spanned<DeValue<'a>>| {
            let offset = item.span().start;
            let table = item.get_ref().as_table();
            if table.is_none() {
                self.wrong_type(key, "a list of tables", At { value: item.get_ref(), offset });
            }
            table.map(|table| Section::new(self.context, keys, table, offset))
        };
        array.iter().filter_map(section).collect()
    }

    /// Returns the `name` of the table: letters, digits, `.`, `_` and `-`. It is used in URLs, commit trailers,
    /// permissions and as a folder.
    pub(super) fn name(&self) -> Option<At<String>> {
        let name = self.required_text("name", "name = \"…\"")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let only_dots = name.value.bytes().all(|byte| byte == b'.');
        if name.value.len() <= MAX_NAME_BYTES && !only_dots && name.value.bytes().all(allowed) {
            return Some(name.map(str::to_owned));
        }
        let message = format!("`{}` cannot be the name of {}", name.value.escape_debug(), self.keys.section);
        let hint = format!("use up to {MAX_NAME_BYTES} letters, digits, `.`, `_` and `-`");
        self.report().fault_with_hint(name.offset, message, hint);
        None
    }

    /// Returns the path and content of a readable file.
    pub(super) fn readable_file(&self, key: &str) -> Option<(At<PathBuf>, Vec<u8>)> {
        let path = self.text(key)?.map(PathBuf::from);
        match std::fs::read(&path.value) {
            Ok(bytes) => Some((path, bytes)),
            Err(error) => {
                let message = format!("`{key}`: the file {} cannot be read: {error}", path.value.display());
                self.report().fault(path.offset, message);
                None
            }
        }
    }

    /// Returns the path of a file with at least one PEM certificate.
    pub(super) fn ca_bundle(&self) -> Option<PathBuf> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let (path, bytes) = self.readable_file("ca_bundle")?;
        // TLS clients silently accept a file without certificates.
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
            return Some(path.value);
        }
        let message = format!("`ca_bundle`: the file {} contains no PEM certificate", path.value.display());
        self.report().fault(path.offset, message);
        None
    }
}

/// The length of a DNS label.
const MAX_NAME_BYTES: usize = 63;

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
