//! Runs the program with settings of a pod: mounted files are in a temporary folder.

use std::path::PathBuf;

use tagrelay_test_support::command::{Answer, program, run};
use tempfile::TempDir;

/// Where the pod has its Secret.
const SECRETS: &str = "/run/secrets/tagrelay";

pub struct Place {
    folder: TempDir,
}

impl Place {
    /// Writes the settings and the four keys of the Secret.
    pub fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        for key in ["git-password", "hub-webhook-secret", "ci-webhook-secret", "release-token"] {
            std::fs::write(secrets.join(key), "any value will do here\n").unwrap();
        }
        let settings = settings.replace(SECRETS, secrets.to_str().unwrap());
        std::fs::write(folder.path().join("tagrelay.toml"), settings).unwrap();
        Self { folder }
    }

    pub fn settings(&self) -> PathBuf {
        self.folder.path().join("tagrelay.toml")
    }

    /// Runs the program with these arguments. `{settings}` becomes the path of the settings.
    pub fn run(&self, arguments: &str) -> Answer {
        let arguments = arguments.replace("{settings}", self.settings().to_str().unwrap());
        run(program(env!("CARGO_BIN_EXE_tagrelay"), &arguments).current_dir(self.folder.path()))
    }
}
