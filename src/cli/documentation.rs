//! Every `tagrelay` command of README and docs is one that the program accepts.

use std::path::Path;

use clap::Parser as _;

use super::Arguments;

/// The commands in a page: lines of shell blocks, and code in sentences.
fn commands(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_shell = false;
    let mut in_other = false;
    let mut joined: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_shell = !in_shell && !in_other && language == "sh";
            in_other = !in_other && !in_shell && !language.is_empty();
            continue;
        }
        if in_shell {
            let (number, text) = match joined.take() {
                Some((number, begun)) => (number, format!("{begun} {}", line.trim())),
                None => (index + 1, line.trim().to_owned()),
            };
            match text.strip_suffix('\\') {
                Some(begun) => joined = Some((number, begun.trim_end().to_owned())),
                None => found.push((number, text)),
            }
        } else if !in_other {
            let code = line.split('`').skip(1).step_by(2);
            found.extend(code.map(|code| (index + 1, code.to_owned())));
        }
    }
    found
}

/// Splits a line as a shell does. Ends at a comment, a pipe, a redirection or `&`.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | '&' | '>' | '<' | ';') => break,
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Returns the arguments of a `tagrelay` command; `None`: it is something else, or only a part of a command.
fn arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let begin = words.iter().position(|word| !word.contains('=') || word.starts_with('-'))?;
    let is_whole = |word: &String| !word.contains(['…', '$']) && !word.starts_with(['[', '<']);
    (words.get(begin)? == "tagrelay" && words.len() > begin + 1 && words.iter().all(is_whole))
        .then(|| words[begin..].to_vec())
}

#[test]
fn commands_of_the_documentation_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![folder.join("README.md")];
    let mut folders = vec![folder.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for (number, line) in commands(&text) {
            let Some(arguments) = arguments(&line) else { continue };
            count += 1;
            if let Err(error) = Arguments::try_parse_from(&arguments)
                && error.use_stderr()
                // A sentence may name a command without its arguments.
                && error.kind() != clap::error::ErrorKind::MissingRequiredArgument
            {
                let place = page.strip_prefix(folder).unwrap().display().to_string();
                wrong.push(format!("{place}:{number}: {line}\n{error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} commands were found");
}

#[test]
fn commands_are_found_in_blocks_and_sentences() {
    let page = "Use `tagrelay events ID`.\n```sh\nA=b tagrelay hold production \\\n  'a b' # why\ntagrelay x | jq\n```\n```\ntagrelay not\n```\n";
    let found: Vec<_> = commands(page).iter().filter_map(|(_, line)| arguments(line)).collect();
    let expected: [&[&str]; 3] =
        [&["tagrelay", "events", "ID"], &["tagrelay", "hold", "production", "a b"], &["tagrelay", "x"]];
    assert_eq!(found, expected);
    assert_eq!(arguments("tagrelay events replay --all [--repository a]"), None);
}

/// The terminal breaks lines, so a text that is broken by hand would be broken twice.
#[test]
fn help_texts_are_not_broken_by_hand() {
    fn check(command: &clap::Command, path: &str) {
        let texts = [command.get_after_help(), command.get_long_about()].into_iter().flatten();
        for text in texts.map(ToString::to_string) {
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2) {
                let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let is_broken = is_prose(pair[0]) && is_prose(pair[1]) && !pair[0].ends_with(['.', ':', '\'', '`']);
                assert!(!is_broken, "{path}: {pair:?}");
            }
        }
        command.get_subcommands().for_each(|below| check(below, &format!("{path} {}", below.get_name())));
    }
    check(&super::program(), "tagrelay");
}
