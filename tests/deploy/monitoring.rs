//! `deploy/monitoring` uses only metrics that the program has and that `docs/operations.md` describes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde_yaml::Value;
use tagrelay::telemetry::{GitOperation, Metrics};
use tagrelay_test_support::promtool::promtool;

const FOLDER: &str = "deploy/monitoring";

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

fn yaml(name: &str) -> Value {
    let name = format!("{FOLDER}/{name}");
    serde_yaml::from_str(&read(&name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().unwrap_or_else(|| panic!("no list: {value:?}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value:?}"))
}

/// The rules of the plain rule file.
fn rules() -> Vec<Value> {
    list(&yaml("prometheus-rules.yaml")["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

/// Metrics with each value recorded once.
fn exposition() -> String {
    let metrics = Metrics::new();
    metrics.watch_store(&path("Cargo.toml"));
    metrics.expect_receiver("hub");
    metrics.expect_environment("staging");
    metrics.expect_registry("docker.io");
    metrics.event(Some("docker.io/uyou/user-service"), "committed");
    metrics.event(None, "refused");
    metrics.update("staging", "committed");
    metrics.committed(Some(Duration::from_secs(3)), Duration::from_millis(40));
    metrics.commit(2);
    metrics.git_operation(GitOperation::refresh, "ok", Duration::from_millis(5));
    metrics.push_retry();
    metrics.pending_updates(7);
    metrics.oldest_open(Duration::from_secs(2), Duration::ZERO);
    metrics.config_reload(true);
    metrics.expect_argocd(["staging"]);
    metrics.healthy(Duration::from_secs(40));
    metrics.encode()
}

/// The labels of a metric's series.
#[derive(Default)]
struct Known {
    labels: BTreeSet<String>,
    /// Label to its seen values.
    values: BTreeMap<String, BTreeSet<String>>,
}

/// The series of the program and of the recording rules, by name.
fn known() -> BTreeMap<String, Known> {
    let series = Regex::new(r"^([a-z_:]+)(?:\{(.*)\})? ").unwrap();
    let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for line in exposition().lines().filter(|line| !line.starts_with('#')) {
        let found = series.captures(line).unwrap_or_else(|| panic!("{line}"));
        let entry = known.entry(found[1].to_owned()).or_default();
        for pair in found.get(2).map(|labels| label.captures_iter(labels.as_str())).into_iter().flatten() {
            entry.labels.insert(pair[1].to_owned());
            entry.values.entry(pair[1].to_owned()).or_default().insert(pair[2].to_owned());
        }
    }
    for rule in rules().iter().filter_map(|rule| rule.get("record")) {
        known.insert(text(rule).to_owned(), Known::default());
    }
    known
}

/// Checks that an expression uses existing metrics, labels and label values.
fn check_expression(origin: &str, expression: &str, known: &BTreeMap<String, Known>) {
    let selector =
        Regex::new(r"\b((?:tagrelay|process)_[a-z_]+|tagrelay:[a-z0-9_:]+)(?:\{([^}]*(?:\$[^}]*)?)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
    // Labels that Prometheus adds.
    let added = ["job", "instance"];
    let mut count = 0;
    for found in selector.captures_iter(expression) {
        count += 1;
        let name = &found[1];
        let metric = known.get(name).unwrap_or_else(|| panic!("{origin}: there is no metric {name} ({expression})"));
        for pair in found.get(2).map(|labels| matcher.captures_iter(labels.as_str())).into_iter().flatten() {
            let (label, operator, value) = (&pair[1], &pair[2], pair[3].replace("\\\\", "\\"));
            if added.contains(&label) {
                continue;
            }
            assert!(metric.labels.contains(label), "{origin}: {name} has no label {label}");
            // A rule with label values that never occur never fires.
            if matches!(label, "outcome" | "operation" | "le") {
                for word in value.split('|') {
                    let word = Regex::new(&format!("^(?:{word})$")).unwrap();
                    let is_seen = metric.values[label].iter().any(|seen| word.is_match(seen));
                    assert!(is_seen, "{origin}: {name} has no {label}{operator}{word}");
                }
            }
        }
    }
    assert!(count > 0, "{origin} asks for no metric of ours: {expression}");
}

#[test]
fn both_rule_files_are_equal() {
    let custom = yaml("prometheusrule.yaml");
    assert_eq!(custom["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(custom["kind"], "PrometheusRule");
    assert_eq!(custom["spec"], yaml("prometheus-rules.yaml"));
}

#[test]
fn alert_rules_fire_as_their_cases_say() {
    let checked = promtool(&["check", "rules", "--lint-fatal", "prometheus-rules.yaml"], "");
    if checked.is_some() {
        promtool(&["test", "rules", "rules.test.yaml"], "");
    }
}

#[test]
fn every_alert_has_a_firing_and_a_silent_case() {
    let tests = yaml("rules.test.yaml");
    let mut fires = BTreeSet::new();
    let mut is_quiet = BTreeSet::new();
    for case in list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])) {
        let seen = if list(&case["exp_alerts"]).is_empty() { &mut is_quiet } else { &mut fires };
        seen.insert(text(&case["alertname"]).to_owned());
    }
    let names: BTreeSet<String> = alerts().iter().map(|alert| text(&alert["alert"]).to_owned()).collect();
    assert!(names.len() >= 10, "{names:?}");
    assert_eq!(fires, names, "alerts that a case fires");
    assert_eq!(is_quiet, names, "alerts that a case keeps quiet");
}

#[test]
fn alert_rules_use_existing_metrics() {
    let known = known();
    for rule in rules() {
        let name = rule.get("alert").or(rule.get("record")).unwrap();
        check_expression(text(name), text(&rule["expr"]), &known);
    }
}

#[test]
fn every_alert_is_documented() {
    let page = read("docs/operations.md");
    let mut sections: BTreeMap<&str, &str> = BTreeMap::new();
    for section in page.split("\n### ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        sections.insert(heading, body.trim());
    }
    let mut names = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]).to_owned();
        let annotations = &alert["annotations"];
        let (_, anchor) = text(&annotations["runbook_url"]).split_once("/docs/operations.md#").unwrap();
        assert_eq!(anchor, name.to_lowercase());
        assert!(sections.get(name.as_str()).is_some_and(|body| body.len() > 150), "{name} has no section");
        assert!(["summary", "description"].iter().all(|key| !text(&annotations[*key]).is_empty()));
        assert!(["critical", "warning"].contains(&text(&alert["labels"]["severity"])), "{name}");
        names.insert(name);
    }
    let left: Vec<_> = sections.keys().filter(|heading| !names.contains(**heading)).collect();
    assert!(left.is_empty(), "sections without an alert: {left:?}");
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    for link in Regex::new(r"\]\(#([^)]+)\)").unwrap().captures_iter(&page) {
        assert!(headings.contains(&link[1]), "docs/operations.md has no #{}", &link[1]);
    }
}

#[test]
fn metrics_page_lists_exactly_the_metrics() {
    let page = read("docs/operations.md");
    let table = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let told: BTreeSet<String> = Regex::new(r"`((?:tagrelay|process)_[a-z_]+|…_[a-z_]+)`")
        .unwrap()
        .captures_iter(table)
        .map(|found| found[1].replace('…', "tagrelay_store"))
        .collect();
    let exposition = exposition();
    let counted: BTreeSet<String> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(told, counted);
}

#[test]
fn promtool_accepts_the_metrics() {
    promtool(&["check", "metrics"], &exposition());
}

#[test]
fn dashboard_uses_existing_metrics() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read(&format!("{FOLDER}/grafana-dashboard.json"))).unwrap();
    for (key, value) in [("uid", "tagrelay"), ("title", "Tagrelay")] {
        assert_eq!(dashboard[key], value);
    }
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job"]);
    let known = known();
    let (mut ids, mut shown, mut expressions) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{title} is off the grid");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("job=~\"$job\""), "{title} shows every job");
            check_expression(title, expression, &known);
            shown.extend(known.keys().filter(|name| expression.contains(&format!("{name}{{"))).cloned());
            expressions.push(expression.replace("$__rate_interval", "5m"));
        }
    }
    let family =
        |name: &String| name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned();
    let shown: BTreeSet<String> = shown.iter().map(family).collect();
    let all: BTreeSet<String> = known.keys().map(family).filter(|name| !name.contains(':')).collect();
    let unseen: Vec<_> = all.difference(&shown).filter(|name| *name != "process_start_time_seconds").collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
    // Prometheus itself parses every expression.
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(index, expression)| serde_json::json!({"record": format!("panel:{index}"), "expr": expression}))
        .collect();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(file.path(), groups.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

#[test]
fn service_monitor_matches_the_service() {
    let monitor = yaml("servicemonitor.yaml");
    let service: Value = serde_yaml::from_str(&read("deploy/kubernetes/service.yaml")).unwrap();
    let metadata = &service["metadata"];
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_mapping().unwrap() {
        assert_eq!(&metadata["labels"][label], value);
    }
    assert_eq!(list(&monitor["spec"]["namespaceSelector"]["matchNames"]), [metadata["namespace"].clone()]);
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert!(list(&service["spec"]["ports"]).iter().any(|port| port["name"] == endpoint["port"]));
    assert_eq!(endpoint["path"], "/metrics");
}

#[test]
fn kustomization_names_existing_files() {
    let kustomization = yaml("kustomization.yaml");
    let generated = list(&kustomization["configMapGenerator"]).iter().flat_map(|map| list(&map["files"]));
    for file in list(&kustomization["resources"]).iter().chain(generated) {
        assert!(path(FOLDER).join(text(file)).is_file(), "{file:?}");
    }
}

#[test]
fn example_routes_name_existing_receivers_and_alerts() {
    let example = yaml("alertmanager.example.yaml");
    let receivers: BTreeSet<&str> =
        list(&example["receivers"]).iter().map(|receiver| text(&receiver["name"])).collect();
    let routes = std::iter::once(&example["route"]).chain(list(&example["route"]["routes"]));
    for route in routes {
        assert!(receivers.contains(text(&route["receiver"])), "{route:?}");
    }
    let platform = yaml("platform-prometheusrule.yaml");
    let of_the_platform = list(&platform["spec"]["groups"]).iter().flat_map(|group| list(&group["rules"]));
    let names =
        alerts().iter().chain(of_the_platform).map(|alert| text(&alert["alert"]).to_owned()).collect::<Vec<_>>();
    let matcher = Regex::new(r#"^alertname (=~|=) "?([^"]+)"?$"#).unwrap();
    for inhibition in list(&example["inhibit_rules"]) {
        for found in list(&inhibition["source_matchers"]).iter().chain(list(&inhibition["target_matchers"])) {
            let found = matcher.captures(text(found)).unwrap_or_else(|| panic!("{found:?}"));
            for pattern in found[2].split('|') {
                let pattern = Regex::new(&format!("^{pattern}$")).unwrap();
                assert!(names.iter().any(|name| pattern.is_match(name)), "no alert is {pattern}");
            }
        }
    }
}
