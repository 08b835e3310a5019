//! The executors, for the tasks that share them: the pure [`Followers`], and who waits for what
//! of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::transport::LinkEvent;
use parsec_protocol::{EpochNumber, NodeId, PartitionId};
use parsec_sequencer_core::{AheadOfLog, CutEpoch, Followers, Layout, RingLimits, Step};
use tokio::sync::{Notify, watch};

/// The executors.
#[derive(Debug)]
pub(crate) struct Hosts {
    layout: Arc<Layout>,
    followers: Mutex<Followers>,
    /// For each host, that there may be something to be sent to it.
    ready: Vec<Notify>,
    /// The greatest epoch that every partition has applied.
    applied_by_all: watch::Sender<EpochNumber>,
}

impl Hosts {
    /// The executors of a log that ends with `ordered`.
    pub(crate) fn new(layout: Arc<Layout>, ordered: EpochNumber) -> Self {
        Self {
            ready: layout.hosts().iter().map(|_| Notify::new()).collect(),
            followers: Mutex::new(Followers::new(layout.clone(), ordered, RingLimits::default())),
            layout,
            applied_by_all: watch::Sender::default(),
        }
    }

    /// Which host holds what.
    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The hosts, in order, with their partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &[PartitionId])> {
        self.layout.hosts().iter().map(|held| (held.host, &held.partitions[..]))
    }

    /// The host that holds a partition.
    pub(crate) fn holder(&self, partition: PartitionId) -> Option<NodeId> {
        self.layout.holder(partition)
    }

    /// The greatest epoch that every partition has applied, from now on. It falls when a partition
    /// has lost its store.
    pub(crate) fn applied_by_all(&self) -> watch::Receiver<EpochNumber> {
        self.applied_by_all.subscribe()
    }

    /// A link came up or went down. Returns what has to be sent to the host on the session that
    /// came up. `settled` is the epoch through which every transaction was answered.
    pub(crate) fn on_link(
        &self,
        event: &LinkEvent,
        settled: EpochNumber,
    ) -> Option<(NodeId, u64, PeerMessage)> {
        match *event {
            LinkEvent::Up { node, session } => {
                let message = self.lock().on_link_up(node, session, settled)?;
                tracing::info!(%node, "an executor's link is up");
                Some((node, session, message))
            }
            LinkEvent::Down { node, session, ref reason } => {
                self.lock().on_link_down(node, session);
                tracing::warn!(%node, %reason, "a link is down");
                None
            }
            LinkEvent::Failed { ref node, address, ref reason } => {
                tracing::debug!(?node, %address, %reason, "a link could not come up");
                None
            }
        }
    }

    /// A host said how far its partitions are.
    ///
    /// # Errors
    /// [`AheadOfLog`]: the sequencer has to stop.
    pub(crate) fn on_progress(
        &self,
        host: NodeId,
        session: u64,
        statuses: &[PartitionStatus],
    ) -> Result<(), AheadOfLog> {
        let mut followers = self.lock();
        followers.on_progress(host, session, statuses)?;
        let by_all = followers.applied_by_all();
        // ORDER: what is told stays in the order in which it became true, under the lock.
        self.applied_by_all.send_if_modified(|known| std::mem::replace(known, by_all) != by_all);
        drop(followers);
        self.wake(host);
        Ok(())
    }

    /// The next epoch is ordered and durable.
    pub(crate) fn on_ordered(&self, epoch: CutEpoch) {
        self.lock().on_ordered(epoch);
        self.ready.iter().for_each(Notify::notify_one);
    }

    /// What is to be done for a host next, as soon as there is something. Only one task may wait
    /// for each host.
    pub(crate) async fn next(&self, host: NodeId) -> Option<Step> {
        let place = self.layout.place(host)?;
        loop {
            let step = self.lock().next(host);
            if step.is_some() {
                return step;
            }
            // What happens between looking and waiting leaves a permit.
            self.ready[place].notified().await;
        }
    }

    /// Whether an epoch that was read from the log is to be sent.
    pub(crate) fn take_from_log(&self, host: NodeId, session: u64, number: EpochNumber) -> bool {
        self.lock().take_from_log(host, session, number)
    }

    /// A session can't be sent on any more.
    pub(crate) fn on_send_failed(&self, host: NodeId, session: u64) {
        self.lock().on_send_failed(host, session);
    }

    fn wake(&self, host: NodeId) {
        if let Some(place) = self.layout.place(host) {
            self.ready[place].notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Followers> {
        // A panic inside is a failed assertion of the order, after which everything stops.
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
