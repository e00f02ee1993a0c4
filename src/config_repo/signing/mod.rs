//! Signatures of commits, as `git verify-commit` checks them.

mod openpgp;

use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::ssh_key::{LineEnding, SshSig};
use russh::keys::{HashAlg, PrivateKey};
use sha2::{Digest as _, Sha256};

use super::ssh_key;
use crate::secret::{ExposeSecret as _, Secret, SecretError};
use openpgp::SigningKey;

/// What `ssh-keygen -Y` calls the purpose of a signature; Git takes no other
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

/// Why commits cannot be signed with a key. The message never holds a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key or its passphrase cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The key is none, is locked, or is of a kind that is not supported.
    #[error("{0}")]
    Key(String),
    /// The key is there, and no signature could be made with it.
    #[error("no signature could be made: {0}")]
    Signature(String),
}

/// Signs commits with one key. Cheap to clone. Its `Debug` form shows the fingerprint and nothing of the key.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    format: SignatureFormat,
    key: Secret,
    passphrase: Option<Secret>,
    loaded: Mutex<Loaded>,
}

/// A key that is ready, and the hash of the text that was read last, whether that was right or wrong.
struct Loaded {
    key: Key,
    read: [u8; 32],
}

enum Key {
    Ssh(Box<PrivateKey>),
    OpenPgp(SigningKey),
}

impl Signer {
    /// Reads and unlocks a key, which takes some tens of milliseconds where it has a passphrase.
    ///
    /// # Errors
    ///
    /// What is wrong with the key, and what would be right.
    pub fn new(format: SignatureFormat, key: Secret, passphrase: Option<Secret>) -> Result<Self, SigningError> {
        let text = key.reveal()?;
        let loaded = Loaded {
            key: Key::read(format, text.expose_secret(), passphrase.as_ref())?,
            read: Sha256::digest(text.expose_secret()).into(),
        };
        Ok(Self(Arc::new(Inner { format, key, passphrase, loaded: Mutex::new(loaded) })))
    }

    /// Returns the fingerprint of the key, as `ssh-keygen -l` or `gpg --list-keys` shows it.
    pub fn fingerprint(&self) -> String {
        match &self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).key {
            Key::Ssh(key) => key.public_key().fingerprint(HashAlg::Sha256).to_string(),
            Key::OpenPgp(key) => key.fingerprint(),
        }
    }

    /// Returns the armoured signature over the bytes of a commit. A key file that has been replaced is read again.
    ///
    /// # Errors
    ///
    /// When no signature can be made.
    pub(super) fn sign(&self, commit: &[u8]) -> Result<String, SigningError> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.follow(&mut loaded);
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
    /// Reads a key that has been replaced. One that is wrong changes nothing: the old one goes on.
    fn follow(&self, loaded: &mut Loaded) {
        let Ok(text) = self.key.reveal() else { return };
        let read: [u8; 32] = Sha256::digest(text.expose_secret()).into();
        if read == loaded.read {
            return;
        }
        loaded.read = read;
        match Key::read(self.format, text.expose_secret(), self.passphrase.as_ref()) {
            Ok(key) => loaded.key = key,
            Err(error) => {
                tracing::warn!(%error, "the signing key was replaced and cannot be used; the old one goes on")
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
