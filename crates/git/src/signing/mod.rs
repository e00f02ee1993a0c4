//! Signatures of commits in the formats that `git verify-commit` checks.

mod openpgp;

use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::ssh_key::{LineEnding, SshSig};
use russh::keys::{HashAlg, PrivateKey};
use sha2::{Digest as _, Sha256};
use tagrelay_secret::{ExposeSecret as _, Secret, SecretError};

use crate::ssh_key;
use openpgp::SigningKey;

/// The namespace of SSH signatures that Git accepts
/// (<https://git-scm.com/docs/git-config#Documentation/git-config.txt-gpgformat>).
const SSH_NAMESPACE: &str = "git";

/// The kind of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureFormat {
    /// An SSH key, Ed25519 or ECDSA.
    Ssh,
    /// An OpenPGP key, Ed25519 or RSA.
    OpenPgp,
}

/// Why commits cannot be signed. The message contains no part of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key or its passphrase cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The key is invalid, encrypted or of an unsupported kind.
    #[error("{0}")]
    Key(String),
    /// The signature failed.
    #[error("signing failed: {0}")]
    Signature(String),
}

/// Signs commits with one key. Cheap to clone. `Debug` shows only the fingerprint of the key.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    format: SignatureFormat,
    key: Secret,
    passphrase: Option<Secret>,
    loaded: Mutex<Loaded>,
}

/// The key in use, and the hash of the text that was read last, even if that text was invalid.
struct Loaded {
    key: Key,
    read: [u8; 32],
}

enum Key {
    Ssh(Box<PrivateKey>),
    OpenPgp(SigningKey),
}

impl Signer {
    /// Reads and decrypts a key. Takes tens of milliseconds with a passphrase.
    ///
    /// # Errors
    ///
    /// If the key cannot be used. The message says what to do.
    pub fn new(format: SignatureFormat, key: Secret, passphrase: Option<Secret>) -> Result<Self, SigningError> {
        let text = key.reveal()?;
        let loaded = Loaded {
            key: Key::read(format, text.expose_secret(), passphrase.as_ref())?,
            read: Sha256::digest(text.expose_secret()).into(),
        };
        Ok(Self(Arc::new(Inner { format, key, passphrase, loaded: Mutex::new(loaded) })))
    }

    /// The fingerprint of the key, as shown by `ssh-keygen -l` or `gpg --list-keys`.
    pub fn fingerprint(&self) -> String {
        match &self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).key {
            Key::Ssh(key) => key.public_key().fingerprint(HashAlg::Sha256).to_string(),
            Key::OpenPgp(key) => key.fingerprint(),
        }
    }

    /// Returns the armoured signature of a commit. Reads the key again if its file changed.
    ///
    /// # Errors
    ///
    /// If no signature can be made.
    pub(crate) fn sign(&self, commit: &[u8]) -> Result<String, SigningError> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.reload(&mut loaded);
        match &loaded.key {
            Key::Ssh(key) => {
                let failed = |error: russh::keys::ssh_key::Error| SigningError::Signature(error.to_string());
                let signature = SshSig::sign(&**key, SSH_NAMESPACE, HashAlg::Sha512, commit).map_err(failed)?;
                signature.to_pem(LineEnding::LF).map_err(failed)
            }
            Key::OpenPgp(key) => {
                let now = jiff::Timestamp::now().as_second();
                key.sign(commit, u32::try_from(now).unwrap_or(u32::MAX)).map_err(SigningError::Signature)
            }
        }
    }
}

impl Inner {
    /// Reads a replaced key. An invalid one is ignored, and the old key stays in use.
    fn reload(&self, loaded: &mut Loaded) {
        let Ok(text) = self.key.reveal() else { return };
        let read: [u8; 32] = Sha256::digest(text.expose_secret()).into();
        if read == loaded.read {
            return;
        }
        loaded.read = read;
        match Key::read(self.format, text.expose_secret(), self.passphrase.as_ref()) {
            Ok(key) => loaded.key = key,
            Err(error) => {
                tracing::warn!(%error, "the new signing key cannot be used; the old key stays in use")
            }
        }
    }
}

impl Key {
    fn read(format: SignatureFormat, text: &str, passphrase: Option<&Secret>) -> Result<Self, SigningError> {
        let passphrase = passphrase.map(Secret::reveal).transpose()?;
        let passphrase = passphrase.as_ref().map(|passphrase| passphrase.expose_secret());
        match format {
            SignatureFormat::Ssh => ssh_key::read(text, passphrase, "passphrase").map(|key| Self::Ssh(Box::new(key))),
            SignatureFormat::OpenPgp => {
                let now = jiff::Timestamp::now().as_second();
                SigningKey::read(text, passphrase, u64::try_from(now).unwrap_or_default()).map(Self::OpenPgp)
            }
        }
        .map_err(SigningError::Key)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?} {})", self.0.format, self.fingerprint())
    }
}
