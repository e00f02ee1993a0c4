//! A fleet's config repository: a bare repository with foreign commits.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

/// A bare repository with one branch, `main`.
pub struct Upstream {
    folder: TempDir,
}

impl Upstream {
    /// Creates the repository with these files in its first commit.
    pub fn new(files: &[(String, String)]) -> Self {
        let upstream = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(upstream.path()).unwrap();
        upstream.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        upstream.git(&["config", "http.receivepack", "true"]);
        upstream.import("begin", files);
        upstream
    }

    /// Creates the first commit by a single Git process, however many files it has.
    fn import(&self, subject: &str, files: &[(String, String)]) {
        let person = "Somebody <somebody@example.com> 1700000000 +0000";
        let mut stream = format!("commit refs/heads/main\ncommitter {person}\ndata {}\n{subject}\n", subject.len());
        for (path, text) in files {
            stream.push_str(&format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len()));
        }
        self.git_with(&["fast-import", "--quiet"], Some(&stream), &[]);
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("config.git")
    }

    /// The repository's folder, for a server.
    pub fn parent(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// Runs Git in the bare repository, isolated from the user's configuration.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, None, &[])
    }

    fn git_with(&self, arguments: &[&str], input: Option<&str>, environment: &[(&str, &str)]) -> String {
        use std::io::Write as _;
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Somebody")
            .env("GIT_AUTHOR_EMAIL", "somebody@example.com")
            .env("GIT_COMMITTER_NAME", "Somebody")
            .env("GIT_COMMITTER_EMAIL", "somebody@example.com")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commits files as another author on top of the branch. Returns `false` if the branch moved meanwhile.
    pub fn try_commit(&self, subject: &str, files: &[(&str, &str)]) -> bool {
        let index = self.path().join(format!("index-{:?}", std::thread::current().id()));
        let index = index.to_str().unwrap();
        let tip =
            Command::new("git").args(["rev-parse", "--quiet", "--verify", "main"]).current_dir(self.path()).output();
        let tip = String::from_utf8(tip.unwrap().stdout).unwrap().trim().to_owned();
        let environment = [("GIT_INDEX_FILE", index)];
        if !tip.is_empty() {
            self.git_with(&["read-tree", &tip], None, &environment);
        }
        for (path, text) in files {
            let blob = self.git_with(&["hash-object", "-w", "--stdin"], Some(text), &[]);
            let entry = format!("100644,{},{path}", blob.trim());
            self.git_with(&["update-index", "--add", "--cacheinfo", &entry], None, &environment);
        }
        let tree = self.git_with(&["write-tree"], None, &environment);
        let _ = std::fs::remove_file(index);
        let mut arguments = vec!["commit-tree", tree.trim(), "-m", subject];
        if !tip.is_empty() {
            arguments.extend(["-p", tip.as_str()]);
        }
        let commit = self.git(&arguments);
        let old = if tip.is_empty() { "0000000000000000000000000000000000000000" } else { tip.as_str() };
        let moved = Command::new("git")
            .args(["update-ref", "refs/heads/main", commit.trim(), old])
            .current_dir(self.path())
            .stderr(Stdio::null())
            .status();
        moved.unwrap().success()
    }

    /// Repeats [`Upstream::try_commit`] until it succeeds.
    pub fn commit(&self, subject: &str, files: &[(&str, &str)]) {
        while !self.try_commit(subject, files) {}
    }

    pub fn file(&self, path: &str) -> String {
        self.git(&["show", &format!("main:{path}")])
    }

    /// The commit subjects of the branch, newest first.
    pub fn subjects(&self) -> Vec<String> {
        self.git(&["log", "--format=%s", "main"]).lines().map(str::to_owned).collect()
    }

    pub fn tip(&self) -> String {
        self.git(&["rev-parse", "main"]).trim().to_owned()
    }

    /// Installs a server hook.
    pub fn hook(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path().join("hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file each time, because a running shell still reads the previous one.
        let new = path.with_extension("new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub fn remove_hook(&self, name: &str) {
        std::fs::remove_file(self.path().join("hooks").join(name)).unwrap();
    }

    /// Installs a hook that waits at a gate.
    pub fn gate(&self, hook: &str) -> Gate {
        let gate = self.new_gate();
        self.hook(hook, &gate.script());
        gate
    }

    /// Creates a gate for a custom hook, which runs [`Gate::script`].
    pub fn new_gate(&self) -> Gate {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Gate { folder: self.parent().join(format!("gate-{}", COUNT.fetch_add(1, Ordering::Relaxed))) }
    }
}

/// A point in a hook at which pushes wait until the test opens it.
pub struct Gate {
    folder: PathBuf,
}

impl Gate {
    /// The lines of a hook that wait at the gate.
    pub fn script(&self) -> String {
        let folder = self.folder.display();
        // Also ends with the test, which removes the folder.
        format!(
            "mkdir -p {folder}; touch {folder}/reached\n\
             while [ ! -e {folder}/open ] && [ -e {folder}/reached ]; do sleep 0.01; done"
        )
    }

    /// Whether a push waits at the gate or passed it.
    pub fn is_reached(&self) -> bool {
        self.folder.join("reached").exists()
    }

    /// Opens the gate. It stays open.
    pub fn open(&self) {
        std::fs::create_dir_all(&self.folder).unwrap();
        std::fs::write(self.folder.join("open"), "").unwrap();
    }
}
