//! The built program against faulty Git servers: nothing is lost, written twice or damaged.

mod lost_answers;
mod property;
mod retries;
mod rivals;
mod room;
mod slow;

use tagrelay_embedded_registry::EmbeddedRegistry;
use tagrelay_test_support::fleet::{Builder, Fleet, Upstream, free_port};
use tagrelay_test_support::git_http::Server;

/// A fleet of the built program.
fn fleet() -> Builder {
    Fleet::builder(env!("CARGO_BIN_EXE_tagrelay"))
}

/// A fleet with a config repository behind a faulty server.
async fn behind_http(builder: Builder) -> (Fleet, Server, EmbeddedRegistry) {
    let registry = EmbeddedRegistry::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let upstream = builder.upstream(&registry.host());
    let server = Server::start(upstream.parent(), "tagrelay", "secret");
    let fleet = builder
        .registry(&registry.host())
        .remote(&format!("{}/config.git", server.url), CREDENTIALS)
        .start_at(free_port(), upstream)
        .await;
    (fleet, server, registry)
}

const CREDENTIALS: &str = "username = \"tagrelay\"\npassword = { value = \"secret\" }\n";

/// Runs `git fsck` on the config repository.
fn assert_sound(upstream: &Upstream) {
    assert_eq!(upstream.git(&["fsck", "--strict", "--no-dangling"]), "");
}

/// Number of commits that set a service to a tag in an environment.
fn commits_of(upstream: &Upstream, repository: &str, environment: &str, tag: &str) -> usize {
    let image = format!("Tagrelay-Image: {repository}:{tag}@");
    let log = upstream.git(&["log", "--format=%B%x00", "main"]);
    let environment = format!("Tagrelay-Environment: {environment}\n");
    log.split('\0')
        .filter(|message| message.contains(&environment))
        .flat_map(|message| message.lines())
        .filter(|line| line.starts_with(&image))
        .count()
}
