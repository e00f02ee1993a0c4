//! `tagrelay serve` as the built program, and client commands against it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use tagrelay_test_support::command::{Answer, Workplace, run};
use tagrelay_test_support::git_tls::make_certificates;
use tagrelay_test_support::settings::COMMANDS;

use crate::workplace;

/// Time limit on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const SHA: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432";

/// A running service, killed on drop.
struct Service {
    process: Child,
    log: BufReader<ChildStdout>,
    address: String,
    operations: Option<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Service {
    /// Starts the service and waits until it logs its address.
    fn start(workplace: &Workplace) -> Self {
        let mut command = workplace.tagrelay("serve --log-format json");
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let listening = until(&mut log, "listening");
        let address = |name: &str| listening[name].as_str().map(str::to_owned);
        Self { process, log, address: address("address").unwrap(), operations: address("operations") }
    }

    /// Sends a signal and returns the exit code.
    fn stop(&mut self, signal: &str) -> i32 {
        let killed = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        until(&mut self.log, "stopped");
        self.process.wait().unwrap().code().unwrap()
    }

    fn tagrelay(&self, workplace: &Workplace, arguments: &str) -> Answer {
        let mut command = workplace.tagrelay(arguments);
        run(command.env("TAGRELAY_SERVER", format!("http://{}", self.address)).env("TAGRELAY_TOKEN", "the token"))
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(&self.address, path)
    }

    /// Sends a webhook for user-service and returns status and body.
    fn announce(&self, tag: &str) -> (u16, Value) {
        let body = format!("{{\"image\":\"docker.io/uyou/user-service:{tag}\"}}");
        let url = format!("http://{}/webhooks/ci", self.address);
        let (status, text) = http(|client| client.post(url).bearer_auth("sesame").body(body));
        (status, serde_json::from_str(&text).unwrap())
    }
}

/// Returns the status of `/healthz` over HTTPS, with the authority in a folder; `None`: the certificate is not trusted.
fn health_over_tls(address: &str, folder: &Path) -> Option<u16> {
    tagrelay::registry::install_tls_provider();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(folder.join("authority.pem")).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let answer = runtime.block_on(async { client.get(format!("https://{address}/healthz")).send().await });
    answer.ok().map(|answer| answer.status().as_u16())
}

#[test]
fn listener_speaks_tls_and_takes_over_a_new_certificate() {
    let workplace = workplace();
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(old.path());
    make_certificates(new.path());
    for name in ["server.pem", "server.key"] {
        std::fs::copy(old.path().join(name), workplace.path(name)).unwrap();
    }
    let tls = "tls = { certificate = \"{folder}/server.pem\", key = { file = \"{folder}/server.key\" } }\n\
               operations_listen = \"127.0.0.1:0\"";
    workplace
        .write_settings(&COMMANDS.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:0\"\n{tls}")));
    let service = Service::start(&workplace);
    assert_eq!(health_over_tls(&service.address, old.path()), Some(200));
    assert_eq!(health_over_tls(&service.address, new.path()), None, "its authority is not trusted");
    // The other address stays plain.
    assert_eq!(get(service.operations.as_ref().unwrap(), "/healthz").0, 200);
    // A key that does not fit the certificate changes nothing.
    std::fs::copy(new.path().join("server.key"), workplace.path("server.key")).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(health_over_tls(&service.address, old.path()), Some(200));
    std::fs::copy(new.path().join("server.pem"), workplace.path("server.pem")).unwrap();
    let begun = Instant::now();
    while health_over_tls(&service.address, new.path()).is_none() {
        assert!(begun.elapsed() < LIMIT, "the new certificate is not used");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(health_over_tls(&service.address, old.path()), None);
}

#[test]
fn certificate_that_cannot_be_used_is_a_fault() {
    let workplace = workplace();
    let tls = "tls = { certificate = \"missing.pem\", key = { value = \"no key\" } }";
    workplace
        .write_settings(&COMMANDS.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:0\"\n{tls}")));
    let answer = run(&mut workplace.tagrelay("check --offline"));
    assert_eq!(answer.code, 1, "{}", answer.stdout);
    assert!(answer.stdout.contains("the certificate missing.pem cannot be read: No such file"), "{}", answer.stdout);
}

