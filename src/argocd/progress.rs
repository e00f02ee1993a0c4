//! Whether an application has come to an end with a commit.

use super::{Application, Health, SyncStatus, WatchedBranch};

/// How far the rollout of a commit has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The application is still at an earlier commit. The text says which.
    NotReached(String),
    /// It is at the commit, and the cluster does not match yet. The text says why.
    Underway(String),
    /// It runs the commit or a later one.
    Ended(RolloutEnd),
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutEnd {
    /// Synced, and all resources are healthy.
    Healthy,
    /// Synced, and a resource or a hook of the sync failed.
    Degraded(String),
}

impl Application {
    /// Returns how far the rollout of a commit on `branch` has come.
    ///
    /// `follows` returns whether a revision is that commit or a later one.
    pub fn progress(&self, branch: &WatchedBranch, follows: impl Fn(&str) -> bool) -> Progress {
        let revisions = self.revisions_of(branch);
        if !revisions.iter().any(|revision| follows(revision)) {
            let at = revisions.first().map_or("no commit", |revision| revision.get(..7).unwrap_or(revision));
            return Progress::NotReached(self.explain(&format!("it is at {at}, neither our commit nor a later one")));
        }
        self.hydration(branch).unwrap_or_else(|| self.settlement())
    }

    /// Returns how far its hydrator is; `None`: it has none, or the result is being synced.
    fn hydration(&self, branch: &WatchedBranch) -> Option<Progress> {
        let last = self.hydrator_of(branch)?.last.as_ref()?;
        let message = last.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        match last.phase.as_str() {
            "Hydrated" => {
                let is_at_it = last.hydrated_commit.as_ref().is_none_or(|commit| self.revisions.contains(commit));
                (!is_at_it).then(|| Progress::Underway("hydrated, and not compared with the result yet".to_owned()))
            }
            "Failed" => Some(Progress::Ended(RolloutEnd::Degraded(format!("the hydration failed{message}")))),
            _ => Some(Progress::Underway(format!("it is being hydrated{message}"))),
        }
    }

    /// Returns how far it is with the manifests that it was compared with.
    pub fn settlement(&self) -> Progress {
        match (self.sync, self.health) {
            (SyncStatus::OutOfSync, _) => Progress::Underway(self.explain("OutOfSync")),
            (SyncStatus::Unknown, _) => Progress::Underway(self.explain("its sync status is Unknown")),
            // Hooks of the sync may still run after all resources are healthy.
            (SyncStatus::Synced, Health::Healthy) if self.is_syncing => {
                Progress::Underway("Synced, and the sync is still running".to_owned())
            }
            (SyncStatus::Synced, Health::Healthy) => match &self.failed_sync {
                Some(reason) => Progress::Ended(RolloutEnd::Degraded(reason.clone())),
                None => Progress::Ended(RolloutEnd::Healthy),
            },
            (SyncStatus::Synced, Health::Degraded) => {
                let reason = self.health_message.clone().unwrap_or_else(|| "Degraded".to_owned());
                Progress::Ended(RolloutEnd::Degraded(reason))
            }
            (
                SyncStatus::Synced,
                health @ (Health::Progressing | Health::Suspended | Health::Missing | Health::Unknown),
            ) => Progress::Underway(self.explain(health.as_str())),
        }
    }

    /// Returns whether it is synced and healthy and its last sync did not fail.
    pub fn is_healthy(&self) -> bool {
        self.sync == SyncStatus::Synced && self.health == Health::Healthy && self.failed_sync.is_none()
    }

    fn explain(&self, what: &str) -> String {
        let message = self.trouble.as_ref().or(self.health_message.as_ref());
        match message {
            Some(message) => format!("{what}: {message}"),
            None => what.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use url::Url;

    use super::super::application::application;
    use super::*;

    fn progress(sync: &str, health: &str, revision: &str, phase: &str) -> Progress {
        let app = application(
            json!({"metadata": {"name": "a"}, "spec": {"source": {"repoURL": "https://git/a", "path": "a"}},
            "status": {"sync": {"status": sync, "revision": revision}, "health": {"status": health},
                "operationState": {"phase": phase}}}),
        );
        let branch = WatchedBranch {
            repository: Url::parse("https://git/a.git").unwrap(),
            branch: "main".to_owned(),
            is_default: true,
        };
        app.progress(&branch, |revision| matches!(revision, "ours" | "later"))
    }

    #[test]
    fn hydrated_application_is_followed_through_hydration_and_sync() {
        let of = |phase: &str, hydrated: &str| {
            let app = application(json!({"metadata": {"name": "a"}, "spec": {"sourceHydrator": {
                "drySource": {"repoURL": "https://git/a", "path": "a", "targetRevision": "main"},
                "syncSource": {"targetBranch": "env/a", "path": "a"}}},
                "status": {"sync": {"status": "Synced", "revision": "rendered"}, "health": {"status": "Healthy"},
                    "sourceHydrator": {"currentOperation": {"phase": phase, "message": "no such path", "drySHA": "ours",
                        "hydratedSHA": hydrated}}}}));
            let repository = Url::parse("https://git/a.git").unwrap();
            let branch = WatchedBranch { repository, branch: "main".to_owned(), is_default: true };
            app.progress(&branch, |revision| revision == "ours")
        };
        assert_eq!(of("Hydrating", ""), Progress::Underway("it is being hydrated: no such path".to_owned()));
        let failed = "the hydration failed: no such path".to_owned();
        assert_eq!(of("Failed", ""), Progress::Ended(RolloutEnd::Degraded(failed)));
        assert!(matches!(of("Hydrated", "another"), Progress::Underway(_)));
        assert_eq!(of("Hydrated", "rendered"), Progress::Ended(RolloutEnd::Healthy));
    }

    #[test]
    fn rollout_ends_when_synced_at_our_commit_or_a_later_one() {
        for revision in ["ours", "later"] {
            assert_eq!(progress("Synced", "Healthy", revision, "Succeeded"), Progress::Ended(RolloutEnd::Healthy));
            let degraded = progress("Synced", "Degraded", revision, "Succeeded");
            assert_eq!(degraded, Progress::Ended(RolloutEnd::Degraded("Degraded".to_owned())));
        }
    }

    #[test]
    fn failed_sync_is_degraded_even_if_argo_cd_says_healthy() {
        for phase in ["Failed", "Error"] {
            let reason = "the last sync failed: ".to_owned();
            assert_eq!(
                progress("Synced", "Healthy", "ours", phase),
                Progress::Ended(RolloutEnd::Degraded(reason)),
                "{phase}"
            );
        }
    }

    #[test]
    fn other_states_do_not_end_the_rollout() {
        for (sync, health) in [("Synced", "Healthy"), ("OutOfSync", "Degraded"), ("Unknown", "Unknown")] {
            assert!(matches!(progress(sync, health, "earlier", ""), Progress::NotReached(_)), "{sync} {health}");
        }
        for (sync, health, phase) in [
            ("OutOfSync", "Healthy", "Running"),
            ("OutOfSync", "Degraded", "Failed"),
            ("Unknown", "Healthy", ""),
            ("Synced", "Progressing", "Succeeded"),
            ("Synced", "Missing", "Succeeded"),
            ("Synced", "Suspended", "Succeeded"),
            ("Synced", "Healthy", "Running"),
        ] {
            assert!(matches!(progress(sync, health, "ours", phase), Progress::Underway(_)), "{sync} {health} {phase}");
        }
    }
}
