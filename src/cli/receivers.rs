//! `tagrelay receivers`: how to configure each sender, and its last request.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::{Api, ServerOptions};
use super::output::{self, BAD, Cell, DIM, GOOD, Table, shown};
use crate::api::{ReceiverView, Receivers};

/// Lists the receivers: the URL and events for each sender, and its last request.
#[derive(Args)]
#[command(after_help = "\
Example:
  tagrelay receivers

SECRET in a URL stands for the receiver's secret. The token needs the permission read.")]
pub(super) struct Options {
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let answer = Api::new(options.server)?.get(&["receivers"], &[]).await?;
    if options.json {
        answer.print()?;
        return Ok(ExitCode::SUCCESS);
    }
    let list: Receivers = answer.read()?;
    if list.receivers.is_empty() {
        output::note("no receivers: the settings have no [[receiver]]");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&render(&list, Timestamp::now(), output::screen_width()))?;
    Ok(ExitCode::SUCCESS)
}

fn render(list: &Receivers, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&["receiver", "sender", "last request", "accepted", "path", "events"]).keep(&[4]);
    for receiver in &list.receivers {
        let accepted = receiver.last_accepted_at.map(|at| shown(at, now)).unwrap_or_else(|| "never".to_owned());
        table.row(vec![
            Cell::plain(&receiver.name),
            Cell::plain(&receiver.sender),
            heard(receiver, now),
            Cell::plain(&accepted),
            Cell::plain(&receiver.url_path),
            Cell::new(&receiver.events, DIM),
        ]);
    }
    table.render_in(0, width)
}

fn heard(receiver: &ReceiverView, now: Timestamp) -> Cell {
    match &receiver.last_heard {
        None => Cell::new("never", DIM),
        Some(heard) => {
            let is_good = matches!(heard.outcome.as_str(), "accepted" | "ignored");
            let text = format!("{}, {}", shown(heard.at, now), heard.outcome);
            Cell::new(&text, if is_good { GOOD } else { BAD })
        }
    }
}
