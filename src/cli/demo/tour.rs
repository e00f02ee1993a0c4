//! The steps of the tour. Each uses a public interface, waits for the result, and checks it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

use super::screen::Commit;
use super::stage::{Stage, build_and_push, made_up_commit, matrix, running_in};
use super::{commits, trials, within};
use crate::api::{CellView, EventView, PreviewState, PromotionBody, RequestView, RollbackBody, StreamSubject};
use crate::cli::output::short_digest;
use crate::domain::{RequestState, UpdateState};
use tagrelay_image::{Digest, ImageReference, Repository, Tag};

/// How long a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);

const SERVICE: &str = "user-service";
const STAGING: &str = "staging";
const PRODUCTION: &str = "production";

/// Runs all steps.
pub(super) async fn run(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let service = Service::find(stage)?;
    present(stage).await?;
    let id = push_an_image(stage, &service).await?;
    let pushed = show_commit(stage, &id).await?;
    let preview = try_promotion(stage, &service).await?;
    promote(stage, &service, &preview).await?;
    roll_back(stage, &service, &pushed).await?;
    let latest = trials::run(stage, &service.repository).await?;
    sum_up(stage, &service, &latest).await
}

/// The service of the tour.
struct Service {
    repository: Repository,
    /// The tag in the manifests at the start.
    old: Tag,
    /// The pushed tag.
    new: Tag,
}

impl Service {
    fn find(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let is_it = |(repository, _): &&(Repository, Tag)| repository.name() == SERVICE;
        let found = stage.platform.images.iter().find(is_it);
        let (repository, old) = found.with_context(|| format!("no manifest of the example uses {SERVICE}"))?;
        Ok(Self { repository: repository.clone(), old: old.clone(), new: made_up_commit("the next commit")? })
    }

    fn is(&self, repository: &str) -> bool {
        self.repository.as_str() == repository
    }
}

