//! The serial oracle: what the cluster must have done, found out the plain way.
//!
//! It executes the agreed order on one thread, transaction after transaction, over a map. It
//! shares the runtimes with the executor, because they are the definition of what a payload means,
//! and nothing else: no scheduler, no partitions, no pushes, no store; and it holds transactions to
//! their footprints and their last epochs by itself. Whatever a cluster answers and holds must be
//! equal to what this gives: every receipt, the digest of receipts, and the digest of the state
//! after every epoch.
//!
//! It also refuses what no log may hold: epochs that don't follow one another, batches that the
//! epoch doesn't name, and (if asked to) a transaction that has its last word twice.

mod execute;
mod replay;

use std::collections::{BTreeMap, BTreeSet};

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, Key, Outcome, Position, Receipt, RuntimeId, TxId, Value, codec,
};
use parsec_runtimes::{Runtimes, Sessions};
use parsec_storage::Digest;
use parsec_storage::log::LogError;

pub use replay::{OutcomeCounts, ReplaySummary};

/// Why an order can't be executed. Each one is a bug, or a damaged recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum OracleError {
    #[error("{position}: the host must stop: {reason}")]
    Stopped { position: Position, reason: String },
    #[error("{epoch} does not follow {last}")]
    OutOfOrder { epoch: EpochNumber, last: EpochNumber },
    #[error("{epoch} names another parent than the epoch before it")]
    WrongParent { epoch: EpochNumber },
    #[error("the time of {epoch} is before that of the epoch before it")]
    TimeReversed { epoch: EpochNumber },
    #[error("{epoch} has another block number than what it calls makes it")]
    WrongBlock { epoch: EpochNumber },
    #[error("batch {index} of {epoch} is not the one that the epoch orders")]
    WrongBatch { epoch: EpochNumber, index: usize },
    #[error("{position}: transaction {id} already had its last word at {first}")]
    ExecutedTwice { id: TxId, first: Position, position: Position },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A one-threaded executor of the whole state, in the agreed order.
///
/// **Invariant:** the state digest is the sum over all pairs of the state.
///
/// After an error its state is somewhere inside an epoch; it is of no use then.
pub struct Oracle {
    sessions: Sessions,
    state: BTreeMap<Key, Value>,
    state_digest: Digest,
    receipts_digest: Digest,
    last: Option<EpochRecord>,
    /// Where each transaction had its last word, if that is watched.
    finished: Option<BTreeMap<TxId, Position>>,
    /// Whether clients renew transactions: what had no effect may then be ordered anew.
    renews: bool,
}

impl Oracle {
    /// An oracle over an empty state.
    #[must_use]
    pub fn new(runtimes: &Runtimes) -> Self {
        Self::with_state(runtimes, BTreeMap::new())
    }

    /// An oracle that continues from a state.
    #[must_use]
    pub fn with_state(runtimes: &Runtimes, state: BTreeMap<Key, Value>) -> Self {
        Self {
            sessions: runtimes.sessions(),
            state_digest: state.iter().map(|(key, value)| Digest::of(key, value)).sum(),
            state,
            receipts_digest: Digest::ZERO,
            last: None,
            finished: None,
            renews: false,
        }
    }

    /// From now on, holds it to be an error if a transaction has its last word more than once.
    /// Takes some 100 bytes of memory per transaction.
    #[must_use]
    pub fn watching_ids(mut self) -> Self {
        self.finished = Some(BTreeMap::new());
        self
    }

    /// As [`watching_ids`](Self::watching_ids), where clients renew their transactions: one that was
    /// invalid may be ordered anew.
    #[must_use]
    pub fn watching_renewed_ids(self) -> Self {
        Self { renews: true, ..self.watching_ids() }
    }

