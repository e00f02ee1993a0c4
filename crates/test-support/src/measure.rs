//! Quantiles and process statistics.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// The value below which `share` of the values lie; the median is `quantile(values, 0.5)`.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    *values.get(place.min(values.len().saturating_sub(1))).expect("something was measured")
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A field of `/proc/<process>/status` in MiB; the file has KiB.
pub fn memory_mib(process: u32, figure: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Processor use of a process by thread.
pub struct Work(HashMap<String, (u64, u64)>);

impl Work {
    pub fn of(process: u32) -> Self {
        Self::of_threads(process, "")
    }

    /// Processor use of the threads whose names begin with `name`.
    pub fn of_threads(process: u32, name: &str) -> Self {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
        let is_meant = |folder: &std::fs::DirEntry| {
            name.is_empty()
                || std::fs::read_to_string(folder.path().join("comm")).is_ok_and(|comm| comm.starts_with(name))
        };
        let figures = |folder: &Path| -> Option<(u64, u64)> {
            // Nanoseconds on a processor, nanoseconds waiting for one, number of time slices.
            let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
            let mut words = text.split_whitespace();
            let busy = words.next()?.parse().ok()?;
            Some((busy, words.nth(1)?.parse().ok()?))
        };
        let named = |folder: std::fs::DirEntry| {
            Some((folder.file_name().to_string_lossy().into_owned(), figures(&folder.path())?))
        };
        Self(threads.filter(is_meant).filter_map(named).collect())
    }

    /// Processor time and time slices since `earlier`.
    pub fn since(&self, earlier: &Self) -> (Duration, u64) {
        let (mut busy, mut runs) = (0, 0);
        for (thread, now) in &self.0 {
            let before = earlier.0.get(thread).copied().unwrap_or_default();
            busy += now.0 - before.0;
            runs += now.1 - before.1;
        }
        (Duration::from_nanos(busy), runs)
    }
}
