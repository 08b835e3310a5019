//! Dispatch: cuts batches into slices, once, and sends every host its part of every epoch.
//!
//! Recent epochs stay in a bounded [`Ring`]; a host that is further behind is sent the log. A host
//! that is slow, or down, holds up nobody here: its own task waits.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::message::PeerMessage;
use parsec_protocol::slice::cut;
use parsec_protocol::transport::{Channel, PeerNetwork};
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, HostSlices, LaneId, NodeId, PartitionMap, Role, Slice,
};
use parsec_storage::log::{LogError, LogReader};
use tokio::sync::{mpsc, watch};

use crate::cache::ReplicatedCache;
use crate::driver::{Ordered, View};
use crate::hosts::{Hosts, LinkState};
use crate::index::Indexable;
use crate::limits::{CATCH_UP_EPOCHS, RING_BYTES_MAX, RING_EPOCHS_MAX};
use crate::stop::Stop;

/// An epoch, cut: for each host its slices of each batch, ready to be sent.
#[derive(Debug)]
pub(crate) struct CutEpoch {
    record: EpochRecord,
    /// One for each host, in the order of hosts.
    hosts: Vec<Vec<PeerMessage>>,
    bytes: usize,
}

/// Cuts batches for the hosts.
#[derive(Debug, Clone)]
pub(crate) struct Cutter {
    pub(crate) lane: LaneId,
    pub(crate) map: PartitionMap,
    pub(crate) hosts: Arc<Hosts>,
}

impl Cutter {
    pub(crate) fn cut<B: std::borrow::Borrow<Batch>>(
        &self,
        record: &EpochRecord,
        batches: &[B],
    ) -> CutEpoch {
        let mut hosts: Vec<Vec<PeerMessage>> = self.hosts.iter().map(|_| Vec::new()).collect();
        let mut bytes = 0;
        let references = record.batches.iter().filter(|reference| reference.lane == self.lane);
        for (reference, batch) in references.zip(batches) {
            let mut slices: Vec<Option<Slice>> =
                cut(batch.borrow(), &self.map).into_iter().map(Some).collect();
            bytes += slices.iter().flatten().map(slice_size).sum::<usize>();
            for (messages, (_, held)) in hosts.iter_mut().zip(self.hosts.iter()) {
                let taken = held.iter().filter_map(|partition| slices[partition.index()].take());
                messages.push(PeerMessage::Slices(HostSlices {
                    lane: reference.lane,
                    sequence: reference.sequence,
                    digest: reference.digest,
                    slices: taken.filter(|slice| !slice.entries.is_empty()).collect(),
                }));
            }
        }
        CutEpoch { record: record.clone(), hosts, bytes }
    }
}

fn slice_size(slice: &Slice) -> usize {
    let size = |role: &Role| match role {
        Role::Home(entry) => entry.size(),
        Role::Participant { accesses, .. } => {
            accesses.iter().map(|(_, access)| 40 + access.key.encoded().len()).sum()
        }
    };
    slice.entries.iter().map(|entry| size(&entry.role)).sum()
}

/// The latest epochs, cut.
#[derive(Debug)]
pub(crate) struct Ring {
    epochs: Mutex<Kept>,
    last: watch::Sender<EpochNumber>,
}

#[derive(Debug, Default)]
struct Kept {
    epochs: VecDeque<Arc<CutEpoch>>,
    bytes: usize,
}

impl Ring {
    /// A ring whose next epoch is the one after `last`.
    pub(crate) fn new(last: EpochNumber) -> Self {
        Self { epochs: Mutex::default(), last: watch::Sender::new(last) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What it lacks is read from the log, so a panic elsewhere does not matter.
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, epoch: CutEpoch) {
        let number = epoch.record.number;
        let mut kept = self.lock();
        kept.bytes += epoch.bytes;
        kept.epochs.push_back(Arc::new(epoch));
        while kept.epochs.len() > RING_EPOCHS_MAX
            || (kept.bytes > RING_BYTES_MAX && kept.epochs.len() > 1)
        {
            let Some(oldest) = kept.epochs.pop_front() else { break };
            kept.bytes -= oldest.bytes;
        }
        drop(kept);
        self.last.send_replace(number);
    }

    fn get(&self, number: EpochNumber) -> Option<Arc<CutEpoch>> {
        let kept = self.lock();
        let first = kept.epochs.front()?.record.number;
        let offset = usize::try_from(number.0.checked_sub(first.0)?).ok()?;
        kept.epochs.get(offset).cloned()
    }
}

/// Cuts what is ordered and hands it to the ring and to the index, until nothing more can come.
pub(crate) fn cut_all(
    cutter: &Cutter,
    mut ordered: mpsc::Receiver<Ordered>,
    ring: &Ring,
    cache: &ReplicatedCache,
    index: &mpsc::Sender<Indexable>,
) {
    while let Some(Ordered { record, batches }) = ordered.blocking_recv() {
        ring.push(cutter.cut(&record, &batches));
        let accesses = batches
            .iter()
            .flat_map(|batch| &batch.entries)
            .flat_map(|entry| entry.footprint.accesses());
        let written = accesses.filter(|access| access.mode.may_change()).map(|access| &access.key);
        cache.forget(written);
        if index.blocking_send(Indexable { record, batches }).is_err() {
            return;
        }
    }
}

/// Sends one host everything it needs.
pub(crate) struct HostSender {
    pub(crate) host: NodeId,
    /// Its place in the order of hosts.
    pub(crate) place: usize,
    pub(crate) network: PeerNetwork,
    pub(crate) link: watch::Receiver<LinkState>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) cutter: Cutter,
    pub(crate) view: Arc<View>,
    pub(crate) log: PathBuf,
    pub(crate) stop: Stop,
}

