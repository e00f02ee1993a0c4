use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::{Method, header};
use serde_json::json;

use super::problem::Problem;
use super::{Asked, Shared};

/// Limit of tags per page.
const MAX_PAGE: usize = 1000;

/// `GET /tags/list` in pages: `n` tags after `last`, with a `Link` to the next page if there is one.
pub(crate) fn answer(shared: &Shared, asked: &Asked, repository: &str) -> Result<Response, Problem> {
    if asked.method != Method::GET {
        return Err(Problem::method_not_allowed());
    }
    let limit = match asked.parameter("n") {
        Some(text) => text.parse::<usize>().map_err(|_| Problem::pagination(&text))?.min(MAX_PAGE),
        None => MAX_PAGE,
    };
    let last = asked.parameter("last").unwrap_or_default();
    let (tags, more) = shared.storage().tags(repository, &last, limit)?;
    let next = tags.last().filter(|_| more).map(|last| {
        // Tags and repository names need no escapes in a query.
        format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\"")
    });
    let mut response = Json(json!({ "name": repository, "tags": tags })).into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}
