//! The rollout of an update in its applications: pure functions over the stored row.

use std::time::Duration;

use jiff::Timestamp;

use super::{elapsed, files};
use crate::argocd::{ApplicationName, Selection};
use crate::domain::Update;
use crate::store::{FollowedApplication, Rollout, RolloutState};

pub(super) fn name(app: &FollowedApplication) -> ApplicationName {
    ApplicationName { namespace: app.namespace.clone(), name: app.name.clone() }
}

/// Begins to follow an application. `by_image`: its images show the rollout, not its commit.
pub(super) fn followed(app: &ApplicationName, by_image: bool) -> FollowedApplication {
    FollowedApplication {
        by_image,
        namespace: app.namespace.clone(),
        name: app.name.clone(),
        state: RolloutState::Following,
        sync: None,
        health: None,
        revision: None,
        reason: None,
        refreshed_at: None,
        reached_at: None,
        synced_at: None,
        ended_at: None,
    }
}

/// Starts to follow an update in its applications. Without applications, the follow-up ends as untracked.
pub(super) fn begin(
    row: &mut Rollout,
    applications: Vec<FollowedApplication>,
    selection: &Selection,
    update: &Update,
    now: Timestamp,
) {
    row.applications = applications;
    if !row.applications.is_empty() {
        (row.state, row.reason) = (RolloutState::Following, None);
        return;
    }
    let what = match selection {
        Selection::Paths => {
            let files: Vec<&str> = files(update).into_iter().take(3).collect();
            format!("that is made of {}", files.join(", "))
        }
        Selection::Named(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            format!("called {}", names.join(" or "))
        }
        Selection::Labels(labels) => format!("with the labels {labels}"),
    };
    row.reason = Some(format!("Argo CD shows no application {what}"));
    (row.state, row.ended_at) = (RolloutState::Untracked, Some(now));
}

/// Returns the time until an application times out.
pub(super) fn until_late(
    followed: &FollowedApplication,
    committed_at: Timestamp,
    timeout: Duration,
    now: Timestamp,
) -> Duration {
    let since = followed.refreshed_at.unwrap_or(committed_at);
    // The deadline is inclusive.
    (timeout + Duration::from_millis(1)).saturating_sub(elapsed(since, now))
}

/// Ends an application whose rollout has not ended within `timeout` of its refresh, or of the commit without a refresh.
pub(super) fn time_out(followed: &mut FollowedApplication, committed_at: Timestamp, timeout: Duration, now: Timestamp) {
    if !followed.state.is_final() && until_late(followed, committed_at, timeout, now).is_zero() {
        (followed.state, followed.ended_at) = (RolloutState::TimedOut, Some(now));
        let last = followed.reason.take().unwrap_or_default();
        followed.reason = Some(format!("did not reach the commit within {} s: {last}", timeout.as_secs()));
    }
}

/// Derives the state of a follow-up from its applications: open if any is open, otherwise the worst state.
pub(super) fn sum_up(row: &mut Rollout, now: Timestamp) {
    let order = [RolloutState::Following, RolloutState::Degraded, RolloutState::TimedOut, RolloutState::Healthy];
    let state = order.into_iter().find(|state| row.applications.iter().any(|app| app.state == *state));
    let Some(state) = state else { return };
    let reasons = row.applications.iter().filter(|app| app.state == state);
    let reasons: Vec<String> =
        reasons.filter_map(|app| Some(format!("{}: {}", app.name, app.reason.as_ref()?))).collect();
    row.state = state;
    row.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    if state.is_final() {
        row.ended_at.get_or_insert(now);
    }
}

/// Ends a follow-up that the evidence does not end as healthy.
pub(super) fn end(row: &mut Rollout, state: RolloutState, reason: String, now: Timestamp) {
    (row.state, row.reason, row.ended_at) = (state, Some(reason), Some(now));
    for app in row.applications.iter_mut().filter(|app| !app.state.is_final()) {
        (app.state, app.ended_at) = (state, Some(now));
    }
}

/// Continues a follow-up whose applications have ended, because the evidence is missing in these applications.
pub(super) fn go_on(row: &mut Rollout, lacking: &[ApplicationName], reason: &str) {
    for lack in lacking {
        match row.applications.iter_mut().find(|app| name(app) == *lack) {
            Some(app) => {
                (app.state, app.ended_at, app.reason) = (RolloutState::Following, None, Some(reason.to_owned()))
            }
            None => row.applications.push(followed(lack, true)),
        }
    }
    (row.state, row.reason, row.ended_at) = (RolloutState::Following, Some(reason.to_owned()), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn app(state: RolloutState) -> FollowedApplication {
        FollowedApplication {
            by_image: false,
            namespace: Some("argocd".to_owned()),
            name: state.to_string(),
            state,
            sync: None,
            health: None,
            revision: None,
            reason: Some(format!("because {state}")),
            refreshed_at: Some(at(100)),
            reached_at: None,
            synced_at: None,
            ended_at: None,
        }
    }

    fn summed(states: &[RolloutState]) -> (RolloutState, Option<String>, Option<Timestamp>) {
        let mut row = Rollout {
            update_id: "u".to_owned(),
            environment: "staging".to_owned(),
            commit: "c".to_owned(),
            state: RolloutState::Following,
            reason: None,
            started_at: at(90),
            ended_at: None,
            applications: states.iter().copied().map(app).collect(),
        };
        sum_up(&mut row, at(200));
        (row.state, row.reason, row.ended_at)
    }

    #[test]
    fn timeout_counts_from_the_refresh() {
        let timeout = Duration::from_secs(900);
        let mut waiting = app(RolloutState::Following);
        assert_eq!(until_late(&waiting, at(0), timeout, at(1000)), Duration::from_millis(1));
        time_out(&mut waiting, at(0), timeout, at(1000));
        assert_eq!((waiting.state, waiting.ended_at), (RolloutState::Following, None));
        time_out(&mut waiting, at(0), timeout, at(1001));
        assert_eq!((waiting.state, waiting.ended_at), (RolloutState::TimedOut, Some(at(1001))));
        assert_eq!(waiting.reason.unwrap(), "did not reach the commit within 900 s: because following");
        let mut done = app(RolloutState::Healthy);
        time_out(&mut done, at(0), timeout, at(5000));
        assert_eq!(done.state, RolloutState::Healthy);
        let mut never_refreshed = FollowedApplication { refreshed_at: None, ..app(RolloutState::Following) };
        time_out(&mut never_refreshed, at(99), timeout, at(1000));
        assert_eq!(never_refreshed.state, RolloutState::TimedOut);
    }

    #[test]
    fn rollout_has_the_worst_state_of_its_applications() {
        use RolloutState::{Degraded, Following, Healthy, TimedOut};
        let (state, reason, ended) = summed(&[Healthy, Degraded, Following]);
        assert_eq!((state, ended), (Following, None));
        assert_eq!(reason.unwrap(), "following: because following");
        assert_eq!(summed(&[Healthy, TimedOut, Degraded]).0, Degraded);
        assert_eq!(
            summed(&[Healthy, TimedOut]),
            (TimedOut, Some("timed_out: because timed_out".to_owned()), Some(at(200)))
        );
        assert_eq!(summed(&[Healthy, Healthy]).0, Healthy);
    }
}
