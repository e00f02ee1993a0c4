//! A TLS proxy for a plain HTTP server, with its own certificate authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Door {
    folder: TempDir,
    pub url: String,
}

impl Door {
    /// Starts a proxy for the server at `http://<address>`.
    pub async fn open(server: &str) -> Self {
        let folder = TempDir::new().unwrap();
        make_certificates(folder.path());
        let address = forward(&acceptor(folder.path()), server).await;
        Self { folder, url: format!("https://{address}") }
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

/// TLS proxies for servers that have names of the Internet, with one certificate for all names.
pub struct NamedDoors {
    folder: TempDir,
    /// Each name with the address of its proxy.
    pub addresses: Vec<(String, SocketAddr)>,
}

impl NamedDoors {
    /// Starts a proxy for each name and its server at `http://<address>`.
    pub async fn open(servers: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let names: Vec<String> = servers.iter().map(|(name, _)| format!("DNS:{name}")).collect();
        make_certificates_for(folder.path(), &names.join(","));
        let acceptor = acceptor(folder.path());
        let mut addresses = Vec::new();
        for (name, server) in servers {
            addresses.push(((*name).to_owned(), forward(&acceptor, server).await));
        }
        Self { folder, addresses }
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Starts a proxy and returns its address.
async fn forward(acceptor: &TlsAcceptor, server: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_address = listener.local_addr().unwrap();
    let (acceptor, address) = (acceptor.clone(), server.strip_prefix("http://").unwrap().to_owned());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate fails here.
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let Ok(mut server) = TcpStream::connect(address).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut socket, &mut server).await;
            });
        }
    });
    own_address
}

/// Makes `authority.pem`, and `server.pem` with `server.key` for 127.0.0.1, in a folder.
pub fn make_certificates(folder: &Path) {
    make_certificates_for(folder, "IP:127.0.0.1");
}

/// As [`make_certificates`], for other names: `DNS:a.example.com,DNS:b.example.com`.
fn make_certificates_for(folder: &Path, names: &str) {
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        folder,
        &[
            &["req", "-x509", "-days", "2", "-subj", "/CN=Test authority"][..],
            &new_key,
            &["-keyout", "authority.key", "-out", "authority.pem"],
        ],
    );
    openssl(
        folder,
        &[&["req", "-subj", "/CN=Test server"][..], &new_key, &["-keyout", "server.key", "-out", "server.csr"]],
    );
    std::fs::write(folder.join("extensions"), format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n")).unwrap();
    openssl(
        folder,
        &[&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            "server.csr",
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            "server.pem",
        ]],
    );
}

fn openssl(folder: &Path, arguments: &[&[&str]]) {
    let output = Command::new("openssl").current_dir(folder).args(arguments.concat()).output();
    let output = output.expect("openssl runs: install the package openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
