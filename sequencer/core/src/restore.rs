//! Taking up the order again where the log ends.

use std::sync::Arc;

use parsec_protocol::{Batch, EpochNumber, EpochRecord, LaneId};

use crate::{HomeChooser, IndexWrite, Indexing, LaneOptions, Mark, Orderer, SingleLedger, limits};

/// Whose order it is, and how it is to go on.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The lane.
    pub lane: LaneId,
    /// How much it takes.
    pub options: LaneOptions,
    /// Where its transactions run.
    pub homes: HomeChooser,
}

/// What the log adds up to, as far as the order is concerned. All of it is durable.
#[derive(Debug, Clone, Default)]
pub struct LogExtent {
    /// Its last epoch.
    pub last_epoch: Option<EpochRecord>,
    /// The sequence number of the lane's last batch; 0 if it has none.
    pub last_batch: u64,
    /// How many of the lane's batches no epoch orders. They are its last ones.
    pub unordered: u64,
}

/// Why the order can't be taken up again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The log ends before what the index was told is durable in it.
    #[error("the log ends with {end}, but the index of ids knows of {indexed}")]
    LogTooShort {
        /// The log's last epoch.
        end: EpochNumber,
        /// The index's last epoch.
        indexed: EpochNumber,
    },
    /// The epochs that were handed over are not those that were needed.
    #[error("{expected} of the log was to be restored, but {got} was handed over")]
    OtherEpoch {
        /// The epoch that had to come.
        expected: EpochNumber,
        /// The epoch that came.
        got: EpochNumber,
    },
    /// Not all of the log was handed over.
    #[error(
        "the log was handed over through {epoch} and batch {batch}, but it ends with {last_epoch} \
         and batch {last_batch}"
    )]
    Incomplete {
        /// The last epoch that was handed over, or that was not needed.
        epoch: EpochNumber,
        /// The last batch.
        batch: u64,
        /// The log's last epoch.
        last_epoch: EpochNumber,
        /// The log's last batch.
        last_batch: u64,
    },
}

/// The order, taken up again.
#[derive(Debug)]
pub struct Restored {
    /// The order.
    pub orderer: Orderer<SingleLedger>,
    /// What follows for the index.
    pub indexing: Indexing,
}

/// Takes up the order again: call [`Restorer::on_epoch`] with each epoch of the log from
/// [`Restorer::first_epoch`] on, then [`Restorer::on_unordered`] with each of the lane's batches at
/// the end of the log that no epoch orders, then [`Restorer::finish`].
///
/// It brings the index up to the end of the log. What is not settled, or not in the index as it
/// was found, is known to the lane again: so nothing is ordered twice, and whoever asks for it once
/// more is answered.
#[derive(Debug)]
pub struct Restorer {
    lane: LaneId,
    orderer: Orderer<SingleLedger>,
    indexing: Indexing,
    found: Mark,
    /// The last epoch that was handed over, or need not be.
    restored: EpochNumber,
    last: EpochNumber,
    /// The lane's last batch so far.
    batch: u64,
    last_batch: u64,
}

impl Restorer {
    /// Begins with the log's end and the mark of the index.
    ///
    /// # Errors
    /// [`RestoreError::LogTooShort`].
    pub fn new(identity: Identity, log: &LogExtent, found: Mark) -> Result<Self, RestoreError> {
        let last = log.last_epoch.as_ref().map_or(EpochNumber(0), |record| record.number);
        if found.through > last {
            return Err(RestoreError::LogTooShort { end: last, indexed: found.through });
        }
        let Identity { lane, options, homes } = identity;
        let ledger = SingleLedger::new(log.last_epoch.as_ref());
        let mut orderer = Orderer::new(lane, options, homes, ledger, found.settled, found.through);
        let batch = log.last_batch.saturating_sub(log.unordered);
        orderer.restore_sequence(batch);
        Ok(Self {
            lane,
            orderer,
            indexing: Indexing::new(lane, found),
            found,
            restored: found.settled.min(found.through),
            last,
            batch,
            last_batch: log.last_batch,
        })
    }

    /// The first epoch of the log that is needed; `None` if none is.
    #[must_use]
    pub fn first_epoch(&self) -> Option<EpochNumber> {
        (self.restored < self.last).then(|| self.restored.next())
    }

