//! What can go wrong with the index of blocks.

use std::path::PathBuf;
use std::sync::Arc;

use alloy_primitives::B256;

/// Why a block was not taken, or something could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ChainError {
    /// The directory can't be read or written.
    #[error("the index of blocks at {}: {source}", path.display())]
    Engine { path: PathBuf, source: Arc<fjall::Error> },
    /// What is stored can't be what was written. Remove the directory: it is built again.
    #[error("the index of blocks at {} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    /// The directory holds another chain, or was written by another version.
    #[error("the index of blocks at {}: {found}", path.display())]
    Foreign { path: PathBuf, found: String },
    /// The block is not the next one.
    #[error("block {number} does not follow block {head}")]
    Gap { number: u64, head: u64 },
    /// The block has another parent than the latest one.
    #[error("block {number} is a child of {parent}, not of {head}")]
    Fork { number: u64, parent: B256, head: B256 },
    /// The block contradicts itself, or holds something that is no transaction.
    #[error("block {number}: {reason}")]
    Malformed { number: u64, reason: String },
    /// There is no such block to go back to.
    #[error("there is no block {number} to go back to; the latest is {head}")]
    Ahead { number: u64, head: u64 },
}
