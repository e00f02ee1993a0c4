//! Reloads the settings while the daemon runs.
//!
//! A changed file, SIGHUP or a request of the API starts a reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::running::Server;
use crate::settings::{ChangedSection, Fault, Faults, Fingerprint, Settings};

/// How often the metadata of the files is compared.
///
/// A comparison takes microseconds and works on every file system, unlike notifications.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long files must stay unchanged before they are read, because a write may be in progress.
const QUIET: Duration = Duration::from_millis(300);

/// Changed files are read after this many comparisons, even if they still change.
const MAX_LOOKS: u32 = 20;

/// Reads changed settings and applies them to the server.
pub(crate) struct Reloader {
    file: PathBuf,
    /// The fingerprint of the last reading, even if that reading failed.
    seen: Arc<Fingerprint>,
}

impl Reloader {
    /// `settings` must have been read from `file` at the start.
    pub(crate) fn new(file: PathBuf, settings: &Settings) -> Self {
        Self { file, seen: Arc::new(settings.fingerprint.clone()) }
    }

    /// Waits until the settings file, or a file that the settings name, differs from the last reading.
    pub(crate) async fn changed(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if is_current(self.seen.clone()).await {
                continue;
            }
            for _ in 0..MAX_LOOKS {
                let seen = self.seen.clone();
                let Ok(now) = tokio::task::spawn_blocking(move || seen.now()).await else { return };
                tokio::time::sleep(QUIET).await;
                if is_current(Arc::new(now)).await {
                    break;
                }
            }
            return;
        }
    }

    /// Reads the settings and applies them unless they have a fault. Returns the changed sections.
    pub(crate) async fn reload(&mut self, server: &mut Server, because: &str) -> Result<Vec<ChangedSection>, Faults> {
        let result = self.try_reload(server).await;
        server.relay().metrics().config_reload(result.is_ok());
        match &result {
            Ok(changes) => {
                let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                tracing::info!(because, changes, "settings reloaded");
            }
            Err(Faults(faults)) => {
                for fault in faults {
                    tracing::error!(because, %fault, "settings not reloaded; the old ones stay in force");
                }
            }
        }
        result
    }

    async fn try_reload(&mut self, server: &mut Server) -> Result<Vec<ChangedSection>, Faults> {
        let (file, running) = (self.file.clone(), server.settings().clone());
        let reading = tokio::task::spawn_blocking(move || Settings::load_again(&file, &running)).await;
        let reading = reading.map_err(|error| self.fault(&anyhow!(error)))?;
        self.seen = Arc::new(reading.fingerprint);
        let settings = reading.result?;
        let changes = server.settings().fingerprint.changes(&settings.fingerprint);
        if !changes.is_empty() {
            for warning in &settings.warnings {
                tracing::warn!("{warning}");
            }
            server.reload(settings).await.map_err(|error| self.fault(&error))?;
        } else {
            // A reload without changes still starts catch-up and retries rejected pushes.
            server.relay().catch_up_now();
            server.relay().try_rejected_again().await;
        }
        Ok(changes)
    }

    fn fault(&self, error: &anyhow::Error) -> Faults {
        let file = self.file.display().to_string();
        Faults(vec![Fault { file, position: None, message: format!("{error:#}"), hint: None }])
    }
}

async fn is_current(fingerprint: Arc<Fingerprint>) -> bool {
    // Fails only while the process ends.
    tokio::task::spawn_blocking(move || fingerprint.is_current()).await.unwrap_or(true)
}
