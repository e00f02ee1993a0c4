use regex::Regex;

/// A compiled regular expression that must match a whole tag.
///
/// Two shapes are equal if their expressions are the same text.
#[derive(Debug, Clone)]
pub struct Shape(Regex);

/// Why a tag rule is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTagRule(pub(super) String);

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Shape {}

impl Shape {
    /// Compiles a pattern and anchors it at both ends.
    pub(super) fn new(pattern: &str) -> Result<Self, InvalidTagRule> {
        let whole = format!("^(?:{pattern})$");
        // Tags have at most 128 bytes, so a pattern above this limit is a mistake.
        let built = regex::RegexBuilder::new(&whole).size_limit(1 << 20).build();
        built.map(Self).map_err(|error| InvalidTagRule(describe(&error)))
    }

    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        self.0.captures(text)
    }

    /// Returns the names of the named groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }
}

/// Returns the last line of the error, which states the cause; the lines before it point at the position.
fn describe(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
        _ => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("the pattern does not parse: {}", last.trim_start_matches("error: "))
        }
    }
}

/// Returns the pattern for the text before or after the version. `*` matches any text; `{number}` and `{time}` are
/// captured; everything else is literal.
pub(super) fn affix(text: &str) -> Result<String, InvalidTagRule> {
    let mut pattern = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['*', '{', '}']) {
        pattern.push_str(&regex::escape(&rest[..at]));
        rest = &rest[at..];
        let (part, length) = if rest.starts_with('*') {
            (".*?", 1)
        } else if rest.starts_with("{number}") {
            ("(?<number>[0-9]+)", "{number}".len())
        } else if rest.starts_with("{time}") {
            (TIME, "{time}".len())
        } else {
            let message = "in `prefix` and `suffix`, braces are for `{number}` and `{time}` only".to_owned();
            return Err(InvalidTagRule(message));
        };
        pattern.push_str(part);
        rest = &rest[length..];
    }
    pattern.push_str(&regex::escape(rest));
    Ok(pattern)
}

/// The forms that `captured_time` parses: a date, a date with time of day, Unix seconds, Unix milliseconds.
const TIME: &str = "(?<time>[0-9]{4}[._-]?[0-9]{2}[._-]?[0-9]{2}(?:[T._-]?[0-9]{2}[._-]?[0-9]{2}(?:[._-]?[0-9]{2})?Z?)?|[0-9]{10}|[0-9]{13})";
