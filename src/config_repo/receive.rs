//! Packs as they arrive, written into a folder of objects.

use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::folder::{MirrorError, git_error, open_objects};

/// Takes in a pack as it arrives, on a thread of its own: indexing is disk and processor work.
pub(super) struct PackReceiver {
    chunks: mpsc::Sender<Bytes>,
    indexer: JoinHandle<Result<(), MirrorError>>,
}

impl PackReceiver {
    /// Starts to take in a pack below a folder with `objects/pack`.
    pub(super) fn start(folder: PathBuf) -> Self {
        let (chunks, mut arriving) = mpsc::channel::<Bytes>(16);
        let indexer = tokio::task::spawn_blocking(move || {
            let git = |source| git_error(&folder, source);
            // What arrives may be written as differences to what is on the disk.
            let objects = open_objects(&folder)?;
            let mut indexer =
                git2::Indexer::new(Some(&objects), &folder.join("objects/pack"), 0, false).map_err(git)?;
            let mut complete = false;
            while let Some(chunk) = arriving.blocking_recv() {
                // The empty chunk says that all have come; a channel that just ends is a transfer that broke off.
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

    /// Hands on the next bytes. Returns `false` when they cannot be taken in: `finish` says why.
    pub(super) async fn write(&mut self, chunk: Bytes) -> bool {
        chunk.is_empty() || self.chunks.send(chunk).await.is_ok()
    }

    /// Ends the pack, which is only now readable; one that is not `complete` is thrown away.
    pub(super) async fn finish(self, complete: bool) -> Result<(), MirrorError> {
        if complete {
            // A send that fails means that the thread has ended with an error, which is the result.
            let _ = self.chunks.send(Bytes::new()).await;
        }
        drop(self.chunks);
        match self.indexer.await {
            Ok(result) => result,
            Err(error) => Err(error.into()),
        }
    }
}
