use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The name of an application, with its namespace where that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApplicationName {
    /// The namespace of the `Application`; `None`: Argo CD's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Why a text names no application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no application: write its name, or NAMESPACE/NAME")]
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

/// Where an application takes its manifests from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The repository as Argo CD writes it.
    pub repo_url: String,
    /// The folder; empty for a Helm chart of a chart repository, and for a source that others only refer to.
    pub path: Option<String>,
    /// Branch, tag or commit; empty or `HEAD`: the repository's default branch.
    pub target_revision: String,
    /// The name by which value files of other sources begin with `$name/`.
    pub reference: Option<String>,
    /// Value files, from the folder, from the top (`/…`) or from another source (`$name/…`).
    pub value_files: Vec<String>,
}

/// Whether the cluster is as the manifests say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncStatus {
    /// It is.
    Synced,
    /// It is not.
    OutOfSync,
    /// The manifests could not be made, or nobody has looked yet.
    Unknown,
}

/// How what an application is made of fares
/// (<https://argo-cd.readthedocs.io/en/stable/operator-manual/health/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Everything is as it should be.
    Healthy,
    /// Not yet, and still on its way.
    Progressing,
    /// Something has failed.
    Degraded,
    /// Something is paused.
    Suspended,
    /// Something is not in the cluster.
    Missing,
    /// Nobody knows.
    Unknown,
}

impl SyncStatus {
    /// Returns Argo CD's own word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::OutOfSync => "OutOfSync",
            Self::Unknown => "Unknown",
        }
    }
}

impl Health {
    /// Returns Argo CD's own word.
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

/// An application as Argo CD shows it. A list shows no revisions, and of an operation only how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: ApplicationName,
    /// Its sources, one or several.
    pub sources: Vec<Source>,
    /// What `argocd.argoproj.io/manifest-generate-paths` says: the only files that it is made of.
    pub generate_paths: Option<String>,
    /// Whether the cluster is as the manifests say.
    pub sync: SyncStatus,
    /// How it fares.
    pub health: Health,
    /// What Argo CD says about its health.
    pub health_message: Option<String>,
    /// Since when its health is that; only newer versions of Argo CD tell.
    pub health_since: Option<Timestamp>,
    /// The commit that each source was compared at, in the order of the sources; empty: nobody has looked yet.
    pub revisions: Vec<String>,
    /// A sync that is running, or that has failed.
    pub trouble: Option<String>,
    /// Whether a sync is running.
    pub is_syncing: bool,
    /// When the last sync ended, however it did. What it brought has not run for longer.
    pub last_sync: Option<Timestamp>,
    /// Why the last sync of the commits that it is at failed, or a hook of it. Argo CD may call the application Synced
    /// and Healthy all the same.
    pub failed_sync: Option<String>,
}

impl Application {
    /// Returns whether what Argo CD shows of it could not be read, so that nobody knows what it is made of.
    pub fn is_unreadable(&self) -> bool {
        self.trouble.is_some() && self.sources.is_empty()
    }
}

/// The list as the API sends it (`v1alpha1ApplicationList` of Argo CD's OpenAPI document). Its items are read one by one: one
/// that is not as it should be leaves the others readable.
#[derive(Deserialize)]
pub(super) struct WireList {
    pub(super) items: Option<Vec<Value>>,
}

