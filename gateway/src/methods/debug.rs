//! `debug_getRaw…`: things as they are hashed.

use std::sync::Arc;

use alloy_consensus::{
    Eip658Value, Receipt, ReceiptEnvelope, ReceiptWithBloom, TxType, Typed2718 as _,
};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Log, LogData};
use alloy_rlp::Header as RlpHeader;

use super::Family;
use crate::chain::{Head, Placed, View};
use crate::node::{Found, Node, decoded};
use crate::rpc::{BlockId, BlockTag, RpcError};

/// The first byte from which on RLP means a list.
const FIRST_OF_LISTS: u8 = 0xc0;

pub(super) fn add(family: &mut Family) {
    // Blocks come from those who made them; none of them was ever found to be bad.
    family.read("debug_getBadBlocks", async |_, ()| Ok(Vec::<()>::new()));
    family.read("debug_getRawHeader", async |node: Arc<Node>, (id,): (BlockId,)| {
        Ok(Bytes::from(existing(&node, &node.chain.view(), id)?.raw.clone()))
    });
    family.read("debug_getRawBlock", async |node: Arc<Node>, (id,): (BlockId,)| {
        node.read(move |node, view| raw_block(view, existing(node, view, id)?.as_ref())).await
    });
    family.read("debug_getRawReceipts", async |node: Arc<Node>, (id,): (BlockId,)| {
        node.read(move |node, view| raw_receipts(view, existing(node, view, id)?.as_ref())).await
    });
}

/// A block of the chain, which must be there.
pub(super) fn existing(node: &Node, view: &View, id: BlockId) -> Result<Arc<Head>, RpcError> {
    match node.find(view, id)? {
        Some(Found::Sealed(head)) => Ok(head),
        Some(Found::Pending) => Err(RpcError::server("the pending block is not sealed yet")),
        None => Err(RpcError::server(match id {
            BlockId::Hash(hash) => format!("block {hash} not found"),
            BlockId::Tag(BlockTag::Number(number)) => format!("block #{number} not found"),
            BlockId::Tag(_) => "block not found".into(),
        })),
    }
}

fn raw_block(view: &View, head: &Head) -> Result<Bytes, RpcError> {
    let placed = view.transactions(head.number)?.unwrap_or_default();
    let mut transactions = Vec::new();
    for placed in &placed {
        let raw = &placed.transaction.raw;
        // A typed transaction is a string in the list, a legacy one a list of its own.
        if raw.first().is_none_or(|first| *first < FIRST_OF_LISTS) {
            RlpHeader { list: false, payload_length: raw.len() }.encode(&mut transactions);
        }
        transactions.extend_from_slice(raw);
    }
    let mut content = head.raw.to_vec();
    put_list(&mut content, &transactions);
    put_list(&mut content, &head.ommers.concat());
    if let Some(withdrawals) = &head.withdrawals {
        put_list(&mut content, &withdrawals.concat());
    }
    let mut block = Vec::with_capacity(content.len() + 8);
    put_list(&mut block, &content);
    Ok(block.into())
}

fn put_list(bytes: &mut Vec<u8>, payload: &[u8]) {
    RlpHeader { list: true, payload_length: payload.len() }.encode(bytes);
    bytes.extend_from_slice(payload);
}

fn raw_receipts(view: &View, head: &Head) -> Result<Vec<Bytes>, RpcError> {
    let placed = view.transactions(head.number)?.unwrap_or_default();
    placed.iter().map(raw_receipt).collect()
}

fn raw_receipt(placed: &Placed) -> Result<Bytes, RpcError> {
    let tx = decoded(&placed.transaction.raw, placed.transaction.hash())?;
    let executed = &placed.transaction.receipt;
    let log = |event: &parsec_protocol::Event| Log {
        // Sources of events of the Ethereum runtime are addresses.
        address: Address::try_from(&event.source[..]).unwrap_or_default(),
        data: LogData::new_unchecked(
            event.topics.iter().map(B256::from).collect(),
            Bytes::copy_from_slice(&event.data),
        ),
    };
    let receipt = ReceiptWithBloom::from(Receipt {
        status: match placed.transaction.state_root {
            Some(root) => Eip658Value::PostState(B256::new(root)),
            None => Eip658Value::Eip658(placed.transaction.succeeded()),
        },
        cumulative_gas_used: placed.gas_before + executed.work,
        logs: executed.events.iter().map(log).collect(),
    });
    let envelope = match TxType::try_from(tx.ty()) {
        Ok(TxType::Eip2930) => ReceiptEnvelope::Eip2930(receipt),
        Ok(TxType::Eip1559) => ReceiptEnvelope::Eip1559(receipt),
        Ok(TxType::Eip4844) => ReceiptEnvelope::Eip4844(receipt),
        Ok(TxType::Eip7702) => ReceiptEnvelope::Eip7702(receipt),
        Ok(TxType::Legacy) | Err(_) => ReceiptEnvelope::Legacy(receipt),
    };
    Ok(envelope.encoded_2718().into())
}
