//! Measures the order of two commits in a source history of 100,000 commits with more than 1,000 merges. Prints the time
//! of the first fetch and the cost per event, and fails if that exceeds its bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tagrelay::config_repo::Authentication;
use tagrelay::source_repo::{Membership, Relation, SourceSettings, Sources};
use tagrelay_image::Repository;

const COMMITS: usize = 100_000;

/// Bound for the median cost per event.
const BOUND: Duration = Duration::from_millis(1);

fn git(folder: &Path, arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Creates the history: every fiftieth commit merges a branch that started 40 commits earlier.
fn make(folder: &Path) -> Vec<String> {
    git(folder, &["init", "--quiet", "--bare", "--initial-branch=main", "."], "");
    git(folder, &["config", "uploadpack.allowFilter", "true"], "");
    let mut script = String::new();
    for number in 1..=COMMITS {
        let merge = if number % 50 == 0 { format!("merge :{}\n", number - 10) } else { String::new() };
        let from = match number {
            1 => String::new(),
            // The branch that is merged ten commits later.
            _ if number % 50 == 40 => format!("from :{}\n", number - 30),
            _ if number % 50 == 41 => format!("from :{}\n", number - 2),
            _ => format!("from :{}\n", number - 1),
        };
        script.push_str(&format!(
            "commit refs/heads/main\nmark :{number}\ncommitter S <s@example.com> {} +0000\ndata <<E\n{number}\nE\n{from}{merge}\n",
            1_500_000_000 + number * 60
        ));
    }
    git(folder, &["fast-import", "--quiet", "--force"], &script);
    git(folder, &["rev-list", "--topo-order", "--reverse", "main"], "").lines().map(str::to_owned).collect()
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("user-service.git");
    std::fs::create_dir(&source).unwrap();
    let commits = make(&source);
    println!("a source of {} commits over file", commits.len());
    let settings = SourceSettings {
        url: format!("file://{}/{{name}}.git", folder.path().display()),
        branches: vec!["main".to_owned()],
        authentication: Authentication::None,
        ca_bundle: None,
        folder: folder.path().join("sources"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let image: Repository = "docker.io/uyou/user-service".parse().unwrap();
        let newest = commits.last().unwrap();
        for what in ["the first reading", "after a restart"] {
            let sources = Sources::new(vec![settings.clone()]);
            let begun = Instant::now();
            assert_eq!(sources.membership(0, &image, newest).await.unwrap(), Membership::OnBranch);
            println!("{what:>42}: {:>10.1?}", begun.elapsed());
        }
        let sources = Sources::new(vec![settings]);
        sources.membership(0, &image, newest).await.unwrap();
        let near: Vec<(usize, usize)> =
            (1..1000).map(|step| (commits.len() - step, commits.len() - step - 20)).collect();
        let far: Vec<(usize, usize)> = (1..1000).map(|step| (commits.len() - step, step * 7)).collect();
        let old: Vec<(usize, usize)> = (1..1000).map(|step| (step * 7, commits.len() - step)).collect();
        for (what, pairs) in
            [("20 commits apart", near), ("the whole history apart", far), ("older than what runs", old)]
        {
            let mut times = Vec::new();
            for (new, running) in pairs {
                let (new, running) = (&commits[new], &commits[running]);
                let begun = Instant::now();
                let membership = sources.membership(0, &image, new).await.unwrap();
                let relation = sources.relation(0, &image, new, running).await.unwrap();
                times.push(begun.elapsed());
                assert_eq!(membership, Membership::OnBranch);
                assert!(!matches!(relation, Relation::Same), "{new} {running}");
            }
            times.sort_unstable();
            let median = times[times.len() / 2];
            println!("{:>42}: {median:>10.1?}, at most {:.1?}", format!("an event, {what}"), times[times.len() - 1]);
            assert!(median < BOUND, "ordering by ancestry takes {median:?} for each event, and may take {BOUND:?}");
        }
    });
}
