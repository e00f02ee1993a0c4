//! One writer for each branch: it claims all pending candidates, decides at the branch's tip, commits and pushes.
//!
//! Between `pending` and the push lie five steps, in this order because each relies on the one before:
//!
//! 1. `settle`: pushes whose answer was lost are looked up on the branch. A landed update must not be written again.
//! 2. `claim`: all candidates of the branch are read together, so that decisions see every rival.
//! 3. `decide`: each candidate is written, waits or ends, by what the tip names. A fresh tip is read first for every "no".
//! 4. `prepare`: the manifests are edited and the commits made. Sites that cannot be edited refuse their update.
//! 5. `push`: the attempt is recorded with the fence of the claim, then sent with the expected old commit, then settled.
//!
//! A hold, freeze or request that is answered between 2 and 5 moves the fence, and the round begins again. The push is the fence
//! towards other writers of the branch: a lost race reads the new tip and decides again.

mod batch;
mod decide;
mod push;
mod quiet;
mod settle;

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Relay;
use super::branch::Branch;
use super::runtime::backoff;
use crate::config_repo::{CommitId, RemoteError};
use crate::store::{Claim, StoreError};
use push::Pushed;
use quiet::LastPush;
use settle::Unconfirmed;

/// The most updates in one push: bounds memory and the size of a commit.
pub(super) const MAX_UPDATES: u32 = 1000;

/// How many races in a row a round may lose before it pauses.
const MAX_RACES: u32 = 10;

/// How often a round begins again because candidates, blocks or the tip changed while it was prepared.
const MAX_TURNS: u32 = 2 * MAX_RACES;

/// The time between two looks for an unconfirmed push while nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long the branch may go unread while there is nothing to write: others write to it, too.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Why a round ended early.
pub(super) enum RoundError {
    Store(StoreError),
    Remote { reason: String, ask_again_after: Option<Duration> },
}

impl From<StoreError> for RoundError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RemoteError> for RoundError {
    fn from(error: RemoteError) -> Self {
        Self::Remote { ask_again_after: error.ask_again_after(), reason: format!("config repository: {error}") }
    }
}

impl RoundError {
    fn remote(reason: impl std::fmt::Display) -> Self {
        Self::Remote { reason: reason.to_string(), ask_again_after: None }
    }
}

/// How a round ended.
enum Round {
    /// There is nothing to write. `unconfirmed`: a push attempt is still open.
    Idle {
        unconfirmed: bool,
    },
    Written {
        push: LastPush,
    },
}

pub(super) async fn run(relay: Relay, index: usize, mut stopped: watch::Receiver<bool>) {
    let Some(branch) = relay.0.branches.get(index) else { return };
    let mut writer = Writer::new(&relay, branch);
    writer.try_rejected_again().await;
    // The host may have announced a foreign commit while the settings were reloaded.
    if branch.snapshot().is_some()
        && let Err(error) = branch.refresh().await
    {
        tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
    }
    while !*stopped.borrow() {
        let pause = match writer.round(&mut stopped).await {
            Ok(Round::Written { push }) => {
                writer.last_push = Some(push);
                writer.failures = 0;
                continue;
            }
            Ok(Round::Idle { unconfirmed }) => {
                writer.failures = 0;
                if unconfirmed { Pause::Look(LOOK_AGAIN) } else { Pause::Look(REFRESH_INTERVAL) }
            }
            Err(setback) => Pause::Backoff(writer.backoff(setback).await),
        };
        let reads_first = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => false,
            // New updates do not cut a backoff short: a remote that failed a moment ago is left alone.
            () = branch.wake.notified(), if pause.is_look() => false,
            () = branch.moved.notified(), if pause.is_look() => true,
            () = tokio::time::sleep(pause.duration()) => pause.is_look(),
        };
        if reads_first && let Err(error) = branch.refresh().await {
            tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
        }
    }
}

#[derive(Clone, Copy)]
enum Pause {
    Look(Duration),
    Backoff(Duration),
}

impl Pause {
    fn is_look(self) -> bool {
        matches!(self, Self::Look(_))
    }

    fn duration(self) -> Duration {
        match self {
            Self::Look(duration) | Self::Backoff(duration) => duration,
        }
    }
}

/// The writer of a branch with what it remembers; all of it can be lost.
struct Writer<'a> {
    relay: &'a Relay,
    branch: &'a Branch,
    environments: Vec<String>,
    failures: u32,
    last_push: Option<LastPush>,
    /// The tip that was last seen or pushed.
    tip: Option<CommitId>,
    /// Whether push attempts may be open: at the start and after a lost answer.
    may_be_open: bool,
}

impl<'a> Writer<'a> {
    fn new(relay: &'a Relay, branch: &'a Branch) -> Self {
        Self {
            relay,
            branch,
            environments: branch.environment_names(),
            failures: 0,
            last_push: None,
            tip: None,
            may_be_open: true,
        }
    }

