//! Epochs and their batches, put together in the order of the ledger.

use std::collections::BTreeMap;
use std::path::Path;

use parsec_protocol::{Batch, BatchRef, EpochNumber, EpochRecord, LaneId, codec};

use super::end::{Summary, Unordered, check_succession};
use super::format::Kind;
use super::reader::{LogReader, Raw};
use super::{LogError, segments};
use crate::disk::{Disk, StdDisk};
use crate::limits::UNORDERED_BATCHES_MAX;

/// Iterates over the epochs of a log, each with its batches in order.
///
/// Like [`LogReader`], it ends where the log does at the moment, and after an error for good.
#[derive(Debug)]
pub struct Epochs<D: Disk = StdDisk> {
    reader: LogReader<D>,
    /// Epochs before it are read, but not returned.
    first: EpochNumber,
    last: Option<EpochRecord>,
    /// The batches that await their epoch.
    waiting: BTreeMap<(LaneId, u64), (BatchRef, Batch)>,
    /// Whether any record has been read.
    begun: bool,
    failed: bool,
}

impl<D: Disk> Epochs<D> {
    pub(super) fn new(reader: LogReader<D>) -> Self {
        Self {
            reader,
            first: EpochNumber(0),
            last: None,
            waiting: BTreeMap::new(),
            begun: false,
            failed: false,
        }
    }

    /// From an epoch on, in the last segment that begins before it.
    pub(super) fn from_epoch(
        disk: &D,
        directory: &Path,
        first: EpochNumber,
    ) -> Result<Self, LogError> {
        for segment in segments::list(disk, directory)?.into_iter().rev() {
            let path = segments::path(directory, segment);
            let mut reader = LogReader::enter(disk.clone(), Some(directory.into()), path, segment)?;
            let begins_after = match reader.next_raw()? {
                Some(raw) if raw.kind == Kind::Summary => decode_summary(&raw)?.last_epoch,
                _ => None,
            };
            if begins_after.is_none_or(|last| last.number < first) {
                let path = segments::path(directory, segment);
                let reader = LogReader::enter(disk.clone(), Some(directory.into()), path, segment)?;
                return Ok(Self { first, ..Self::new(reader) });
            }
        }
        Err(LogError::UnknownEpoch { epoch: first })
    }

    /// The id of the cluster whose log it is.
    #[must_use]
    pub fn cluster(&self) -> [u8; 32] {
        self.reader.cluster()
    }

    fn next_epoch(&mut self) -> Result<Option<(EpochRecord, Vec<Batch>)>, LogError> {
        while let Some(raw) = self.reader.next_raw()? {
            let begun = std::mem::replace(&mut self.begun, true);
            let location = raw.location;
            let undecodable = |source| LogError::Undecodable { location, source };
            match raw.kind {
                Kind::Batch => self.take_batch(&raw)?,
                Kind::Epoch => {
                    let epoch: EpochRecord = codec::decode(&raw.body).map_err(undecodable)?;
                    check_succession(self.last.as_ref(), &epoch)?;
                    let batches = self.assemble(&epoch)?;
                    self.last = Some(epoch.clone());
                    if epoch.number >= self.first {
                        return Ok(Some((epoch, batches)));
                    }
                }
                Kind::Summary if !begun => self.begin_with(&raw)?,
                Kind::Summary => {}
            }
        }
        Ok(None)
    }

    /// Begins in the middle of a log, with what its summary says about the part before.
    fn begin_with(&mut self, raw: &Raw) -> Result<(), LogError> {
        let summary = decode_summary(raw)?;
        self.last = summary.last_epoch;
        let Some(directory) = self.reader.directory().map(Path::to_path_buf) else { return Ok(()) };
        for Unordered { location, .. } in summary.unordered {
            match LogReader::open_at_on(self.reader.disk().clone(), &directory, location) {
                Ok(mut reader) => {
                    let raw = reader.next_raw()?.ok_or(LogError::NoRecord { location })?;
                    self.take_batch(&raw)?;
                }
                // The log has been cut off at its start. If the batch is ever ordered, that epoch
                // says that it is missing.
                Err(LogError::MissingSegment { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, raw: &Raw) -> Result<(), LogError> {
        let location = raw.location;
        let batch: Batch = codec::decode(&raw.body)
            .map_err(|source| LogError::Undecodable { location, source })?;
        if self.waiting.len() >= UNORDERED_BATCHES_MAX {
            return Err(LogError::TooManyUnordered);
        }
        let reference = batch.reference(&raw.body);
        self.waiting.insert((batch.lane, batch.sequence), (reference, batch));
        Ok(())
    }

    fn assemble(&mut self, epoch: &EpochRecord) -> Result<Vec<Batch>, LogError> {
        let find = |ordered: &BatchRef| {
            let (epoch, lane, sequence) = (epoch.number, ordered.lane, ordered.sequence);
            match self.waiting.remove(&(lane, sequence)) {
                None => Err(LogError::MissingBatch { epoch, lane, sequence }),
                Some((found, batch)) if found == *ordered => Ok(batch),
                Some(_) => Err(LogError::WrongBatch { epoch, lane, sequence }),
            }
        };
        epoch.batches.iter().map(find).collect()
    }
}

impl<D: Disk> Iterator for Epochs<D> {
    type Item = Result<(EpochRecord, Vec<Batch>), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_epoch();
        self.failed = next.is_err();
        next.transpose()
    }
}

fn decode_summary(raw: &Raw) -> Result<Summary, LogError> {
    let location = raw.location;
    codec::decode(&raw.body).map_err(|source| LogError::Undecodable { location, source })
}
