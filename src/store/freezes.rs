//! Freezes: while an environment is frozen, what would change it waits, whoever has asked, but for rollbacks and for promotions
//! that override it.
//!
//! A freeze is a window of the settings, which the store is told ([`Store::set_freeze_calendar`]), or one that somebody has
//! switched on, which is a row. Both are looked at in the transactions in which an update moves on, at the time of the
//! transaction. So nothing depends on who notices first that a window has begun or ended: [`Store::review_freezes`] makes the
//! updates what they ought to be now, as often as it runs.
//!
//! What is open is looked for by the indexes of what is open, which SQLite would not take by itself: the history is long.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::updates::{self, Place};
use super::writer::{Transaction, Write};
use super::{Store, StoreError, holds, json_text, time, time_option};
use crate::clock::Clock;
use crate::image::Repository;
use crate::policy::{FreezeCalendar, frozen_until};

/// A freeze that somebody has switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// A ULID.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// Why, in the words of whoever made it.
    pub reason: String,
    /// The name of the API token that made it.
    pub actor: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl FromRow<'_, SqliteRow> for Freeze {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            environment: row.try_get("environment")?,
            reason: row.try_get("reason")?,
            actor: row.try_get("actor")?,
            created_at: time(row, "created_at")?,
            expires_at: time_option(row, "expires_at")?,
        })
    }
}

/// A freeze that is to be switched on.
#[derive(Debug, Clone)]
pub struct NewFreeze {
    /// The environment.
    pub environment: String,
    /// Why.
    pub reason: String,
    /// The name of the API token.
    pub actor: String,
    /// When it ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// That an environment is frozen: by what, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The environment.
    pub environment: String,
    /// When the last of what follows on each other ends; `None`: when it is thawed.
    pub until: Option<Timestamp>,
    /// What freezes it; at least one.
    pub by: Vec<FrozenBy>,
}

/// What freezes an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrozenBy {
    /// A window of the settings.
    Window {
        /// When it is, in words.
        window: String,
        /// Why.
        reason: Option<String>,
        /// When it ends.
        until: Timestamp,
    },
    /// What somebody has switched on.
    Switch(Freeze),
}

impl Frozen {
    /// Returns why something waits, and until when.
    pub fn explanation(&self) -> String {
        let by: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        let until = match self.until {
            Some(until) => format!("until {until:.0}"),
            None => "until it is thawed".to_owned(),
        };
        format!("`{}` is frozen {until} by {}", self.environment, by.join(" and by "))
    }

    /// Looks at what freezes an environment at `now`. `rows` are those of the environment that have not been ended.
    fn of(calendar: &FreezeCalendar, environment: &str, rows: Vec<Freeze>, now: Timestamp) -> Option<Self> {
        let schedule = calendar.of(environment);
        let end = |at: Timestamp| {
            let switches = rows.iter().map(|row| row.expires_at.unwrap_or(Timestamp::MAX)).filter(|end| *end > at);
            switches.chain(schedule.and_then(|schedule| schedule.end(at))).max()
        };
        end(now)?;
        let until = frozen_until(now, end);
        let windows = schedule.into_iter().flat_map(|schedule| schedule.active(now)).map(|(window, until)| {
            FrozenBy::Window { window: window.span.to_string(), reason: window.reason.clone(), until }
        });
        let mut by: Vec<FrozenBy> = windows.collect();
        let is_active = |row: &Freeze| row.expires_at.is_none_or(|at| at > now);
        by.extend(rows.into_iter().filter(is_active).map(FrozenBy::Switch));
        Some(Self { environment: environment.to_owned(), until, by })
    }
}

impl std::fmt::Display for FrozenBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Window { window, reason: Some(reason), .. } => write!(f, "the settings ({reason}: {window})"),
            Self::Window { window, reason: None, .. } => write!(f, "the settings ({window})"),
            Self::Switch(Freeze { id, actor, reason, .. }) => write!(f, "{id} ({actor}: {reason})"),
        }
    }
}

