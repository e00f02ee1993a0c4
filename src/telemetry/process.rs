use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The standard metrics of a process, read from `/proc` at each scrape.
///
/// Source: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
///
/// Values that cannot be read are left out, for example on a system without `/proc`.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let times = Times::read();
        if let Some(times) = &times {
            let counter = ConstCounter::new(times.cpu_seconds);
            let help = "Processor time spent, in user mode and in the kernel";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        let started = times.map(|times| times.started_seconds);
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        let gauges = [
            ("process_start_time_seconds", "Start of the process since the Unix epoch", started),
            ("process_resident_memory_bytes", "Resident memory", resident_bytes()),
            ("process_open_fds", "Open file descriptors", open_files),
            ("process_max_fds", "Limit of open file descriptors", max_open_files()),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value)?;
        }
        Ok(())
    }
}

/// The size of the store's file, and the free space and size of its disk, read at each scrape.
#[derive(Debug, Clone, Default)]
pub(super) struct StoreFile(Arc<OnceLock<PathBuf>>);

impl StoreFile {
    /// Sets the path of the file. Later calls have no effect.
    pub(super) fn set(&self, path: &Path) {
        let _ = self.0.set(path.to_owned());
    }
}

impl Collector for StoreFile {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(path) = self.0.get() else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(folder).ok();
        let free = disk.as_ref().map(|disk| disk.f_bavail as f64 * disk.f_frsize as f64);
        let capacity = disk.map(|disk| disk.f_blocks as f64 * disk.f_frsize as f64);
        let gauges = [
            ("store_size_bytes", "Size of the store's file with its write-ahead log", size(path)),
            ("store_free_bytes", "Free space on the disk of the store", free),
            ("store_capacity_bytes", "Size of the disk of the store", capacity),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: Option<f64>) -> Result<(), fmt::Error> {
    let Some(value) = value else { return Ok(()) };
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Returns the size of an SQLite file and its write-ahead log, in bytes.
fn size(path: &Path) -> Option<f64> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = fs::metadata(log).map_or(0, |file| file.len());
    Some((fs::metadata(path).ok()?.len() + log) as f64)
}

struct Times {
    cpu_seconds: f64,
    /// The start time, in seconds since the Unix epoch.
    started_seconds: f64,
}

impl Times {
    fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Self::parse(&status, boot, rustix::param::clock_ticks_per_second() as f64)
    }

    /// Parses `/proc/self/stat`.
    ///
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>.
    fn parse(status: &str, boot_seconds: f64, ticks_per_second: f64) -> Option<Self> {
        // The second field is the name in parentheses, which may contain any character; the third is the state.
        let (_, fields) = status.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / ticks_per_second,
            started_seconds: boot_seconds + ticks(22)? / ticks_per_second,
        })
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Returns the limit of open files; `None`: unlimited or unknown.
fn max_open_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_may_contain_spaces_and_parentheses() {
        let status = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 1 2 3 4 250 50 6 7 20 0 9 0 12345 1 2 3";
        let times = Times::parse(status, 1_000.0, 100.0).unwrap();
        assert_eq!((times.cpu_seconds, times.started_seconds), (3.0, 1_123.45));
        assert!(Times::parse("4242 (a", 0.0, 100.0).is_none());
    }

    #[test]
    fn values_of_this_process_are_plausible() {
        let times = Times::read().unwrap();
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(times.started_seconds <= now && times.started_seconds > now - 86_400.0);
        assert!(resident_bytes().unwrap() > 1e6);
        assert!(max_open_files().is_none_or(|count| count >= 64.0));
    }

    #[test]
    fn size_of_the_store_includes_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        assert_eq!(size(&path), None);
        fs::write(&path, [0; 100]).unwrap();
        assert_eq!(size(&path), Some(100.0));
        fs::write(folder.path().join("t.db-wal"), [0; 11]).unwrap();
        assert_eq!(size(&path), Some(111.0));
    }
}
