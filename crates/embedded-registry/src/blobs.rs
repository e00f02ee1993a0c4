use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, header};

use super::notify::Pushed;
use super::problem::Problem;
use super::target::digest_of;
use super::{Asked, MAX_BLOB_BYTES, Shared, read};
use tagrelay_image::Digest;

/// The media type of blobs.
const BLOB_MEDIA_TYPE: &str = "application/octet-stream";

/// `GET` and `HEAD` of a blob.
pub(crate) fn answer(shared: &Shared, asked: &Asked, repository: &str, digest: &Digest) -> Result<Response, Problem> {
    if !matches!(asked.method, Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed());
    }
    let bytes = shared.storage().blob(repository, digest)?;
    Ok(content(asked, BLOB_MEDIA_TYPE, digest, bytes))
}

/// Returns the answer to a `GET` or `HEAD` of content with a digest.
pub(crate) fn content(asked: &Asked, media_type: &str, digest: &Digest, bytes: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
        (header::ETAG, format!("\"{digest}\"")),
        (header::HeaderName::from_static("docker-content-digest"), digest.to_string()),
    ];
    let body = if asked.method == Method::HEAD { Body::empty() } else { Body::from(bytes) };
    (headers, body).into_response()
}

/// `POST /blobs/uploads/`: starts an upload, or stores a whole blob if the query has its digest.
///
/// A request to mount a blob of another repository starts an upload, as the specification allows.
pub(crate) async fn begin(shared: &Shared, asked: &Asked, repository: &str, body: Body) -> Result<Response, Problem> {
    if asked.method != Method::POST {
        return Err(Problem::method_not_allowed());
    }
    let digest = asked.parameter("digest").map(|text| digest_of(&text)).transpose()?;
    let bytes = read(body, MAX_BLOB_BYTES).await?;
    let id = shared.storage().begin_upload(repository)?;
    let Some(digest) = digest else { return Ok(progress(StatusCode::ACCEPTED, repository, &id, 0)) };
    let appended = shared.storage().append(repository, &id, None, &bytes).map(drop);
    finish(shared, asked, repository, &id, &digest, appended)
}

/// The requests to a started upload.
pub(crate) async fn resume(
    shared: &Shared,
    asked: &Asked,
    repository: &str,
    id: &str,
    body: Body,
) -> Result<Response, Problem> {
    match asked.method {
        Method::GET => {
            let length = shared.storage().append(repository, id, None, &[])?;
            Ok(progress(StatusCode::NO_CONTENT, repository, id, length))
        }
        Method::PATCH => {
            let start = asked.header(header::CONTENT_RANGE).map(start_of).transpose()?;
            let bytes = read(body, MAX_BLOB_BYTES).await?;
            let length = shared.storage().append(repository, id, start, &bytes)?;
            Ok(progress(StatusCode::ACCEPTED, repository, id, length))
        }
        Method::PUT => {
            let digest = asked.parameter("digest").ok_or_else(|| Problem::digest_invalid("digest is missing"))?;
            let digest = digest_of(&digest)?;
            let start = asked.header(header::CONTENT_RANGE).map(start_of).transpose()?;
            let bytes = read(body, MAX_BLOB_BYTES).await?;
            let appended = shared.storage().append(repository, id, start, &bytes).map(drop);
            finish(shared, asked, repository, id, &digest, appended)
        }
        Method::DELETE => {
            shared.storage().cancel(repository, id)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Problem::method_not_allowed()),
    }
}

fn finish(
    shared: &Shared,
    asked: &Asked,
    repository: &str,
    id: &str,
    digest: &Digest,
    appended: Result<(), Problem>,
) -> Result<Response, Problem> {
    appended?;
    let length = shared.storage().finish(repository, id, digest)?;
    let pushed = Pushed { media_type: BLOB_MEDIA_TYPE, digest, size: length, repository, kind: "blobs", tag: None };
    shared.notify(asked, pushed);
    Ok(created(format!("/v2/{repository}/blobs/{digest}"), digest))
}

/// Returns the answer to a complete push.
pub(crate) fn created(location: String, digest: &Digest) -> Response {
    let digest = (header::HeaderName::from_static("docker-content-digest"), digest.to_string());
    (StatusCode::CREATED, [(header::LOCATION, location), digest]).into_response()
}

fn progress(status: StatusCode, repository: &str, id: &str, length: usize) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        // The last stored byte; Distribution sends 0-0 for an empty upload too.
        (header::RANGE, format!("0-{}", length.saturating_sub(1))),
        (header::HeaderName::from_static("docker-upload-uuid"), id.to_owned()),
    ];
    (status, headers).into_response()
}

/// Returns the start of a chunk: `100-199`, without a unit, unlike in other HTTP ranges.
fn start_of(range: &str) -> Result<usize, Problem> {
    let start = range.trim_start_matches("bytes ").split('-').next().and_then(|start| start.parse().ok());
    start.ok_or_else(|| Problem::upload_out_of_order(format!("`{range}` is not a range of bytes")))
}
