//! Catch-up: lists the tags of managed repositories periodically, and finds images that no webhook announced.
//!
//! - `rounds` schedules the looks, and `registry_states` keeps the state of each registry;
//! - `new_tags` selects the new tags of a list;
//! - the store remembers the seen tags, in the transaction that inserts the events of the new ones.
//!
//! Such an event takes the usual path: the intake confirms it, and the branch writer decides. One task runs for the whole
//! process, so two generations never ask a registry at the same time.

mod new_tags;
mod registry_states;
mod rounds;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

pub(super) use registry_states::RegistryStates;
pub use registry_states::RegistryStatus;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use registry_states::LookResult;
use rounds::{Names, Rounds, ScheduledLook};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Relay;
use super::branch::sites;
use crate::policy::{ImageRule, TagRule, Verification};
use crate::registry::{Confirmation, Listing, UnverifiedImage};
use crate::settings::CatchUpSettings;
use crate::store::{CaughtUp, FoundTag, SeenRepository, SeenTags, StoreError};
use crate::telemetry::{SpanKind, TraceContext};
use tagrelay_image::{Digest, Repository, Tag, Version};

/// How long seen tags are remembered. After that, a list is handled like a first list.
const MEMORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The age at which an unchanged record of seen tags is written again. Each write costs a flush of the disk.
const REWRITTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(relay: Relay, mut stopped: watch::Receiver<bool>) {
    let CatchUpSettings { every, at_once } = relay.0.catch_up;
    let Some(every) = every else {
        // Fails if the sender is gone, which also means the end.
        let _ = stopped.wait_for(|stop| *stop).await;
        return;
    };
    let registry_states = &relay.0.process.registry_states;
    registry_states.begin();
    let mut rounds = Rounds::new(every, at_once, Instant::now());
    let mut looks: JoinSet<(ScheduledLook, LookResult)> = JoinSet::new();
    loop {
        if rounds.wants_names(Instant::now()) {
            relay.name_repositories(&mut rounds).await;
        }
        let now = Instant::now();
        while let Some(look) = rounds.take(now, |registry| registry_states.quiet_until(registry)) {
            let relay = relay.clone();
            looks.spawn(async move {
                let looked = AssertUnwindSafe(relay.look(&look.repository)).catch_unwind().await;
                let looked = looked.unwrap_or_else(|panic| {
                    let panic = crate::telemetry::panic_text(&*panic).to_owned();
                    tracing::error!(repository = %look.repository, panic, "catch-up failed: please report this");
                    LookResult::NotNow { reason: format!("a defect in Tagrelay: {panic}"), ask_again_after: None }
                });
                (look, looked)
            });
        }
        let wake_at = rounds.wake_at(|registry| registry_states.quiet_until(registry));
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep_until(wake_at) => {}
            () = relay.0.process.catch_up.notified() => {
                registry_states.begin();
                rounds.again(Instant::now());
            }
            Some(ended) = looks.join_next() => match ended {
                Ok((look, looked)) => relay.looked(&mut rounds, look, &looked, every),
                // Panics are caught in the task, so this error means that the runtime is shutting down.
                Err(error) => {
                    tracing::error!(%error, "a task of catch-up failed");
                    rounds.done();
                }
            },
        }
    }
    // A cancelled look loses nothing: the store changes in one transaction, and the next look finds the same tags.
    looks.shutdown().await;
}

impl Relay {
    /// Returns the catch-up status of every registry; `None`: catch-up is off.
    pub fn registry_status(&self) -> Option<Vec<RegistryStatus>> {
        self.0.catch_up.every.map(|_| self.0.process.registry_states.statuses())
    }

    /// Looks at every repository now, or when the pause of its registry ends.
    pub fn catch_up_now(&self) {
        self.0.process.catch_up.notify_one();
    }

    async fn name_repositories(&self, rounds: &mut Rounds) {
        let names = self.repositories_to_look_at();
        self.0.process.registry_states.name(&names);
        let count = names.repositories.len();
        if rounds.name(names, Instant::now(), super::runtime::backoff::jitter) {
            tracing::debug!(repositories = count, "a round of catch-up begins");
            let before = self.now() - MEMORY;
            if let Err(error) = self.0.store.forget_seen(before).await {
                tracing::warn!(%error, "old catch-up records cannot be deleted");
            }
        }
    }

