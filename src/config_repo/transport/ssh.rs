//! SSH: a connection that is kept, and a channel on it for each conversation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use russh::client::{self, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Preferred};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::known_hosts::{KnownHost, Verdict};
use super::pktline::{Incoming, PacketReader};
use super::protocol::Service;
use super::stream::{Complaints, Duplex};
use super::{CONNECT_PATIENCE, readable};
use crate::config_repo::error::{OpenError, RemoteError};
use crate::config_repo::settings::{Authentication, RemoteSettings};
use crate::config_repo::ssh_key;
use crate::secret::{ExposeSecret as _, Secret};

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
    pub(super) fn new(settings: &RemoteSettings) -> Result<Self, OpenError> {
        let address = |reason: &str| OpenError::Address { name: settings.name.clone(), reason: reason.to_owned() };
        let Authentication::SshKey { key, passphrase, known_hosts } = &settings.authentication else {
            return Err(address("an ssh address needs `ssh_key` and `known_hosts`"));
        };
        let url = &settings.url;
        if url.password().is_some() {
            return Err(address("a password in the address would lie open in the settings; use `ssh_key`"));
        }
        let host =
            url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| address("the address names no host"))?;
        let path = decode(url.path()).ok_or_else(|| address("the path of the address is not valid UTF-8"))?;
        if path.trim_matches('/').is_empty() {
            return Err(address("the address names no repository"));
        }
        let user = match url.username() {
            "" => "git".to_owned(),
            user => decode(user).ok_or_else(|| address("the user name of the address is not valid UTF-8"))?,
        };
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(22),
            user,
            // `ssh://host/~name/…` is relative to a home.
            path: path.strip_prefix("/~").map_or(path.clone(), |rest| format!("~{rest}")),
            key: key.clone(),
            passphrase: passphrase.clone(),
            known_hosts: known_hosts.clone(),
            connection: Mutex::new(None),
        })
    }

    /// Starts a program on the other side.
    pub(super) async fn open(&self, service: Service) -> Result<Duplex, RemoteError> {
        let channel = self.channel().await?;
        let lost = |error: russh::Error| RemoteError::unavailable(format!("the SSH connection broke: {error}"));
        if service == Service::UploadPack {
            // Servers that do not accept it speak version 0.
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await.map_err(lost)?;
        }
        let command = format!("{} {}", service.name(), quoted(&self.path));
        channel.exec(true, command).await.map_err(lost)?;
        let complaints = Complaints::default();
        let writer = Box::new(channel.make_writer());
        Ok(Duplex { reader: PacketReader::new(incoming(channel, complaints.clone())), writer, complaints })
    }

    /// Opens a channel on the connection that is kept, or on a new one where that has ended.
    async fn channel(&self) -> Result<Channel<client::Msg>, RemoteError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            let opening = tokio::time::timeout(CONNECT_PATIENCE, connection.channel_open_session());
            if let Ok(Ok(channel)) = opening.await {
                return Ok(channel);
            }
        }
        *kept = None;
        let connecting = tokio::time::timeout(CONNECT_PATIENCE, self.connect());
        let connection = connecting.await.unwrap_or_else(|_| {
            let seconds = CONNECT_PATIENCE.as_secs();
            Err(RemoteError::unavailable(format!("{} did not let us in within {seconds} seconds", self.host)))
        })?;
        let opening = tokio::time::timeout(CONNECT_PATIENCE, connection.channel_open_session()).await;
        let opening = opening.map_err(|_| format!("{} opened none in time", self.host));
        let channel = opening.and_then(|channel| channel.map_err(|error| error.to_string()));
        let channel = channel.map_err(|reason| RemoteError::unavailable(format!("no SSH channel: {reason}")))?;
        *kept = Some(connection);
        Ok(channel)
    }

    async fn connect(&self) -> Result<Handle<HostCheck>, RemoteError> {
        // First, so that a wrong key is named without a word to the server.
        let key = self.private_key().await?;
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
        let text = tokio::fs::read_to_string(&self.known_hosts).await.map_err(|error| RemoteError::Unauthorized {
            reason: format!("the known hosts in {} cannot be read: {error}", self.known_hosts.display()),
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
            RemoteError::unavailable(format!("{}:{} cannot be connected to: {error}", self.host, self.port))
        })?;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!("the connection to {} keeps Nagle's algorithm: {error}", self.host);
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

/// Returns the types of host keys to ask for: those that are known of the host, so that it shows one of them.
fn key_types(known: &KnownHost) -> Vec<Algorithm> {
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521];
    let mut all = vec![Algorithm::Ed25519];
    all.extend(curves.map(|curve| Algorithm::Ecdsa { curve }));
    let known: Vec<Algorithm> = all.iter().filter(|kind| known.has_key_of_type(kind.as_str())).cloned().collect();
    if known.is_empty() { all } else { known }
}

