use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{App, Caller, Problem, Query};
use crate::api::{DiffState, DiffView, DiffedView, Direction};
use crate::relay::{DiffRow, DiffRowKind};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Environments {
    /// The environment whose versions would be taken.
    from: String,
    /// The environment that would change.
    to: String,
}

/// The repositories that a promotion would move: old and new version, newer or older, and why it skips others.
#[utoipa::path(get, path = "/diff", params(Environments), responses(
    (status = 200, body = DiffView),
    (status = 422, body = Problem, content_type = "application/problem+json"),
    (status = 503, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Query(between): Query<Environments>,
) -> Result<Json<DiffView>, Problem> {
    caller.must_read()?;
    let difference = app.0.relay.difference(&between.from, &between.to).await?;
    Ok(Json(DiffView {
        from: difference.from,
        to: difference.to,
        allowed: difference.is_allowed,
        repositories: difference.rows.into_iter().map(Into::into).collect(),
    }))
}

impl From<DiffRow> for DiffedView {
    fn from(row: DiffRow) -> Self {
        let view = Self {
            repository: row.repository.to_string(),
            state: DiffState::Same.into(),
            old: row.old.iter().map(Into::into).collect(),
            new: row.new.iter().map(Into::into).collect(),
            direction: None,
            decided_by: None,
            commits: None,
            source: None,
            reason: None,
        };
        match row.what {
            DiffRowKind::Same => view,
            DiffRowKind::Skipped { reason } => Self { state: DiffState::Skipped.into(), reason: Some(reason), ..view },
            DiffRowKind::Moves { direction, commits, source } => Self {
                state: DiffState::Moves.into(),
                direction: Some(Direction::from(direction).into()),
                decided_by: direction.criterion().map(|criterion| criterion.as_str().to_owned()),
                commits: commits.and_then(|commits| u64::try_from(commits).ok()),
                source,
                ..view
            },
        }
    }
}
