//! An issuer of OpenID Connect tokens with its own keys.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use axum::Json;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The issuer `https://issuer.test`; the audience of its tokens is `tagrelay`.
pub struct Issuer {
    folder: TempDir,
    pub url: String,
    asked: Arc<AtomicUsize>,
    key: Arc<AtomicU32>,
}

impl Issuer {
    /// Creates a key and serves it at `/certs`.
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        openssl(
            folder.path(),
            &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"],
        );
        let modulus = openssl(folder.path(), &["rsa", "-in", "key.pem", "-noout", "-modulus"]);
        let modulus = String::from_utf8(modulus).unwrap();
        let modulus = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
        let (asked, key) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(1)));
        let set = {
            let (asked, key) = (Arc::clone(&asked), Arc::clone(&key));
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let id = format!("key-{}", key.load(Ordering::Relaxed));
                let n = URL_SAFE_NO_PAD.encode(&modulus);
                async move { Json(json!({"keys": [{"kty": "RSA", "alg": "RS256", "kid": id, "n": n, "e": "AQAB"}]})) }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = axum::Router::new().route("/certs", get(set));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { folder, url, asked, key }
    }

    /// Changes the key's id.
    pub fn rotate(&self) {
        self.key.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the keys were fetched.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A token of an account that expires in this many seconds.
    pub fn token(&self, account: &str, seconds: i64) -> String {
        let end = jiff::Timestamp::now().as_second() + seconds;
        let header = json!({"alg": "RS256", "kid": format!("key-{}", self.key.load(Ordering::Relaxed))});
        let claims = json!({"iss": "https://issuer.test", "aud": "tagrelay", "sub": account, "exp": end});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        std::fs::write(self.folder.path().join("signed"), &signed).unwrap();
        let signature = openssl(self.folder.path(), &["dgst", "-sha256", "-sign", "key.pem", "signed"]);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output();
    let output = output.expect("openssl is needed for keys: install it with `make setup`");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
