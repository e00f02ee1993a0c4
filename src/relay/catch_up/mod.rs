//! Finds what no webhook told of: asks registries, now and then, which tags the managed repositories have.
//!
//! - `rounds` says when which repository is looked at, and `board` which registries are left alone;
//! - `news` says which tags of a list are news;
//! - the store remembers what has been seen, in the transaction that makes events of what is found.
//!
//! From there on such an event goes the way of any other: the intake confirms it and compares it with what runs. One task
//! looks for the whole process, so that no registry is asked by two generations at once.

mod board;
mod news;
mod rounds;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

pub(super) use board::Board;
pub use board::RegistryNews;

use board::Looked;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use rounds::{Names, Rounds, Turn};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Relay;
use super::branch::sites;
use crate::policy::{ImageRule, TagRule, Verification, rule_for};
use crate::registry::{Confirmation, Listing, UnverifiedImage};
use crate::settings::CatchUpSettings;
use crate::store::{CaughtUp, FoundTag, SeenRepository, SeenTags, StoreError};
use crate::telemetry::{SpanKind, TraceContext};
use tagrelay_image::{Digest, Repository, Tag, Version};

/// What was seen longer ago says nothing about what is new: after such a time the list is taken as if it were the first.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How old what is remembered may be when nothing has changed. Writing costs a flush of the disk.
const REWRITTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let CatchUpSettings { every, at_once } = relay.0.catch_up;
    let Some(every) = every else {
        // Fails when whoever could say it is gone, which says as much.
        let _ = stopped.wait_for(|stop| *stop).await;
        return;
    };
    let board = &relay.0.process.board;
    board.begin();
    let mut rounds = Rounds::new(every, at_once, Instant::now());
    let mut looks: JoinSet<(Turn, Looked)> = JoinSet::new();
    loop {
        if rounds.wants_names(Instant::now()) {
            relay.name_repositories(&mut rounds).await;
        }
        let now = Instant::now();
        while let Some(turn) = rounds.take(now, |registry| board.quiet_until(registry)) {
            let relay = relay.clone();
            looks.spawn(async move {
                let looked = AssertUnwindSafe(relay.look(&turn.repository)).catch_unwind().await;
                let looked = looked.unwrap_or_else(|panic| {
                    let panic = crate::telemetry::panic_text(&*panic).to_owned();
                    tracing::error!(repository = %turn.repository, panic, "catch-up failed: please report this");
                    Looked::NotNow { reason: format!("a defect in Tagrelay: {panic}"), ask_again_after: None }
                });
                (turn, looked)
            });
        }
        let wake_at = rounds.wake_at(|registry| board.quiet_until(registry));
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep_until(wake_at) => {}
            () = relay.0.process.catch_up.notified() => {
                board.begin();
                rounds.again(Instant::now());
            }
            Some(ended) = looks.join_next() => match ended {
                Ok((turn, looked)) => relay.looked(&mut rounds, turn, &looked, every),
                // Panics are caught where they happen, so that this says only that the runtime ends.
                Err(error) => {
                    tracing::error!(%error, "a task of catch-up failed");
                    rounds.done();
                }
            },
        }
    }
    // What is found by a look that is cut off is found by the next one: a list changes nothing until all is stored.
    looks.shutdown().await;
}

impl Relay {
    /// Returns how catching up goes with each registry; `None` where it is turned off.
    pub fn registry_news(&self) -> Option<Vec<RegistryNews>> {
        self.0.catch_up.every.map(|_| self.0.process.board.news())
    }

    /// Looks at every repository now, or as soon as its registry wants to be asked.
    pub fn catch_up_now(&self) {
        self.0.process.catch_up.notify_one();
    }

    async fn name_repositories(&self, rounds: &mut Rounds) {
        let names = self.repositories_to_look_at();
        self.0.process.board.name(&names);
        let count = names.repositories.len();
        if rounds.name(names, Instant::now(), super::runtime::backoff::jitter) {
            tracing::debug!(repositories = count, "a round of catch-up begins");
            let before = self.now() - MEMORY;
            if let Err(error) = self.0.store.forget_seen(before).await {
                tracing::warn!(%error, "catch-up cannot forget in the store");
            }
        }
    }

