use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// An application as Argo CD reports it. A list omits the revisions and all of the operation but its phase and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Name and namespace.
    pub name: ApplicationName,
    /// One or several.
    pub sources: Vec<Source>,
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
    /// Returns whether Argo CD's description could not be parsed, so that the files that it reads are unknown.
    pub fn is_unreadable(&self) -> bool {
        self.trouble.is_some() && self.sources.is_empty()
    }
}

/// The list of the API (`v1alpha1ApplicationList` of Argo CD's OpenAPI document). Items are parsed one by one, so that a
/// malformed one does not hide the others.
#[derive(Deserialize)]
pub(super) struct WireList {
    pub(super) items: Option<Vec<Value>>,
}

/// Parses an item of a list. A malformed item gives an application with its name and the error in `trouble`; `None`: it
/// has no name.
pub(super) fn listed(item: Value) -> Option<Application> {
    let metadata = item.get("metadata").cloned().unwrap_or_default();
    let error = match serde_json::from_value::<WireApplication>(item) {
        Ok(wire) => return Some(wire.into()),
        Err(error) => error,
    };
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let (name, namespace) = (text("name"), text("namespace"));
    let shown = name.clone().unwrap_or_else(|| "without a name".to_owned());
    tracing::warn!(application = shown, %error, "Argo CD reports an application that cannot be parsed; ignoring it");
    let metadata = WireMetadata { name: name?, namespace, annotations: None };
    let bare = WireApplication { metadata, spec: WireSpec::default(), status: None };
    let trouble = shorten(&format!("Argo CD's description of it cannot be parsed: {error}"));
    Some(Application { trouble: Some(trouble), ..bare.into() })
}

#[derive(Deserialize)]
pub(super) struct WireApplication {
    metadata: WireMetadata,
    #[serde(default)]
    spec: WireSpec,
    status: Option<WireStatus>,
}

