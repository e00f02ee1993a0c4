//! What became of an attempt to write an update, as the branch shows it.

use crate::config_repo::Snapshot;
use crate::image::Version;
use crate::relay::branch::sites;
use crate::relay::coalesce::is_among;
use crate::store::{Attempt, SiteChange, Update};

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

/// Returns whether a site of an update's place holds a version that nobody has compared the update with.
pub(super) fn was_not_compared(update: &Update, snapshot: &Snapshot) -> bool {
    let Some(compared) = &update.compared else { return false };
    let places = sites(snapshot, &update.environment).and_then(|found| found.sites.get(&update.repository));
    places.is_some_and(|places| places.iter().any(|place| !is_among(&place.version, &update.version, compared)))
}

/// Returns whether a site that an attempt was to change now holds neither what it held before nor what the attempt
/// wrote: then somebody went on from one of the two.
pub(super) fn was_overwritten(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    now_and_then(update, attempt, snapshot).any(|(now, change)| change.old != *now && change.new != *now)
}

/// Returns whether what an attempt was to write stands on the branch.
pub(super) fn stands(update: &Update, attempt: &Attempt, snapshot: &Snapshot) -> bool {
    let mut sites = now_and_then(update, attempt, snapshot).peekable();
    sites.peek().is_some() && sites.all(|(now, change)| change.new == *now)
}

/// Returns whether what an update has written stands on a branch.
pub(in crate::relay) fn stands_on(update: &Update, snapshot: &Snapshot) -> bool {
    last_attempt(update).is_some_and(|attempt| stands(update, &attempt, snapshot))
}
