//! The tour, step by step. Each step does something through the doors that everybody uses, waits until the system
//! says that it has happened, and fails the run otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::screen::Commit;
use super::stage::{Stage, build_and_push, made_up_commit, matrix, running_in};
use super::{commits, within};
use crate::api::{CellView, EventView, PreviewState, RequestView, StreamSubject};
use crate::cli::output::short_digest;
use crate::domain::{RequestState, UpdateState};
use crate::image::{Digest, ImageReference, Repository, Tag};

/// How long a step may take, from what begins it to what ends it.
const STEP_LIMIT: Duration = Duration::from_secs(30);

const SERVICE: &str = "user-service";
const STAGING: &str = "staging";
const PRODUCTION: &str = "production";

/// Walks through all steps.
pub(super) async fn take(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let service = Service::find(stage)?;
    present(stage).await?;
    let id = push_an_image(stage, &service).await?;
    let pushed = show_commit(stage, &id).await?;
    let preview = try_promotion(stage, &service).await?;
    promote(stage, &service, &preview).await?;
    roll_back(stage, &service, &pushed).await?;
    sum_up(stage, &service).await
}

/// The service that moves.
struct Service {
    repository: Repository,
    /// What its manifests run in the beginning.
    old: Tag,
    /// What is pushed.
    new: Tag,
}

impl Service {
    fn find(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let is_it = |(repository, _): &&(Repository, Tag)| repository.name() == SERVICE;
        let found = stage.platform.images.iter().find(is_it);
        let (repository, old) = found.with_context(|| format!("no manifest of the example runs {SERVICE}"))?;
        Ok(Self { repository: repository.clone(), old: old.clone(), new: made_up_commit("the next commit")? })
    }

    fn is(&self, repository: &str) -> bool {
        self.repository.as_str() == repository
    }
}

