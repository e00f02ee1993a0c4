//! `--version` names the commit of an optimised build.

use std::path::{Path, PathBuf};
use std::process::Command;

use tagrelay_test_support::command::{program, run};
use tagrelay_test_support::folder;
use tempfile::TempDir;

/// The build script, compiled by itself: an optimised build of the program takes minutes.
struct BuildScript {
    program: PathBuf,
    folder: TempDir,
}

impl BuildScript {
    fn compile() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("build-script");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "--crate-name=build_script", "-o"]).arg(&program);
        let output = command.arg(folder::root().join("build.rs")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { program, folder }
    }

    fn package(&self, name: &str) -> PathBuf {
        let package = self.folder.path().join(name);
        std::fs::create_dir_all(&package).unwrap();
        package
    }

    /// What the script prints, and what `--version` shows in parentheses.
    fn run(&self, package: &Path, profile: &str, variables: &[(&str, &str)]) -> (String, String) {
        let mut command = Command::new(&self.program);
        command.env_remove("TAGRELAY_COMMIT").env_remove("TAGRELAY_COMMIT_DATE");
        command.env("CARGO_MANIFEST_DIR", package).env("PROFILE", profile).envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let build = printed.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=TAGRELAY_BUILD=")).unwrap();
        (printed.clone(), build.to_owned())
    }
}

fn git(package: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "2026-11-30T12:00:00Z");
    command.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-C"]).arg(package).args(arguments);
    tagrelay_test_support::command::run(&mut command).expect_code(0).stdout.trim().to_owned()
}

#[test]
fn version_has_the_build_in_parentheses() {
    let answer = run(&mut program(env!("CARGO_BIN_EXE_tagrelay"), "--version")).expect_code(0);
    assert!(answer.stdout.starts_with(&format!("tagrelay {} (", env!("CARGO_PKG_VERSION"))), "{}", answer.stdout);
    assert!(answer.stdout.ends_with(")\n"), "{}", answer.stdout);
}

#[test]
fn optimised_build_names_commit_and_its_date() {
    let script = BuildScript::compile();
    let package = script.package("repository");
    git(&package, &["init", "--quiet"]);
    git(&package, &["commit", "--quiet", "--allow-empty", "--message=first"]);
    let commit = git(&package, &["rev-parse", "HEAD"]);
    let (printed, build) = script.run(&package, "release", &[]);
    assert_eq!(build, format!("{} 2026-11-30", &commit[..12]));
    assert!(printed.contains("cargo::rerun-if-changed") && printed.contains(".git/logs/HEAD"), "{printed}");

    let (printed, build) = script.run(&package, "debug", &[]);
    assert_eq!(build, "debug build");
    assert!(!printed.contains(".git"), "a commit does not compile a debug build again: {printed}");
}

#[test]
fn build_without_git_takes_the_variables() {
    let script = BuildScript::compile();
    let package = script.package("archive");
    assert_eq!(script.run(&package, "release", &[]).1, "unknown commit");
    let commit = ("TAGRELAY_COMMIT", "0123456789abcdef0123456789abcdef01234567");
    assert_eq!(script.run(&package, "release", &[commit]).1, "0123456789ab");
    let date = ("TAGRELAY_COMMIT_DATE", "2026-12-01T10:00:00+01:00");
    assert_eq!(script.run(&package, "release", &[commit, date]).1, "0123456789ab 2026-12-01");
    // Arguments that a container build did not pass are empty.
    assert_eq!(script.run(&package, "release", &[("TAGRELAY_COMMIT", "")]).1, "unknown commit");
}

#[test]
fn archive_below_another_repository_does_not_name_its_commit() {
    let script = BuildScript::compile();
    let outer = script.package("outer");
    git(&outer, &["init", "--quiet"]);
    git(&outer, &["commit", "--quiet", "--allow-empty", "--message=other"]);
    let package = script.package("outer/tagrelay-0.1.0");
    assert_eq!(script.run(&package, "release", &[]).1, "unknown commit");
}
