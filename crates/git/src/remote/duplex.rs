//! A running program of Git, behind a pair of pipes or an SSH channel.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::limits::silence_limit_for;
use super::pktline::PacketReader;
use super::protocol::ReadError;
use super::server_text::{one_line, permanent_error};
use crate::error::RemoteError;

const MAX_STDERR_BYTES: usize = 4096;

/// The beginning of a program's standard error. It often is the only explanation of a failure.
#[derive(Clone, Default)]
pub(super) struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Stderr {
    pub(super) fn add(&self, text: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_STDERR_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn text(&self) -> String {
        one_line(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Explains why the conversation failed, with the program's standard error if it wrote any.
    pub(super) async fn explain(&self, error: ReadError) -> RemoteError {
        let error = match error {
            ReadError::Server(error) => return error,
            ReadError::Connection(error) => error,
        };
        if error.kind() == io::ErrorKind::UnexpectedEof && self.text().is_empty() {
            // Both pipes end together, so the text may still be on its way.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let text = self.text();
        if let Some(error) = permanent_error(&text) {
            return error;
        }
        if error.kind() == io::ErrorKind::InvalidData {
            return RemoteError::Protocol { reason: error.to_string() };
        }
        RemoteError::unavailable(if text.is_empty() { error.to_string() } else { text })
    }
}

/// Input, output and standard error of a running program of Git.
pub(super) struct Duplex {
    pub(super) reader: PacketReader,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) stderr: Stderr,
}

impl Duplex {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        within(silence_limit_for(bytes.len()), sending).await
    }
}

/// Runs `work`, or fails after `limit`.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} seconds", limit.as_secs())))
    })
}
