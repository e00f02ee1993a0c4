//! The exporter: OpenTelemetry's SDK with OTLP over HTTP or gRPC.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData};

use super::{SpanKind, TraceContext, asks_for_export};

/// Default limit of links per span: one for each update of the largest commit.
const MAX_LINKS: u32 = 1000;

/// Sends spans in batches, from its own thread.
#[derive(Clone)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A span that is being recorded.
pub(super) struct Recorded(opentelemetry_sdk::trace::Span);

impl Exporter {
    /// Creates the exporter that the `OTEL_…` variables configure; `None`: the export is off.
    pub(super) fn from_environment() -> Result<Option<Self>, String> {
        let variable = |name: &str| std::env::var(name).ok();
        if !asks_for_export(&variable)? {
            return Ok(None);
        }
        let exporter = LoggingExporter::new(exporter(&variable)?);
        let mut builder = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter);
        if variable("OTEL_SPAN_LINK_COUNT_LIMIT").is_none() {
            builder = builder.with_max_links_per_span(MAX_LINKS);
        }
        let provider = builder.build();
        let tracer = provider.tracer("tagrelay");
        Ok(Some(Self { provider, tracer }))
    }

    pub(super) fn begin(
        &self,
        kind: SpanKind,
        name: Cow<'static, str>,
        parent: Option<&TraceContext>,
        links: &[TraceContext],
    ) -> (TraceContext, Recorded) {
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(span_context(parent)));
        let links = links.iter().map(|link| Link::with_context(span_context(link))).collect();
        let builder = SpanBuilder::from_name(name).with_kind(otel_kind(kind)).with_links(links);
        let span = self.tracer.build_with_context(builder, &parent);
        let own = span.span_context();
        let context = TraceContext::from_parts(
            own.trace_id().to_bytes(),
            own.span_id().to_bytes(),
            own.trace_flags().to_u8() & TraceFlags::SAMPLED.to_u8(),
        );
        (context, Recorded(span))
    }

    pub(super) fn stop(&self, limit: Duration) -> Result<(), OTelSdkError> {
        self.provider.shutdown_with_timeout(limit)
    }
}

impl Recorded {
    pub(super) fn set(&mut self, key: &'static str, value: Value) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    pub(super) fn link(&mut self, to: &TraceContext) {
        self.0.add_link(span_context(to), Vec::new());
    }

    pub(super) fn fail(&mut self, reason: &str) {
        self.0.set_status(Status::error(reason.to_owned()));
    }
}

/// The interval of log lines while spans cannot be sent.
const LOG_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// An exporter that logs an outage of the collector.
///
/// It logs the beginning, every hour of the outage, and the end.
///
/// The SDK's own log lines, several per batch, are filtered out.
#[derive(Debug)]
struct LoggingExporter {
    inner: SpanExporter,
    /// The current outage; `None`: the last batch was sent.
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    logged: Instant,
    lost: usize,
}

impl LoggingExporter {
    fn new(inner: SpanExporter) -> Self {
        Self { inner, outage: Mutex::new(None) }
    }

    fn log(&self, spans: usize, result: &OTelSdkResult, now: Instant) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match (result, *outage) {
            (Ok(()), None) => {}
            (Ok(()), Some(Outage { lost, .. })) => {
                tracing::info!(lost, "spans are sent again");
                *outage = None;
            }
            (Err(error), None) => {
                tracing::warn!(%error, "spans cannot be sent and are lost; logged again in an hour if this lasts");
                *outage = Some(Outage { logged: now, lost: spans });
            }
            (Err(error), Some(Outage { logged, lost })) => {
                let lost = lost.saturating_add(spans);
                let is_due = now.duration_since(logged) >= LOG_INTERVAL;
                if is_due {
                    tracing::warn!(%error, lost, "spans still cannot be sent");
                }
                *outage = Some(Outage { logged: if is_due { now } else { logged }, lost });
            }
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.log(spans, &result, Instant::now());
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Creates the SDK's exporter.
///
/// The SDK's builder reads endpoint, headers, time limits and compression from `OTEL_…` variables.
fn exporter(variable: &dyn Fn(&str) -> Option<String>) -> Result<SpanExporter, String> {
    let first = |names: [&str; 2]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
    let endpoint = first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let is_encrypted = endpoint.is_some_and(|endpoint| endpoint.starts_with("https:"));
    let built = match protocol.as_deref() {
        None | Some("http/protobuf") => SpanExporter::builder().with_http().build(),
        // By default, the exporter trusts no CA certificates.
        Some("grpc") if is_encrypted => {
            SpanExporter::builder().with_tonic().with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()
        }
        Some("grpc") => SpanExporter::builder().with_tonic().build(),
        Some(other) => {
            return Err(format!("OTEL_EXPORTER_OTLP_PROTOCOL is `{other}`; supported: `http/protobuf`, `grpc`"));
        }
    };
    built.map_err(|error| error.to_string())
}

/// Returns the resource of the spans, from `OTEL_…` variables. The default service name is `tagrelay`.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let found = Resource::builder().build().get(&"service.name".into()).map(|name| name.to_string());
    let builder = Resource::builder().with_attribute(version);
    match found {
        Some(name) if !name.starts_with("unknown_service") => builder.build(),
        _ => builder.with_service_name("tagrelay").build(),
    }
}

fn span_context(context: &TraceContext) -> SpanContext {
    let (trace_id, span_id, flags) = context.parts();
    SpanContext::new(
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(span_id),
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    )
}

fn otel_kind(kind: SpanKind) -> OtelKind {
    match kind {
        SpanKind::Server => OtelKind::Server,
        SpanKind::Client => OtelKind::Client,
        SpanKind::Consumer => OtelKind::Consumer,
        SpanKind::Internal => OtelKind::Internal,
    }
}
