//! What is stored of a block, and under which keys.
//!
//! Everything of a block stands together, in one keyspace, under its number and a kind: what is
//! not a transaction ([`HeadRecord`]), the hashes of the transactions one after the other, what
//! they paid ([`FeeRecord`]), and the transactions in chunks ([`Chunk`]), each under the index of
//! its first.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::B256;
use alloy_rlp::Decodable as _;
use bytes::Bytes;
use parsec_ethereum::{Block, BlockTransaction};
use parsec_protocol::{EpochNumber, Malformed, Wire};
use rkyv::{Archive, Deserialize, Serialize};

use super::error::ChainError;
use super::head::Head;
use super::limits::CHUNK_BYTES_TARGET;
use crate::Transaction;

/// The kinds of records, in their order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Head = 0,
    Hashes = 1,
    Fees = 2,
    Chunk = 3,
}

/// The key of a record. The index is 0 but for chunks.
pub(super) fn key(number: u64, kind: Kind, index: u32) -> [u8; 13] {
    let mut key = [0; 13];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8] = kind as u8;
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What is stored of a [`Head`].
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct HeadRecord {
    epoch: u64,
    hash: [u8; 32],
    header: Bytes,
    size: u64,
    transactions: u32,
    ommers: Vec<Bytes>,
    withdrawals: Option<Vec<Bytes>>,
}

impl HeadRecord {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            epoch: head.epoch.0,
            hash: head.hash.0,
            header: head.raw.clone(),
            size: head.size,
            transactions: head.transactions,
            ommers: head.ommers.clone(),
            withdrawals: head.withdrawals.clone(),
        }
    }

    pub(super) fn into_head(self, number: u64) -> Result<Head, String> {
        let header =
            Header::decode(&mut &self.header[..]).map_err(|error| format!("header: {error}"))?;
        Ok(Head {
            number,
            hash: B256::new(self.hash),
            header,
            raw: self.header,
            epoch: EpochNumber(self.epoch),
            size: self.size,
            transactions: self.transactions,
            ommers: self.ommers,
            withdrawals: self.withdrawals,
        })
    }
}

/// What the transactions of a block paid above the base fee for each unit of gas, cheapest first,
/// and the gas that was bought at that price.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct FeeRecord {
    pub(super) paid: Vec<(u128, u64)>,
}

/// Consecutive transactions of a block.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// The gas that all earlier transactions of the block used.
    pub(super) gas_before: u64,
    /// How many log entries they wrote.
    pub(super) logs_before: u64,
    pub(super) transactions: Vec<BlockTransaction>,
}

impl Wire for HeadRecord {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl Wire for FeeRecord {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl Wire for Chunk {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// A transaction of a block, decoded.
pub(super) fn decode(number: u64, raw: &[u8]) -> Result<Transaction, ChainError> {
    Transaction::decode_2718_exact(raw)
        .map_err(|error| ChainError::Malformed { number, reason: error.to_string() })
}

/// The chunks of a block with the indexes of their first transactions.
pub(super) fn chunks(block: &Block) -> Vec<(u32, Chunk)> {
    let mut chunks = Vec::new();
    let mut chunk = Chunk { gas_before: 0, logs_before: 0, transactions: Vec::new() };
    let (mut first, mut bytes, mut gas, mut logs) = (0, 0, 0, 0);
    for (index, tx) in (0..).zip(&block.transactions) {
        if bytes >= CHUNK_BYTES_TARGET {
            let next = Chunk { gas_before: gas, logs_before: logs, transactions: Vec::new() };
            chunks.push((first, std::mem::replace(&mut chunk, next)));
            (first, bytes) = (index, 0);
        }
        bytes += weight(tx);
        gas += tx.receipt.work;
        logs += u64::try_from(tx.receipt.events.len()).unwrap_or(u64::MAX);
        chunk.transactions.push(tx.clone());
    }
    if !chunk.transactions.is_empty() {
        chunks.push((first, chunk));
    }
    chunks
}

/// About how many bytes a transaction takes.
fn weight(tx: &BlockTransaction) -> usize {
    let events = tx.receipt.events.iter();
    let events: usize = events.map(|event| 60 + 32 * event.topics.len() + event.data.len()).sum();
    100 + tx.raw.len() + tx.receipt.output.len() + events
}

/// What the transactions paid. One that paid less than the base fee, as in a simulation, paid 0.
pub(super) fn fees(head: &Head, decoded: &[Transaction], block: &Block) -> FeeRecord {
    let base_fee = head.header.base_fee_per_gas.unwrap_or(0);
    let paid = decoded.iter().zip(&block.transactions);
    let mut paid: Vec<(u128, u64)> = paid
        .map(|(tx, placed)| (tx.effective_tip_per_gas(base_fee).unwrap_or(0), placed.receipt.work))
        .collect();
    paid.sort_unstable();
    paid.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0 };
        same
    });
    FeeRecord { paid }
}
