//! After the tour: prints addresses and commands to try, then shows the stream.

use std::path::Path;

use jiff::tz::TimeZone;

use super::stage::{Stage, name_of};
use super::tour::reference;
use super::workspace::{API_TOKEN, CI_RECEIVER};
use crate::api::{StreamMessage, StreamSubject};
use crate::cli::output::{short_commit, short_version};

/// Prints addresses, and commands to paste into another terminal.
pub(super) fn show_what_to_try(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let base = stage.api.base().as_str().trim_end_matches('/').to_owned();
    let repository = shell(&stage.workspace.config_repository().to_string_lossy());
    let token = shell(&stage.workspace.secret(API_TOKEN).to_string_lossy());
    let ci = shell(&stage.workspace.secret(CI_RECEIVER).to_string_lossy());
    let image = reference(&stage.unannounced.0, &stage.unannounced.1);
    let host = stage.registry.host();
    let program = program();
    let screen = &mut stage.screen;
    screen.heading("It stays up until Ctrl-C. In another terminal:")?;
    screen.fact("server", &format!("{base}/"))?;
    screen.fact("API", &format!("{base}/api/v1/openapi.json"))?;
    screen.fact("webhook", &format!("{base}/webhooks/{CI_RECEIVER}"))?;
    screen.fact("metrics", &format!("{base}/metrics"))?;
    screen.fact("registry", &format!("http://{host}/v2/"))?;
    screen.fact("config repository", &repository)?;
    screen.gap()?;
    screen.command(
        "CI has built order-service, but the registry sent no webhook. Send one, and staging moves. Any other tag is \
         looked for a few times, and refused if the registry does not get it.",
        &format!(
            "curl -H \"Authorization: Bearer $(cat {ci})\" \\\n     \
             -d '{{\"image\":\"{image}\"}}' \\\n     {base}/webhooks/{CI_RECEIVER}"
        ),
    )?;
    screen.command(
        "A branch build: only development takes tags with the prefix dev-. In a folder with a Dockerfile and a commit:",
        &format!(
            "image={host}/uyou/user-service:dev-$(git rev-parse HEAD)\n   \
             docker build --tag \"$image\" . && docker push \"$image\""
        ),
    )?;
    screen.command(
        "Production follows.",
        &format!(
            "export TAGRELAY_SERVER={base}\n   export TAGRELAY_TOKEN=$(cat {token})\n   \
             {program} promote order-service --to production"
        ),
    )?;
    screen.command("Git has every change.", &format!("git --git-dir={repository} log -p -2 main"))?;
    screen.say("Changes appear here:")?;
    screen.gap()?;
    Ok(())
}

/// Shows the messages of the stream until Ctrl-C.
pub(super) async fn follow(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    loop {
        let message = stage.stream.next().await?;
        if let Some((what, text)) = describe(&message.subject) {
            stage.screen.live(&time_of_day(&message), &what, &text)?;
        }
    }
}

fn time_of_day(message: &StreamMessage) -> String {
    message.at.to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Returns a word and a sentence for a message; `None`: not shown.
fn describe(subject: &StreamSubject) -> Option<(String, String)> {
    let because = |reason: &Option<String>| reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(match subject {
        StreamSubject::Event { repository, tag, state, reason, .. } => {
            let image = format!("{}:{}", name_of(repository), short_version(Some(tag), None));
            match (state.as_str(), reason) {
                ("queued", None) => ("received".to_owned(), image),
                ("queued", Some(reason)) => ("postponed".to_owned(), format!("{image}: {reason}")),
                ("pending", _) => ("confirmed".to_owned(), format!("{image} is in the registry")),
                _ => (state.to_string(), format!("{image}{}", because(reason))),
            }
        }
        StreamSubject::Update { environment, repository, version, state, commit, reason, .. } => {
            // The version is a tag, a digest, or `tag@digest`.
            let tag = version.split('@').next().unwrap_or_default();
            let commit = commit.as_ref().map(|commit| format!(" in {}", short_commit(commit))).unwrap_or_default();
            let image = format!("{} {}", name_of(repository), short_version(Some(tag), None));
            (state.to_string(), format!("{environment}: {image}{commit}{}", because(reason)))
        }
        StreamSubject::Request { request, environment, actor, .. } => {
            (request.to_string(), format!("for {environment}, requested by {actor}"))
        }
        StreamSubject::Hold { environment, repository, state, .. } => {
            (format!("hold {state}"), format!("{} in {environment}", name_of(repository)))
        }
        StreamSubject::Rollout { .. } | StreamSubject::Freeze { .. } | StreamSubject::Other => return None,
    })
}

/// Returns the command for this program: its name if it is in PATH, otherwise its path.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "tagrelay".to_owned() };
    let in_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("tagrelay") == program));
    if in_path {
        return "tagrelay".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(&program);
    shell(&Path::new(program).to_string_lossy())
}

/// Quotes a text for the shell.
fn shell(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%,=".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
