//! A real `sshd` on a loopback port with its own keys.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Allows protocol version 2, like every public host.
pub const VERSION_2: &str = "AcceptEnv GIT_PROTOCOL";

/// A running server, stopped on drop.
pub struct Sshd {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Sshd {
    /// Starts a server that accepts the key `client` of its folder. `options` are additional configuration lines.
    pub fn start(options: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sshd = Self { port: free_port(), folder, server: None };
        keygen(&sshd.path("host"), "ed25519", "");
        keygen(&sshd.path("client"), "ed25519", "");
        std::fs::copy(sshd.path("client.pub"), sshd.path("authorized_keys")).unwrap();
        let mut sshd = sshd;
        sshd.run(options);
        sshd
    }

    /// Restarts the server on the same port.
    pub fn restart(&mut self, options: &str) {
        self.stop();
        self.run(options);
    }

    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Connections are served by child processes that outlive the server.
            let children = Command::new("pgrep").args(["-P", &server.id().to_string()]).output().unwrap();
            for child in String::from_utf8(children.stdout).unwrap().lines() {
                let _ = Command::new("kill").arg(child).status();
            }
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn run(&mut self, options: &str) {
        // As root, sshd needs this folder, which Debian creates at boot.
        let _ = std::fs::create_dir_all("/run/sshd");
        let configuration = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel ERROR\n\
             SetEnv GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null\n{options}\n",
            self.port,
            self.path("host").display(),
            self.path("authorized_keys").display()
        );
        std::fs::write(self.path("sshd_config"), configuration).unwrap();
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stdin(Stdio::null())
            .spawn()
            .expect("sshd starts: install the package openssh-server");
        self.server = Some(server);
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of a local repository.
    pub fn url(&self, repository: &Path) -> String {
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, repository.display())
    }

    /// Writes a known_hosts file with this host key, a file made by `ssh-keygen`.
    pub fn known_hosts(&self, name: &str, key: &str) -> PathBuf {
        let public = std::fs::read_to_string(self.path(&format!("{key}.pub"))).unwrap();
        std::fs::write(self.path(name), format!("# known\n[127.0.0.1]:{} {public}", self.port)).unwrap();
        self.path(name)
    }

    /// The output of `ssh-keygen -l` for a key.
    pub fn fingerprint(&self, key: &str) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.path(&format!("{key}.pub"))).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Creates a key pair.
pub fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"])
        .arg(path)
        .output()
        .expect("ssh-keygen runs: install the package openssh-client");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
