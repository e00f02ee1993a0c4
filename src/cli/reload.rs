//! `tagrelay reload`.

use std::process::ExitCode;

use clap::Args;

use super::api::{Api, ServerOptions};
use super::output::{self, Cell, Table};
use crate::api::Reloaded;

/// Makes the server read its settings again: all of them, or none if one has a fault.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay reload

Exit code 1: the settings have faults, which are listed, and the old ones stay in force. The token needs the permission admin.")]
pub(super) struct Options {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let answer = Api::new(options.server)?.post(&["reload"], &serde_json::Map::new()).await?;
    if options.json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let reloaded: Reloaded = answer.read()?;
    if reloaded.changes.is_empty() {
        output::note("reloaded; no section changed");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["section", "name", "change"]);
    for change in &reloaded.changes {
        let name = change.name.as_deref().unwrap_or_default();
        table.row(vec![Cell::plain(&change.section), Cell::plain(name), Cell::plain(&change.change)]);
    }
    output::print(&table.render(0))?;
    Ok(ExitCode::SUCCESS)
}
