use std::sync::Arc;

use jiff::Timestamp;

use super::words;
use crate::policy::{FreezeCalendar, frozen_until};
use tagrelay_image::Repository;

words! {
    /// The two names of a block in the API and the commands.
    BlockKind {
        /// Stops automatic updates of one place.
        Hold = "hold",
        /// Stops all updates of an environment except rollbacks and overrides.
        Freeze = "freeze",
    }
}

/// A block. Updates of its environment wait until it ends.
///
/// If the block names a repository, only updates of that repository wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// A ULID.
    pub id: String,
    pub kind: BlockKind,
    pub environment: String,
    /// `None`: every repository of the environment.
    pub repository: Option<Repository>,
    pub reason: Option<String>,
    /// The name of the API token that made the block.
    pub actor: String,
    /// The rollback that made the block.
    pub request_id: Option<String>,
    pub created_at: Timestamp,
    /// When the block ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Block {
    /// Whether the block is active at `now`. The end is exclusive.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }

    /// Whether the block applies to this place.
    pub fn covers(&self, environment: &str, repository: &Repository) -> bool {
        self.environment == environment && self.repository.as_ref().is_none_or(|own| own == repository)
    }

    /// Returns the reason why an update waits for this hold, and how the hold ends.
    pub fn explanation(&self) -> String {
        let mut text = format!("held by {} ({}", self.id, self.actor);
        if let Some(reason) = &self.reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        match self.expires_at {
            Some(until) => text.push_str(&format!(") until {until:.0}; release the hold to continue earlier")),
            None => text.push_str("); release the hold to continue"),
        }
        text
    }
}

/// A block before it has an id.
#[derive(Debug, Clone)]
pub struct NewBlock {
    pub kind: BlockKind,
    pub environment: String,
    /// `None`: every repository of the environment.
    pub repository: Option<Repository>,
    pub reason: Option<String>,
    /// The name of the API token.
    pub actor: String,
    /// When the block ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// The blocks that have not ended, and the freeze windows of the settings.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    pub rows: Vec<Block>,
    pub calendar: Arc<FreezeCalendar>,
}

impl Blocks {
    /// Returns the hold on a place that ends last.
    pub fn hold(&self, environment: &str, repository: &Repository, now: Timestamp) -> Option<&Block> {
        self.rows
            .iter()
            .filter(|block| block.kind == BlockKind::Hold && block.is_active(now))
            .filter(|block| block.covers(environment, repository))
            .max_by_key(|block| block.expires_at.unwrap_or(Timestamp::MAX))
    }

    /// Returns the freezes of an environment that are active at `now`; `None`: it is not frozen.
    pub fn frozen(&self, environment: &str, now: Timestamp) -> Option<Frozen> {
        let schedule = self.calendar.of(environment);
        let rows =
            || self.rows.iter().filter(|block| block.kind == BlockKind::Freeze && block.environment == environment);
        let end = |at: Timestamp| {
            let blocks = rows().map(|row| row.expires_at.unwrap_or(Timestamp::MAX)).filter(|end| *end > at);
            blocks.chain(schedule.and_then(|schedule| schedule.end(at))).max()
        };
        end(now)?;
        let until = frozen_until(now, end);
        let windows = schedule.into_iter().flat_map(|schedule| schedule.active(now)).map(|(window, until)| {
            FrozenBy::Window { window: window.span.to_string(), reason: window.reason.clone(), until }
        });
        let mut by: Vec<FrozenBy> = windows.collect();
        by.extend(rows().filter(|row| row.is_active(now)).cloned().map(FrozenBy::Block));
        Some(Frozen { environment: environment.to_owned(), until, by })
    }

    /// Returns every environment that is frozen at `now`, in the order of the names.
    pub fn all_frozen(&self, now: Timestamp) -> Vec<Frozen> {
        let freezes = self.rows.iter().filter(|block| block.kind == BlockKind::Freeze);
        let mut names: Vec<&str> = self.calendar.environments().collect();
        names.extend(freezes.map(|block| block.environment.as_str()));
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.frozen(name, now)).collect()
    }

    /// Returns when the next block ends, or the next freeze window begins or ends, after `now`.
    ///
    /// `None`: no such time is known.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.rows.iter().filter_map(|block| block.expires_at).filter(|at| *at > now);
        ends.chain(self.calendar.next_change(now)).min()
    }
}

/// The active freezes of an environment, and their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    pub environment: String,
    /// The end of the last freeze in an unbroken series; `None`: the end is not known.
    pub until: Option<Timestamp>,
    /// At least one.
    pub by: Vec<FrozenBy>,
}

/// One reason why an environment is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrozenBy {
    /// A window of the settings.
    Window {
        /// The window in words.
        window: String,
        reason: Option<String>,
        until: Timestamp,
    },
    /// A freeze that was made over the API.
    Block(Block),
}

impl Frozen {
    /// Returns the reason why an update waits, with the end of the freeze.
    pub fn explanation(&self) -> String {
        let by: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        let until = match self.until {
            Some(until) => format!("until {until:.0}"),
            None => "until it is thawed".to_owned(),
        };
        format!("`{}` is frozen {until} by {}", self.environment, by.join(" and by "))
    }
}

impl std::fmt::Display for FrozenBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window { window, reason: Some(reason), .. } => write!(f, "the settings ({reason}: {window})"),
            Self::Window { window, reason: None, .. } => write!(f, "the settings ({window})"),
            Self::Block(Block { id, actor, reason, .. }) => {
                write!(f, "{id} ({actor}: {})", reason.as_deref().unwrap_or("no reason given"))
            }
        }
    }
}
