//! Taking up the order again where the log ends.

use std::path::{Path, PathBuf};

use parsec_protocol::message::ClusterId;
use parsec_sequencer_core::{Identity, Indexing, LogExtent, Mark, Orderer, Restorer, SingleLedger};
use parsec_storage::log::{LogEnd, LogError, LogOptions, LogReader, LogWriter, Record, Unordered};

use crate::index::{IdIndex, IndexError};

/// Why the order can't be taken up again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log can't be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index of ids can't be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The log and the index do not go together.
    #[error(
        "{source}: the log in {} has lost its end, or is not the one that belongs here. Put back \
         the right log", path.display()
    )]
    Order {
        /// The log.
        path: PathBuf,
        /// What is wrong.
        source: parsec_sequencer_core::RestoreError,
    },
}

/// Everything that a sequencer finds in its directory.
pub(crate) struct Restored {
    pub(crate) orderer: Orderer<SingleLedger>,
    pub(crate) writer: LogWriter,
    pub(crate) end: LogEnd,
    pub(crate) index: IdIndex,
    pub(crate) indexing: Indexing,
}

/// Opens the log and the index, brings the index up to the log, and restores the order.
pub(crate) fn restore(
    log: &Path,
    ids: &Path,
    cluster: ClusterId,
    identity: Identity,
) -> Result<Restored, RestoreError> {
    let (writer, end) = LogWriter::open(log, cluster.0, LogOptions::default())?;
    let index = IdIndex::open(ids, cluster)?;
    let lane = identity.lane;
    let unordered = || end.unordered.values().filter(|unordered| unordered.batch.lane == lane);
    let extent = LogExtent {
        last_epoch: end.last_epoch.clone(),
        last_batch: end.lanes.get(&lane).copied().unwrap_or(0),
        unordered: unordered().count() as u64,
    };
    let failed = |source| RestoreError::Order { path: log.to_owned(), source };
    let mut restorer = Restorer::new(identity, &extent, index.mark()?).map_err(failed)?;
    if let Some(first) = restorer.first_epoch() {
        for epoch in LogReader::epochs_from(log, first)? {
            let (record, batches) = epoch?;
            if let Some(write) = restorer.on_epoch(&record, batches).map_err(failed)? {
                index.write(&write)?;
            }
        }
    }
    for Unordered { location, .. } in unordered() {
        match LogReader::open_at(log, *location)?.next().transpose()? {
            Some((_, Record::Batch(batch))) => restorer.on_unordered(batch),
            _ => return Err(LogError::NoRecord { location: *location }.into()),
        }
    }
    let (restored, write) = restorer.finish().map_err(failed)?;
    write.map_or(Ok(()), |write| index.write(&write))?;
    let Mark { settled, transactions, .. } = restored.indexing.mark();
    tracing::info!(%settled, transactions, "restored");
    Ok(Restored { orderer: restored.orderer, writer, end, index, indexing: restored.indexing })
}
