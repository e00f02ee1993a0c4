//! `tagrelay completion`: scripts for shells, and the words that they ask for.
//!
//! The scripts hold no words. They call the hidden command `__complete` with the words of the line, and it answers with commands,
//! options, and the environments and repositories of the server.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::api::{Api, ServerOptions, select_context};
use super::output;
use crate::api::Matrix;

/// How long the server may take to name environments and repositories.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints the completion script of a shell.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay completion bash > /usr/share/bash-completion/completions/tagrelay
  tagrelay completion zsh > \"${fpath[1]}/_tagrelay\"
  tagrelay completion fish > ~/.config/fish/completions/tagrelay.fish

Names of environments and repositories come from the server of the context, or of TAGRELAY_SERVER and TAGRELAY_TOKEN.")]
pub(super) struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

const BASH: &str = r#"_tagrelay() {
    local IFS=$'\n'
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _tagrelay tagrelay
"#;

const ZSH: &str = r#"#compdef tagrelay
_tagrelay() {
    local -a found
    found=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found
}
if [ "$funcstack[1]" = "_tagrelay" ]; then _tagrelay "$@"; else compdef _tagrelay tagrelay; fi
"#;

const FISH: &str = r#"function __tagrelay_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c tagrelay -f -a '(__tagrelay_complete)'
"#;

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    output::print(match options.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the words that may stand at the end of a line.
#[derive(Args)]
#[command(hide = true)]
pub(super) struct CompleteOptions {
    /// The words after the name of the program; the last one is being typed
    #[arg(last = true)]
    words: Vec<String>,
}

/// What a word may be.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these words.
    Words(Vec<String>),
    Environment,
    /// A repository; of the environment, if one stands before it.
    Repository(Option<String>),
    /// Whatever the shell completes: files.
    Nothing,
}

pub(super) async fn complete(options: CompleteOptions, program: &clap::Command) -> anyhow::Result<ExitCode> {
    let (typed, before) = match options.words.split_last() {
        Some((typed, before)) => (typed.clone(), before.to_vec()),
        None => (String::new(), Vec::new()),
    };
    if let Some(name) = value_of(&before, "--context") {
        select_context(name);
    }
    let words = match wanted(program, &before, &typed) {
        Wanted::Words(words) => words,
        Wanted::Nothing => Vec::new(),
        Wanted::Environment => names(None).await.0,
        Wanted::Repository(environment) => names(environment).await.1,
    };
    for word in words.iter().filter(|word| word.starts_with(&typed)) {
        output::print(&format!("{}\n", output::clean(word)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the value of an option that stands in the line.
fn value_of(words: &[String], option: &str) -> Option<String> {
    let position = words.iter().position(|word| word == option)?;
    words.get(position + 1).cloned()
}

/// Returns the names of environments, and of the repositories of one or of all. Both are empty if the server does not answer.
async fn names(environment: Option<String>) -> (Vec<String>, Vec<String>) {
    let asking = async {
        let query: Vec<(&str, String)> = environment.map(|name| ("environment", name)).into_iter().collect();
        let answer = Api::new(ServerOptions::unset()).ok()?.get(&["environments"], &query).await.ok()?;
        answer.read::<Matrix>().ok()
    };
    let Ok(Some(matrix)) = tokio::time::timeout(PATIENCE, asking).await else { return Default::default() };
    let cells = matrix.environments.iter().flat_map(|environment| &environment.repositories);
    let mut short: BTreeSet<String> = BTreeSet::new();
    for cell in cells {
        short.insert(cell.repository.rsplit('/').next().unwrap_or(&cell.repository).to_owned());
    }
    (matrix.environments.into_iter().map(|environment| environment.name).collect(), short.into_iter().collect())
}

/// Commands whose first word is an environment, and whose further words are repositories of it.
const PLACES: [&str; 8] = ["status", "history", "promote", "rollback", "hold", "release", "open", "promotions"];
/// Commands that take environments only.
const ENVIRONMENTS: [&str; 3] = ["freeze", "thaw", "diff"];

/// Returns what the word being typed may be.
fn wanted(program: &clap::Command, before: &[String], typed: &str) -> Wanted {
    let mut command = program;
    let mut positionals: Vec<&str> = Vec::new();
    let mut environment: Option<&str> = None;
    let mut words = before.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if let Some(option) = option_of(command, program, word) {
            if option.get_action().takes_values() && !word.contains('=') {
                match words.next() {
                    None => return value(option),
                    Some(value) if is_environment(option) => environment = Some(value),
                    Some(_) => {}
                }
            }
        } else if let Some(sub) = command.find_subcommand(word)
            && positionals.is_empty()
        {
            command = sub;
        } else {
            positionals.push(word);
        }
    }
    if typed.starts_with('-') {
        return Wanted::Words(options(command, program));
    }
    let name = command.get_name();
    let is_named = environment.is_some();
    if PLACES.contains(&name) {
        let environment = environment.or(positionals.first().copied());
        let has_subcommands = command.get_subcommands().next().is_some();
        return match (is_named || !positionals.is_empty(), has_subcommands) {
            (true, _) => Wanted::Repository(environment.map(str::to_owned)),
            (false, _) => Wanted::Environment,
        };
    }
    if ENVIRONMENTS.contains(&name) {
        return Wanted::Environment;
    }
    let subcommands: Vec<String> =
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(|sub| sub.get_name().to_owned()).collect();
    if !subcommands.is_empty() {
        return Wanted::Words(subcommands);
    }
    match command.get_positionals().nth(positionals.len()) {
        Some(positional) => value(positional),
        None => Wanted::Nothing,
    }
}

/// Finds an option by its long or short form.
fn option_of<'a>(command: &'a clap::Command, program: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    let name = word.split('=').next().unwrap_or(word);
    let is_it = |option: &&clap::Arg| {
        let long = name
            .strip_prefix("--")
            .is_some_and(|name| option.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name)));
        let short = name.strip_prefix('-').is_some_and(|name| {
            let mut letters = name.chars();
            letters.next().is_some_and(|letter| option.get_short() == Some(letter)) && letters.next().is_none()
        });
        long || short
    };
    command.get_opts().chain(command.get_arguments()).chain(program.get_arguments()).find(is_it)
}

