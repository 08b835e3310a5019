//! Log entries.

use alloy_primitives::{Address, B256, Bytes, U64};
use serde::Serialize;

use super::quantity;
use crate::chain::FoundLog;

/// A log entry.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct LogJson {
    pub address: Address,
    pub topics: Vec<B256>,
    pub data: Bytes,
    pub block_number: U64,
    pub transaction_hash: B256,
    pub transaction_index: U64,
    pub block_hash: B256,
    pub block_timestamp: U64,
    pub log_index: U64,
    pub removed: bool,
}

impl LogJson {
    /// A log entry; `removed` if its block was taken back.
    #[must_use]
    pub fn new(found: FoundLog, removed: bool) -> Self {
        Self {
            // Sources of events of the Ethereum runtime are addresses.
            address: Address::try_from(&found.event.source[..]).unwrap_or_default(),
            topics: found.event.topics.iter().map(B256::from).collect(),
            data: Bytes::copy_from_slice(&found.event.data),
            block_number: quantity(found.block.number),
            transaction_hash: found.transaction,
            transaction_index: quantity(found.place.index),
            block_hash: found.block.hash,
            block_timestamp: quantity(found.block.header.timestamp),
            log_index: quantity(found.index),
            removed,
        }
    }
}
