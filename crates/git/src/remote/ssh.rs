//! SSH: one kept connection, with a channel per conversation.
//!
//! This uses russh instead of the program `ssh`: a channel on a kept connection saves one round trip compared with a
//! process on a master connection, needs no shell in the image, and lets us check host keys.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use russh::client::{self, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Preferred};
use tagrelay_secret::{ExposeSecret as _, Secret};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::address::Address;
use super::duplex::{Duplex, Stderr};
use super::limits::CONNECT_LIMIT;
use super::pktline::{Incoming, PacketReader};
use super::protocol::Service;
use super::server_text::one_line;
use crate::credentials::Authentication;
use crate::credentials::known_hosts::{KeyState, KnownHost};
use crate::error::{AddressError, RemoteError};
use crate::ssh_key;

/// A repository behind an SSH server.
pub(super) struct SshRemote {
    host: String,
    port: u16,
    user: String,
    path: String,
    key: Secret,
    passphrase: Option<Secret>,
    known_hosts: PathBuf,
    connection: Mutex<Option<Handle<HostCheck>>>,
}

impl SshRemote {
    pub(super) fn new(address: &Address) -> Result<Self, AddressError> {
        let invalid = |reason: &str| AddressError::Url(reason.to_owned());
        let Authentication::SshKey { key, passphrase, known_hosts } = &address.authentication else {
            return Err(invalid("an ssh URL needs `ssh_key` and `known_hosts`"));
        };
        let url = &address.url;
        if url.password().is_some() {
            return Err(invalid("a password in the URL is not secret; use `ssh_key`"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| invalid("the URL has no host"))?;
        let path = decode(url.path()).ok_or_else(|| invalid("the path of the URL is not valid UTF-8"))?;
        if path.trim_matches('/').is_empty() {
            return Err(invalid("the URL has no path of a repository"));
        }
        let user = match url.username() {
            "" => "git".to_owned(),
            user => decode(user).ok_or_else(|| invalid("the user name of the URL is not valid UTF-8"))?,
        };
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(22),
            user,
            // `ssh://host/~name/…` is relative to a home directory.
            path: path.strip_prefix("/~").map_or(path.clone(), |rest| format!("~{rest}")),
            key: key.clone(),
            passphrase: passphrase.clone(),
            known_hosts: known_hosts.clone(),
            connection: Mutex::new(None),
        })
    }

    /// Starts a program on the server.
    pub(super) async fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        let channel = self.channel().await?;
        let lost = |error: russh::Error| RemoteError::unavailable(format!("the SSH connection broke: {error}"));
        if service == Service::UploadPack {
            // A server that does not accept the variable speaks version 0.
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await.map_err(lost)?;
        }
        let command = format!("{} {}", service.name(), quoted(&self.path));
        channel.exec(true, command).await.map_err(lost)?;
        let stderr = Stderr::default();
        let writer = Box::new(channel.make_writer());
        Ok(Duplex { reader: PacketReader::new(incoming(channel, stderr.clone())), writer, stderr })
    }

    /// Opens a channel on the kept connection, or on a new one if that is closed.
    async fn channel(&self) -> Result<Channel<client::Msg>, RemoteError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            let opening = tokio::time::timeout(CONNECT_LIMIT, connection.channel_open_session());
            if let Ok(Ok(channel)) = opening.await {
                return Ok(channel);
            }
        }
        *kept = None;
        let connecting = tokio::time::timeout(CONNECT_LIMIT, self.connect());
        let connection = connecting.await.unwrap_or_else(|_| {
            let seconds = CONNECT_LIMIT.as_secs();
            Err(RemoteError::unavailable(format!("no SSH connection to {} within {seconds} seconds", self.host)))
        })?;
        let opening = tokio::time::timeout(CONNECT_LIMIT, connection.channel_open_session()).await;
        let opening = opening.map_err(|_| "timed out".to_owned());
        let channel = opening.and_then(|channel| channel.map_err(|error| error.to_string()));
        let channel = channel.map_err(|reason| {
            RemoteError::unavailable(format!("opening an SSH channel to {} failed: {reason}", self.host))
        })?;
        *kept = Some(connection);
        Ok(channel)
    }

    async fn connect(&self) -> Result<Handle<HostCheck>, RemoteError> {
        // Read first, so that a wrong key is reported without a connection.
        let key = self.private_key().await?;
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
        let text = tokio::fs::read_to_string(&self.known_hosts).await.map_err(|error| RemoteError::Unauthorized {
            reason: format!("the known hosts file {} cannot be read: {error}", self.known_hosts.display()),
        })?;
        let known = KnownHost::find(&text, &self.host, self.port);
        let config = client::Config {
            nodelay: true,
            keepalive_interval: Some(Duration::from_secs(30)),
            preferred: Preferred { key: key_types(&known).into(), ..Preferred::DEFAULT },
            ..client::Config::default()
        };
        let check = HostCheck { known, host: self.host.clone(), port: self.port, file: self.known_hosts.clone() };
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| {
            RemoteError::unavailable(format!("connecting to {}:{} failed: {error}", self.host, self.port))
        })?;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY could not be set for {}: {error}", self.host);
        }
        let mut connection =
            client::connect_stream(Arc::new(config), socket, check).await.map_err(SshError::explain)?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let accepted = connection.authenticate_publickey(&self.user, key).await;
        match accepted {
            Ok(result) if result.success() => Ok(connection),
            Ok(_) => Err(RemoteError::Unauthorized {
                reason: format!("{} does not accept the key {fingerprint} for the user {}", self.host, self.user),
            }),
            Err(error) => Err(SshError::Ssh(error).explain()),
        }
    }

    async fn private_key(&self) -> Result<russh::keys::PrivateKey, RemoteError> {
        let unusable = |reason: String| RemoteError::Unauthorized { reason };
        let text = self.key.reveal().map_err(|error| unusable(error.to_string()))?;
        let passphrase = self.passphrase.as_ref().map(Secret::reveal).transpose();
        let passphrase = passphrase.map_err(|error| unusable(error.to_string()))?;
        let unlocking = tokio::task::spawn_blocking(move || {
            let passphrase = passphrase.as_ref().map(|passphrase| passphrase.expose_secret());
            ssh_key::read(text.expose_secret(), passphrase, "ssh_key_passphrase")
        });
        unlocking.await.map_err(|error| unusable(error.to_string()))?.map_err(unusable)
    }
}

