//! PostgreSQL accepts every statement text.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::super::database::Dialect;
use super::super::statements::Listed;

const SCHEMA: &str = include_str!("../migrations/postgres/0001_initial.sql");

fn all() -> Vec<Listed> {
    use super::super::{
        apply, backlog, block_rows, build_times, catch_up, claims, deliveries, due, events, explain, facts, failures,
        follow_ups, gates, history, ids, missing_facts, outbox, pushes, receivers, rejections, requests, retention,
        starts, version_runs, wait_rows, waits, writer,
    };
    let mut all = apply::statements();
    for of_file in [
        backlog::STATEMENTS,
        block_rows::STATEMENTS,
        build_times::STATEMENTS,
        catch_up::STATEMENTS,
        claims::STATEMENTS,
        deliveries::STATEMENTS,
        due::STATEMENTS,
        events::STATEMENTS,
        explain::STATEMENTS,
        facts::STATEMENTS,
        failures::STATEMENTS,
        follow_ups::STATEMENTS,
        gates::STATEMENTS,
        history::STATEMENTS,
        ids::STATEMENTS,
        missing_facts::STATEMENTS,
        outbox::STATEMENTS,
        pushes::STATEMENTS,
        receivers::STATEMENTS,
        rejections::STATEMENTS,
        requests::STATEMENTS,
        retention::STATEMENTS,
        starts::STATEMENTS,
        version_runs::STATEMENTS,
        wait_rows::STATEMENTS,
        waits::STATEMENTS,
        writer::STATEMENTS,
    ] {
        all.extend_from_slice(of_file);
    }
    all
}

/// Counts the statements in the files, so that no file is missing from the list.
#[test]
fn every_statement_is_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut declared = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("statements.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut inside = false;
            for line in text.lines() {
                inside = (inside && line != "}") || line == "statements! {";
                let is_name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.contains(" = (");
                declared += usize::from(inside && line.strip_prefix("    ").is_some_and(is_name));
            }
        }
    }
    assert_eq!(all().len(), declared);
}

#[test]
fn statements_name_no_state_and_nothing_of_one_database() {
    let words = ["unverified", "pending", "waiting", "committed", "unchanged", "superseded", "refused", "queued"];
    for (module, name, statement) in all() {
        let text = statement.render(2, Dialect::Postgres);
        for word in words {
            assert!(!text.contains(&format!("'{word}'")), "{module}::{name} names the state {word}");
        }
        for forbidden in
            ["?", "json_each", "INDEXED BY", "OR REPLACE", "OR IGNORE", "rowid", "unixepoch", "->", "SELECT *", "LIKE"]
        {
            let found = text.replace("SELECT * FROM (SELECT", "").contains(forbidden);
            assert!(!found, "{module}::{name} has {forbidden}");
        }
    }
}

#[test]
fn statements_prepare_on_postgresql() {
    let without = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    if without.split_whitespace().any(|name| name == "postgresql") {
        eprintln!("left out: statements on PostgreSQL, because TAGRELAY_TEST_WITHOUT names postgresql");
        return;
    }
    let server = Server::start();
    let mut script = String::from(SCHEMA);
    let mut prepared = 0;
    for (module, name, statement) in all() {
        let render = |entries| statement.render(entries, Dialect::Postgres);
        let shapes: &[usize] = if render(1) == render(2) { &[1] } else { &[1, 2] };
        for size in shapes {
            prepared += 1;
            script.push_str(&format!("\n\\echo {module}::{name} {size}\nPREPARE s{prepared} AS {};", render(*size)));
        }
    }
    let output = server.run(&script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}",
        String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or("")
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == "PREPARE").count(), prepared);
}

/// A PostgreSQL server of its own, on a socket in a temporary folder.
struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let programs = programs().unwrap_or_else(|| {
            panic!("PostgreSQL is not installed: run scripts/setup-tests.sh, or set TAGRELAY_TEST_WITHOUT=postgresql")
        });
        let server = Self { programs, folder: tempfile::tempdir().unwrap() };
        if is_root() {
            // PostgreSQL refuses to run as root.
            let folder = server.folder.path();
            let owned = Command::new("chown").arg("postgres").arg(folder).status().unwrap();
            assert!(owned.success(), "the temporary folder cannot be given to the user postgres");
        }
        let data = server.data();
        let made =
            server.program("initdb").args(["-D", &data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]);
        check("initdb", made.output().unwrap());
        let folder = server.folder.path().display();
        let options = format!("-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off");
        let started =
            server.program("pg_ctl").args(["start", "-w", "-D", &data, "-o", &options, "-l"]).arg(server.log());
        check("pg_ctl start", started.stdout(Stdio::null()).output().unwrap());
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn program(&self, name: &str) -> Program {
        let path = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C").stdin(Stdio::null());
        Program(command)
    }

    fn run(&self, script: &str) -> Output {
        let file = self.folder.path().join("script.sql");
        std::fs::write(&file, script).unwrap();
        let psql = self.program("psql").args(["-X", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        psql.arg(self.folder.path().to_path_buf()).args(["-f"]).arg(file).output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.program("pg_ctl").args(["stop", "-m", "immediate", "-D", &self.data()]).output();
        if let Err(error) = stopped {
            eprintln!("PostgreSQL was not stopped: {error}");
        }
    }
}

/// A command whose arguments are added by value.
struct Program(Command);

impl Program {
    fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.args(args);
        self
    }

    fn arg(mut self, arg: PathBuf) -> Self {
        self.0.arg(arg);
        self
    }

    fn stdout(mut self, to: Stdio) -> Self {
        self.0.stdout(to);
        self
    }

    fn output(mut self) -> std::io::Result<Output> {
        self.0.output()
    }
}

