//! The chain of blocks that a cluster's epochs are.
//!
//! An epoch that holds Ethereum transactions is a block: its number is the epoch's
//! ([`EpochRecord::block`]), its randomness the epoch's digest, its `stateRoot` the state digest of
//! the whole cluster after the epoch. Block 0 is the state that the cluster started from.

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_ethereum::{Block, BlockTransaction, Environment};
use parsec_protocol::{EpochNumber, EpochRecord, Key, Receipt, RuntimeId, Value};

use super::block::{Sealing, is_included};
use super::keys;
use super::params::ChainParams;

/// A block that is the next one's parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

impl From<&Block> for Parent {
    fn from(block: &Block) -> Self {
        Self { number: block.number, hash: B256::new(block.hash) }
    }
}

/// Seals the blocks of a cluster. It depends on nothing but the log and what became of it, so that
/// every host, and every replay, seals the same.
#[derive(Debug, Clone)]
pub struct Chronicle {
    params: ChainParams,
}

/// What an epoch's transaction was, and what became of it.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Who sent it, as authenticated.
    pub sender: Bytes,
    /// Its raw bytes.
    pub payload: Bytes,
    /// What became of it.
    pub receipt: Receipt,
}

/// Why an epoch can't be sealed: something is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum ChronicleError {
    #[error("the chain parameters are damaged: {reason}")]
    Params { reason: String },
    #[error("block {found} comes after block {parent}")]
    Gap { parent: u64, found: u64 },
    #[error("the sender of an Ethereum transaction has {bytes} bytes")]
    Sender { bytes: usize },
}

impl Chronicle {
    /// The key whose value [`Chronicle::new`] needs. It does not change after genesis.
    #[must_use]
    pub fn key() -> Key {
        keys::params()
    }

    /// The chronicle of the chain with that id, whose parameters are `params`.
    ///
    /// # Errors
    /// [`ChronicleError::Params`] if the value does not hold parameters.
    pub fn new(chain_id: u64, params: Option<&Value>) -> Result<Self, ChronicleError> {
        let damaged = |error: parsec_protocol::Malformed| ChronicleError::Params {
            reason: error.to_string(),
        };
        let params = match params {
            None => ChainParams::new(chain_id),
            Some(value) => ChainParams::decode(value).map_err(damaged)?,
        };
        Ok(Self { params })
    }

    /// Block 0: the state after the last epoch of the genesis; before the first epoch, if there
    /// is none.
    ///
    /// # Errors
    /// [`ChronicleError::Params`].
    pub fn genesis(
        &self,
        last: Option<&EpochRecord>,
        state: [u8; 32],
    ) -> Result<Block, ChronicleError> {
        let environment = Environment {
            timestamp: last.map_or(0, |record| record.timestamp_ms / 1_000),
            ..self.environment()
        };
        let epoch = last.map_or(EpochNumber(0), |record| record.number);
        self.seal(&environment, B256::ZERO, epoch, state, Vec::new())
    }

    /// The block that an epoch is. `executed` are its Ethereum transactions, in their order,
    /// whatever became of them; `state` is the digest of the whole state after it.
    ///
    /// # Errors
    /// [`ChronicleError`] if something is damaged.
    pub fn block(
        &self,
        parent: &Parent,
        record: &EpochRecord,
        state: [u8; 32],
        executed: impl IntoIterator<Item = Executed>,
    ) -> Result<Block, ChronicleError> {
        if record.block != parent.number + 1 {
            return Err(ChronicleError::Gap { parent: parent.number, found: record.block });
        }
        let included = executed.into_iter().filter(|executed| is_included(&executed.receipt));
        let transactions = included.map(|Executed { sender, payload, receipt }| {
            let bytes = sender.len();
            let sender =
                Address::try_from(&sender[..]).map_err(|_| ChronicleError::Sender { bytes })?;
            Ok(BlockTransaction { raw: payload, sender: sender.into(), receipt, state_root: None })
        });
        let transactions = transactions.collect::<Result<Vec<_>, ChronicleError>>()?;
        let environment = Environment {
            number: record.block,
            timestamp: record.timestamp_ms / 1_000,
            prevrandao: B256::new(record.digest()),
            ..self.environment()
        };
        self.seal(&environment, parent.hash, record.number, state, transactions)
    }

