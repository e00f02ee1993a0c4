//! Since when an application runs a version healthy.

use std::time::Duration;

use jiff::Timestamp;

use tagrelay_image::{Repository, Version};

/// The longest gap between two observations in which an application counts as continuously healthy, if Argo CD does not report the
/// time of the last change. Covers two rounds of polling, with a margin.
const UNWATCHED: Duration = Duration::from_secs(180);

/// A version of a repository in the pods of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRun {
    pub environment: String,
    /// `namespace/name`.
    pub application: String,
    pub repository: Repository,
    /// As the pods have it.
    pub version: Version,
    /// When we first saw it among the application's images.
    pub first_seen_at: Timestamp,
    /// Since when the application has been healthy with it; `None`: it is not.
    pub healthy_since: Option<Timestamp>,
    pub observed_at: Timestamp,
}

/// The state of an application at one observation.
#[derive(Debug, Clone, Copy)]
pub struct RunObservation {
    /// Healthy, and the last sync did not fail. Being out of sync does not change what runs.
    pub is_healthy: bool,
    /// Whether a sync is running: its hooks may still fail.
    pub is_syncing: bool,
    /// Argo CD's time of the last change of the health; `None`: an older version of Argo CD.
    pub health_since: Option<Timestamp>,
    /// When the last sync ended.
    pub last_sync: Option<Timestamp>,
    pub now: Timestamp,
}

impl RunObservation {
    /// Returns the times of a version that the application runs: when it was first seen, and since when the application has been
    /// healthy with it. `before`: the last observation of this version.
    ///
    /// The healthy time begins at the latest of the first sight, the end of the sync that brought the version, and the last change
    /// of the health: a quick rollout may never leave Healthy. Later syncs do not matter, a change of the health does.
    pub fn times(&self, before: Option<&VersionRun>) -> (Timestamp, Option<Timestamp>) {
        let now = self.now;
        let first_seen = before.map_or(now, |before| before.first_seen_at);
        if !self.is_healthy {
            return (first_seen, None);
        }
        // The clock of Argo CD may be ahead.
        let changed = self.health_since.map(|at| at.min(now));
        if let Some((before, since)) = before.and_then(|before| Some((before, before.healthy_since?))) {
            let gap = Duration::try_from(now.duration_since(before.observed_at)).unwrap_or_default();
            let since = match changed {
                // A dip and a recovery between two observations.
                Some(changed) => since.max(changed),
                None if gap <= UNWATCHED => since,
                None => now,
            };
            return (first_seen, Some(since));
        }
        if self.is_syncing {
            return (first_seen, None);
        }
        let synced = self.last_sync.map(|at| at.min(now));
        // The last observation was unhealthy, so that is when it can have recovered at the earliest.
        let unhealthy_at = before.map(|before| before.observed_at);
        let recovered = if before.is_some() && changed.is_none() { Some(now) } else { changed };
        let latest = [Some(first_seen), synced, recovered, unhealthy_at].into_iter().flatten().max();
        (first_seen, latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tagrelay_image::ImageReference;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(first_seen: i64, healthy_since: Option<i64>, observed: i64) -> VersionRun {
        VersionRun {
            environment: "staging".to_owned(),
            application: "argocd/web".to_owned(),
            repository: "docker.io/uyou/web".parse().unwrap(),
            version: "a:1".parse::<ImageReference>().unwrap().version().unwrap(),
            first_seen_at: at(first_seen),
            healthy_since: healthy_since.map(at),
            observed_at: at(observed),
        }
    }

    fn healthy(health_since: Option<i64>, last_sync: Option<i64>, now: i64) -> RunObservation {
        let (health_since, last_sync) = (health_since.map(at), last_sync.map(at));
        RunObservation { is_healthy: true, is_syncing: false, health_since, last_sync, now: at(now) }
    }

    fn since(observation: RunObservation, before: Option<&VersionRun>) -> Option<i64> {
        observation.times(before).1.map(Timestamp::as_second)
    }

    #[test]
    fn new_version_soaks_from_its_first_sight() {
        // A quick rollout never left Healthy.
        assert_eq!(healthy(Some(10), Some(90), 100).times(None), (at(100), Some(at(100))));
        assert_eq!(since(healthy(None, None, 100), None), Some(100));
    }

    #[test]
    fn sync_that_brought_the_version_and_the_last_recovery_count() {
        let seen = run(50, None, 60);
        assert_eq!(since(healthy(Some(70), Some(80), 100), Some(&seen)), Some(80));
        assert_eq!(since(healthy(Some(90), Some(80), 100), Some(&seen)), Some(90));
        // The health was never bad, a sync had failed.
        assert_eq!(since(healthy(Some(10), Some(20), 100), Some(&seen)), Some(60));
        assert_eq!(since(healthy(None, None, 100), Some(&seen)), Some(100), "an older Argo CD reports no time");
    }

    #[test]
    fn running_sync_delays_the_beginning_and_no_later_sync_resets_it() {
        let syncing = RunObservation { is_syncing: true, ..healthy(Some(10), Some(20), 100) };
        assert_eq!(syncing.times(None), (at(100), None));
        assert_eq!(since(syncing, Some(&run(50, Some(55), 90))), Some(55));
        assert_eq!(since(healthy(Some(10), Some(99), 100), Some(&run(50, Some(55), 90))), Some(55));
    }

    #[test]
    fn dip_resets_it_also_between_two_observations() {
        let before = run(50, Some(55), 90);
        let ill = RunObservation { is_healthy: false, ..healthy(None, None, 100) };
        assert_eq!(ill.times(Some(&before)), (at(50), None));
        assert_eq!(since(healthy(Some(95), None, 100), Some(&before)), Some(95));
    }

    #[test]
    fn gap_between_observations_is_covered_by_argo_cds_time_only() {
        let before = run(50, Some(55), 90);
        assert_eq!(since(healthy(None, None, 270), Some(&before)), Some(55));
        assert_eq!(since(healthy(None, None, 271), Some(&before)), Some(271));
        assert_eq!(since(healthy(Some(10), None, 90_000), Some(&before)), Some(55));
    }

    #[test]
    fn time_in_the_future_counts_as_now() {
        assert_eq!(since(healthy(Some(900), Some(901), 100), Some(&run(50, None, 60))), Some(100));
        assert_eq!(since(healthy(Some(900), None, 100), Some(&run(50, Some(55), 90))), Some(100));
    }
}
