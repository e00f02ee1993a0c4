//! `tagrelay freezes`, `freeze` and `thaw`.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{self, Cell, DIM, HEAD, Table, WARN, clean, end, relative};
use crate::api::{FreezeBody, FreezeView, Freezes, WindowView};

/// The end of a freeze without an end time.
const THAWED: &str = "when thawed";

/// Lists the freezes, also those of the settings. A frozen environment accepts no automatic updates.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay freezes

The token from TAGRELAY_TOKEN or --token-file needs the permission read.")]
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
  tagrelay freeze --environment production --reason 'incident 42'
  tagrelay freeze --environment production --reason audit --for 4h
  tagrelay freeze --environment production --reason holidays --until 2027-01-04T08:00:00+01:00

When the freeze ends, the newest version of each repository is written, all in one commit. Rollbacks are not frozen, nor
promotions with --override. Recurring freezes, such as weekends, belong into the settings: `freeze` of [[environment]].
The token from TAGRELAY_TOKEN or --token-file needs the permission freeze:ENVIRONMENT.")]
pub(super) struct FreezeOptions {
    /// The environment to freeze
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: String,
    /// The reason, shown with every waiting update
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long, as 30m, 4h or 2d [default: until it is thawed]
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    freeze_for: Option<String>,
    /// When it ends, as 2027-01-04T08:00:00+01:00
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
Example:
  tagrelay thaw 01KAJ6G3V4ZJ5Q7WQ0T9E8H2XN          the id from `tagrelay freezes`

A freeze of the settings has no id: change the settings to end it.
The token from TAGRELAY_TOKEN or --token-file needs the permission freeze:ENVIRONMENT.")]
pub(super) struct ThawOptions {
    /// The id of the freeze
    id: String,
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
    let FreezeOptions { environment, reason, freeze_for, until, json, server } = options;
    let body = FreezeBody { environment, reason, until, freeze_for };
    let answer = Api::new(server)?.post(&["freezes"], &body).await?;
    if json {
        answer.print()?;
    } else {
        let freeze: FreezeView = answer.read()?;
        let end = end(freeze.expires_at, THAWED, Timestamp::now());
        output::print(&format!("frozen  {}  {end}  {DIM}{}{DIM:#}\n", clean(&freeze.environment), clean(&freeze.id)))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn thaw(options: ThawOptions) -> anyhow::Result<ExitCode> {
    Api::new(options.server)?.delete(&["freezes", &options.id]).await?;
    output::print("thawed\n")?;
    Ok(ExitCode::SUCCESS)
}

fn render(freezes: &Freezes, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if !freezes.freezes.is_empty() {
        let mut table = Table::new(&["environment", "ends", "since", "by", "id", "reason"]);
        for freeze in &freezes.freezes {
            table.row(vec![
                Cell::plain(&freeze.environment),
                Cell::plain(&end(freeze.expires_at, THAWED, now)),
                Cell::plain(&relative(freeze.created_at, now)),
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
        Cell::new(&format!("frozen, ends {}", relative(window.until, now)), WARN)
    } else {
        Cell::new(&format!("begins {}", relative(window.from, now)), DIM)
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