fn is_environment(option: &clap::Arg) -> bool {
    option.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "ENVIRONMENT"))
}

/// Returns what the value of an option or a positional may be.
fn value(option: &clap::Arg) -> Wanted {
    let possible: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let name = option.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match name {
        _ if !possible.is_empty() => Wanted::Words(possible),
        Some("ENVIRONMENT") => Wanted::Environment,
        Some("REPOSITORY") => Wanted::Repository(None),
        _ => Wanted::Nothing,
    }
}

fn options(command: &clap::Command, program: &clap::Command) -> Vec<String> {
    let all = command.get_arguments().chain(program.get_arguments().filter(|option| option.is_global_set()));
    let mut names: BTreeSet<String> = all
        .filter(|option| !option.is_hide_set())
        .filter_map(|option| Some(format!("--{}", option.get_long()?)))
        .collect();
    names.insert("--help".to_owned());
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (typed, before) = words.split_last().unwrap();
        wanted(&super::super::program(), before, typed)
    }

    #[test]
    fn words_follow_from_the_command() {
        let Wanted::Words(commands) = of("") else { panic!() };
        assert!(
            commands.contains(&"status".to_owned()) && !commands.contains(&"__complete".to_owned()),
            "{commands:?}"
        );
        assert_eq!(of("status "), Wanted::Environment);
        assert_eq!(of("status production "), Wanted::Repository(Some("production".to_owned())));
        assert_eq!(of("rollback -e production "), Wanted::Repository(Some("production".to_owned())));
        assert_eq!(of("--context prod hold "), Wanted::Environment);
        assert_eq!(of("diff staging "), Wanted::Environment);
        assert_eq!(of("events --environment "), Wanted::Environment);
        assert_eq!(of("events --repository "), Wanted::Repository(None));
        assert_eq!(of("promote --wait-for "), Wanted::Words(vec!["committed".to_owned(), "healthy".to_owned()]));
        assert_eq!(of("completion "), Wanted::Words(vec!["bash".to_owned(), "zsh".to_owned(), "fish".to_owned()]));
        let Wanted::Words(options) = of("status --") else { panic!() };
        assert!(options.contains(&"--differs".to_owned()) && options.contains(&"--context".to_owned()), "{options:?}");
    }
}
