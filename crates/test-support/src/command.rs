//! Runs the built program with an environment that the test controls.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::folder::root;
use crate::settings;

/// The result of a command.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("the program ends by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// A command for the program at `binary` with these arguments, separated by blanks, and an empty environment.
pub fn program(binary: &str, arguments: &str) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments.split_whitespace()).env_clear().stdin(Stdio::null());
    // Needed for `file://` repositories.
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

pub fn run(command: &mut Command) -> Answer {
    Answer::of(command.output().unwrap())
}

/// A folder with a bare config repository that holds `deploy/config-repository`.
pub struct Workplace {
    folder: TempDir,
    binary: String,
}

impl Workplace {
    /// Creates the folder with a `tagrelay.toml`. `binary` is the path of the program.
    pub fn new(binary: &str) -> Self {
        let workplace = Self { folder: tempfile::tempdir().unwrap(), binary: binary.to_owned() };
        workplace.write_settings(settings::COMMANDS);
        workplace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `tagrelay.toml`. `{folder}` in the text becomes the folder.
    pub fn write_settings(&self, settings: &str) {
        let settings = settings.replace("{folder}", self.folder.path().to_str().unwrap());
        std::fs::write(self.path("tagrelay.toml"), settings).unwrap();
    }

    /// Creates `platform.git` with `deploy/config-repository` on `main`.
    pub fn with_repository(self) -> Self {
        let example = root().join("deploy/config-repository/.");
        let work = self.path("work");
        assert!(Command::new("cp").arg("-r").arg(example).arg(&work).status().unwrap().success());
        self.git(&["init", "-q", "-b", "main", "work"]);
        self.git(&["-C", "work", "add", "-A"]);
        self.git(&["-C", "work", "commit", "-q", "-m", "Begin"]);
        self.git(&["clone", "-q", "--bare", "work", "platform.git"]);
        self
    }

    /// Runs Git in the folder and returns its standard output.
    pub fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"];
        let output = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command for the program in this folder.
    pub fn tagrelay(&self, arguments: &str) -> Command {
        let mut command = program(&self.binary, arguments);
        command.current_dir(self.folder.path());
        command
    }
}
