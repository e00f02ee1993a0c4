//! The chart's README, schema and copied files are in step with their sources.

use serde_json::Value as Json;
use serde_yaml::Value;

use super::chart_rendering::CHART;
use super::platform_tree::{document, path, read};

/// Rewrites the generated part of the README.
const UPDATE: &str = "TAGRELAY_UPDATE_DOCS";
const BEGIN: &str = "<!-- values: begin -->\n";
const END: &str = "<!-- values: end -->";

/// A value with its description. A mapping with a description is one value.
struct Row {
    path: Vec<String>,
    default: Value,
    description: String,
}

/// The rows of `values.yaml`, in its order.
fn rows() -> Vec<Row> {
    let text = read(&format!("{CHART}/values.yaml"));
    let values = document(&format!("{CHART}/values.yaml"));
    let mut rows: Vec<Row> = Vec::new();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(words) = trimmed.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let description = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with("- ")) else { continue };
        while parents.last().is_some_and(|(level, _)| *level >= indent) {
            parents.pop();
        }
        parents.push((indent, key.trim_matches('"').to_owned()));
        let path: Vec<String> = parents.iter().map(|(_, key)| key.clone()).collect();
        // Below a value that has a description as a whole.
        if rows.iter().any(|row| path.len() > row.path.len() && path.starts_with(&row.path)) {
            continue;
        }
        let default = path.iter().fold(&values, |value, key| &value[key.as_str()]).clone();
        let is_group = description.is_empty() && default.as_mapping().is_some_and(|map| !map.is_empty());
        if !is_group {
            rows.push(Row { path, default, description });
        }
    }
    rows
}

fn table() -> String {
    let mut table = "| value | default | description |\n|---|---|---|\n".to_owned();
    for Row { path, default, description } in rows() {
        let default = serde_json::to_string(&default).unwrap();
        let description = description.replace('|', "\\|");
        table.push_str(&format!("| `{}` | `{default}` | {description} |\n", path.join(".")));
    }
    table
}

#[test]
fn readme_lists_every_value_with_its_comment() {
    for row in rows() {
        assert!(row.description.ends_with('.'), "values.yaml: {} has no description", row.path.join("."));
    }
    let file = format!("{CHART}/README.md");
    let page = read(&file);
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (current, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path(&file), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(current, table, "run {UPDATE}=1 cargo test --test deploy chart_docs");
}

#[test]
fn schema_has_every_value_and_refuses_others() {
    let schema: Json = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let mut described = 0;
    for Row { path, .. } in rows() {
        let mut part = &schema;
        for key in &path {
            assert_eq!(part["additionalProperties"], false, "{}", path.join("."));
            part = &part["properties"][key.as_str()];
        }
        assert!(part.is_object(), "values.schema.json has no {}", path.join("."));
        described += 1;
    }
    assert_eq!(leaves_of(&schema), described, "a value of the schema is not in values.yaml");
}

/// The number of values in a schema. An object without `properties` is one.
fn leaves_of(schema: &Json) -> usize {
    match schema["properties"].as_object() {
        Some(properties) => properties.values().map(leaves_of).sum(),
        None => 1,
    }
}

#[test]
fn copied_files_are_equal_to_their_sources() {
    for name in ["prometheus-rules.yaml", "grafana-dashboard.json"] {
        let (copy, source) = (format!("{CHART}/files/{name}"), format!("deploy/monitoring/{name}"));
        assert_eq!(read(&copy), read(&source), "cp {source} {copy}");
    }
}

#[test]
fn chart_has_the_version_of_the_program() {
    let chart = document(&format!("{CHART}/Chart.yaml"));
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}
