//! Completion in real shells, and manual pages in the real `man`.

use std::process::{Command, Stdio};

use axum::Router;
use axum::routing::get;
use serde_json::json;

/// Whether a program is to be used. TAGRELAY_TEST_WITHOUT names those that are missing.
fn has(program: &str) -> bool {
    let without = std::env::var("TAGRELAY_TEST_WITHOUT").unwrap_or_default();
    let is_missing = without.split([',', ' ']).any(|name| name == program);
    if is_missing {
        eprintln!("left out: a test with {program}, because TAGRELAY_TEST_WITHOUT names it");
    }
    !is_missing
}

/// A server with two environments, and its address.
async fn server() -> String {
    let cell = |name: &str| json!({ "repository": format!("docker.io/uyou/{name}"), "version": null, "versions": [], "holds": [], "waiting": [], "sites": [] });
    let environment = |name: &str| {
        json!({ "name": name, "config_repository": "platform", "branch": "main", "update": "manual",
        "promote_from": [], "tip": "a", "problems": [], "repositories": [cell("user-service"), cell("order-service")] })
    };
    let matrix = json!({ "environments": [environment("staging"), environment("production")], "registries": [] });
    let routes = Router::new().route("/api/v1/environments", get(async move || axum::Json(matrix.clone())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

/// Runs a script in a shell with the program in PATH, and returns what it printed.
async fn run(shell: &str, script: String, server: &str) -> String {
    let folder = std::path::Path::new(crate::PROGRAM).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(shell);
    command.env_clear().env("PATH", path).env("TAGRELAY_SERVER", server).env("TAGRELAY_TOKEN", "hunter2");
    command.env("HOME", "/nonexistent").arg("-c").arg(script).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn bash_completes_commands_environments_and_repositories() {
    let server = server().await;
    let complete = async |words: &str| {
        let count = words.split(' ').count() - 1;
        let script = format!(
            "source <(tagrelay completion bash)\nCOMP_WORDS=({words})\n[ '{words}' = \"${{COMP_WORDS[*]}}\" ] || COMP_WORDS+=('')\n\
             COMP_CWORD={count}\n_tagrelay\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let shown = run("bash", script, &server).await;
        shown.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("tagrelay promo").await, ["promote", "promotions"]);
    assert_eq!(complete("tagrelay status p").await, ["production"]);
    assert_eq!(complete("tagrelay hold production ").await, ["order-service", "user-service"]);
    assert_eq!(complete("tagrelay rollback --environment ").await, ["staging", "production"]);
    assert_eq!(complete("tagrelay promote --wait-for h").await, ["healthy"]);
    assert_eq!(complete("tagrelay status --dif").await, ["--differs"]);
}

#[tokio::test]
async fn zsh_loads_the_script_and_asks_the_program() {
    if !has("zsh") {
        return;
    }
    let server = server().await;
    // `compadd` works in the line editor only: the test prints its words instead.
    let script = "compdef() { :; }\ncompadd() { print -l -- ${(P)2}; }\nsource <(tagrelay completion zsh)\n\
         words=(tagrelay hold production '')\nCURRENT=4\n_tagrelay"
        .to_owned();
    assert_eq!(run("zsh", script, &server).await, "order-service\nuser-service\n");
}

#[tokio::test]
async fn fish_completes_environments_and_repositories() {
    if !has("fish") {
        return;
    }
    let server = server().await;
    let complete = async |line: &str| {
        let script = format!("tagrelay completion fish | source\ncomplete -C '{line}'");
        run("fish", script, &server).await
    };
    assert_eq!(complete("tagrelay hold production ").await, "order-service\nuser-service\n");
    assert_eq!(complete("tagrelay status p").await, "production\n");
}

#[tokio::test]
async fn completion_without_a_server_is_silent() {
    let script = "tagrelay __complete -- status '' 2>&1; tagrelay __complete -- prom";
    assert_eq!(run("bash", script.to_owned(), "http://127.0.0.1:1").await, "promote\npromotions\n");
}

#[test]
fn manual_pages_are_read_by_man_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(crate::PROGRAM).arg("manual").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(pages > 25, "{pages}");
    if !has("man") {
        return;
    }
    for name in ["tagrelay", "tagrelay-rollback", "tagrelay-events-show"] {
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(folder.path().join(format!("{name}.1")));
        let output = man.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").env("MANPAGER", "cat").output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
        assert!(shown.contains("SYNOPSIS") && shown.contains("EXIT STATUS"), "{name}:\n{shown}");
    }
}