    fn looked(&self, rounds: &mut Rounds, look: ScheduledLook, looked: &LookResult, every: Duration) {
        self.0.process.registry_states.looked(&look.repository, looked, Instant::now(), every);
        match looked {
            LookResult::NotNow { .. } => rounds.failed(look, Instant::now()),
            LookResult::Listed
            | LookResult::Answered
            | LookResult::Unsupported { .. }
            | LookResult::NoList { .. }
            | LookResult::NotAllowed { .. }
            | LookResult::NotWanted => {
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
                    // A rule without verification asks the registry neither for images nor for tags.
                    self.0.rules.shared(repository).is_some_and(|rule| rule.verify == Verification::Exists)
                });
                names.repositories.extend(managed.cloned());
            }
        }
        names
    }

    /// Returns the versions of a repository that automatic environments run.
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

    /// Returns the rules that select tags of a repository, each with the versions that run under it: one for all automatic
    /// environments without their own tag rule, and one for each environment that has its own.
    fn users(&self, repository: &Repository) -> Vec<(ImageRule, Vec<Version>)> {
        let rules = &self.0.rules;
        let mut shared: Option<(ImageRule, Vec<Version>)> = None;
        let mut users = Vec::new();
        for branch in &self.0.branches {
            let Some(snapshot) = branch.snapshot() else { continue };
            for environment in branch.automatic() {
                let named = sites(&snapshot, &environment.name).and_then(|found| found.sites.get(repository));
                let (Some(places), Some(rule)) = (named, rules.at(&environment.name, repository)) else { continue };
                let running = super::matrix::versions(places);
                if rules.has_own(&environment.name) {
                    users.push((rule.clone(), running));
                } else {
                    shared.get_or_insert_with(|| (rule.clone(), Vec::new())).1.extend(running);
                }
            }
        }
        users.extend(shared);
        users
    }

    /// Looks at one repository and creates events for new tags.
    async fn look(&self, repository: &Repository) -> LookResult {
        let Some(rule) = self.0.rules.shared(repository) else { return LookResult::NotWanted };
        let registry = repository.registry();
        let by_list = !matches!(rule.tag, TagRule::Digest { .. });
        if self.0.process.registry_states.is_skipped(repository, by_list, Instant::now()) {
            return LookResult::NotWanted;
        }
        if let Some((reason, wait)) = self.0.registries.quiet(registry) {
            return LookResult::NotNow { reason, ask_again_after: Some(wait) };
        }
        let looked = match &rule.tag {
            TagRule::Digest { name } => self.look_at_digest(repository, name).await,
            _ => self.look_at_list(repository).await,
        };
        looked.unwrap_or_else(|error| {
            tracing::error!(%error, %repository, "catch-up cannot use the store");
            LookResult::NotNow { reason: error.to_string(), ask_again_after: None }
        })
    }

    async fn look_at_list(&self, repository: &Repository) -> Result<LookResult, StoreError> {
        let listing = self.0.registries.tags(repository).await;
        self.0.metrics.catch_up_look(repository.registry(), listing.outcome());
        let listed = match listing {
            Listing::Tags { tags, pages } => {
                tracing::debug!(%repository, tags = tags.len(), pages, "tags listed");
                tags
            }
            Listing::Unsupported { reason } => return Ok(LookResult::Unsupported { reason }),
            Listing::NoList { reason } => return Ok(LookResult::NoList { reason }),
            Listing::NotAllowed { reason } => return Ok(LookResult::NotAllowed { reason }),
            Listing::NotNow { reason, ask_again_after } => return Ok(LookResult::NotNow { reason, ask_again_after }),
        };
        let known = self.known(repository).await?;
        let (before, users) = (known.as_ref().map(|known| known.seen.clone()), self.users(repository));
        // Hashing 100,000 tags would block the async thread.
        let compared = tokio::task::spawn_blocking(move || new_tags::of_list(&users, &listed, before.as_ref()));
        let Ok(new_tags) = compared.await else {
            let reason = "a defect in Tagrelay: tags cannot be compared".to_owned();
            return Ok(LookResult::NotNow { reason, ask_again_after: None });
        };
        let found: Vec<FoundTag> = new_tags.found.into_iter().map(|tag| FoundTag { tag, digest: None }).collect();
        let is_same = known.as_ref().is_some_and(|known| known.seen == new_tags.seen);
        if !found.is_empty() || !is_same || known.as_ref().is_some_and(|known| is_stale(known, self.now())) {
            self.keep(repository, new_tags.seen, None, found).await?;
        }
        Ok(LookResult::Listed)
    }

    /// Compares the digest of a moving tag with the last seen digest.
    async fn look_at_digest(&self, repository: &Repository, tag: &Tag) -> Result<LookResult, StoreError> {
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
            Confirmation::NotAllowed { reason } => return Ok(LookResult::NotAllowed { reason }),
            Confirmation::NotNow { reason, ask_again_after } => {
                return Ok(LookResult::NotNow { reason, ask_again_after });
            }
        };
        let Some(digest) = digest else { return Ok(LookResult::Answered) };
        let known = self.known(repository).await?;
        if known.as_ref().is_some_and(|known| known.digest.as_ref() == Some(&digest) && !is_stale(known, self.now())) {
            return Ok(LookResult::Answered);
        }
        let running = self.running_automatically(repository);
        let runs_another = running.iter().any(|version| version.digest().is_some_and(|running| *running != digest));
        let has_moved = known.as_ref().is_some_and(|known| known.digest.as_ref() != Some(&digest));
        let found = (has_moved || (known.is_none() && runs_another))
            .then(|| FoundTag { tag: tag.clone(), digest: Some(digest.clone()) });
        self.keep(repository, [tag].into_iter().collect(), Some(digest), found.into_iter().collect()).await?;
        Ok(LookResult::Answered)
    }

    async fn known(&self, repository: &Repository) -> Result<Option<SeenRepository>, StoreError> {
        self.0.store.seen(repository, self.now() - MEMORY).await
    }

    /// Stores the seen tags and the events of the new ones in one transaction.
    async fn keep(
        &self,
        repository: &Repository,
        seen: SeenTags,
        digest: Option<Digest>,
        found: Vec<FoundTag>,
    ) -> Result<(), StoreError> {
        // A look that finds nothing gets no trace.
        let span = (!found.is_empty()).then(|| {
            let mut span = self.0.traces.begin(SpanKind::Internal, "catch up", None);
            span.set("tagrelay.repository", repository);
            span
        });
        let trace = span.as_ref().map_or_else(TraceContext::random, |span| span.context());
        let look = CaughtUp { repository: repository.clone(), seen, digest, found, trace };
        let events = self.0.store.catch_up(look).await?;
        for event in &events {
            tracing::info!(event = %event.id, receiver = "catch-up", %repository, tag = %event.tag, state = "queued", trace_id = %trace.trace_id(), "catch-up found a tag that no webhook announced");
        }
        self.0.metrics.catch_up_found(repository.registry(), events.len());
        Ok(())
    }
}

fn is_stale(known: &SeenRepository, now: Timestamp) -> bool {
    known.listed_at < now - REWRITTEN_AFTER
}
