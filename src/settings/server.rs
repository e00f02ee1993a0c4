use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::pipeline::CatchUpSettings;
use super::reader::Section;
use super::report::At;
use super::{Settings, duration, keys};
use crate::store::{Retention, StoreSettings};
use tagrelay_secret::{ExposeSecret as _, Secret};

/// `[server]`: listeners and their limits.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address of webhooks and the API.
    pub listen: SocketAddr,
    /// Address of metrics and health; `None`: the same as `listen`.
    pub operations_listen: Option<SocketAddr>,
    /// Limit of a request body, in bytes.
    pub max_body_bytes: usize,
    /// Limit of open connections per address.
    pub max_connections: usize,
    /// How long running work may take to end when the process stops.
    pub stop_timeout: Duration,
    /// The certificate of `listen`; `None`: plain HTTP.
    pub tls: Option<ServerTls>,
}

/// `tls` of `[server]`.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// A PEM file with the chain, the server's certificate first.
    pub certificate: PathBuf,
    /// The private key in PEM.
    pub key: Secret,
}

/// Webhooks with many events in one body have up to some hundred kilobytes.
const DEFAULT_MAX_BODY_BYTES: usize = 1024 * 1024;
/// Each connection may hold one body in memory.
const MAX_BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=64 * 1024 * 1024;

/// Below the 1024 file handles that many systems give a process.
const DEFAULT_MAX_CONNECTIONS: usize = 512;
const MAX_CONNECTIONS: std::ops::RangeInclusive<usize> = 8..=65_536;

/// Below the 30 seconds that Kubernetes gives a process by default.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(25);
const STOP_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

const DEFAULT_STORE: &str = "tagrelay.db";

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            operations_listen: None,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            stop_timeout: DEFAULT_STOP_TIMEOUT,
            tls: None,
        }
    }
}

/// More often than every minute would exceed the rate limits of registries.
const CATCH_UP: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=DAY.saturating_mul(7);
const CATCH_UP_CONCURRENCY: std::ops::RangeInclusive<usize> = 1..=64;

pub(super) fn read(top: Section<'_>) -> (ServerSettings, CatchUpSettings) {
    match top.table("server", &keys::SERVER, "[server]") {
        Some(section) => (read_server(section), read_catch_up(section)),
        None => (ServerSettings::default(), CatchUpSettings::default()),
    }
}

fn read_catch_up(section: Section<'_>) -> CatchUpSettings {
    let default = CatchUpSettings::default();
    let text = section.value("catch_up").and_then(|found| found.value.as_str());
    let is_off = matches!(text, Some("off" | "0" | "0s"));
    let every = if is_off { None } else { duration::read(section, "catch_up", CATCH_UP).or(default.every) };
    let at_once = section.number("catch_up_concurrency", CATCH_UP_CONCURRENCY);
    CatchUpSettings { every, at_once: at_once.map_or(default.at_once, |number| number.value) }
}

fn read_server(section: Section<'_>) -> ServerSettings {
    let default = ServerSettings::default();
    let listen = address(section, "listen");
    let operations = address(section, "operations_listen");
    let listen_value = listen.map_or(default.listen, |listen| listen.value);
    if let Some(operations) = operations
        && collide(listen_value, operations.value)
    {
        let message = format!("`operations_listen` is the address of `listen`, {listen_value}");
        section.report().fault_with_hint(
            operations.offset,
            message,
            "use another port, or leave `operations_listen` out to serve everything on one".to_owned(),
        );
    }
    ServerSettings {
        listen: listen_value,
        operations_listen: operations.map(|operations| operations.value),
        max_body_bytes: section
            .number("max_body_bytes", MAX_BODY_BYTES)
            .map_or(default.max_body_bytes, |number| number.value),
        max_connections: section
            .number("max_connections", MAX_CONNECTIONS)
            .map_or(default.max_connections, |number| number.value),
        stop_timeout: duration::read(section, "stop_timeout", STOP_TIMEOUTS).unwrap_or(default.stop_timeout),
        tls: read_tls(section),
    }
}