async fn present(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let table = matrix(&stage.api).await?;
    let Stage { screen, workspace, registry, platform, api, .. } = stage;
    let folder = workspace.path().display();
    let repository = workspace.config_repository().display().to_string();
    screen.step(
        "A small platform",
        "Tagrelay stands between an image registry and the Git repository that Argo CD watches.",
    )?;
    screen.fact("folder", &format!("{folder}, removed at the end"))?;
    screen.fact("registry", &format!("{} ({})", registry.host(), registry.description()))?;
    screen.fact("config repository", &repository)?;
    screen.fact("", &format!("{} files in commit {:.7}", platform.files, platform.commit))?;
    screen.fact("Tagrelay", &format!("{}, configured in {}", api.base(), file_name(&workspace.settings())))?;
    screen.fact("its log", &file_name(&workspace.log()))?;
    screen.gap()?;
    screen.say("Staging takes new images by itself, production takes promotions only:")?;
    screen.gap()?;
    screen.table(&table)?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Pushes the new image and tells what happens until it is on staging. Returns the commit.
async fn push_an_image(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<String> {
    stage.screen.step(
        "CI pushes a new image of user-service",
        "Its tag is the commit that it was built from. The registry notifies Tagrelay, which asks the registry back \
         before it believes anything.",
    )?;
    let begun = Instant::now();
    let digest = build_and_push(&service.repository, &service.new).await?;
    let took = begun.elapsed().as_millis();
    stage.screen.say(&format!("{}:{}", service.repository, service.new))?;
    stage.screen.say(&format!("{digest}"))?;
    stage.screen.gap()?;
    stage.screen.say(&format!("Pushed in {took} ms. Since the registry had it:"))?;
    stage.screen.gap()?;
    let what = format!("the commit that moves {STAGING} to the pushed image");
    let (commit, event) = within(STEP_LIMIT, &what, follow_push(stage, service)).await?;
    check_digest(&event, &digest)?;
    Ok(commit)
}

/// Tells what the stream says of the pushed image, until it is committed.
async fn follow_push(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<(String, EventView)> {
    let mut event_id = None;
    let mut is_confirmed = false;
    loop {
        match stage.happenings.next().await?.subject {
            StreamSubject::Event { id, repository, tag, state, reason }
                if service.is(&repository) && tag == service.new.as_str() =>
            {
                match (state.as_str(), reason) {
                    ("queued", None) if event_id.is_none() => tell_received(stage, &id).await?,
                    ("queued", Some(reason)) => stage.screen.unmeasured("postponed", &reason)?,
                    ("refused", reason) => bail!("the event was refused: {}", reason.unwrap_or_default()),
                    ("pending", _) => {
                        is_confirmed = true;
                        tell_confirmed(stage, &id).await?;
                    }
                    _ => {}
                }
                event_id = Some(id);
            }
            StreamSubject::Update { cause_id, environment, state, commit, reason, .. }
                if Some(&cause_id) == event_id.as_ref() && environment == STAGING && state != UpdateState::Pending =>
            {
                let Some(commit) = commit.filter(|_| state == UpdateState::Committed) else {
                    bail!("{STAGING} does not take it ({state}): {}", reason.unwrap_or_default());
                };
                ensure!(is_confirmed, "it was committed before the registry had confirmed it");
                return tell_committed(stage, &cause_id, commit).await;
            }
            _ => {}
        }
    }
}

async fn tell_received(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<()> {
    let event = stage.api.event(id).await?;
    let text = format!("event {id} at /webhooks/{}", event.receiver);
    stage.screen.moment(since_push(&event, event.received_at)?, "received", &text)?;
    Ok(())
}

async fn tell_confirmed(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<()> {
    let event = stage.api.event(id).await?;
    let at = event.verified_at.context("the event is pending and was not confirmed")?;
    let digest = event.digest.as_deref().context("the registry gave no digest")?;
    let text = format!("the registry has it: {}", short_digest(digest));
    let rule = event.matched_rule.as_deref().context("no image rule was matched")?;
    stage.screen.unmeasured("allowed", &format!("by the [[image]] rule of {rule}"))?;
    stage.screen.moment(since_push(&event, at)?, "confirmed", &text)?;
    if let Some(note) = &event.note {
        stage.screen.say(note)?;
    }
    Ok(())
}

async fn tell_committed(stage: &mut Stage<'_>, id: &str, commit: String) -> anyhow::Result<(String, EventView)> {
    let event = stage.api.event(id).await?;
    let at = event.finished_at.context("the event is committed and has no end")?;
    let text = format!("{commit:.7} is on the branch, for {STAGING}");
    stage.screen.moment(since_push(&event, at)?, "committed", &text)?;
    Ok((commit, event))
}

/// Returns the milliseconds from the registry's own time of the push.
fn since_push(event: &EventView, at: Timestamp) -> anyhow::Result<i64> {
    let pushed = event.pushed_at.context("the registry does not say when the image was pushed")?;
    Ok(i64::try_from(at.duration_since(pushed).as_millis())?)
}

fn check_digest(event: &EventView, pushed: &Digest) -> anyhow::Result<()> {
    let confirmed = event.digest.as_deref().unwrap_or_default();
    ensure!(confirmed == pushed.as_str(), "{pushed} was pushed, and the registry confirmed {confirmed}");
    Ok(())
}

/// Shows the commit of the push.
async fn show_commit(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<Commit> {
    stage.screen.step(
        "The commit that Tagrelay pushed",
        "Only the tag has changed, in every manifest of staging that runs the image. Argo CD takes it from here.",
    )?;
    let commit = tell_commit(stage, id).await?;
    stage.screen.diff(&commit.diff)?;
    Ok(commit)
}

/// Shows the head of a commit, which has to be the tip of the branch.
async fn tell_commit(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<Commit> {
    let path = stage.workspace.config_repository();
    let log = commits::log(&path).await?;
    let tip = log.first().map(|line| line.id.as_str()).unwrap_or_default();
    ensure!(tip == id, "the branch is at {tip}, and Tagrelay says that it has pushed {id}");
    let commit = commits::read(&path, id).await?;
    ensure!(!commit.diff.is_empty(), "commit {id} changes nothing");
    stage.screen.commit(&commit)?;
    Ok(commit)
}

/// Shows what the promotion would do. Returns the diff.
async fn try_promotion(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<String> {
    stage.screen.step(
        "A dry run: what would a promotion to production change?",
        "POST /api/v1/promotions with \"dry_run\": true writes nothing.",
    )?;
    let order = json!({ "to": PRODUCTION, "from": STAGING, "repositories": [SERVICE], "dry_run": true });
    let preview = within(STEP_LIMIT, "the answer to the dry run", stage.api.preview(&order)).await?;
    for update in &preview.updates {
        let reason = update.reason.as_deref().unwrap_or_default();
        ensure!(update.state == PreviewState::Changed, "{} would be {}: {reason}", update.repository, update.state);
    }
    let diff = preview.diff.clone().unwrap_or_default();
    ensure!(diff.contains(service.new.as_str()), "the dry run does not show the new tag");
    let log = commits::log(&stage.workspace.config_repository()).await?;
    ensure!(log.first().is_some_and(|tip| tip.id == preview.parent), "the dry run is not based on the branch's tip");
    stage.screen.say(&format!("On top of {:.7}:", preview.parent))?;
    stage.screen.gap()?;
    stage.screen.diff(&diff)?;
    Ok(diff)
}

/// Promotes. The commit has to do what the dry run said.
async fn promote(stage: &mut Stage<'_>, service: &Service, preview: &str) -> anyhow::Result<()> {
    stage.screen.step(
        "The promotion",
        "The same request in earnest. \"expect\" would refuse it if production had moved in the meantime.",
    )?;
    let expect = json!({ SERVICE: service.old });
    let order = json!({ "to": PRODUCTION, "from": STAGING, "repositories": [SERVICE], "expect": expect,
        "reason": "the tour of the demo" });
    let begun = Instant::now();
    let request = within(STEP_LIMIT, "the answer to the promotion", stage.api.promote(&order)).await?;
    let id = finish(stage, begun, request).await?;
    let commit = tell_commit(stage, &id).await?;
    ensure!(edits(&commit.diff) == edits(preview), "commit {id} is not what the dry run has shown:\n{}", commit.diff);
    stage.screen.say("Its diff is the one of the dry run.")?;
    Ok(())
}

/// Returns the lines of a diff that say which bytes change: not the context, which may be narrow or wide.
fn edits(diff: &str) -> Vec<&str> {
    diff.lines().filter(|line| line.starts_with(['+', '-']) || line.starts_with("index ")).collect()
}

/// Rolls back. The commit has to bring back every byte that was there after `pushed`.
async fn roll_back(stage: &mut Stage<'_>, service: &Service, pushed: &Commit) -> anyhow::Result<()> {
    stage.screen.step(
        "Something is wrong in production: the rollback",
        "POST /api/v1/rollbacks brings the version before, and a hold: nothing automatic moves it until the hold is \
         released.",
    )?;
    let order = json!({ "environment": PRODUCTION, "repository": SERVICE, "reason": "sign-in fails" });
    let begun = Instant::now();
    let request = within(STEP_LIMIT, "the answer to the rollback", stage.api.roll_back(&order)).await?;
    let id = finish(stage, begun, request).await?;
    let commit = tell_commit(stage, &id).await?;
    ensure!(commit.tree == pushed.tree, "commit {id} does not bring back what was there after {}", pushed.id);
    stage.screen.say(&format!("Every file is byte for byte as it was in {:.7}.", pushed.id))?;
    stage.screen.gap()?;
    tell_hold(stage, service).await
}

async fn tell_hold(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<()> {
    let environments = stage.api.environments().await?;
    let production = environments.iter().find(|environment| environment.name == PRODUCTION);
    let running = production.and_then(|environment| running_in(environment, service.repository.as_str()));
    let hold = running.and_then(|running| running.holds.first());
    let hold = hold.context("the rollback has made no hold")?;
    let until = hold.expires_at.map_or_else(|| "it is released".to_owned(), |at| at.to_string());
    let reason = hold.reason.as_deref().unwrap_or_default();
    stage.screen.fact("hold", &format!("{SERVICE} in {PRODUCTION}, until {until}"))?;
    stage.screen.fact("", &format!("by {}: {reason}", hold.actor))?;
    Ok(())
}

/// Waits for the end of a promotion or rollback and returns its commit.
async fn finish(stage: &mut Stage<'_>, begun: Instant, request: RequestView) -> anyhow::Result<String> {
    let millis = |begun: Instant| i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    stage.screen.moment(millis(begun), "accepted", &format!("as {} {}", request.kind, request.id))?;
    let what = format!("the end of the {}", request.kind);
    let ended = within(STEP_LIMIT, &what, stage.api.wait(&request.id, STEP_LIMIT)).await?;
    let Some(commit) = ended.commit.filter(|_| ended.state == RequestState::Committed) else {
        bail!("the {} is {}: {}", ended.kind, ended.state, ended.reason.unwrap_or_default());
    };
    stage.screen.moment(millis(begun), "committed", &format!("{commit:.7} is on the branch"))?;
    stage.screen.gap()?;
    Ok(commit)
}

async fn sum_up(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<()> {
    let environments = stage.api.environments().await?;
    for (environment, tag) in [(STAGING, &service.new), (PRODUCTION, &service.old)] {
        let found = environments.iter().find(|found| found.name == environment);
        let running = found.and_then(|found| running_in(found, service.repository.as_str()));
        ensure!(running.is_some_and(|running| runs(running, tag)), "{environment} does not run {SERVICE}:{tag}");
    }
    let table = matrix(&stage.api).await?;
    let log = commits::log(&stage.workspace.config_repository()).await?;
    stage
        .screen
        .step("Where everything stands", "What each environment runs, and why; and what `git log --oneline` says.")?;
    stage.screen.table(&table)?;
    stage.screen.gap()?;
    for line in &log {
        stage.screen.log_line(&line.id, &line.subject)?;
    }
    Ok(())
}

/// Tells whether every site names this tag.
fn runs(running: &CellView, tag: &Tag) -> bool {
    let version = running.version.as_ref();
    version.is_some_and(|version| version.tag.as_deref() == Some(tag.as_str()))
}

/// Returns the whole reference of an image.
pub(super) fn reference(repository: &Repository, tag: &Tag) -> String {
    ImageReference { repository: repository.clone(), tag: Some(tag.clone()), digest: None }.to_string()
}
