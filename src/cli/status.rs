//! `tagrelay status`: the versions that every environment runs.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{
    self, BAD, Cell, DIM, GOOD, HEAD, PLAIN, Table, WARN, relative, short, short_commit, short_version,
};
use crate::api::{CellView, EnvironmentView, HealthState, HoldView, Matrix, RegistryView};
use crate::store::FollowState;

/// Shows the versions, holds, freezes, waiting updates and problems of every environment.
///
/// A version is yellow if the environment that it is promoted from runs another one.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay status
  tagrelay status --environment production
  tagrelay status --json | jq -r '.environments[].repositories[] | \"\\(.repository) \\(.version.tag)\"'

Exit code 1: a branch cannot be read, so its environments are unknown.
The token from TAGRELAY_TOKEN or --token-file needs the permission read.")]
pub(super) struct Options {
    /// Show only this environment (may be given several times)
    #[arg(long = "environment", value_name = "ENVIRONMENT", conflicts_with = "json")]
    environments: Vec<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// The width of the table, in columns, above which the environments are listed below each other.
const MAX_WIDTH: usize = 100;

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Options { environments: wanted, json, server } = options;
    let answer = Api::new(server)?.get(&["environments"], &[]).await?;
    if json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let matrix: Matrix = answer.read()?;
    let known = |name: &String| matrix.environments.iter().any(|environment| environment.name == *name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let known: Vec<_> = matrix.environments.iter().map(|environment| environment.name.as_str()).collect();
        anyhow::bail!("there is no environment `{unknown}`; known: {}", known.join(", "));
    }
    output::print(&render(&matrix, &wanted, Timestamp::now()))?;
    let is_unread = |environment: &EnvironmentView| environment.tip.is_none() && is_wanted(&wanted, environment);
    Ok(if matrix.environments.iter().any(is_unread) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn is_wanted(wanted: &[String], environment: &EnvironmentView) -> bool {
    wanted.is_empty() || wanted.contains(&environment.name)
}

fn render(matrix: &Matrix, wanted: &[String], now: Timestamp) -> String {
    let environments: Vec<&EnvironmentView> =
        matrix.environments.iter().filter(|environment| is_wanted(wanted, environment)).collect();
    let mut parts = vec![overview(&environments, now).render(0)];
    let beside = side_by_side(matrix, &environments, now);
    if environments.iter().all(|environment| environment.repositories.is_empty()) {
        parts.push(format!("{DIM}no managed image; `tagrelay check` shows why{DIM:#}\n"));
    } else if beside.width() <= MAX_WIDTH {
        parts.push(beside.render(0));
    } else {
        parts.extend(environments.iter().map(|environment| one_below(matrix, environment, now)));
    }
    parts.extend(freezes(&environments, now));
    parts.extend(holds(&environments, now));
    parts.extend(waiting(&environments));
    parts.extend(rollouts(&environments));
    parts.extend(ill_applications(&environments));
    parts.extend(not_caught_up(matrix));
    parts.extend(unread(&environments));
    parts.extend(problems(&environments));
    parts.join("\n")
}

/// The branch, the tip and the kind of updates of each environment.
fn overview(environments: &[&EnvironmentView], now: Timestamp) -> Table {
    let is_watched = environments.iter().any(|environment| environment.health.is_some());
    let mut headings = vec!["environment", "moves by", "branch", "at"];
    headings.extend(is_watched.then_some("health"));
    let mut table = Table::new(&headings);
    for environment in environments {
        let moves = match environment.promote_from.as_slice() {
            [] if environment.update == "automatic" => "pushes".to_owned(),
            [] => environment.update.clone(),
            from if environment.update == "automatic" => format!("pushes, promotions from {}", from.join(", ")),
            from => format!("promotions from {}", from.join(", ")),
        };
        let at = match &environment.tip {
            Some(tip) => Cell::new(short_commit(tip), DIM),
            None => Cell::new("not read yet", WARN),
        };
        let branch = format!("{} {}", environment.config_repository, environment.branch);
        let mut row = vec![Cell::plain(&environment.name), Cell::plain(&moves), Cell::plain(&branch), at];
        row.extend(is_watched.then(|| health_cell(environment, now)));
        table.row(row);
    }
    table
}

fn health_cell(environment: &EnvironmentView, now: Timestamp) -> Cell {
    match &environment.health {
        None => Cell::new("-", DIM),
        Some(health) => {
            let since = health
                .since
                .map(|since| format!(" for {}", relative(since, now).trim_end_matches(" ago")))
                .unwrap_or_default();
            let style = if health.state == HealthState::Healthy { GOOD } else { BAD };
            Cell::new(&format!("{}{since}", health.state), style)
        }
    }
}

/// A row for each repository, a column for each environment.
fn side_by_side(matrix: &Matrix, environments: &[&EnvironmentView], now: Timestamp) -> Table {
    let mut headings = vec!["repository"];
    for environment in environments {
        headings.extend([environment.name.as_str(), ""]);
    }
    let mut table = Table::new(&headings);
    let repositories: BTreeSet<&str> =
        environments.iter().flat_map(|environment| &environment.repositories).map(|cell| &*cell.repository).collect();
    for repository in repositories {
        let mut row = vec![Cell::plain(repository)];
        for environment in environments {
            match running(environment, repository) {
                Some(cell) => row.extend([version_cell(matrix, environment, cell), Cell::new(&remark(cell, now), DIM)]),
                None => row.extend([Cell::new("-", DIM), Cell::plain("")]),
            }
        }
        table.row(row);
    }
    table
}

fn one_below(matrix: &Matrix, environment: &EnvironmentView, now: Timestamp) -> String {
    let mut table = Table::bare();
    for cell in &environment.repositories {
        table.row(vec![
            Cell::plain(&cell.repository),
            version_cell(matrix, environment, cell),
            Cell::new(&remark(cell, now), DIM),
        ]);
    }
    format!("{HEAD}{}{HEAD:#}\n{}", output::clean(&environment.name), table.render(2))
}

fn running<'a>(environment: &'a EnvironmentView, repository: &str) -> Option<&'a CellView> {
    environment.repositories.iter().find(|cell| cell.repository == repository)
}

