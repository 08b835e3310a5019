//! Puts together the slices and epoch records that arrive at a host.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_protocol::{EpochNumber, EpochRecord, HostSlices, LaneId, PartitionId, Role, Slice};

use crate::limits::UNORDERED_SLICES_MAX;

/// An epoch as its transactions see it.
#[derive(Debug)]
pub struct EpochContext {
    /// What was agreed on.
    pub record: EpochRecord,
    /// The record's digest.
    pub entropy: [u8; 32],
}

/// For each partition that an epoch concerns, its transactions in order: each with its index in
/// the epoch, and what the partition has to do.
type Parts = Vec<(PartitionId, Vec<(u32, Role)>)>;

/// An epoch of which everything has arrived.
#[derive(Debug)]
pub struct ReadyEpoch {
    /// The epoch.
    pub context: Arc<EpochContext>,
    /// For each partition that it concerns, its transactions in order: each with its index in the
    /// epoch, and what the partition has to do.
    pub partitions: Vec<(PartitionId, Vec<(u32, Role)>)>,
}

/// Why what arrived can't be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// An epoch is missing.
    #[error("epoch {got} came where {expected} was expected")]
    Gap {
        /// The epoch that should have come.
        expected: EpochNumber,
        /// The epoch that came.
        got: EpochNumber,
    },
    /// An epoch does not follow from the one before it: this host and the sequencer disagree
    /// about the order.
    #[error("epoch {0} does not follow from the epoch before it: the histories differ")]
    Forked(EpochNumber),
    /// An epoch came before the slices of one of its batches.
    #[error("epoch {epoch} orders batch {sequence} of lane {}, whose slices did not come", lane.0)]
    NoSlices {
        /// The epoch.
        epoch: EpochNumber,
        /// The lane.
        lane: LaneId,
        /// The batch.
        sequence: u64,
    },
    /// The slices are not of the batch that was ordered.
    #[error("the slices of batch {sequence} of lane {} are of another batch", lane.0)]
    OtherBatch {
        /// The lane.
        lane: LaneId,
        /// The batch.
        sequence: u64,
    },
    /// Too many slices wait for an epoch.
    #[error("more than {UNORDERED_SLICES_MAX} slices came without an epoch")]
    TooMany,
}

/// Puts together the slices and epoch records that arrive at a host.
///
/// **Invariant:** epochs come out in order, without gaps, each once, whatever is sent again.
#[derive(Debug)]
pub struct Intake {
    last: EpochNumber,
    /// The digest of the last epoch, if this host has seen its record.
    last_digest: Option<[u8; 32]>,
    slices: BTreeMap<(LaneId, u64), HostSlices>,
}

impl Intake {
    /// An intake for a host whose partitions all have applied the epochs through `applied`.
    #[must_use]
    pub fn new(applied: EpochNumber) -> Self {
        Self { last: applied, last_digest: None, slices: BTreeMap::new() }
    }

    /// The last epoch that came out.
    #[must_use]
    pub fn last(&self) -> EpochNumber {
        self.last
    }

    /// The link to the sequencer is new: what is needed will be sent again.
    pub fn on_link_up(&mut self) {
        self.slices.clear();
    }

    /// Slices arrived.
    ///
    /// # Errors
    /// [`IntakeError::TooMany`].
    pub fn on_slices(&mut self, slices: HostSlices) -> Result<(), IntakeError> {
        if self.slices.len() >= UNORDERED_SLICES_MAX {
            return Err(IntakeError::TooMany);
        }
        self.slices.insert((slices.lane, slices.sequence), slices);
        Ok(())
    }