/// What a review of all that waits has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreezeReview {
    /// The environments in which something has been let go.
    pub released: Vec<String>,
    /// The environments in which something waits now that did not.
    pub parked: Vec<String>,
}

impl Store {
    /// Tells which windows the settings have. What waits or goes on because of it does so with the next
    /// [review](Self::review_freezes).
    pub fn set_freeze_calendar(&self, calendar: FreezeCalendar) {
        *self.calendar.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(calendar);
    }

    fn freeze_calendar(&self) -> Arc<FreezeCalendar> {
        Arc::clone(&self.calendar.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the clock that says whether something is frozen.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Switches a freeze on. What is pending in the environment and not on its way to the branch waits from now on.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn freeze(&self, freeze: NewFreeze) -> Result<Freeze, StoreError> {
        self.writes.run(freeze).await
    }

    /// Switches a freeze off. What has waited for nothing else goes: the newest of each repository, the others are superseded.
    /// Returns the freeze as it was, or `None` when there is no active one of that id.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn thaw(&self, id: &str, actor: &str) -> Result<Option<Freeze>, StoreError> {
        self.writes.run(Thaw { id: id.to_owned(), actor: actor.to_owned() }).await
    }

    /// Ends the freezes that are switched on for other environments than these: whoever gives a name to another environment
    /// later does not expect it to be frozen. Returns them as they were.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn end_freezes_elsewhere(&self, known: &[String]) -> Result<Vec<Freeze>, StoreError> {
        // Asked first on the read side: idle costs no write.
        let is_elsewhere = |freeze: &Freeze| !known.contains(&freeze.environment);
        if !self.freezes().await?.iter().any(is_elsewhere) {
            return Ok(Vec::new());
        }
        self.writes.run(EndElsewhere { known: known.to_vec() }).await
    }

    /// Returns the freezes that are switched on, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn freezes(&self) -> Result<Vec<Freeze>, StoreError> {
        self.freezes_at(self.clock.now()).await
    }

    async fn freezes_at(&self, now: Timestamp) -> Result<Vec<Freeze>, StoreError> {
        let freezes = sqlx::query_as(
            "SELECT * FROM freezes WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > ?) ORDER BY id",
        )
        .bind(now.as_millisecond())
        .fetch_all(&self.reads)
        .await?;
        Ok(freezes)
    }

    /// Returns what is frozen now, by the names of the environments. Those that the settings do not have any more are left to
    /// the caller.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn frozen(&self) -> Result<Vec<Frozen>, StoreError> {
        self.frozen_at(self.clock.now()).await
    }

    /// Returns what is frozen at a time, as [`frozen`](Self::frozen) does.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn frozen_at(&self, now: Timestamp) -> Result<Vec<Frozen>, StoreError> {
        let (calendar, rows) = (self.freeze_calendar(), self.freezes_at(now).await?);
        let mut names: Vec<&str> = calendar.environments().collect();
        names.extend(rows.iter().map(|row| row.environment.as_str()));
        names.sort_unstable();
        names.dedup();
        let of = |name: &&str| {
            let own = rows.iter().filter(|row| row.environment == **name).cloned().collect();
            Frozen::of(&calendar, name, own, now)
        };
        Ok(names.iter().filter_map(of).collect())
    }

    /// Returns when a freeze begins or ends next after `now`; `None`: none that is known of.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn next_freeze_change(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let ends = self.freezes_at(now).await?.into_iter().filter_map(|row| row.expires_at);
        Ok(ends.chain(self.freeze_calendar().next_change(now)).min())
    }

    /// Returns whether something waits in one of these environments that nothing freezes or holds any more.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn waits_in_vain(&self, environments: &[String]) -> Result<bool, StoreError> {
        let waiting: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT environment FROM updates INDEXED BY updates_waiting WHERE state = 'waiting' AND NOT EXISTS (
                SELECT 1 FROM holds WHERE holds.environment = updates.environment
                    AND holds.repository = updates.repository AND released_at IS NULL)",
        )
        .fetch_all(&self.reads)
        .await?;
        if waiting.is_empty() {
            return Ok(false);
        }
        let frozen = self.frozen().await?;
        let is_free = |name: &&String| frozen.iter().all(|frozen| frozen.environment != **name);
        Ok(waiting.iter().filter(is_free).any(|name| environments.contains(name)))
    }

    /// Makes everything wait that a freeze keeps back and that is not on its way to the branch, and lets everything go that
    /// nothing keeps back any more: the newest of each repository, all in one transaction, so that an environment's leave as
    /// one commit. Doing it twice changes nothing.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn review_freezes(&self) -> Result<FreezeReview, StoreError> {
        self.writes.run(Review).await
    }
}

