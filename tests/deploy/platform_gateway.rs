//! The values of the gateway's chart: its keys exist, it is scraped, and its releases do not share a name.
//!
//! The chart cannot be fetched by the tests. `tests/fixtures/apisix-chart-keys.txt` lists its keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::platform_tree::{
    ENVIRONMENTS, EXAMPLE, applications, document, leaves, list, merged, name, named, read, rendered, text,
};

const KEYS: &str = "tests/fixtures/apisix-chart-keys.txt";

/// The keys of the chart. The second part is `true` if the content of the key is free.
fn chart_keys() -> BTreeMap<String, bool> {
    let text = read(KEYS);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let key = |line: &str| match line.split_once(' ') {
        Some((key, _)) => (key.to_owned(), true),
        None => (line.to_owned(), false),
    };
    lines.map(key).collect()
}

fn values_files(environment: &str) -> [String; 2] {
    ["base", &format!("environments/{environment}")].map(|folder| format!("{EXAMPLE}/{folder}/apisix/values.yaml"))
}

fn values(environment: &str) -> Value {
    merged(&values_files(environment))
}

fn gateways() -> Vec<Value> {
    applications().into_iter().filter(|found| found["spec"]["sources"][0]["chart"] == "apisix").collect()
}

/// The key of the list that covers a path, if any.
fn is_known(keys: &BTreeMap<String, bool>, path: &str) -> bool {
    let is_itself = keys.contains_key(path);
    let mut parents = path.match_indices('.').map(|(end, _)| &path[..end]);
    is_itself || parents.any(|parent| keys.get(parent).is_some_and(|is_free| *is_free))
}

#[test]
fn every_key_of_the_values_is_a_key_of_the_chart() {
    let keys = chart_keys();
    assert!(keys.len() > 200);
    assert!(is_known(&keys, "etcd.prefix") && !is_known(&keys, "externalEtcd.prefix"));
    for environment in ENVIRONMENTS {
        for path in leaves(&values(environment)).keys() {
            assert!(is_known(&keys, path), "{environment}: the chart has no key {path}");
        }
    }
}

#[test]
fn gateway_is_scraped() {
    for environment in ENVIRONMENTS {
        let values = values(environment);
        assert_eq!(values["apisix"]["prometheus"]["enabled"], true);
        assert!(list(&values["apisix"]["plugins"]).iter().any(|plugin| plugin == "prometheus"));
        let monitor = &values["metrics"]["serviceMonitor"];
        assert_eq!(monitor["enabled"], true);
        assert!(monitor["labels"]["release"].is_string(), "the operator selects by this label");
    }
    // The plugin counts only on routes that use it.
    let rule = document(&format!("{EXAMPLE}/base/gateway/plugins.yaml"));
    assert_eq!(rule["kind"], "ApisixGlobalRule");
    let plugins: Vec<&str> = list(&rule["spec"]["plugins"]).iter().map(|plugin| text(&plugin["name"])).collect();
    assert!(plugins.contains(&"prometheus"), "{plugins:?}");
    let allowed = values("production");
    for plugin in plugins {
        assert!(list(&allowed["apisix"]["plugins"]).iter().any(|known| known == plugin), "{plugin} is off");
    }
}

#[test]
fn etcd_and_admin_api_require_credentials_from_secrets() {
    for environment in ENVIRONMENTS {
        let values = values(environment);
        assert_eq!(values["etcd"]["enabled"], false);
        assert!(!text(&values["externalEtcd"]["user"]).is_empty(), "an empty user disables authentication");
        assert!(values["externalEtcd"]["password"].is_null(), "a password in the values");
        let secret = text(&values["externalEtcd"]["existingSecret"]);
        let key = text(&values["externalEtcd"]["secretPasswordKey"]);
        let admin = text(&values["apisix"]["admin"]["credentials"]["secretName"]);
        let controller = &values["ingress-controller"]["config"]["apisix"];
        assert_eq!(controller["existingSecret"], admin, "without it, the controller uses the chart's well-known key");
        let sealed = super::platform_tree::documents(
            "sealed",
            &read(&format!("{EXAMPLE}/components/sealed-secrets/sealedsecrets.yaml")),
        );
        for (secret, key) in [(secret, key), (admin, "viewer"), (admin, text(&controller["existingSecretAdminKeyKey"]))]
        {
            let keys = &named(&sealed, "SealedSecret", secret)["spec"]["encryptedData"];
            assert!(keys.get(key).is_some(), "{secret} has no key {key}");
        }
    }
}

