use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row};

use super::updates::Place;
use super::writer::{Transaction, Write};
use super::{Store, StoreError, freezes, json_text, parsed, time, time_option, updates};
use crate::image::Repository;

/// A pin: automation leaves the repository in the environment alone until it is released or expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// A ULID.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The repository.
    pub repository: Repository,
    /// Why, in the words of whoever made it.
    pub reason: Option<String>,
    /// The name of the API token that made it.
    pub actor: String,
    /// The rollback that made it.
    pub request_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Hold {
    /// Returns why something waits for this hold, and what to do about it.
    pub fn explanation(&self) -> String {
        let mut text = format!("held by {} ({}", self.id, self.actor);
        if let Some(reason) = &self.reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        match self.expires_at {
            Some(until) => text.push_str(&format!(") until {until:.0}; release the hold to let it go earlier")),
            None => text.push_str("); release the hold to let it go"),
        }
        text
    }
}

impl FromRow<'_, SqliteRow> for Hold {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            environment: row.try_get("environment")?,
            repository: parsed(row, "repository")?,
            reason: row.try_get("reason")?,
            actor: row.try_get("actor")?,
            request_id: row.try_get("request_id")?,
            created_at: time(row, "created_at")?,
            expires_at: time_option(row, "expires_at")?,
        })
    }
}

/// A hold that is to be made.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// The environment.
    pub environment: String,
    /// The repository.
    pub repository: Repository,
    /// Why.
    pub reason: Option<String>,
    /// The name of the API token.
    pub actor: String,
    /// When it ends by itself; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Store {
    /// Makes a hold. What is pending from push events for its place waits from now on.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn hold(&self, hold: NewHold) -> Result<Hold, StoreError> {
        self.writes.run(hold).await
    }

    /// Releases a hold: the newest update that waited for it goes, the others are superseded. Returns the hold
    /// as it was, or `None` when there is no active hold of that id.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn release_hold(&self, id: &str, actor: &str) -> Result<Option<Hold>, StoreError> {
        self.writes.run(Release { id: id.to_owned(), actor: actor.to_owned() }).await
    }

    /// Ends the holds that have expired, as [`Store::release_hold`] does. Returns how many.
    ///
    /// # Errors
    ///
    /// When it could not be stored.
    pub async fn expire_holds(&self) -> Result<usize, StoreError> {
        let due = self.next_hold_expiry().await?;
        match due {
            // Asked first on the read side: idle costs no write.
            Some(at) if at <= self.clock.now() => self.writes.run(Expire).await,
            _ => Ok(0),
        }
    }

    /// Returns when the next hold expires.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn next_hold_expiry(&self) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<i64> = sqlx::query_scalar("SELECT min(expires_at) FROM holds WHERE released_at IS NULL")
            .fetch_one(&self.reads)
            .await?;
        Ok(at.and_then(|at| Timestamp::from_millisecond(at).ok()))
    }

    /// Returns the holds that are active, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let holds = sqlx::query_as(
            "SELECT * FROM holds WHERE released_at IS NULL AND (expires_at IS NULL OR expires_at > ?) ORDER BY id",
        )
        .bind(self.clock.now().as_millisecond())
        .fetch_all(&self.reads)
        .await?;
        Ok(holds)
    }
}

impl Write for NewHold {
    type Output = Hold;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Hold, sqlx::Error> {
        make(tx, self, None).await
    }
}

