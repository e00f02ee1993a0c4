//! What became of an attempt to write an update, as the branch shows it.

use std::collections::HashMap;

use crate::config_repo::{Below, CommitId, Snapshot};
use crate::image::Version;
use crate::relay::branch::{Branch, sites};
use crate::relay::coalesce::is_among;
use crate::relay::setback::Setback;
use crate::store::{Attempt, Cause, SiteChange, Update};

/// An attempt of which nobody knows whether it landed, or will: a server that was left in the middle of a push goes on
/// with it.
#[derive(Debug, Clone)]
pub(super) struct Doubt {
    pub(super) attempt: Attempt,
    /// Where the branch stood; `None` where an earlier process made it.
    pub(super) parent: Option<CommitId>,
}

/// What became of the attempts of an update.
#[derive(Debug)]
pub(super) enum Fate {
    /// This one is on the branch, whatever has been pushed on top of it.
    Landed(Attempt),
    /// None of them is on the branch, and none will be: it has moved on without them.
    Lost,
    /// They may still land, and the update may be written once more: the branch takes one of them.
    Open,
    /// What they were to write stands on the branch, whose history is longer than what was looked at.
    Stands(Attempt),
    /// Somebody has changed the version since, and whether this one is below that is not known: writing the update once
    /// more could put an older version over a newer one.
    Overwritten(Attempt),
}

/// Where commits of attempts are, as far as the branch's history was read.
pub(super) struct Whereabouts(HashMap<CommitId, Below>);

impl Whereabouts {
    /// Asks where these attempts are, as far as that is not clear from the tip alone.
    pub(super) async fn ask(branch: &Branch, doubts: impl Iterator<Item = &Doubt>) -> Result<Self, Setback> {
        let Some(snapshot) = branch.snapshot() else { return Ok(Self(HashMap::new())) };
        let (mut known, mut asked) = (HashMap::new(), Vec::new());
        for doubt in doubts {
            let Some(commit) = commit_of(&doubt.attempt) else { continue };
            if commit == snapshot.tip {
                known.insert(commit, Below::Yes);
            } else if doubt.parent == Some(snapshot.tip) {
                known.insert(commit, Below::No);
            } else {
                asked.push(commit);
            }
        }
        if !asked.is_empty() {
            asked.sort_unstable();
            asked.dedup();
            known.extend(branch.below_tip(&asked).await?);
        }
        Ok(Self(known))
    }

    fn of(&self, attempt: &Attempt) -> Below {
        commit_of(attempt).and_then(|commit| self.0.get(&commit).copied()).unwrap_or(Below::Unknown)
    }

    /// Decides what became of the attempts of an update.
    pub(super) fn fate(&self, update: &Update, doubts: &[Doubt], snapshot: &Snapshot) -> Fate {
        let attempts = || doubts.iter().map(|doubt| &doubt.attempt);
        if let Some(landed) = attempts().find(|attempt| self.of(attempt) == Below::Yes) {
            return Fate::Landed(landed.clone());
        }
        let overwritten = attempts().find(|attempt| was_overwritten(update, attempt, snapshot));
        // Where others have gone on from it, it is the first one that nobody has an answer to.
        let stands = attempts().find(|attempt| stands(update, attempt, snapshot));
        if attempts().all(|attempt| self.of(attempt) == Below::No) {
            let has_moved = |doubt: &Doubt| doubt.parent.is_some_and(|parent| parent != snapshot.tip);
            let is_over = overwritten.is_some() || stands.is_some() || doubts.iter().all(has_moved);
            return if is_over { Fate::Lost } else { Fate::Open };
        }
        match (overwritten, stands) {
            (Some(attempt), _) => Fate::Overwritten(attempt.clone()),
            (None, Some(attempt)) => Fate::Stands(attempt.clone()),
            (None, None) => Fate::Open,
        }
    }
}

fn commit_of(attempt: &Attempt) -> Option<CommitId> {
    attempt.commit.parse().ok()
}

/// Returns what was last recorded to be pushed for an update.
pub(super) fn last_attempt(update: &Update) -> Option<Attempt> {
    Some(Attempt {
        update_id: update.id.clone(),
        commit: update.commit.clone()?,
        old: update.old.clone()?,
        changes: update.changes.clone(),
    })
}

/// Returns the version that each site of an attempt holds now, beside what the attempt was to change there.
fn now_and_then<'a>(
    update: &'a Update,
    attempt: &'a Attempt,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = (&'a Version, &'a SiteChange)> {
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    let places = places.map(|places| places.as_slice()).unwrap_or_default();
    places.iter().flat_map(move |place| {
        let here = attempt.changes.iter().filter(move |change| change.path == place.path.as_ref());
        here.map(move |change| (&place.version, change))
    })
}

/// Returns the versions that the sites of an update's place hold and that nobody has compared the update with. What somebody
/// asked for was compared with what ran when it was asked for. A rollback is for the bad hour: it is written whatever runs.
pub(super) fn not_compared(update: &Update, snapshot: &Snapshot) -> Vec<Version> {
    let counts = update.cause != Cause::Rollback || update.released_at.is_some();
    let Some(compared) = update.compared.as_ref().filter(|_| counts) else { return Vec::new() };
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    let found = places.into_iter().flat_map(|places| places.iter()).map(|place| &place.version);
    found.filter(|version| !is_among(version, &update.version, compared)).cloned().collect()
}

/// Returns whether a site that an attempt was to change now holds neither what it held before nor what the attempt
/// wrote: then somebody went on from one of the two.
fn was_overwritten(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    now_and_then(update, attempt, snapshot).any(|(now, change)| change.old != *now && change.new != *now)
}

/// Returns whether what an attempt was to write stands on the branch.
fn stands(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    let mut sites = now_and_then(update, attempt, snapshot).peekable();
    sites.peek().is_some() && sites.all(|(now, change)| change.new == *now)
}

/// Returns whether what an update has written stands on a branch.
pub(in crate::relay) fn stands_on(update: &Update, snapshot: &Snapshot) -> bool {
    last_attempt(update).is_some_and(|attempt| stands(update, &attempt, snapshot))
}