    /// What the next block's transactions will see of it, as far as it is known.
    #[must_use]
    pub fn pending(&self, parent: &Parent, timestamp: u64) -> Environment {
        Environment { number: parent.number + 1, timestamp, ..self.environment() }
    }

    fn environment(&self) -> Environment {
        Environment {
            gas_limit: self.params.gas_limit,
            base_fee: self.params.base_fee,
            coinbase: Address::new(self.params.coinbase),
            excess_blob_gas: Some(0),
            ..Environment::default()
        }
    }

    fn seal(
        &self,
        environment: &Environment,
        parent: B256,
        epoch: EpochNumber,
        state: [u8; 32],
        transactions: Vec<BlockTransaction>,
    ) -> Result<Block, ChronicleError> {
        let fork = self.params.fork_at(environment.number, environment.timestamp);
        let fork = fork.map_err(|error| ChronicleError::Params { reason: error.to_string() })?.spec;
        let sealing = Sealing { fork, environment, parent, state_root: B256::new(state), epoch };
        Ok(sealing.seal(transactions))
    }
}

/// Whether an epoch is a block.
#[must_use]
pub fn is_block(record: &EpochRecord) -> bool {
    record.batches.iter().any(|batch| batch.calls(RuntimeId::EVM))
}

#[cfg(test)]
mod tests {
    use alloy_trie::EMPTY_ROOT_HASH;
    use parsec_protocol::{BatchRef, ErrorCode, LaneId, Outcome, Position, ShortBytes, TxId};

    use super::*;

    fn record(number: u64, block: u64) -> EpochRecord {
        let batch = BatchRef {
            lane: LaneId(0),
            sequence: number,
            digest: [1; 32],
            transactions: 2,
            runtimes: 1 << RuntimeId::EVM.0,
        };
        EpochRecord {
            number: EpochNumber(number),
            timestamp_ms: 5_999,
            block,
            parent: [2; 32],
            batches: vec![batch],
        }
    }

    fn executed(outcome: Outcome, index: u32) -> Executed {
        let receipt = Receipt {
            id: TxId([4; 32]),
            position: Position { epoch: EpochNumber(3), index },
            attempt: 0,
            outcome,
            work: 21_000,
            output: ShortBytes::new(),
            events: Vec::new(),
        };
        Executed { sender: vec![7; 20].into(), payload: Bytes::from_static(&[0xc0]), receipt }
    }

    #[test]
    fn blocks_chain_and_hold_what_ran() {
        let chronicle = Chronicle::new(9, None).unwrap();
        let genesis = chronicle.genesis(Some(&record(2, 0)), [5; 32]).unwrap();
        let header = genesis.decode_header().unwrap();
        assert_eq!((header.number, header.timestamp, genesis.epoch), (0, 5, EpochNumber(2)));
        assert_eq!(header.state_root, B256::new([5; 32]));

        let outcomes = [
            Outcome::Committed,
            Outcome::Invalid(ErrorCode::NonceTooHigh),
            Outcome::Reverted(ErrorCode::Refused),
        ];
        let all = (0..).zip(outcomes).map(|(index, outcome)| executed(outcome, index));
        let record = record(3, 1);
        assert!(is_block(&record));
        let block = chronicle.block(&(&genesis).into(), &record, [6; 32], all).unwrap();
        let header = block.decode_header().unwrap();
        assert_eq!(header.parent_hash.0, genesis.hash);
        assert_eq!(header.mix_hash.0, record.digest());
        assert_eq!((block.transactions.len(), header.gas_used), (2, 42_000));
        assert_ne!(header.transactions_root, EMPTY_ROOT_HASH);
    }

    #[test]
    fn a_gap_is_refused() {
        let chronicle = Chronicle::new(9, None).unwrap();
        let parent = Parent { number: 4, hash: B256::ZERO };
        let gap = chronicle.block(&parent, &record(9, 6), [0; 32], []);
        assert_eq!(gap, Err(ChronicleError::Gap { parent: 4, found: 6 }));
        let sender = Executed { sender: Bytes::new(), ..executed(Outcome::Committed, 0) };
        let nobody = chronicle.block(&parent, &record(9, 5), [0; 32], [sender]);
        assert_eq!(nobody, Err(ChronicleError::Sender { bytes: 0 }));
    }
}
