//! What the log adds up to at its end: what may follow, and what awaits an epoch. Pure.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use std::collections::BTreeMap;

use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::{Batch, BatchRef, EpochRecord, LaneId};
use rkyv::{Archive, Deserialize, Serialize};

use super::format::Kind;
use super::{LogError, LogLocation};
use crate::limits::UNORDERED_BATCHES_MAX;

/// A batch that no epoch has ordered yet.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Unordered {
    /// The reference by which an epoch would order it.
    pub batch: BatchRef,
    /// Where it is.
    pub location: LogLocation,
}

/// The end of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The number of the last record; records are numbered from 1 without gaps.
    pub records: u64,
    /// The last epoch.
    pub last_epoch: Option<EpochRecord>,
    /// The sequence number of each lane's last batch.
    pub lanes: BTreeMap<LaneId, u64>,
    /// The batches that no epoch has ordered yet, by lane and sequence number.
    pub unordered: BTreeMap<(LaneId, u64), Unordered>,
    /// How many bytes of a torn record followed the last whole one.
    pub torn_bytes: u64,
}

/// A [`LogEnd`] as the first record of a segment.
#[derive(Debug, Archive, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) last_epoch: Option<EpochRecord>,
    lanes: Vec<(LaneId, u64)>,
    pub(super) unordered: Vec<Unordered>,
}

impl Wire for Summary {
    fn check(&self) -> Result<(), Malformed> {
        self.last_epoch.as_ref().map_or(Ok(()), EpochRecord::check)
    }
}

impl LogEnd {
    /// The body of the summary record of this end.
    pub(super) fn summarize(&self) -> Vec<u8> {
        let summary = Summary {
            last_epoch: self.last_epoch.clone(),
            lanes: self.lanes.iter().map(|(lane, sequence)| (*lane, *sequence)).collect(),
            unordered: self.unordered.values().cloned().collect(),
        };
        codec::encode(&summary)
    }

    /// Takes in a record that was read.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        body: &[u8],
        location: LogLocation,
    ) -> Result<(), LogError> {
        let undecodable = |source| LogError::Undecodable { location, source };
        match kind {
            Kind::Batch => {
                let batch: Batch = codec::decode(body).map_err(undecodable)?;
                let batch = batch.reference(body);
                self.check_batch(&batch)?;
                self.note_batch(batch, location);
            }
            Kind::Epoch => {
                let epoch: EpochRecord = codec::decode(body).map_err(undecodable)?;
                self.check_epoch(&epoch)?;
                self.note_epoch(epoch);
            }
            Kind::Summary => self.restore(codec::decode(body).map_err(undecodable)?),
        }
        self.records += 1;
        Ok(())
    }

    fn restore(&mut self, summary: Summary) {
        self.last_epoch = summary.last_epoch;
        self.lanes = summary.lanes.into_iter().collect();
        let key = |entry: &Unordered| (entry.batch.lane, entry.batch.sequence);
        self.unordered = summary.unordered.into_iter().map(|entry| (key(&entry), entry)).collect();
    }

    /// Whether a batch may come next: it follows its lane's last one.
    pub(super) fn check_batch(&self, batch: &BatchRef) -> Result<(), LogError> {
        if let Some(last) = self.lanes.get(&batch.lane)
            && last.checked_add(1) != Some(batch.sequence)
        {
            let (lane, sequence) = (batch.lane, batch.sequence);
            return Err(LogError::BatchOrder { lane, sequence, last: *last });
        }
        match self.unordered.len() < UNORDERED_BATCHES_MAX {
            true => Ok(()),
            false => Err(LogError::TooManyUnordered),
        }
    }

    pub(super) fn note_batch(&mut self, batch: BatchRef, location: LogLocation) {
        self.lanes.insert(batch.lane, batch.sequence);
        self.unordered.insert((batch.lane, batch.sequence), Unordered { batch, location });
    }

    /// Whether an epoch may come next: it follows the last one, and its batches wait for it.
    pub(super) fn check_epoch(&self, epoch: &EpochRecord) -> Result<(), LogError> {
        check_succession(self.last_epoch.as_ref(), epoch)?;
        for ordered in &epoch.batches {
            let (epoch, lane, sequence) = (epoch.number, ordered.lane, ordered.sequence);
            match self.unordered.get(&(lane, sequence)) {
                None => return Err(LogError::MissingBatch { epoch, lane, sequence }),
                Some(found) if found.batch != *ordered => {
                    return Err(LogError::WrongBatch { epoch, lane, sequence });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn note_epoch(&mut self, epoch: EpochRecord) {
        for batch in &epoch.batches {
            self.unordered.remove(&(batch.lane, batch.sequence));
        }
        self.last_epoch = Some(epoch);
    }
}

/// Whether `epoch` may follow `last`; whatever is first may be any.
pub(super) fn check_succession(
    last: Option<&EpochRecord>,
    epoch: &EpochRecord,
) -> Result<(), LogError> {
    let Some(last) = last else { return Ok(()) };
    let number = epoch.number;
    // Not `next`: a log may say anything, even that its last epoch is the last there can be.
    if last.number.0.checked_add(1) != Some(number.0) {
        return Err(LogError::EpochOrder { epoch: number, last: last.number });
    }
    match epoch.parent == last.digest() {
        true => Ok(()),
        false => Err(LogError::EpochParent { epoch: number }),
    }
}