    /// The next epoch of the log, with the batches that it orders (of whatever lanes). Returns what
    /// has to be written to the index before anything else is done, if much has gathered.
    ///
    /// # Errors
    /// [`RestoreError::OtherEpoch`].
    pub fn on_epoch(
        &mut self,
        record: &EpochRecord,
        batches: impl IntoIterator<Item = Batch>,
    ) -> Result<Option<IndexWrite>, RestoreError> {
        let expected = self.restored.next();
        if record.number != expected || expected > self.last {
            return Err(RestoreError::OtherEpoch { expected, got: record.number });
        }
        self.restored = expected;
        let own = batches.into_iter().filter(|batch| batch.lane == self.lane);
        let batches: Vec<Arc<Batch>> = own.map(Arc::new).collect();
        if record.number > self.found.through {
            self.indexing.on_durable(record, &batches);
        }
        self.orderer.restore_epoch(record, batches);
        let is_much = self.indexing.waiting() >= limits::INDEX_IDS_PER_WRITE;
        Ok(is_much.then(|| self.write()).flatten())
    }

    /// The next of the lane's batches that no epoch orders. It will be ordered next: its
    /// transactions may have been promised to clients.
    ///
    /// # Panics
    /// If it is not the lane's next batch.
    pub fn on_unordered(&mut self, batch: Batch) {
        self.batch = batch.sequence;
        self.orderer.restore_batch(Arc::new(batch));
    }

    /// Ends restoring. Returns also what has to be written to the index before the order goes on.
    ///
    /// # Errors
    /// [`RestoreError::Incomplete`].
    pub fn finish(mut self) -> Result<(Restored, Option<IndexWrite>), RestoreError> {
        if self.restored < self.last || self.batch != self.last_batch {
            return Err(RestoreError::Incomplete {
                epoch: self.restored,
                batch: self.batch,
                last_epoch: self.last,
                last_batch: self.last_batch,
            });
        }
        let write = self.write();
        // Nobody has looked anything up yet.
        let indexing = Indexing::new(self.lane, self.indexing.mark());
        Ok((Restored { orderer: self.orderer, indexing }, write))
    }

    /// Nobody is told of the index before restoring has ended, so what is handed out counts as
    /// written.
    fn write(&mut self) -> Option<IndexWrite> {
        let write = self.indexing.write(self.found.settled)?;
        self.indexing.on_written(write.mark);
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::PartitionMap;

    use super::*;

    fn record(number: u64) -> EpochRecord {
        let (number, parent, batches) = (EpochNumber(number), [0; 32], Vec::new());
        EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches }
    }

    fn restorer(last: u64, settled: u64, through: u64) -> Result<Restorer, RestoreError> {
        let homes = HomeChooser::new(PartitionMap::even(2).unwrap());
        let identity = Identity { lane: LaneId(0), options: LaneOptions::default(), homes };
        let log = LogExtent { last_epoch: Some(record(last)), last_batch: 4, unordered: 1 };
        let (settled, through) = (EpochNumber(settled), EpochNumber(through));
        Restorer::new(identity, &log, Mark { through, settled, transactions: 0 })
    }

    fn orphan() -> Batch {
        Batch { lane: LaneId(0), sequence: 4, map_version: 1, entries: Vec::new() }
    }

    #[test]
    fn what_was_durable_and_is_gone_is_an_error() {
        let error = restorer(5, 3, 6).unwrap_err();
        let (end, indexed) = (EpochNumber(5), EpochNumber(6));
        assert_eq!(error, RestoreError::LogTooShort { end, indexed });
        let mut complete = restorer(5, 3, 5).unwrap();
        assert_eq!(complete.first_epoch(), Some(EpochNumber(4)));
        let skipped = complete.on_epoch(&record(5), []);
        let (expected, got) = (EpochNumber(4), EpochNumber(5));
        assert_eq!(skipped, Err(RestoreError::OtherEpoch { expected, got }));
        for number in 4..=5 {
            assert_eq!(complete.on_epoch(&record(number), []), Ok(None));
        }
        assert!(matches!(complete.on_epoch(&record(6), []), Err(RestoreError::OtherEpoch { .. })));
        complete.on_unordered(orphan());
        assert!(complete.finish().is_ok());
    }

    #[test]
    fn all_of_the_log_has_to_be_handed_over() {
        let mut without_its_end = restorer(5, 3, 3).unwrap();
        assert_eq!(without_its_end.on_epoch(&record(4), []), Ok(None));
        without_its_end.on_unordered(orphan());
        assert!(matches!(without_its_end.finish(), Err(RestoreError::Incomplete { .. })));
        let without_orphan = restorer(5, 5, 5).unwrap();
        assert_eq!(without_orphan.first_epoch(), None);
        assert!(matches!(without_orphan.finish(), Err(RestoreError::Incomplete { .. })));
    }
}