    /// Executes an epoch. Returns a receipt for each transaction, strays included, in order.
    ///
    /// # Errors
    /// [`OracleError::OutOfOrder`], [`OracleError::WrongParent`], [`OracleError::TimeReversed`],
    /// [`OracleError::WrongBlock`] and [`OracleError::WrongBatch`] if it is not the epoch that comes
    /// next, before anything is executed; [`OracleError::Stopped`] and [`OracleError::ExecutedTwice`].
    pub fn apply(
        &mut self,
        epoch: &EpochRecord,
        batches: &[Batch],
    ) -> Result<Vec<Receipt>, OracleError> {
        self.check(epoch, batches)?;
        let entropy = epoch.digest();
        let entries = batches.iter().flat_map(|batch| &batch.entries);
        let mut receipts = Vec::new();
        for (index, entry) in (0..).zip(entries) {
            let receipt = self.execute(entry, epoch, &entropy, index)?;
            self.receipts_digest.add(Digest(receipt.digest()));
            self.watch(&receipt)?;
            receipts.push(receipt);
        }
        self.last = Some(epoch.clone());
        Ok(receipts)
    }

    fn check(&self, epoch: &EpochRecord, batches: &[Batch]) -> Result<(), OracleError> {
        let number = epoch.number;
        if let Some(last) = &self.last {
            if number != last.number.next() {
                return Err(OracleError::OutOfOrder { epoch: number, last: last.number });
            }
            if epoch.parent != last.digest() {
                return Err(OracleError::WrongParent { epoch: number });
            }
            if epoch.timestamp_ms < last.timestamp_ms {
                return Err(OracleError::TimeReversed { epoch: number });
            }
            let calls_evm = epoch.batches.iter().any(|batch| batch.calls(RuntimeId::EVM));
            if epoch.block != last.block + u64::from(calls_evm) {
                return Err(OracleError::WrongBlock { epoch: number });
            }
        }
        for index in 0..batches.len().max(epoch.batches.len()) {
            let found = batches.get(index).map(|batch| batch.reference(&codec::encode(batch)));
            if found.as_ref() != epoch.batches.get(index) {
                return Err(OracleError::WrongBatch { epoch: number, index });
            }
        }
        Ok(())
    }

    fn execute(
        &mut self,
        entry: &Entry,
        epoch: &EpochRecord,
        entropy: &[u8; 32],
        index: u32,
    ) -> Result<Receipt, OracleError> {
        let stopped = |reason| {
            let position = Position { epoch: epoch.number, index };
            OracleError::Stopped { position, reason }
        };
        let (sessions, state) = (&mut self.sessions, &self.state);
        let (receipt, changes) =
            execute::execute(sessions, state, entry, epoch, entropy, index).map_err(stopped)?;
        for (key, new) in changes {
            self.state_digest.update(&key, self.state.get(&key), new.as_ref());
            match new {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(receipt)
    }

    fn watch(&mut self, receipt: &Receipt) -> Result<(), OracleError> {
        let Some(finished) = &mut self.finished else { return Ok(()) };
        let (id, position) = (receipt.id, receipt.position);
        let may_come_again = self.renews && matches!(receipt.outcome, Outcome::Invalid(_));
        if !receipt.outcome.is_final() || may_come_again {
            return Ok(());
        }
        match finished.insert(id, position) {
            Some(first) => Err(OracleError::ExecutedTwice { id, first, position }),
            None => Ok(()),
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.state.get(key)
    }

    /// The whole state.
    #[must_use]
    pub fn state(&self) -> &BTreeMap<Key, Value> {
        &self.state
    }

    /// The digest of the state.
    #[must_use]
    pub fn state_digest(&self) -> Digest {
        self.state_digest
    }

    /// The sum of the digests of all receipts so far, strays included.
    #[must_use]
    pub fn receipts_digest(&self) -> Digest {
        self.receipts_digest
    }

    /// The last epoch that was executed; zero if there was none.
    #[must_use]
    pub fn applied(&self) -> EpochNumber {
        self.last.as_ref().map_or(EpochNumber(0), |last| last.number)
    }

    /// The keys at which this state and `other` differ. For the report of a digest that differs.
    #[must_use]
    pub fn differences(&self, other: &BTreeMap<Key, Value>) -> Vec<Key> {
        let keys: BTreeSet<_> = self.state.keys().chain(other.keys()).collect();
        let differ = |key: &&&Key| self.state.get(**key) != other.get(**key);
        keys.iter().filter(differ).map(|key| (*key).clone()).collect()
    }
}

#[cfg(test)]
mod tests;
