//! The thread that writes the index of ids, lazily.

use std::sync::Arc;
use std::time::Instant;

use parsec_protocol::EpochNumber;
use tokio::sync::{mpsc, watch};

use crate::driver::View;
use crate::index::{IdIndex, IndexError, Indexable};
use crate::limits::{INDEX_DELAY, INDEX_IDS_PER_COMMIT};
use crate::stop::Stop;

/// Writes the index, and tells the driver how far it is.
pub(crate) struct Indexer {
    pub(crate) index: Arc<IdIndex>,
    pub(crate) view: Arc<View>,
    pub(crate) indexed: watch::Sender<EpochNumber>,
    pub(crate) stop: Stop,
}

impl Indexer {
    /// Runs until no more epochs can come, and makes durable what it wrote.
    pub(crate) async fn run(self, mut epochs: mpsc::Receiver<Indexable>) {
        if let Err(error) = self.run_until_end(&mut epochs).await {
            self.stop.fail(error);
        }
    }

    async fn run_until_end(
        &self,
        epochs: &mut mpsc::Receiver<Indexable>,
    ) -> Result<(), IndexError> {
        let mut open = true;
        let mut is_done = false;
        while open {
            let mut gathered = Vec::new();
            open = gather(epochs, &mut gathered, is_done).await;
            let settled = self.view.settled();
            let before = self.index.mark()?;
            if gathered.is_empty() && settled.min(before.through) == before.settled {
                // Nothing is new, so every lookup that is under way is good enough.
                self.indexed.send_replace(before.through);
                is_done = before.settled == before.through;
                continue;
            }
            is_done = false;
            let started = Instant::now();
            let index = self.index.clone();
            let adding = tokio::task::spawn_blocking(move || index.add(&gathered, settled));
            let mark = match adding.await {
                Ok(mark) => mark?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            metrics::histogram!("parsec_sequencer_index_seconds").record(started.elapsed());
            // The driver is told of the time before, so that it keeps ids a little longer than the
            // index needs: submissions that asked the index a moment ago need not ask again.
            self.indexed.send_replace(before.through);
            metrics::gauge!("parsec_sequencer_index_behind_epochs")
                .set(behind(self.view.ordered(), mark.through));
        }
        self.index.persist()
    }
}

fn behind(ordered: EpochNumber, indexed: EpochNumber) -> u32 {
    u32::try_from(ordered.0.saturating_sub(indexed.0)).unwrap_or(u32::MAX)
}

/// Gathers epochs for a while, or until there are many ids. Returns whether more can come. If
/// nothing else is to be done, the while begins with the first epoch, however late that comes.
async fn gather(
    epochs: &mut mpsc::Receiver<Indexable>,
    gathered: &mut Vec<Indexable>,
    is_done: bool,
) -> bool {
    let mut ids = 0;
    if is_done {
        let Some(first) = epochs.recv().await else { return false };
        ids += count(&first);
        gathered.push(first);
    }
    let until = tokio::time::Instant::now() + INDEX_DELAY;
    while ids < INDEX_IDS_PER_COMMIT {
        match tokio::time::timeout_at(until, epochs.recv()).await {
            Ok(Some(epoch)) => {
                ids += count(&epoch);
                gathered.push(epoch);
            }
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
    true
}

fn count(epoch: &Indexable) -> usize {
    epoch.batches.iter().map(|batch| batch.entries.len()).sum()
}
