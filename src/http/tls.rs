//! TLS of the main listener, with certificates that are read again when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tagrelay_secret::{ExposeSecret as _, Secret};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are read. Kubernetes replaces mounted secrets within about a minute.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate {path} cannot be read: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("the certificate {0} has no PEM block CERTIFICATE: give the chain, the server's certificate first")]
    NoCertificate(PathBuf),
    #[error("the private key of [server] tls cannot be read: {0}")]
    Key(String),
    #[error("the certificate {path} and the private key do not fit: {reason}")]
    Mismatch { path: PathBuf, reason: String },
}

/// The certificate of a listener. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate: PathBuf,
    key: Secret,
    current: RwLock<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    /// The bytes of certificate and key from which `acceptor` was made.
    pair: (Vec<u8>, Vec<u8>),
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    ///
    /// [`TlsError`], if one of them cannot be used.
    pub fn load(certificate: PathBuf, key: Secret) -> Result<Self, TlsError> {
        let pair = read(&certificate, &key)?;
        let current = RwLock::new(Current { acceptor: acceptor(&certificate, &pair)?, pair });
        Ok(Self(Arc::new(Inner { certificate, key, current })))
    }

    /// Reads the files again, and uses them for new connections if they have changed.
    ///
    /// # Errors
    ///
    /// [`TlsError`]. The previous certificate then stays in use.
    fn refresh(&self) -> Result<bool, TlsError> {
        let pair = read(&self.0.certificate, &self.0.key)?;
        if self.0.current.read().unwrap_or_else(PoisonError::into_inner).pair == pair {
            return Ok(false);
        }
        // While the files are being replaced, certificate and key may not fit. The next refresh reads both new files.
        let acceptor = acceptor(&self.0.certificate, &pair)?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Current { acceptor, pair };
        Ok(true)
    }

    /// Keeps the certificate current until `stopped` is true.
    pub(super) async fn watch(self, mut stopped: watch::Receiver<bool>) {
        let mut last_error = None;
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(READ_AGAIN) => {}
            }
            let tls = self.clone();
            let refreshed = tokio::task::spawn_blocking(move || tls.refresh().map_err(|error| error.to_string())).await;
            match refreshed {
                Ok(Ok(changed)) => {
                    last_error = None;
                    if changed {
                        tracing::info!("the certificate of the listener was replaced");
                    }
                }
                Ok(Err(error)) if last_error.as_ref() != Some(&error) => {
                    tracing::error!(error, "the new certificate cannot be used; the old one stays in use");
                    last_error = Some(error);
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = self.0.current.read().unwrap_or_else(PoisonError::into_inner).acceptor.clone();
        acceptor.accept(stream).await
    }
}

fn read(certificate: &Path, key: &Secret) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let chain = std::fs::read(certificate)
        .map_err(|error| TlsError::Certificate { path: certificate.to_owned(), reason: error.to_string() })?;
    let key = key.reveal().map_err(|error| TlsError::Key(error.to_string()))?;
    Ok((chain, key.expose_secret().as_bytes().to_vec()))
}

fn acceptor(path: &Path, (chain, key): &(Vec<u8>, Vec<u8>)) -> Result<TlsAcceptor, TlsError> {
    let certificates: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let certificates =
        certificates.map_err(|error| TlsError::Certificate { path: path.to_owned(), reason: error.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    let mismatch = |error: rustls::Error| TlsError::Mismatch { path: path.to_owned(), reason: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(mismatch)?.with_no_client_auth().with_single_cert(certificates, key).map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