/// Inserts a hold. What is open from push events for its place waits, or ends where a rollback makes the hold.
pub(super) async fn make(
    tx: &mut Transaction<'_>,
    hold: &NewHold,
    request_id: Option<&str>,
) -> Result<Hold, sqlx::Error> {
    let made = Hold {
        id: tx.next_id(),
        environment: hold.environment.clone(),
        repository: hold.repository.clone(),
        reason: hold.reason.clone(),
        actor: hold.actor.clone(),
        request_id: request_id.map(str::to_owned),
        created_at: tx.now,
        expires_at: hold.expires_at,
    };
    sqlx::query(
        "INSERT INTO holds (id, environment, repository, reason, actor, request_id, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&made.id)
    .bind(&made.environment)
    .bind(made.repository.as_str())
    .bind(&made.reason)
    .bind(&made.actor)
    .bind(&made.request_id)
    .bind(tx.now_milliseconds())
    .bind(made.expires_at.map(Timestamp::as_millisecond))
    .execute(&mut *tx.connection)
    .await?;
    let place = Place { environment: &made.environment, repository: &made.repository };
    match request_id {
        // What came before a rollback must not come back when the hold ends.
        Some(request_id) => updates::supersede_open(tx, &place, request_id).await?,
        None => updates::park_pending(tx, &place, &made.explanation()).await?,
    }
    Ok(made)
}

/// Returns of each place the hold that ends last.
pub(super) async fn active_at<'a>(
    tx: &mut Transaction<'_>,
    places: &[Place<'a>],
) -> Result<HashMap<Place<'a>, Hold>, sqlx::Error> {
    let wanted: Vec<_> = places.iter().map(|place| (place.environment, place.repository.as_str())).collect();
    let holds: Vec<Hold> = sqlx::query_as(
        "SELECT holds.* FROM json_each(?1) AS wanted CROSS JOIN holds
            ON environment = wanted.value ->> 0 AND repository = wanted.value ->> 1
         WHERE released_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)
         ORDER BY coalesce(expires_at, 9223372036854775807)",
    )
    .bind(json_text(&wanted)?)
    .bind(tx.now_milliseconds())
    .fetch_all(&mut *tx.connection)
    .await?;
    let known: HashMap<(&str, &str), Place<'a>> = wanted.into_iter().zip(places.iter().copied()).collect();
    let of = |hold: Hold| Some((*known.get(&(hold.environment.as_str(), hold.repository.as_str()))?, hold));
    Ok(holds.into_iter().filter_map(of).collect())
}

struct Release {
    id: String,
    actor: String,
}

impl Write for Release {
    type Output = Option<Hold>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Option<Hold>, sqlx::Error> {
        let hold: Option<Hold> = sqlx::query_as("SELECT * FROM holds WHERE id = ? AND released_at IS NULL")
            .bind(&self.id)
            .fetch_optional(&mut *tx.connection)
            .await?;
        if let Some(hold) = &hold {
            end(tx, hold, &self.actor).await?;
        }
        Ok(hold)
    }
}

struct Expire;

impl Write for Expire {
    type Output = usize;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<usize, sqlx::Error> {
        let expired: Vec<Hold> = sqlx::query_as("SELECT * FROM holds WHERE released_at IS NULL AND expires_at <= ?")
            .bind(tx.now_milliseconds())
            .fetch_all(&mut *tx.connection)
            .await?;
        for hold in &expired {
            end(tx, hold, "expired").await?;
        }
        Ok(expired.len())
    }
}

/// Ends the holds that these rollbacks made, because they did not happen.
pub(super) async fn end_of_requests(tx: &mut Transaction<'_>, request_ids: &[&String]) -> Result<(), sqlx::Error> {
    let holds: Vec<Hold> = sqlx::query_as(
        "SELECT * FROM holds WHERE released_at IS NULL AND request_id IN (SELECT value FROM json_each(?))",
    )
    .bind(json_text(request_ids)?)
    .fetch_all(&mut *tx.connection)
    .await?;
    for hold in &holds {
        end(tx, hold, "the rollback did not happen").await?;
    }
    Ok(())
}

/// Ends the holds that earlier rollbacks have made at the places of these updates of rollbacks, because these have happened:
/// their holds keep the places.
pub(super) async fn replace_earlier(tx: &mut Transaction<'_>, update_ids: &[&String]) -> Result<(), sqlx::Error> {
    if update_ids.is_empty() {
        return Ok(());
    }
    let earlier: Vec<Hold> = sqlx::query_as(
        "SELECT holds.* FROM updates JOIN holds
            ON holds.environment = updates.environment AND holds.repository = updates.repository
         WHERE updates.id IN (SELECT value FROM json_each(?)) AND holds.released_at IS NULL AND holds.request_id < updates.cause_id",
    )
    .bind(json_text(update_ids)?)
    .fetch_all(&mut *tx.connection)
    .await?;
    for hold in &earlier {
        end(tx, hold, "a later rollback").await?;
    }
    Ok(())
}

async fn end(tx: &mut Transaction<'_>, hold: &Hold, by: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE holds SET released_at = ?, released_by = ? WHERE id = ?")
        .bind(tx.now_milliseconds())
        .bind(by)
        .bind(&hold.id)
        .execute(&mut *tx.connection)
        .await?;
    let place = Place { environment: &hold.environment, repository: &hold.repository };
    // A freeze may keep it back still, or another hold.
    freezes::review_place(tx, &place).await.map(|_| ())
}
