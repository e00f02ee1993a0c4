//! `tagrelay freezes`, `freeze` and `thaw`.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::exit::{self, usage};
use super::output::{self, Cell, DIM, HEAD, Table, WARN, clean, end, shown};
use super::places::is_id;
use crate::api::{FreezeBody, FreezeView, Freezes, WindowView};

/// The end of a freeze without an end time.
const THAWED: &str = "when thawed";

/// Lists the freezes, also those of the settings. A frozen environment accepts no automatic updates.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay freezes

The token needs the permission read.")]
pub(super) struct Options {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Freezes an environment: pushes and promotions wait until it is thawed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay freeze production --reason 'incident 42'
  tagrelay freeze production --reason audit --for 4h
  tagrelay freeze production --reason release --until 'tomorrow 8:00'
  tagrelay freeze production --reason holidays --until '2027-01-04 8:00'

When the freeze ends, the newest version of each repository is written, all in one commit. Rollbacks are not frozen, nor \
promotions with --override. Recurring freezes, such as weekends, belong into the settings: `freeze` of [[environment]].
The token needs the permission freeze:ENVIRONMENT.")]
pub(super) struct FreezeOptions {
    /// The environment to freeze
    #[arg(value_name = "ENVIRONMENT", required_unless_present = "named")]
    environment: Option<String>,
    /// The environment to freeze
    #[arg(short = 'e', long = "environment", value_name = "ENVIRONMENT", conflicts_with = "environment")]
    named: Option<String>,
    /// The reason, shown with every waiting update
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long, as 30m, 4h or 2d [default: until it is thawed]
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    freeze_for: Option<String>,
    /// When it ends: 2h, 18:00, 'tomorrow 8:00', '2027-01-04 8:00' in local time, or 2027-01-04T08:00:00+01:00
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Ends a freeze: the updates that waited for it are written.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagrelay thaw production
  tagrelay thaw 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN          one of several, from `tagrelay freezes`

A freeze of the settings ends by a change of the settings; `promote --override` passes it.
The token needs the permission freeze:ENVIRONMENT, and read to find freezes by name.")]
pub(super) struct ThawOptions {
    /// The environment, or the id of a freeze
    #[arg(value_name = "ENVIRONMENT", required_unless_present = "named")]
    environment: Option<String>,
    /// The environment
    #[arg(short = 'e', long = "environment", value_name = "ENVIRONMENT", conflicts_with = "environment")]
    named: Option<String>,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn list(options: Options) -> anyhow::Result<ExitCode> {
    let answer = Api::new(options.server)?.get(&["freezes"], &[]).await?;
    if options.json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let freezes: Freezes = answer.read()?;
    if freezes.freezes.is_empty() && freezes.windows.is_empty() {
        output::note("no freezes, and none in the settings");
    } else {
        output::print(&render(&freezes, Timestamp::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn freeze(options: FreezeOptions) -> anyhow::Result<ExitCode> {
    let FreezeOptions { environment, named, reason, freeze_for, until, json, server } = options;
    let environment = environment.or(named).unwrap_or_default();
    let until = match until {
        Some(text) => {
            Some(output::read_future(&text, &output::now()).map_err(|error| usage(format!("--until: {error}")))?)
        }
        None => None,
    };
    let until = until.map(|at| at.to_string());
    let body = FreezeBody { environment, reason, until, freeze_for };
    let answer = Api::new(server)?.post(&["freezes"], &body).await?;
    if json {
        answer.print()?;
    } else {
        let freeze: FreezeView = answer.read()?;
        let end = end(freeze.expires_at, THAWED, Timestamp::now());
        let name = clean(&freeze.environment);
        output::print(&format!("frozen  {name}  {end}  {DIM}{}  `tagrelay thaw {name}`{DIM:#}\n", clean(&freeze.id)))?;
        super::holds::warn_of_pushes(&freeze.under_way);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn thaw(options: ThawOptions) -> anyhow::Result<ExitCode> {
    let ThawOptions { environment, named, server } = options;
    let name = environment.or(named).unwrap_or_default();
    let api = Api::new(server)?;
    if is_id(&name) {
        api.delete(&["freezes", &name]).await?;
        output::print("thawed\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let freezes: Freezes = api.get(&["freezes"], &[]).await?.read()?;
    let ended: Vec<&FreezeView> = freezes.freezes.iter().filter(|freeze| freeze.environment == name).collect();
    for freeze in &ended {
        api.delete(&["freezes", &freeze.id]).await?;
        output::print(&format!("thawed  {}  {DIM}{}{DIM:#}\n", clean(&name), clean(&freeze.reason)))?;
    }
    let window = freezes.windows.iter().find(|window| window.active && window.environment == name);
    if let Some(window) = window {
        let ends = shown(window.until, Timestamp::now());
        output::note(&format!(
            "{} is still frozen by the settings ({}), which ends {ends}; `tagrelay promote --override` passes it",
            clean(&name),
            clean(&window.window)
        ));
    }
    if ended.is_empty() && window.is_none() {
        // Names the nearest environments if there is none of this name.
        api.get(&["environments"], &[("environment", name.clone())]).await?;
        output::note(&format!("{} is not frozen", clean(&name)));
    }
    Ok(ExitCode::from(if ended.is_empty() { exit::REFUSED } else { exit::DONE }))
}

pub(super) fn render(freezes: &Freezes, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if !freezes.freezes.is_empty() {
        let mut table = Table::new(&["environment", "ends", "since", "by", "id", "reason"]).keep(&[4]);
        for freeze in &freezes.freezes {
            table.row(vec![
                Cell::plain(&freeze.environment),
                Cell::plain(&end(freeze.expires_at, THAWED, now)),
                Cell::plain(&shown(freeze.created_at, now)),
                Cell::plain(&freeze.actor),
                Cell::new(&freeze.id, DIM),
                Cell::plain(&freeze.reason),
            ]);
        }
        parts.push(table.render(0));
    }
    if !freezes.windows.is_empty() {
        let mut table = Table::new(&["environment", "window", "state", "reason"]);
        for window in &freezes.windows {
            table.row(vec![
                Cell::plain(&window.environment),
                Cell::plain(&window.window),
                next(window, now),
                Cell::plain(window.reason.as_deref().unwrap_or_default()),
            ]);
        }
        parts.push(format!("{HEAD}By the settings{HEAD:#}\n{}", table.render(2)));
    }
    parts.join("\n")
}

fn next(window: &WindowView, now: Timestamp) -> Cell {
    if window.active {
        Cell::new(&format!("frozen, ends {}", shown(window.until, now)), WARN)
    } else {
        Cell::new(&format!("begins {}", shown(window.from, now)), DIM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_and_future_freezes_are_listed() {
        let freezes: Freezes = serde_json::from_value(serde_json::json!({
            "freezes": [{"id": "01K", "environment": "production", "reason": "audit", "actor": "ops",
                "created_at": "2026-11-23T10:00:00Z", "expires_at": null}],
            "windows": [
                {"environment": "production", "window": "Mon 08:00 to Mon 14:00 UTC", "reason": null,
                    "from": "2026-11-23T08:00:00Z", "until": "2026-11-23T14:00:00Z", "active": true},
                {"environment": "staging", "window": "Fri 16:00 to Mon 08:00 UTC", "reason": "weekend",
                    "from": "2026-11-27T16:00:00Z", "until": "2026-11-30T08:00:00Z", "active": false}]
        }))
        .unwrap();
        let text = render(&freezes, "2026-11-23T12:00:00Z".parse().unwrap());
        let text = anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(text, @r"
        ENVIRONMENT  ENDS         SINCE   BY   ID   REASON
        production   when thawed  2h ago  ops  01K  audit

        By the settings
          ENVIRONMENT  WINDOW                      STATE               REASON
          production   Mon 08:00 to Mon 14:00 UTC  frozen, ends in 2h
          staging      Fri 16:00 to Mon 08:00 UTC  begins in 4d        weekend
        ");
    }
}
