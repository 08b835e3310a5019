//! What stands behind a gateway: a cluster, or the one thread of development.

use std::pin::Pin;
use std::sync::Arc;

use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_ethereum::{Answer, Block, Environment, Pool, PoolTransaction, Query, QueryError};
use parsec_protocol::ErrorCode;
use tokio::sync::broadcast;

/// What a backend promises to answer.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The state that a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The state after that block.
    Block(u64),
    /// The state after the latest block and, where it is known, what waits in the pool.
    Pending,
}

/// Why a transaction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// Why.
    pub code: ErrorCode,
    /// Why, for people, as Ethereum nodes say it where they do ("nonce too low: …").
    pub detail: String,
    /// The transaction is known already: it has this hash.
    pub known: Option<B256>,
}

/// Orders and executes transactions, and answers questions about the state.
///
/// Blocks don't come through here: whoever makes a backend feeds them to the chain's index, in
/// order, and a block is in the index before anyone is told that a transaction of it is done.
pub trait Backend: Send + Sync + 'static {
    /// The chain id.
    fn chain_id(&self) -> u64;

    /// What transactions of the next block will see of it, as far as it is known.
    fn pending(&self) -> Environment;

    /// The oldest block whose state is kept.
    fn oldest_state(&self) -> u64;

    /// Answers a question about a state.
    fn query(&self, at: At, query: Query) -> Answering<'_, Result<Answer, QueryError>>;

    /// Takes raw transactions, in this order; each is refused or gets its hash.
    fn submit(&self, raw: Vec<Bytes>) -> Answering<'_, Vec<Result<B256, Refused>>>;

    /// The nonce that the next transaction of an account should have, with all that it has in
    /// the pool.
    fn next_nonce(&self, sender: Address) -> Answering<'_, Result<u64, QueryError>>;

    /// The transactions that were accepted and are in no block yet.
    fn pool(&self) -> Answering<'_, Result<Pool, QueryError>>;

    /// One of them.
    fn pooled(&self, hash: B256) -> Answering<'_, Result<Option<PoolTransaction>, QueryError>>;

    /// The block that is being made, executed and sealed as far as it has come; nothing if the
    /// backend does not make blocks in advance.
    fn pending_block(&self) -> Answering<'_, Result<Option<Block>, QueryError>> {
        Box::pin(async { Ok(None) })
    }

    /// How many blobs the block with that number and time may have, and what they cost. By default
    /// as Osaka has it.
    fn blobs(&self, number: u64, timestamp: u64) -> BlobParams {
        let _ = (number, timestamp);
        BlobParams::osaka()
    }

    /// Whether that state has a root in the sense of Ethereum, which its block's header names, so
    /// that what it holds can be proven.
    fn proves(&self, at: At) -> bool {
        let _ = at;
        false
    }

    /// The least that transactions should be told to offer above the base fee, wei.
    fn least_tip(&self) -> u128 {
        0
    }

    /// Tells of transactions when they are accepted.
    fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>>;
}