/// Reads an item of a list. Of one that is not what an application looks like no more is known than its name and what is
/// wrong with it; `None`: not even its name.
pub(super) fn listed(item: Value) -> Option<Application> {
    let metadata = item.get("metadata").cloned().unwrap_or_default();
    let error = match serde_json::from_value::<WireApplication>(item) {
        Ok(wire) => return Some(wire.into()),
        Err(error) => error,
    };
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let (name, namespace) = (text("name"), text("namespace"));
    let shown = name.clone().unwrap_or_else(|| "without a name".to_owned());
    tracing::warn!(application = shown, %error, "Argo CD shows an application that cannot be read; the others are");
    let metadata = WireMetadata { name: name?, namespace, annotations: None };
    let bare = WireApplication { metadata, spec: WireSpec::default(), status: None };
    let trouble = shorten(&format!("what Argo CD shows of it cannot be read: {error}"));
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

/// Reads a time of Kubernetes'. What is none is left out, and noted in `faults`: it is no reason to know nothing.
fn time(name: &str, value: Option<&Value>, faults: &mut Vec<String>) -> Option<Timestamp> {
    let value = value.filter(|value| !value.is_null())?;
    let read = value.as_str().and_then(|text| text.parse().ok());
    if read.is_none() {
        faults.push(format!("its {name} is no time: {value}"));
    }
    read
}

#[derive(Deserialize)]
struct WireRevisions {
    revision: Option<String>,
    revisions: Option<Vec<String>>,
}

impl WireRevisions {
    /// Returns the commit of each source; none where that is not told.
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

/// The annotation that narrows down which files an application is made of
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
            // One of an earlier commit says nothing about what is there now.
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

/// The longest text of Argo CD's that is kept, in characters: errors of manifests can be pages.
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
    fn what_argo_cd_leaves_out_or_sends_as_null_is_no_error() {
        let bare = application(json!({"metadata": {"name": "a"}}));
        assert_eq!((bare.sync, bare.health), (SyncStatus::Unknown, Health::Unknown));
        assert!(bare.sources.is_empty() && bare.revisions.is_empty());
        let nulls = json!({"metadata": {"name": "a", "namespace": "argocd", "annotations": null},
            "spec": {"source": null, "sources": null},
            "status": {"sync": {"status": "Synced", "revision": ""}, "health": {}, "conditions": null}});
        assert_eq!(application(nulls).name.to_string(), "argocd/a");
    }

    #[test]
    fn a_time_that_is_none_is_said_and_leaves_the_rest_readable() {
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
        let said = "its lastTransitionTime is no time: \"yesterday\"; its finishedAt is no time: 17";
        assert_eq!(bad.trouble.as_deref(), Some(said));
        assert_eq!(of(serde_json::Value::Null, serde_json::Value::Null).trouble, None);
    }

    #[test]
    fn an_item_that_is_no_application_is_known_by_its_name_and_its_fault() {
        let fine = listed(json!({"metadata": {"name": "a"}, "status": {"health": {"status": "Healthy"}}})).unwrap();
        assert_eq!((fine.health, fine.trouble), (Health::Healthy, None));
        let bad = listed(json!({"metadata": {"name": "b", "namespace": "argocd"}, "status": {"health": 7}})).unwrap();
        assert_eq!((bad.name.to_string().as_str(), bad.is_healthy()), ("argocd/b", false));
        assert!(bad.trouble.unwrap().starts_with("what Argo CD shows of it cannot be read: "));
        for nameless in [json!(null), json!({"metadata": {"name": 7}}), json!([])] {
            assert_eq!(listed(nameless), None);
        }
    }

    #[test]
    fn several_sources_have_a_revision_each() {
        let several = application(json!({"metadata": {"name": "a"},
            "spec": {"sources": [{"repoURL": "https://charts", "chart": "apisix"}, {"repoURL": "https://git", "ref": "config"}]},
            "status": {"sync": {"status": "Synced", "revisions": ["2.10.0", "abc"]}}}));
        assert_eq!(several.revisions, ["2.10.0", "abc"]);
        assert_eq!(several.sources[1].reference.as_deref(), Some("config"));
    }

    #[test]
    fn names_may_have_a_namespace() {
        for text in ["platform-staging", "argocd/platform-staging"] {
            assert_eq!(text.parse::<ApplicationName>().unwrap().to_string(), text);
        }
        for text in ["", "a/", "/a", "a/b/c", "A", "a b", "a?x"] {
            assert!(text.parse::<ApplicationName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_failed_sync_and_broken_manifests_are_told() {
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
        // It went on to another commit since, which changed nothing there.
        assert_eq!((of("a").is_healthy(), of("a").failed_sync), (true, None));
        assert!(of("a").trouble.is_some());
        let broken = application(json!({"metadata": {"name": "a"}, "status": {"operationState": {"phase": "Running"},
            "conditions": [{"type": "OrphanedResourceWarning"}, {"type": "ComparisonError", "message": "no such file"}]}}));
        assert!(broken.is_syncing);
        assert_eq!(broken.trouble.unwrap(), "ComparisonError: no such file");
    }
}
