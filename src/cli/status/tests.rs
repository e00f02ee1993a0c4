use serde_json::json;

use super::*;

fn cell(repository: &str, tag: &str) -> serde_json::Value {
    let version = json!({ "tag": tag, "digest": null });
    json!({ "repository": repository, "version": version, "versions": [version], "when": "2026-11-20T11:57:00Z",
            "holds": [], "waiting": [], "sites": [] })
}

fn matrix(names: &[&str]) -> Matrix {
    let sha = |digit: &str| digit.repeat(40);
    let environments: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let mut held = cell("docker.io/uyou/user-service", &sha(&index.to_string()));
            held["holds"] = json!([{ "id": "01K", "environment": name, "repository": "docker.io/uyou/user-service",
                "reason": "release freeze", "actor": "ops", "created_at": "2026-11-20T11:00:00Z",
                "rollback": null, "expires_at": "2026-11-20T16:00:00Z" }]);
            let promote_from: Vec<&str> = names.first().filter(|_| index > 0).into_iter().copied().collect();
            json!({ "name": name, "config_repository": "platform", "branch": "main", "update": "automatic",
                    "promote_from": promote_from, "tip": sha("a"), "problems": [],
                    "repositories": [cell("docker.io/uyou/order-service", "v1"), held] })
        })
        .collect();
    serde_json::from_value(json!({ "environments": environments, "registries": [] })).unwrap()
}

const NOW: &str = "2026-11-20T12:00:00Z";

/// Renders in a width, without and with colours.
fn shown_in(matrix: &Matrix, width: Option<usize>) -> (String, String) {
    let text = render(matrix, false, View { now: NOW.parse().unwrap(), width });
    (anstream::adapter::strip_str(&text).to_string(), text)
}

fn shown(matrix: &Matrix) -> (String, String) {
    shown_in(matrix, None)
}

