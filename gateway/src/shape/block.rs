//! Blocks and headers.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, U64, U256, keccak256};
use alloy_rlp::Decodable as _;
use serde::Serialize;

use super::{TransactionJson, quantity};
use crate::chain::Head;

/// A header.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct HeaderJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_fee_per_gas: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<U64>,
    pub difficulty: U256,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excess_blob_gas: Option<U64>,
    pub extra_data: Bytes,
    pub gas_limit: U64,
    pub gas_used: U64,
    /// None while it is pending, as are `miner` and `nonce`.
    pub hash: Option<B256>,
    pub logs_bloom: Bloom,
    pub miner: Option<Address>,
    pub mix_hash: B256,
    pub nonce: Option<B64>,
    pub number: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_beacon_block_root: Option<B256>,
    pub parent_hash: B256,
    pub receipts_root: B256,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_hash: Option<B256>,
    #[serde(rename = "sha3Uncles")]
    pub uncles_hash: B256,
    pub state_root: B256,
    pub timestamp: U64,
    pub transactions_root: B256,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawals_root: Option<B256>,
}

impl HeaderJson {
    /// A header with its hash.
    #[must_use]
    pub fn new(header: &Header, hash: B256) -> Self {
        Self {
            base_fee_per_gas: header.base_fee_per_gas.map(quantity),
            blob_gas_used: header.blob_gas_used.map(quantity),
            difficulty: header.difficulty,
            excess_blob_gas: header.excess_blob_gas.map(quantity),
            extra_data: header.extra_data.clone(),
            gas_limit: quantity(header.gas_limit),
            gas_used: quantity(header.gas_used),
            hash: Some(hash),
            logs_bloom: header.logs_bloom,
            miner: Some(header.beneficiary),
            mix_hash: header.mix_hash,
            nonce: Some(header.nonce),
            number: quantity(header.number),
            parent_beacon_block_root: header.parent_beacon_block_root,
            parent_hash: header.parent_hash,
            receipts_root: header.receipts_root,
            requests_hash: header.requests_hash,
            uncles_hash: header.ommers_hash,
            state_root: header.state_root,
            timestamp: quantity(header.timestamp),
            transactions_root: header.transactions_root,
            withdrawals_root: header.withdrawals_root,
        }
    }

    /// The header of a block that is still being made.
    #[must_use]
    pub fn pending(header: &Header) -> Self {
        Self { hash: None, miner: None, nonce: None, ..Self::new(header, B256::ZERO) }
    }
}

/// The transactions of a block: whole, or their hashes.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Transactions {
    /// Their hashes.
    Hashes(Vec<B256>),
    /// Whole.
    Full(Vec<TransactionJson>),
}

/// A withdrawal.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct WithdrawalJson {
    pub index: U64,
    pub validator_index: U64,
    pub address: Address,
    pub amount: U64,
}

/// A block.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are those of the Ethereum JSON-RPC specification")]
pub struct BlockJson {
    #[serde(flatten)]
    pub header: HeaderJson,
    pub size: U64,
    /// Not there in an ommer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions: Option<Transactions>,
    pub uncles: Vec<B256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawals: Option<Vec<WithdrawalJson>>,
}

impl BlockJson {
    /// A block with its transactions.
    #[must_use]
    pub fn new(head: &Head, transactions: Transactions) -> Self {
        Self {
            header: HeaderJson::new(&head.header, head.hash),
            size: quantity(head.size),
            transactions: Some(transactions),
            uncles: head.ommers.iter().map(keccak256).collect(),
            withdrawals: head.withdrawals.as_ref().map(|all| withdrawals(all)),
        }
    }

    /// An ommer: a header that is no block's of this chain. None if the bytes are no header.
    #[must_use]
    pub fn ommer(raw: &[u8]) -> Option<Self> {
        let header = Header::decode(&mut &raw[..]).ok()?;
        let size = quantity(u64::try_from(raw.len()).ok()?);
        let header = HeaderJson::new(&header, keccak256(raw));
        Some(Self { header, size, transactions: None, uncles: Vec::new(), withdrawals: None })
    }
}

fn withdrawals(raw: &[bytes::Bytes]) -> Vec<WithdrawalJson> {
    let decoded = raw.iter().filter_map(|raw| Withdrawal::decode(&mut &raw[..]).ok());
    decoded
        .map(|withdrawal| WithdrawalJson {
            index: quantity(withdrawal.index),
            validator_index: quantity(withdrawal.validator_index),
            address: withdrawal.address,
            amount: quantity(withdrawal.amount),
        })
        .collect()
}