    fn looked(&self, rounds: &mut Rounds, turn: Turn, looked: &Looked, every: Duration) {
        self.0.process.board.looked(&turn.repository, looked, Instant::now(), every);
        match looked {
            Looked::NotNow { .. } => rounds.failed(turn, Instant::now()),
            Looked::Listed
            | Looked::Answered
            | Looked::Unsupported { .. }
            | Looked::NoList { .. }
            | Looked::NotAllowed { .. }
            | Looked::NotWanted => {
                rounds.done();
            }
        }
    }

    /// Returns the repositories that a rule manages and that an automatic environment names.
    fn repositories_to_look_at(&self) -> Names {
        let mut names = Names { repositories: BTreeSet::new(), is_unread: false };
        for branch in &self.0.branches {
            let Some(snapshot) = branch.snapshot() else {
                names.is_unread |= branch.automatic().next().is_some();
                continue;
            };
            for found in branch.automatic().filter_map(|environment| sites(&snapshot, &environment.name)) {
                let managed = found.sites.keys().filter(|repository| {
                    // Where nobody may ask the registry about an image, nobody asks it for its tags.
                    rule_for(&self.0.images, repository).is_some_and(|rule| rule.verify == Verification::Exists)
                });
                names.repositories.extend(managed.cloned());
            }
        }
        names
    }

    /// Returns what automatic environments run of a repository.
    fn running_automatically(&self, repository: &Repository) -> Vec<Version> {
        let mut running = Vec::new();
        for branch in &self.0.branches {
            let Some(snapshot) = branch.snapshot() else { continue };
            for found in branch.automatic().filter_map(|environment| sites(&snapshot, &environment.name)) {
                running
                    .extend(found.sites.get(repository).into_iter().flat_map(|places| super::matrix::versions(places)));
            }
        }
        running
    }

    /// Looks at one repository, and makes events of what is new.
    async fn look(&self, repository: &Repository) -> Looked {
        let Some(rule) = rule_for(&self.0.images, repository) else { return Looked::NotWanted };
        let registry = repository.registry();
        let by_list = !matches!(rule.tag, TagRule::Digest { .. });
        if self.0.process.board.is_skipped(repository, by_list, Instant::now()) {
            return Looked::NotWanted;
        }
        if let Some((reason, wait)) = self.0.registries.quiet(registry) {
            return Looked::NotNow { reason, ask_again_after: Some(wait) };
        }
        let looked = match &rule.tag {
            TagRule::Digest { name } => self.look_at_digest(repository, name).await,
            _ => self.look_at_list(repository, rule).await,
        };
        looked.unwrap_or_else(|error| {
            tracing::error!(%error, %repository, "catch-up cannot use the store");
            Looked::NotNow { reason: error.to_string(), ask_again_after: None }
        })
    }

    async fn look_at_list(&self, repository: &Repository, rule: &ImageRule) -> Result<Looked, StoreError> {
        let listing = self.0.registries.tags(repository).await;
        self.0.metrics.catch_up_look(repository.registry(), listing.outcome());
        let listed = match listing {
            Listing::Tags { tags, pages } => {
                tracing::debug!(%repository, tags = tags.len(), pages, "tags listed");
                tags
            }
            Listing::Unsupported { reason } => return Ok(Looked::Unsupported { reason }),
            Listing::NoList { reason } => return Ok(Looked::NoList { reason }),
            Listing::NotAllowed { reason } => return Ok(Looked::NotAllowed { reason }),
            Listing::NotNow { reason, ask_again_after } => return Ok(Looked::NotNow { reason, ask_again_after }),
        };
        let known = self.known(repository).await?;
        let (before, running) =
            (known.as_ref().map(|known| known.seen.clone()), self.running_automatically(repository));
        let owned_rule = rule.clone();
        // A hundred thousand hashes take a while.
        let compared =
            tokio::task::spawn_blocking(move || news::of_list(&owned_rule, &listed, before.as_ref(), &running));
        let Ok(news) = compared.await else {
            let reason = "a defect in Tagrelay: tags cannot be compared".to_owned();
            return Ok(Looked::NotNow { reason, ask_again_after: None });
        };
        let found: Vec<FoundTag> = news.found.into_iter().map(|tag| FoundTag { tag, digest: None }).collect();
        let is_same = known.as_ref().is_some_and(|known| known.seen == news.seen);
        if !found.is_empty() || !is_same || known.as_ref().is_some_and(|known| is_stale(known, self.now())) {
            self.keep(repository, news.seen, None, found).await?;
        }
        Ok(Looked::Listed)
    }

