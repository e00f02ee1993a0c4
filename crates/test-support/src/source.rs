//! A bare source repository of a service.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Text in every source file; it must not appear in stored data.
pub const CONTENT: &str = "the-source-of-the-service-8d1f";

pub struct Source {
    pub folder: tempfile::TempDir,
    name: String,
}

impl Source {
    pub fn new(name: &str, can_filter: bool) -> Self {
        let source = Self { folder: tempfile::tempdir().unwrap(), name: name.to_owned() };
        std::fs::create_dir(source.path()).unwrap();
        source.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."], "");
        source.git(&["config", "uploadpack.allowFilter", if can_filter { "true" } else { "false" }], "");
        source
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.git", self.name))
    }

    pub fn git(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, value) in [("NAME", "Somebody"), ("EMAIL", "somebody@example.com")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits on top of `parent` and moves the branch there.
    pub fn commit(&self, branch: &str, parent: Option<&str>, subject: &str) -> String {
        let blob = self.git(&["hash-object", "-w", "--stdin"], &format!("{CONTENT} {subject}\n"));
        let tree = self.git(&["mktree"], &format!("100644 blob {blob}\tmain.rs\n"));
        let mut arguments = vec!["commit-tree", &tree, "-m", subject];
        arguments.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
        let commit = self.git(&arguments, "");
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit], "");
        commit
    }

    /// Adds `count` commits on `main`. Returns their ids, oldest first.
    pub fn commits(&self, count: usize) -> Vec<String> {
        let mut script = String::new();
        for number in 1..=count {
            script.push_str(&format!(
                "commit refs/heads/main\ncommitter S <s@example.com> {} +0000\ndata <<E\n{number}\nE\n\
                 M 100644 inline main.rs\ndata <<E\n{CONTENT} {number}\nE\n\n",
                1_700_000_000 + number
            ));
        }
        self.git(&["fast-import", "--quiet"], &script);
        self.git(&["rev-list", "--reverse", "main"], "").lines().map(str::to_owned).collect()
    }
}