/// Why sending stops for now.
enum Halt {
    /// The session is over.
    LinkDown,
    /// The log can't be read.
    Log(LogError),
}

impl HostSender {
    /// Sends epochs for as long as there is somebody to receive them.
    pub(crate) async fn run(mut self) {
        loop {
            let begun = |link: &LinkState| link.session.is_some() && link.after.is_some();
            let Ok(link) = self.link.wait_for(begun).await.map(|link| *link) else { return };
            let LinkState { session: Some(session), after: Some(after) } = link else { continue };
            tracing::info!(host = %self.host, %after, "sending epochs");
            match self.serve(session, after).await {
                Halt::LinkDown => {}
                Halt::Log(error) => {
                    return self.stop.fail(format!("the log can't be read: {error}"));
                }
            }
            // Until the link's end is known here as well.
            let ended = |link: &LinkState| link.session != Some(session);
            if self.link.wait_for(ended).await.is_err() {
                return;
            }
        }
    }

    async fn serve(&self, session: u64, after: EpochNumber) -> Halt {
        let mut last = self.ring.last.subscribe();
        let mut link = self.link.clone();
        let mut cursor = after;
        loop {
            let is_there = last.wait_for(|last| *last > cursor);
            let is_over = link.wait_for(|link| link.session != Some(session));
            tokio::select! {
                there = is_there => if there.is_err() { return Halt::LinkDown },
                _ = is_over => return Halt::LinkDown,
            }
            let sent = match self.ring.get(cursor.next()) {
                Some(epoch) => self.send(session, &epoch).await.map(|()| cursor.next()),
                None => self.catch_up(session, cursor).await,
            };
            match sent {
                Ok(through) => cursor = through,
                Err(halt) => return halt,
            }
        }
    }

    async fn send(&self, session: u64, epoch: &CutEpoch) -> Result<(), Halt> {
        let record = PeerMessage::Epoch(epoch.record.clone());
        // ORDER: the slices of an epoch's batches come before the epoch.
        for message in epoch.hosts[self.place].iter().chain([&record]) {
            let sent = self.network.send_on(self.host, session, Channel::Order, message).await;
            sent.map_err(|error| {
                tracing::debug!(host = %self.host, %error, "an epoch could not be sent");
                Halt::LinkDown
            })?;
        }
        Ok(())
    }

    /// Sends from the log what the ring no longer has. Returns the last epoch that was sent.
    async fn catch_up(&self, session: u64, after: EpochNumber) -> Result<EpochNumber, Halt> {
        let (ahead, mut epochs) = mpsc::channel(CATCH_UP_EPOCHS);
        let (cutter, log) = (self.cutter.clone(), self.log.clone());
        let (ring, view) = (self.ring.clone(), self.view.clone());
        let reading = tokio::task::spawn_blocking(move || {
            for epoch in LogReader::epochs_from(&log, after.next())? {
                let (record, batches) = epoch?;
                // The log may end in epochs that are not durable yet.
                let is_over = record.number > view.ordered() || ring.get(record.number).is_some();
                if is_over || ahead.blocking_send(cutter.cut(&record, &batches)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut cursor = after;
        while let Some(epoch) = epochs.recv().await {
            self.send(session, &epoch).await?;
            cursor = epoch.record.number;
        }
        match reading.await {
            Ok(Ok(())) => Ok(cursor),
            Ok(Err(error)) => Err(Halt::Log(error)),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
