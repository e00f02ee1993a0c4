//! The second half of the tour: what happens if things do not go as planned. Commands are run as a person types them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use tagrelay_embedded_registry::push::{TinyImage, push};

use super::commits;
use super::stage::{Stage, build_and_push, made_up_commit};
use super::within;
use super::workspace::API_TOKEN;
use crate::api::StreamSubject;
use crate::domain::{EventState, UpdateState};
use tagrelay_image::{Repository, Tag};

const LIMIT: Duration = Duration::from_secs(30);

/// How much older the late build is.
const LATE: Duration = Duration::from_secs(3600);

/// Runs all trials. Returns the tag that staging runs afterwards.
pub(super) async fn run(stage: &mut Stage<'_>, repository: &Repository) -> anyhow::Result<Tag> {
    hold(stage).await?;
    late_build(stage, repository).await?;
    race(stage, repository).await?;
    freeze(stage, repository).await
}

async fn hold(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    stage
        .begin("The hold keeps the rollback", "A colleague does not know of it, and promotes the bad version again.")
        .await?;
    let code = type_command(stage, &["promote", "production", "user-service"]).await?;
    ensure!(code == 1, "the promotion of a held service ended with exit code {code}, and 1 was expected");
    Ok(())
}

async fn late_build(stage: &mut Stage<'_>, repository: &Repository) -> anyhow::Result<()> {
    stage
        .begin(
            "A late build of an older commit",
            "A slow CI job pushes an image that was built an hour ago. It must not replace the newer one.",
        )
        .await?;
    let tag = made_up_commit("an older commit")?;
    let created = Timestamp::now().checked_sub(LATE)?;
    let image = TinyImage { revision: None, created, text: "a late build".to_owned() };
    push(repository, &tag, &image, None).await?;
    let refused = async {
        loop {
            if let StreamSubject::Event { id, tag: of, state, .. } = stage.stream.next().await?.subject
                && of == tag.as_str()
                && state == EventState::Refused
            {
                return anyhow::Ok(id);
            }
        }
    };
    let id = within(LIMIT, "the refusal of the late build", refused).await?;
    let code = type_command(stage, &["events", "show", &id]).await?;
    ensure!(code == 0, "the event cannot be shown: exit code {code}");
    Ok(())
}

async fn race(stage: &mut Stage<'_>, repository: &Repository) -> anyhow::Result<()> {
    stage
        .begin(
            "A race: somebody else pushes first",
            "A colleague pushes to the config repository, and CI pushes an image before Tagrelay has seen it. Tagrelay's \
             push is rejected by the remote, so it reads the new commit and decides again. It never force-pushes.",
        )
        .await?;
    foreign_commit(stage).await?;
    let tag = made_up_commit("the commit of the race")?;
    build_and_push(repository, &tag).await?;
    let commit = committed(stage, &tag).await?;
    let log = commits::log(&stage.workspace.config_repository()).await?;
    let [ours, foreign, ..] = log.as_slice() else { anyhow::bail!("the branch has fewer than two commits") };
    ensure!(ours.id == commit && foreign.subject == FOREIGN, "the commit of the colleague was lost");
    for line in log.iter().take(3) {
        stage.screen.log_line(&line.id, &line.subject)?;
    }
    stage.screen.gap()?;
    stage.screen.say("Both are on the branch.")?;
    Ok(())
}

const FOREIGN: &str = "Add a note";

/// Pushes a commit to the config repository, as a person does.
async fn foreign_commit(stage: &Stage<'_>) -> anyhow::Result<()> {
    let bare = stage.workspace.config_repository();
    let clone = stage.workspace.path().join("colleague");
    let (bare, folder) = (bare.display().to_string(), clone.display().to_string());
    git(&["clone", "-q", &bare, &folder]).await?;
    tokio::fs::write(clone.join("NOTE.md"), "A note of a colleague.\n").await?;
    git(&["-C", &folder, "add", "NOTE.md"]).await?;
    let author = ["-c", "user.name=A colleague", "-c", "user.email=colleague@example.com"];
    let commit = ["-C", &folder, "commit", "-q", "-m", FOREIGN];
    git(&[author.as_slice(), commit.as_slice()].concat()).await?;
    git(&["-C", &folder, "push", "-q", "origin", "HEAD:main"]).await
}

async fn git(arguments: &[&str]) -> anyhow::Result<()> {
    let mut git = tokio::process::Command::new("git");
    git.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = git.output().await.context("git cannot be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {} failed: {}", arguments.join(" "), said.trim());
    Ok(())
}

async fn freeze(stage: &mut Stage<'_>, repository: &Repository) -> anyhow::Result<Tag> {
    stage
        .begin("A freeze", "Nothing automatic happens in a frozen environment. Updates wait, and go on afterwards.")
        .await?;
    let code = type_command(stage, &["freeze", "staging", "--reason", "load test", "--until", "2h"]).await?;
    ensure!(code == 0, "staging cannot be frozen: exit code {code}");
    let tag = made_up_commit("the commit that waits")?;
    build_and_push(repository, &tag).await?;
    let waits = async {
        loop {
            if let StreamSubject::Update { version, state, .. } = stage.stream.next().await?.subject
                && version == tag.as_str()
                && state == UpdateState::Waiting
            {
                return anyhow::Ok(());
            }
        }
    };
    within(LIMIT, "the update to wait for the freeze", waits).await?;
    type_command(stage, &["status", "--waiting"]).await?;
    let code = type_command(stage, &["thaw", "staging"]).await?;
    ensure!(code == 0, "staging cannot be thawed: exit code {code}");
    let commit = committed(stage, &tag).await?;
    stage.screen.say(&format!("{commit:.7} is on the branch now."))?;
    Ok(tag)
}

/// Waits until staging gets a tag, and returns the commit.
async fn committed(stage: &mut Stage<'_>, tag: &Tag) -> anyhow::Result<String> {
    let landed = async {
        loop {
            if let StreamSubject::Update { version, environment, state, commit: Some(commit), .. } =
                stage.stream.next().await?.subject
                && version == tag.as_str()
                && environment == "staging"
                && state == UpdateState::Committed
            {
                return anyhow::Ok(commit);
            }
        }
    };
    within(LIMIT, "the commit", landed).await
}

/// Runs a command of this program, prints it and what it says, and returns its exit code.
async fn type_command(stage: &mut Stage<'_>, arguments: &[&str]) -> anyhow::Result<i32> {
    let quoted = |word: &&str| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() };
    let line = arguments.iter().map(quoted).collect::<Vec<_>>().join(" ");
    stage.screen.say(&format!("$ tagrelay {line}"))?;
    let token = tokio::fs::read_to_string(stage.workspace.secret(API_TOKEN)).await?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.env("TAGRELAY_SERVER", stage.api.base().as_str()).env("TAGRELAY_TOKEN", token.trim());
    command.env_remove("TAGRELAY_CONTEXT").env("COLUMNS", stage.screen.columns().to_string());
    let output = within(LIMIT, "the command", async { Ok(command.output().await?) }).await?;
    for line in String::from_utf8_lossy(&output.stdout).lines().chain(String::from_utf8_lossy(&output.stderr).lines()) {
        if line.is_empty() { stage.screen.gap()? } else { stage.screen.say(line)? }
    }
    stage.screen.gap()?;
    output.status.code().context("the command was ended by a signal")
}
