//! The files in `deploy/` build, are hardened, and use names that the program reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::platform_tree::rendered_at;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

fn documents(name: &str, text: &str) -> Vec<Value> {
    use serde::Deserialize;
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

fn document(relative: &str) -> Value {
    let mut documents = documents(relative, &read(relative));
    assert_eq!(documents.len(), 1, "{relative}");
    documents.remove(0)
}

/// The resources of `deploy/kubernetes` without kubectl, as far as the kustomization needs.
fn assembled() -> Vec<Value> {
    let folder = "deploy/kubernetes";
    let kustomization = document(&format!("{folder}/kustomization.yaml"));
    let mut resources: Vec<Value> = kustomization["resources"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|name| document(&format!("{folder}/{}", name.as_str().unwrap())))
        .collect();
    let generator = &kustomization["configMapGenerator"][0];
    assert_eq!(generator["files"][0], "tagrelay.toml");
    let mut config_map = serde_yaml::Mapping::new();
    config_map.insert("kind".into(), "ConfigMap".into());
    let mut data = serde_yaml::Mapping::new();
    data.insert("tagrelay.toml".into(), read(&format!("{folder}/tagrelay.toml")).into());
    config_map.insert("data".into(), data.into());
    let mut metadata = serde_yaml::Mapping::new();
    metadata.insert("name".into(), generator["name"].clone());
    metadata.insert("namespace".into(), kustomization["namespace"].clone());
    config_map.insert("metadata".into(), metadata.into());
    resources.push(config_map.into());
    resources
}

/// The resources of `deploy/kubernetes`, built both ways if possible, so that one cannot hide an error of the other.
fn renderings() -> Vec<Vec<Value>> {
    let mut renderings = vec![assembled()];
    renderings.extend(rendered_at(&path("deploy/kubernetes")));
    renderings
}

fn one<'a>(resources: &'a [Value], kind: &str) -> &'a Value {
    let mut found = resources.iter().filter(|resource| resource["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    first
}

/// The values of a key of each list item.
fn column<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_sequence().map(|items| items.iter().map(|item| &item[key]).collect()).unwrap_or_default()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_sequence().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn settings() -> toml::Table {
    read("deploy/kubernetes/tagrelay.toml").parse().unwrap()
}

#[test]
fn cluster_runs_one_container_without_rights() {
    for resources in renderings() {
        assert!(
            resources
                .iter()
                .all(|resource| { resource["kind"] == "Namespace" || resource["metadata"]["namespace"] == "tagrelay" }),
            "a resource is outside the namespace"
        );
        assert_eq!(
            one(&resources, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"],
            "restricted"
        );
        assert_eq!(one(&resources, "ServiceAccount")["automountServiceAccountToken"], false);
        assert!(resources.iter().all(|resource| resource["kind"] != "Secret"), "a template of a Secret is applied");

        let deployment = one(&resources, "Deployment");
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], "tagrelay");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(pod["securityContext"]["fsGroup"], 65532);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["initContainers"].is_null());
        assert_eq!(pod["containers"].as_sequence().unwrap().len(), 1);

        let container = &pod["containers"][0];
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"]);
        assert!(security["capabilities"]["add"].is_null());
        assert!(container["resources"]["requests"]["memory"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    }
}

#[test]
fn cluster_manifests_fit_the_settings() {
    let settings = settings();
    let port_of = |key: &str| -> u64 {
        let listen: std::net::SocketAddr = settings["server"][key].as_str().unwrap().parse().unwrap();
        assert!(listen.ip().is_unspecified(), "{key}: the pod's address is not known beforehand");
        listen.port().into()
    };
    for resources in renderings() {
        let pod = &one(&resources, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(strings(&container["args"]), ["serve", "--config", "/etc/tagrelay/tagrelay.toml"]);

        // Health moves to the operations port if there is one.
        for (name, key) in [("http", "listen"), ("operations", "operations_listen")] {
            let ports = container["ports"].as_sequence().unwrap();
            let port = ports.iter().find(|port| port["name"] == name).unwrap();
            assert_eq!(port["containerPort"], port_of(key), "{name}");
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "operations");
        }

        let mounted = |at: &str| {
            let mounts = container["volumeMounts"].as_sequence().unwrap();
            let mount = mounts.iter().find(|mount| mount["mountPath"] == at).unwrap_or_else(|| panic!("no mount {at}"));
            pod["volumes"].as_sequence().unwrap().iter().find(|volume| volume["name"] == mount["name"]).unwrap()
        };
        let claim = one(&resources, "PersistentVolumeClaim");
        let store = settings["store"]["url"].as_str().unwrap().strip_prefix("sqlite:").unwrap();
        let folder = Path::new(store).parent().unwrap().to_str().unwrap();
        assert_eq!(mounted(folder)["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
        assert!(mounted("/tmp")["emptyDir"].is_mapping());
        let config_map = one(&resources, "ConfigMap");
        assert_eq!(mounted("/etc/tagrelay")["configMap"]["name"], config_map["metadata"]["name"]);
        assert_eq!(config_map["data"]["tagrelay.toml"], read("deploy/kubernetes/tagrelay.toml"));

        // Every file of the settings is a key of the mounted Secret.
        let template = document("deploy/kubernetes/secret.example.yaml");
        let folder = "/run/secrets/tagrelay";
        assert_eq!(mounted(folder)["secret"]["secretName"], template["metadata"]["name"]);
        let mut asked = BTreeSet::new();
        secret_files(&toml::Value::Table(settings.clone()), &mut asked);
        let keys = template["stringData"].as_mapping().unwrap().keys();
        let given: BTreeSet<String> = keys.map(|key| format!("{folder}/{}", key.as_str().unwrap())).collect();
        assert_eq!(given, asked, "the secrets of the settings");
        for (key, value) in template["stringData"].as_mapping().unwrap() {
            assert_eq!(value, "", "{key:?}: a template holds no secret");
        }
        assert!(container["env"].is_null(), "an environment variable is readable in /proc");
    }
}

/// All paths in `{ file = "PATH" }`.
fn secret_files(value: &toml::Value, names: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            if let Some(file) = table.get("file").and_then(toml::Value::as_str) {
                names.insert(file.to_owned());
            }
            table.values().for_each(|value| secret_files(value, names));
        }
        toml::Value::Array(values) => values.iter().for_each(|value| secret_files(value, names)),
        _ => {}
    }
}

#[test]
fn network_policy_admits_only_webhooks_and_scrapes() {
    for resources in renderings() {
        let rules = one(&resources, "Ingress")["spec"]["rules"].as_sequence().unwrap();
        assert_eq!(rules.len(), 1);
        let paths = &rules[0]["http"]["paths"];
        assert_eq!(column(paths, "path"), ["/webhooks"]);
        assert_eq!(paths[0]["backend"]["service"]["port"]["name"], "http");

        let labels = &one(&resources, "Deployment")["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&one(&resources, "Service")["spec"]["selector"], labels);
        let policy = &one(&resources, "NetworkPolicy")["spec"];
        assert_eq!(&policy["podSelector"]["matchLabels"], labels);
        assert_eq!(strings(&policy["policyTypes"]), ["Ingress", "Egress"]);
        for (rule, (from, port)) in policy["ingress"]
            .as_sequence()
            .unwrap()
            .iter()
            .zip([("ingress-nginx", "http"), ("monitoring", "operations")])
        {
            assert_eq!(rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], from);
            assert_eq!(column(&rule["ports"], "port"), [port]);
        }
        let out: BTreeSet<u64> = column(&policy["egress"], "ports")
            .into_iter()
            .flat_map(|ports| column(ports, "port"))
            .map(|port| port.as_u64().expect("an egress rule without a port lets everything out"))
            .collect();
        assert_eq!(out, BTreeSet::from([22, 53, 443, 4317, 4318, 8080]));
        let peers = policy["egress"].as_sequence().unwrap().iter().flat_map(|rule| rule["to"].as_sequence().unwrap());
        let everywhere = peers.filter(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0");
        let except: Vec<Vec<&str>> = everywhere.map(|peer| strings(&peer["ipBlock"]["except"])).collect();
        assert_eq!(except, [["169.254.0.0/16"]], "the metadata service is left out");
    }
}

#[test]
fn banned_crates_are_absent() {
    let rules: toml::Table = read("deny.toml").parse().unwrap();
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let locked: BTreeSet<&str> =
        lock["package"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert!(locked.contains("rustls"));
    for ban in rules["bans"]["deny"].as_array().unwrap() {
        let banned = ban["crate"].as_str().unwrap();
        assert!(!locked.contains(banned), "{banned} is in Cargo.lock: {}", ban["reason"]);
    }
}
