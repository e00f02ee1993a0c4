//! Whether an application has come to an end with a commit.

use super::{Application, Health, SyncStatus, WatchedBranch};

/// How far an application has come with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has not looked at the commit yet, or not gone on from what it was.
    NotReached(String),
    /// It knows the commit, and the cluster is not there yet.
    Underway(String),
    /// It runs the commit, or a later one.
    Ended(RolloutEnd),
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutEnd {
    /// Synced, and everything is as it should be.
    Healthy,
    /// Synced, and something has failed, if only a hook of the sync.
    Degraded(String),
}

impl Application {
    /// Returns how far it has come with a commit of the branch. `follows` says of a revision whether it is that commit or a
    /// later one.
    pub fn progress(&self, branch: &WatchedBranch, follows: impl Fn(&str) -> bool) -> Progress {
        let revisions = self.revisions_of(branch);
        if !revisions.iter().any(|revision| follows(revision)) {
            let at = revisions.first().map_or("no commit", |revision| revision.get(..7).unwrap_or(revision));
            return Progress::NotReached(self.explain(&format!("it is at {at}, which is not ours or a later one")));
        }
        match (self.sync, self.health) {
            (SyncStatus::OutOfSync, _) => Progress::Underway(self.explain("OutOfSync")),
            (SyncStatus::Unknown, _) => Progress::Underway(self.explain("nobody knows whether it is synced")),
            // Hooks of a sync run on when everything else is done.
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

    /// Returns whether it runs what its manifests say, and everything is as it should be.
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
    fn it_ends_with_our_commit_or_a_later_one_synced_and_healthy_or_degraded() {
        for revision in ["ours", "later"] {
            assert_eq!(progress("Synced", "Healthy", revision, "Succeeded"), Progress::Ended(RolloutEnd::Healthy));
            let degraded = progress("Synced", "Degraded", revision, "Succeeded");
            assert_eq!(degraded, Progress::Ended(RolloutEnd::Degraded("Degraded".to_owned())));
        }
    }

    #[test]
    fn a_sync_that_has_failed_is_not_healthy_whatever_is_called_so() {
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
    fn everything_else_goes_on() {
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