#[test]
fn automatic_login_is_logged_at_the_start_and_shown_by_check() {
    let workplace = workplace();
    let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    let rule = format!("{host}/uyou/*");
    workplace.write_settings(&COMMANDS.replace("docker.io/uyou/*", &rule));
    let variables = [("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")];
    let expected = "uses login = \"aws\", because the environment has AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE";
    let mut command = workplace.tagrelay("serve --log-format json");
    let mut process = command.envs(variables).stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stdout.take().unwrap());
    let line = until(&mut log, &format!("registry {host} {expected}"));
    assert_eq!((line["level"].as_str(), line["registry"].as_str()), (Some("INFO"), Some(host)));
    process.kill().unwrap();
    process.wait().unwrap();
    let answer = run(workplace.tagrelay("check --offline").envs(variables));
    assert!(answer.stdout.contains(expected), "{}", answer.stdout);
    let without = run(&mut workplace.tagrelay("check --offline"));
    assert!(!without.stdout.contains("uses login"), "{}", without.stdout);
}

/// Reads the log up to a message and returns its line.
fn until(log: &mut impl std::io::BufRead, message: &str) -> Value {
    for line in log.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["message"] == message {
            return line;
        }
    }
    panic!("the log ended before `{message}`");
}

fn get(address: &str, path: &str) -> (u16, String) {
    http(|client| client.get(format!("http://{address}{path}")))
}

