//! Transactions.

use alloy_consensus::Transaction as _;
use alloy_eips::eip2930::AccessList;
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, B256, Bytes, U64, U128, U256};
use serde::Serialize;

use super::quantity;
use crate::Transaction;
use crate::chain::Head;

/// A transaction.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct TransactionJson {
    /// None while it is in no block, as are its number, time and index.
    pub block_hash: Option<B256>,
    pub block_number: Option<U64>,
    pub block_timestamp: Option<U64>,
    pub from: Address,
    pub gas: U64,
    pub gas_price: U128,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fee_per_gas: Option<U128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_priority_fee_per_gas: Option<U128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fee_per_blob_gas: Option<U128>,
    pub hash: B256,
    pub input: Bytes,
    pub nonce: U64,
    pub to: Option<Address>,
    pub transaction_index: Option<U64>,
    pub value: U256,
    #[serde(rename = "type")]
    pub kind: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_list: Option<AccessList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_versioned_hashes: Option<Vec<B256>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_list: Option<Vec<SignedAuthorization>>,
    pub v: U128,
    pub r: U256,
    pub s: U256,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y_parity: Option<U64>,
}

/// Where a transaction was executed.
#[derive(Debug, Clone, Copy)]
pub struct Mined<'a> {
    /// The block.
    pub head: &'a Head,
    /// The index in it.
    pub index: u32,
}

impl TransactionJson {
    /// A transaction of that sender, known by that hash: the transactions of accounts that are
    /// impersonated have no signature that would tell either.
    #[must_use]
    pub fn new(tx: &Transaction, hash: B256, sender: Address, mined: Option<Mined<'_>>) -> Self {
        let dynamic = tx.max_priority_fee_per_gas();
        let base_fee = mined.and_then(|mined| mined.head.header.base_fee_per_gas);
        let price = match mined {
            Some(_) => tx.effective_gas_price(base_fee),
            None => tx.max_fee_per_gas(),
        };
        let typed = !matches!(tx, Transaction::Legacy(_));
        let parity = u64::from(tx.signature().v());
        Self {
            block_hash: mined.map(|mined| mined.head.hash),
            block_number: mined.map(|mined| quantity(mined.head.number)),
            block_timestamp: mined.map(|mined| quantity(mined.head.header.timestamp)),
            from: sender,
            gas: quantity(tx.gas_limit()),
            gas_price: U128::from(price),
            max_fee_per_gas: dynamic.map(|_| U128::from(tx.max_fee_per_gas())),
            max_priority_fee_per_gas: dynamic.map(U128::from),
            max_fee_per_blob_gas: tx.max_fee_per_blob_gas().map(U128::from),
            hash,
            input: tx.input().clone(),
            nonce: quantity(tx.nonce()),
            to: tx.to(),
            transaction_index: mined.map(|mined| quantity(mined.index)),
            value: tx.value(),
            kind: quantity(u8::from(tx.tx_type())),
            access_list: tx.access_list().cloned(),
            chain_id: tx.chain_id().map(quantity),
            blob_versioned_hashes: tx.blob_versioned_hashes().map(<[B256]>::to_vec),
            authorization_list: tx.authorization_list().map(<[SignedAuthorization]>::to_vec),
            v: recovery_id(tx, parity),
            r: tx.signature().r(),
            s: tx.signature().s(),
            y_parity: typed.then(|| quantity(parity)),
        }
    }
}

/// The `v` of a signature: of a legacy transaction it names the chain, too (EIP-155).
fn recovery_id(tx: &Transaction, parity: u64) -> U128 {
    let parity = U128::from(parity);
    match (tx, tx.chain_id()) {
        (Transaction::Legacy(_), Some(id)) => {
            U128::from(id) * U128::from(2_u8) + U128::from(35_u8) + parity
        }
        (Transaction::Legacy(_), None) => U128::from(27_u8) + parity,
        _ => parity,
    }
}
