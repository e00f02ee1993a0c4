//! Holds and freezes: one mechanism with two names.

use super::apply::{Scope, Step, apply, review};
use super::block_rows;
use super::writer::{Transaction, Write};
use super::{Store, StoreError, pushes};
use crate::domain::{Block, BlockKind, Blocks, NewBlock, UpdateInput};

/// A block that was made.
#[derive(Debug, Clone)]
pub struct BlockMade {
    pub block: Block,
    /// Repositories of the block with a push that was sent before it and has no answer yet.
    pub under_way: Vec<String>,
}

impl Store {
    /// Makes a block.
    ///
    /// The branch writer makes updates wait for the block, and repeats decisions that were made before it. A push that was sent
    /// already may still land.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn block(&self, block: NewBlock) -> Result<BlockMade, StoreError> {
        self.writes.run(Make(block)).await
    }

    /// Ends a block. Updates without another wait cause continue.
    ///
    /// Returns the block as it was; `None`: no active block has this id and kind.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_block(&self, id: &str, kind: BlockKind, by: &str) -> Result<Option<Block>, StoreError> {
        let end = End { by: by.to_owned(), which: Which::One { id: id.to_owned(), kind } };
        Ok(self.writes.run(end).await?.pop())
    }

    /// Ends the blocks of a kind in all environments except `known`. Returns the blocks as they were.
    ///
    /// # Errors
    ///
    /// If the store cannot be written to.
    pub async fn end_blocks_elsewhere(&self, known: &[String], kind: BlockKind) -> Result<Vec<Block>, StoreError> {
        // Read first, so that an idle daemon writes nothing.
        if self.blocks_of(kind).await?.iter().all(|block| known.contains(&block.environment)) {
            return Ok(Vec::new());
        }
        let by = "the settings have no such environment".to_owned();
        self.writes.run(End { by, which: Which::Elsewhere { known: known.to_vec(), kind } }).await
    }

    /// Returns the active blocks, oldest first, and the freeze windows.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn blocks(&self) -> Result<Blocks, StoreError> {
        let connection = &mut *self.reads.acquire().await?;
        Ok(block_rows::active(connection, self.calendar(), self.clock.now()).await?)
    }

    /// Returns the active blocks of a kind, oldest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn blocks_of(&self, kind: BlockKind) -> Result<Vec<Block>, StoreError> {
        let mut rows = self.blocks().await?.rows;
        rows.retain(|block| block.kind == kind);
        Ok(rows)
    }
}

struct Make(NewBlock);

impl Write for Make {
    type Output = BlockMade;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<BlockMade, sqlx::Error> {
        let new = &self.0;
        let sent = pushes::under_way(tx, &new.environment).await?;
        let is_meant = |name: &String| new.repository.as_ref().is_none_or(|repository| repository.as_str() == name);
        let mut under_way: Vec<String> = sent.into_iter().filter(is_meant).collect();
        under_way.sort();
        Ok(BlockMade { block: block_rows::insert(tx, new, None).await?, under_way })
    }
}

enum Which {
    One { id: String, kind: BlockKind },
    Elsewhere { known: Vec<String>, kind: BlockKind },
}

struct End {
    by: String,
    which: Which,
}

impl Write for End {
    type Output = Vec<Block>;

    async fn run(&self, tx: &mut Transaction<'_>) -> Result<Vec<Block>, sqlx::Error> {
        let mut blocks = block_rows::current(tx).await?.rows;
        blocks.retain(|block| match &self.which {
            Which::One { id, kind } => block.id == *id && block.kind == *kind,
            Which::Elsewhere { known, kind } => block.kind == *kind && !known.contains(&block.environment),
        });
        block_rows::end(tx, &blocks, &self.by).await?;
        let reviewed = review(tx, Scope::Of(&blocks)).await?;
        apply(tx, reviewed.free.into_iter().map(|id| Step::new(id, UpdateInput::Resume)).collect()).await?;
        Ok(blocks)
    }
}
