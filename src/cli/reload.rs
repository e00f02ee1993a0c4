//! Settings that change while the service runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::server::Server;
use crate::settings::{Change, Fault, Faults, Fingerprint, Settings};

/// How often the files are looked at. Asking for their metadata costs microseconds and works on every file system, which
/// cannot be said of being told.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long files have to stay as they are before they are read: somebody may be just writing them.
const QUIET: Duration = Duration::from_millis(300);

/// How often they are looked at until they are read in any case.
const MAX_LOOKS: u32 = 20;

/// Reads the settings again.
pub(super) struct Reloader {
    file: PathBuf,
    /// Of the last reading, good or not.
    seen: Arc<Fingerprint>,
}

impl Reloader {
    /// Begins with settings that have been read from a file.
    pub(super) fn new(file: PathBuf, settings: &Settings) -> Self {
        Self { file, seen: Arc::new(settings.fingerprint.clone()) }
    }

    /// Returns when the settings, or a file that they name, have changed since they were last read.
    pub(super) async fn changed(&self) {
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

    /// Reads the settings and has the server work by them, unless there is a fault. Returns what has changed.
    pub(super) async fn reload(&mut self, server: &mut Server, because: &str) -> Result<Vec<Change>, Faults> {
        let result = self.try_reload(server).await;
        server.relay().metrics().config_reload(result.is_ok());
        match &result {
            Ok(changes) => {
                let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                tracing::info!(because, changes, "settings reloaded");
            }
            Err(Faults(faults)) => {
                for fault in faults {
                    tracing::error!(because, %fault, "settings not reloaded; those in force stay");
                }
            }
        }
        result
    }

    async fn try_reload(&mut self, server: &mut Server) -> Result<Vec<Change>, Faults> {
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
            // Whoever asks for a reload that changes nothing wants something to happen.
            server.relay().catch_up_now();
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