    /// An epoch record arrived; returns the epoch, unless it had come out before.
    ///
    /// # Errors
    /// An [`IntakeError`]. The intake is then as it was before, less the slices of the epoch.
    pub fn on_epoch(&mut self, record: EpochRecord) -> Result<Option<ReadyEpoch>, IntakeError> {
        let mut parts = Vec::with_capacity(record.batches.len());
        for batch in &record.batches {
            parts.push(self.slices.remove(&(batch.lane, batch.sequence)));
        }
        if record.number <= self.last {
            return Ok(None);
        }
        if record.number != self.last.next() {
            return Err(IntakeError::Gap { expected: self.last.next(), got: record.number });
        }
        if self.last_digest.is_some_and(|digest| digest != record.parent) {
            return Err(IntakeError::Forked(record.number));
        }
        let partitions = merge(&record, parts)?;
        let entropy = record.digest();
        self.last = record.number;
        self.last_digest = Some(entropy);
        let context = Arc::new(EpochContext { record, entropy });
        Ok(Some(ReadyEpoch { context, partitions }))
    }
}

/// Joins the slices of an epoch's batches into one list for each partition.
fn merge(record: &EpochRecord, parts: Vec<Option<HostSlices>>) -> Result<Parts, IntakeError> {
    let mut partitions: BTreeMap<PartitionId, Vec<(u32, Role)>> = BTreeMap::new();
    let mut first = 0;
    for (batch, slices) in record.batches.iter().zip(parts) {
        let (lane, sequence) = (batch.lane, batch.sequence);
        let slices =
            slices.ok_or(IntakeError::NoSlices { epoch: record.number, lane, sequence })?;
        let in_range = |slice: &Slice| slice.entries.iter().all(|e| e.index < batch.transactions);
        if slices.digest != batch.digest || !slices.slices.iter().all(in_range) {
            return Err(IntakeError::OtherBatch { lane, sequence });
        }
        for slice in slices.slices {
            let entries = partitions.entry(slice.partition).or_default();
            entries
                .extend(slice.entries.into_iter().map(|entry| (first + entry.index, entry.role)));
        }
        first += batch.transactions;
    }
    Ok(partitions.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use parsec_protocol::BatchRef;

    use super::*;

    fn record(number: u64, parent: [u8; 32], sequence: u64) -> EpochRecord {
        let digest = [7; 32];
        let batch = BatchRef { lane: LaneId(0), sequence, digest, transactions: 0, runtimes: 0 };
        let number = EpochNumber(number);
        EpochRecord { number, timestamp_ms: 1, block: 0, parent, batches: vec![batch] }
    }

    fn slices(sequence: u64, digest: [u8; 32]) -> HostSlices {
        HostSlices { lane: LaneId(0), sequence, digest, slices: Vec::new() }
    }

    #[test]
    fn what_is_sent_again_comes_out_once() {
        let mut intake = Intake::new(EpochNumber(0));
        let first = record(1, [0; 32], 1);
        for expected in [true, false] {
            intake.on_slices(slices(1, [7; 32])).unwrap();
            assert_eq!(intake.on_epoch(first.clone()).unwrap().is_some(), expected);
        }
        intake.on_slices(slices(2, [7; 32])).unwrap();
        assert!(intake.on_epoch(record(2, first.digest(), 2)).unwrap().is_some());
        assert_eq!(intake.last(), EpochNumber(2));
    }

    #[test]
    fn gaps_forks_and_other_batches_are_refused() {
        let mut intake = Intake::new(EpochNumber(4));
        assert!(matches!(intake.on_epoch(record(6, [0; 32], 1)), Err(IntakeError::Gap { .. })));
        assert!(matches!(
            intake.on_epoch(record(5, [0; 32], 1)),
            Err(IntakeError::NoSlices { .. })
        ));
        intake.on_slices(slices(1, [8; 32])).unwrap();
        assert!(matches!(
            intake.on_epoch(record(5, [0; 32], 1)),
            Err(IntakeError::OtherBatch { .. })
        ));
        intake.on_slices(slices(1, [7; 32])).unwrap();
        assert!(intake.on_epoch(record(5, [0; 32], 1)).unwrap().is_some());
        intake.on_slices(slices(2, [7; 32])).unwrap();
        assert!(matches!(intake.on_epoch(record(6, [9; 32], 2)), Err(IntakeError::Forked(_))));
    }
}