/// The version: yellow if a promotion would change it, red if the sites name different ones.
fn version_cell(matrix: &Matrix, environment: &EnvironmentView, cell: &CellView) -> Cell {
    let Some(version) = &cell.version else {
        let versions: Vec<String> = cell.versions.iter().map(short).collect();
        return Cell::new(&versions.join(" and "), BAD);
    };
    let sources = matrix.environments.iter().filter(|other| environment.promote_from.contains(&other.name));
    let mut promotable = sources.filter_map(|source| running(source, &cell.repository));
    let differs = |source: &CellView| source.version.as_ref().is_some_and(|other| other.tag != version.tag);
    let style = if environment.promote_from.is_empty() {
        PLAIN
    } else if promotable.any(differs) {
        WARN
    } else {
        GOOD
    };
    Cell::new(&short(version), style)
}

fn remark(cell: &CellView, now: Timestamp) -> String {
    let when = cell.when.map(|at| relative(at, now));
    let held = (!cell.holds.is_empty()).then(|| "held".to_owned());
    let waiting = cell
        .waiting
        .last()
        .map(|update| format!("{} waits", short_version(update.tag.as_deref(), update.digest.as_deref())));
    let rollout = cell.rollout.as_ref().filter(|rollout| rollout.state != FollowState::Untracked);
    let rollout = rollout.map(|rollout| rollout_word(rollout.state.as_str()).to_owned());
    let remarks: Vec<String> = [when, rollout, held, waiting].into_iter().flatten().collect();
    remarks.join(", ")
}

/// The frozen environments, with end and reason.
fn freezes(environments: &[&EnvironmentView], now: Timestamp) -> Option<String> {
    let mut table = Table::new(&["environment", "ends", "by", "id", "reason"]);
    let mut any = false;
    for environment in environments {
        let Some(frozen) = &environment.freeze else { continue };
        let ends = frozen.until.map_or_else(|| "when thawed".to_owned(), |at| relative(at, now));
        for by in &frozen.by {
            any = true;
            let who = by.actor.as_deref().or(by.window.as_deref()).unwrap_or_default();
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::new(&ends, WARN),
                Cell::plain(who),
                Cell::new(by.id.as_deref().unwrap_or_default(), DIM),
                Cell::plain(by.reason.as_deref().unwrap_or_default()),
            ]);
        }
    }
    any.then(|| format!("{HEAD}Frozen{HEAD:#}\n{}", table.render(2)))
}

