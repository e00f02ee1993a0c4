//! Of several updates for one place one is written: which, and why not the others.

use std::collections::HashMap;

use super::matrix::is_same;
use crate::image::{Repository, Version};
use crate::store::{Outcome, Update};

/// Splits updates, which are in the order in which they were taken, into the newest of each place and the others.
///
/// A build that was taken while a promotion still waited for the registry has not been compared with it. It is left
/// out: once the promotion is on the branch, the build is compared with that. What is older and has been attempted is left
/// out, too: that attempt may still land, and once the newer one is on the branch, it is known whether it did.
pub(super) fn coalesce(pending: Vec<Update>) -> (Vec<Update>, Vec<(Update, Outcome)>) {
    let mut newest: HashMap<(String, Repository), Update> = HashMap::new();
    let mut superseded = Vec::new();
    for update in pending {
        let place = (update.environment.clone(), update.repository.clone());
        let unaware = |there: &Update| {
            let compared = update.compared.as_deref().filter(|_| update.cause.is_event());
            compared.is_some_and(|compared| !is_among(&there.version, &update.version, compared))
        };
        if newest.get(&place).is_some_and(|there| !there.cause.is_event() && unaware(there)) {
            continue;
        }
        let by = update.cause_id.clone();
        if let Some(older) = newest.insert(place, update).filter(|older| older.commit.is_none()) {
            let reason = format!("{by} is newer, and came before this was written");
            superseded.push((older, Outcome::Superseded { reason }));
        }
    }
    let mut newest: Vec<Update> = newest.into_values().collect();
    newest.sort_by(|a, b| a.id.cmp(&b.id));
    (newest, superseded)
}

/// Returns whether a version is an update's own or among those that the update was compared with.
pub(super) fn is_among(version: &Version, own: &Version, compared: &[Version]) -> bool {
    is_same(version, own) || compared.iter().any(|compared| is_same(version, compared))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::store::Cause;
    use crate::store::UpdateState;
    use crate::telemetry::TraceContext;

    fn version(tag: &str) -> Version {
        Version::tagged(tag.parse().unwrap(), None)
    }

    fn update(id: &str, cause: Cause, tag: &str, compared: Option<&[&str]>) -> Update {
        Update {
            id: id.to_owned(),
            environment: "staging".to_owned(),
            repository: "uyou/user-service".parse().unwrap(),
            version: version(tag),
            cause,
            cause_id: format!("cause of {id}"),
            actor: "hub".to_owned(),
            state: UpdateState::Pending,
            reason: None,
            attempts: 0,
            next_attempt_at: None,
            pushed_at: None,
            received_at: Timestamp::UNIX_EPOCH,
            released_at: None,
            commit: None,
            old: None,
            changes: Vec::new(),
            finished_at: None,
            trace: TraceContext::random(),
            override_reason: None,
            decided_by: None,
            decided_because: None,
            compared: compared.map(|tags| tags.iter().map(|tag| version(tag)).collect()),
        }
    }

    fn written_and_superseded(pending: Vec<Update>) -> (Vec<String>, Vec<String>) {
        let (newest, superseded) = coalesce(pending);
        let ended = superseded.into_iter().map(|(update, _)| update.id);
        (newest.into_iter().map(|update| update.id).collect(), ended.collect())
    }

    #[test]
    fn the_last_of_each_place_is_written() {
        let elsewhere = Update { environment: "production".to_owned(), ..update("2", Cause::Promotion, "b", None) };
        let pending = vec![
            update("1", Cause::Push, "b", Some(&["a"])),
            elsewhere,
            update("3", Cause::Push, "c", Some(&["a", "b"])),
        ];
        assert_eq!(written_and_superseded(pending), (vec!["2".to_owned(), "3".to_owned()], vec!["1".to_owned()]));
    }

    #[test]
    fn what_may_still_land_is_not_ended() {
        let attempted = Update { commit: Some("c0ffee".to_owned()), ..update("1", Cause::Push, "b", Some(&["a"])) };
        let newer = update("2", Cause::Push, "c", Some(&["a", "b"]));
        assert_eq!(written_and_superseded(vec![attempted, newer]), (vec!["2".to_owned()], vec![]));
    }

    #[test]
    fn what_was_not_compared_with_a_promotion_is_left_for_later() {
        let promotion = || update("1", Cause::Promotion, "p", None);
        let unaware = || update("2", Cause::Push, "b", Some(&["a"]));
        assert_eq!(written_and_superseded(vec![promotion(), unaware()]), (vec!["1".to_owned()], vec![]));
        let aware = update("3", Cause::Push, "c", Some(&["a", "p", "b"]));
        let written = written_and_superseded(vec![promotion(), unaware(), aware]);
        assert_eq!(written, (vec!["3".to_owned()], vec!["1".to_owned()]));
        // The same version is no rival, and a promotion that comes later is what somebody wants now.
        let same = update("2", Cause::Push, "p", Some(&["a"]));
        assert_eq!(written_and_superseded(vec![promotion(), same]), (vec!["2".to_owned()], vec!["1".to_owned()]));
        let later = update("3", Cause::Promotion, "q", Some(&["a"]));
        assert_eq!(written_and_superseded(vec![unaware(), later]), (vec!["3".to_owned()], vec!["2".to_owned()]));
    }
}
