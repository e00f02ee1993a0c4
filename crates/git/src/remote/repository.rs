use std::time::Duration;

use tagrelay_secret::Redaction;

use super::address::Address;
use super::history::HistoryReading;
use super::http::HttpRemote;
use super::limits::{PUSH_LIMIT, SILENCE_LIMIT, silence_limit_for};
use super::push::Push;
use super::reading::{Conversation, Reading};
use super::stream::StreamRemote;
use crate::branch_name::BranchName;
use crate::error::{AddressError, PushError, RemoteError};

/// A remote repository. Connections are kept between calls.
pub struct Remote(Transport);

enum Transport {
    Http(HttpRemote),
    Stream(StreamRemote),
}

impl Remote {
    /// Checks an address. Uses no network.
    ///
    /// # Errors
    ///
    /// If the address or its credentials cannot be used.
    pub fn new(address: &Address) -> Result<Self, AddressError> {
        Ok(Self(match address.url.scheme() {
            "http" | "https" => Transport::Http(HttpRemote::new(address)?),
            "file" => Transport::Stream(StreamRemote::local(address)?),
            "ssh" => Transport::Stream(StreamRemote::ssh(address)?),
            other => {
                let reason = format!("the scheme `{other}` is not supported; use https, ssh or file");
                return Err(AddressError::Url(reason));
            }
        }))
    }

    /// Begins a conversation that reads the repository.
    ///
    /// # Errors
    ///
    /// If no connection can be made.
    pub async fn read(&self) -> Result<Reading<'_>, RemoteError> {
        Ok(match &self.0 {
            Transport::Http(http) => Reading(Conversation::Http(http.read())),
            Transport::Stream(stream) => Reading(Conversation::Stream(Box::new(stream.read().await?))),
        })
    }

    /// Begins a conversation that reads the history of the repository.
    ///
    /// # Errors
    ///
    /// If the repository cannot be read.
    pub async fn read_history(&self) -> Result<HistoryReading<'_>, RemoteError> {
        let mut reading = self.read().await?;
        let advertisement = match &mut reading.0 {
            Conversation::Stream(stream) => stream.advertisement.clone(),
            Conversation::Http(http) => {
                http.advertisement().await.map_err(|error| error.redacted(&self.redaction()))?
            }
        };
        Ok(HistoryReading::new(reading, advertisement))
    }

    /// Moves a branch. One attempt, without a fetch.
    ///
    /// # Errors
    ///
    /// Each variant of [`PushError`] asks for a different reaction of the caller.
    pub async fn push(&self, branch: &BranchName, push: &Push) -> Result<(), PushError> {
        let pushing = async {
            match &self.0 {
                Transport::Http(http) => http.push(branch, push).await,
                Transport::Stream(stream) => stream.push(branch, push).await,
            }
        };
        let pushing = async { pushing.await.map_err(|error| error.redacted(&self.redaction())) };
        // The pack is compressed, so it is not larger than the objects.
        let limit = PUSH_LIMIT + (silence_limit_for(push.size()) - SILENCE_LIMIT);
        let timed_out = |_| Err(PushError::unknown(format!("no result after {} minutes", minutes(limit))));
        tokio::time::timeout(limit, pushing).await.unwrap_or_else(timed_out)
    }

    /// Returns the redaction of our credentials, for texts of the server.
    fn redaction(&self) -> Redaction {
        match &self.0 {
            Transport::Http(http) => http.redaction(),
            // An SSH key is proven by a signature: the server never receives a secret.
            Transport::Stream(_) => Redaction::none(),
        }
    }
}

fn minutes(duration: Duration) -> u64 {
    duration.as_secs() / 60
}