#[test]
fn environments_are_listed_side_by_side() {
    let (plain, coloured) = shown(&matrix(&["staging", "production"]));
    insta::assert_snapshot!(plain, @r"
    ENVIRONMENT  AT       BRANCH         MOVES BY
    staging      aaaaaaa  platform main  pushes
    production   aaaaaaa  platform main  pushes, promotions from staging

    in docker.io/uyou  STAGING                PRODUCTION
    order-service      v1       3m ago        v1          3m ago
    user-service       0000000  held, 3m ago  1111111     held, 3m ago

    Holds
      ENVIRONMENT  in docker.io/uyou  ENDS   SINCE   BY   ID   REASON
      staging      user-service       in 4h  1h ago  ops  01K  release freeze
      production   user-service       in 4h  1h ago  ops  01K  release freeze
    ");
    assert!(coloured.contains(&format!("{WARN}held, 3m ago{WARN:#}")), "{coloured:?}");
}

#[test]
fn newest_waiting_update_is_listed() {
    let mut environment = json!({ "name": "staging", "config_repository": "platform", "branch": "main",
        "update": "automatic", "promote_from": [], "tip": null, "problems": [] });
    let update = |tag: &str| {
        json!({ "id": "01U", "environment": "staging", "repository": "docker.io/uyou/tool", "tag": tag,
            "digest": null, "state": "waiting", "reason": "held by 01H", "changes": [] })
    };
    let mut held = cell("docker.io/uyou/tool", "v1");
    held["waiting"] = json!([update("v2"), update("v3"), update("v4")]);
    environment["repositories"] = json!([held]);
    let matrix = serde_json::from_value(json!({ "environments": [environment], "registries": [] })).unwrap();
    let (plain, _) = shown(&matrix);
    let (_, waiting) = plain.split_once("Waiting\n").unwrap();
    assert_eq!(waiting.trim(), "staging  tool  v4  held by 01H (and 2 older)");
}

#[test]
fn frozen_environment_is_listed_with_its_end() {
    let mut matrix = matrix(&["production"]);
    let frozen = json!({ "until": "2026-11-23T12:00:00Z", "reason": "", "by": [
        { "kind": "window", "window": "Fri 16:00 to Mon 08:00 Europe/Berlin", "reason": "weekend", "until": "2026-11-23T07:00:00Z" },
        { "kind": "freeze", "id": "01F", "reason": "audit", "actor": "ops" }] });
    matrix.environments[0].freeze = Some(serde_json::from_value(frozen).unwrap());
    let (plain, _) = shown(&matrix);
    let frozen: Vec<&str> = plain.lines().skip_while(|line| *line != "Frozen").take(4).collect();
    insta::assert_snapshot!(frozen.join("\n"), @r"
    Frozen
      ENVIRONMENT  ENDS              BY                                    ID   REASON
      production   ends in 2d        Fri 16:00 to Mon 08:00 Europe/Berlin       weekend
      production   ends when thawed  ops                                   01F  audit
    ");
}

#[test]
fn registries_without_catch_up_are_listed() {
    let registry = |host: &str, state: &str, reason: Option<&str>| json!({ "registry": host, "catch_up": { "state": state, "reason": reason, "repositories": 1 } });
    let registries = json!([
        registry("docker.io", "listed", None),
        registry("public.example.com", "unsupported", Some("it answered 405")),
    ]);
    let mut matrix = matrix(&["staging"]);
    matrix.registries = serde_json::from_value(registries).unwrap();
    let (plain, _) = shown(&matrix);
    let expected = "Registries that catch-up leaves out\n  public.example.com  lists no tags  it answered 405\n";
    assert!(plain.ends_with(expected), "{plain}");
}

/// A matrix of many services: some drift, some are held, wait, or failed to roll out.
fn many(services: usize, environments: &[&str]) -> Matrix {
    let sha = |digit: usize| format!("{digit:x}").repeat(40)[..40].to_owned();
    let environments: Vec<_> = environments
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let cells: Vec<_> = (0..services)
                .map(|number| {
                    let repository = match number % 7 {
                        3 => format!("docker.io/uyou/a-service-whose-name-is-much-longer-than-usual-{number}"),
                        5 => format!("docker.io/uyou/界面-{number}"),
                        _ => format!("docker.io/uyou/service-{number}"),
                    };
                    let mut cell = cell(&repository, &sha(1 + (number + index) % 9));
                    cell["cause"] = json!(if number % 4 == 1 { "promotion" } else { "push" });
                    cell["actor"] = json!("release-managers");
                    cell["reason"] =
                        json!("release 42, after the load test of the new cache, which took the whole night");
                    if index > 0 && number % 3 == 0 {
                        let direction = ["newer", "older", "unknown"][number / 3 % 3];
                        cell["drifts"] = json!([{ "environment": "staging", "direction": direction,
                            "version": { "tag": sha(7), "digest": null } }]);
                    }
                    cell
                })
                .collect();
            json!({ "name": name, "config_repository": "platform", "branch": "main", "update": "automatic",
                    "promote_from": [], "tip": sha(10), "problems": [], "repositories": cells })
        })
        .collect();
    serde_json::from_value(json!({ "environments": environments, "registries": [] })).unwrap()
}

#[test]
fn table_fits_every_width() {
    use unicode_width::UnicodeWidthStr as _;
    let environments = ["staging", "production", "eu", "us", "asia", "dr", "qa", "load", "demo", "canary"];
    for count in [1, 2, 3, 10] {
        let matrix = many(20, &environments[..count]);
        for width in [40, 60, 80, 100, 120, 200] {
            let (plain, _) = shown_in(&matrix, Some(width));
            for line in plain.lines() {
                assert!(line.width() <= width, "{count} environments, {width}: {} {line}", line.width());
            }
        }
    }
}