/// Returns the types of host keys to ask for: those in the known hosts file, so that the host presents one of them.
fn key_types(known: &KnownHost) -> Vec<Algorithm> {
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let mut all = vec![Algorithm::Ed25519];
    all.extend(curves.map(|curve| Algorithm::Ecdsa { curve }));
    let known: Vec<Algorithm> = all.iter().filter(|kind| known.has_key_of_type(kind.as_str())).cloned().collect();
    if known.is_empty() { all } else { known }
}

/// Compares the key of a host with the known hosts file.
pub(super) struct HostCheck {
    known: KnownHost,
    host: String,
    port: u16,
    file: PathBuf,
}

impl client::Handler for HostCheck {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key,
            PublicKeyOrCertificate::Certificate(_) => {
                let reason = format!("{} presents a host certificate, which is not supported", self.host);
                return Err(SshError::Host(reason));
            }
        };
        self.check(key).map(|()| true)
    }
}

impl HostCheck {
    fn check(&self, key: &PublicKey) -> Result<(), SshError> {
        let line = key.to_openssh().map_err(|error| SshError::Host(error.to_string()))?;
        let mut words = line.split(' ');
        let (key_type, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (host, file) = (&self.host, self.file.display());
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let presents = format!("{host} port {} presents the {key_type} key {fingerprint}", self.port);
        let reason = match self.known.state_of(key_type, text) {
            KeyState::Known => return Ok(()),
            KeyState::Changed { line } => format!(
                "{presents}, but line {line} of {file} has a different key: if the host's key was changed on purpose, \
                 replace that line; otherwise this may be an attack"
            ),
            KeyState::Revoked { line } => format!("{presents}, which is revoked in line {line} of {file}"),
            KeyState::Unknown => {
                let others = self.known.key_types().join(", ");
                let others = if others.is_empty() { String::new() } else { format!(" (only {others})") };
                format!(
                    "{presents}, but {file} has no such key of this host{others}: compare the fingerprint with the one \
                     that the host's operator publishes, and add the output of `ssh-keyscan -p {} {host}`",
                    self.port
                )
            }
        };
        Err(SshError::Host(reason))
    }
}

/// Why an SSH connection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    /// The host key is not the known one.
    #[error("{0}")]
    Host(String),
    /// Any other failure.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

impl SshError {
    fn explain(self) -> RemoteError {
        match self {
            Self::Host(reason) => RemoteError::Unauthorized { reason },
            Self::Ssh(error @ russh::Error::NoCommonAlgo { .. }) => RemoteError::Protocol { reason: error.to_string() },
            Self::Ssh(error) => RemoteError::unavailable(format!("the SSH connection failed: {error}")),
        }
    }
}

/// Returns the output of the program. It ends when the channel is closed, so that standard error is complete by then.
fn incoming(channel: Channel<client::Msg>, stderr: Stderr) -> Incoming {
    let next = |(mut channel, stderr): (Channel<client::Msg>, Stderr)| async move {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Some((Ok(data), (channel, stderr))),
                Some(ChannelMsg::ExtendedData { data, .. }) => stderr.add(&data),
                Some(ChannelMsg::Failure) => {
                    let error = io::Error::other("the server refused to run Git");
                    return Some((Err(error), (channel, stderr)));
                }
                Some(ChannelMsg::ExitSignal { signal_name, error_message, .. }) => {
                    let message = one_line(error_message.as_bytes());
                    stderr.add(format!("Git was ended by signal {signal_name:?} {message}").as_bytes());
                }
                Some(ChannelMsg::Close) | None => return None,
                Some(_) => {}
            }
        }
    };
    futures_util::stream::unfold((channel, stderr), next).boxed()
}

/// Quotes a path for the shell of the server. A leading `~` stays unquoted, so that the shell expands it.
fn quoted(path: &str) -> String {
    let (home, path) = match path.strip_prefix('~').and_then(|rest| rest.split_once('/')) {
        Some((user, path)) if user.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) => {
            (format!("~{user}/"), path)
        }
        _ => (String::new(), path),
    };
    format!("{home}'{}'", path.replace('\'', r"'\''"))
}

/// Decodes percent encoding; `None` if the result is not valid UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_their_quotes() {
        assert_eq!(quoted("/srv/it's.git; rm -rf /"), r"'/srv/it'\''s.git; rm -rf /'");
        assert_eq!(quoted("~/config.git"), "~/'config.git'");
        assert_eq!(quoted("~git/a b.git"), "~git/'a b.git'");
        assert_eq!(quoted("~$(id)/x"), "'~$(id)/x'");
    }

    #[test]
    fn percent_encoding_is_decoded() {
        assert_eq!(decode("/a%20b/%C3%A9%2").as_deref(), Some("/a b/é%2"));
        assert_eq!(decode("%ff"), None);
    }
}
