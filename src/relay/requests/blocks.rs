use jiff::Timestamp;

use super::RequestError;
use crate::domain::{Block, BlockKind, NewBlock};
use crate::relay::Relay;
use crate::store::{BlockMade, StoreError};

/// A request for a hold.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    pub environment: String,
    /// The repository, whole or by its last component.
    pub repository: String,
    pub reason: Option<String>,
    /// The name of the API token.
    pub actor: String,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// A request for a freeze.
#[derive(Debug, Clone)]
pub struct FreezeRequest {
    pub environment: String,
    pub reason: String,
    /// The name of the API token.
    pub actor: String,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Relay {
    /// Creates a hold.
    ///
    /// # Errors
    ///
    /// If the environment runs no such repository, or the store fails.
    pub async fn hold(&self, request: HoldRequest) -> Result<BlockMade, RequestError> {
        let repository = self.repository_in(&request.environment, &request.repository).await?;
        let HoldRequest { environment, reason, actor, expires_at, .. } = request;
        let (kind, repository) = (BlockKind::Hold, Some(repository));
        self.block(NewBlock { kind, environment, repository, reason, actor, expires_at }).await
    }

    /// Freezes an environment until it is thawed.
    ///
    /// # Errors
    ///
    /// If there is no such environment, or the store fails.
    pub async fn freeze(&self, request: FreezeRequest) -> Result<BlockMade, RequestError> {
        self.branch(&request.environment)?;
        let FreezeRequest { environment, reason, actor, expires_at } = request;
        let (kind, repository, reason) = (BlockKind::Freeze, None, Some(reason));
        self.block(NewBlock { kind, environment, repository, reason, actor, expires_at }).await
    }

    async fn block(&self, new: NewBlock) -> Result<BlockMade, RequestError> {
        let made = self.0.store.block(new).await?;
        let block = &made.block;
        let (repository, reason) = (block.repository.as_ref().map(ToString::to_string), block.reason.as_deref());
        tracing::info!(block = %block.id, kind = %block.kind, environment = %block.environment, repository, actor = %block.actor, reason, "block made");
        Ok(made)
    }

    /// Releases a hold or ends a freeze, and its waiting updates continue. `None`: no active block has this id and kind.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn end_block(&self, id: &str, kind: BlockKind, actor: &str) -> Result<Option<Block>, StoreError> {
        let ended = self.0.store.end_block(id, kind, actor).await?;
        if let Some(block) = &ended {
            let repository = block.repository.as_ref().map(ToString::to_string);
            tracing::info!(block = %block.id, kind = %kind, environment = %block.environment, repository, actor, "block ended");
        }
        Ok(ended)
    }
}
