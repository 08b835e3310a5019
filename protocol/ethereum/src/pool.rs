//! Transactions that were accepted and are in no block yet.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use bytes::Bytes;

/// A transaction that was accepted and is in no block yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTransaction {
    /// Its hash.
    pub hash: B256,
    /// Who sent it.
    pub sender: Address,
    /// Its nonce.
    pub nonce: u64,
    /// Its raw bytes.
    pub raw: Bytes,
}

/// The transactions of the pool by sender and nonce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Those that can be executed now, or are.
    pub pending: BTreeMap<Address, BTreeMap<u64, PoolTransaction>>,
    /// Those that wait for an earlier nonce.
    pub queued: BTreeMap<Address, BTreeMap<u64, PoolTransaction>>,
}