    async fn round(&mut self, stopped: &mut watch::Receiver<bool>) -> Result<Round, RoundError> {
        if self.failures > 0 {
            // After a failure the mirror may be the trouble.
            self.branch.refresh().await?;
        }
        let mut gathers = true;
        let (mut races, mut lost_answers) = (0, 0);
        for _ in 0..MAX_TURNS {
            let unconfirmed = self.settle().await?;
            self.retry_after_foreign_commits().await;
            let claim = self.claim(std::mem::take(&mut gathers), stopped).await?;
            if claim.updates.is_empty() {
                if self.branch.snapshot().is_none() {
                    // Read at the start, so that the first event does not pay for it.
                    self.branch.refresh().await?;
                }
                return Ok(Round::Idle { unconfirmed: !unconfirmed.is_empty() });
            }
            let begun = Instant::now();
            let reason = match self.decide_and_push(claim, &unconfirmed).await? {
                Pushed::Landed => {
                    return Ok(Round::Written { push: LastPush { ended: Instant::now(), took: begun.elapsed() } });
                }
                Pushed::Nothing => return Ok(Round::Idle { unconfirmed: !unconfirmed.is_empty() }),
                Pushed::Changed => continue,
                Pushed::Outdated { reason } => {
                    races += 1;
                    tokio::time::sleep(Duration::from_millis(20).mul_f64(f64::from(races - 1) + backoff::jitter()))
                        .await;
                    (races >= MAX_RACES).then(|| {
                        format!("{MAX_RACES} pushes in a row lost the race against others; the last: {reason}")
                    })
                }
                Pushed::Unanswered { reason } => {
                    tracing::warn!(
                        reason,
                        repository = self.branch.repository_name(),
                        "the answer to a push was lost; reading the branch"
                    );
                    lost_answers += 1;
                    // One lost answer is an accident of a connection. Two are a server in trouble.
                    (lost_answers > 1).then(|| format!("the answers to two pushes in a row were lost: {reason}"))
                }
            };
            self.branch.refresh().await?;
            if let Some(reason) = reason {
                self.settle().await?;
                return Err(RoundError::remote(reason));
            }
        }
        // The candidates changed in every turn. The next round continues.
        Ok(Round::Written { push: LastPush { ended: Instant::now(), took: Duration::ZERO } })
    }

    async fn decide_and_push(&mut self, claim: Claim, unconfirmed: &Unconfirmed) -> Result<Pushed, RoundError> {
        if self.branch.snapshot().is_none() {
            self.branch.refresh().await?;
        }
        match self.decide(claim, unconfirmed).await? {
            decide::RoundDecision::Changed => Ok(Pushed::Changed),
            decide::RoundDecision::Nothing => Ok(Pushed::Nothing),
            decide::RoundDecision::Write(batch) => self.push_batch(*batch).await,
        }
    }

    /// Reads all pending candidates of the branch, after waiting for calm if `gathers`.
    async fn claim(&self, gathers: bool, stopped: &mut watch::Receiver<bool>) -> Result<Claim, StoreError> {
        if gathers {
            self.wait_for_calm(stopped).await?;
        }
        self.relay.0.store.claim(&self.environments, MAX_UPDATES).await
    }

    async fn postpone_pending(&self, reason: String) -> Result<(), StoreError> {
        let pending = self.relay.0.store.claim(&self.environments, MAX_UPDATES).await?.updates;
        let ids: Vec<String> = pending.into_iter().map(|update| update.id).collect();
        if ids.is_empty() { Ok(()) } else { self.relay.0.store.postpone_updates(ids, None, reason).await }
    }

    /// Retries rejected pushes if another writer moved the branch: its protection may have changed.
    async fn retry_after_foreign_commits(&mut self) {
        let tip = self.branch.tip();
        if tip != self.tip {
            let is_first = self.tip.is_none();
            self.tip = tip;
            if !is_first {
                self.try_rejected_again().await;
            }
        }
    }

    async fn try_rejected_again(&self) {
        if let Err(error) = self.relay.0.store.end_rejections(&self.environments).await {
            tracing::error!(%error, "rejected updates cannot be tried again now");
        }
    }

    /// Logs a setback, records it with the pending updates, and returns how long the writer pauses.
    async fn backoff(&mut self, setback: RoundError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        match setback {
            RoundError::Store(error) => {
                let pause = backoff::remote(self.failures, None);
                tracing::error!(%error, ?pause, "the writer cannot use the store");
                pause
            }
            RoundError::Remote { reason, ask_again_after } => {
                let pause = backoff::remote(self.failures, ask_again_after);
                let (repository, branch) = (self.branch.repository_name(), self.branch.branch_name());
                tracing::warn!(
                    reason,
                    ?pause,
                    repository,
                    branch,
                    "the config repository cannot be written to; updates stay pending"
                );
                if let Err(error) = self.postpone_pending(reason).await {
                    tracing::error!(%error, "the failure cannot be recorded with the pending updates");
                }
                pause
            }
        }
    }
}
