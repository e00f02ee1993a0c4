//! SSH private keys, for connections and signatures.

use russh::keys::PrivateKey;

const RSA_KEY: &str = "RSA keys are not supported as SSH keys; create an ed25519 key (`ssh-keygen -t ed25519`)";

/// Reads a private key. Takes tens of milliseconds with a passphrase, because its derivation is slow by design.
///
/// `passphrase_setting` is the name of the setting for the passphrase, for error messages.
///
/// # Errors
///
/// The message says what to do, and contains no part of the key.
pub(crate) fn read(text: &str, passphrase: Option<&str>, passphrase_setting: &str) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, passphrase)
        .map_err(|error| problem(&error, passphrase.is_some(), text, passphrase_setting))?;
    if key.algorithm().is_rsa() { Err(RSA_KEY.to_owned()) } else { Ok(key) }
}

fn problem(error: &russh::keys::Error, has_passphrase: bool, text: &str, passphrase_setting: &str) -> String {
    // An OpenSSH key names its algorithm before the encrypted part.
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap_or_default();
    let is_rsa = text.contains("BEGIN RSA PRIVATE KEY") || decoded.windows(7).any(|window| window == b"ssh-rsa");
    match error {
        _ if is_rsa => RSA_KEY.to_owned(),
        russh::keys::Error::KeyIsEncrypted => {
            format!("the SSH key is encrypted; set `{passphrase_setting}`")
        }
        _ if has_passphrase => format!("the SSH key cannot be decrypted with this passphrase: {error}"),
        _ => format!("the SSH key cannot be read: {error}; it must be a private key in OpenSSH or PEM form"),
    }
}