#[test]
fn two_hundred_services_in_three_environments_are_one_table() {
    let matrix = many(200, &["staging", "production", "eu"]);
    for width in [80, 120, 200] {
        let (plain, _) = shown_in(&matrix, Some(width));
        assert!(plain.lines().count() <= 210, "{width}: {}", plain.lines().count());
        assert!(plain.contains("docker.io/uyou") && !plain.contains("docker.io/uyou/service-1"), "{plain}");
    }
}

#[test]
fn remarks_are_shortened_until_they_fit() {
    let matrix = many(4, &["staging", "production"]);
    let table = |width| shown_in(&matrix, Some(width)).0.split("\n\n").nth(1).unwrap().to_owned();
    insta::assert_snapshot!(table(200), @r"
    in docker.io/uyou                                 STAGING                              PRODUCTION
    a-service-whose-name-is-much-longer-than-usual-3  4444444  3m ago by push              5555555     ▼ ahead, 3m ago by push
    service-0                                         1111111  3m ago by push              2222222     ▲ behind, 3m ago by push
    service-1                                         2222222  3m ago by release-managers  3333333     3m ago by release-managers
    service-2                                         3333333  3m ago by push              4444444     3m ago by push
    ");
    insta::assert_snapshot!(table(80), @r"
    in docker.io/uyou                                 STAGING  PRODUCTION
    a-service-whose-name-is-much-longer-than-usual-3  4444444  5555555     ▼ ahead
    service-0                                         1111111  2222222     ▲ behind
    service-1                                         2222222  3333333
    service-2                                         3333333  4444444
    ");
    insta::assert_snapshot!(table(50), @r"
    in docker.io/uyou           STAGING  PRODUCTION
    a-servic…nger-than-usual-3  4444444  5555555     ▼
    service-0                   1111111  2222222     ▲
    service-1                   2222222  3333333
    service-2                   3333333  4444444
    ▲ behind, ▼ ahead, ≠ differs, ! held, … waits, ✗
    rollout failed
    ");
}

#[test]
fn one_environment_shows_author_and_reason() {
    let mut matrix = many(2, &["staging", "production"]);
    matrix.environments.remove(0);
    let (plain, _) = shown_in(&matrix, Some(120));
    insta::assert_snapshot!(plain.split("\n\n").nth(1).unwrap(), @r"
    in docker.io/uyou  PRODUCTION                                  SINCE   BY                REASON
    service-0          2222222     ▲ behind: staging runs 7777777  3m ago  push              release 42, after the load test
                                                                                             of the new cache, which took
                                                                                             the whole night
    service-1          3333333                                     3m ago  release-managers  release 42, after the load test
                                                                                             of the new cache, which took
                                                                                             the whole night
    ");
}

#[test]
fn drift_has_a_sign_a_word_and_a_colour() {
    let matrix = many(7, &["staging", "production"]);
    let (plain, coloured) = shown(&matrix);
    for expected in ["▲ behind", "▼ ahead", "≠ differs"] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
    assert!(coloured.contains(&format!("{WARN}2222222{WARN:#}")), "{coloured}");
}

#[test]
fn update_behind_a_rejected_push_is_shown_with_its_cause() {
    let mut waiting = cell("docker.io/uyou/tool", "v1");
    waiting["waiting"] = json!([{ "id": "01U", "environment": "staging", "repository": "docker.io/uyou/tool", "tag": "v2",
        "digest": null, "state": "waiting", "reason": "the remote rejected the push: protected branch", "changes": [] }]);
    let environment = json!({ "name": "staging", "config_repository": "platform", "branch": "main", "update": "automatic",
        "promote_from": [], "tip": "a", "problems": [], "repositories": [waiting] });
    let matrix = serde_json::from_value(json!({ "environments": [environment], "registries": [] })).unwrap();
    let (plain, _) = shown(&matrix);
    assert!(plain.contains("v2 waits"), "{plain}");
    assert!(plain.contains("v2  the remote rejected the push: protected branch"), "{plain}");
}
