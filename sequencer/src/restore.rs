//! Taking up the order again where the log ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsec_protocol::message::ClusterId;
use parsec_protocol::{Batch, EpochNumber, LaneId};
use parsec_sequencer_core::{HomeChooser, LaneOptions, Orderer, SingleLedger};
use parsec_storage::log::{LogEnd, LogError, LogOptions, LogReader, LogWriter, Record};

use crate::index::{IdIndex, IndexError, Indexable, Mark};
use crate::limits::INDEX_IDS_PER_COMMIT;

/// Why the order can't be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log can't be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index of ids can't be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log ends before what was durable in it.
    #[error(
        "the log in {} ends with {end}, but the index of ids beside it knows of {indexed}: the log \
         has lost its end, or is not the one that belongs here. Put back the right log", path.display()
    )]
    LogTooShort {
        /// The log.
        path: PathBuf,
        /// Its last epoch.
        end: EpochNumber,
        /// The last epoch that was durable in it.
        indexed: EpochNumber,
    },
}

/// Everything that a sequencer finds in its directory.
pub(crate) struct Restored {
    pub(crate) orderer: Orderer<SingleLedger>,
    pub(crate) writer: LogWriter,
    pub(crate) end: LogEnd,
    pub(crate) index: IdIndex,
    pub(crate) mark: Mark,
}

/// Whose order it is, and how it is to go on.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) lane: LaneId,
    pub(crate) options: LaneOptions,
    pub(crate) homes: HomeChooser,
}

/// Opens the log and the index, brings the index up to the log, and restores the order.
pub(crate) fn restore(
    log: &Path,
    ids: &Path,
    identity: Identity,
) -> Result<Restored, RestoreError> {
    let (writer, end) = LogWriter::open(log, identity.cluster.0, LogOptions::default())?;
    let index = IdIndex::open(ids, identity.cluster, identity.lane)?;
    let before = index.mark()?;
    let last = end.last_epoch.as_ref().map_or_else(EpochNumber::default, |record| record.number);
    if before.through > last {
        let (path, indexed) = (log.to_owned(), before.through);
        return Err(RestoreError::LogTooShort { path, end: last, indexed });
    }
    let Identity { lane, options, homes, .. } = identity;
    let ledger = SingleLedger::new(end.last_epoch.as_ref());
    let mut orderer = Orderer::new(lane, options, homes, ledger, before.settled, before.through);
    orderer.restore_sequence(last_ordered_batch(&end, lane));
    restore_epochs(log, &mut orderer, &index, before, last)?;
    for unordered in end.unordered.values().filter(|unordered| unordered.batch.lane == lane) {
        let location = unordered.location;
        match LogReader::open_at(log, location)?.next().transpose()? {
            Some((_, Record::Batch(batch))) => orderer.restore_batch(Arc::new(batch)),
            _ => return Err(LogError::NoRecord { location }.into()),
        }
    }
    let mark = index.mark()?;
    tracing::info!(%last, settled = %mark.settled, transactions = mark.transactions, "restored");
    Ok(Restored { orderer, writer, end, index, mark })
}

/// The sequence number of the lane's last batch that an epoch orders.
fn last_ordered_batch(end: &LogEnd, lane: LaneId) -> u64 {
    let mut unordered = end.unordered.keys().filter(|(of, _)| *of == lane);
    let first_unordered = unordered.next().map(|(_, sequence)| sequence.saturating_sub(1));
    first_unordered.or_else(|| end.lanes.get(&lane).copied()).unwrap_or(0)
}

/// Restores what is not settled or not indexed, and brings the index up to the log.
fn restore_epochs(
    log: &Path,
    orderer: &mut Orderer<SingleLedger>,
    index: &IdIndex,
    before: Mark,
    last: EpochNumber,
) -> Result<(), RestoreError> {
    let from = before.settled.min(before.through);
    if from >= last {
        return Ok(());
    }
    let mut new = Vec::new();
    let mut ids = 0;
    for epoch in LogReader::epochs_from(log, from.next())? {
        let (record, batches) = epoch?;
        let batches: Vec<Arc<Batch>> = batches.into_iter().map(Arc::new).collect();
        orderer.restore_epoch(&record, batches.clone());
        if record.number > before.through {
            ids += batches.iter().map(|batch| batch.entries.len()).sum::<usize>();
            new.push(Indexable { record, batches });
        }
        if ids >= INDEX_IDS_PER_COMMIT {
            index.add(&std::mem::take(&mut new), before.settled)?;
            ids = 0;
        }
    }
    index.add(&new, before.settled)?;
    Ok(())
}
