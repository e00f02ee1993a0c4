//! Reads and renders the example platform, for the tests of the other files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize as _;
use serde_yaml::Value;
use tagrelay_test_support::peer::tool;

pub const EXAMPLE: &str = "deploy/config-repository";
pub const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

pub fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

pub fn documents(name: &str, text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{name}: {error}")))
        .filter(|document| !document.is_null())
        .collect()
}

pub fn document(relative: &str) -> Value {
    let mut documents = documents(relative, &read(relative));
    assert_eq!(documents.len(), 1, "{relative}");
    documents.remove(0)
}

/// The files below a folder, by path relative to the repository's root.
pub fn files_below(relative: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}")) {
        let entry = entry.unwrap();
        let name = format!("{relative}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&name));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

/// Runs a command and returns what it printed. Fails if the command fails.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout.clone(), output.stderr].concat();
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&said));
    String::from_utf8(output.stdout).unwrap()
}

/// The manifests of a kustomization. `None`, with a message: kubectl is missing.
pub fn rendered_at(folder: &Path) -> Option<Vec<Value>> {
    let text = output(tool("kubectl")?.arg("kustomize").arg(folder));
    Some(documents(&folder.display().to_string(), &text))
}

/// The manifests of an environment of the example.
pub fn rendered(environment: &str) -> Option<Vec<Value>> {
    rendered_at(&path(&format!("{EXAMPLE}/environments/{environment}")))
}

pub fn list(value: &Value) -> &[Value] {
    value.as_sequence().map(Vec::as_slice).unwrap_or_default()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value:?}"))
}

pub fn kind(resource: &Value) -> &str {
    text(&resource["kind"])
}

pub fn name(resource: &Value) -> &str {
    text(&resource["metadata"]["name"])
}

pub fn of_kind<'a>(resources: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    resources.iter().filter(|resource| kind(resource) == wanted).collect()
}

pub fn named<'a>(resources: &'a [Value], wanted: &str, called: &str) -> &'a Value {
    let found = resources.iter().find(|resource| kind(resource) == wanted && name(resource) == called);
    found.unwrap_or_else(|| panic!("no {wanted} {called}"))
}

/// The pod template of a workload; `None`: it is not a workload.
pub fn pod(resource: &Value) -> Option<&Value> {
    match kind(resource) {
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => Some(&resource["spec"]["template"]),
        "CronJob" => Some(&resource["spec"]["jobTemplate"]["spec"]["template"]),
        _ => None,
    }
}

/// The containers of a pod template, with its init containers.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["initContainers"]).iter().chain(list(&pod["spec"]["containers"]))
}

/// Whether an object has all labels of a selector.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_mapping().unwrap_or_else(|| panic!("no selector: {selector:?}"));
    selector.iter().all(|(label, value)| &labels[label] == value)
}

/// The Applications of `deploy/argocd`, those of an ApplicationSet expanded.
pub fn applications() -> Vec<Value> {
    let mut applications = Vec::new();
    for file in files_below("deploy/argocd") {
        for document in documents(&file, &read(&file)) {
            match document["kind"].as_str().unwrap() {
                "Application" => applications.push(document),
                "ApplicationSet" => applications.extend(expanded(&document)),
                _ => {}
            }
        }
    }
    applications
}

fn expanded(set: &Value) -> Vec<Value> {
    assert_eq!(set["spec"]["goTemplate"], true);
    let [generator] = list(&set["spec"]["generators"]) else { panic!("one generator is expected: {set:?}") };
    let template = serde_yaml::to_string(&set["spec"]["template"]).unwrap();
    let expand = |element: &Value| {
        let mut text = template.clone();
        for (key, value) in element.as_mapping().unwrap() {
            text = text.replace(&format!("{{{{.{}}}}}", key.as_str().unwrap()), value.as_str().unwrap());
        }
        assert!(!text.contains("{{"), "an unknown parameter: {text}");
        let mut application: Value = serde_yaml::from_str(&text).unwrap();
        application["kind"] = "Application".into();
        application
    };
    list(&generator["list"]["elements"]).iter().map(expand).collect()
}

/// Values files of one chart, merged as Helm merges them: mappings by key, everything else replaced.
pub fn merged(files: &[String]) -> Value {
    let mut merged = Value::Mapping(serde_yaml::Mapping::new());
    for file in files {
        merge(&mut merged, document(file));
    }
    merged
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// Every leaf of a value, by its path: `spec.replicas`, `spec.rules.0.host`.
pub fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Mapping(map) if !map.is_empty() => {
                for (key, value) in map {
                    let key = serde_yaml::to_string(key).unwrap();
                    walk(value, &below(key.trim()), leaves);
                }
            }
            Value::Sequence(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(index, item)| walk(item, &below(&index.to_string()), leaves));
            }
            leaf => {
                leaves.insert(path.to_owned(), leaf.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(value, "", &mut found);
    found
}
