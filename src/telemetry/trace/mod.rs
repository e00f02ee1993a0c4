//! Traces of a push event, promotion or rollback, across the store and restarts.
//!
//! A span refers to its parent by value ([`TraceContext`]) and not by the call stack, because the parent may have ended in another
//! process. Contexts are passed on even without an exporter, so log lines, the API and commits always have a trace id.

mod context;
#[cfg(feature = "otel")]
mod otel;

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

pub use context::{InvalidTraceParent, TraceContext, TraceId};

/// The maximum time to send the last spans when the process stops.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Begins and exports spans. Cheap to clone; all clones share one exporter.
#[derive(Clone, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    exporter: Option<otel::Exporter>,
}

/// The kind of a span.
///
/// Source: <https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Answers a request.
    Server,
    /// Sends a request and waits for the answer.
    Client,
    /// Processes a row of the store.
    Consumer,
    /// Work inside the process.
    Internal,
}

/// A span of work. The span ends when the value is dropped.
pub struct Span {
    context: TraceContext,
    #[cfg(feature = "otel")]
    recorded: Option<otel::Recorded>,
}

/// Why traces are not exported.
#[derive(Debug, thiserror::Error)]
#[error("traces are not exported: {0}")]
pub struct TracesError(String);

impl Traces {
    /// Returns traces without an exporter.
    pub fn off() -> Self {
        Self::default()
    }

    /// Creates the exporter that the `OTEL_…` variables configure. Without an endpoint, no spans are exported.
    ///
    /// Source: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Must be called inside the async
    /// runtime, after the TLS provider is installed.
    ///
    /// # Errors
    ///
    /// Invalid or unsupported values, or a build without the feature `otel`.
    pub fn from_environment() -> Result<Self, TracesError> {
        #[cfg(feature = "otel")]
        return Ok(Self { exporter: otel::Exporter::from_environment().map_err(TracesError)? });
        #[cfg(not(feature = "otel"))]
        match asks_for_export(&|name| std::env::var(name).ok()) {
            Ok(false) => Ok(Self::off()),
            Ok(true) => Err(TracesError("this program was built without the feature `otel`".to_owned())),
            Err(reason) => Err(TracesError(reason)),
        }
    }

    /// Begins a span; without a parent, also a new trace.
    pub fn begin(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>, parent: Option<&TraceContext>) -> Span {
        self.begin_linked(kind, name, parent, &[])
    }

    /// Begins a span with links to other traces.
    pub fn begin_linked(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        parent: Option<&TraceContext>,
        links: &[TraceContext],
    ) -> Span {
        #[cfg(feature = "otel")]
        if let Some(exporter) = &self.exporter {
            let (context, recorded) = exporter.begin(kind, name.into(), parent, links);
            return Span { context, recorded: Some(recorded) };
        }
        #[cfg(not(feature = "otel"))]
        let _ = (kind, name.into(), links);
        Span {
            context: parent.copied().unwrap_or_else(TraceContext::random),
            #[cfg(feature = "otel")]
            recorded: None,
        }
    }

    /// Sends the remaining spans, for at most `limit` and at most five seconds, and stops the exporter.
    pub async fn stop(&self, limit: Duration) {
        let limit = limit.min(STOP_TIME);
        #[cfg(feature = "otel")]
        if let Some(exporter) = self.exporter.clone()
            && let Ok(Err(error)) = tokio::task::spawn_blocking(move || exporter.stop(limit)).await
        {
            tracing::warn!(%error, "the last spans may be lost");
        }
        #[cfg(not(feature = "otel"))]
        let _ = limit;
    }
}

impl Span {
    /// Returns the context for children of this span. Without an exporter, returns the context of the parent.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Sets an attribute. The value must not contain a secret.
    pub fn set(&mut self, key: &'static str, value: impl Display) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.set(key, value.to_string().into());
        }
        #[cfg(not(feature = "otel"))]
        let _ = (key, value);
    }

    /// Sets a numeric attribute.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.set(key, value.into());
        }
        #[cfg(not(feature = "otel"))]
        let _ = (key, value);
    }

    /// Adds a link to another trace.
    pub fn link(&mut self, to: &TraceContext) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.link(to);
        }
        #[cfg(not(feature = "otel"))]
        let _ = to;
    }

    /// Marks the span as failed. A refused update is not a failure.
    pub fn fail(&mut self, reason: &str) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.fail(reason);
        }
        #[cfg(not(feature = "otel"))]
        let _ = reason;
    }
}

/// The samplers of the SDK, which silently replaces any other sampler with `always_on`.
///
/// Source: <https://opentelemetry.io/docs/languages/sdk-configuration/general/#otel_traces_sampler>.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Returns whether the variables enable the export.
///
/// True if they name an endpoint or the exporter, and do not disable the export.
fn asks_for_export(variable: &dyn Fn(&str) -> Option<String>) -> Result<bool, String> {
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    if let Some(sampler) = set("OTEL_TRACES_SAMPLER").filter(|sampler| !SAMPLERS.contains(&sampler.as_str())) {
        return Err(format!(
            "OTEL_TRACES_SAMPLER is `{sampler}`; supported: {}",
            SAMPLERS.map(|one| format!("`{one}`")).join(", ")
        ));
    }
    match set("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => Ok(false),
        Some("otlp") => Ok(true),
        Some(other) => Err(format!("OTEL_TRACES_EXPORTER is `{other}`; supported: `otlp`, and `none` for no export")),
        None => Ok(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
            .iter()
            .any(|name| set(name).is_some())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_enables_the_export_unless_disabled() {
        let asks = |variables: &[(&str, &str)]| {
            asks_for_export(&|name: &str| {
                variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(asks(&[]), Ok(false));
        assert_eq!(asks(&[endpoint]), Ok(true));
        assert_eq!(asks(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")]), Ok(true));
        assert_eq!(asks(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(false));
        assert_eq!(asks(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(false));
        assert_eq!(asks(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
        assert_eq!(asks(&[("OTEL_TRACES_EXPORTER", "otlp")]), Ok(true));
        assert!(asks(&[endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap_err().contains("zipkin"));
        assert_eq!(asks(&[endpoint, ("OTEL_TRACES_SAMPLER", "traceidratio")]), Ok(true));
        assert!(
            asks(&[endpoint, ("OTEL_TRACES_SAMPLER", "bogus")])
                .unwrap_err()
                .contains("`bogus`; supported: `always_on`")
        );
    }

    #[test]
    fn contexts_are_passed_on_without_an_exporter() {
        let parent = TraceContext::random();
        let span = Traces::off().begin(SpanKind::Internal, "work", Some(&parent));
        assert_eq!(span.context(), parent);
        let root = Traces::off().begin(SpanKind::Server, "work", None);
        assert_ne!(root.context().trace_id(), parent.trace_id());
    }
}
