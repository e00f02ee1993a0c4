use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

/// The longest path that is logged, in characters. All routes are shorter.
const MAX_PATH: usize = 200;

/// Logs each request with its path, without its query, which may contain a secret (`?token=`).
pub(super) async fn log(request: Request, next: Next) -> Response {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(MAX_PATH).collect();
    let began = Instant::now();
    let response = next.run(request).await;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, status = response.status().as_u16(), elapsed_ms, "request answered");
    response
}
