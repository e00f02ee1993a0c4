//! `tagrelay manual`: manual pages from the same texts as `--help`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::output;

/// Writes the manual pages into a folder: tagrelay.1, and one for each command.
#[derive(Args)]
#[command(hide = true)]
pub(super) struct Options {
    /// The folder, which is made if necessary
    folder: PathBuf,
}

pub(super) fn run(options: &Options, program: &clap::Command) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&options.folder).with_context(|| format!("{} cannot be made", options.folder.display()))?;
    let mut pages = Vec::new();
    collect(program, program.get_name(), &mut pages);
    for (name, text) in &pages {
        let path = options.folder.join(format!("{name}.1"));
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    output::note(&format!("{} pages in {}", pages.len(), options.folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// Collects the pages of a command and of its subcommands.
fn collect(command: &clap::Command, name: &str, pages: &mut Vec<(String, String)>) {
    pages.push((name.to_owned(), page(command, name)));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages);
    }
}

fn page(command: &clap::Command, name: &str) -> String {
    let words = name.replacen('-', " ", name.matches('-').count());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, ".TH \"{}\" 1 \"\" \"Tagrelay {version}\" \"Tagrelay\"", name.to_uppercase());
    let _ = writeln!(text, ".SH NAME\n{} \\- {}", escaped(name), escaped(about.trim_end_matches('.')));
    let usage = command.clone().bin_name(words).render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _ = writeln!(text, ".SH SYNOPSIS\n.nf\n{}\n.fi", escaped(usage));
    let long = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, ".SH DESCRIPTION\n{}", paragraphs(&long));
    let subcommands: Vec<&clap::Command> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !subcommands.is_empty() {
        text.push_str(".SH COMMANDS\n");
        for sub in subcommands {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, ".TP\n.B {}\n{}", escaped(sub.get_name()), escaped(&about));
        }
    }
    let arguments: Vec<&clap::Arg> = command.get_arguments().filter(|argument| !argument.is_hide_set()).collect();
    if !arguments.is_empty() {
        text.push_str(".SH OPTIONS\n");
        for argument in arguments {
            let _ = writeln!(text, ".TP\n.B {}\n{}", escaped(&head(argument)), paragraphs(&help(argument)));
        }
    }
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, ".SH EXAMPLES AND NOTES\n.nf\n{}\n.fi", escaped(&after.to_string()));
    }
    text.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in [
        ("0", "Done, or there was nothing to do."),
        ("1", "Refused, with the reason."),
        ("2", "Invalid arguments."),
        ("3", "Still waiting, or the time to wait is over."),
        ("4", "The server cannot be reached, or refused the credential."),
        ("5", "A part was done, and a part was not."),
    ] {
        let _ = writeln!(text, ".TP\n.B {code}\n{meaning}");
    }
    text
}

/// Returns `-e, --environment ENVIRONMENT`.
fn head(argument: &clap::Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let values: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let value = match argument.get_action().takes_values() || argument.is_positional() {
        true if values.is_empty() => argument.get_id().as_str().to_uppercase(),
        true => values.join(" "),
        false => String::new(),
    };
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    let long = argument.get_long().map(|name| format!("--{name}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    [names.join(", "), value].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn help(argument: &clap::Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let is_switch = !argument.get_action().takes_values();
    if values.is_empty() || is_switch { help } else { format!("{help} (one of: {})", values.join(", ")) }
}

fn paragraphs(text: &str) -> String {
    text.split("\n\n").map(escaped).collect::<Vec<_>>().join("\n.PP\n")
}

/// Escapes what roff would interpret: backslashes, hyphens, and dots and quotes at the beginning of a line.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            escaped.push('\n');
        }
        if line.starts_with(['.', '\'']) {
            escaped.push_str("\\&");
        }
        escaped.push_str(&line.replace('\\', "\\e").replace('-', "\\-"));
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut pages = Vec::new();
        let program = super::super::program();
        collect(&program, "tagrelay", &mut pages);
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["tagrelay", "tagrelay-status", "tagrelay-events-show", "tagrelay-promotions-cancel"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("__complete") || name.contains("manual")), "{names:?}");
        let (_, rollback) = pages.iter().find(|(name, _)| name == "tagrelay-rollback").unwrap();
        assert!(rollback.contains(".B \\-e, \\-\\-environment ENVIRONMENT\n"), "{rollback}");
        assert!(rollback.contains("tagrelay rollback"), "{rollback}");
    }

    #[test]
    fn text_is_no_request_of_roff() {
        assert_eq!(escaped(".a\n'b\nc\\d-e"), "\\&.a\n\\&'b\nc\\ed\\-e");
    }
}
