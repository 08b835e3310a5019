//! What Ethereum says of a whole block: receipts, their root, and the bloom filter of their logs.

use alloy_consensus::proofs::{calculate_receipt_root, ordered_trie_root_encoded};
use alloy_consensus::{Eip658Value, ReceiptEnvelope, ReceiptWithBloom, TxType};
use alloy_primitives::{Address, B256, Bloom, Log, LogData};
use bytes::Bytes;
use parsec_protocol::{Event, Outcome, Receipt};

/// The receipts of a block, and what its header says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReceipts {
    /// The receipts, in the order of the transactions.
    pub receipts: Vec<ReceiptEnvelope>,
    /// The gas that all transactions used.
    pub gas_used: u64,
    /// The bloom filter of all logs.
    pub bloom: Bloom,
}

impl BlockReceipts {
    /// The receipts of the block of these transactions: payloads with what became of them, in
    /// their order. What was invalid is not in the block, nor in the receipts.
    #[must_use]
    pub fn new<'a>(executed: impl IntoIterator<Item = (&'a Bytes, &'a Receipt)>) -> Self {
        let mut block = Self { receipts: Vec::new(), gas_used: 0, bloom: Bloom::ZERO };
        let included = executed.into_iter().filter(|(_, receipt)| is_included(receipt));
        for (payload, receipt) in included {
            block.gas_used += receipt.work;
            let receipt = envelope(kind(payload), receipt, block.gas_used);
            block.bloom |= *receipt.logs_bloom();
            block.receipts.push(receipt);
        }
        block
    }

    /// The root of the trie of receipts.
    #[must_use]
    pub fn root(&self) -> B256 {
        calculate_receipt_root(&self.receipts)
    }
}

/// Whether the transaction is in its block: it ran, even if it reverted.
#[must_use]
pub fn is_included(receipt: &Receipt) -> bool {
    matches!(receipt.outcome, Outcome::Committed | Outcome::Reverted(_))
}

/// The type of the transaction with that payload, which must have been admitted.
#[must_use]
pub fn kind(payload: &[u8]) -> TxType {
    payload.first().and_then(|first| TxType::try_from(*first).ok()).unwrap_or(TxType::Legacy)
}

/// The receipt of a transaction of that type, as Ethereum encodes and hashes it. `cumulative` is
/// the gas used by the block up to and with it.
#[must_use]
pub fn envelope(kind: TxType, receipt: &Receipt, cumulative: u64) -> ReceiptEnvelope {
    let receipt = alloy_consensus::Receipt {
        status: Eip658Value::Eip658(receipt.is_committed()),
        cumulative_gas_used: cumulative,
        logs: receipt.events.iter().map(log).collect(),
    };
    let receipt = ReceiptWithBloom::from(receipt);
    match kind {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}

/// The log entry that an event is.
///
/// # Panics
/// If the event is not of the Ethereum runtime: its source is no address.
#[must_use]
pub fn log(event: &Event) -> Log {
    let topics = event.topics.iter().map(B256::from).collect();
    let data = LogData::new_unchecked(topics, event.data.clone().into());
    Log { address: Address::from_slice(&event.source), data }
}

/// The bloom filter of events.
#[must_use]
pub fn bloom(events: &[Event]) -> Bloom {
    events.iter().map(log).collect::<Vec<_>>().iter().collect()
}

/// The root of the trie of transactions, given by their payloads.
#[must_use]
pub fn transactions_root(payloads: &[Bytes]) -> B256 {
    ordered_trie_root_encoded(payloads)
}