async fn present(stage: &mut Stage<'_>) -> anyhow::Result<()> {
    let table = matrix(&stage.api).await?;
    stage
        .begin(
            "A small platform",
            "Tagrelay stands between an image registry and the Git repository that Argo CD watches.",
        )
        .await?;
    let Stage { screen, workspace, registry, platform, api, .. } = stage;
    let folder = workspace.path().display();
    let repository = workspace.config_repository().display().to_string();
    screen.fact("folder", &format!("{folder}, removed at the end"))?;
    screen.fact("registry", &format!("{} ({})", registry.host(), registry.description()))?;
    screen.fact("config repository", &repository)?;
    screen.fact("", &format!("{} files in commit {:.7}", platform.files, platform.commit))?;
    screen.fact("Tagrelay", &format!("{}, configured in {}", api.base(), file_name(&workspace.settings())))?;
    screen.fact("its log", &file_name(&workspace.log()))?;
    screen.gap()?;
    screen.say("Development gets branch builds, staging new images of the main branch, production only promotions:")?;
    screen.gap()?;
    screen.table(&table)?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Pushes the new image and follows it to staging. Returns the commit.
async fn push_an_image(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<String> {
    stage.begin(
        "CI pushes a new image of user-service",
        "Its tag is the commit that it was built from. The registry notifies Tagrelay, which verifies the image with \
         the registry.",
    ).await?;
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

/// Prints the messages about the pushed image until it is committed.
async fn follow_push(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<(String, EventView)> {
    let mut event_id = None;
    let mut is_confirmed = false;
    loop {
        match stage.stream.next().await?.subject {
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
                    bail!("{STAGING} did not get it ({state}): {}", reason.unwrap_or_default());
                };
                ensure!(is_confirmed, "it was committed before the registry confirmed it");
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
    let at = event.verified_at.context("the event is pending, but not confirmed")?;
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
    let at = event.finished_at.context("the event is committed, but has no end time")?;
    let text = format!("{commit:.7} is on the branch, for {STAGING}");
    stage.screen.moment(since_push(&event, at)?, "committed", &text)?;
    Ok((commit, event))
}

/// Returns the milliseconds since the push, by the registry's clock.
fn since_push(event: &EventView, at: Timestamp) -> anyhow::Result<i64> {
    let pushed = event.pushed_at.context("the registry sent no time of the push")?;
    Ok(i64::try_from(at.duration_since(pushed).as_millis())?)
}

fn check_digest(event: &EventView, pushed: &Digest) -> anyhow::Result<()> {
    let confirmed = event.digest.as_deref().unwrap_or_default();
    ensure!(confirmed == pushed.as_str(), "{pushed} was pushed, but the registry confirmed {confirmed}");
    Ok(())
}

/// Shows the commit of the push with its diff.
async fn show_commit(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<Commit> {
    stage.begin("The commit that Tagrelay pushed", "Only the tag has changed. Argo CD takes it from here.").await?;
    let commit = tell_commit(stage, id).await?;
    stage.screen.diff(&commit.diff)?;
    Ok(commit)
}

/// Shows a commit without its diff, and checks that it is the tip of the branch.
async fn tell_commit(stage: &mut Stage<'_>, id: &str) -> anyhow::Result<Commit> {
    let path = stage.workspace.config_repository();
    let log = commits::log(&path).await?;
    let tip = log.first().map(|line| line.id.as_str()).unwrap_or_default();
    ensure!(tip == id, "the branch is at {tip}, but Tagrelay reports the commit {id}");
    let commit = commits::read(&path, id).await?;
    ensure!(!commit.diff.is_empty(), "commit {id} changes nothing");
    stage.screen.commit(&commit)?;
    Ok(commit)
}

fn promotion() -> PromotionBody {
    PromotionBody {
        to: PRODUCTION.to_owned(),
        from: Some(STAGING.to_owned()),
        repositories: Some(vec![SERVICE.to_owned()]),
        ..PromotionBody::default()
    }
}

/// Shows a dry run of the promotion. Returns the diff.
async fn try_promotion(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<String> {
    stage
        .begin(
            "A dry run: what would a promotion to production change?",
            "`tagrelay promote production user-service --dry-run` writes nothing.",
        )
        .await?;
    let body = PromotionBody { dry_run: true, ..promotion() };
    let preview = within(STEP_LIMIT, "the answer to the dry run", stage.api.preview(&body)).await?;
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

/// Promotes. Checks that the commit has the diff of the dry run.
async fn promote(stage: &mut Stage<'_>, service: &Service, preview: &str) -> anyhow::Result<()> {
    stage.begin(
        "The promotion",
        "`tagrelay promote production user-service --expect user-service=TAG` is refused if production moved in the meantime.",
    ).await?;
    let expect = [(SERVICE.to_owned(), service.old.to_string())].into();
    let body = PromotionBody { expect, reason: Some("the tour of the demo".to_owned()), ..promotion() };
    let begun = Instant::now();
    let request = within(STEP_LIMIT, "the answer to the promotion", stage.api.promote(&body)).await?;
    let id = finish(stage, begun, request).await?;
    let commit = tell_commit(stage, &id).await?;
    ensure!(edits(&commit.diff) == edits(preview), "commit {id} differs from the dry run:\n{}", commit.diff);
    stage.screen.say("Its diff is that of the dry run.")?;
    Ok(())
}

/// Returns the changed lines of a diff, without the context, whose size differs.
fn edits(diff: &str) -> Vec<&str> {
    diff.lines().filter(|line| line.starts_with(['+', '-']) || line.starts_with("index ")).collect()
}

/// Rolls back. Checks that the tree is the one of `pushed`.
async fn roll_back(stage: &mut Stage<'_>, service: &Service, pushed: &Commit) -> anyhow::Result<()> {
    stage.begin(
        "Something is wrong in production: the rollback",
        "`tagrelay rollback production user-service` returns to the previous version and sets a hold: no automatic update \
         moves it until the hold is released.",
    ).await?;
    let body = RollbackBody {
        environment: PRODUCTION.to_owned(),
        repository: SERVICE.to_owned(),
        reason: Some("sign-in fails".to_owned()),
        ..RollbackBody::default()
    };
    let begun = Instant::now();
    let request = within(STEP_LIMIT, "the answer to the rollback", stage.api.roll_back(&body)).await?;
    let id = finish(stage, begun, request).await?;
    let commit = tell_commit(stage, &id).await?;
    ensure!(commit.tree == pushed.tree, "commit {id} does not restore the files of {}", pushed.id);
    stage.screen.say(&format!("Every file is byte for byte as it was in {:.7}.", pushed.id))?;
    stage.screen.gap()?;
    tell_hold(stage, service).await
}

async fn tell_hold(stage: &mut Stage<'_>, service: &Service) -> anyhow::Result<()> {
    let environments = stage.api.environments().await?;
    let production = environments.iter().find(|environment| environment.name == PRODUCTION);
    let running = production.and_then(|environment| running_in(environment, service.repository.as_str()));
    let hold = running.and_then(|running| running.holds.first());
    let hold = hold.context("the rollback made no hold")?;
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

async fn sum_up(stage: &mut Stage<'_>, service: &Service, latest: &Tag) -> anyhow::Result<()> {
    let environments = stage.api.environments().await?;
    for (environment, tag) in [(STAGING, latest), (PRODUCTION, &service.old)] {
        let found = environments.iter().find(|found| found.name == environment);
        let running = found.and_then(|found| running_in(found, service.repository.as_str()));
        ensure!(running.is_some_and(|running| runs(running, tag)), "{environment} does not run {SERVICE}:{tag}");
    }
    let table = matrix(&stage.api).await?;
    let log = commits::log(&stage.workspace.config_repository()).await?;
    stage
        .begin(
            "Where everything stands",
            "The version that each environment runs, with its cause, and `git log --oneline`.",
        )
        .await?;
    stage.screen.table(&table)?;
    stage.screen.gap()?;
    for line in &log {
        stage.screen.log_line(&line.id, &line.subject)?;
    }
    Ok(())
}

/// Returns whether every site names this tag.
fn runs(running: &CellView, tag: &Tag) -> bool {
    let version = running.version.as_ref();
    version.is_some_and(|version| version.tag.as_deref() == Some(tag.as_str()))
}

/// Returns an image reference.
pub(super) fn reference(repository: &Repository, tag: &Tag) -> String {
    ImageReference { repository: repository.clone(), tag: Some(tag.clone()), digest: None }.to_string()
}