    /// A tag that moves is always there: what it points at is compared with what it pointed at the last time.
    async fn look_at_digest(&self, repository: &Repository, tag: &Tag) -> Result<Looked, StoreError> {
        let image = UnverifiedImage { repository: repository.clone(), tag: tag.clone() };
        let confirmation = self.0.registries.confirm(&image).await;
        let outcome = match &confirmation {
            Confirmation::There(_) | Confirmation::NotThere => "listed",
            Confirmation::NotAllowed { .. } => "not_allowed",
            Confirmation::NotNow { .. } => "not_now",
        };
        self.0.metrics.catch_up_look(repository.registry(), outcome);
        let digest = match confirmation {
            Confirmation::There(image) => image.digest().cloned(),
            Confirmation::NotThere => None,
            Confirmation::NotAllowed { reason } => return Ok(Looked::NotAllowed { reason }),
            Confirmation::NotNow { reason, ask_again_after } => return Ok(Looked::NotNow { reason, ask_again_after }),
        };
        let Some(digest) = digest else { return Ok(Looked::Answered) };
        let known = self.known(repository).await?;
        if known.as_ref().is_some_and(|known| known.digest.as_ref() == Some(&digest) && !is_stale(known, self.now())) {
            return Ok(Looked::Answered);
        }
        let running = self.running_automatically(repository);
        let runs_another = running.iter().any(|version| version.digest().is_some_and(|running| *running != digest));
        let has_moved = known.as_ref().is_some_and(|known| known.digest.as_ref() != Some(&digest));
        let found = (has_moved || (known.is_none() && runs_another))
            .then(|| FoundTag { tag: tag.clone(), digest: Some(digest.clone()) });
        self.keep(repository, [tag].into_iter().collect(), Some(digest), found.into_iter().collect()).await?;
        Ok(Looked::Answered)
    }

    async fn known(&self, repository: &Repository) -> Result<Option<SeenRepository>, StoreError> {
        self.0.store.seen(repository, self.now() - MEMORY).await
    }

    /// Stores what was seen and makes events of what was found, all of it or nothing.
    async fn keep(
        &self,
        repository: &Repository,
        seen: SeenTags,
        digest: Option<Digest>,
        found: Vec<FoundTag>,
    ) -> Result<(), StoreError> {
        // A trace for each look would be a trace of nothing.
        let span = (!found.is_empty()).then(|| {
            let mut span = self.0.traces.begin(SpanKind::Internal, "catch up", None);
            span.set("tagrelay.repository", repository);
            span
        });
        let trace = span.as_ref().map_or_else(TraceContext::random, |span| span.context());
        let look = CaughtUp { repository: repository.clone(), seen, digest, found, trace };
        let events = self.0.store.catch_up(look).await?;
        for event in &events {
            tracing::info!(event = %event.id, receiver = "catch-up", %repository, tag = %event.tag, state = "queued", trace_id = %trace.trace_id(), "event found that no webhook told of");
        }
        self.0.metrics.catch_up_found(repository.registry(), events.len());
        Ok(())
    }
}

fn is_stale(known: &SeenRepository, now: Timestamp) -> bool {
    known.listed_at < now - REWRITTEN_AFTER
}
