use std::any::Any;
use std::time::Duration;

use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::api::{FaultView, Problem};
use crate::relay::RequestError;
use crate::settings::{Fault, Faults};
use crate::store::StoreError;
use crate::telemetry::panic_text;

impl Problem {
    /// Sets `Retry-After`.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(super::gate::whole_seconds(wait)), ..self }
    }

    /// Returns the problem of settings with faults: each in `detail` and in `faults`.
    pub(super) fn faulty_settings(faults: Faults) -> Self {
        let detail = format!(
            "the settings have faults, and the old ones stay in force: {}",
            faults.to_string().replace('\n', " | ")
        );
        let faults = faults.0.into_iter().map(Into::into).collect();
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn nothing_at(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} `{id}`"))
    }

    /// Returns the outcome of a webhook for metrics and `GET /receivers`.
    pub(super) fn outcome(&self) -> &'static str {
        match self.status {
            401 => "unauthorized",
            408 => "too_slow",
            413 => "too_large",
            429 => "rate_limited",
            503 => "unavailable",
            _ => "failed",
        }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "this needs `Authorization: Bearer` with a token of an [[api_token]]";
        Self { challenge: Some("Bearer"), ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// The exact reason is only logged, so that guessing reveals nothing.
    pub(super) fn bad_credential(challenge: &'static str) -> Self {
        let detail = "the credential is missing or wrong";
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }
}

impl From<Fault> for FaultView {
    fn from(fault: Fault) -> Self {
        let Fault { file, position, message, hint } = fault;
        let (line, column) = position.map(|position| (position.line, position.column)).unzip();
        Self { file, line, column, message, hint }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers: serialisation cannot fail.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], body)
                .into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// The reason is logged; the client only gets a 503.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "request failed: the store does not work");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not work: try again later")
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let status = match &error {
            RequestError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Unexpected { .. }
            | RequestError::GateClosed { .. }
            | RequestError::NothingInCommon { .. } => StatusCode::CONFLICT,
            RequestError::UnknownEnvironment { .. }
            | RequestError::BadGlob(_)
            | RequestError::BadRepository(_)
            | RequestError::SourceNotAllowed { .. }
            | RequestError::NoSource { .. }
            | RequestError::SourceMissing { .. }
            | RequestError::TagWithoutRepositories
            | RequestError::UnknownRepository { .. }
            | RequestError::AmbiguousRepository { .. }
            | RequestError::TagRefused(_)
            | RequestError::SeveralVersions { .. }
            | RequestError::OverrideWithoutReason
            | RequestError::NoEarlierVersion { .. }
            | RequestError::HoldTooLong
            | RequestError::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        };
        match error {
            RequestError::Store(error) => error.into(),
            error => Self::new(status, error.to_string()),
        }
    }
}

/// Names the original path: nested routes see only a part of it.
pub(super) async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

pub(super) async fn method_not_allowed(method: http::Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not support {method}", uri.path()))
}

/// Answers a panic, which is a defect, with a 500 and logs it. Other requests are not affected.
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic_text(&*panic);
    tracing::error!(panic = text, "handler panicked: please report this");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a defect in Tagrelay: details are in its log").into_response()
}
