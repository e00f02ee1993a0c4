use super::shape::{InvalidTagRule, Shape};

/// The format of calendar versions: `YYYY.0M.0D`, `YY.MM.MICRO` (<https://calver.org>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalendarFormat {
    text: String,
    /// The weight of each part, in the order of the tag. Parts are compared by ascending weight.
    weights: Vec<u8>,
    /// Whether the format has year, month and day.
    has_days: bool,
    pattern: String,
}

/// The text is not a calendar format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a calendar format: it begins with a year (YYYY, YY, 0Y), and MM, 0M, WW, 0W, DD, 0D, MAJOR, MINOR and \
     MICRO may follow, with `.`, `_` and `-` between them"
)]
pub struct InvalidCalendarFormat(pub String);

/// All parts with their digits and weights. A name precedes every name that is a prefix of it, because the first match
/// wins.
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

/// The default format: year and month, and up to two numbers.
const USUAL: &str = "(?<part0>[12][0-9]{3})[._-](?<part1>0?[1-9]|1[0-2])(?:[._-](?<part2>[0-9]{1,18}))?\
                     (?:[._-](?<part3>[0-9]{1,18}))?";

impl CalendarFormat {
    /// Returns the format as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::str::FromStr for CalendarFormat {
    type Err = InvalidCalendarFormat;

    fn from_str(text: &str) -> Result<Self, InvalidCalendarFormat> {
        let invalid = || InvalidCalendarFormat(text.to_owned());
        let (mut weights, mut names, mut pattern) = (Vec::new(), Vec::new(), String::new());
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((name, digits, weight)) = PARTS.iter().find(|(name, ..)| rest.starts_with(name)) {
                pattern.push_str(&format!("(?<part{}>{digits})", weights.len()));
                weights.push(*weight);
                names.push(*name);
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
        // A calendar version begins with a year, and no part may occur twice.
        if weights.first() != Some(&0) || sorted.len() != weights.len() {
            return Err(invalid());
        }
        let has = |wanted: [&str; 2]| names.iter().any(|name| wanted.contains(name));
        let has_days = has(["MM", "0M"]) && has(["DD", "0D"]);
        Ok(Self { text: text.to_owned(), weights, has_days, pattern })
    }
}

/// Returns the pattern of the parts, for a tag rule.
pub(super) fn pattern(format: Option<&CalendarFormat>) -> &str {
    format.map_or(USUAL, |format| &format.pattern)
}

/// The weights of year, month and day.
const DATE: [u8; 3] = [0, 1, 2];

/// Added to years below 1000 (`YY`, `0Y`).
const CENTURY: u64 = 2000;

/// Returns the parts of a matching tag, in the order in which they are compared. A nonexistent day is an error.
pub(super) fn read(
    format: Option<&CalendarFormat>,
    captures: &regex::Captures<'_>,
) -> Result<Vec<u64>, InvalidTagRule> {
    let parts: Vec<&str> =
        (0..).map_while(|index| captures.name(&format!("part{index}"))).map(|part| part.as_str()).collect();
    let mut numbers = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let weight = format.and_then(|format| format.weights.get(index).copied()).unwrap_or(0);
        let number = part.parse::<u64>().map_err(|error| InvalidTagRule(error.to_string()))?;
        numbers.push((weight, number));
    }
    let date = match format {
        Some(format) if format.has_days => {
            let part = |weight: u8| numbers.iter().find(|(found, _)| *found == weight).map(|(_, number)| *number);
            let [year, month, day] = DATE.map(part);
            year.zip(month).zip(day).map(|((year, month), day)| (year, month, day))
        }
        // Without a format, only the form `2026-01-30` is checked as a date. In `2026.1.30`, 30 may be a running number.
        None => match (parts.as_slice(), numbers.as_slice()) {
            ([_, month, day, ..], [(_, y), (_, m), (_, d), ..]) if month.len() == 2 && day.len() == 2 => {
                let is_dashed =
                    captures.get(0).is_some_and(|whole| whole.as_str().contains(&format!("-{month}-{day}")));
                is_dashed.then_some((*y, *m, *d))
            }
            _ => None,
        },
        Some(_) => None,
    };
    if let Some((year, month, day)) = date.filter(|date| !is_date(*date)) {
        return Err(InvalidTagRule(format!("there is no day {day} in month {month} of {year}")));
    }
    // The sort is stable: without a format all weights are equal and the parts keep their order.
    numbers.sort_by_key(|(weight, _)| *weight);
    Ok(numbers.into_iter().map(|(_, number)| number).collect())
}