fn holds(environments: &[&EnvironmentView], now: Timestamp) -> Option<String> {
    let cells = environments.iter().flat_map(|environment| &environment.repositories);
    let holds: Vec<&HoldView> = cells.flat_map(|cell| &cell.holds).collect();
    (!holds.is_empty()).then(|| format!("{HEAD}Holds{HEAD:#}\n{}", super::holds::table(&holds, now).render(2)))
}

fn waiting(environments: &[&EnvironmentView]) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for cell in environments.iter().flat_map(|environment| &environment.repositories) {
        // Only the newest will be written.
        let Some((newest, older)) = cell.waiting.split_last() else { continue };
        any = true;
        let reason = newest.reason.as_deref().unwrap_or_default();
        let before = if older.is_empty() { String::new() } else { format!(" (and {} older)", older.len()) };
        table.row(vec![
            Cell::plain(&newest.environment),
            Cell::plain(&newest.repository),
            Cell::new(&short_version(newest.tag.as_deref(), newest.digest.as_deref()), WARN),
            Cell::plain(&format!("{reason}{before}")),
        ]);
    }
    any.then(|| format!("{HEAD}Waiting{HEAD:#}\n{}", table.render(2)))
}

/// The rollouts that are not healthy.
fn rollouts(environments: &[&EnvironmentView]) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for environment in environments {
        for cell in &environment.repositories {
            let Some(rollout) = &cell.rollout else { continue };
            let style = match rollout.state.as_str() {
                "healthy" | "told" => continue,
                "degraded" | "timed_out" => BAD,
                _ => WARN,
            };
            any = true;
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::plain(&cell.repository),
                Cell::new(rollout_word(rollout.state.as_str()), style),
                Cell::plain(rollout.reason.as_deref().unwrap_or_default()),
            ]);
        }
    }
    any.then(|| format!("{HEAD}Rollouts{HEAD:#}\n{}", table.render(2)))
}

fn rollout_word(state: &str) -> &str {
    match state {
        "waiting" => "Argo CD not notified yet",
        "following" => "rolling out",
        "told" => "Argo CD notified",
        "timed_out" => "timed out",
        "untracked" => "no application",
        other => other,
    }
}

fn ill_applications(environments: &[&EnvironmentView]) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for environment in environments {
        let applications = environment.health.iter().flat_map(|health| &health.applications);
        for app in applications.filter(|app| app.healthy_since.is_none()) {
            any = true;
            table.row(vec![
                Cell::plain(&environment.name),
                Cell::plain(&app.name),
                Cell::new(&format!("{}, {}", app.sync, app.health), BAD),
                Cell::plain(app.message.as_deref().unwrap_or_default()),
            ]);
        }
    }
    any.then(|| format!("{HEAD}Applications that are not healthy{HEAD:#}\n{}", table.render(2)))
}

/// The registries whose tags catch-up cannot list: a lost webhook there goes unnoticed.
fn not_caught_up(matrix: &Matrix) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for RegistryView { registry, catch_up } in &matrix.registries {
        let word = match catch_up.state.as_str() {
            "listed" | "waiting" if catch_up.reason.is_none() => continue,
            "listed" | "waiting" => "lists not all",
            "unsupported" => "lists no tags",
            "no_list" => "gives no list of tags",
            "not_allowed" => "may not be listed",
            "not_now" => "does not answer now",
            other => other,
        };
        any = true;
        let reason = Cell::plain(catch_up.reason.as_deref().unwrap_or_default());
        table.row(vec![Cell::plain(registry), Cell::new(word, WARN), reason]);
    }
    any.then(|| format!("{HEAD}Registries that catch-up leaves out{HEAD:#}\n{}", table.render(2)))
}

