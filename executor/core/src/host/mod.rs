//! The state machine of a host: what it tells other hosts, and when.
//!
//! ```text
//!   sequencer ── Slices, Epoch ──▶ Intake ──▶ an epoch for each partition here
//!             ◀─ Progress ──────── on a link that came up at first; then as partitions apply
//!             ◀─ Receipts ──────── of partitions, as they come out; and again ◀─ ResendReceipts
//!
//!   peer      ── Pushes ─────────▶ to the partitions here
//!             ◀─ Pushes ────────── of partitions, as they come out; and again ◀─ Watermarks{resume}
//!             ◀─ Watermarks ────── with `resume` on a link that came up, and by a partition that
//!                                  had no room for pushes; without it as stores sync
//!             ── Watermarks ─────▶ forget what is owed for epochs that the peer has synced
//! ```
//!
//! **Invariants**
//! - What is sent on a link that goes down may be lost. Nobody confirms single messages: when the
//!   link is up again, each side says how far its partitions are, and is sent again whatever lies
//!   after that. So every push reaches a partition that needs it, once at least, and what comes
//!   twice is ignored there.
//! - What is pushed again comes from two sources that leave nothing out between them
//!   (`resend.rs`): the partition for unfinished epochs, its store for finished ones.
//! - Progress says what the store has, never what is only computed; watermarks let a peer forget
//!   only what is synced.
//! - A message counts only on the session that is up: the [`Intake`] forgets slices when a new
//!   session begins, so an epoch of an older one would miss them.
//!
//! The shell reads no further message of the sequencer while a partition here
//! [is full](crate::Partition::is_full). Everything ordered earlier has got in by then, so
//! this holds up nothing that others wait for.

mod output;
mod resend;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::plant::{self, Bug};
use parsec_protocol::transport::Channel;
use parsec_protocol::{EpochNumber, NodeId, PartitionId, Push, Receipt};

pub use self::output::{HostError, HostOutput, Refused};
pub use self::resend::Request;
use self::resend::{Resends, Wish};
use crate::frames::{push_frames_of, receipt_frames_of};
use crate::intake::{Intake, ReadyEpoch};
use crate::routes::{Destination, Routes};

/// The state machine of a host with partitions.
///
/// Call [`Self::poll_output`] after every input until it returns `None`.
#[derive(Debug)]
pub struct Host {
    routes: Arc<Routes>,
    sequencer: NodeId,
    peers: Vec<NodeId>,
    intake: Intake,
    /// The session of each link that is up.
    sessions: BTreeMap<NodeId, u64>,
    /// How far each partition here is.
    statuses: BTreeMap<PartitionId, PartitionStatus>,
    is_progress_due: bool,
    frame_bytes: usize,
    resends: Resends,
    /// Through which epoch each partition, here or elsewhere, has said to be durable.
    durables: BTreeMap<PartitionId, EpochNumber>,
    /// Through which epoch what a partition here owes to another is forgotten.
    pruned: BTreeMap<(PartitionId, PartitionId), EpochNumber>,
    /// Bounded by what one input can cause, because it is emptied after each.
    outputs: VecDeque<HostOutput>,
    is_stopped: bool,
}

impl Host {
    /// A host whose partitions' stores have the epochs told in `applied`.
    ///
    /// The partitions may have ended at different epochs, so they resume one another at once.
    #[must_use]
    pub fn new(
        routes: Arc<Routes>,
        sequencer: NodeId,
        applied: &BTreeMap<PartitionId, EpochNumber>,
    ) -> Self {
        let status = |(partition, applied): (&PartitionId, &EpochNumber)| {
            // What of it survives a power cut is known after the first sync.
            let (partition, applied, durable) = (*partition, *applied, EpochNumber(0));
            (partition, PartitionStatus { partition, applied, durable })
        };
        let mut host = Self {
            peers: routes.peers(),
            routes,
            sequencer,
            intake: Intake::new(applied.values().min().copied().unwrap_or_default()),
            sessions: BTreeMap::new(),
            statuses: applied.iter().map(status).collect(),
            is_progress_due: false,
            frame_bytes: FRAME_BYTES_TARGET,
            resends: Resends::default(),
            durables: BTreeMap::new(),
            pruned: BTreeMap::new(),
            outputs: VecDeque::new(),
            is_stopped: false,
        };
        host.serve(host.routes.node(), true, &host.statuses());
        host
    }

