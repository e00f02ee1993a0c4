//! Decides which texts are a string without quotes, for every YAML reader.
//!
//! The schemas differ: Kubernetes uses Go's YAML 1.1 (`1_000`, `017`, `yes` and `2026-01-02` are not strings), others use 1.2
//! (`0o17`). A text counts as a string only if it is a string under <https://yaml.org/type/> (1.1), under the core schema of 1.2
//! (<https://yaml.org/spec/1.2.2/#103-core-schema>), and for laxer readers (Go accepts `1e5` and `0X` in any case; others accept
//! underscores anywhere). In case of doubt the answer is no: superfluous quotes do no harm, while missing quotes turn the commit
//! `123e456` into infinity.
//!
//! One form of 1.1 is ignored on purpose: its float pattern accepts `1.2.3`, which no reader does.

/// Returns whether the plain `text` is read as the string `text` by every reader of YAML 1.1 and 1.2.
///
/// Only texts with the characters of image references are considered.
pub(crate) fn reads_as_string(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_safe =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'=');
    let starts_safely = bytes.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let ends_safely = bytes.last().is_some_and(|byte| *byte != b':');
    starts_safely && ends_safely && bytes.iter().all(is_safe) && !is_word(text) && !is_number(bytes) && !is_date(bytes)
}

/// Returns whether a text is a boolean or null of YAML 1.1, in any case.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Returns whether a text is a number: an integer in base 2, 8, 10, 16 or 60, or a float.
///
/// Underscores may be anywhere after the first digit.
fn is_number(bytes: &[u8]) -> bool {
    match bytes {
        [b'0', b'x' | b'X', rest @ ..] => rest.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'_'),
        [b'0', b'o' | b'O' | b'b' | b'B', rest @ ..] => rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'_'),
        // The float pattern of a JavaScript reader needs no digit before the exponent, so `e5` is a number for it.
        [b'0'..=b'9' | b'e' | b'E', ..] => is_sexagesimal(bytes) || is_float(bytes),
        _ => false,
    }
}

/// Returns whether a text is a number in base 60, as `190:20:30` and `190:20:30.15` in YAML 1.1.
fn is_sexagesimal(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|byte| *byte == b':').peekable();
    let is_first_good = parts.next().is_some_and(|part| part.iter().all(|byte| byte.is_ascii_digit() || *byte == b'_'));
    let starts_as_digit = |part: &[u8]| part.first().is_some_and(u8::is_ascii_digit);
    parts.peek().is_some() && is_first_good && parts.all(|part| starts_as_digit(part) && is_float(part))
}

/// Returns whether a text is a float or integer: `12`, `1.27`, `1.`, `1e5`, `123e456`, `1.5e-3`.
fn is_float(bytes: &[u8]) -> bool {
    let skip_digits = |mut rest: &[u8]| -> usize {
        let before = rest.len();
        while let [b'0'..=b'9' | b'_', tail @ ..] = rest {
            rest = tail;
        }
        before - rest.len()
    };
    let mut rest = &bytes[skip_digits(bytes)..];
    if let [b'.', tail @ ..] = rest {
        rest = &tail[skip_digits(tail)..];
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        rest = tail.strip_prefix(b"-").unwrap_or(tail);
        rest = &rest[skip_digits(rest)..];
    }
    rest.is_empty()
}

/// Returns whether a text is a date such as `2026-01-02`, or a time that begins with a date.
fn is_date(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(3, |byte| *byte == b'-');
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let all_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let day = rest.split(|byte| matches!(byte, b'T' | b't')).next().unwrap_or(rest);
    year.len() == 4
        && matches!(month.len(), 1 | 2)
        && matches!(day.len(), 1 | 2)
        && all_digits(year)
        && all_digits(month)
        && all_digits(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_texts_are_not_strings() {
        for text in [
            "",
            "1",
            "0",
            "1234567",
            "007",
            "089",
            "0o17",
            "0O7",
            "0b10101",
            "0B1",
            "0x",
            "0xdeadbeef",
            "0XFF",
            "1_000",
            "1__0",
            "1.27",
            "1.",
            "1_0.5",
            "1e5",
            "123e456",
            "1E5",
            "1.5e-3",
            "1e",
            "e5",
            "E5",
            "e123456",
            "e-5",
            "e1_0",
            "12:34",
            "190:20:30",
            "190:20:30.15",
            "2026-01-02",
            "2026-1-2",
            "2026-01-02T10",
            "y",
            "N",
            "Yes",
            "NO",
            "on",
            "Off",
            "TRUE",
            "false",
            "Null",
            "~",
            ".inf",
            "-1",
            "+1",
            ".5",
            "a b",
            "a: b",
            "a #b",
            "a:",
            "[::1]/a:b",
            "{{ x }}",
            "a'b",
            "a\"b",
            "a\\b",
            "ä",
            "=",
            "<<",
            "*a",
            "&a",
            "!a",
            "-",
            "---",
            "...",
        ] {
            assert!(!reads_as_string(text), "{text}");
        }
    }

    #[test]
    fn unambiguous_texts_are_strings() {
        for text in [
            "latest",
            "v1",
            "1.2.3",
            "1.27-alpine",
            "9f8e7d6",
            "123a456",
            "12e34f",
            "0xg",
            "0bx",
            "_1",
            "yesterday",
            "noon",
            "nginx",
            "nginx:1.27",
            "nginx:1234567",
            "localhost:5000/a:1",
            "2026-01-02-1",
            "2026-01-02.1",
            "20260102-1",
            "sha256:00",
            "1e5e",
            "1.2.3e4",
            "a@sha256:00",
            "12:3a",
            "e5f",
            "edge",
            "e5-1",
            "ee5",
            "e1.5",
            "1-2",
            "1.2-3",
        ] {
            assert!(reads_as_string(text), "{text}");
        }
    }
}
