use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a client should wait after a 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

/// An error in the format of RFC 9457, sent as `application/problem+json`.
///
/// Parsing is lenient, because other servers and proxies omit members.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`, because the status identifies the kind of problem.
    #[serde(rename = "type", default)]
    #[schema(required)]
    pub kind: String,
    /// The standard text of the status.
    #[serde(default)]
    #[schema(required)]
    pub title: String,
    #[serde(default)]
    #[schema(required)]
    pub status: u16,
    /// The fault, and how to correct it.
    #[serde(default)]
    #[schema(required)]
    pub detail: String,
    /// The faults in the settings, if the request was a reload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultView>,
    /// Sent as the header `WWW-Authenticate` of a 401.
    #[serde(skip)]
    pub challenge: Option<&'static str>,
    /// Sent as the header `Retry-After`, in seconds.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

/// A fault in the settings. Its text never contains a secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FaultView {
    /// The settings file, as it was named on the command line.
    pub file: String,
    /// Counted from 1. Left out if the fault is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// In characters, counted from 1. Left out if the fault is about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    pub message: String,
    /// The correction.
    pub hint: Option<String>,
}

impl Problem {
    /// Returns the problem of a status. A 503 asks the client to retry after 5 seconds.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            faults: Vec::new(),
            challenge: None,
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
        }
    }
}
