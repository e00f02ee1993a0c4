//! Traces: what one push, promotion or rollback met on its way, across the store and across restarts.
//!
//! Spans name their parents by value ([`TraceContext`]) and not by where they are called from: the parent of most
//! of them ended before, and in another process perhaps. Without an exporter the contexts go the same way, so that
//! log lines, the API and commits have their trace id all the same.

mod context;
#[cfg(feature = "otel")]
mod otel;

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

pub use context::{InvalidTraceParent, TraceContext, TraceId};

/// How long the end of the program waits at the most for the last spans to be sent.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Where spans go. Cheap to clone; all clones share one exporter.
#[derive(Clone, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    exporter: Option<otel::Exporter>,
}

/// Which side of a conversation a span is
/// (<https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Answers somebody who waits.
    Server,
    /// Asks somebody and waits.
    Client,
    /// Takes up what was left in the store.
    Consumer,
    /// Talks to nobody outside.
    Internal,
}

/// A piece of work with a beginning and an end. It ends when it is dropped.
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
    /// Returns traces that go nowhere.
    pub fn off() -> Self {
        Self::default()
    }

    /// Returns what the `OTEL_…` variables ask for
    /// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). Without an endpoint
    /// nothing is exported. To be called inside the runtime, with the TLS provider installed.
    ///
    /// # Errors
    ///
    /// When they ask for what cannot be done.
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

    /// Begins a span. Without a parent it begins a trace.
    pub fn begin(&self, kind: SpanKind, name: impl Into<Cow<'static, str>>, parent: Option<&TraceContext>) -> Span {
        self.begin_linked(kind, name, parent, &[])
    }

    /// Begins a span that has to do with other traces, too.
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

    /// Sends what has not been sent yet, for `limit` at the most and never more than five seconds, and ends the exporter.
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
    /// Returns what the children of this span name as their parent. Without an exporter that is this span's own
    /// parent.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Adds an attribute. Never a secret: everybody who may see traces may see it.
    pub fn set(&mut self, key: &'static str, value: impl Display) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.set(key, value.to_string().into());
        }
        #[cfg(not(feature = "otel"))]
        let _ = (key, value);
    }

    /// Adds an attribute that is a number.
    pub fn set_number(&mut self, key: &'static str, value: i64) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.set(key, value.into());
        }
        #[cfg(not(feature = "otel"))]
        let _ = (key, value);
    }

    /// Says that another trace has to do with this span.
    pub fn link(&mut self, to: &TraceContext) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.link(to);
        }
        #[cfg(not(feature = "otel"))]
        let _ = to;
    }

    /// Marks the span as failed. A refusal is an answer and no failure.
    pub fn fail(&mut self, reason: &str) {
        #[cfg(feature = "otel")]
        if let Some(recorded) = &mut self.recorded {
            recorded.fail(reason);
        }
        #[cfg(not(feature = "otel"))]
        let _ = reason;
    }
}

/// What the SDK can sample by; of other words it says nothing, and takes everything
/// (<https://opentelemetry.io/docs/languages/sdk-configuration/general/#otel_traces_sampler>).
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Returns whether the variables ask for an export: they name an endpoint, or the exporter itself, and nothing
/// forbids it.
fn asks_for_export(variable: &dyn Fn(&str) -> Option<String>) -> Result<bool, String> {
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    if let Some(sampler) = set("OTEL_TRACES_SAMPLER").filter(|sampler| !SAMPLERS.contains(&sampler.as_str())) {
        return Err(format!(
            "OTEL_TRACES_SAMPLER is `{sampler}`; there are {}",
            SAMPLERS.map(|one| format!("`{one}`")).join(", ")
        ));
    }
    match set("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => Ok(false),
        Some("otlp") => Ok(true),
        Some(other) => {
            Err(format!("OTEL_TRACES_EXPORTER is `{other}`; there is only `otlp`, and `none` for no export"))
        }
        None => Ok(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
            .iter()
            .any(|name| set(name).is_some())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_asks_for_the_export_and_two_words_forbid_it() {
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
            asks(&[endpoint, ("OTEL_TRACES_SAMPLER", "bogus")]).unwrap_err().contains("`bogus`; there are `always_on`")
        );
    }

    #[test]
    fn without_an_exporter_contexts_go_through() {
        let parent = TraceContext::random();
        let span = Traces::off().begin(SpanKind::Internal, "work", Some(&parent));
        assert_eq!(span.context(), parent);
        let root = Traces::off().begin(SpanKind::Server, "work", None);
        assert_ne!(root.context().trace_id(), parent.trace_id());
    }
}
