//! A partition as its threads share it: the state machine as a monitor, its inbox and its store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use parsec_executor_core::{EpochContext, FinishedEpoch, Partition};
use parsec_protocol::message::PartitionStatus;
use parsec_protocol::{EpochNumber, PartitionId, Push, Role};
use parsec_storage::Store;
use tokio::sync::watch;

use crate::monitor::{Handover, Inbox};

/// Epochs that may wait in the inbox of a partition.
const EPOCHS_WAITING_MAX: usize = 16;

/// Something that happened to a partition.
pub(crate) enum Event {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Pushes(Vec<Push>),
    Stored(EpochNumber),
}

/// A partition as its threads share it.
pub(crate) struct Shard {
    pub(crate) id: PartitionId,
    pub(crate) core: Mutex<Partition>,
    pub(crate) store: Arc<dyn Store>,
    /// Bounded: epochs by [`EPOCHS_WAITING_MAX`], all else by the sequencer's window, because only
    /// ordered transactions make events.
    pub(crate) inbox: Inbox<Event>,
    /// Finished epochs on their way to the store. Filled under the lock of `core`, so that they
    /// are in order; bounded by the sequencer's window of epochs.
    finished: Handover<FinishedEpoch>,
    /// The last epoch in the store.
    pub(crate) applied: watch::Sender<EpochNumber>,
    /// The last epoch that a power cut can't take back.
    pub(crate) durable: watch::Sender<EpochNumber>,
    /// Whether the graph has as many transactions as it should.
    pub(crate) graph_full: AtomicBool,
    /// Whether pushes have to come again.
    pub(crate) pushes_lost: AtomicBool,
}

impl Shard {
    pub(crate) fn new(id: PartitionId, core: Partition, store: Arc<dyn Store>) -> Self {
        let applied = store.applied().epoch;
        Self {
            id,
            core: Mutex::new(core),
            store,
            inbox: Inbox::new(),
            finished: Handover::new(),
            applied: watch::Sender::new(applied),
            durable: watch::Sender::new(EpochNumber(0)),
            graph_full: AtomicBool::new(false),
            pushes_lost: AtomicBool::new(false),
        }
    }

    /// Whether the next epoch should wait: too many are in the inbox, or too many transactions
    /// in the graph.
    pub(crate) fn is_full(&self) -> bool {
        let waiting = || self.inbox.count(|event| matches!(event, Event::Epoch(..)));
        self.graph_full.load(Ordering::Relaxed) || waiting() >= EPOCHS_WAITING_MAX
    }

    /// Hands a finished epoch to the committer. Called under the lock of `core`.
    pub(crate) fn finish(&self, epoch: FinishedEpoch) {
        self.finished.give(epoch);
    }

    /// The finished epochs, as soon as there are any. Nothing once closed.
    pub(crate) fn take_finished(&self) -> VecDeque<FinishedEpoch> {
        self.finished.take()
    }

    /// How far the partition is.
    pub(crate) fn status(&self) -> PartitionStatus {
        PartitionStatus {
            partition: self.id,
            applied: *self.applied.borrow(),
            durable: *self.durable.borrow(),
        }
    }

    /// Waits until the partition has applied an epoch; whether it has.
    pub(crate) async fn wait_for(&self, epoch: EpochNumber) -> bool {
        let mut applied = self.applied.subscribe();
        applied.wait_for(|applied| *applied >= epoch).await.is_ok()
    }

    /// Lets all threads of the partition end.
    pub(crate) fn close(&self) {
        self.inbox.close();
        self.finished.close();
    }
}
