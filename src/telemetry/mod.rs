//! What the outside may see of the inside: logs and metrics.

mod logs;
mod metrics;

pub use logs::{LogFormat, start_logs};
pub use metrics::{GitOperation, Metrics, OPENMETRICS_CONTENT_TYPE};