#[derive(Deserialize)]
struct WireMetadata {
    name: String,
    namespace: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct WireSpec {
    source: Option<WireSource>,
    sources: Option<Vec<WireSource>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSource {
    #[serde(rename = "repoURL", default)]
    repo_url: String,
    path: Option<String>,
    target_revision: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    helm: Option<WireHelm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHelm {
    value_files: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    sync: Option<WireSync>,
    health: Option<WireHealth>,
    operation_state: Option<WireOperation>,
    conditions: Option<Vec<WireCondition>>,
}

#[derive(Deserialize, Default)]
struct WireSync {
    status: Option<String>,
    revision: Option<String>,
    revisions: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WireHealth {
    status: Option<String>,
    message: Option<String>,
    last_transition_time: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOperation {
    phase: Option<String>,
    message: Option<String>,
    finished_at: Option<Value>,
    sync_result: Option<WireRevisions>,
}

/// Parses a Kubernetes time. An unparseable time is recorded in `faults` and treated as absent.
fn time(name: &str, value: Option<&Value>, faults: &mut Vec<String>) -> Option<Timestamp> {
    let value = value.filter(|value| !value.is_null())?;
    let read = value.as_str().and_then(|text| text.parse().ok());
    if read.is_none() {
        faults.push(format!("{name} is not a time: {value}"));
    }
    read
}

#[derive(Deserialize)]
struct WireRevisions {
    revision: Option<String>,
    revisions: Option<Vec<String>>,
}

impl WireRevisions {
    /// Returns the commit of each source; empty if the answer has none.
    fn all(self) -> Vec<String> {
        let several = self.revisions.filter(|revisions| !revisions.is_empty());
        several.unwrap_or_else(|| self.revision.filter(|revision| !revision.is_empty()).into_iter().collect())
    }
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

/// The annotation that restricts the files that an application reads
/// (<https://argo-cd.readthedocs.io/en/stable/operator-manual/high_availability/#manifest-paths-annotation>).
const GENERATE_PATHS: &str = "argocd.argoproj.io/manifest-generate-paths";

impl From<WireApplication> for Application {
    fn from(wire: WireApplication) -> Self {
        let WireApplication { metadata, spec, status } = wire;
        let status = status.unwrap_or_default();
        let (sync, health) = (status.sync.unwrap_or_default(), status.health.unwrap_or_default());
        let several = spec.sources.filter(|sources| !sources.is_empty());
        let sources = several.unwrap_or_else(|| spec.source.into_iter().collect());
        let sources: Vec<Source> = sources.into_iter().map(Source::from).collect();
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let revisions = WireRevisions { revision: sync.revision, revisions: sync.revisions }.all();
        let operation = status.operation_state;
        let mut faults = Vec::new();
        let health_since = time("lastTransitionTime", health.last_transition_time.as_ref(), &mut faults);
        let finished = operation.as_ref().and_then(|operation| operation.finished_at.as_ref());
        let last_sync = time("finishedAt", finished, &mut faults);
        let phase = operation.as_ref().and_then(|operation| operation.phase.as_deref()).unwrap_or_default();
        let is_syncing = matches!(phase, "Running" | "Terminating");
        let failed = matches!(phase, "Failed" | "Error");
        let conditions = status.conditions.unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.kind.ends_with("Error"));
        let failure = operation.filter(|_| failed).map(|operation| {
            let message = operation.message.unwrap_or_default();
            let synced = operation.sync_result.map(WireRevisions::all).unwrap_or_default();
            // A failed sync of an earlier commit says nothing about the current one.
            let is_current = synced.is_empty() || revisions.is_empty() || synced == revisions;
            (format!("the last sync failed: {message}"), is_current)
        });
        let failed_sync = failure.as_ref().filter(|(_, is_current)| *is_current).map(|(text, _)| shorten(text));
        let trouble = condition
            .map(|condition| format!("{}: {}", condition.kind, condition.message))
            .or_else(|| failure.map(|(text, _)| text))
            .or_else(|| (!faults.is_empty()).then(|| faults.join("; ")));
        Self {
            name: ApplicationName { namespace: said(metadata.namespace), name: metadata.name },
            generate_paths: said(metadata.annotations.and_then(|mut found| found.remove(GENERATE_PATHS))),
            sources,
            sync: match sync.status.as_deref() {
                Some("Synced") => SyncStatus::Synced,
                Some("OutOfSync") => SyncStatus::OutOfSync,
                _ => SyncStatus::Unknown,
            },
            health: match health.status.as_deref() {
                Some("Healthy") => Health::Healthy,
                Some("Progressing") => Health::Progressing,
                Some("Degraded") => Health::Degraded,
                Some("Suspended") => Health::Suspended,
                Some("Missing") => Health::Missing,
                _ => Health::Unknown,
            },
            health_message: said(health.message),
            health_since,
            revisions,
            trouble: trouble.as_deref().map(shorten),
            is_syncing,
            last_sync,
            failed_sync,
        }
    }
}

/// Limit for texts of Argo CD, in characters. Errors in manifests can be pages long.
const MAX_TROUBLE: usize = 500;

fn shorten(text: &str) -> String {
    text.chars().take(MAX_TROUBLE).collect()
}

impl From<WireSource> for Source {
    fn from(wire: WireSource) -> Self {
        Self {
            repo_url: wire.repo_url,
            path: wire.path.filter(|path| !path.is_empty()),
            target_revision: wire.target_revision.unwrap_or_default(),
            reference: wire.reference.filter(|name| !name.is_empty()),
            value_files: wire.helm.and_then(|helm| helm.value_files).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
pub(super) fn application(json: serde_json::Value) -> Application {
    serde_json::from_value::<WireApplication>(json).unwrap().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let fine = listed(json!({"metadata": {"name": "a"}, "status": {"health": {"status": "Healthy"}}})).unwrap();
        assert_eq!((fine.health, fine.trouble), (Health::Healthy, None));
        let bad = listed(json!({"metadata": {"name": "b", "namespace": "argocd"}, "status": {"health": 7}})).unwrap();
        assert_eq!((bad.name.to_string().as_str(), bad.is_healthy()), ("argocd/b", false));
        assert!(bad.trouble.unwrap().starts_with("Argo CD's description of it cannot be parsed: "));
        for nameless in [json!(null), json!({"metadata": {"name": 7}}), json!([])] {
            assert_eq!(listed(nameless), None);
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
