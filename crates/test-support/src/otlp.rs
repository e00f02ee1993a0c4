//! An OpenTelemetry collector that records spans, over HTTP and gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

/// A span with the fields that tests use.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace_id: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub kind: SpanKind,
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    /// Trace id and span id.
    pub links: Vec<(String, String)>,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
    /// The attributes of its resource.
    pub resource: BTreeMap<String, String>,
    /// The request header `x-tenant`.
    pub tenant: Option<String>,
}

#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Span>>>);

pub struct Collector {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    inbox: Inbox,
}

impl Collector {
    pub async fn start() -> Self {
        let inbox = Inbox::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(inbox.clone());
        tokio::spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { http, grpc, inbox }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.inbox.0.lock().unwrap().clone()
    }

    /// The spans of a trace, earliest first.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// Waits until a trace has this many spans with a name.
    pub async fn wait(&self, trace_id: &str, name: &str, count: usize) -> Vec<Span> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let trace = self.trace(trace_id);
            if trace.iter().filter(|span| span.name == name).count() >= count {
                return trace;
            }
            assert!(Instant::now() < deadline, "fewer than {count} spans `{name}` arrived: {:#?}", self.spans());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Renders the spans below `parent` as a tree of names.
pub fn tree(spans: &[Span], parent: &str) -> String {
    fn draw(spans: &[Span], parent: &str, depth: usize, drawing: &mut String) {
        for span in spans.iter().filter(|span| span.parent == parent) {
            drawing.push_str(&format!("{}{}\n", "  ".repeat(depth), span.name));
            draw(spans, &span.id, depth + 1, drawing);
        }
    }
    let mut drawing = String::new();
    draw(spans, parent, 0, &mut drawing);
    drawing
}

async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let tenant = headers.get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
    inbox.keep(ExportTraceServiceRequest::decode(body).unwrap(), tenant);
    StatusCode::OK
}

#[tonic::async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let tenant = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        self.keep(request.into_inner(), tenant);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Inbox {
    fn keep(&self, request: ExportTraceServiceRequest, tenant: Option<String>) {
        let mut spans = Vec::new();
        for group in request.resource_spans {
            let resource = attributes(&group.resource.unwrap_or_default().attributes);
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    kind: span.kind(),
                    trace_id: hex::encode(&span.trace_id),
                    id: hex::encode(&span.span_id),
                    parent: hex::encode(&span.parent_span_id),
                    name: span.name,
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    attributes: attributes(&span.attributes),
                    links: span
                        .links
                        .iter()
                        .map(|link| (hex::encode(&link.trace_id), hex::encode(&link.span_id)))
                        .collect(),
                    failure: span.status.filter(|status| status.code == 2).map(|status| status.message),
                    resource: resource.clone(),
                    tenant: tenant.clone(),
                });
            }
        }
        self.0.lock().unwrap().extend(spans);
    }
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
