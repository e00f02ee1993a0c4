//! A bare repository in a temporary folder, a foreign committer, and Git isolated from the machine's configuration.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A Git command that reads only the repository's own configuration.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com");
    command
}

/// Runs Git and returns its output, successful or not.
pub fn attempt<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Output {
    command(folder).args(arguments).output().expect("git runs")
}

/// Runs Git, which must succeed, and returns its output.
pub fn git<S: AsRef<OsStr> + std::fmt::Debug>(folder: &Path, arguments: &[S]) -> String {
    let output = attempt(folder, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs Git with standard input.
pub fn git_with_input(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut child = command(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git runs");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A remote: a bare repository with foreign commits.
pub struct Remote {
    folder: TempDir,
    branch: String,
}

impl Remote {
    /// An empty repository.
    pub fn empty() -> Self {
        let folder = TempDir::new().unwrap();
        git(folder.path(), &["init", "-q", "--bare", "-b", "main", "config.git"]);
        git(folder.path(), &["init", "-q", "-b", "main", "work"]);
        let remote = Self { folder, branch: "main".to_owned() };
        git(&remote.work(), &["remote", "add", "origin", remote.bare().to_str().unwrap()]);
        remote
    }

    /// A repository with one commit on `main`.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let remote = Self::empty();
        remote.commit("first", files);
        remote
    }

    /// The folder of the bare repository `config.git`.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn bare(&self) -> PathBuf {
        self.folder.path().join("config.git")
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn file_url(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    /// Commits files as another author on top of the branch and pushes. Returns the commit.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        let work = self.work();
        if attempt(&work, &["fetch", "-q", "origin", &self.branch]).status.success() {
            git(&work, &["reset", "-q", "--hard", "FETCH_HEAD"]);
        }
        for (path, text) in files {
            let path = work.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&work, &["add", "-A"]);
        self.commit_index(message)
    }

    /// Commits the index of the working copy and pushes with force.
    pub fn commit_index(&self, message: &str) -> String {
        git(&self.work(), &["commit", "-q", "--allow-empty", "-m", message]);
        git(&self.work(), &["push", "-q", "--force", "origin", &format!("HEAD:refs/heads/{}", self.branch)]);
        self.tip()
    }

    /// The tip of the branch.
    pub fn tip(&self) -> String {
        git(&self.bare(), &["rev-parse", &format!("refs/heads/{}", self.branch)]).trim().to_owned()
    }

    /// A file at the tip of the branch.
    pub fn read(&self, path: &str) -> String {
        git(&self.bare(), &["show", &format!("{}:{path}", self.branch)])
    }

    /// The commit subjects of the branch, newest first.
    pub fn log(&self) -> Vec<String> {
        git(&self.bare(), &["log", "--format=%s", &self.branch]).lines().map(str::to_owned).collect()
    }

    /// Installs a hook, a shell script without its first line.
    pub fn hook(&self, name: &str, script: &str) {
        let path = self.bare().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn remove_hook(&self, name: &str) {
        std::fs::remove_file(self.bare().join("hooks").join(name)).unwrap();
    }

    /// Runs `git fsck` on the remote.
    pub fn assert_sound(&self) {
        assert_sound(&self.bare());
    }
}

/// Runs `git fsck` on a repository.
pub fn assert_sound(bare: &Path) {
    let output = attempt(bare, &["fsck", "--strict", "--no-dangling"]);
    assert!(output.status.success(), "fsck: {}", String::from_utf8_lossy(&output.stderr));
    let said = [output.stdout, output.stderr].concat();
    assert!(said.is_empty(), "fsck: {}", String::from_utf8_lossy(&said));
}
