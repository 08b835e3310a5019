//! What Ethereum says of a whole block: receipts, their root, the bloom filter of their logs, and
//! its header.

use alloy_consensus::proofs::{calculate_receipt_root, ordered_trie_root_encoded};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, ReceiptEnvelope, ReceiptWithBloom,
    Transaction as _, TxType,
};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B256, Bloom, Log, LogData, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::EMPTY_ROOT_HASH;
use bytes::Bytes;
use parsec_ethereum::{Block, BlockTransaction, Environment};
use parsec_protocol::{EpochNumber, Event, Outcome, Receipt};
use revm::primitives::hardfork::SpecId;

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
        let included = executed.into_iter().filter(|(_, receipt)| is_included(receipt));
        let mut block = Self { receipts: Vec::new(), gas_used: 0, bloom: Bloom::ZERO };
        included.for_each(|(payload, receipt)| block.push(payload, receipt, None));
        block
    }

    /// The receipts of a block's transactions.
    #[must_use]
    pub fn of(transactions: &[BlockTransaction]) -> Self {
        let mut block = Self { receipts: Vec::new(), gas_used: 0, bloom: Bloom::ZERO };
        for tx in transactions {
            block.push(&tx.raw, &tx.receipt, tx.state_root);
        }
        block
    }

    fn push(&mut self, payload: &Bytes, receipt: &Receipt, state_root: Option<[u8; 32]>) {
        self.gas_used += receipt.work;
        let receipt = envelope(kind(payload), receipt, state_root, self.gas_used);
        self.bloom |= *receipt.logs_bloom();
        self.receipts.push(receipt);
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

/// The receipt of a transaction of that type, as Ethereum encodes and hashes it. With the root of
/// the state after it, it is one from before Byzantium. `cumulative` is the gas used by the block up
/// to and with it.
#[must_use]
pub fn envelope(
    kind: TxType,
    receipt: &Receipt,
    state_root: Option<[u8; 32]>,
    cumulative: u64,
) -> ReceiptEnvelope {
    let succeeded = || Eip658Value::Eip658(receipt.is_committed());
    let receipt = alloy_consensus::Receipt {
        status: state_root.map_or_else(succeeded, |root| Eip658Value::PostState(root.into())),
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
    let data = LogData::new_unchecked(topics, Bytes::copy_from_slice(&event.data).into());
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

/// What is common to the block and those around it, for its header.
#[derive(Debug, Clone)]
pub struct Sealing<'a> {
    /// The rules of the block.
    pub fork: SpecId,
    /// What its transactions saw.
    pub environment: &'a Environment,
    /// The hash of the block before it.
    pub parent: B256,
    /// What stands for the root of the state: Parsec's state digest.
    pub state_root: B256,
    /// The epoch after which the state is the block's.
    pub epoch: EpochNumber,
}

impl Sealing<'_> {
    /// The block of `transactions`, which must all be [included](is_included) in it.
    #[must_use]
    pub fn seal(&self, transactions: Vec<BlockTransaction>) -> Block {
        let receipts = BlockReceipts::of(&transactions);
        let payloads: Vec<Bytes> = transactions.iter().map(|tx| tx.raw.clone()).collect();
        let header = self.header(&receipts, &payloads);
        let mut encoded = Vec::with_capacity(header.length() + 4);
        header.encode(&mut encoded);
        let withdrawals = self.fork.is_enabled_in(SpecId::SHANGHAI).then(Vec::new);
        Block {
            number: header.number,
            epoch: self.epoch,
            hash: keccak256(&encoded).0,
            header: encoded.into(),
            transactions,
            ommers: Vec::new(),
            withdrawals,
        }
    }

    fn header(&self, receipts: &BlockReceipts, payloads: &[Bytes]) -> Header {
        let Environment { number, timestamp, gas_limit, base_fee, coinbase, .. } =
            *self.environment;
        let since = |fork| self.fork.is_enabled_in(fork);
        Header {
            parent_hash: self.parent,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: coinbase,
            state_root: self.state_root,
            transactions_root: transactions_root(payloads),
            receipts_root: receipts.root(),
            logs_bloom: receipts.bloom,
            difficulty: self.environment.difficulty,
            number,
            gas_limit,
            gas_used: receipts.gas_used,
            timestamp,
            mix_hash: self.environment.prevrandao,
            base_fee_per_gas: since(SpecId::LONDON).then_some(base_fee),
            withdrawals_root: since(SpecId::SHANGHAI).then_some(EMPTY_ROOT_HASH),
            blob_gas_used: since(SpecId::CANCUN).then(|| blob_gas(payloads)),
            excess_blob_gas: since(SpecId::CANCUN)
                .then(|| self.environment.excess_blob_gas.unwrap_or_default()),
            parent_beacon_block_root: since(SpecId::CANCUN)
                .then(|| self.environment.parent_beacon_block_root.unwrap_or_default()),
            requests_hash: since(SpecId::PRAGUE).then_some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        }
    }
}

/// The blob gas of all transactions.
fn blob_gas(payloads: &[Bytes]) -> u64 {
    let gas = |raw: &Bytes| {
        let blobs = kind(raw) == TxType::Eip4844;
        blobs.then(|| super::payload::decode(raw).ok()?.blob_gas_used()).flatten().unwrap_or(0)
    };
    payloads.iter().map(gas).sum()
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Position, Topics, Value};

    use super::*;

    fn seal(fork: SpecId, transactions: Vec<BlockTransaction>) -> Block {
        let environment = Environment {
            number: 7,
            timestamp: 1_700_000_000,
            gas_limit: 30_000_000,
            base_fee: 9,
            ..Environment::default()
        };
        let sealing = Sealing {
            fork,
            environment: &environment,
            parent: B256::repeat_byte(1),
            state_root: B256::repeat_byte(2),
            epoch: EpochNumber(12),
        };
        sealing.seal(transactions)
    }

    #[test]
    fn a_header_has_the_fields_of_its_fork_and_hashes_to_the_block() {
        for (fork, fields) in [
            (SpecId::ISTANBUL, 15),
            (SpecId::LONDON, 16),
            (SpecId::SHANGHAI, 17),
            (SpecId::OSAKA, 21),
        ] {
            let block = seal(fork, Vec::new());
            let header = block.decode_header().unwrap();
            let mut rest = &block.header[..];
            let mut list = alloy_rlp::Header::decode_bytes(&mut rest, true).unwrap();
            let mut found = 0;
            while !list.is_empty() {
                alloy_rlp::Header::decode_bytes(&mut list, false).unwrap();
                found += 1;
            }
            assert_eq!(found, fields, "{fork:?}");
            assert_eq!(header.hash_slow().0, block.hash);
            assert_eq!((header.number, header.parent_hash), (7, B256::repeat_byte(1)));
            assert_eq!(header.receipts_root, EMPTY_ROOT_HASH);
        }
    }

    #[test]
    fn roots_gas_and_bloom_are_those_of_the_transactions() {
        let event = Event {
            source: vec![5; 20].into(),
            topics: Topics::from_slice(&[[6; 32]]),
            data: Value::new(),
        };
        let receipt = Receipt {
            id: parsec_protocol::TxId([3; 32]),
            position: Position { epoch: EpochNumber(12), index: 0 },
            attempt: 0,
            outcome: Outcome::Committed,
            work: 30_000,
            output: Value::new(),
            events: vec![event.clone()],
        };
        let raw = Bytes::from_static(&[0xc0]);
        let block = seal(
            SpecId::OSAKA,
            vec![BlockTransaction { raw, sender: [4; 20], receipt, state_root: None }],
        );
        let header = block.decode_header().unwrap();
        assert_eq!(header.gas_used, 30_000);
        assert_eq!(header.logs_bloom, bloom(&[event]));
        assert_ne!(header.receipts_root, EMPTY_ROOT_HASH);
        assert_ne!(header.transactions_root, EMPTY_ROOT_HASH);
    }
}
