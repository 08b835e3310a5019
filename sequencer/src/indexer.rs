//! The thread that writes the index of ids, lazily.

use std::sync::Arc;
use std::time::Instant;

use parsec_protocol::EpochNumber;
use parsec_sequencer_core::limits::INDEX_IDS_PER_WRITE;
use parsec_sequencer_core::{IndexWrite, Indexing};
use tokio::sync::{mpsc, watch};

use crate::driver::{Ordered, View};
use crate::index::{IdIndex, IndexError};
use crate::limits::INDEX_DELAY;
use crate::stop::Stop;

/// Writes the index, and tells the driver how far it is.
pub(crate) struct Indexer {
    pub(crate) index: Arc<IdIndex>,
    pub(crate) indexing: Indexing,
    pub(crate) view: Arc<View>,
    pub(crate) indexed: watch::Sender<EpochNumber>,
    pub(crate) stop: Stop,
}

impl Indexer {
    /// Runs until no more epochs can come, and makes durable what it wrote.
    pub(crate) async fn run(mut self, mut epochs: mpsc::Receiver<Ordered>) {
        if let Err(error) = self.run_until_end(&mut epochs).await {
            self.stop.fail(error);
        }
    }

    async fn run_until_end(
        &mut self,
        epochs: &mut mpsc::Receiver<Ordered>,
    ) -> Result<(), IndexError> {
        let mut open = true;
        while open {
            open = gather(epochs, &mut self.indexing).await;
            if let Some(write) = self.indexing.write(self.view.settled()) {
                self.write(write).await?;
            }
            self.indexed.send_replace(self.indexing.told());
        }
        self.index.persist()
    }

    async fn write(&mut self, write: IndexWrite) -> Result<(), IndexError> {
        let started = Instant::now();
        let (index, mark) = (self.index.clone(), write.mark);
        match tokio::task::spawn_blocking(move || index.write(&write)).await {
            Ok(written) => written?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
        self.indexing.on_written(mark);
        metrics::histogram!("parsec_sequencer_index_seconds").record(started.elapsed());
        metrics::gauge!("parsec_sequencer_index_behind_epochs")
            .set(behind(self.view.ordered(), mark.through));
        Ok(())
    }
}

fn behind(ordered: EpochNumber, indexed: EpochNumber) -> u32 {
    u32::try_from(ordered.0.saturating_sub(indexed.0)).unwrap_or(u32::MAX)
}

/// Gathers epochs for a while, or until there are many ids. Returns whether more can come. If
/// nothing else is to be done, the while begins with the first epoch, however late that comes.
async fn gather(epochs: &mut mpsc::Receiver<Ordered>, indexing: &mut Indexing) -> bool {
    if indexing.is_done() {
        let Some(Ordered { record, batches }) = epochs.recv().await else { return false };
        indexing.on_durable(&record, &batches);
    }
    let until = tokio::time::Instant::now() + INDEX_DELAY;
    while indexing.waiting() < INDEX_IDS_PER_WRITE {
        match tokio::time::timeout_at(until, epochs.recv()).await {
            Ok(Some(Ordered { record, batches })) => indexing.on_durable(&record, &batches),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
    true
}