/// Returns what freezes an environment at the time of the transaction.
pub(super) async fn frozen_in(tx: &mut Transaction<'_>, environment: &str) -> Result<Option<Frozen>, sqlx::Error> {
    Ok(frozen_now(tx, [environment]).await?.remove(environment))
}

/// Returns which of the environments are frozen at the time of the transaction.
pub(super) async fn frozen_now<'a>(
    tx: &mut Transaction<'_>,
    environments: impl IntoIterator<Item = &'a str>,
) -> Result<HashMap<&'a str, Frozen>, sqlx::Error> {
    let environments: BTreeSet<&str> = environments.into_iter().collect();
    let rows: Vec<Freeze> = sqlx::query_as(
        "SELECT * FROM freezes WHERE ended_at IS NULL AND environment IN (SELECT value FROM json_each(?)) ORDER BY id",
    )
    .bind(json_text(&environments)?)
    .fetch_all(&mut *tx.connection)
    .await?;
    let frozen = |environment: &'a str| {
        let own = rows.iter().filter(|row| row.environment == environment).cloned().collect();
        Some((environment, Frozen::of(&tx.calendar, environment, own, tx.now)?))
    };
    Ok(environments.into_iter().filter_map(frozen).collect())
}

/// Returns why what comes by itself has to wait at a place: for holds, for freezes, or for both.
pub(super) async fn kept_back(tx: &mut Transaction<'_>, place: &Place<'_>) -> Result<Option<String>, sqlx::Error> {
    Ok(kept_back_at(tx, std::slice::from_ref(place)).await?.remove(place))
}

/// Returns at which of the places what comes by itself has to wait, and why.
pub(super) async fn kept_back_at<'a>(
    tx: &mut Transaction<'_>,
    places: &[Place<'a>],
) -> Result<HashMap<Place<'a>, String>, sqlx::Error> {
    let holds = holds::active_at(tx, places).await?;
    let frozen = frozen_now(tx, places.iter().map(|place| place.environment)).await?;
    let why = |place: &Place<'a>| {
        let hold = holds.get(place).map(|hold| hold.explanation());
        let frozen = frozen.get(place.environment).map(Frozen::explanation);
        let why = match (hold, frozen) {
            (Some(hold), Some(frozen)) => Some(format!("{hold}; and {frozen}")),
            (hold, frozen) => hold.or(frozen),
        };
        Some((*place, why?))
    };
    Ok(places.iter().filter_map(why).collect())
}

/// Lets what waits at a place go where nothing keeps it back any more; else says what does. Returns whether it goes.
pub(super) async fn review_place(tx: &mut Transaction<'_>, place: &Place<'_>) -> Result<bool, sqlx::Error> {
    match kept_back(tx, place).await? {
        Some(reason) => updates::wait_for(tx, place, &reason).await.map(|()| false),
        None => updates::let_go(tx, place).await.map(|()| true),
    }
}

struct Review;

