//! Private keys of SSH, which open connections and sign commits.

use russh::keys::PrivateKey;

const RSA_KEY: &str =
    "the SSH key is an RSA key, which is not supported; make an ed25519 key (`ssh-keygen -t ed25519`)";

/// Reads a private key, which takes tens of milliseconds where it has a passphrase: unlocking is slow by design.
///
/// `passphrase_setting` is the key of the settings that holds the passphrase.
///
/// # Errors
///
/// What is wrong with it and what would be right. The text of the key is looked at and never shown.
pub(super) fn read(text: &str, passphrase: Option<&str>, passphrase_setting: &str) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, passphrase)
        .map_err(|error| problem(&error, passphrase.is_some(), text, passphrase_setting))?;
    if key.algorithm().is_rsa() { Err(RSA_KEY.to_owned()) } else { Ok(key) }
}

fn problem(error: &russh::keys::Error, has_passphrase: bool, text: &str, passphrase_setting: &str) -> String {
    // The name of the algorithm stands at the beginning of an OpenSSH key even where the rest is encrypted.
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).unwrap_or_default();
    let is_rsa = text.contains("BEGIN RSA PRIVATE KEY") || decoded.windows(7).any(|window| window == b"ssh-rsa");
    match error {
        _ if is_rsa => RSA_KEY.to_owned(),
        russh::keys::Error::KeyIsEncrypted => {
            format!("the SSH key is encrypted; give its passphrase as `{passphrase_setting}`")
        }
        _ if has_passphrase => format!("the SSH key cannot be unlocked with this passphrase: {error}"),
        _ => format!("the SSH key cannot be read: {error}; it has to be a private key in OpenSSH or PEM form"),
    }
}
