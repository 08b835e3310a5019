//! What all methods share: the chain, what stands behind the gateway, limits.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::B256;
use parsec_ethereum::{Answer, Block, Environment, Query, QueryError};
use tokio::sync::Semaphore;

use crate::backend::{At, Backend};
use crate::chain::{Chain, Head, View};
use crate::filters::Filters;
use crate::limits::Limits;
use crate::rpc::{BlockId, BlockTag, INTERNAL_ERROR, RpcError};
use crate::{Transaction, sealed};

/// What all methods share.
pub(crate) struct Node {
    pub(crate) chain: Arc<Chain>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) limits: Limits,
    pub(crate) filters: Filters,
    pub(crate) client_version: String,
    /// The namespaces of all methods, once they are known.
    pub(crate) modules: OnceLock<BTreeSet<String>>,
    executions: Semaphore,
}

/// A block that was asked for.
pub(crate) enum Found {
    Sealed(Arc<Head>),
    Pending,
}

impl Node {
    pub(crate) fn new(
        chain: Arc<Chain>,
        backend: Arc<dyn Backend>,
        limits: Limits,
        client_version: String,
    ) -> Self {
        let filters = Filters::new(&limits);
        let executions = Semaphore::new(limits.executions_max.min(Semaphore::MAX_PERMITS));
        let modules = OnceLock::new();
        Self { chain, backend, limits, filters, client_version, modules, executions }
    }

    /// The block that is meant; none if there is none.
    pub(crate) fn find(&self, view: &View, id: BlockId) -> Result<Option<Found>, RpcError> {
        let head = match id {
            BlockId::Tag(BlockTag::Pending) => return Ok(Some(Found::Pending)),
            BlockId::Tag(BlockTag::Latest) => Some(Arc::clone(view.head())),
            BlockId::Tag(BlockTag::Earliest) => view.header(0)?,
            BlockId::Tag(BlockTag::Number(number)) => view.header(number)?,
            BlockId::Hash(hash) => match view.number_of(hash)? {
                Some(number) => view.header(number)?,
                None => None,
            },
        };
        Ok(head.map(Found::Sealed))
    }

    /// The block that is meant, which must exist. The pending one counts as the latest.
    pub(crate) fn sealed(&self, view: &View, id: BlockId) -> Result<Arc<Head>, RpcError> {
        match self.find(view, id)? {
            Some(Found::Sealed(head)) => Ok(head),
            Some(Found::Pending) => Ok(Arc::clone(view.head())),
            None => Err(RpcError::server("header not found")),
        }
    }

    /// The state that is meant. Nobody asks the backend for a state that it has no more.
    pub(crate) fn state(&self, id: Option<BlockId>) -> Result<At, RpcError> {
        let view = self.chain.view();
        match self.find(&view, id.unwrap_or(BlockId::LATEST))? {
            Some(Found::Pending) => Ok(At::Pending),
            Some(Found::Sealed(head)) => self.kept(head.number).map(At::Block),
            None => Err(RpcError::server("header not found")),
        }
    }

    /// A block whose state is kept.
    pub(crate) fn kept(&self, block: u64) -> Result<u64, RpcError> {
        let oldest = self.backend.oldest_state();
        match block < oldest {
            true => Err(QueryError::NotKept { block, oldest }.into()),
            false => Ok(block),
        }
    }

    /// What a call at that state sees of its block.
    pub(crate) fn environment(&self, at: At) -> Result<Environment, RpcError> {
        let At::Block(number) = at else { return Ok(self.backend.pending()) };
        let head = self.chain.view().header(number)?;
        Ok(environment(&head.ok_or_else(|| RpcError::server("header not found"))?.header))
    }

    /// Asks about the state, without executing anything.
    pub(crate) async fn query(&self, at: At, query: Query) -> Result<Answer, RpcError> {
        Ok(self.backend.query(at, query).await?)
    }

    /// Executes something, when there are not too many that do.
    pub(crate) async fn execute(&self, at: At, query: Query) -> Result<Answer, RpcError> {
        let wait = self.limits.execution_wait_max;
        let Ok(Ok(_permit)) = tokio::time::timeout(wait, self.executions.acquire()).await else {
            return Err(RpcError::limit("too many calls are being executed, try again later"));
        };
        self.query(at, query).await
    }

    /// Reads much of the chain, where it does not hold up others.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self, &View) -> Result<T, RpcError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let node = Arc::clone(self);
        let view = self.chain.view();
        tokio::task::spawn_blocking(move || read(&node, &view)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "reading the chain did not end");
            Err(RpcError::new(INTERNAL_ERROR, "reading the chain did not end"))
        })
    }

    /// The block that is being made: as the backend has it, or else the transactions of the pool
    /// as they would be sealed if nothing became of them.
    pub(crate) async fn pending_block(&self) -> Result<Block, RpcError> {
        if let Some(block) = self.backend.pending_block().await? {
            return Ok(block);
        }
        let pool = self.backend.pool().await?;
        let environment = self.backend.pending();
        Ok(sealed::pending(&environment, self.chain.head().as_ref(), pool))
    }

    /// The price of a unit of blob gas in a block.
    pub(crate) fn blob_price(&self, header: &Header) -> u128 {
        let blobs = || self.backend.blobs(header.number, header.timestamp);
        header.excess_blob_gas.map_or(1, |excess| blobs().calc_blob_fee(excess))
    }
}

/// What the transactions of a block saw.
pub(crate) fn environment(header: &Header) -> Environment {
    Environment {
        number: header.number,
        timestamp: header.timestamp,
        gas_limit: header.gas_limit,
        base_fee: header.base_fee_per_gas.unwrap_or_default(),
        coinbase: header.beneficiary,
        difficulty: header.difficulty,
        prevrandao: header.mix_hash,
        excess_blob_gas: header.excess_blob_gas,
        parent_beacon_block_root: header.parent_beacon_block_root,
        hashes: Vec::new(),
    }
}

/// A transaction that was admitted, and so can be decoded.
pub(crate) fn decoded(raw: &[u8], hash: B256) -> Result<Transaction, RpcError> {
    Transaction::decode_2718_exact(raw).map_err(|error| {
        tracing::error!(%hash, %error, "a transaction can't be decoded");
        RpcError::new(INTERNAL_ERROR, "a transaction can't be decoded")
    })
}

/// A backend answered something else than was asked.
pub(crate) fn confused(answer: &Answer) -> RpcError {
    tracing::error!(?answer, "not an answer to what was asked");
    RpcError::new(INTERNAL_ERROR, "not an answer to what was asked")
}
