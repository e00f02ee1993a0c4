//! SQL texts. Each text is a static of [`statements!`], so that a test can prepare all of them on PostgreSQL.
//!
//! A text may hold one marker for several values:
//!
//! - `{list}` becomes `($1, $2, …)`, for `IN`;
//! - `{rows:TI}` becomes `(CAST($1 AS TEXT), CAST($2 AS BIGINT)), ($3, $4), …`, for `VALUES`. `T` stands for text, `I` for integers.
//!
//! The marker gets the first numbers, and the numbers of the other parameters are moved up. For SQLite, the marker has `?` without
//! numbers: SQLite searches the list of all parameters for each numbered parameter, which takes quadratic time.
//!
//! The numbers of entries are powers of two, so that the driver's cache can hold all texts. Missing entries are filled in: a list
//! repeats its last value, and rows get `NULL`, which a statement skips because its first column is a key.

use std::sync::OnceLock;

use sqlx::FromRow;

use super::database::{Arguments, Connection, DIALECT, Dialect, Driver, Row, Value};
use tagrelay_image::{Digest, Repository, Tag};

/// The maximum number of rows in one statement. Limits the memory of a prepared statement.
const MAX_ROWS: usize = 256;

const SIZES: [usize; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384];

/// The maximum number of entries in one statement, for a list that may be split into chunks.
const MAX_CHUNK: usize = 1024;

/// Declares statements, and lists them for the tests.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = ($($text:tt)*);)*) => {
        $($(#[$meta])* static $name: $crate::store::statements::Statement =
            $crate::store::statements::Statement::new(concat!($($text)*));)*

        #[cfg(test)]
        pub(super) static STATEMENTS: &[$crate::store::statements::Listed] =
            &[$((module_path!(), stringify!($name), &$name)),*];
    };
}
pub(super) use statements;

/// Makes a list of parameters.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::database::Value::from($value)),*] };
}
pub(super) use values;

