//! Debian's `docker-registry` for one test: on its own port, in memory, killed on drop.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use crate::peer;

/// Time limit for the start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A user of the registry with the output of `htpasswd -B`.
pub const READER: (&str, &str) = ("reader", "pull only");
const READER_LINE: &str = "reader:$2b$05$abcdefghijklmnopqrstuuQMSNjW2E73S1J.2PdZD6zYJs.gegQRW\n";

/// How the registry is started.
#[derive(Default)]
pub struct Options {
    /// The URL for notifications, and their token (`Authorization: Bearer …`).
    pub notify: Option<(String, String)>,
    /// Whether [`READER`] must authenticate.
    pub sign_in: bool,
    /// Certificate and key for TLS, both PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
}

pub struct DockerRegistry {
    /// The host in references: `127.0.0.1:41873`.
    pub host: String,
    process: Child,
    /// The log output.
    log: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl DockerRegistry {
    /// Starts the registry and waits until it listens.
    ///
    /// Returns `None`, with a message, only if `TAGRELAY_TEST_WITHOUT` names `docker-registry`.
    pub fn start(options: Options) -> Option<Self> {
        if peer::is_left_out("docker-registry") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("registry.yml");
        std::fs::write(&settings, options.settings(&folder)).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            // REGISTRY_… variables would override the settings.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start docker-registry ({error}): {}", peer::advice("docker-registry", "docker-registry"))
            });
        let log = Arc::default();
        let host = wait_until_it_listens(&mut process, &log);
        Some(Self { host, process, log, _folder: folder })
    }
}

impl DockerRegistry {
    /// Method and target of each answered request, in order.
    pub fn requests(&self) -> Vec<String> {
        let field = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("http.request.{name}="))?;
            let text = rest.trim_start_matches('"').split(['"', ' ']).next()?;
            Some(text.to_owned())
        };
        let log = self.log.lock().unwrap();
        let answered = log.iter().filter(|line| line.contains("msg=\"response completed"));
        answered.filter_map(|line| Some(format!("{} {}", field(line, "method")?, field(line, "uri")?))).collect()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Options {
    fn settings(&self, folder: &TempDir) -> String {
        let mut settings = "version: 0.1\n\
            log: {level: info, formatter: text, accesslog: {disabled: true}}\n\
            storage: {inmemory: {}}\n\
            http:\n  addr: 127.0.0.1:0\n  secret: only-for-this-test\n"
            .to_owned();
        if let Some((certificate, key)) = &self.tls {
            let (certificate, key) = (certificate.display(), key.display());
            settings.push_str(&format!("  tls: {{certificate: '{certificate}', key: '{key}'}}\n"));
        }
        if self.sign_in {
            let path = folder.path().join("htpasswd");
            std::fs::write(&path, READER_LINE).unwrap();
            settings.push_str(&format!("auth: {{htpasswd: {{realm: tests, path: '{}'}}}}\n", path.display()));
        }
        if let Some((url, token)) = &self.notify {
            settings.push_str(&format!(
                "notifications:\n  endpoints:\n    - name: tagrelay\n      url: '{url}'\n      \
                 headers: {{Authorization: ['Bearer {token}']}}\n      timeout: 5s\n      threshold: 3\n      \
                 backoff: 200ms\n      ignore: {{actions: [pull]}}\n"
            ));
        }
        settings
    }
}

/// Returns the address from the program's log. A thread reads the log to its end, so the program never blocks on it.
fn wait_until_it_listens(process: &mut Child, kept: &Arc<Mutex<Vec<String>>>) -> String {
    let log = process.stderr.take().unwrap();
    let kept = Arc::clone(kept);
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line.clone());
            // The receiver is gone once the address is known.
            let _ = said.send(line);
        }
    });
    let mut lines = Vec::new();
    while let Ok(line) = heard.recv_timeout(START_LIMIT) {
        if let Some((_, rest)) = line.split_once("listening on ") {
            return rest.split(['"', ',', ' ']).next().unwrap_or_default().to_owned();
        }
        lines.push(line);
    }
    let _ = process.kill();
    panic!("docker-registry did not begin to listen; it said:\n{}", lines.join("\n"));
}