    /// As [`Self::new`] makes one, but with frames of about so many bytes.
    #[must_use]
    pub fn with_frame_bytes(mut self, target: usize) -> Self {
        self.frame_bytes = target;
        self
    }

    /// A link came up. Messages of the session come after this.
    pub fn on_link_up(&mut self, node: NodeId, session: u64) {
        self.end_session(node);
        self.sessions.insert(node, session);
        if node == self.sequencer {
            self.intake.on_link_up();
            self.send_progress();
        }
        if self.peers.contains(&node) {
            let partitions = self.statuses();
            let message = PeerMessage::Watermarks { resume: true, partitions };
            self.send(node, Channel::Exchange, message);
        }
    }

    /// A link went down. What the other side needs again it will say when the link is up.
    pub fn on_link_down(&mut self, node: NodeId, session: u64) {
        if self.sessions.get(&node) == Some(&session) {
            self.end_session(node);
        }
    }

    /// A message arrived.
    ///
    /// # Errors
    /// [`Refused`], if it was ignored.
    pub fn on_message(
        &mut self,
        from: NodeId,
        session: u64,
        message: PeerMessage,
    ) -> Result<(), Refused> {
        if self.sessions.get(&from) != Some(&session) {
            return Err(Refused::Stale);
        }
        let is_sequencer = from == self.sequencer;
        let is_peer = self.peers.contains(&from);
        match message {
            PeerMessage::Slices(slices) if is_sequencer => {
                let taken = self.intake.on_slices(slices);
                self.or_stop(taken);
            }
            PeerMessage::Epoch(record) if is_sequencer => {
                let ready = self.intake.on_epoch(record);
                if let Some(Some(epoch)) = self.or_stop(ready) {
                    self.hand_out(epoch);
                }
            }
            PeerMessage::ResendReceipts { from } if is_sequencer => self.resend_receipts(from),
            PeerMessage::Pushes(mut pushes) if is_peer => {
                pushes.retain(|push| self.statuses.contains_key(&push.to));
                self.on_pushes(pushes);
            }
            PeerMessage::Watermarks { resume, partitions } if is_peer => {
                self.serve(from, resume, &partitions);
            }
            PeerMessage::Slices(_) | PeerMessage::Epoch(_) | PeerMessage::ResendReceipts { .. } => {
                return Err(Refused::NotSequencer);
            }
            PeerMessage::Pushes(_) | PeerMessage::Watermarks { .. } => {
                return Err(Refused::NotExecutor);
            }
            PeerMessage::Progress(_)
            | PeerMessage::Receipts { .. }
            | PeerMessage::Query { .. }
            | PeerMessage::Answer { .. } => return Err(Refused::Unexpected),
        }
        Ok(())
    }

    /// Partitions here pushed something.
    ///
    /// Threads that share a host may send what their partitions make without asking it, by its
    /// [`Routes`].
    pub fn on_pushes(&mut self, mut pushes: Vec<Push>) {
        let routes = self.routes.clone();
        let routed = routes.group(&mut pushes, |destination, group| match destination {
            Destination::Here(partition) => {
                self.emit(HostOutput::Pushes { partition, pushes: group });
            }
            Destination::Peer(node) => self.send_pushes(node, group),
        });
        self.or_stop(routed);
    }

    /// Transactions ran at `partition`.
    ///
    /// Threads that share a host may send receipts without asking it.
    pub fn on_receipts(&mut self, partition: PartitionId, receipts: Vec<Arc<Receipt>>) {
        for receipts in receipt_frames_of(receipts, self.frame_bytes) {
            let message = PeerMessage::Receipts { partition, receipts };
            self.send(self.sequencer, Channel::Order, message);
        }
    }