#[test]
fn etcd_user_of_the_gateway_is_the_one_that_the_job_creates() {
    let values = values("production");
    let script = read(&format!("{EXAMPLE}/base/data/etcd-auth.sh"));
    let user = text(&values["externalEtcd"]["user"]);
    assert!(script.contains(&format!(r#"{{"name":"{user}","password":"%s"}}"#)), "{user}");
    let prefix = text(&values["etcd"]["prefix"]);
    let granted = base64_of(prefix);
    assert!(script.contains(&format!(r#""key":"{granted}""#)), "{prefix} is {granted}");
    let Some(resources) = rendered("production") else { return };
    let host = text(&values["externalEtcd"]["host"][0]);
    let service = named(&resources, "Service", "etcd");
    assert_eq!(host, format!("http://etcd:{}", service["spec"]["ports"][0]["port"].as_u64().unwrap()));
}

fn base64_of(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bytes = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let number = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for place in 0..4 {
            let digit = (number >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(LETTERS[digit as usize]) } else { '=' });
        }
    }
    out
}

#[test]
fn each_gateway_has_its_own_release_and_class() {
    let gateways = gateways();
    assert_eq!(gateways.len(), ENVIRONMENTS.len());
    let mut releases = BTreeSet::new();
    let mut classes = BTreeSet::new();
    for (gateway, environment) in gateways.iter().zip(ENVIRONMENTS) {
        let source = &gateway["spec"]["sources"][0];
        // The chart names its ClusterRole and ClusterRoleBinding after the release.
        assert!(releases.insert(text(&source["helm"]["releaseName"]).to_owned()), "{}", name(gateway));
        assert_eq!(source["helm"]["skipCrds"], true, "only apisix-crds installs them");
        let files: Vec<String> = list(&source["helm"]["valueFiles"])
            .iter()
            .map(|file| format!("{EXAMPLE}/{}", text(file).strip_prefix("$config/").unwrap()))
            .collect();
        assert_eq!(files, values_files(environment));
        let values = merged(&files);
        let kubernetes = &values["ingress-controller"]["config"]["kubernetes"];
        let class = text(&kubernetes["ingressClass"]);
        assert!(classes.insert(class.to_owned()), "{class} is the class of two environments");

        let namespace = text(&gateway["spec"]["destination"]["namespace"]);
        assert_eq!(values["ingress-controller"]["config"]["apisix"]["serviceNamespace"], namespace);
        let selector = format!("kubernetes.io/metadata.name={namespace}");
        assert_eq!(list(&kubernetes["namespaceSelector"]), [Value::from(selector)]);
        let Some(resources) = rendered(environment) else { continue };
        for resource in resources.iter().filter(|found| text(&found["apiVersion"]).starts_with("apisix.apache.org/")) {
            assert_eq!(resource["spec"]["ingressClassName"], class, "{}", name(resource));
            assert_eq!(resource["metadata"]["namespace"], namespace);
        }
    }
}

/// Renders the real chart, if the variable names its archive or folder: the tests cannot fetch it.
#[test]
fn rendered_gateways_share_no_cluster_scoped_object() {
    let Ok(chart) = std::env::var("TAGRELAY_APISIX_CHART") else { return };
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for (gateway, environment) in gateways().iter().zip(ENVIRONMENTS) {
        let Some(mut helm) = tagrelay_test_support::peer::tool("helm") else { return };
        let spec = &gateway["spec"];
        let release = text(&spec["sources"][0]["helm"]["releaseName"]);
        helm.args(["template", release, &chart, "--skip-crds"]);
        helm.args(["--namespace", text(&spec["destination"]["namespace"])]);
        for file in values_files(environment) {
            helm.arg("--values").arg(super::platform_tree::path(&file));
        }
        let rendered = super::platform_tree::documents(release, &super::platform_tree::output(&mut helm));
        let mut scraped = 0;
        for object in &rendered {
            let kind = super::platform_tree::kind(object);
            if ["ClusterRole", "ClusterRoleBinding", "IngressClass"].contains(&kind) {
                let before = owners.insert(format!("{kind} {}", name(object)), release.to_owned());
                assert_eq!(before, None, "{kind} {} belongs to {release}, too", name(object));
            }
            scraped += usize::from(kind == "Service" && name(object) == "apisix-prometheus-metrics");
        }
        assert_eq!(scraped, 1, "{release} has a Service for its metrics");
        named(&rendered, "Service", "apisix-gateway");
        let text = serde_json::to_string(&rendered).unwrap();
        assert!(!text.contains("edd1c9f034335f136f87ad84b625c8f1"), "{release} uses the well-known key");
    }
    assert_eq!(owners.len(), 9, "{owners:#?}");
}

#[test]
fn chart_and_its_archive_are_pinned() {
    let digest = read(KEYS).lines().find_map(|line| Some(line.split_once("archive: ")?.1.to_owned())).unwrap();
    assert!(digest.len() == 64 && hex::decode(&digest).is_ok());
    let values = read(&format!("{EXAMPLE}/base/apisix/values.yaml"));
    assert!(values.contains(&format!("sha256:{digest}")), "the values name the tested archive");
    for gateway in gateways() {
        let version = text(&gateway["spec"]["sources"][0]["targetRevision"]).to_owned();
        assert!(read(KEYS).contains(&format!("apisix {version},")), "the list of keys is of another version");
        assert!(values.contains(&format!("apisix/apisix {version} ")), "the values are for another version");
    }
    let crds = applications().into_iter().find(|found| name(found) == "apisix-crds").unwrap();
    let revision = text(&crds["spec"]["source"]["targetRevision"]);
    assert!(revision.len() == 40 && hex::decode(revision).is_ok(), "{revision}");
}
