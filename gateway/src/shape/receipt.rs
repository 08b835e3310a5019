//! Receipts.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bloom, BloomInput, U64, U128};
use serde::Serialize;

use super::{LogJson, quantity};
use crate::Transaction;
use crate::chain::{FoundLog, Head, Placed};
use std::sync::Arc;

/// A receipt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct ReceiptJson {
    pub block_hash: B256,
    pub block_number: U64,
    pub contract_address: Option<Address>,
    pub cumulative_gas_used: U64,
    pub effective_gas_price: U128,
    pub from: Address,
    pub gas_used: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_gas_price: Option<U128>,
    pub logs: Vec<LogJson>,
    pub logs_bloom: Bloom,
    /// Before Byzantium, in the place of the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<B256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<U64>,
    pub to: Option<Address>,
    pub transaction_hash: B256,
    pub transaction_index: U64,
    #[serde(rename = "type")]
    pub kind: U64,
}

impl ReceiptJson {
    /// The receipt of a transaction of a block in which blob gas had that price.
    #[must_use]
    pub fn new(head: &Arc<Head>, placed: &Placed, tx: &Transaction, blob_price: u128) -> Self {
        let receipt = &placed.transaction.receipt;
        let sender = placed.transaction.sender();
        let blob_gas = tx.blob_gas_used();
        Self {
            block_hash: head.hash,
            block_number: quantity(head.number),
            contract_address: tx.to().is_none().then(|| sender.create(tx.nonce())),
            cumulative_gas_used: quantity(placed.gas_before + receipt.work),
            effective_gas_price: U128::from(tx.effective_gas_price(head.header.base_fee_per_gas)),
            from: sender,
            gas_used: quantity(receipt.work),
            blob_gas_used: blob_gas.map(quantity),
            blob_gas_price: blob_gas.map(|_| U128::from(blob_price)),
            logs: logs(head, placed),
            logs_bloom: bloom(placed),
            root: placed.transaction.state_root.map(B256::new),
            status: placed
                .transaction
                .state_root
                .is_none()
                .then(|| quantity(placed.transaction.succeeded())),
            to: tx.to(),
            transaction_hash: placed.transaction.hash(),
            transaction_index: quantity(placed.place.index),
            kind: quantity(u8::from(tx.tx_type())),
        }
    }
}

fn logs(head: &Arc<Head>, placed: &Placed) -> Vec<LogJson> {
    let events = (placed.logs_before..).zip(&placed.transaction.receipt.events);
    let found = events.map(|(index, event)| FoundLog {
        block: Arc::clone(head),
        place: placed.place,
        transaction: placed.transaction.hash(),
        index,
        event: event.clone(),
    });
    found.map(|found| LogJson::new(found, false)).collect()
}

fn bloom(placed: &Placed) -> Bloom {
    let mut bloom = Bloom::ZERO;
    for event in &placed.transaction.receipt.events {
        bloom.accrue(BloomInput::Raw(&event.source));
        event.topics.iter().for_each(|topic| bloom.accrue(BloomInput::Raw(topic)));
    }
    bloom
}