fn http(request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> (u16, String) {
    tagrelay::registry::install_tls_provider();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(LIMIT).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = request(&client).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Server and client commands fit together, from the push to the rollback.
#[test]
fn commands_drive_the_service() {
    let workplace = workplace().with_repository();
    let mut service = Service::start(&workplace);
    eventually("the branch is read", || service.get("/readyz").0 == 200);
    let (status, body) = service.announce(SHA);
    assert_eq!(status, 202);
    let event = body["events"][0]["id"].as_str().unwrap();
    let explained = || service.tagrelay(&workplace, &format!("events show {event}")).expect_code(0).stdout;
    eventually("the push is committed", || explained().starts_with("committed  docker.io/uyou/user-service"));
    let tip = || workplace.git(&["-C", "platform.git", "rev-parse", "--short=7", "main"]).trim().to_owned();
    let events = service.tagrelay(&workplace, "events --state committed --limit 5").expect_code(0).stdout;
    assert!(events.contains(event) && events.contains("user-service:9f8e7d6"), "{events}");
    let again = service.tagrelay(&workplace, &format!("events replay {event}")).expect_code(1);
    assert!(again.stderr.contains("only refused events"), "{again:?}");

    let dry = service.tagrelay(&workplace, "promote --to production user-service --dry-run").expect_code(0).stdout;
    assert!(dry.contains(&format!("+    newTag: \"{SHA}\"")) && dry.contains("changed"), "{dry}");
    let before = tip();
    let promoted = service.tagrelay(&workplace, "promote --to production user-service").expect_code(0).stdout;
    assert!(promoted.starts_with(&format!("committed {}  production from staging", tip())), "{promoted}");
    assert_ne!(tip(), before);
    let status = service.tagrelay(&workplace, "status").expect_code(0).stdout;
    let row = status.lines().find(|line| line.starts_with("user-service")).unwrap();
    assert_eq!(row.matches("9f8e7d6").count(), 2, "{status}");

    let rollback = "rollback --environment production user-service --hold-for 4h --reason leak";
    let rolled_back = service.tagrelay(&workplace, rollback).expect_code(0).stdout;
    assert!(rolled_back.contains("9f8e7d6 -> "), "{rolled_back}");
    let refused = service.tagrelay(&workplace, "promote --to production user-service").expect_code(1).stdout;
    assert!(refused.starts_with("refused") && refused.contains("leak"), "{refused}");
    let status = service.tagrelay(&workplace, "status --environment production").expect_code(0).stdout;
    assert!(status.contains("held") && status.contains("\nHolds\n"), "{status}");
    let holds: Value = service.tagrelay(&workplace, "holds --json").expect_code(0).json();
    let hold = holds["holds"][0]["id"].as_str().unwrap();
    assert!(service.tagrelay(&workplace, "holds").expect_code(0).stdout.contains(hold));
    service.tagrelay(&workplace, &format!("release {hold}")).expect_code(0);
    service.tagrelay(&workplace, &format!("release {hold}")).expect_code(1);
    service.tagrelay(&workplace, "hold --environment staging uyou/user-service").expect_code(0);
    assert_eq!(service.announce(&SHA.replace('9', "8")).0, 202);
    let waits = || service.tagrelay(&workplace, "status").expect_code(0).stdout;
    eventually("the push waits for the hold", || waits().contains("8f8e7d6 waits"));
    assert!(waits().contains("\nWaiting\n"), "{}", waits());
    assert_eq!(service.stop("TERM"), 0);
}

#[test]
fn unreachable_remote_does_not_stop_the_service() {
    let workplace = workplace();
    let mut service = Service::start(&workplace);
    assert_eq!(service.get("/healthz").0, 200);
    let (status, body) = service.get("/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("`platform` has not been read yet"), "{body}");
    let told = service.tagrelay(&workplace, "status").expect_code(1);
    let reason = format!("the folder {} does not exist", workplace.path("platform.git").display());
    assert!(told.stdout.contains(&reason), "{told:?}");
    let (status, body) = service.announce(SHA);
    assert_eq!((status, &body["events"][0]["state"]), (202, &"queued".into()));
    assert_eq!(service.stop("INT"), 0);

    // Acknowledged work is done once the repository exists.
    let workplace = workplace.with_repository();
    let mut service = Service::start(&workplace);
    let main = || workplace.git(&["-C", "platform.git", "grep", "-c", SHA, "main", "--", "environments/staging"]);
    let log = || workplace.git(&["-C", "platform.git", "log", "--format=%s", "main"]);
    eventually("the push is committed", || log().lines().count() == 2);
    assert!(main().contains("kustomization.yaml:1"));
    assert_eq!(service.stop("TERM"), 0);
}

#[test]
fn metrics_move_to_the_address_for_operations() {
    let workplace = workplace().with_repository();
    let service = Service::start(&workplace);
    assert_eq!(service.operations, None);
    assert!(service.get("/metrics").1.contains("# TYPE tagrelay_"));
    drop(service);

    let apart = "listen = \"127.0.0.1:0\"\noperations_listen = \"127.0.0.1:0\"";
    workplace.write_settings(&COMMANDS.replace("listen = \"127.0.0.1:0\"", apart));
    let service = Service::start(&workplace);
    let operations = service.operations.clone().unwrap();
    assert_eq!(service.get("/metrics").0, 404);
    assert!(get(&operations, "/metrics").1.contains("# TYPE tagrelay_"));
    assert_eq!(get(&operations, "/api/v1/holds").0, 404);
    assert_eq!((service.get("/healthz").0, get(&operations, "/healthz").0), (200, 200));
}

#[test]
fn address_in_use_is_reported_before_files_are_created() {
    let workplace = workplace();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    workplace.write_settings(&COMMANDS.replace("127.0.0.1:0", &address));
    let answer = run(&mut workplace.tagrelay("serve")).expect_code(1);
    assert!(answer.stderr.contains(&format!("error: cannot listen on {address}")), "{answer:?}");
    assert!(answer.stderr.contains("`listen` in [server]"), "{answer:?}");
    assert!(!workplace.path("data").exists());
}

/// A client that waits for a promotion must not delay the shutdown.
#[test]
fn open_connections_do_not_delay_stop() {
    let workplace = workplace().with_repository();
    let mut service = Service::start(&workplace);
    let mut watching = std::net::TcpStream::connect(&service.address).unwrap();
    let request =
        format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer the token\r\n\r\n", service.address);
    std::io::Write::write_all(&mut watching, request.as_bytes()).unwrap();
    let mut first = String::new();
    BufReader::new(watching.try_clone().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first.trim(), "HTTP/1.1 200 OK");
    let begun = Instant::now();
    assert_eq!(service.stop("TERM"), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