    /// The store of a partition here has the epochs through `epoch`.
    pub fn on_applied(&mut self, partition: PartitionId, epoch: EpochNumber) {
        let Some(status) = self.statuses.get_mut(&partition) else { return };
        if epoch <= status.applied {
            return;
        }
        status.applied = epoch;
        self.is_progress_due = true;
        for read in self.resends.on_applied(partition, epoch) {
            self.emit(read);
        }
    }

    /// Stores of partitions here were synced: a power cut can't take back their epochs through
    /// those told.
    pub fn on_durable(&mut self, synced: &[(PartitionId, EpochNumber)]) {
        let mut grew = false;
        for (partition, epoch) in synced {
            let Some(status) = self.statuses.get_mut(partition) else { continue };
            grew |= *epoch > status.durable;
            status.durable = status.durable.max(*epoch);
        }
        if !grew {
            return;
        }
        self.is_progress_due = true;
        let partitions = self.statuses();
        for peer in self.peers.clone() {
            let partitions = partitions.clone();
            let message = PeerMessage::Watermarks { resume: false, partitions };
            self.send(peer, Channel::Exchange, message);
        }
        self.serve(self.routes.node(), false, &partitions);
    }

    /// A partition here has lost pushes, because more came early than it had room for, and has
    /// room now: [`Partition::take_pushes_lost`](crate::Partition::take_pushes_lost).
    pub fn on_pushes_lost(&mut self, partition: PartitionId) {
        let Some(status) = self.statuses.get(&partition).cloned() else { return };
        for peer in self.peers.clone() {
            let partitions = vec![status.clone()];
            let message = PeerMessage::Watermarks { resume: true, partitions };
            self.send(peer, Channel::Exchange, message);
        }
        self.resume(&status);
    }

    /// A partition was asked to give again what is unfinished, and is finished through `finished`.
    pub fn on_resumed(&mut self, request: Request, finished: EpochNumber) {
        let applied =
            |partition| self.statuses.get(&partition).map_or(EpochNumber(0), |s| s.applied);
        if let Some(read) = self.resends.on_resumed(request, finished, applied) {
            self.emit(read);
        }
    }

    /// What was asked for by [`HostOutput::ReadOutbox`]; empty if there is nothing more.
    pub fn on_outbox(&mut self, request: Request, pushes: Vec<Push>) {
        let last = pushes.last().map(|push| push.position.epoch);
        let (is_wanted, next) = self.resends.on_outbox(request, last);
        if is_wanted {
            self.on_pushes(pushes);
        }
        next.into_iter().for_each(|read| self.emit(read));
    }

    /// What was asked for by [`HostOutput::ReadReceipts`]; empty if there is nothing more.
    pub fn on_stored_receipts(
        &mut self,
        request: Request,
        epochs: Vec<(EpochNumber, Vec<Receipt>)>,
    ) {
        if let Some((partition, receipts, next)) = self.resends.on_receipts(request, epochs) {
            self.on_receipts(partition, receipts.into_iter().map(Arc::new).collect());
            next.into_iter().for_each(|read| self.emit(read));
        }
    }

    /// Tells the sequencer how far the partitions here are, if that has changed. The shell calls
    /// this soon after [`Self::is_progress_due`], but not for every epoch.
    pub fn report_progress(&mut self) {
        if self.is_progress_due {
            self.send_progress();
        }
    }

    /// The next effect to bring about.
    pub fn poll_output(&mut self) -> Option<HostOutput> {
        self.outputs.pop_front()
    }

    /// Whether there is progress that the sequencer does not know of.
    #[must_use]
    pub fn is_progress_due(&self) -> bool {
        self.is_progress_due
    }

    /// How far the partitions here are.
    #[must_use]
    pub fn statuses(&self) -> Vec<PartitionStatus> {
        self.statuses.values().cloned().collect()
    }

    /// The last epoch that was handed to the partitions here.
    #[must_use]
    pub fn last(&self) -> EpochNumber {
        self.intake.last()
    }

    /// How many streams of pushes or receipts are being sent again.
    #[must_use]
    pub fn resending(&self) -> usize {
        self.resends.len()
    }

    fn end_session(&mut self, node: NodeId) {
        self.sessions.remove(&node);
        let (routes, is_sequencer) = (&self.routes, node == self.sequencer);
        self.resends.forget(|wish| match wish {
            Wish::Pushes { to, .. } => routes.holder(to) == Some(node),
            Wish::Receipts { .. } => is_sequencer,
        });
    }

