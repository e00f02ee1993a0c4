//! The resource tree of an application: which of its pods run until they are replaced.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

/// The most nodes of a tree that are read. The rest is ignored.
const MAX_NODES: usize = 50_000;

/// The longest chain of parents that is followed: Pod, ReplicaSet, Deployment, and what an operator puts above them.
const MAX_DEPTH: usize = 10;

/// The answer to `GET …/resource-tree` (`v1alpha1ApplicationTree`).
#[derive(Deserialize)]
pub(super) struct WireTree {
    nodes: Option<Vec<WireNode>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireNode {
    #[serde(default)]
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    name: String,
    images: Option<Vec<String>>,
    parent_refs: Option<Vec<WireParent>>,
    info: Option<Vec<WireInfo>>,
}

#[derive(Deserialize)]
struct WireParent {
    #[serde(default)]
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct WireInfo {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

/// The images of the pods of an application, from its resource tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LivePods {
    /// Images of pods that run until they are replaced.
    pub lasting: Vec<String>,
    /// Images of pods of jobs, and of pods that have ended.
    pub ended: Vec<String>,
}

/// Kinds whose pods end by themselves.
const JOBS: &[&str] =
    &["Job", "CronJob", "Workflow", "CronWorkflow", "TaskRun", "PipelineRun", "ScaledJob", "SparkApplication"];

/// Why a pod has ended, in `Status Reason`, if it belongs to no controller that restarts it.
const DONE: &[&str] = &["Completed", "Succeeded"];

/// Why a pod has ended for good, in `Status Reason`: the kubelet removed it, and its controller made another one.
const GONE: &[&str] = &[
    "Evicted",
    "Failed",
    "Shutdown",
    "NodeShutdown",
    "Terminated",
    "NodeAffinity",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
    "UnexpectedAdmissionError",
];

type Key<'a> = (&'a str, Option<&'a str>, &'a str);

impl WireTree {
    /// Sorts the images of the pods by whether their pods last.
    pub(super) fn pods(&self) -> LivePods {
        let mut nodes: Vec<&WireNode> = self.nodes.iter().flatten().collect();
        nodes.truncate(MAX_NODES);
        let by_key: HashMap<Key<'_>, &WireNode> = nodes
            .iter()
            .map(|node| ((node.kind.as_str(), node.namespace.as_deref(), node.name.as_str()), *node))
            .collect();
        let (mut lasting, mut ended) = (Vec::new(), Vec::new());
        for pod in nodes.iter().filter(|node| node.kind == "Pod") {
            let images = if pod.has_ended() || pod.is_of_job(&by_key) { &mut ended } else { &mut lasting };
            for image in pod.images.iter().flatten() {
                if !images.contains(image) {
                    images.push(image.clone());
                }
            }
        }
        LivePods { lasting, ended }
    }
}

impl WireNode {
    fn has_ended(&self) -> bool {
        let info = self.info.iter().flatten().find(|info| info.name == "Status Reason");
        let Some(reason) = info.map(|info| info.value.as_str()) else { return false };
        let is_restarted = self.parent_refs.iter().flatten().any(|parent| {
            matches!(parent.kind.as_str(), "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController")
        });
        GONE.contains(&reason) || (DONE.contains(&reason) && !is_restarted)
    }

    /// Whether a job is above it. A parent that the tree does not have counts by its kind.
    fn is_of_job(&self, nodes: &HashMap<Key<'_>, &WireNode>) -> bool {
        let mut seen: HashSet<Key<'_>> = HashSet::new();
        let mut above: Vec<&WireNode> = vec![self];
        for _ in 0..MAX_DEPTH {
            let parents: Vec<&WireParent> = above.iter().flat_map(|node| node.parent_refs.iter().flatten()).collect();
            if parents.iter().any(|parent| JOBS.contains(&parent.kind.as_str())) {
                return true;
            }
            let keys =
                parents.iter().map(|parent| (parent.kind.as_str(), parent.namespace.as_deref(), parent.name.as_str()));
            above = keys.filter(|key| seen.insert(*key)).filter_map(|key| nodes.get(&key).copied()).collect();
            if above.is_empty() {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pods(nodes: Value) -> LivePods {
        serde_json::from_str::<WireTree>(&json!({ "nodes": nodes }).to_string()).unwrap().pods()
    }

    fn pod(image: &str, parent: (&str, &str), reason: &str) -> Value {
        json!({"kind": "Pod", "namespace": "a", "name": format!("pod-{image}"), "images": [image],
            "parentRefs": [{"kind": parent.0, "namespace": "a", "name": parent.1}],
            "info": [{"name": "Status Reason", "value": reason}, {"name": "Containers", "value": "1/1"}]})
    }

    #[test]
    fn pods_of_a_failed_rollout_all_last() {
        let tree: WireTree = serde_json::from_str(include_str!("recorded/resource-tree-child.json")).unwrap();
        let found = tree.pods();
        assert_eq!((found.lasting.len(), found.ended.len()), (2, 0), "{found:?}");
    }

    #[test]
    fn pods_of_jobs_and_ended_pods_do_not_last() {
        let job = json!({"kind": "Job", "namespace": "a", "name": "j", "parentRefs": [{"kind": "CronJob", "namespace": "a", "name": "c"}]});
        let step = json!({"kind": "Step", "namespace": "a", "name": "s", "parentRefs": [{"kind": "Workflow", "namespace": "a", "name": "w"}]});
        let found = pods(json!([
            job,
            step,
            pod("of-job", ("Job", "j"), "Running"),
            pod("of-unlisted-job", ("Job", "gone"), "Running"),
            pod("of-workflow", ("Step", "s"), "Running"),
            pod("evicted", ("ReplicaSet", "r"), "Evicted"),
            pod("bare-and-done", ("Node", "n"), "Completed"),
            pod("restarting", ("ReplicaSet", "r"), "Completed"),
            pod("running", ("ReplicaSet", "r"), "Running"),
        ]));
        assert_eq!(found.lasting, ["restarting", "running"]);
        assert_eq!(found.ended, ["of-job", "of-unlisted-job", "of-workflow", "evicted", "bare-and-done"]);
    }

    #[test]
    fn circle_of_parents_ends() {
        let ring = |name: &str, parent: &str| json!({"kind": "Ring", "namespace": "a", "name": name, "parentRefs": [{"kind": "Ring", "namespace": "a", "name": parent}]});
        let found = pods(json!([ring("x", "y"), ring("y", "x"), pod("p", ("Ring", "x"), "Running")]));
        assert_eq!(found.lasting, ["p"]);
        assert_eq!(pods(Value::Null), LivePods::default());
    }
}
