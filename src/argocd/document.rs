//! The JSON documents of Argo CD's API (`v1alpha1Application` and others of its OpenAPI document): only the members that are used,
//! with limits.
//!
//! An answer of 64 MiB holds millions of values, so none of them becomes a `serde_json::Value`. Items of a list are parsed one by
//! one: a malformed one keeps its name and does not hide the others.

use std::collections::BTreeMap;
use std::fmt::Formatter;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::application::{Application, ApplicationName, Health, Hydration, Hydrator, Source, SyncStatus};

/// The most images of an application that are kept, and the longest one in bytes.
const MAX_IMAGES: (usize, usize) = (5_000, 1_024);

/// The most child applications of an application that are kept.
const MAX_CHILDREN: usize = 10_000;

/// Limit for texts of Argo CD, in characters. Errors in manifests can be pages long.
const MAX_TEXT: usize = 500;

/// The annotation that restricts the files that an application reads
/// (<https://argo-cd.readthedocs.io/en/stable/operator-manual/high_availability/#manifest-paths-annotation>).
const GENERATE_PATHS: &str = "argocd.argoproj.io/manifest-generate-paths";

/// The answer to a list of applications.
#[derive(Deserialize)]
pub(super) struct WireList {
    #[serde(default)]
    pub(super) items: Option<Items>,
}

