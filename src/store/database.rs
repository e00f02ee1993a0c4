//! The SQLite connection: the only file that names types of the SQL driver.

use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments as _, ConnectOptions as _, Connection as _};
use std::path::Path;
use std::time::Duration;

pub(super) type Driver = sqlx::Sqlite;
pub(super) type Connection = SqliteConnection;
pub(super) type Pool = SqlitePool;
pub(super) type Row = SqliteRow;
pub(super) type Arguments = SqliteArguments;

/// How a database writes the parameters of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `?`: the driver numbers these parameters from 1, and does not count numbered parameters.
    Sqlite,
    /// `$1`
    #[cfg_attr(not(test), expect(dead_code, reason = "the second database; a test prepares all statements in it"))]
    Postgres,
}

impl Dialect {
    pub(super) fn parameter(self, number: usize) -> String {
        match self {
            Self::Sqlite => "?".to_owned(),
            Self::Postgres => format!("${number}"),
        }
    }
}

pub(super) const DIALECT: Dialect = Dialect::Sqlite;

/// The number of cached statements; more than a flood of webhooks uses.
const STATEMENT_CACHE: usize = 200;

/// The capacity in rows between the driver's thread and the reader; most answers have fewer rows.
const ROW_BUFFER: usize = 1024;

pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// A value of a parameter.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Bytes(Vec<u8>),
}

impl Value {
    pub(super) fn add_to(self, arguments: &mut Arguments) -> Result<(), sqlx::Error> {
        let added = match self {
            Self::Text(text) => arguments.add(text),
            Self::Integer(number) => arguments.add(number),
            Self::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(sqlx::Error::Encode)
    }
}

/// Opens the connection of the writer and the pool of the readers, and applies the migrations.
pub(super) async fn open(path: &Path) -> Result<(Connection, Pool), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL would lose the last commits after a power failure. A write that was answered must be durable.
        .synchronous(SqliteSynchronous::Full)
        // No other process writes, except a tool with which a person opens the file.
        .busy_timeout(Duration::from_secs(2))
        .statement_cache_capacity(STATEMENT_CACHE)
        // The driver's thread stops each time the buffer is full.
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging();
    let mut connection = Connection::connect_with(&options).await?;
    MIGRATIONS.run(&mut connection).await?;
    let reads = SqlitePoolOptions::new()
        .max_connections(4)
        .idle_timeout(Duration::from_secs(60))
        // SQLite has no server that could disconnect, and a ping would cost as much as a read.
        .test_before_acquire(false)
        .connect_with(options.read_only(true))
        .await?;
    Ok((connection, reads))
}

/// Begins a transaction that writes.
pub(super) async fn begin(connection: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await.map(|_| ())
}

/// Commits the transaction. It is on disk when this returns.
pub(super) async fn commit(connection: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query("COMMIT").execute(connection).await.map(|_| ())
}

/// Rolls the transaction back. A failure means that the database has already ended the transaction.
pub(super) async fn roll_back(connection: &mut Connection) {
    let _ = sqlx::query("ROLLBACK").execute(connection).await;
}
