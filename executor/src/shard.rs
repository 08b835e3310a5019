//! A partition as its threads share it: the state machine as a monitor, its inbox and its store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use parsec_executor_core::{EpochContext, FinishedEpoch, Partition};
use parsec_protocol::{EpochNumber, PartitionId, Push, Role};
use parsec_storage::Store;
use tokio::sync::watch;

use crate::outgoing::lock;

/// Epochs that may wait in the inbox of a partition.
const EPOCHS_WAITING_MAX: usize = 16;

/// Something that happened to a partition.
pub(crate) enum Event {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Pushes(Vec<Push>),
    Stored(EpochNumber),
}

/// What threads that wait for work look at.
#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    /// A worker left ready transactions behind for another one.
    work_left: bool,
    /// How many workers wait. Waking nobody would cost a system call all the same.
    waiting: usize,
    closed: bool,
}

/// A partition as its threads share it.
pub(crate) struct Shard {
    pub(crate) id: PartitionId,
    pub(crate) core: Mutex<Partition>,
    pub(crate) store: Arc<dyn Store>,
    inbox: Mutex<Inbox>,
    filled: Condvar,
    /// Finished epochs on their way to the store. Filled under the lock of `core`, so that they
    /// are in order; bounded by the sequencer's window of epochs.
    finished: Mutex<VecDeque<FinishedEpoch>>,
    finishing: Condvar,
    closed: AtomicBool,
    /// The last epoch in the store.
    pub(crate) applied: watch::Sender<EpochNumber>,
    /// The last epoch that a power cut can't take back.
    pub(crate) durable: watch::Sender<EpochNumber>,
    /// Whether the graph has as many transactions as it should.
    pub(crate) graph_full: AtomicBool,
    /// There is room for another epoch.
    pub(crate) has_room: tokio::sync::Notify,
}

impl Shard {
    pub(crate) fn new(id: PartitionId, core: Partition, store: Arc<dyn Store>) -> Self {
        let applied = store.applied().epoch;
        Self {
            id,
            core: Mutex::new(core),
            store,
            inbox: Mutex::default(),
            filled: Condvar::new(),
            finished: Mutex::default(),
            finishing: Condvar::new(),
            closed: AtomicBool::new(false),
            applied: watch::Sender::new(applied),
            durable: watch::Sender::new(EpochNumber(0)),
            graph_full: AtomicBool::new(false),
            has_room: tokio::sync::Notify::new(),
        }
    }

    /// Hands an event to the next free worker.
    pub(crate) fn deliver(&self, event: Event) {
        let mut inbox = lock(&self.inbox);
        inbox.events.push_back(event);
        self.notify(inbox);
    }

    /// Tells another worker that there is more ready than this one takes.
    pub(crate) fn leave_work(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.work_left = true;
        self.notify(inbox);
    }

    /// Waits for something to happen, if told so. `None` once closed.
    pub(crate) fn wake(&self, wait: bool) -> Option<()> {
        let mut inbox = lock(&self.inbox);
        while wait && inbox.events.is_empty() && !inbox.work_left && !inbox.closed {
            inbox.waiting += 1;
            inbox = self.filled.wait(inbox).unwrap_or_else(std::sync::PoisonError::into_inner);
            inbox.waiting -= 1;
        }
        inbox.work_left = false;
        (!inbox.closed).then_some(())
    }

    fn notify(&self, inbox: MutexGuard<'_, Inbox>) {
        let somebody_waits = inbox.waiting > 0;
        drop(inbox);
        if somebody_waits {
            self.filled.notify_one();
        }
    }

    /// What has happened since.
    ///
    /// ORDER: called under the lock of `core`, or two workers could take epochs out of the inbox
    /// in their order and bring them into the core in another.
    pub(crate) fn take_events(&self) -> VecDeque<Event> {
        std::mem::take(&mut lock(&self.inbox).events)
    }

    /// Whether the next epoch should wait: too many are in the inbox, or too many transactions
    /// in the graph.
    pub(crate) fn is_full(&self) -> bool {
        let inbox = lock(&self.inbox);
        let waiting = inbox.events.iter().filter(|event| matches!(event, Event::Epoch(..)));
        self.graph_full.load(Ordering::Relaxed) || waiting.count() >= EPOCHS_WAITING_MAX
    }

    /// Hands a finished epoch to the committer. Called under the lock of `core`.
    pub(crate) fn finish(&self, epoch: FinishedEpoch) {
        lock(&self.finished).push_back(epoch);
        self.finishing.notify_one();
    }

    /// The finished epochs, as soon as there are any. Nothing once closed.
    pub(crate) fn take_finished(&self) -> VecDeque<FinishedEpoch> {
        let mut finished = lock(&self.finished);
        while finished.is_empty() && !self.closed.load(Ordering::Acquire) {
            finished =
                self.finishing.wait(finished).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        std::mem::take(&mut *finished)
    }

    /// Lets all threads of the partition end.
    pub(crate) fn close(&self) {
        lock(&self.inbox).closed = true;
        self.filled.notify_all();
        // ORDER: under the lock, or a committer between its check and its wait would miss it.
        let guard = lock(&self.finished);
        self.closed.store(true, Ordering::Release);
        drop(guard);
        self.finishing.notify_all();
        self.has_room.notify_waiters();
    }
}
