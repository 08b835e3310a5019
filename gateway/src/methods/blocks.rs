//! Blocks, their receipts and ommers.

use std::sync::Arc;

use alloy_primitives::{B256, U64};
use parsec_ethereum::Block;

use super::Family;
use crate::chain::{Head, Placed, View};
use crate::node::{Found, Node, decoded};
use crate::rpc::{BlockId, BlockTag, RpcError};
use crate::shape::{
    BlockJson, HeaderJson, Mined, ReceiptJson, TransactionJson, Transactions, quantity,
};

pub(super) fn add(family: &mut Family) {
    family.read("eth_blockNumber", async |node: Arc<Node>, ()| {
        Ok(quantity(node.chain.head().number))
    });
    family.read("eth_getBlockByHash", async |node, (hash, full): (B256, bool)| {
        block(node, BlockId::Hash(hash), full).await
    });
    family.read("eth_getBlockByNumber", async |node, (tag, full): (BlockTag, bool)| {
        block(node, BlockId::Tag(tag), full).await
    });
    family.read("eth_getBlockReceipts", async |node, (id,): (BlockId,)| receipts(node, id).await);
    family.read("eth_getBlockTransactionCountByHash", async |node, (hash,): (B256,)| {
        transaction_count(node, BlockId::Hash(hash)).await
    });
    family.read("eth_getBlockTransactionCountByNumber", async |node, (tag,): (BlockTag,)| {
        transaction_count(node, BlockId::Tag(tag)).await
    });
    family.read("eth_getUncleByBlockHashAndIndex", async |node, (hash, index): (B256, u64)| {
        ommer(&node, BlockId::Hash(hash), index)
    });
    family
        .read("eth_getUncleByBlockNumberAndIndex", async |node, (tag, index): (BlockTag, u64)| {
            ommer(&node, BlockId::Tag(tag), index)
        });
    family.read("eth_getUncleCountByBlockHash", async |node, (hash,): (B256,)| {
        ommer_count(&node, BlockId::Hash(hash))
    });
    family.read("eth_getUncleCountByBlockNumber", async |node, (tag,): (BlockTag,)| {
        ommer_count(&node, BlockId::Tag(tag))
    });
    family.read("eth_getHeaderByHash", async |node, (hash,): (B256,)| {
        header(&node, BlockId::Hash(hash))
    });
    family.read("eth_getHeaderByNumber", async |node, (tag,): (BlockTag,)| {
        header(&node, BlockId::Tag(tag))
    });
}

async fn block(node: Arc<Node>, id: BlockId, full: bool) -> Result<Option<BlockJson>, RpcError> {
    if id == BlockId::Tag(BlockTag::Pending) {
        let block = node.pending_block().await?;
        return pending(&block, full).map(Some);
    }
    let read = move |node: &Node, view: &View| match node.find(view, id)? {
        Some(Found::Sealed(head)) => sealed(view, &head, full).map(Some),
        _ => Ok(None),
    };
    node.read(read).await
}

/// A block of the chain.
pub(super) fn sealed(view: &View, head: &Arc<Head>, full: bool) -> Result<BlockJson, RpcError> {
    let transactions = match full {
        false => Transactions::Hashes(view.hashes(head.number)?),
        true => {
            let placed = view.transactions(head.number)?.unwrap_or_default();
            let all: Result<_, RpcError> =
                placed.iter().map(|placed| transaction(head, placed)).collect();
            Transactions::Full(all?)
        }
    };
    Ok(BlockJson::new(head, transactions))
}

/// A transaction of a block.
pub(super) fn transaction(head: &Head, placed: &Placed) -> Result<TransactionJson, RpcError> {
    let hash = placed.transaction.hash();
    let tx = decoded(&placed.transaction.raw, hash)?;
    let mined = Mined { head, index: placed.place.index };
    Ok(TransactionJson::new(&tx, hash, placed.transaction.sender(), Some(mined)))
}

/// The block that is being made: it has no hash, and its transactions are in no block.
fn pending(block: &Block, full: bool) -> Result<BlockJson, RpcError> {
    let head = Head::of(block)?;
    let transactions = match full {
        false => Transactions::Hashes(block.transactions.iter().map(|tx| tx.hash()).collect()),
        true => {
            let json = |tx: &parsec_ethereum::BlockTransaction| {
                let content = decoded(&tx.raw, tx.hash())?;
                Ok(TransactionJson::new(&content, tx.hash(), tx.sender(), None))
            };
            let all: Result<_, RpcError> = block.transactions.iter().map(json).collect();
            Transactions::Full(all?)
        }
    };
    let header = HeaderJson::pending(&head.header);
    Ok(BlockJson { header, ..BlockJson::new(&head, transactions) })
}

async fn receipts(node: Arc<Node>, id: BlockId) -> Result<Option<Vec<ReceiptJson>>, RpcError> {
    let read = move |node: &Node, view: &View| match node.find(view, id)? {
        Some(Found::Sealed(head)) => receipts_of(node, view, &head).map(Some),
        // Nothing of the pending block has been done yet.
        _ => Ok(None),
    };
    node.read(read).await
}

/// The receipts of a block.
pub(super) fn receipts_of(
    node: &Node,
    view: &View,
    head: &Arc<Head>,
) -> Result<Vec<ReceiptJson>, RpcError> {
    let placed = view.transactions(head.number)?.unwrap_or_default();
    placed.iter().map(|placed| receipt(node, head, placed)).collect()
}

/// The receipt of a transaction of a block.
pub(super) fn receipt(
    node: &Node,
    head: &Arc<Head>,
    placed: &Placed,
) -> Result<ReceiptJson, RpcError> {
    let tx = decoded(&placed.transaction.raw, placed.transaction.hash())?;
    Ok(ReceiptJson::new(head, placed, &tx, node.blob_price(&head.header)))
}

async fn transaction_count(node: Arc<Node>, id: BlockId) -> Result<Option<U64>, RpcError> {
    match node.find(&node.chain.view(), id)? {
        Some(Found::Sealed(head)) => Ok(Some(quantity(head.transactions))),
        Some(Found::Pending) => {
            let count = node.pending_block().await?.transactions.len();
            Ok(Some(U64::from(count)))
        }
        None => Ok(None),
    }
}

fn sealed_or_none(node: &Node, id: BlockId) -> Result<Option<Arc<Head>>, RpcError> {
    match node.find(&node.chain.view(), id)? {
        Some(Found::Sealed(head)) => Ok(Some(head)),
        _ => Ok(None),
    }
}

fn header(node: &Node, id: BlockId) -> Result<Option<HeaderJson>, RpcError> {
    let head = sealed_or_none(node, id)?;
    Ok(head.map(|head| HeaderJson::new(&head.header, head.hash)))
}

fn ommer(node: &Node, id: BlockId, index: u64) -> Result<Option<BlockJson>, RpcError> {
    let Some(head) = sealed_or_none(node, id)? else { return Ok(None) };
    let raw = usize::try_from(index).ok().and_then(|index| head.ommers.get(index));
    Ok(raw.and_then(|raw| BlockJson::ommer(raw)))
}

fn ommer_count(node: &Node, id: BlockId) -> Result<Option<U64>, RpcError> {
    match node.find(&node.chain.view(), id)? {
        Some(Found::Sealed(head)) => Ok(Some(U64::from(head.ommers.len()))),
        Some(Found::Pending) => Ok(Some(U64::ZERO)),
        None => Ok(None),
    }
}
