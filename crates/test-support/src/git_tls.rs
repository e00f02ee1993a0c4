//! A TLS proxy for a plain HTTP server, with its own certificate authority.

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
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = TempDir::new().unwrap();
        make_certificates(folder.path());
        let chain = vec![CertificateDer::from_pem_file(folder.path().join("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(folder.path().join("server.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let address = server.strip_prefix("http://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, address) = (acceptor.clone(), address.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate fails here.
                    let Ok(mut socket) = acceptor.accept(socket).await else { return };
                    let mut server = TcpStream::connect(address).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut socket, &mut server).await;
                });
            }
        });
        Self { folder, url }
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

/// Makes `authority.pem`, and `server.pem` with `server.key` for 127.0.0.1, in a folder.
pub fn make_certificates(folder: &Path) {
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
    std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
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
