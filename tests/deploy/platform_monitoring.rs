//! Alerts, dashboards and values of the monitoring stack fit the services and each other.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_yaml::Value;
use tagrelay_test_support::promtool::promtool;

use super::platform_tree::{EXAMPLE, document, files_below, list, path, read, rendered, text};

const RULES: &str = "deploy/monitoring/platform-prometheusrule.yaml";
const CASES: &str = "deploy/monitoring/platform-rules.test.yaml";
const DASHBOARDS: [&str; 2] = ["deploy/monitoring/grafana-platform.json", "deploy/monitoring/grafana-deployments.json"];

/// Metrics of other programs: APISIX, etcd, kube-state-metrics, the kubelet, cert-manager, Prometheus itself.
const FOREIGN: [&str; 20] = [
    "apisix_etcd_reachable",
    "apisix_http_latency_bucket",
    "apisix_http_status",
    "certmanager_certificate_expiration_timestamp_seconds",
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_server_has_leader",
    "etcd_server_quota_backend_bytes",
    "kube_deployment_status_replicas_available",
    "kube_deployment_status_replicas_unavailable",
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "kube_horizontalpodautoscaler_status_current_replicas",
    "kube_pod_container_info",
    "kube_pod_container_resource_limits",
    "kube_pod_container_resource_requests",
    "kube_pod_container_status_restarts_total",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "up",
];

