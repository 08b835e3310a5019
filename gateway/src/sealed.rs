//! The pending block of a backend that does not make one.

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header, proofs::ordered_trie_root_encoded};
use alloy_primitives::{B256, Bloom, keccak256};
use alloy_rlp::Encodable as _;
use bytes::Bytes;
use parsec_ethereum::{Block, BlockTransaction, Environment, Pool};
use parsec_protocol::{EpochNumber, Outcome, Position, Receipt, ShortBytes, TxId};

use crate::chain::Head;

/// The block of the pool's executable transactions, as far as it is known before anything was
/// executed: no gas is used, there are no logs, and the state is that of the parent.
pub(crate) fn pending(environment: &Environment, parent: &Head, pool: Pool) -> Block {
    let pooled = pool.pending.into_values().flat_map(std::collections::BTreeMap::into_values);
    let transactions: Vec<BlockTransaction> = pooled
        .map(|pooled| BlockTransaction {
            raw: pooled.raw,
            sender: pooled.sender.0.0,
            receipt: unexecuted(pooled.hash),
            state_root: None,
        })
        .collect();
    let raw: Vec<Bytes> = transactions.iter().map(|tx| tx.raw.clone()).collect();
    let latest = &parent.header;
    let header = Header {
        parent_hash: parent.hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: environment.coinbase,
        state_root: latest.state_root,
        transactions_root: ordered_trie_root_encoded(&raw),
        receipts_root: alloy_consensus::constants::EMPTY_RECEIPTS,
        logs_bloom: Bloom::ZERO,
        difficulty: environment.difficulty,
        number: environment.number,
        gas_limit: environment.gas_limit,
        timestamp: environment.timestamp,
        mix_hash: environment.prevrandao,
        base_fee_per_gas: latest.base_fee_per_gas.map(|_| environment.base_fee),
        withdrawals_root: latest.withdrawals_root,
        blob_gas_used: latest.blob_gas_used.map(|_| 0),
        excess_blob_gas: environment.excess_blob_gas.or(latest.excess_blob_gas),
        parent_beacon_block_root: environment
            .parent_beacon_block_root
            .or(latest.parent_beacon_block_root),
        requests_hash: latest.requests_hash,
        ..Header::default()
    };
    let mut encoded = Vec::with_capacity(header.length());
    header.encode(&mut encoded);
    Block {
        number: header.number,
        epoch: parent.epoch,
        hash: keccak256(&encoded).0,
        header: encoded.into(),
        transactions,
        ommers: Vec::new(),
        withdrawals: parent.withdrawals.as_ref().map(|_| Vec::new()),
    }
}

fn unexecuted(hash: B256) -> Receipt {
    Receipt {
        id: TxId(hash.0),
        position: Position { epoch: EpochNumber(0), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 0,
        output: ShortBytes::new(),
        events: Vec::new(),
    }
}
