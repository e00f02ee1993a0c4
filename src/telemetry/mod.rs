//! What the outside may see of the inside: logs, metrics and traces.

mod logs;
mod metrics;
mod process;
mod trace;

pub use logs::{LogFormat, start_logs};
pub use metrics::{GitOperation, METRICS_CONTENT_TYPE, Metrics};
pub use trace::{InvalidTraceParent, Span, SpanKind, TraceContext, TraceId, Traces, TracesError};