fn unread(environments: &[&EnvironmentView]) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for environment in environments {
        if let Some(reason) = &environment.unread_because {
            any = true;
            table.row(vec![Cell::plain(&environment.name), Cell::new(reason, BAD)]);
        }
    }
    any.then(|| format!("{HEAD}Branches that cannot be read{HEAD:#}\n{}", table.render(2)))
}

fn problems(environments: &[&EnvironmentView]) -> Option<String> {
    let mut table = Table::bare();
    let mut any = false;
    for environment in environments {
        for problem in &environment.problems {
            any = true;
            let place = Cell::plain(&problem.path);
            table.row(vec![Cell::plain(&environment.name), place, Cell::new(&problem.reason, WARN)]);
        }
    }
    any.then(|| format!("{HEAD}Files that cannot be read{HEAD:#}\n{}", table.render(2)))
}

#[cfg(test)]
mod tests {
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

    fn shown(matrix: &Matrix, wanted: &[&str]) -> (String, String) {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let text = render(matrix, &wanted, "2026-11-20T12:00:00Z".parse().unwrap());
        (anstream::adapter::strip_str(&text).to_string(), text)
    }

    #[test]
    fn environments_are_listed_side_by_side() {
        let (plain, coloured) = shown(&matrix(&["staging", "production"]), &[]);
        insta::assert_snapshot!(plain, @r"
        ENVIRONMENT  MOVES BY                         BRANCH         AT
        staging      pushes                           platform main  aaaaaaa
        production   pushes, promotions from staging  platform main  aaaaaaa

        REPOSITORY                    STAGING                PRODUCTION
        docker.io/uyou/order-service  v1       3m ago        v1          3m ago
        docker.io/uyou/user-service   0000000  3m ago, held  1111111     3m ago, held

        Holds
          ENVIRONMENT  REPOSITORY                   ENDS   SINCE   BY   ID   REASON
          staging      docker.io/uyou/user-service  in 4h  1h ago  ops  01K  release freeze
          production   docker.io/uyou/user-service  in 4h  1h ago  ops  01K  release freeze
        ");
        assert!(coloured.contains(&format!("{WARN}1111111{WARN:#}")), "production is behind");
        assert!(coloured.contains(&format!("{GOOD}v1{GOOD:#}")), "production runs what staging runs");
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
        let (plain, _) = shown(&matrix, &[]);
        let (_, waiting) = plain.split_once("Waiting\n").unwrap();
        assert_eq!(waiting.trim(), "staging  docker.io/uyou/tool  v4  held by 01H (and 2 older)");
    }

    #[test]
    fn frozen_environment_is_listed_with_its_end() {
        let mut matrix = matrix(&["production"]);
        let frozen = json!({ "until": "2026-11-23T12:00:00Z", "reason": "", "by": [
            { "kind": "window", "window": "Fri 16:00 to Mon 08:00 Europe/Berlin", "reason": "weekend" },
            { "kind": "freeze", "id": "01F", "reason": "audit", "actor": "ops" }] });
        matrix.environments[0].freeze = Some(serde_json::from_value(frozen).unwrap());
        let (plain, _) = shown(&matrix, &[]);
        let frozen: Vec<&str> = plain.lines().skip_while(|line| *line != "Frozen").take(4).collect();
        insta::assert_snapshot!(frozen.join("\n"), @r"
        Frozen
          ENVIRONMENT  ENDS   BY                                    ID   REASON
          production   in 3d  Fri 16:00 to Mon 08:00 Europe/Berlin       weekend
          production   in 3d  ops                                   01F  audit
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
        let (plain, _) = shown(&matrix, &[]);
        let expected = "Registries that catch-up leaves out\n  public.example.com  lists no tags  it answered 405\n";
        assert!(plain.ends_with(expected), "{plain}");
    }

    #[test]
    fn many_environments_are_listed_below_each_other() {
        let matrix = matrix(&["development", "integration", "staging", "production"]);
        let (plain, _) = shown(&matrix, &[]);
        assert!(plain.contains("\nintegration\n  docker.io/uyou/order-service  v1       3m ago\n"), "{plain}");
        let (one, _) = shown(&matrix, &["production"]);
        assert!(!one.contains("integration") && one.contains("REPOSITORY"), "{one}");
    }
}
