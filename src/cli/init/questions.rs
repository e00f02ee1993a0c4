use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;

/// Asks a person, or takes every proposal.
pub(super) struct Questions {
    is_asking: bool,
}

impl Questions {
    /// Takes every proposal.
    pub(super) fn none() -> Self {
        Self { is_asking: false }
    }

    /// Asks on standard error and reads standard input. At its end, the proposals are taken.
    pub(super) fn on_stdin() -> Self {
        Self { is_asking: true }
    }

    /// Returns the answer; an empty one is the proposal. `None`: there is neither.
    pub(super) fn ask(&mut self, question: &str, proposed: Option<&str>) -> anyhow::Result<Option<String>> {
        let proposed = proposed.map(str::to_owned);
        if !self.is_asking {
            return Ok(proposed);
        }
        let shown = proposed.as_ref().map(|text| format!(" [{text}]")).unwrap_or_default();
        let mut terminal = std::io::stderr().lock();
        write!(terminal, "{}{}: ", crate::cli::output::clean(question), crate::cli::output::clean(&shown))?;
        terminal.flush()?;
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
        if read == 0 {
            self.is_asking = false;
            writeln!(terminal)?;
        }
        let answer = line.trim();
        Ok(if answer.is_empty() { proposed } else { Some(answer.to_owned()) })
    }

    /// Returns a yes or no.
    pub(super) fn confirm(&mut self, question: &str, proposed: bool) -> anyhow::Result<bool> {
        let word = if proposed { "yes" } else { "no" };
        loop {
            let answer = self.ask(&format!("{question}? yes or no"), Some(word))?.unwrap_or_default();
            match answer.to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => {}
            }
        }
    }
}
