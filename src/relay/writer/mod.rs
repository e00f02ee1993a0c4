//! One writer for each branch: it takes everything that is pending, makes commits of it and pushes them.
//!
//! The first update goes at once; what arrives while a push is under way leaves with the next one. The push is
//! the fence: a race lost to anybody is answered by reading the new tip and applying the same updates to it.
//!
//! Before a push, the store learns which commit is about to carry which update. So when the answer is lost, or
//! the process dies, the next round can tell "it landed" from "it did not" by looking at the branch and, where others
//! have pushed meanwhile, at the commits below its tip.

mod attempts;
mod batch;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(super) use attempts::stands_on;
use attempts::{Doubt, Fate, Whereabouts, last_attempt};
use batch::Batch;

use super::Relay;
use super::branch::Branch;
use super::coalesce::coalesce;
use super::quiet::{self, Bells, LastPush};
use super::setback::Setback;
use crate::config_repo::CommitId;
use crate::store::{Outcome, Update};
use crate::telemetry::{Span, SpanKind};

/// The most updates in one push: bounds memory and the size of a commit.
pub(super) const MAX_BATCH: u32 = 1000;

/// The least time between two looks for what waits in doubt, each of which reads the branch and some of its history.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long the branch may go unread while there is nothing to write. Others write to it too, and what runs is shown.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

pub(super) async fn run(relay: Relay, index: usize, mut stopped: watch::Receiver<bool>) {
    let Some(branch) = relay.0.branches.get(index) else { return };
    let environments = branch.environment_names();
    let mut failures: u32 = 0;
    // Where the branch was when what waits in doubt was last looked for.
    let mut looked = None;
    let mut last_push = None;
    while !*stopped.borrow() {
        look_for_waiting(&relay, branch, &environments, &mut looked).await;
        // After a setback the branch is read anew: the mirror may have been the trouble.
        let before = Before { failed: failures > 0, push: last_push };
        let pause = match write_pending(&relay, branch, &environments, before, &mut stopped).await {
            Ok(Round::Idle) => {
                failures = 0;
                None
            }
            Ok(Round::Written { push }) => {
                failures = 0;
                last_push = Some(push);
                continue;
            }
            Err(setback) => {
                failures = failures.saturating_add(1);
                let pause = setback.pause(failures);
                match setback {
                    Setback::Store(error) => tracing::error!(%error, ?pause, "the writer cannot use the store"),
                    Setback::Remote { reason, .. } => {
                        tracing::warn!(
                            reason,
                            ?pause,
                            repository = branch.repository_name(),
                            branch = branch.branch_name(),
                            "the config repository cannot be written to; updates stay pending"
                        );
                    }
                }
                Some(pause)
            }
        };
        let is_unread = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => false,
            // New updates do not cut a pause short: the remote that failed a moment ago is left alone.
            () = branch.wake.notified(), if pause.is_none() => false,
            () = branch.moved.notified(), if pause.is_none() => true,
            () = tokio::time::sleep(pause.unwrap_or(REFRESH_INTERVAL)) => pause.is_none(),
        };
        if is_unread && let Err(error) = branch.refresh().await {
            tracing::warn!(%error, repository = branch.repository_name(), "the config repository cannot be read");
        }
    }
}

/// Ends what waits for a hold or freeze and is found on the branch: the answer to its push was lost before it had to wait. It is
/// looked for each time that the branch has moved, and not again at once: our own pushes move it, too.
async fn look_for_waiting(
    relay: &Relay,
    branch: &Branch,
    environments: &[String],
    looked: &mut Option<(CommitId, Instant)>,
) {
    let Some(tip) = branch.tip() else { return };
    if looked.is_some_and(|(at, when)| at == tip || when.elapsed() < LOOK_AGAIN) {
        return;
    }
    let looking = async {
        let waiting = relay.0.store.waiting_in_doubt(environments).await?;
        let is_any = !waiting.is_empty();
        finish_found(relay, branch, waiting).await.map(|_| is_any)
    };
    match looking.await {
        Ok(true) => *looked = Some((tip, Instant::now())),
        Ok(false) => *looked = None,
        // Nothing waits for it: it is looked for again with the next round.
        Err(Setback::Store(error)) => tracing::error!(%error, "the writer cannot use the store"),
        Err(Setback::Remote { reason, .. }) => {
            tracing::debug!(reason, repository = branch.repository_name(), "the branch cannot be read");
        }
    }
}

enum Round {
    Idle,
    Written { push: LastPush },
}

