//! What the outside may see of the inside: logs and metrics.

mod logs;
mod metrics;

pub use logs::{LogFormat, start_logs};
pub use metrics::{GitOperation, METRICS_CONTENT_TYPE, Metrics};
