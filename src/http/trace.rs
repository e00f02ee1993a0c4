use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use super::App;
use crate::telemetry::{SpanKind, TraceContext};

/// The span of a request. Everything that the request causes belongs to its trace.
///
/// An `Extension` of every request that may change something.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestTrace(pub(super) TraceContext);

/// Starts a span for every request that may change something, in the trace that its `traceparent` names. Reads get none:
/// dashboards and scrapes would outnumber everything else.
///
/// Attributes follow OpenTelemetry's conventions (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). The
/// query is left out, because some senders put the secret there.
pub(super) async fn trace(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let (Some(route), false) = (route, matches!(method, Method::GET | Method::HEAD | Method::OPTIONS)) else {
        return next.run(request).await;
    };
    let parent = TraceContext::from_headers(request.headers());
    let mut span = app.0.relay.traces().begin(SpanKind::Server, format!("{method} {route}"), parent.as_ref());
    span.set("http.request.method", &method);
    span.set("url.path", request.uri().path());
    span.set("http.route", route);
    request.extensions_mut().insert(RequestTrace(span.context()));
    let response = next.run(request).await;
    span.set_number("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.fail(response.status().as_str());
    }
    response
}
