//! Bodies and query parameters. Their errors name the member, the value that it has and the values that it takes.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::{App, Caller, Problem};
use crate::access::Permission;
use crate::api::{FreezeBody, HoldBody, PromotionBody, ReplayFilter, RollbackBody};

mod value;

use value::Input;

/// A JSON body. An invalid one is rejected with a [`Problem`].
pub(super) struct Body<T>(pub(super) T);

/// Query parameters. Invalid ones are rejected with a [`Problem`].
pub(super) struct Query<T>(pub(super) T);

/// The longest time to read a body.
const BODY_TIME: Duration = Duration::from_secs(15);

/// A body, and who may send it. That is checked before it is read: a token without the permission must not occupy a connection.
pub(super) trait RequestBody: DeserializeOwned {
    /// Returns a 403 if the caller may send no such body, whatever is in it.
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem>;
}

impl RequestBody for PromotionBody {
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem> {
        // A dry run needs no more than `read`.
        caller.must_read().or_else(|_| caller.must_somewhere(&[Permission::Promote, Permission::Rollback]))
    }
}

impl RequestBody for RollbackBody {
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem> {
        caller.must_read().or_else(|_| caller.must_somewhere(&[Permission::Rollback, Permission::Promote]))
    }
}

impl RequestBody for HoldBody {
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem> {
        caller.must_somewhere(&[Permission::Hold])
    }
}

impl RequestBody for FreezeBody {
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem> {
        caller.must_somewhere(&[Permission::Freeze])
    }
}

impl RequestBody for ReplayFilter {
    fn may_be_sent_by(caller: &Caller) -> Result<(), Problem> {
        caller.must(&Permission::Replay)
    }
}

impl<T: RequestBody> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        T::may_be_sent_by(request.extensions().get::<Caller>().ok_or_else(Problem::unauthorized)?)?;
        if !is_json(request.headers()) {
            let detail = "the body must be JSON: send the header `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let reading = tokio::time::timeout(BODY_TIME, axum::body::Bytes::from_request(request, app)).await;
        let reading =
            reading.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 15 seconds"));
        let bytes = reading?.map_err(|rejection| {
            let detail = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    format!("the body is larger than max_body_bytes ({})", app.0.max_body_bytes)
                }
                _ => "the body is incomplete".to_owned(),
            };
            Problem::new(rejection.status(), detail)
        })?;
        read_body(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn read_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let detail = match error.classify() {
            serde_json::error::Category::Eof => {
                format!("the body is not JSON: it ends too early, in line {line}, column {column}")
            }
            _ => format!("the body is not JSON: there is a mistake in line {line}, column {column}"),
        };
        Problem::bad_request(detail)
    })?;
    T::deserialize(Input::Json(&value))
        .map_err(|fault| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, fault.describe("member")))
}

/// The most characters of a reason: it is copied into commits, log lines and answers.
const LONGEST_REASON: usize = 1000;

/// Checks the length of a reason.
pub(super) fn reason(text: Option<String>) -> Result<Option<String>, Problem> {
    match text.as_ref().map(|text| text.chars().count()) {
        Some(length) if length > LONGEST_REASON => {
            let detail = format!("`reason` has {length} characters: give at most {LONGEST_REASON}");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
        }
        _ => Ok(text),
    }
}

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &App) -> Result<Self, Problem> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect();
    for (index, (name, _)) in pairs.iter().enumerate() {
        if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
            let detail = format!("the parameter `{}` is given twice", value::shown(name));
            return Err(Problem::bad_request(detail));
        }
    }
    T::deserialize(Input::Pairs(&pairs)).map_err(|fault| Problem::bad_request(fault.describe("parameter")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    fn body<T: DeserializeOwned>(json: &str) -> String {
        read_body::<T>(json.as_bytes()).err().map_or_else(String::new, |problem| problem.detail)
    }

    #[test]
    fn wrong_member_is_named_with_what_it_takes() {
        for (json, expected) in [
            (r#"{"to": 3}"#, "`to` is the number 3: it takes a text"),
            (r#"{"to": null}"#, "`to` is null: it takes a text"),
            (r#"{}"#, "the member `to` is missing"),
            (r#"{"to": "a", "dry_run": "yes"}"#, "`dry_run` is the text \"yes\": it takes true or false"),
            (r#"{"to": "a", "repositories": "b"}"#, "`repositories` is the text \"b\": it takes a list"),
            (r#"{"to": "a", "repositories": ["b", 4]}"#, "`repositories[1]` is the number 4: it takes a text"),
            (r#"{"to": "a", "expect": {"x": 1}}"#, "`expect.x` is the number 1: it takes a text"),
            (r#"{"to": "a", "expect": ["x"]}"#, "`expect` is a list: it takes an object"),
            (r#"["to"]"#, "the body is a list: it takes an object"),
            (
                r#"{"to": "a", "form": "b"}"#,
                "there is no member `form`: use `to`, `from`, `repositories`, `tag`, `expect`, `dry_run`, `reason`, `override` or `wait`",
            ),
            (r#"{"to": "#, "the body is not JSON: it ends too early, in line 1, column 7"),
            (r#"{to}"#, "the body is not JSON: there is a mistake in line 1, column 2"),
        ] {
            assert_eq!(body::<PromotionBody>(json), expected, "{json}");
        }
        assert_eq!(body::<ReplayFilter>(r#"{"limit": "3"}"#), "`limit` is the text \"3\": it takes a whole number");
        assert_eq!(body::<ReplayFilter>(r#"{"limit": -1}"#), "`limit` is the number -1: it takes a whole number");
        assert_eq!(body::<ReplayFilter>(r#"{"limit": null}"#), "");
        let long = format!(r#"{{"environment": "a", "repository": ["{}"]}}"#, "x".repeat(500));
        assert_eq!(body::<HoldBody>(&long), "`repository` is a list: it takes a text");
    }

    #[test]
    fn valid_body_is_read() {
        let json = r#"{"to":"p","expect":{"a":"1"},"dry_run":true,"repositories":["a"],"override":true}"#;
        let body: PromotionBody = read_body(json.as_bytes()).unwrap();
        assert_eq!((body.to.as_str(), body.dry_run, body.overrides), ("p", true, true));
        assert_eq!(body.expect, BTreeMap::from([("a".to_owned(), "1".to_owned())]));
        assert_eq!(body.repositories, Some(vec!["a".to_owned()]));
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        name: Option<String>,
        limit: Option<u32>,
        held: Option<bool>,
    }

    #[test]
    fn query_is_read_and_unknown_parameters_are_rejected() {
        let read = |query: &str| read_query::<Parameters>(query).map_err(|problem| problem.detail);
        let parameters = Parameters { name: Some("a b".to_owned()), limit: Some(3), held: Some(true) };
        assert_eq!(read("name=a+b&limit=3&held=true"), Ok(parameters));
        assert_eq!(read(""), Ok(Parameters { name: None, limit: None, held: None }));
        for (query, expected) in [
            ("limit=many", "`limit` is the text \"many\": it takes a whole number"),
            ("limit=-1", "`limit` is the text \"-1\": it takes a whole number"),
            ("held=1", "`held` is the text \"1\": it takes true or false"),
            ("state=x", "there is no parameter `state`: use `name`, `limit` or `held`"),
            ("limit=1&limit=2", "the parameter `limit` is given twice"),
        ] {
            assert_eq!(read(query), Err(expected.to_owned()), "{query}");
        }
    }
}