fn alerts() -> Vec<Value> {
    let groups = document(RULES);
    list(&groups["spec"]["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn dashboard(file: &str) -> serde_json::Value {
    serde_json::from_str(&read(file)).unwrap()
}

/// The expressions of a dashboard's panels, with the panel's title.
fn expressions(dashboard: &serde_json::Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let with_title = |panel: &serde_json::Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels.iter().flat_map(with_title).collect()
}

/// The metrics that an expression selects.
fn metrics(expression: &str) -> BTreeSet<String> {
    // Label names in `by (…)` and `on (…)`, and texts, are no metrics.
    let bare = Regex::new(r#""[^"]*"|\b(by|on)\s*\([^)]*\)"#).unwrap().replace_all(expression, "");
    let selector = Regex::new(r"\b([a-z][a-z0-9_]*)\s*[\{\[]|unless [a-z()\s]*?\b([a-z_]+)$").unwrap();
    selector.captures_iter(&bare).filter_map(|found| Some(found.get(1).or(found.get(2))?.as_str().to_owned())).collect()
}

/// The rows of a table in `docs/services.md` that is compared with `with`: the first two cells.
fn table(with: &str) -> Vec<(String, String)> {
    let page = read("docs/services.md");
    let begin = page.split(&format!("<!-- compared with {with} -->\n")).nth(1).unwrap();
    let table = begin.split("<!-- /compared -->").next().unwrap();
    let row = Regex::new(r"(?m)^\| `([^`]+)` \| ([^|]*) \|").unwrap();
    row.captures_iter(table).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

#[test]
fn platform_alerts_fire_as_their_cases_say() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("platform-rules.yaml");
    std::fs::write(&rules, serde_yaml::to_string(&document(RULES)["spec"]).unwrap()).unwrap();
    let cases = folder.path().join("platform-rules.test.yaml");
    std::fs::copy(path(CASES), &cases).unwrap();
    let checked = promtool(&["check", "rules", "--lint-fatal", rules.to_str().unwrap()], "");
    if checked.is_some() {
        promtool(&["test", "rules", cases.to_str().unwrap()], "");
    }
}

#[test]
fn every_platform_alert_has_cases_and_a_section() {
    let page = read("docs/platform-alerts.md");
    let sections: BTreeMap<&str, &str> =
        page.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let mut fires = BTreeSet::new();
    let mut is_quiet = BTreeSet::new();
    for case in list(&document(CASES)["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])) {
        let seen = if list(&case["exp_alerts"]).is_empty() { &mut is_quiet } else { &mut fires };
        seen.insert(text(&case["alertname"]).to_owned());
    }
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]).to_owned();
        let (_, anchor) = text(&alert["annotations"]["runbook_url"]).split_once("/docs/platform-alerts.md#").unwrap();
        assert_eq!(anchor, name.to_lowercase());
        assert!(sections.get(name.as_str()).is_some_and(|body| body.trim().len() > 100), "{name} has no section");
        assert!(["critical", "warning"].contains(&text(&alert["labels"]["severity"])), "{name}");
        assert!(text(&alert["expr"]).contains(r#"namespace=~"uyou-.+""#), "{name} looks at other namespaces, too");
        names.insert(name);
    }
    assert_eq!(fires, names);
    assert_eq!(is_quiet, names);
    let sections: BTreeSet<String> = sections.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(sections, names, "sections without an alert");
    // What the issue of the platform asks for.
    for subject in ["Errors", "Latency", "Cpu", "Memory", "Restart", "Gateway", "Etcd", "Certificate"] {
        assert!(names.iter().any(|name| name.contains(subject)), "no alert for {subject}");
    }
}

#[test]
fn page_of_the_services_names_the_metrics_that_rules_and_dashboards_use() {
    let own = |name: &String| !FOREIGN.contains(&name.as_str()) && !name.starts_with("tagrelay_");
    let family = |name: String| {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        name.to_owned()
    };
    let mut all: BTreeSet<String> = alerts().iter().flat_map(|alert| metrics(text(&alert["expr"]))).collect();
    all.extend(DASHBOARDS.iter().flat_map(|file| expressions(&dashboard(file))).flat_map(|(_, found)| metrics(&found)));
    for name in FOREIGN {
        assert!(all.contains(name), "{name} is not used any more");
    }
    let used: BTreeSet<String> = all.into_iter().filter(own).map(family).collect();
    let documented: BTreeSet<String> = table("deploy/monitoring").into_iter().map(|(name, _)| name).collect();
    assert_eq!(documented, used);
    // The Go examples define what they call their own.
    let page = read("docs/services.md");
    assert!(page.contains("Name: \"users_registered_total\""));
}

#[test]
fn page_of_the_services_names_the_variables_of_the_manifests() {
    let Some(resources) = rendered("staging") else { return };
    for service in ["user-service", "order-service"] {
        let deployment = super::platform_tree::named(&resources, "Deployment", service);
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let map = text(&container["envFrom"][0]["configMapRef"]["name"]);
        let data = &super::platform_tree::named(&resources, "ConfigMap", map)["data"];
        let mut given: BTreeMap<String, &str> =
            data.as_mapping().unwrap().keys().map(|key| (text(key).to_owned(), "ConfigMap")).collect();
        for variable in list(&container["env"]) {
            let name = text(&variable["name"]).to_owned();
            let from = match &variable["valueFrom"] {
                from if from.get("secretKeyRef").is_some() => "Secret",
                from if from.get("configMapKeyRef").is_some() => "ConfigMap",
                _ => "the manifest",
            };
            given.insert(name, from);
        }
        // For the value of another variable only.
        given.remove("NAMESPACE");
        let documented = table("base/user-service and base/order-service");
        let documented: BTreeMap<String, &str> =
            documented.iter().map(|(name, from)| (name.clone(), from.trim())).collect();
        assert_eq!(documented, given, "{service}");
    }
}

#[test]
fn dashboards_are_sound_and_prometheus_parses_them() {
    let variable = Regex::new(r"\$\{?([a-z_]+)\}?").unwrap();
    let mut rules = Vec::new();
    let mut uids = BTreeSet::from(["tagrelay".to_owned()]);
    for file in DASHBOARDS {
        let dashboard = dashboard(file);
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let place = &panel["gridPos"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {}", panel["title"]);
            assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{}", panel["title"]);
        }
        let known: BTreeSet<&str> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        for found in variable.captures_iter(&dashboard.to_string()) {
            assert!(found[1].starts_with("__") || known.contains(&found[1]), "{file}: there is no ${}", &found[1]);
        }
        for (title, expression) in expressions(&dashboard) {
            let expression = expression.replace("$__rate_interval", "5m").replace("$environment", "production");
            rules.push(serde_json::json!({"record": format!("panel:{}", rules.len()), "expr": expression}));
            assert!(!metrics(&expression).is_empty(), "{title}: {expression}");
        }
    }
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let groups = serde_json::json!({"groups": [{"name": "dashboards", "rules": rules}]});
    std::fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

fn values(chart: &str) -> Value {
    document(&format!("deploy/monitoring/values/{chart}.yaml"))
}

#[test]
fn every_values_file_says_which_chart_it_is_for_and_why() {
    let files = files_below("deploy/monitoring/values");
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let text = read(&file);
        let chart = file.rsplit('/').next().unwrap().trim_end_matches(".yaml");
        assert!(text.starts_with("# Chart ") && text.lines().next().unwrap().contains(&format!("/{chart}")), "{file}");
        assert!(text.lines().take_while(|line| line.starts_with('#')).map(str::len).sum::<usize>() > 100, "{file}");
    }
}

#[test]
fn spans_reach_the_collector_and_tempo() {
    let collector = values("opentelemetry-collector");
    let config = &collector["config"];
    let endpoint = |protocol: &str| text(&config["receivers"]["otlp"]["protocols"][protocol]["endpoint"]).to_owned();
    assert_eq!((endpoint("grpc").as_str(), endpoint("http").as_str()), ("0.0.0.0:4317", "0.0.0.0:4318"));
    for port in ["otlp", "otlp-http"] {
        assert_eq!(collector["ports"][port]["enabled"], true);
    }
    let host = format!("{}.monitoring", text(&collector["fullnameOverride"]));
    let kustomization = read(&format!("{EXAMPLE}/base/user-service/kustomization.yaml"));
    assert!(kustomization.contains(&format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:4317")));
    let gateway = document(&format!("{EXAMPLE}/base/apisix/values.yaml"));
    let address = &gateway["apisix"]["pluginAttrs"]["opentelemetry"]["collector"]["address"];
    assert_eq!(text(address), format!("{host}:4318"));

    // A component that no pipeline uses does nothing, and one that is not defined is an error.
    let pipeline = &config["service"]["pipelines"]["traces"];
    for part in ["receivers", "processors", "exporters"] {
        let used: BTreeSet<&str> = list(&pipeline[part]).iter().map(text).collect();
        let defined: BTreeSet<&str> = config[part].as_mapping().unwrap().keys().map(text).collect();
        assert_eq!(used, defined, "{part}");
    }
    assert!(text(&collector["image"]["repository"]).ends_with("-contrib"), "tail_sampling is in that image only");
    assert_eq!(config["exporters"]["otlp"]["endpoint"], "tempo.monitoring:4317");
    let tempo = values("tempo");
    assert_eq!(tempo["tempo"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
}

#[test]
fn logs_reach_loki_and_the_marks_of_the_dashboards() {
    let fluent_bit = values("fluent-bit");
    let output = text(&fluent_bit["config"]["outputs"]);
    assert!(output.contains("Host                   loki-gateway.monitoring"));
    // The dashboards select by this label.
    assert!(output.contains("namespace=$kubernetes['namespace_name']"));
    assert!(output.contains("Line_format            json"));
    assert!(text(&fluent_bit["config"]["filters"]).contains("Merge_Log      On"), "JSON lines become fields");
    let stack = values("kube-prometheus-stack");
    let sources = list(&stack["grafana"]["additionalDataSources"]);
    let url = |kind: &str| text(&sources.iter().find(|source| source["type"] == kind).unwrap()["url"]).to_owned();
    assert_eq!(url("loki"), "http://loki-gateway.monitoring");
    assert!(url("tempo").starts_with("http://tempo.monitoring:"));
    let label = text(&stack["grafana"]["sidecar"]["dashboards"]["label"]);
    let kustomization = document("deploy/monitoring/kustomization.yaml");
    for map in list(&kustomization["configMapGenerator"]) {
        assert_eq!(map["options"]["labels"][label], "1");
    }
    for file in DASHBOARDS {
        for mark in dashboard(file)["annotations"]["list"].as_array().unwrap() {
            assert!(mark["expr"].as_str().unwrap().starts_with(r#"{namespace="tagrelay"} | json | "#), "{mark}");
        }
    }
}
