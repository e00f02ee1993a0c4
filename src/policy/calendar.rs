use super::shape::Shape;
use super::tag_rule::InvalidTagRule;

/// How the parts of a calendar version stand in a tag: `YYYY.0M.0D`, `YY.MM.MICRO` (<https://calver.org>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarFormat {
    text: String,
    /// The parts in the order of the tag, each with its weight: the heaviest is compared first.
    weights: Vec<u8>,
    pattern: String,
}

/// Why a text is no calendar format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no calendar format: it begins with a year (YYYY, YY, 0Y), and MM, 0M, WW, 0W, DD, 0D, MAJOR, MINOR and \
     MICRO may follow, with `.`, `_` and `-` between them"
)]
pub struct InvalidCalendarFormat(pub String);

/// Every part with its digits and its weight. Longer names stand before those that they begin with.
const PARTS: [(&str, &str, u8); 12] = [
    ("YYYY", "[12][0-9]{3}", 0),
    ("YY", "[1-9][0-9]{0,2}|0", 0),
    ("0Y", "[0-9]{2,3}", 0),
    ("MAJOR", "0|[1-9][0-9]{0,17}", 3),
    ("MINOR", "0|[1-9][0-9]{0,17}", 4),
    ("MICRO", "0|[1-9][0-9]{0,17}", 5),
    ("MM", "[1-9]|1[0-2]", 1),
    ("0M", "0[1-9]|1[0-2]", 1),
    ("WW", "[1-9]|[1-4][0-9]|5[0-3]", 1),
    ("0W", "0[1-9]|[1-4][0-9]|5[0-3]", 1),
    ("DD", "[1-9]|[12][0-9]|3[01]", 2),
    ("0D", "0[1-9]|[12][0-9]|3[01]", 2),
];

/// Year and month, and up to two numbers: what is taken where no format is given.
const USUAL: &str = "(?<part0>[12][0-9]{3})[._-](?<part1>0?[1-9]|1[0-2])(?:[._-](?<part2>[0-9]{1,18}))?\
                     (?:[._-](?<part3>[0-9]{1,18}))?";

impl CalendarFormat {
    /// Returns the format as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for CalendarFormat {
    type Err = InvalidCalendarFormat;

    fn from_str(text: &str) -> Result<Self, InvalidCalendarFormat> {
        let invalid = || InvalidCalendarFormat(text.to_owned());
        let (mut weights, mut pattern) = (Vec::new(), String::new());
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((name, digits, weight)) = PARTS.iter().find(|(name, ..)| rest.starts_with(name)) {
                pattern.push_str(&format!("(?<part{}>{digits})", weights.len()));
                weights.push(*weight);
                rest = &rest[name.len()..];
            } else if rest.starts_with(['.', '_', '-']) {
                pattern.push_str(&regex::escape(&rest[..1]));
                rest = &rest[1..];
            } else {
                return Err(invalid());
            }
        }
        let mut sorted = weights.clone();
        sorted.sort_unstable();
        sorted.dedup();
        // Without a year there is nothing of a calendar; a part that is there twice has no order.
        if weights.first() != Some(&0) || sorted.len() != weights.len() {
            return Err(invalid());
        }
        Ok(Self { text: text.to_owned(), weights, pattern })
    }
}

/// Returns the pattern of the parts, for a tag rule.
pub(super) fn pattern(format: Option<&CalendarFormat>) -> &str {
    format.map_or(USUAL, |format| &format.pattern)
}

/// Returns the parts of a tag that matched, the heaviest first.
pub(super) fn read(
    format: Option<&CalendarFormat>,
    captures: &regex::Captures<'_>,
) -> Result<Vec<u64>, InvalidTagRule> {
    let parts = (0..).map_while(|index| captures.name(&format!("part{index}")));
    let mut numbers = Vec::new();
    for (index, part) in parts.enumerate() {
        let weight = format.and_then(|format| format.weights.get(index).copied()).unwrap_or(0);
        let number = part.as_str().parse::<u64>().map_err(|error| InvalidTagRule(error.to_string()))?;
        numbers.push((weight, number));
    }
    // Stable: without a format all weights are equal, and the parts stay as they stand.
    numbers.sort_by_key(|(weight, _)| *weight);
    Ok(numbers.into_iter().map(|(_, number)| number).collect())
}

/// Compiles the shape of tags with a calendar version between `prefix` and `suffix`, which are patterns.
pub(super) fn shape(prefix: &str, format: Option<&CalendarFormat>, suffix: &str) -> Result<Shape, InvalidTagRule> {
    Shape::new(&format!("{prefix}[vV]?(?:{}){suffix}", pattern(format)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(format: Option<&str>, tag: &str) -> Option<Vec<u64>> {
        let format = format.map(|format| format.parse::<CalendarFormat>().unwrap());
        let shape = shape("", format.as_ref(), "").unwrap();
        shape.captures(tag).map(|captures| read(format.as_ref(), &captures).unwrap())
    }

    #[test]
    fn the_usual_forms_need_no_format() {
        assert_eq!(parts(None, "2026.11.23"), Some(vec![2026, 11, 23]));
        assert_eq!(parts(None, "v2026-11-23-2"), Some(vec![2026, 11, 23, 2]));
        assert_eq!(parts(None, "2026.1"), Some(vec![2026, 1]));
        for tag in ["26.11.1", "2026.13", "2026", "2026.11.23-rc", "1.2.3", "latest"] {
            assert_eq!(parts(None, tag), None, "{tag}");
        }
    }

    #[test]
    fn formats_say_what_stands_where() {
        assert_eq!(parts(Some("YY.MM.MICRO"), "26.4.17"), Some(vec![26, 4, 17]));
        assert_eq!(parts(Some("YY.MM.MICRO"), "26.04.17"), None);
        assert_eq!(parts(Some("YYYY0M0D"), "20261123"), Some(vec![2026, 11, 23]));
        assert_eq!(parts(Some("YYYY.MICRO.0M"), "2026.9.11"), Some(vec![2026, 11, 9]), "the month weighs more");
        for text in ["", "MM.YYYY", "YYYY.MM.MM", "YYYY/MM", "YYYY.MM.0M", "YYYY.rc"] {
            assert_eq!(text.parse::<CalendarFormat>(), Err(InvalidCalendarFormat(text.to_owned())), "{text}");
        }
    }
}
