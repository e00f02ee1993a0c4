//! Arriving packs, written into an object folder.

use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::{MirrorError, git_error};
use super::folder::open_objects;

/// Writes and indexes a pack while it arrives, on its own thread.
pub struct PackReceiver {
    chunks: mpsc::Sender<Bytes>,
    indexer: JoinHandle<Result<(), MirrorError>>,
}

impl PackReceiver {
    /// Starts to receive a pack into `objects/pack` of a folder.
    pub(crate) fn start(folder: PathBuf) -> Self {
        let (chunks, mut arriving) = mpsc::channel::<Bytes>(16);
        let indexer = tokio::task::spawn_blocking(move || {
            let git = |source| git_error(&folder, source);
            // The pack may contain deltas against objects on disk.
            let objects = open_objects(&folder)?;
            let mut indexer =
                git2::Indexer::new(Some(&objects), &folder.join("objects/pack"), 0, false).map_err(git)?;
            let mut complete = false;
            while let Some(chunk) = arriving.blocking_recv() {
                // An empty chunk marks the end of the pack. A channel that closes without it is an aborted transfer.
                complete = chunk.is_empty();
                indexer.write_all(&chunk).map_err(|source| MirrorError::Disk { path: folder.clone(), source })?;
            }
            if complete {
                indexer.commit().map_err(git)?;
            }
            Ok(())
        });
        Self { chunks, indexer }
    }

    /// Passes on the next bytes. Returns `false` if the thread has failed; `finish` then returns the error.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> bool {
        chunk.is_empty() || self.chunks.send(chunk).await.is_ok()
    }

    /// Ends the pack. A complete one becomes readable, an incomplete one is deleted.
    ///
    /// # Errors
    ///
    /// If the pack is invalid or the disk cannot be written.
    pub async fn finish(self, complete: bool) -> Result<(), MirrorError> {
        if complete {
            // If this fails, the thread has ended with an error, which is returned below.
            let _ = self.chunks.send(Bytes::new()).await;
        }
        drop(self.chunks);
        match self.indexer.await {
            Ok(result) => result,
            Err(error) => Err(error.into()),
        }
    }
}