/// Compares the key of the host with the file of known hosts.
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
                let reason = format!("{} shows a certificate, which is not supported", self.host);
                return Err(SshError::Host(reason));
            }
        };
        self.judge(key).map(|()| true)
    }
}

impl HostCheck {
    fn judge(&self, key: &PublicKey) -> Result<(), SshError> {
        let line = key.to_openssh().map_err(|error| SshError::Host(error.to_string()))?;
        let mut words = line.split(' ');
        let (key_type, text) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (host, file) = (&self.host, self.file.display());
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let shows = format!("{host} port {} shows the {key_type} key {fingerprint}", self.port);
        let reason = match self.known.judge(key_type, text) {
            Verdict::Known => return Ok(()),
            Verdict::Changed { line } => format!(
                "{shows}, and line {line} of {file} says another: if the host's key was changed on purpose, put the new \
                 one there; if not, somebody else may be answering"
            ),
            Verdict::Revoked { line } => format!("{shows}, which line {line} of {file} revokes"),
            Verdict::Unknown => {
                let others = self.known.key_types().join(", ");
                let others = if others.is_empty() { String::new() } else { format!(" (it knows only: {others})") };
                format!(
                    "{shows}, and {file} has no such key of this host{others}: compare the fingerprint with what the \
                     host's operator publishes and add the output of `ssh-keyscan -p {} {host}`",
                    self.port
                )
            }
        };
        Err(SshError::Host(reason))
    }
}

/// What ends an SSH connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum SshError {
    /// The host is not the one that we know.
    #[error("{0}")]
    Host(String),
    /// Everything else.
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

/// Returns what the program writes. It ends when the channel does, so that all complaints have come by then.
fn incoming(channel: Channel<client::Msg>, complaints: Complaints) -> Incoming {
    let next = |(mut channel, complaints): (Channel<client::Msg>, Complaints)| async move {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Some((Ok(data), (channel, complaints))),
                Some(ChannelMsg::ExtendedData { data, .. }) => complaints.add(&data),
                Some(ChannelMsg::Failure) => {
                    let error = io::Error::other("the server does not run Git for us");
                    return Some((Err(error), (channel, complaints)));
                }
                Some(ChannelMsg::ExitSignal { signal_name, error_message, .. }) => {
                    let words = readable(error_message.as_bytes());
                    complaints.add(format!("the program was ended by {signal_name:?} {words}").as_bytes());
                }
                Some(ChannelMsg::Close) | None => return None,
                Some(_) => {}
            }
        }
    };
    futures_util::stream::unfold((channel, complaints), next).boxed()
}

/// Quotes a path for the shell on the other side; a `~` at its beginning stays outside, for the shell to expand.
fn quoted(path: &str) -> String {
    let (home, path) = match path.strip_prefix('~').and_then(|rest| rest.split_once('/')) {
        Some((user, path)) if user.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) => {
            (format!("~{user}/"), path)
        }
        _ => (String::new(), path),
    };
    format!("{home}'{}'", path.replace('\'', r"'\''"))
}

/// Undoes the percent encoding of an address.
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
    fn addresses_are_decoded() {
        assert_eq!(decode("/a%20b/%C3%A9%2").as_deref(), Some("/a b/é%2"));
        assert_eq!(decode("%ff"), None);
    }
}