/// The applications of a list. Those without a name are left out.
#[derive(Default)]
pub(super) struct Items(pub(super) Vec<Application>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Items;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of applications")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Box<RawValue>>()? {
                    items.extend(listed(item.get()));
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Parses an item of a list. A malformed item gives an application with its name and the error in `trouble`; `None`: it has no
/// name.
pub(super) fn listed(item: &str) -> Option<Application> {
    let error = match serde_json::from_str::<WireApplication>(item) {
        Ok(wire) => return Some(wire.into()),
        Err(error) => error,
    };
    let named: Option<Named> = serde_json::from_str(item).ok();
    let shown = named.as_ref().map_or("without a name", |named| &named.metadata.name);
    tracing::warn!(application = shown, %error, "Argo CD reports an application that cannot be parsed; ignoring it");
    let Named { metadata: Name { name, namespace } } = named?;
    let trouble = shorten(&format!("Argo CD's description of it cannot be parsed: {error}"));
    let name = ApplicationName { namespace: said(namespace), name };
    Some(Application { trouble: Some(trouble), ..Application::unknown(name) })
}

/// The name of an application whose description cannot be parsed.
#[derive(Deserialize)]
struct Named {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct WireApplication {
    metadata: WireMetadata,
    #[serde(default)]
    spec: WireSpec,
    status: Option<WireStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    name: String,
    namespace: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<WireOwner>>,
    deletion_timestamp: Option<String>,
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct WireOwner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    source: Option<WireSource>,
    sources: Option<Vec<WireSource>>,
    source_hydrator: Option<WireHydrator>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHydrator {
    dry_source: Option<WireSource>,
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
    summary: Option<WireSummary>,
    resources: Option<Resources>,
    operation_state: Option<WireOperation>,
    source_hydrator: Option<WireHydration>,
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
    last_transition_time: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireSummary {
    images: Option<Images>,
}

/// The images of an application. Longer ones than an image can be are left out.
#[derive(Default)]
struct Images(Vec<String>);

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Images;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of images")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Images, A::Error> {
                let mut images = Vec::new();
                while let Some(image) = list.next_element::<String>()? {
                    if images.len() < MAX_IMAGES.0 && image.len() <= MAX_IMAGES.1 {
                        images.push(image);
                    }
                }
                Ok(Images(images))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// The resources of an application: its child applications, and whether another resource may have pods that end.
#[derive(Default)]
struct Resources {
    children: Vec<ApplicationName>,
    may_end: bool,
}

#[derive(Deserialize)]
struct WireResource {
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Resources;
            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of resources")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Resources, A::Error> {
                let mut resources = Resources::default();
                while let Some(resource) = list.next_element::<WireResource>()? {
                    resources.add(resource);
                }
                Ok(resources)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Groups whose resources have no pods, or pods that run until they are replaced.
const LASTING_GROUPS: &[&str] = &[
    "apps",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "autoscaling",
    "storage.k8s.io",
    "apiextensions.k8s.io",
    "admissionregistration.k8s.io",
    "scheduling.k8s.io",
    "gateway.networking.k8s.io",
    "monitoring.coreos.com",
    "cert-manager.io",
    "external-secrets.io",
    "bitnami.com",
    "traefik.io",
    "apisix.apache.org",
    "networking.istio.io",
    "security.istio.io",
    "keda.sh",
];

impl Resources {
    fn add(&mut self, resource: WireResource) {
        let WireResource { group, kind, namespace, name } = resource;
        let (group, kind) = (group.unwrap_or_default(), kind.unwrap_or_default());
        match (group.as_str(), kind.as_str()) {
            ("argoproj.io", "Application") => {
                if let Some(name) = name.filter(|_| self.children.len() < MAX_CHILDREN) {
                    let namespace = namespace.filter(|namespace| !namespace.is_empty());
                    self.children.push(ApplicationName { namespace, name });
                }
            }
            ("argoproj.io", "ApplicationSet" | "AppProject" | "Rollout" | "AnalysisTemplate") => {}
            ("", "Pod") => self.may_end = true,
            ("", _) => {}
            (group, _) => self.may_end |= !LASTING_GROUPS.contains(&group),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOperation {
    phase: Option<String>,
    message: Option<String>,
    finished_at: Option<Box<RawValue>>,
    sync_result: Option<WireRevisions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireHydration {
    current_operation: Option<WireHydrateOperation>,
}

#[derive(Deserialize)]
struct WireHydrateOperation {
    phase: Option<String>,
    message: Option<String>,
    #[serde(rename = "drySHA")]
    dry_sha: Option<String>,
    #[serde(rename = "hydratedSHA")]
    hydrated_sha: Option<String>,
}

/// Parses a Kubernetes time. An unparseable time is recorded in `faults` and treated as absent.
fn time(name: &str, value: Option<&RawValue>, faults: &mut Vec<String>) -> Option<Timestamp> {
    let text = value?.get();
    let read = serde_json::from_str::<String>(text).ok().and_then(|text| text.parse().ok());
    if read.is_none() {
        faults.push(format!("{name} is not a time: {text}"));
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

/// The last sync.
#[derive(Default)]
struct Operation {
    is_syncing: bool,
    finished_at: Option<Timestamp>,
    /// The failure, and whether it was for the current revisions.
    failure: Option<(String, bool)>,
}

impl Operation {
    fn read(wire: Option<WireOperation>, revisions: &[String], faults: &mut Vec<String>) -> Self {
        let Some(wire) = wire else { return Self::default() };
        let finished_at = time("finishedAt", wire.finished_at.as_deref(), faults);
        let phase = wire.phase.unwrap_or_default();
        let failure = matches!(phase.as_str(), "Failed" | "Error").then(|| {
            let synced = wire.sync_result.map(WireRevisions::all).unwrap_or_default();
            // A failed sync of an earlier commit says nothing about the current one.
            let is_current = synced.is_empty() || revisions.is_empty() || synced == revisions;
            (format!("the last sync failed: {}", wire.message.unwrap_or_default()), is_current)
        });
        Self { is_syncing: matches!(phase.as_str(), "Running" | "Terminating"), finished_at, failure }
    }
}

impl From<WireApplication> for Application {
    fn from(wire: WireApplication) -> Self {
        let WireApplication { metadata, spec, status } = wire;
        let status = status.unwrap_or_default();
        let (sync, health) = (status.sync.unwrap_or_default(), status.health.unwrap_or_default());
        let several = spec.sources.filter(|sources| !sources.is_empty());
        let sources = several.unwrap_or_else(|| spec.source.into_iter().collect());
        let revisions = WireRevisions { revision: sync.revision, revisions: sync.revisions }.all();
        let mut faults = Vec::new();
        let health_since = time("lastTransitionTime", health.last_transition_time.as_deref(), &mut faults);
        let operation = Operation::read(status.operation_state, &revisions, &mut faults);
        let conditions = status.conditions.unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition.kind.ends_with("Error"));
        let failed_sync = operation.failure.as_ref().filter(|(_, is_current)| *is_current);
        let trouble = condition
            .map(|condition| format!("{}: {}", condition.kind, condition.message))
            .or_else(|| operation.failure.as_ref().map(|(text, _)| text.clone()))
            .or_else(|| (!faults.is_empty()).then(|| faults.join("; ")));
        let resources = status.resources.unwrap_or_default();
        let dry_source = spec.source_hydrator.and_then(|hydrator| hydrator.dry_source);
        let operation_of_hydrator = status.source_hydrator.and_then(|hydration| hydration.current_operation);
        let owner = metadata.owner_references.unwrap_or_default();
        Self {
            name: ApplicationName { namespace: said(metadata.namespace), name: metadata.name },
            version: metadata.resource_version.and_then(|version| version.parse().ok()),
            is_deleted: said(metadata.deletion_timestamp).is_some(),
            generate_paths: said(metadata.annotations.and_then(|mut found| found.remove(GENERATE_PATHS))),
            application_set: owner.into_iter().find(|owner| owner.kind == "ApplicationSet").map(|owner| owner.name),
            sources: sources.into_iter().map(Source::from).collect(),
            hydrator: dry_source
                .map(|source| Hydrator { dry_source: source.into(), last: operation_of_hydrator.map(Hydration::from) }),
            sync: sync_status(sync.status.as_deref()),
            health: health_status(health.status.as_deref()),
            health_message: said(health.message).as_deref().map(shorten),
            health_since,
            revisions,
            images: status.summary.and_then(|summary| summary.images).map(|images| images.0),
            children: resources.children,
            may_have_ended_pods: resources.may_end,
            trouble: trouble.as_deref().map(shorten),
            is_syncing: operation.is_syncing,
            last_sync: operation.finished_at,
            failed_sync: failed_sync.map(|(text, _)| shorten(text)),
        }
    }
}

fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn sync_status(text: Option<&str>) -> SyncStatus {
    match text {
        Some("Synced") => SyncStatus::Synced,
        Some("OutOfSync") => SyncStatus::OutOfSync,
        _ => SyncStatus::Unknown,
    }
}

fn health_status(text: Option<&str>) -> Health {
    match text {
        Some("Healthy") => Health::Healthy,
        Some("Progressing") => Health::Progressing,
        Some("Degraded") => Health::Degraded,
        Some("Suspended") => Health::Suspended,
        Some("Missing") => Health::Missing,
        _ => Health::Unknown,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl From<WireHydrateOperation> for Hydration {
    fn from(wire: WireHydrateOperation) -> Self {
        Self {
            phase: wire.phase.unwrap_or_default(),
            message: said(wire.message).as_deref().map(shorten),
            dry_commit: said(wire.dry_sha),
            hydrated_commit: said(wire.hydrated_sha),
        }
    }
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
