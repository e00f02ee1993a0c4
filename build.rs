//! Passes commit and date of an optimised build to `tagrelay --version`.
//!
//! They come from `TAGRELAY_COMMIT` and `TAGRELAY_COMMIT_DATE`, or from Git. The date is the commit's, so that a commit gives
//! the same program at any time. Builds without optimisation name no commit: each commit would compile the program again.

use std::path::Path;
use std::process::Command;

/// Digits of the commit that are shown.
const SHORT: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TAGRELAY_COMMIT");
    println!("cargo::rerun-if-env-changed=TAGRELAY_COMMIT_DATE");
    println!("cargo::rustc-env=TAGRELAY_BUILD={}", build());
}

/// What `--version` shows in parentheses.
fn build() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = variable("TAGRELAY_COMMIT").map(|commit| (commit, variable("TAGRELAY_COMMIT_DATE")));
    match given.or_else(|| if is_release { from_git() } else { None }) {
        Some((commit, date)) => {
            let commit: String = commit.chars().filter(char::is_ascii_hexdigit).take(SHORT).collect();
            let date: String = date.unwrap_or_default().chars().take("2026-12-01".len()).collect();
            format!("{commit} {date}").trim().to_owned()
        }
        None if is_release => "unknown commit".to_owned(),
        None => "debug build".to_owned(),
    }
}

/// Commit and date of HEAD. `None`: this folder is not the root of a repository, for example an unpacked archive.
fn from_git() -> Option<(String, Option<String>)> {
    let root = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&root, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&root).canonicalize().ok()? {
        return None;
    }
    // HEAD changes at a checkout, the reflog at every commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = Path::new(&root).join(git(&root, &["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    Some((git(&root, &["rev-parse", "HEAD"])?, git(&root, &["show", "--no-patch", "--format=%cs", "HEAD"])))
}

fn git(folder: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
