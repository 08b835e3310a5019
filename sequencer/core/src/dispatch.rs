//! Cutting epochs for the hosts, and keeping the latest of them.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::slice::cut;
use parsec_protocol::{Batch, EpochNumber, EpochRecord, HostSlices, LaneId, PartitionMap, Slice};

use crate::{Layout, limits};

/// An epoch, cut: for each host its slices of each batch, ready to be sent.
#[derive(Debug)]
pub struct CutEpoch {
    number: EpochNumber,
    record: PeerMessage,
    /// One for each host, in the order of hosts.
    slices: Vec<Vec<PeerMessage>>,
    bytes: usize,
}

impl CutEpoch {
    /// The epoch's number.
    #[must_use]
    pub fn number(&self) -> EpochNumber {
        self.number
    }

    /// What is sent to the host at `place` in the layout.
    ///
    /// ORDER: the slices of an epoch's batches come before the epoch.
    pub fn messages(&self, place: usize) -> impl Iterator<Item = &PeerMessage> {
        self.slices[place].iter().chain([&self.record])
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Cuts epochs for the hosts of a layout.
#[derive(Debug, Clone)]
pub struct Cutter {
    lane: LaneId,
    map: PartitionMap,
    layout: Arc<Layout>,
}

impl Cutter {
    /// A cutter of this lane's batches.
    #[must_use]
    pub fn new(lane: LaneId, map: PartitionMap, layout: Arc<Layout>) -> Self {
        Self { lane, map, layout }
    }

    /// Cuts the batches of the lane that `record` orders. Batches of other lanes are left out:
    /// those lanes send them.
    ///
    /// # Panics
    /// If a batch of the lane is missing.
    #[must_use]
    pub fn cut<B: Borrow<Batch>>(&self, record: &EpochRecord, batches: &[B]) -> CutEpoch {
        let hosts = self.layout.hosts();
        let mut messages: Vec<Vec<PeerMessage>> = hosts.iter().map(|_| Vec::new()).collect();
        let mut bytes = 0;
        let mut own = batches.iter().map(Borrow::borrow).filter(|batch| batch.lane == self.lane);
        for reference in record.batches.iter().filter(|reference| reference.lane == self.lane) {
            let batch = own.next().expect("every batch of the lane is at hand");
            let mut slices: Vec<Option<Slice>> =
                cut(batch, &self.map).into_iter().map(Some).collect();
            bytes += slices.iter().flatten().map(Slice::size).sum::<usize>();
            for (messages, held) in messages.iter_mut().zip(hosts) {
                let taken = held.partitions.iter().filter_map(|p| slices[p.index()].take());
                messages.push(PeerMessage::Slices(HostSlices {
                    lane: reference.lane,
                    sequence: reference.sequence,
                    digest: reference.digest,
                    slices: taken.filter(|slice| !slice.entries.is_empty()).collect(),
                }));
            }
        }
        let number = record.number;
        CutEpoch { number, record: PeerMessage::Epoch(record.clone()), slices: messages, bytes }
    }
}

/// How many of the latest epochs are kept.
#[derive(Debug, Clone, Copy)]
pub struct RingLimits {
    /// Most epochs.
    pub epochs_max: usize,
    /// About the most bytes of them; one epoch is kept however large it is.
    pub bytes_max: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { epochs_max: limits::RING_EPOCHS_MAX, bytes_max: limits::RING_BYTES_MAX }
    }
}

/// The latest epochs, cut, without gaps.
#[derive(Debug)]
pub(crate) struct Ring {
    limits: RingLimits,
    epochs: VecDeque<Arc<CutEpoch>>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn new(limits: RingLimits) -> Self {
        Self { limits, epochs: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, epoch: CutEpoch) {
        self.bytes += epoch.bytes;
        self.epochs.push_back(Arc::new(epoch));
        while self.epochs.len() > self.limits.epochs_max
            || (self.bytes > self.limits.bytes_max && self.epochs.len() > 1)
        {
            let Some(oldest) = self.epochs.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    pub(crate) fn get(&self, number: EpochNumber) -> Option<&Arc<CutEpoch>> {
        let first = self.epochs.front()?.number;
        let offset = usize::try_from(number.0.checked_sub(first.0)?).ok()?;
        self.epochs.get(offset)
    }
}