/// The module and the name of a statement.
#[cfg(test)]
pub(super) type Listed = (&'static str, &'static str, &'static Statement);

/// A statement text.
pub(super) struct Statement {
    text: &'static str,
    shapes: [OnceLock<String>; SIZES.len()],
}

impl Statement {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, shapes: [const { OnceLock::new() }; SIZES.len()] }
    }

    pub(super) async fn execute(&'static self, on: &mut Connection, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        let query = sqlx::query_with::<Driver, _>(self.text, arguments(values)?);
        Ok(query.execute(on).await?.rows_affected())
    }

    pub(super) async fn all<T>(&'static self, on: &mut Connection, values: Vec<Value>) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        sqlx::query_as_with::<Driver, T, _>(self.text, arguments(values)?).fetch_all(on).await
    }

    pub(super) async fn optional<T>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
    ) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        sqlx::query_as_with::<Driver, T, _>(self.text, arguments(values)?).fetch_optional(on).await
    }

    pub(super) async fn one<T>(&'static self, on: &mut Connection, values: Vec<Value>) -> Result<T, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        sqlx::query_as_with::<Driver, T, _>(self.text, arguments(values)?).fetch_one(on).await
    }

    /// Runs a statement with a `{list}`, in chunks.
    ///
    /// The rows of a chunk keep their order. The caller must remove duplicates.
    pub(super) async fn all_of<T, V: Into<Value>>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        let mut found = Vec::new();
        for (shape, values) in self.lists(values, list) {
            let query = sqlx::query_as_with::<Driver, T, _>(shape, arguments(values)?);
            found.append(&mut query.fetch_all(&mut *on).await?);
        }
        Ok(found)
    }

    /// Runs a statement with a `{list}` that returns nothing.
    pub(super) async fn execute_of<V: Into<Value>>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> Result<u64, sqlx::Error> {
        let mut affected = 0;
        for (shape, values) in self.lists(values, list) {
            let query = sqlx::query_with::<Driver, _>(shape, arguments(values)?);
            affected += query.execute(&mut *on).await?.rows_affected();
        }
        Ok(affected)
    }

    /// Runs a statement with a `{list}` that is not split: for `NOT IN`, counts and limits.
    ///
    /// The list may be empty, and has at most 16,384 entries.
    pub(super) async fn all_of_whole<T, V: Into<Value>>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        let (shape, values) = self.whole(values, list);
        sqlx::query_as_with::<Driver, T, _>(shape, arguments(values)?).fetch_all(on).await
    }

    /// Does the same as [`Self::all_of_whole`], for a statement that returns nothing.
    pub(super) async fn execute_of_whole<V: Into<Value>>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> Result<u64, sqlx::Error> {
        let (shape, values) = self.whole(values, list);
        let query = sqlx::query_with::<Driver, _>(shape, arguments(values)?);
        Ok(query.execute(on).await?.rows_affected())
    }

    /// Runs a statement with `{rows:…}`, in chunks.
    pub(super) async fn all_rows<T>(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, Row> + Send + Unpin,
    {
        let mut found = Vec::new();
        for (shape, values) in self.rows(&values, rows) {
            let query = sqlx::query_as_with::<Driver, T, _>(shape, arguments(values)?);
            found.append(&mut query.fetch_all(&mut *on).await?);
        }
        Ok(found)
    }

    /// Runs a statement with `{rows:…}` that returns nothing.
    pub(super) async fn execute_rows(
        &'static self,
        on: &mut Connection,
        values: Vec<Value>,
        rows: Vec<Vec<Value>>,
    ) -> Result<(), sqlx::Error> {
        for (shape, values) in self.rows(&values, rows) {
            sqlx::query_with::<Driver, _>(shape, arguments(values)?).execute(&mut *on).await?;
        }
        Ok(())
    }

    fn lists<V: Into<Value>>(
        &'static self,
        values: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> Vec<(&'static str, Vec<Value>)> {
        let list: Vec<Value> = list.into_iter().map(Into::into).collect();
        list.chunks(MAX_CHUNK).map(|chunk| self.whole(values.clone(), chunk.iter().cloned())).collect()
    }

    fn whole<V: Into<Value>>(
        &'static self,
        fixed: Vec<Value>,
        list: impl IntoIterator<Item = V>,
    ) -> (&'static str, Vec<Value>) {
        let mut values: Vec<Value> = list.into_iter().map(Into::into).collect();
        // An empty list is filled with the empty string, which is not the id or name of anything.
        let fill = values.last().cloned().unwrap_or(Value::Text(Some(String::new())));
        let wanted = values.len().max(1);
        let size = SIZES.iter().position(|size| *size >= wanted).unwrap_or(SIZES.len() - 1);
        values.resize(SIZES[size].max(wanted), fill);
        values.extend(fixed);
        (self.shape(size), values)
    }

    fn rows(&'static self, fixed: &[Value], rows: Vec<Vec<Value>>) -> Vec<(&'static str, Vec<Value>)> {
        let mut chunks = Vec::new();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let chunk: Vec<Vec<Value>> = rows.by_ref().take(MAX_ROWS).collect();
            let size = SIZES.iter().position(|size| *size >= chunk.len()).unwrap_or(SIZES.len() - 1);
            let missing = SIZES[size] - chunk.len();
            let null = chunk.last().map(|row| row.iter().map(Value::null).collect::<Vec<_>>()).unwrap_or_default();
            let mut all: Vec<Value> = Vec::with_capacity(SIZES[size] * null.len() + fixed.len());
            all.extend(chunk.into_iter().flatten());
            all.extend(std::iter::repeat_n(null, missing).flatten());
            all.extend_from_slice(fixed);
            chunks.push((self.shape(size), all));
        }
        chunks
    }

    fn shape(&'static self, size: usize) -> &'static str {
        self.shapes[size].get_or_init(|| self.render(SIZES[size], DIALECT))
    }

    /// Returns the text with its marker replaced by this number of entries.
    pub(super) fn render(&self, entries: usize, dialect: Dialect) -> String {
        let Some((before, rest)) = self.text.split_once('{') else { return self.text.to_owned() };
        let Some((marker, after)) = rest.split_once('}') else { return self.text.to_owned() };
        let types = marker.strip_prefix("rows:").map(str::as_bytes);
        let moved_by = entries * types.map_or(1, <[u8]>::len);
        let mut text = moved(before, moved_by);
        match types {
            None => {
                let parameters: Vec<String> = (1..=entries).map(|number| dialect.parameter(number)).collect();
                text.push_str(&format!("({})", parameters.join(", ")));
            }
            Some(types) => {
                let rows: Vec<String> = (0..entries).map(|row| row_of(row, types, dialect)).collect();
                text.push_str(&rows.join(", "));
            }
        }
        text.push_str(&moved(after, moved_by));
        text
    }
}

/// Returns a row of `VALUES`. Only the first row has types, because the others take them over.
fn row_of(row: usize, types: &[u8], dialect: Dialect) -> String {
    let columns = types.iter().enumerate().map(|(column, kind)| {
        let parameter = dialect.parameter(row * types.len() + column + 1);
        match (row, kind) {
            (0, b'T') => format!("CAST({parameter} AS TEXT)"),
            (0, _) => format!("CAST({parameter} AS BIGINT)"),
            _ => parameter,
        }
    });
    format!("({})", columns.collect::<Vec<_>>().join(", "))
}

/// Adds `by` to the number of each parameter in an SQL text: with 2, `$1` becomes `$3`.
fn moved(text: &str, by: usize) -> String {
    let mut parts = text.split('$');
    let mut moved = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number: usize = part[..end].parse().unwrap_or(0);
        moved.push_str(&format!("${}{}", number + by, &part[end..]));
    }
    moved
}

fn arguments(values: Vec<Value>) -> Result<Arguments, sqlx::Error> {
    let mut arguments = Arguments::default();
    for value in values {
        value.add_to(&mut arguments)?;
    }
    Ok(arguments)
}

impl Value {
    fn null(&self) -> Self {
        match self {
            Self::Text(_) | Self::Bytes(_) => Self::Text(None),
            Self::Integer(_) => Self::Integer(None),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<&&str> for Value {
    fn from(text: &&str) -> Self {
        Self::Text(Some((*text).to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(Some(i64::from(number)))
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Integer(Some(i64::from(yes)))
    }
}

impl From<jiff::Timestamp> for Value {
    fn from(at: jiff::Timestamp) -> Self {
        Self::Integer(Some(at.as_millisecond()))
    }
}

impl From<Option<jiff::Timestamp>> for Value {
    fn from(at: Option<jiff::Timestamp>) -> Self {
        Self::Integer(at.map(jiff::Timestamp::as_millisecond))
    }
}

impl From<&Repository> for Value {
    fn from(repository: &Repository) -> Self {
        repository.as_str().into()
    }
}

impl From<Option<&Repository>> for Value {
    fn from(repository: Option<&Repository>) -> Self {
        repository.map(Repository::as_str).into()
    }
}

impl From<Option<&Tag>> for Value {
    fn from(tag: Option<&Tag>) -> Self {
        tag.map(Tag::as_str).into()
    }
}

impl From<&Digest> for Value {
    fn from(digest: &Digest) -> Self {
        digest.as_str().into()
    }
}

impl From<Option<&Digest>> for Value {
    fn from(digest: Option<&Digest>) -> Self {
        digest.map(Digest::as_str).into()
    }
}
