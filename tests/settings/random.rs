//! Random edits of the settings cause no panic, and no message contains a secret.

use std::env::VarError;

use proptest::prelude::*;
use tagrelay::settings::Settings;

const SECRET: &str = "hunter2hunter2";

/// A random edit. Positions are taken modulo the size.
#[derive(Debug, Clone)]
enum Edit {
    /// Removes some characters of a line.
    Cut { line: usize, from: usize, length: usize },
    /// Inserts a text into a line.
    Insert { line: usize, at: usize, text: &'static str },
    /// Replaces a part of a line, if the line has it.
    Replace { line: usize, parts: (&'static str, &'static str) },
    /// Removes a line.
    Drop { line: usize },
    /// Copies a line to another position.
    Copy { line: usize, to: usize },
}

/// Edits that move secrets to wrong places.
const PARTS: &[(&str, &str)] = &[
    ("{ value = \"hunter2hunter2\" }", "\"hunter2hunter2\""),
    ("{ value = \"hunter2hunter2\" }", "hunter2hunter2"),
    ("{ value = \"hunter2hunter2\" }", "[\"hunter2hunter2\"]"),
    ("value = \"hunter2hunter2\"", "hunter2hunter2 = \"value\""),
    ("value", "env"),
    ("value", "file"),
    ("value", "vaule"),
    ("token", "sha256"),
    ("://", "://tagrelay:hunter2hunter2@"),
    ("sqlite:", "postgres://tagrelay:hunter2hunter2@"),
];

const TEXTS: &[&str] = &[
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    " ",
    "\\",
    "\u{feff}",
    "ä",
    "🦀",
    "\r",
    "\0",
    "\"\"\"",
    "-1",
    "99999999999999999999",
    "1e9",
    "true",
    "2026-01-02",
    "[]",
    "{}",
    "x = 1",
    "..",
    "/",
    "*",
    "{a,b",
    "refs/heads/",
    "0x",
];

fn edit() -> impl Strategy<Value = Edit> {
    let any = any::<usize>;
    prop_oneof![
        (any(), any(), 1..8usize).prop_map(|(line, from, length)| Edit::Cut { line, from, length }),
        (any(), any(), prop::sample::select(TEXTS)).prop_map(|(line, at, text)| Edit::Insert { line, at, text }),
        (any(), prop::sample::select(PARTS)).prop_map(|(line, parts)| Edit::Replace { line, parts }),
        any().prop_map(|line| Edit::Drop { line }),
        (any(), any()).prop_map(|(line, to)| Edit::Copy { line, to }),
    ]
}

fn apply(lines: &mut Vec<Vec<char>>, edit: &Edit) {
    if lines.is_empty() {
        return;
    }
    let count = lines.len();
    match edit {
        Edit::Cut { line, from, length } => {
            let line = &mut lines[line % count];
            let from = from % (line.len() + 1);
            line.drain(from..(from + length).min(line.len()));
        }
        Edit::Insert { line, at, text } => {
            let line = &mut lines[line % count];
            let at = at % (line.len() + 1);
            line.splice(at..at, text.chars());
        }
        Edit::Replace { line, parts: (from, to) } => {
            // The next line with the part, so that rare parts are changed as often as others.
            let text = |line: &[char]| line.iter().collect::<String>();
            let found =
                (0..count).map(|step| (line % count + step) % count).find(|at| text(&lines[*at]).contains(from));
            if let Some(found) = found {
                lines[found] = text(&lines[found]).replace(from, to).chars().collect();
            }
        }
        Edit::Drop { line } => {
            lines.remove(line % count);
        }
        Edit::Copy { line, to } => {
            let copy = lines[line % count].clone();
            lines.insert(to % count, copy);
        }
    }
}

/// The example without comments, with every kind of secret and with secrets in URLs.
fn settings_with_secrets() -> String {
    let example = include_str!("../../config.example.toml");
    let lines = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    // Each is different: two tokens must not be equal.
    let secret_in_place = |(number, line): (usize, &str)| {
        let Some((key, rest)) = line.split_once(" = { ") else { return line.to_owned() };
        if rest.starts_with("env") || rest.starts_with("file") {
            format!("{key} = {{ value = \"{SECRET}-{number}\" }}")
        } else {
            line.to_owned()
        }
    };
    lines.enumerate().map(secret_in_place).collect::<Vec<_>>().join("\n")
}

/// The output for settings: the faults, or the settings' debug format.
fn said_about(text: &str) -> String {
    // A variable contains the secret, too; its name is not one.
    let environment =
        |name: &str| if name.contains("hunter") { Err(VarError::NotPresent) } else { Ok(SECRET.to_owned()) };
    match Settings::parse("t.toml", text, &environment) {
        Ok(settings) => format!("{settings:?}"),
        Err(faults) => format!("{faults}\n{faults:?}"),
    }
}

#[test]
fn unedited_settings_are_valid() {
    let text = settings_with_secrets();
    assert!(text.matches(SECRET).count() > 8);
    let said = said_about(&text);
    assert!(said.starts_with("Settings"), "{said}");
}

/// Whether an edit made a path of the secret: `file = "/hunter2hunter2"`. Messages quote paths.
fn names_a_path(text: &str) -> bool {
    let starts = ["\"/", "\"./", "\"../", "'/", "'./", "'../"];
    text.lines()
        .any(|line| line.contains("file") && line.contains("hunter2") && starts.iter().any(|it| line.contains(it)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_panics_or_shows_a_secret(edits in prop::collection::vec(edit(), 1..6)) {
        let text = settings_with_secrets();
        let mut lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        for edit in &edits {
            apply(&mut lines, edit);
        }
        let text = lines.into_iter().map(|line| line.into_iter().collect::<String>()).collect::<Vec<_>>().join("\n");
        prop_assume!(!names_a_path(&text));
        // No half of a secret is shown either.
        prop_assert!(!said_about(&text).contains("hunter2"), "{}", said_about(&text));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        said_about(&text);
    }
}
