use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process::{Process, StoreFile};

/// The content type of [`Metrics::encode`].
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
pub const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the latency histograms, in seconds.
///
/// The bounds range from a local commit to an update that waited for a day.
const LATENCY_SECONDS: [f64; 16] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0];

/// Upper bounds of the histogram of updates in one commit.
const COMMIT_UPDATES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// The outcomes of a reload.
const RELOADED: &str = "ok";
const NOT_RELOADED: &str = "failed";

/// All metrics. Cheap to clone; all clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    webhook_requests: Family<WebhookLabels, Counter>,
    events: Family<EventLabels, Counter>,
    updates: Family<UpdateLabels, Counter>,
    push_to_commit: Histogram,
    receive_to_commit: Histogram,
    git_operations: Family<GitLabels, Histogram>,
    git_push_retries: Counter,
    registry_requests: Family<RegistryLabels, Counter>,
    catch_up_looks: Family<RegistryLabels, Counter>,
    catch_up_found: Family<FoundLabels, Counter>,
    pending_updates: Gauge,
    oldest_pending_update_age: Gauge<f64, AtomicU64>,
    oldest_queued_event_age: Gauge<f64, AtomicU64>,
    commit_updates: Histogram,
    config_reloads: Family<ReloadLabels, Counter>,
    config_is_current: Gauge,
    argocd_requests: Family<ArgoCdLabels, Counter>,
    rollouts: Family<UpdateLabels, Counter>,
    commit_to_healthy: Histogram,
    build: Family<BuildLabels, Gauge>,
    store_file: StoreFile,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    receiver: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    repository: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpdateLabels {
    environment: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GitLabels {
    operation: GitOperation,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    registry: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FoundLabels {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ArgoCdLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// A timed operation on a config repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum GitOperation {
    /// Reading the tip of the branch, and fetching it if the branch moved.
    #[allow(non_camel_case_types, reason = "the label's value is the variant's name")]
    refresh,
    /// Reading the commits below the tip, after the answer to a push was lost.
    #[allow(non_camel_case_types, reason = "the label's value is the variant's name")]
    history,
    /// Editing manifests and creating commits, without network.
    #[allow(non_camel_case_types, reason = "the label's value is the variant's name")]
    prepare,
    /// Pushing commits.
    #[allow(non_camel_case_types, reason = "the label's value is the variant's name")]
    push,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics, with value zero.
    pub fn new() -> Self {
        let latency = || Histogram::new(LATENCY_SECONDS);
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            webhook_requests: Family::default(),
            events: Family::default(),
            updates: Family::default(),
            push_to_commit: latency(),
            receive_to_commit: latency(),
            git_operations: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            git_push_retries: Counter::default(),
            registry_requests: Family::default(),
            catch_up_looks: Family::default(),
            catch_up_found: Family::default(),
            pending_updates: Gauge::default(),
            oldest_pending_update_age: Gauge::default(),
            oldest_queued_event_age: Gauge::default(),
            commit_updates: Histogram::new(COMMIT_UPDATES),
            config_reloads: Family::default(),
            config_is_current: Gauge::default(),
            argocd_requests: Family::default(),
            rollouts: Family::default(),
            commit_to_healthy: latency(),
            build: Family::default(),
            store_file: StoreFile::default(),
        };
        metrics.build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        for outcome in [RELOADED, NOT_RELOADED] {
            metrics.config_reloads.get_or_create(&ReloadLabels { outcome }).inc_by(0);
        }
        // The process has started, so its settings are valid.
        metrics.config_is_current.set(1);
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    /// Registers all metrics. The library appends `_total` to the names of counters, but appends no units.
    fn register(&self) -> Registry {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("tagrelay");
        registry.register("webhook_requests", "Requests to receivers", self.webhook_requests.clone());
        registry.register("events", "Push events by outcome", self.events.clone());
        registry.register("updates", "Updates by outcome", self.updates.clone());
        registry.register(
            "push_to_commit_seconds",
            "From the registry's timestamp to the push of the commit",
            self.push_to_commit.clone(),
        );
        registry.register(
            "receive_to_commit_seconds",
            "From the webhook or API request to the push of the commit",
            self.receive_to_commit.clone(),
        );
        registry.register("git_operation_seconds", "Operations on config repositories", self.git_operations.clone());
        registry.register("git_push_retries", "Pushes that lost a race and ran again", self.git_push_retries.clone());
        registry.register("registry_requests", "Images verified with registries", self.registry_requests.clone());
        registry.register("catch_up_looks", "Tag lists requested by catch-up", self.catch_up_looks.clone());
        registry.register(
            "catch_up_found",
            "Events that catch-up found without a webhook",
            self.catch_up_found.clone(),
        );
        registry.register("pending_updates", "Updates that have not ended", self.pending_updates.clone());
        registry.register(
            "oldest_pending_update_age_seconds",
            "Age of the oldest update that could be pushed now",
            self.oldest_pending_update_age.clone(),
        );
        registry.register(
            "oldest_queued_event_age_seconds",
            "Age of the oldest event that is not verified yet",
            self.oldest_queued_event_age.clone(),
        );
        registry.register("commit_updates", "Updates in one commit", self.commit_updates.clone());
        registry.register("config_reload", "Reloads of changed settings", self.config_reloads.clone());
        registry.register(
            "config_is_current",
            "1 after a successful reload, 0 after a failed one",
            self.config_is_current.clone(),
        );
        registry.register("argocd_requests", "Requests to Argo CD", self.argocd_requests.clone());
        registry.register("rollouts", "Committed updates by the outcome of their rollout", self.rollouts.clone());
        registry.register(
            "commit_to_healthy_seconds",
            "From the push of the commit to Synced and Healthy applications",
            self.commit_to_healthy.clone(),
        );
        registry.register("build_info", "The running program", self.build.clone());
        registry.register_collector(Box::new(self.store_file.clone()));
        root
    }

    /// Sets the store's file, for its size and its disk.
    pub fn watch_store(&self, file: &Path) {
        self.store_file.set(file);
    }

    /// Creates the counters of a receiver with value 0.
    ///
    /// Prometheus sees no increase if a counter first appears with value 1, so an alert would miss the first failure.
    pub fn expect_receiver(&self, receiver: &str) {
        for outcome in ["accepted", "ignored", "unauthorized", "too_slow", "too_large", "unavailable", "failed"] {
            let labels = WebhookLabels { receiver: receiver.to_owned(), outcome: outcome.to_owned() };
            self.webhook_requests.get_or_create(&labels).inc_by(0);
        }
    }

    /// Creates the counters of an environment with value 0.
    pub fn expect_environment(&self, environment: &str) {
        for outcome in ["committed", "unchanged", "superseded", "refused"] {
            let labels = UpdateLabels { environment: environment.to_owned(), outcome: outcome.to_owned() };
            self.updates.get_or_create(&labels).inc_by(0);
        }
        for outcome in ["ok", "outdated", "refused", "unauthorized", "unavailable", "unknown"] {
            let labels = GitLabels { operation: GitOperation::push, outcome: outcome.to_owned() };
            drop(self.git_operations.get_or_create(&labels));
        }
    }

    /// Creates the counters of a registry with value 0.
    pub fn expect_registry(&self, registry: &str) {
        for outcome in ["there", "not_there", "not_allowed", "not_now"] {
            let labels = RegistryLabels { registry: registry.to_owned(), outcome: outcome.to_owned() };
            self.registry_requests.get_or_create(&labels).inc_by(0);
        }
        for outcome in ["listed", "unsupported", "no_list", "not_allowed", "not_now"] {
            let labels = RegistryLabels { registry: registry.to_owned(), outcome: outcome.to_owned() };
            self.catch_up_looks.get_or_create(&labels).inc_by(0);
        }
        self.catch_up_found(registry, 0);
    }

    /// Counts a reload.
    pub fn config_reload(&self, succeeded: bool) {
        let outcome = if succeeded { RELOADED } else { NOT_RELOADED };
        self.config_reloads.get_or_create(&ReloadLabels { outcome }).inc();
        self.config_is_current.set(i64::from(succeeded));
    }

    /// Counts a request to a receiver.
    pub fn webhook_request(&self, receiver: &str, outcome: &str) {
        let labels = WebhookLabels { receiver: receiver.to_owned(), outcome: outcome.to_owned() };
        self.webhook_requests.get_or_create(&labels).inc();
    }

    /// Counts an ended event. `None` stands for all unmanaged repositories, to limit the number of labels.
    pub fn event(&self, repository: Option<&str>, outcome: &str) {
        let repository = repository.unwrap_or("unmanaged").to_owned();
        self.events.get_or_create(&EventLabels { repository, outcome: outcome.to_owned() }).inc();
    }

    /// Counts an ended update.
    pub fn update(&self, environment: &str, outcome: &str) {
        let labels = UpdateLabels { environment: environment.to_owned(), outcome: outcome.to_owned() };
        self.updates.get_or_create(&labels).inc();
    }

    /// Records the latency of a committed update.
    ///
    /// Measured from the registry's timestamp, if known, and from the arrival of the cause.
    pub fn committed(&self, since_push: Option<Duration>, since_receipt: Duration) {
        if let Some(elapsed) = since_push {
            self.push_to_commit.observe(elapsed.as_secs_f64());
        }
        self.receive_to_commit.observe(since_receipt.as_secs_f64());
    }

    /// Records the number of updates in a commit.
    pub fn commit(&self, updates: usize) {
        self.commit_updates.observe(updates as f64);
    }

    /// Records a finished operation on a config repository.
    pub fn git_operation(&self, operation: GitOperation, outcome: &str, elapsed: Duration) {
        let labels = GitLabels { operation, outcome: outcome.to_owned() };
        self.git_operations.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts a push that was outdated, because the branch moved.
    pub fn push_retry(&self) {
        self.git_push_retries.inc();
    }

    /// Counts the verification of an image, by the registry's answer.
    pub fn registry_request(&self, registry: &str, outcome: &str) {
        let labels = RegistryLabels { registry: registry.to_owned(), outcome: outcome.to_owned() };
        self.registry_requests.get_or_create(&labels).inc();
    }

    /// Counts a request for a tag list, by the registry's answer.
    pub fn catch_up_look(&self, registry: &str, outcome: &str) {
        let labels = RegistryLabels { registry: registry.to_owned(), outcome: outcome.to_owned() };
        self.catch_up_looks.get_or_create(&labels).inc();
    }

    /// Counts events that catch-up found.
    pub fn catch_up_found(&self, registry: &str, count: usize) {
        self.catch_up_found.get_or_create(&FoundLabels { registry: registry.to_owned() }).inc_by(count as u64);
    }

    /// Creates the counters of Argo CD with value 0.
    pub fn expect_argocd<'a>(&self, environments: impl IntoIterator<Item = &'a str>) {
        for operation in ["list", "refresh", "get", "webhook"] {
            for outcome in ["ok", "unavailable", "unauthorized"] {
                self.argocd_requests.get_or_create(&ArgoCdLabels { operation, outcome }).inc_by(0);
            }
        }
        for environment in environments {
            for outcome in ["healthy", "degraded", "superseded", "timed_out", "untracked", "told"] {
                let labels = UpdateLabels { environment: environment.to_owned(), outcome: outcome.to_owned() };
                self.rollouts.get_or_create(&labels).inc_by(0);
            }
        }
    }

    /// Counts a request to Argo CD.
    pub fn argocd_request(&self, operation: &'static str, outcome: &'static str) {
        self.argocd_requests.get_or_create(&ArgoCdLabels { operation, outcome }).inc();
    }

    /// Counts a rollout by its outcome.
    pub fn rollout(&self, environment: &str, outcome: &str) {
        let labels = UpdateLabels { environment: environment.to_owned(), outcome: outcome.to_owned() };
        self.rollouts.get_or_create(&labels).inc();
    }

    /// Records the time from a commit to its healthy rollout.
    pub fn healthy(&self, since_commit: Duration) {
        self.commit_to_healthy.observe(since_commit.as_secs_f64());
    }

    /// Sets the number of open updates.
    pub fn pending_updates(&self, count: u64) {
        self.pending_updates.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the age of the oldest update that does not wait, and of the oldest unverified event.
    pub fn oldest_open(&self, update: Duration, event: Duration) {
        self.oldest_pending_update_age.set(update.as_secs_f64());
        self.oldest_queued_event_age.set(event.as_secs_f64());
    }

    /// Returns all metrics in the text format of Prometheus.
    ///
    /// Reads `/proc` and the store's disk, so it may block.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        prometheus_text(&text)
    }
}

/// Converts the library's OpenMetrics text to the Prometheus text format, which every scraper reads.
///
/// The Prometheus format has no end mark, and the `HELP` and `TYPE` lines of counters also have `_total`.
fn prometheus_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> =
        open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|mark| Some((*mark, line.strip_prefix(mark)?)));
        match described.and_then(|(mark, rest)| Some((mark, rest.split_once(' ')?))) {
            Some((mark, (name, rest))) if counters.contains(name) => {
                text.extend([mark, name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_documented_metrics_are_exported() {
        let metrics = Metrics::new();
        metrics.webhook_request("hub", "accepted");
        metrics.event(Some("docker.io/uyou/a"), "committed");
        metrics.event(None, "refused");
        metrics.update("staging", "committed");
        metrics.committed(Some(Duration::from_secs(3)), Duration::from_millis(40));
        metrics.commit(2);
        metrics.git_operation(GitOperation::push, "ok", Duration::from_millis(5));
        metrics.push_retry();
        metrics.registry_request("docker.io", "there");
        metrics.catch_up_look("docker.io", "unsupported");
        metrics.catch_up_found("docker.io", 2);
        metrics.pending_updates(7);
        metrics.oldest_open(Duration::from_millis(1500), Duration::ZERO);
        metrics.config_reload(false);
        metrics.watch_store(Path::new("Cargo.toml"));
        metrics.expect_receiver("quay");
        let text = metrics.encode();
        for line in [
            r#"tagrelay_webhook_requests_total{receiver="hub",outcome="accepted"} 1"#,
            r#"tagrelay_events_total{repository="docker.io/uyou/a",outcome="committed"} 1"#,
            r#"tagrelay_events_total{repository="unmanaged",outcome="refused"} 1"#,
            r#"tagrelay_updates_total{environment="staging",outcome="committed"} 1"#,
            "tagrelay_push_to_commit_seconds_sum 3",
            r#"tagrelay_receive_to_commit_seconds_bucket{le="0.05"} 1"#,
            r#"tagrelay_git_operation_seconds_count{operation="push",outcome="ok"} 1"#,
            "tagrelay_git_push_retries_total 1",
            r#"tagrelay_registry_requests_total{registry="docker.io",outcome="there"} 1"#,
            r#"tagrelay_catch_up_looks_total{registry="docker.io",outcome="unsupported"} 1"#,
            r#"tagrelay_catch_up_found_total{registry="docker.io"} 2"#,
            "tagrelay_pending_updates 7",
            "tagrelay_commit_updates_sum 2",
            "tagrelay_oldest_pending_update_age_seconds 1.5",
            "tagrelay_oldest_queued_event_age_seconds 0",
            r#"tagrelay_config_reload_total{outcome="ok"} 0"#,
            r#"tagrelay_config_reload_total{outcome="failed"} 1"#,
            "tagrelay_config_is_current 0",
            r#"tagrelay_build_info{version=""#,
            r#"tagrelay_webhook_requests_total{receiver="quay",outcome="unauthorized"} 0"#,
            "tagrelay_store_size_bytes ",
            "tagrelay_store_free_bytes ",
            "tagrelay_store_capacity_bytes ",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_start_time_seconds ",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE tagrelay_events_total counter",
            "# HELP tagrelay_git_push_retries_total Pushes that lost a race and ran again",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }
}