/// What the rounds before have left.
struct Before {
    /// The last one failed: the branch is read first.
    failed: bool,
    push: Option<LastPush>,
}

async fn write_pending(
    relay: &Relay,
    branch: &Branch,
    environments: &[String],
    before: Before,
    stopped: &mut watch::Receiver<bool>,
) -> Result<Round, Setback> {
    let pending = relay.0.store.pending_updates(environments, MAX_BATCH).await?;
    if pending.is_empty() {
        if branch.snapshot().is_none() {
            // Read the branch at the start, so that the first event does not pay for it.
            branch.refresh().await?;
        }
        return Ok(Round::Idle);
    }
    let pending = if relay.0.store.waits_in_vain(environments).await? {
        // A freeze is over that nobody has noticed yet: what waited for it belongs into the same commit.
        relay.review_freezes().await?;
        relay.0.store.pending_updates(environments, MAX_BATCH).await?
    } else {
        pending
    };
    let bells = Bells { in_hand: relay.0.in_hand.subscribe(), wake: &branch.wake };
    let pending = quiet::gather(&relay.0.store, bells, environments, pending, before.push, stopped).await?;
    let pending = quiet::wait(relay, branch, environments, pending, stopped).await?;
    let pending = finish_found(relay, branch, pending).await?;
    let (newest, superseded) = coalesce(pending);
    for (update, outcome) in &superseded {
        describe_end(&mut begin(relay, update), update, outcome);
    }
    relay.finish(superseded).await?;
    let ids: Vec<String> = newest.iter().map(|update| update.id.clone()).collect();
    let begun = Instant::now();
    match Batch::new(relay, branch, newest).write(before.failed).await {
        Err(Setback::Remote { reason, ask_again_after }) => {
            relay.0.store.postpone_updates(ids, None, reason.clone()).await?;
            Err(Setback::Remote { reason, ask_again_after })
        }
        Err(error) => Err(error),
        Ok(()) => Ok(Round::Written { push: LastPush { ended: Instant::now(), took: begun.elapsed() } }),
    }
}

/// Ends those updates whose attempt of another time is found on the branch, before something newer takes their place:
/// they are history. Returns the others.
async fn finish_found(relay: &Relay, branch: &Branch, pending: Vec<Update>) -> Result<Vec<Update>, Setback> {
    if pending.iter().all(|update| update.commit.is_none()) {
        return Ok(pending);
    }
    branch.refresh().await?;
    let Some(snapshot) = branch.snapshot() else { return Ok(pending) };
    let doubt = |update: &Update| last_attempt(update).map(|attempt| Doubt { attempt, parent: None });
    let doubts: Vec<Doubt> = pending.iter().filter_map(doubt).collect();
    let whereabouts = Whereabouts::ask(branch, doubts.iter()).await?;
    let (mut found, mut rest, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for mut update in pending {
        let own: Vec<Doubt> = doubt(&update).into_iter().collect();
        match (own.is_empty(), whereabouts.fate(&update, &own, &snapshot)) {
            (false, Fate::Landed(_) | Fate::Stands(_)) => found.push((update, Outcome::Committed)),
            (false, Fate::Lost) => {
                lost.push(update.id.clone());
                update.commit = None;
                rest.push(update);
            }
            (true, _) | (false, Fate::Open | Fate::Overwritten(_)) => rest.push(update),
        }
    }
    relay.0.store.forget_attempts(lost).await?;
    for (update, outcome) in &found {
        describe_end(&mut begin(relay, update), update, outcome);
    }
    relay.finish(found).await?;
    Ok(rest)
}

/// Begins what a round is in the trace of an update.
fn begin(relay: &Relay, update: &Update) -> Span {
    let mut span = relay.0.traces.begin(SpanKind::Consumer, "write update", Some(&update.trace));
    super::describe(&mut span, update);
    span
}

fn describe_end(span: &mut Span, update: &Update, outcome: &Outcome) {
    let (word, reason) = match outcome {
        Outcome::Committed => ("committed", None),
        Outcome::Unchanged => ("unchanged", None),
        Outcome::Superseded { reason } => ("superseded", Some(reason)),
        Outcome::Refused { reason } => ("refused", Some(reason)),
    };
    span.set("tagrelay.outcome", word);
    if let Some(reason) = reason {
        span.set("tagrelay.reason", reason);
    }
    if let (Outcome::Committed, Some(commit)) = (outcome, &update.commit) {
        span.set("tagrelay.commit", commit);
    }
}

/// Returns a number in 0..1 that differs from call to call and from process to process.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // The keys of `RandomState` are random in each process and differ from one to the next.
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
