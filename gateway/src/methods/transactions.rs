//! Transactions and their receipts.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use parsec_ethereum::{BlockTransaction, PoolTransaction};
use tokio::sync::broadcast::error::RecvError;

use super::Family;
use super::blocks;
use crate::chain::Place;
use crate::node::{Found, Node, decoded};
use crate::rpc::{BlockId, BlockTag, RpcError};
use crate::shape::{ReceiptJson, TransactionJson};

pub(super) fn add(family: &mut Family) {
    family.read("eth_getTransactionByHash", by_hash);
    family.read("eth_getTransactionReceipt", receipt_soon);
    family.read("eth_getRawTransactionByHash", async |node, (hash,): (B256,)| {
        raw_by_hash(node, hash).await
    });
    family.read("debug_getRawTransaction", async |node, (hash,): (B256,)| {
        raw_by_hash(node, hash).await
    });
    family.read("eth_getTransactionByBlockHashAndIndex", async |node, at: (B256, u64)| {
        by_index(node, BlockId::Hash(at.0), at.1).await
    });
    family.read("eth_getTransactionByBlockNumberAndIndex", async |node, at: (BlockTag, u64)| {
        by_index(node, BlockId::Tag(at.0), at.1).await
    });
    family.read("eth_getRawTransactionByBlockHashAndIndex", async |node, at: (B256, u64)| {
        raw_by_index(node, BlockId::Hash(at.0), at.1).await
    });
    family.read("eth_getRawTransactionByBlockNumberAndIndex", async |node, at: (BlockTag, u64)| {
        raw_by_index(node, BlockId::Tag(at.0), at.1).await
    });
}

/// A transaction that is in no block yet.
pub(crate) fn pooled(pooled: &PoolTransaction) -> Result<TransactionJson, RpcError> {
    let tx = decoded(&pooled.raw, pooled.hash)?;
    Ok(TransactionJson::new(&tx, pooled.hash, pooled.sender, None))
}

async fn by_hash(node: Arc<Node>, (hash,): (B256,)) -> Result<Option<TransactionJson>, RpcError> {
    if let Some(found) = mined(&node, hash)? {
        return Ok(Some(found));
    }
    match node.backend.pooled(hash).await? {
        Some(found) => pooled(&found).map(Some),
        // It may have left the pool for a block since the block was looked for.
        None => mined(&node, hash),
    }
}

fn mined(node: &Node, hash: B256) -> Result<Option<TransactionJson>, RpcError> {
    let view = node.chain.view();
    let Some(placed) = view.transaction(hash)? else { return Ok(None) };
    let Some(head) = view.header(placed.place.number)? else { return Ok(None) };
    blocks::transaction(&head, &placed).map(Some)
}

/// The receipt of a transaction; none while it is in no block.
pub(super) fn receipt(node: &Node, hash: B256) -> Result<Option<ReceiptJson>, RpcError> {
    let view = node.chain.view();
    let Some(placed) = view.transaction(hash)? else { return Ok(None) };
    let Some(head) = view.header(placed.place.number)? else { return Ok(None) };
    blocks::receipt(node, &head, &placed).map(Some)
}

/// The receipt of a transaction, which is waited for if it is about to be there: clients that wait
/// for it look again only when there is another block, and no other comes where nobody else sends.
async fn receipt_soon(node: Arc<Node>, (hash,): (B256,)) -> Result<Option<ReceiptJson>, RpcError> {
    let wait = node.backend.block_wait();
    let found = receipt(&node, hash)?;
    if found.is_some() || wait.is_zero() {
        return Ok(found);
    }
    // ORDER: listens before it looks again, not to miss the block.
    let mut changes = node.chain.subscribe();
    if node.backend.pooled(hash).await?.is_none() {
        return receipt(&node, hash);
    }
    let sealed = async {
        loop {
            if let Some(receipt) = receipt(&node, hash)? {
                return Ok(Some(receipt));
            }
            if let Err(RecvError::Closed) = changes.recv().await {
                return Ok(None);
            }
        }
    };
    tokio::time::timeout(wait, sealed).await.unwrap_or(Ok(None))
}

async fn raw_by_hash(node: Arc<Node>, hash: B256) -> Result<Option<Bytes>, RpcError> {
    if let Some(placed) = node.chain.view().transaction(hash)? {
        return Ok(Some(placed.transaction.raw.into()));
    }
    let pooled = node.backend.pooled(hash).await?;
    Ok(pooled.map(|pooled| pooled.raw.into()))
}

/// A transaction of the block that is being made.
async fn pending(node: &Node, index: u64) -> Result<Option<BlockTransaction>, RpcError> {
    let block = node.pending_block().await?;
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    Ok(block.transactions.into_iter().nth(index))
}

async fn by_index(
    node: Arc<Node>,
    id: BlockId,
    index: u64,
) -> Result<Option<TransactionJson>, RpcError> {
    let view = node.chain.view();
    match node.find(&view, id)? {
        Some(Found::Sealed(head)) => {
            let Ok(index) = u32::try_from(index) else { return Ok(None) };
            let placed = view.placed(Place { number: head.number, index })?;
            placed.map(|placed| blocks::transaction(&head, &placed)).transpose()
        }
        Some(Found::Pending) => {
            let Some(tx) = pending(&node, index).await? else { return Ok(None) };
            let content = decoded(&tx.raw, tx.hash())?;
            Ok(Some(TransactionJson::new(&content, tx.hash(), tx.sender(), None)))
        }
        None => Ok(None),
    }
}

async fn raw_by_index(node: Arc<Node>, id: BlockId, index: u64) -> Result<Option<Bytes>, RpcError> {
    let view = node.chain.view();
    let found = match node.find(&view, id)? {
        Some(Found::Sealed(head)) => match u32::try_from(index) {
            Ok(index) => view.placed(Place { number: head.number, index })?,
            Err(_) => None,
        }
        .map(|placed| placed.transaction),
        Some(Found::Pending) => pending(&node, index).await?,
        None => None,
    };
    Ok(found.map(|tx| tx.raw.into()))
}