fn read_tls(section: Section<'_>) -> Option<ServerTls> {
    let example = "{ certificate = \"/tls/tls.crt\", key = { file = \"/tls/tls.key\" } }";
    let table = section.table("tls", &keys::SERVER_TLS, example)?;
    let certificate = table.text("certificate");
    if certificate.is_none() && !table.has("certificate") {
        let message = "`certificate` is missing in `tls`: the file with the certificate chain".to_owned();
        table.report().fault_with_hint(table.offset, message, format!("write tls = {example}"));
    }
    let key = table.required_secret("key", "the private key of the certificate");
    Some(ServerTls { certificate: PathBuf::from(certificate?.value), key: key? })
}

/// Returns whether both name the same certificate and the same key, wherever the key is.
fn is_same_tls(new: Option<&ServerTls>, running: Option<&ServerTls>) -> bool {
    let key = |tls: &ServerTls| tls.key.reveal().ok().map(|key| key.expose_secret().to_owned());
    match (new, running) {
        (None, None) => true,
        (Some(new), Some(running)) => new.certificate == running.certificate && key(new) == key(running),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Reports changes that need a restart. The new settings have no other faults.
pub(super) fn report_fixed(top: Section<'_>, new: &Settings, running: &Settings) {
    let report = |table: &str, key: &str, was: String| {
        let offset = top.offset_in(table, key);
        let message = format!("`{key}` in [{table}] cannot change while the service runs");
        let hint = format!("restart it, or restore the old value: {was}");
        top.report().fault_with_hint(offset, message, hint);
    };
    let (server, was) = (&new.server, &running.server);
    if server.listen != was.listen {
        report("server", "listen", was.listen.to_string());
    }
    if server.operations_listen != was.operations_listen {
        let was = was.operations_listen.map_or("not set".to_owned(), |address| address.to_string());
        report("server", "operations_listen", was);
    }
    if !is_same_tls(server.tls.as_ref(), was.tls.as_ref()) {
        let was = was.tls.as_ref();
        let was = was.map_or("not set".to_owned(), |tls| format!("the certificate {}", tls.certificate.display()));
        report("server", "tls", was);
    }
    if server.max_connections != was.max_connections {
        report("server", "max_connections", was.max_connections.to_string());
    }
    if new.store.path != running.store.path {
        report("store", "url", format!("sqlite:{}", running.store.path.display()));
    }
}

fn address(section: Section<'_>, key: &str) -> Option<At<SocketAddr>> {
    let text = section.text(key)?;
    match text.value.parse() {
        Ok(value) => Some(At { value, offset: text.offset }),
        Err(_) => {
            let message = format!("`{key}`: `{}` is not an address with a port", text.value.escape_debug());
            let hint = "write \"127.0.0.1:8080\", or \"0.0.0.0:8080\" for every interface".to_owned();
            section.report().fault_with_hint(text.offset, message, hint);
            None
        }
    }
}

/// Returns whether the system would refuse the second of two listeners. Port 0 means a free port, which never collides.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let every_interface = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || every_interface)
}

pub(super) fn read_store(top: Section<'_>) -> (StoreSettings, Retention) {
    let section = top.table("store", &keys::STORE, "[store]");
    (read_url(section), read_retention(section))
}

fn read_url(section: Option<Section<'_>>) -> StoreSettings {
    let default = StoreSettings { path: PathBuf::from(DEFAULT_STORE) };
    let Some(section) = section else { return default };
    let Some(url) = section.text("url") else { return default };
    match sqlite_path(url.value) {
        Ok(path) => StoreSettings { path },
        Err((message, hint)) => {
            section.report().fault_with_hint(url.offset, message, hint.to_owned());
            default
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Less than a day is too short to look into a failure. More than a hundred years is a mistake.
const KEPT: std::ops::RangeInclusive<Duration> = DAY..=DAY.saturating_mul(36_500);

fn read_retention(section: Option<Section<'_>>) -> Retention {
    let default = Retention { ended: DAY.saturating_mul(90), history: DAY.saturating_mul(730) };
    let Some(section) = section else { return default };
    let ended = duration::read(section, "keep", KEPT);
    let history = duration::read(section, "keep_history", KEPT);
    let ended = ended.unwrap_or(default.ended);
    if let Some(history) = history.filter(|history| *history < ended) {
        let message = "`keep_history` in [store] is shorter than `keep`".to_owned();
        let hint = "history is kept at least as long as ended events".to_owned();
        section.report().fault_with_hint(section.offset_of("keep_history"), message, hint);
        return Retention { ended, history };
    }
    Retention { ended, history: history.unwrap_or(default.history).max(ended) }
}

/// Returns the path in `sqlite:PATH` or `sqlite://PATH`. Messages do not quote the URL, which may contain a password.
fn sqlite_path(url: &str) -> Result<PathBuf, (&'static str, &'static str)> {
    const EXAMPLE: &str = "write \"sqlite:tagrelay.db\" or \"sqlite:/var/lib/tagrelay/tagrelay.db\"";
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Err(("`url` in [store]: this build has SQLite only, not PostgreSQL", EXAMPLE));
    }
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(("`url` in [store] does not begin with `sqlite:`", EXAMPLE));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.ends_with('/') {
        return Err(("`url` in [store] names no file", EXAMPLE));
    }
    if path.contains(":memory:") {
        return Err(("`url` in [store]: a store in memory would lose acknowledged events", EXAMPLE));
    }
    if path.contains('?') {
        return Err(("`url` in [store] accepts no parameters after `?`", EXAMPLE));
    }
    if std::path::Path::new(path).is_dir() {
        return Err(("`url` in [store] names a folder, not a file", EXAMPLE));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_is_another_tls_setting_wherever_it_is() {
        let tls = |certificate: &str, key: &str| ServerTls {
            certificate: PathBuf::from(certificate),
            key: Secret::inline(key.to_owned()).unwrap(),
        };
        let running = tls("a.pem", "1");
        assert!(is_same_tls(Some(&tls("a.pem", "1")), Some(&running)));
        assert!(!is_same_tls(Some(&tls("a.pem", "2")), Some(&running)));
        assert!(!is_same_tls(Some(&tls("b.pem", "1")), Some(&running)));
        assert!(!is_same_tls(None, Some(&running)));
        assert!(is_same_tls(None, None));
    }

    #[test]
    fn store_is_a_file() {
        for (url, path) in [
            ("sqlite:tagrelay.db", "tagrelay.db"),
            ("sqlite://data/tagrelay.db", "data/tagrelay.db"),
            ("sqlite:///var/lib/tagrelay.db", "/var/lib/tagrelay.db"),
            ("sqlite:/var/lib/tagrelay.db", "/var/lib/tagrelay.db"),
        ] {
            assert_eq!(sqlite_path(url).unwrap(), PathBuf::from(path));
        }
        for (url, reason) in [
            ("postgres://tagrelay:hunter2@db/tagrelay", "SQLite only"),
            ("tagrelay.db", "begin with"),
            ("sqlite:", "no file"),
            ("sqlite:data/", "no file"),
            ("sqlite::memory:", "memory"),
            ("sqlite:a.db?mode=ro", "parameters"),
            ("sqlite:/tmp", "folder"),
        ] {
            let (message, _) = sqlite_path(url).unwrap_err();
            assert!(message.contains(reason), "{url}: {message}");
        }
    }

    #[test]
    fn listeners_collide_on_one_port() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:1", "127.0.0.1:1"));
        assert!(collide("0.0.0.0:1", "127.0.0.1:1"));
        assert!(!collide("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!collide("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
    }
}