fn check(what: &str, output: Output) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_root() -> bool {
    // The owner of a new file is the user of the process.
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::MetadataExt::uid(&file.metadata().unwrap()) == 0
}

/// Returns the folder of the newest installed PostgreSQL.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}

/// Statements that may read a whole table: lists for people, and the rare queries of retention.
const SCANS: [&str; 5] =
    ["events::LIST", "follow_ups::OPEN", "requests::LIST", "retention::OLD_EVENTS", "retention::OLD_REQUESTS"];

/// The tables that grow with the history.
const GROWING: [&str; 7] = ["events", "updates", "requests", "failures", "follow_ups", "outbox", "waits"];

/// SQLite plans without statistics, so an empty store shows the plans of a full one.
#[tokio::test]
async fn statements_find_their_rows_by_an_index() {
    let fixture = super::Fixture::new().await;
    let mut connection = fixture.store.reads.acquire().await.unwrap();
    let mut scans = Vec::new();
    for (module, name, statement) in all() {
        let text = format!("EXPLAIN QUERY PLAN {}", statement.render(2, Dialect::Sqlite));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(&mut *connection).await.unwrap();
        let table = |step: &str| step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        let tables = plan.iter().filter_map(|(_, _, _, step)| table(step));
        if tables.into_iter().any(|table| GROWING.contains(&table.as_str())) {
            scans.push(format!("{}::{name}", module.rsplit("store::").next().unwrap_or(module)));
        }
    }
    scans.sort();
    assert_eq!(scans, SCANS);
}

/// An index finds the newest rows of a place and the updates of a cause, however long the history is.
#[tokio::test]
async fn statements_of_the_branch_writer_use_the_index_that_was_made_for_them() {
    let fixture = super::Fixture::new().await;
    let mut connection = fixture.store.reads.acquire().await.unwrap();
    for (wanted, index) in [
        ("claims::PENDING", "updates_by_state (state=? AND environment=?)"),
        ("claims::PENDING", "updates_by_cause (cause_id=? AND state=?)"),
        ("claims::LANDED", "updates_landed (environment=? AND repository=? AND state=? AND finished_at>?)"),
        ("claims::BROUGHT", "updates_landed (environment=? AND repository=? AND state=? AND finished_at>?)"),
        ("apply::effects::EARLIER", "updates_by_state (state=? AND environment=? AND repository=?)"),
        ("apply::events::REFUSED_UPDATES", "updates_by_cause (cause_id=? AND state=?)"),
        ("apply::settle::UPDATES", "updates_by_cause (cause_id=?)"),
        ("missing_facts::DUE", "sqlite_autoindex_updates_1 (id=?)"),
        ("pushes::UNDER_WAY", "sqlite_autoindex_updates_1 (id=?)"),
        ("events::ANNOUNCED_BEFORE", "events_announced (verified_digest=? AND repository=? AND id<?)"),
        ("due::DUE_EVENTS", "events_due (state=? AND registry=? AND next_attempt_at<?)"),
    ] {
        let all = all();
        let (_, _, statement) = all
            .iter()
            .find(|(module, name, _)| format!("{module}::{name}").ends_with(&format!("store::{wanted}")))
            .unwrap();
        let text = format!("EXPLAIN QUERY PLAN {}", statement.render(2, Dialect::Sqlite));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(text)).fetch_all(&mut *connection).await.unwrap();
        let steps: Vec<&str> = plan.iter().map(|(_, _, _, step)| step.as_str()).collect();
        assert!(steps.iter().any(|step| step.contains(index)), "{wanted}: {steps:#?}");
        if wanted == "claims::BROUGHT" {
            assert!(!steps.iter().any(|step| step.contains("ORDER BY")), "{wanted} sorts the history: {steps:#?}");
        }
    }
}