impl Write for Review {
    type Output = FreezeReview;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<FreezeReview, sqlx::Error> {
        sqlx::query(
            "UPDATE freezes SET ended_at = expires_at, ended_by = 'expired' WHERE ended_at IS NULL AND expires_at <= ?",
        )
        .bind(tx.now_milliseconds())
        .execute(&mut *tx.connection)
        .await?;
        let mut review = FreezeReview::default();
        let pending: Vec<String> = sqlx::query_scalar(
            "SELECT DISTINCT environment FROM updates INDEXED BY updates_pending WHERE state = 'pending'
                AND commit_id IS NULL AND cause <> 'rollback' AND override_reason IS NULL",
        )
        .fetch_all(&mut *tx.connection)
        .await?;
        for environment in pending {
            if let Some(frozen) = frozen_in(tx, &environment).await? {
                updates::park_frozen(tx, &environment, &frozen.explanation()).await?;
                review.parked.push(environment);
            }
        }
        review.released = review_waiting(tx, None).await?;
        Ok(review)
    }
}

/// Reviews each place at which something waits, of one environment or of all. Returns the environments in which something
/// was let go.
async fn review_waiting(tx: &mut Transaction<'_>, environment: Option<&str>) -> Result<Vec<String>, sqlx::Error> {
    let places: Vec<(String, String)> = sqlx::query_as(
        "SELECT DISTINCT environment, repository FROM updates INDEXED BY updates_waiting
         WHERE state = 'waiting' AND (?1 IS NULL OR environment = ?1) ORDER BY environment, repository",
    )
    .bind(environment)
    .fetch_all(&mut *tx.connection)
    .await?;
    let mut released: Vec<String> = Vec::new();
    for (environment, repository) in places {
        let repository: Repository = repository.parse().map_err(|error| super::decode_error("repository", error))?;
        let place = Place { environment: &environment, repository: &repository };
        if review_place(tx, &place).await? && !released.contains(&environment) {
            released.push(environment);
        }
    }
    Ok(released)
}

impl Write for NewFreeze {
    type Output = Freeze;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Freeze, sqlx::Error> {
        let made = Freeze {
            id: tx.next_id(),
            environment: self.environment.clone(),
            reason: self.reason.clone(),
            actor: self.actor.clone(),
            created_at: tx.now,
            expires_at: self.expires_at,
        };
        sqlx::query(
            "INSERT INTO freezes (id, environment, reason, actor, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&made.id)
        .bind(&made.environment)
        .bind(&made.reason)
        .bind(&made.actor)
        .bind(tx.now_milliseconds())
        .bind(made.expires_at.map(Timestamp::as_millisecond))
        .execute(&mut *tx.connection)
        .await?;
        if let Some(frozen) = frozen_in(tx, &made.environment).await? {
            updates::park_frozen(tx, &made.environment, &frozen.explanation()).await?;
        }
        // What waits already waits for this one, too.
        review_waiting(tx, Some(&made.environment)).await?;
        Ok(made)
    }
}

struct EndElsewhere {
    known: Vec<String>,
}

impl Write for EndElsewhere {
    type Output = Vec<Freeze>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<Freeze>, sqlx::Error> {
        sqlx::query_as(
            "UPDATE freezes SET ended_at = ?1, ended_by = 'the settings have no such environment'
             WHERE ended_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)
                AND environment NOT IN (SELECT value FROM json_each(?2)) RETURNING *",
        )
        .bind(tx.now_milliseconds())
        .bind(serde_json::json!(self.known).to_string())
        .fetch_all(&mut *tx.connection)
        .await
    }
}

struct Thaw {
    id: String,
    actor: String,
}

impl Write for Thaw {
    type Output = Option<Freeze>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Option<Freeze>, sqlx::Error> {
        let freeze: Option<Freeze> = sqlx::query_as(
            "UPDATE freezes SET ended_at = ?1, ended_by = ?2 WHERE id = ?3 AND ended_at IS NULL
                AND (expires_at IS NULL OR expires_at > ?1) RETURNING *",
        )
        .bind(tx.now_milliseconds())
        .bind(&self.actor)
        .bind(&self.id)
        .fetch_optional(&mut *tx.connection)
        .await?;
        if let Some(freeze) = &freeze {
            review_waiting(tx, Some(&freeze.environment)).await?;
        }
        Ok(freeze)
    }
}

#[cfg(test)]
mod tests;
