//! `/api/v1`: one file for each kind of resource. `views` makes the wire types of rows.

mod diff;
mod environments;
mod events;
mod freezes;
mod history;
mod holds;
mod input;
mod promotions;
mod receivers;
mod registries;
mod reload;
mod rollbacks;
mod stream;
mod time;
mod views;

use axum::extract::DefaultBodyLimit;
use axum::{Json, Router};
use http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, authenticate};
use super::{App, Problem};
use input::{Body, Query};
pub use reload::{ReloadRequest, Reloads};
pub(super) use stream::OpenStreams;

/// The maximum and the default number of rows in a list.
const LIMIT: (u32, u32) = (1000, 100);

#[derive(OpenApi)]
#[openapi(
    info(title = "Tagrelay", description = "Relays image tags from registries to the repository that Argo CD watches."),
    modifiers(&BearerTokens),
    security(("bearer" = []))
)]
struct Document;

struct BearerTokens;

impl utoipa::Modify for BearerTokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The token of an [[api_token]]"));
        document
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
    }
}

fn open_api_router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(environments::list))
        .routes(routes!(events::list))
        .routes(routes!(events::show))
        .routes(routes!(events::replay))
        .routes(routes!(events::replay_all))
        .routes(routes!(promotions::list, promotions::create))
        .routes(routes!(promotions::show, promotions::cancel))
        .routes(routes!(diff::show))
        .routes(routes!(rollbacks::create))
        .routes(routes!(holds::list, holds::create))
        .routes(routes!(holds::release))
        .routes(routes!(freezes::list, freezes::create))
        .routes(routes!(freezes::thaw))
        .routes(routes!(history::list))
        .routes(routes!(receivers::list))
        .routes(routes!(registries::list))
        .routes(routes!(reload::create))
        .routes(routes!(stream::watch))
}

/// Returns the OpenAPI document of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = open_api_router().into_openapi();
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (format!("/api/v1{path}"), item)).collect();
    document
}

pub(super) fn routes(app: App) -> Router<App> {
    let (router, _) = open_api_router().split_for_parts();
    router
        // Needed here, because the outer fallback is not covered by the layers below.
        .fallback(super::problem::not_found)
        .layer(DefaultBodyLimit::max(app.0.max_body_bytes))
        // Also covers unknown routes: without a token it is not visible which routes exist.
        .layer(axum::middleware::from_fn_with_state(app, authenticate))
        // The document says nothing about this server, and clients are generated from it.
        .route("/openapi.json", axum::routing::get(open_api))
}

async fn open_api() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// Returns the number of rows to return, capped at the maximum.
fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked {
        Some(0) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("`limit` is 0: use 1 to {}, or leave it out for {}", LIMIT.0, LIMIT.1),
        )),
        asked => Ok(asked.unwrap_or(LIMIT.1).min(LIMIT.0)),
    }
}

/// Cuts a list that was read with one more row than asked for, and returns the cursor of the next page.
fn next_page<T>(rows: &mut Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Option<String> {
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    rows.last().filter(|_| has_more).map(cursor)
}

/// Parses one of a list of words. `name` appears in the error, with all words.
fn word<T: Copy>(
    name: &str,
    text: Option<&str>,
    all: &[T],
    written: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let found = all.iter().copied().find(|value| written(*value) == text);
    found.map(Some).ok_or_else(|| unknown_word(name, text, all.iter().copied().map(written)))
}

fn unknown_word(name: &str, text: &str, known: impl Iterator<Item = &'static str>) -> Problem {
    let known: Vec<String> = known.map(|word| format!("`{word}`")).collect();
    let text: String = text.chars().take(40).collect();
    let detail = format!("`{name}` is `{}`: use one of {}", text.escape_debug(), known.join(", "));
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// Parses a member or parameter. `name` appears in the error.
fn parse<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    let wrong = |error: T::Err| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("`{name}`: {error}"));
    text.parse().map_err(wrong)
}

fn parse_option<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    text.map(|text| parse(name, text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventState, RequestState, UpdateState};

    #[test]
    fn document_lists_the_states_of_the_enums() {
        let document = serde_json::to_value(document()).unwrap();
        let schemas = &document["components"]["schemas"];
        let listed = |view: &str| {
            let reference = schemas[view]["properties"]["state"]["$ref"].as_str().unwrap();
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            schemas[name]["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>()
        };
        let words = |states: &[EventState]| states.iter().map(|state| state.as_str()).collect::<Vec<_>>();
        assert_eq!(listed("EventView"), words(EventState::ALL));
        assert_eq!(listed("UpdateView"), UpdateState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>());
        assert_eq!(listed("RequestView"), RequestState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>());
    }
}