fn is_date((year, month, day): (u64, u64, u64)) -> bool {
    let year = if year < 1000 { year + CENTURY } else { year };
    let parts = i16::try_from(year).ok().zip(i8::try_from(month).ok()).zip(i8::try_from(day).ok());
    parts.is_some_and(|((year, month), day)| jiff::civil::Date::new(year, month, day).is_ok())
}

/// Compiles the shape of tags with a calendar version between the patterns `prefix` and `suffix`.
pub(super) fn shape(prefix: &str, format: Option<&CalendarFormat>, suffix: &str) -> Result<Shape, InvalidTagRule> {
    Shape::new(&format!("{prefix}v?(?:{}){suffix}", pattern(format)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(format: Option<&str>, tag: &str) -> Option<Vec<u64>> {
        let format = format.map(|format| format.parse::<CalendarFormat>().unwrap());
        let shape = shape("", format.as_ref(), "").unwrap();
        shape.captures(tag).and_then(|captures| read(format.as_ref(), &captures).ok())
    }

    #[test]
    fn common_forms_need_no_format() {
        assert_eq!(parts(None, "2026.11.23"), Some(vec![2026, 11, 23]));
        assert_eq!(parts(None, "v2026-11-23-2"), Some(vec![2026, 11, 23, 2]));
        assert_eq!(parts(None, "2026.1"), Some(vec![2026, 1]));
        for tag in ["26.11.1", "2026.13", "2026", "2026.11.23-rc", "1.2.3", "latest"] {
            assert_eq!(parts(None, tag), None, "{tag}");
        }
    }

    #[test]
    fn nonexistent_days_are_not_versions() {
        for tag in ["2026-02-30", "v2026-02-29", "2026-11-31", "2026-11-45", "2026-02-30-2"] {
            assert_eq!(parts(None, tag), None, "{tag}");
        }
        // A leap day, and running numbers after a month.
        for (tag, expected) in [
            ("2028-02-29", vec![2028, 2, 29]),
            ("2026.2.30", vec![2026, 2, 30]),
            ("2026.02.30", vec![2026, 2, 30]),
            ("2026-2-30", vec![2026, 2, 30]),
            ("2026-02-131", vec![2026, 2, 131]),
        ] {
            assert_eq!(parts(None, tag), Some(expected), "{tag}");
        }
        for (format, tag) in [
            ("YYYY.0M.0D", "2026.02.30"),
            ("YYYY0M0D", "20260230"),
            ("YY.MM.DD", "26.2.29"),
            ("0Y.0M.0D.MICRO", "26.04.31.7"),
            ("YYYY-DD-MM", "2026-30-2"),
        ] {
            assert_eq!(parts(Some(format), tag), None, "{format}: {tag}");
        }
        assert_eq!(parts(Some("YY.MM.DD"), "28.2.29"), Some(vec![28, 2, 29]));
        // With a week the last part is not a day of a month.
        assert_eq!(parts(Some("YYYY.WW.DD"), "2026.9.31"), Some(vec![2026, 9, 31]));
    }

    #[test]
    fn format_determines_the_parts() {
        assert_eq!(parts(Some("YY.MM.MICRO"), "26.4.17"), Some(vec![26, 4, 17]));
        assert_eq!(parts(Some("YY.MM.MICRO"), "26.04.17"), None);
        assert_eq!(parts(Some("YYYY0M0D"), "20261123"), Some(vec![2026, 11, 23]));
        assert_eq!(parts(Some("YYYY.MICRO.0M"), "2026.9.11"), Some(vec![2026, 11, 9]), "the month weighs more");
        for text in ["", "MM.YYYY", "YYYY.MM.MM", "YYYY/MM", "YYYY.MM.0M", "YYYY.rc"] {
            assert_eq!(text.parse::<CalendarFormat>(), Err(InvalidCalendarFormat(text.to_owned())), "{text}");
        }
    }
}
