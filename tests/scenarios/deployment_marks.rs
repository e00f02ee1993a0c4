//! The log has the fields from which `deploy/monitoring/grafana-*.json` marks deployments.

use regex::Regex;
use serde_json::Value;
use tagrelay_test_support::fleet::sha;

/// The fields that a mark of the dashboards filters by (with the value) or shows (without).
fn fields(mark: &Value) -> Vec<(String, Option<String>)> {
    let text = |key: &str| mark[key].as_str().unwrap().to_owned();
    let filter = Regex::new(r#"\| ([a-z_]+)="([^"]*)""#).unwrap();
    let shown = Regex::new(r"\{\{([a-z_]+)\}\}").unwrap();
    let filters = text("expr");
    let filters = filter.captures_iter(&filters).map(|found| (found[1].to_owned(), Some(found[2].to_owned())));
    let formats = text("titleFormat") + &text("textFormat");
    let formats = shown.captures_iter(&formats).map(|found| (found[1].to_owned(), None)).collect::<Vec<_>>();
    filters.chain(formats).collect()
}

#[tokio::test]
async fn committed_update_is_a_mark_on_the_dashboards() {
    let fleet = crate::fleet().service("user-service").start().await;
    let event = fleet.settled(&fleet.announce("user-service", &sha('1')).await).await;
    assert_eq!(event["state"], "committed", "{event:#}");
    for name in ["grafana-platform.json", "grafana-deployments.json"] {
        let file = format!("{}/deploy/monitoring/{name}", env!("CARGO_MANIFEST_DIR"));
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let marks = dashboard["annotations"]["list"].as_array().unwrap();
        let mark = marks.iter().find(|mark| mark["name"] == "Deployed versions").unwrap();
        let fields = fields(mark);
        assert!(fields.len() >= 7, "{fields:?}");
        let fits = |line: &Value| {
            fields.iter().all(|(field, value)| match value.as_deref() {
                Some("$environment") => line[field] == "staging",
                Some(value) => line[field] == value,
                None => line[field].as_str().is_some_and(|shown| !shown.is_empty()),
            })
        };
        let is_marked = async || {
            fleet.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|line| fits(&line))
        };
        fleet.eventually("the log has a line for the mark", is_marked).await;
    }
}