    fn hand_out(&mut self, epoch: ReadyEpoch) {
        let mut parts = epoch.partitions.into_iter().collect::<BTreeMap<_, _>>();
        for partition in self.statuses.keys().copied().collect::<Vec<_>>() {
            let entries = parts.remove(&partition).unwrap_or_default();
            let context = epoch.context.clone();
            self.emit(HostOutput::Epoch { partition, context, entries });
        }
    }

    /// Pushes again what the partitions of `from` may have lost, and forgets what they have for
    /// good.
    fn serve(&mut self, from: NodeId, resume: bool, theirs: &[PartitionStatus]) {
        for status in theirs {
            if self.routes.holder(status.partition) != Some(from) {
                continue;
            }
            let durable = self.durables.entry(status.partition).or_default();
            let is_early = plant::is(Bug::ForgottenTooEarly);
            let through = if is_early { status.applied } else { status.durable };
            *durable = through.max(*durable);
            if resume {
                self.resume(status);
            }
        }
        self.prune();
    }

    fn resume(&mut self, theirs: &PartitionStatus) {
        let (to, applied) = (theirs.partition, theirs.applied);
        for partition in self.others(to) {
            let pruned = self.pruned.get(&(partition, to)).copied().unwrap_or_default();
            if applied < pruned {
                self.emit(HostOutput::Forgotten { partition: to, applied, pruned });
            }
            let is_late = plant::is(Bug::ResumesOneLate);
            let after = if is_late { applied.next() } else { applied };
            let asked = self.resends.begin(partition, Wish::Pushes { to, after });
            self.emit(asked);
        }
    }

    /// Forgets what is owed for epochs that are durable at the other end.
    ///
    /// A partition that is behind the other end, because it does again what a power cut took back,
    /// comes to owe for epochs that are durable there already. So it forgets no further than it has
    /// applied, and the rest later.
    fn prune(&mut self) {
        let mut grown = Vec::new();
        for (to, durable) in &self.durables {
            for partition in self.others(*to) {
                let through = self.statuses[&partition].applied.min(*durable);
                let pruned = self.pruned.entry((partition, *to)).or_default();
                if through > *pruned {
                    *pruned = through;
                    grown.push(HostOutput::PruneOutbox { partition, to: *to, through });
                }
            }
        }
        grown.into_iter().for_each(|prune| self.emit(prune));
    }

    /// The partitions here, but for one.
    fn others(&self, than: PartitionId) -> Vec<PartitionId> {
        self.statuses.keys().copied().filter(|partition| *partition != than).collect()
    }

    fn resend_receipts(&mut self, from: EpochNumber) {
        if plant::is(Bug::ReceiptsNotResent) {
            return;
        }
        for partition in self.statuses.keys().copied().collect::<Vec<_>>() {
            let asked = self.resends.begin(partition, Wish::Receipts { from });
            self.emit(asked);
        }
    }

    fn send_progress(&mut self) {
        self.is_progress_due = false;
        let progress = PeerMessage::Progress(self.statuses());
        self.send(self.sequencer, Channel::Order, progress);
    }

    fn send_pushes(&mut self, to: NodeId, pushes: Vec<Push>) {
        for frame in push_frames_of(pushes, self.frame_bytes) {
            self.send(to, Channel::Exchange, PeerMessage::Pushes(frame));
        }
    }

    /// Sends a message if the link is up. What is lost if not is asked for when it is.
    fn send(&mut self, to: NodeId, channel: Channel, message: PeerMessage) {
        if let Some(&session) = self.sessions.get(&to) {
            self.emit(HostOutput::Send { to, session, channel, message });
        }
    }

    fn emit(&mut self, output: HostOutput) {
        if !self.is_stopped {
            self.outputs.push_back(output);
        }
    }

    fn or_stop<T>(&mut self, result: Result<T, impl Into<HostError>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.outputs.clear();
                self.emit(HostOutput::Stop(error.into()));
                self.is_stopped = true;
                None
            }
        }
    }
}
