use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The name of an application: `NAME` or `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApplicationName {
    /// The namespace of the `Application`; `None`: the one that Argo CD runs in.
    pub namespace: Option<String>,
    /// A DNS name, as Kubernetes requires.
    pub name: String,
}

/// The text is not an application's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an application's name: write NAME or NAMESPACE/NAME")]
pub struct InvalidApplicationName(String);

impl FromStr for ApplicationName {
    type Err = InvalidApplicationName;

    fn from_str(text: &str) -> Result<Self, InvalidApplicationName> {
        // https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
        let is_name = |text: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
        };
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if !is_name(name) || !namespace.is_none_or(is_name) {
            return Err(InvalidApplicationName(text.escape_debug().to_string()));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

impl fmt::Display for ApplicationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl ApplicationName {
    /// Whether it names this application. A name without a namespace matches in every namespace.
    pub fn names(&self, found: &Self) -> bool {
        self.name == found.name && (self.namespace.is_none() || self.namespace == found.namespace)
    }
}

/// One source of an application's manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The repository's URL as written in the application.
    pub repo_url: String,
    /// The folder. `None`: a chart of a Helm repository, or a source that only provides value files.
    pub path: Option<String>,
    /// Branch, tag or commit; empty or `HEAD`: the repository's default branch.
    pub target_revision: String,
    /// The name by which other sources refer to files of this one (`$name/…`).
    pub reference: Option<String>,
    /// Value files, relative to the folder, to the repository (`/…`) or to another source (`$name/…`).
    pub value_files: Vec<String>,
}

/// Whether the cluster matches the manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncStatus {
    /// It matches.
    Synced,
    /// It differs.
    OutOfSync,
    /// Not compared yet, or the manifests could not be rendered.
    Unknown,
}

/// The health of an application's resources, taken together
/// (<https://argo-cd.readthedocs.io/en/stable/operator-manual/health/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All resources are healthy.
    Healthy,
    /// A resource is not healthy yet.
    Progressing,
    /// A resource failed.
    Degraded,
    /// A resource is suspended or paused.
    Suspended,
    /// A resource does not exist in the cluster.
    Missing,
    /// The health could not be determined.
    Unknown,
}

impl SyncStatus {
    /// Returns Argo CD's word for the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::OutOfSync => "OutOfSync",
            Self::Unknown => "Unknown",
        }
    }
}

impl Health {
    /// Returns Argo CD's word for the health.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::Suspended => "Suspended",
            Self::Missing => "Missing",
            Self::Unknown => "Unknown",
        }
    }
}

/// The source hydrator of an application: it renders one branch and commits the result to another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hydrator {
    /// The manifests that it renders.
    pub dry_source: Source,
    /// Its current or last operation.
    pub last: Option<Hydration>,
}

/// One operation of the source hydrator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hydration {
    /// `Hydrating`, `Hydrated` or `Failed`.
    pub phase: String,
    pub message: Option<String>,
    /// The commit that was rendered.
    pub dry_commit: Option<String>,
    /// The commit with the result.
    pub hydrated_commit: Option<String>,
}

/// An application as Argo CD reports it. A list omits the revisions, the owner and all of the operation but its phase and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Name and namespace.
    pub name: ApplicationName,
    /// The `resourceVersion` of the object: a higher one is newer. `None`: not reported.
    pub version: Option<u64>,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// The ApplicationSet that generated it; `None`: none, or not reported.
    pub application_set: Option<String>,
    /// One or several. Empty with a hydrator.
    pub sources: Vec<Source>,
    /// `None`: Argo CD deploys the sources as they are.
    pub hydrator: Option<Hydrator>,
    /// The annotation `argocd.argoproj.io/manifest-generate-paths`: the files and folders that it reads.
    pub generate_paths: Option<String>,
    /// Whether the cluster matches the manifests.
    pub sync: SyncStatus,
    pub health: Health,
    /// Argo CD's explanation of the health.
    pub health_message: Option<String>,
    /// Since when the health has its value; `None` with older versions of Argo CD.
    pub health_since: Option<Timestamp>,
    /// The commit that each source was compared at, in the order of the sources. Empty: not compared yet.
    pub revisions: Vec<String>,
    /// The images of its pods (`status.summary.images`), old and new during a rollout, those of ended pods too. `None`: not reported.
    pub images: Option<Vec<String>>,
    /// The applications among its resources.
    pub children: Vec<ApplicationName>,
    /// Whether some of its pods may belong to jobs, so that [`images`](Self::images) does not show what runs now.
    pub may_have_ended_pods: bool,
    /// An error condition, a failed sync or an unreadable field, at most 500 characters.
    pub trouble: Option<String>,
    /// Whether a sync is running.
    pub is_syncing: bool,
    /// When the last sync ended, successful or not. The versions that it deployed have run since then at the longest.
    pub last_sync: Option<Timestamp>,
    /// The error of the last sync or one of its hooks, if that sync was for the current revisions. Argo CD may report
    /// Synced and Healthy in spite of it.
    pub failed_sync: Option<String>,
}

impl Application {
    /// Returns an application of which only the name is known.
    pub fn unknown(name: ApplicationName) -> Self {
        Self {
            name,
            version: None,
            is_deleted: false,
            application_set: None,
            sources: Vec::new(),
            hydrator: None,
            generate_paths: None,
            sync: SyncStatus::Unknown,
            health: Health::Unknown,
            health_message: None,
            health_since: None,
            revisions: Vec::new(),
            images: None,
            children: Vec::new(),
            may_have_ended_pods: false,
            trouble: None,
            is_syncing: false,
            last_sync: None,
            failed_sync: None,
        }
    }

    /// Returns whether Argo CD's description could not be parsed, so that the files that it reads are unknown.
    pub fn is_unreadable(&self) -> bool {
        self.trouble.is_some() && self.sources.is_empty() && self.hydrator.is_none()
    }
}

#[cfg(test)]
pub(super) fn application(json: serde_json::Value) -> Application {
    super::document::listed(&json.to_string()).unwrap()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::document::listed;
    use super::*;

    #[test]
    fn missing_and_null_fields_are_accepted() {
        let bare = application(json!({"metadata": {"name": "a"}}));
        assert_eq!((bare.sync, bare.health), (SyncStatus::Unknown, Health::Unknown));
        assert!(bare.sources.is_empty() && bare.revisions.is_empty());
        let nulls = json!({"metadata": {"name": "a", "namespace": "argocd", "annotations": null},
            "spec": {"source": null, "sources": null},
            "status": {"sync": {"status": "Synced", "revision": ""}, "health": {}, "conditions": null}});
        assert_eq!(application(nulls).name.to_string(), "argocd/a");
    }

    #[test]
    fn unparseable_time_is_reported_and_treated_as_absent() {
        let of = |transition: serde_json::Value, finished: serde_json::Value| {
            application(json!({"metadata": {"name": "a"}, "status": {"sync": {"status": "Synced"},
                "health": {"status": "Healthy", "lastTransitionTime": transition},
                "operationState": {"phase": "Succeeded", "finishedAt": finished}}}))
        };
        let fine = of(json!("2026-11-23T10:00:00Z"), json!("2026-11-23T09:00:00Z"));
        assert_eq!(fine.health_since, "2026-11-23T10:00:00Z".parse().ok());
        assert_eq!((fine.last_sync, fine.trouble), ("2026-11-23T09:00:00Z".parse().ok(), None));
        let bad = of(json!("yesterday"), json!(17));
        assert!(bad.is_healthy());
        assert_eq!((bad.health_since, bad.last_sync), (None, None));
        let said = "lastTransitionTime is not a time: \"yesterday\"; finishedAt is not a time: 17";
        assert_eq!(bad.trouble.as_deref(), Some(said));
        assert_eq!(of(serde_json::Value::Null, serde_json::Value::Null).trouble, None);
    }

    #[test]
    fn malformed_item_keeps_its_name_and_the_error() {
        let fine = listed(&json!({"metadata": {"name": "a"}, "status": {"health": {"status": "Healthy"}}}).to_string())
            .unwrap();
        assert_eq!((fine.health, fine.trouble), (Health::Healthy, None));
        let bad =
            listed(&json!({"metadata": {"name": "b", "namespace": "argocd"}, "status": {"health": 7}}).to_string())
                .unwrap();
        assert_eq!((bad.name.to_string().as_str(), bad.is_healthy()), ("argocd/b", false));
        assert!(bad.trouble.unwrap().starts_with("Argo CD's description of it cannot be parsed: "));
        for nameless in [json!(null), json!({"metadata": {"name": 7}}), json!([])] {
            assert_eq!(listed(&nameless.to_string()), None);
        }
    }

    #[test]
    fn each_of_several_sources_has_a_revision() {
        let several = application(json!({"metadata": {"name": "a"},
            "spec": {"sources": [{"repoURL": "https://charts", "chart": "apisix"}, {"repoURL": "https://git", "ref": "config"}]},
            "status": {"sync": {"status": "Synced", "revisions": ["2.10.0", "abc"]}}}));
        assert_eq!(several.revisions, ["2.10.0", "abc"]);
        assert_eq!(several.sources[1].reference.as_deref(), Some("config"));
    }

    #[test]
    fn name_may_have_a_namespace() {
        for text in ["platform-staging", "argocd/platform-staging"] {
            assert_eq!(text.parse::<ApplicationName>().unwrap().to_string(), text);
        }
        for text in ["", "a/", "/a", "a/b/c", "A", "a b", "a?x"] {
            assert!(text.parse::<ApplicationName>().is_err(), "{text}");
        }
    }

    #[test]
    fn failed_syncs_and_broken_manifests_are_reported() {
        let failed = application(json!({"metadata": {"name": "a"},
            "status": {"operationState": {"phase": "Failed", "message": "one or more objects failed to apply"}}}));
        assert_eq!(failed.trouble.unwrap(), "the last sync failed: one or more objects failed to apply");
        assert!(failed.failed_sync.is_some());
        let of = |synced: &str| {
            application(json!({"metadata": {"name": "a"}, "status": {
            "sync": {"status": "Synced", "revision": "b"}, "health": {"status": "Healthy"},
            "operationState": {"phase": "Error", "message": "smoke test", "syncResult": {"revision": synced}}}}))
        };
        assert_eq!(
            (of("b").is_healthy(), of("b").failed_sync.as_deref()),
            (false, Some("the last sync failed: smoke test"))
        );
        // The failed sync was for another commit.
        assert_eq!((of("a").is_healthy(), of("a").failed_sync), (true, None));
        assert!(of("a").trouble.is_some());
        let broken = application(json!({"metadata": {"name": "a"}, "status": {"operationState": {"phase": "Running"},
            "conditions": [{"type": "OrphanedResourceWarning"}, {"type": "ComparisonError", "message": "no such file"}]}}));
        assert!(broken.is_syncing);
        assert_eq!(broken.trouble.unwrap(), "ComparisonError: no such file");
    }
}
