//! Logs, metrics and traces.

mod logs;
mod metrics;
mod process;
mod trace;

pub use logs::{LogFormat, start_logs};
pub use metrics::{GitOperation, METRICS_CONTENT_TYPE, Metrics};
pub use trace::{InvalidTraceParent, Span, SpanKind, TraceContext, TraceId, Traces, TracesError};

/// Returns the message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no text)")
}
