//! What is being sent again: pushes that a peer may have lost, receipts that the sequencer may
//! have lost.
//!
//! ```text
//!   wanted ─▶ Asking ── on_resumed(finished) ──▶ Waiting ── applied ≥ finished ──▶ Reading ─┐
//!             the partition gives again what      the store has what      chunk by chunk,   │
//!             its unfinished epochs made          the partition has not   until one is empty└▶ done
//! ```
//!
//! **Invariant:** nothing falls between the two. What an epoch made that was unfinished when the
//! partition was asked, the partition gives again itself; any other is finished, and so in the
//! store before that is read.
//!
//! Bounded: there is one of these for each pair of a partition here and one anywhere, and one for
//! the receipts of each partition here. A newer wish takes the place of an older one.

use std::collections::BTreeMap;

use parsec_protocol::{EpochNumber, PartitionId, Receipt};

use super::HostOutput;
use crate::limits::RESEND_ITEMS;

/// Names what is being sent again, from the question to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request(u64);

/// What is to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Pushes to a partition, for epochs after the one given.
    Pushes { to: PartitionId, after: EpochNumber },
    /// Receipts of epochs from the one given on.
    Receipts { from: EpochNumber },
}

impl Wish {
    /// Whether one takes the place of the other.
    fn is_same_stream(self, other: Self) -> bool {
        match (self, other) {
            (Self::Pushes { to, .. }, Self::Pushes { to: other, .. }) => to == other,
            (Self::Receipts { .. }, Self::Receipts { .. }) => true,
            _ => false,
        }
    }
}

#[derive(Debug)]
enum Stage {
    /// The partition was asked how far it is finished.
    Asking,
    /// For the store to have that epoch.
    Waiting(EpochNumber),
    /// The store was asked.
    Reading,
}

#[derive(Debug)]
struct Resend {
    partition: PartitionId,
    wish: Wish,
    stage: Stage,
}

/// All that is being sent again.
#[derive(Debug, Default)]
pub(super) struct Resends {
    last: u64,
    running: BTreeMap<Request, Resend>,
}

impl Resends {
    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Begins to send again what `partition` made.
    pub(super) fn begin(&mut self, partition: PartitionId, wish: Wish) -> HostOutput {
        self.running
            .retain(|_, resend| resend.partition != partition || !resend.wish.is_same_stream(wish));
        self.last += 1;
        let request = Request(self.last);
        self.running.insert(request, Resend { partition, wish, stage: Stage::Asking });
        match wish {
            Wish::Pushes { to, after } => HostOutput::Resume { request, partition, to, after },
            Wish::Receipts { .. } => HostOutput::ResumeReceipts { request, partition },
        }
    }

    /// Nobody receives any more what has these wishes.
    pub(super) fn forget(&mut self, unwanted: impl Fn(Wish) -> bool) {
        self.running.retain(|_, resend| !unwanted(resend.wish));
    }

    /// The partition gave again what is unfinished, and is finished through `finished`.
    pub(super) fn on_resumed(
        &mut self,
        request: Request,
        finished: EpochNumber,
        applied: impl Fn(PartitionId) -> EpochNumber,
    ) -> Option<HostOutput> {
        let resend = self.running.get_mut(&request)?;
        resend.stage = Stage::Waiting(finished);
        let applied = applied(resend.partition);
        Self::read_if_applied(request, resend, applied)
    }

    /// The store of `partition` has the epochs through `applied`.
    pub(super) fn on_applied(
        &mut self,
        partition: PartitionId,
        applied: EpochNumber,
    ) -> Vec<HostOutput> {
        let own = self.running.iter_mut().filter(|(_, resend)| resend.partition == partition);
        own.filter_map(|(request, resend)| Self::read_if_applied(*request, resend, applied))
            .collect()
    }

    fn read_if_applied(
        request: Request,
        resend: &mut Resend,
        applied: EpochNumber,
    ) -> Option<HostOutput> {
        match resend.stage {
            Stage::Waiting(finished) if finished <= applied => {
                resend.stage = Stage::Reading;
                Some(Self::read(request, resend))
            }
            _ => None,
        }
    }

    fn read(request: Request, resend: &Resend) -> HostOutput {
        let (partition, limit) = (resend.partition, RESEND_ITEMS);
        match resend.wish {
            Wish::Pushes { to, after } => {
                HostOutput::ReadOutbox { request, partition, to, after, limit }
            }
            Wish::Receipts { from } => HostOutput::ReadReceipts { request, partition, from, limit },
        }
    }

    /// A chunk of pushes ends with epoch `last`, or there are no more. Returns whether the chunk is
    /// still wanted, and what comes next.
    pub(super) fn on_outbox(
        &mut self,
        request: Request,
        last: Option<EpochNumber>,
    ) -> (bool, Option<HostOutput>) {
        let Some(resend) = self.running.get_mut(&request) else { return (false, None) };
        let (Wish::Pushes { after, .. }, Some(last)) = (&mut resend.wish, last) else {
            self.running.remove(&request);
            return (true, None);
        };
        *after = last;
        (true, Some(Self::read(request, resend)))
    }

    /// A chunk of receipts came from the store. Returns those that are still wanted, with the
    /// partition that they are from, and what comes next.
    pub(super) fn on_receipts(
        &mut self,
        request: Request,
        epochs: Vec<(EpochNumber, Vec<Receipt>)>,
    ) -> Option<(PartitionId, Vec<Receipt>, Option<HostOutput>)> {
        let resend = self.running.get_mut(&request)?;
        let partition = resend.partition;
        let last = epochs.last().map(|(epoch, _)| *epoch);
        let receipts = epochs.into_iter().flat_map(|(_, receipts)| receipts).collect();
        let (Wish::Receipts { from }, Some(last)) = (&mut resend.wish, last) else {
            self.running.remove(&request);
            return Some((partition, receipts, None));
        };
        *from = last.next();
        Some((partition, receipts, Some(Self::read(request, resend))))
    }
}
