//! The sequencer: the production order, and what its threads carry to and fro.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::message::{ClientReceipt, PeerMessage, ServerMessage, Verdict};
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, Footprint, LaneId, NodeId, PartitionMap, Receipt, Role, codec,
};
use parsec_sequencer_core::{
    CutEpoch, Cutter, Durability, Followers, HomeChooser, LaneOptions, Layout, Lookup, Orderer,
    Output, Rediscovery, Refused, RingLimits, SingleLedger, Step, Submitted, Tick, Token,
};

use super::{
    Effect, Event, Frame, Parcel, SEQUENCER_NODE, Simulation, Stage, Submission, Task, Work,
};
use crate::agenda::{MICROSECOND, Nanos};

/// The one lane.
const LANE: LaneId = LaneId(0);
/// What the clock shows at the beginning, microseconds since 1970.
const EPOCH_BEGIN: u64 = 1_800_000_000_000_000;
/// Most receipts in one frame to a client, as in production.
const FRAME_RECEIPTS_MAX: usize = 4_096;

/// What the log is told, in this order.
#[derive(Debug)]
enum LogCommand {
    Batch { transactions: u64 },
    Epoch(EpochNumber),
    Sync,
}

/// What waits to be written to a connection.
#[derive(Debug, Default)]
struct Outbox {
    /// Sizes of answers that are not receipts, bytes.
    answers: VecDeque<usize>,
    receipts: VecDeque<ClientReceipt>,
    is_written: bool,
    /// The submission that is next in the order of the connection.
    next: u64,
    /// Submissions that were admitted before earlier ones.
    early: BTreeMap<u64, Submission>,
}

/// The sequencer.
#[derive(Debug)]
pub(super) struct SequencerNode {
    pub(super) orderer: Orderer<SingleLedger>,
    pub(super) followers: Followers,
    cutter: Cutter,
    durability: Durability,
    log: VecDeque<LogCommand>,
    is_logging: bool,
    outboxes: Vec<Outbox>,
    /// Whether a host is about to be served, by its place in the layout.
    served: Vec<bool>,
    /// The last epoch that a host was sent.
    sent: Vec<EpochNumber>,
    pub(super) turn_planned: Option<Tick>,
    /// Whether the driver is about to take a turn.
    pub(super) turns: bool,
}

impl SequencerNode {
    pub(super) fn new(map: &Arc<PartitionMap>, layout: Arc<Layout>, connections: usize) -> Self {
        let begin = EpochNumber(0);
        let homes = HomeChooser::new((**map).clone());
        let ledger = SingleLedger::new(None);
        // There is no log to read from again: nothing of what is ordered is dropped.
        let ring = RingLimits { epochs_max: usize::MAX, bytes_max: usize::MAX };
        let mut outboxes = Vec::new();
        outboxes.resize_with(connections, || Outbox { next: 1, ..Outbox::default() });
        Self {
            orderer: Orderer::new(
                LANE,
                LaneOptions::for_hosts(layout.hosts().len()),
                homes,
                ledger,
                begin,
                begin,
            ),
            followers: Followers::new(layout.clone(), begin, ring),
            cutter: Cutter::new(LANE, (**map).clone(), layout.clone()),
            durability: Durability::new(begin),
            log: VecDeque::new(),
            is_logging: false,
            outboxes,
            served: vec![false; layout.hosts().len()],
            sent: vec![begin; layout.hosts().len()],
            turn_planned: None,
            turns: false,
        }
    }

    /// The last epoch that was ordered.
    pub(super) fn ordered(&self) -> EpochNumber {
        self.orderer.lane().ordered()
    }
}

/// Inputs.
impl Simulation<'_> {
    pub(super) fn on_sequencer(&mut self, Frame { from, parcel, .. }: Frame) {
        match parcel {
            Parcel::Submission(submission) => {
                let task = Task::Admit(SEQUENCER_NODE, Box::new(submission));
                self.start(SEQUENCER_NODE, Stage::Admission, task);
            }
            Parcel::Admitted(submission) => self.admitted(submission),
            Parcel::Peer(PeerMessage::Receipts { receipts, .. }) => {
                receipts.into_iter().for_each(|receipt| self.sequencer.orderer.on_receipt(receipt));
            }
            Parcel::Peer(PeerMessage::Progress(statuses)) => {
                let host = NodeId(u16::try_from(from).unwrap_or(u16::MAX));
                let followers = &mut self.sequencer.followers;
                if let Err(error) = followers.on_progress(host, super::SESSION, &statuses) {
                    self.stop(error.to_string());
                }
                self.serve_soon(from);
            }
            _ => self.stop("the sequencer got what nobody sends it"),
        }
    }

    /// A submission was admitted. Those of a connection are ordered as they were sent.
    pub(super) fn admitted(&mut self, submission: Submission) {
        let connection = submission.connection;
        let outbox = &mut self.sequencer.outboxes[connection];
        outbox.early.insert(submission.request, submission);
        loop {
            let outbox = &mut self.sequencer.outboxes[connection];
            let Some(next) = outbox.early.remove(&outbox.next) else { break };
            outbox.next += 1;
            self.offer(&next);
        }
        self.turn_soon();
    }

    fn offer(&mut self, submission: &Submission) {
        let lookup = Lookup { found: None, void: false, through: EpochNumber(0) };
        let (connection, request) = (submission.connection, submission.request);
        let load = self.load;
        let unit = (0..).zip(&submission.items).map(|(index, place)| {
            let token = Token { connection: connection as u64, request, index };
            (load.items[*place].candidate.clone(), lookup, Some(token))
        });
        let Submitted { verdicts, again } = self.sequencer.orderer.submit_in_order(unit);
        if let Some(Err(refused)) = verdicts.iter().find(|verdict| verdict.is_err()) {
            self.stop(refused.to_string());
        } else if !again.is_empty() {
            self.stop(Refused::LookupTooOld.to_string());
        }
        let verdict = |place: &usize| Verdict::Accepted(load.items[*place].candidate.id);
        let verdicts = submission.items.iter().map(verdict).collect();
        let bytes = codec::encode(&ServerMessage::Verdicts { request, verdicts }).len();
        self.sequencer.outboxes[connection].answers.push_back(bytes);
        self.answer_soon(connection);
    }

    /// The driver has to wait for its turn, as every task does: what gathers meanwhile is ordered
    /// together.
    pub(super) fn turn_soon(&mut self) {
        if !std::mem::replace(&mut self.sequencer.turns, true) {
            self.start(SEQUENCER_NODE, Stage::Ordering, Task::Turn);
        }
    }

    /// Advances the order with all that is new, and carries out what follows.
    pub(super) fn turn(&mut self) {
        let sequencer = &mut self.sequencer;
        sequencer.orderer.on_durable(sequencer.durability.durable());
        sequencer.orderer.on_applied(sequencer.followers.applied_by_all());
        let now = clock(self.now);
        sequencer.orderer.advance(now);
        while let Some(output) = self.sequencer.orderer.poll_output() {
            self.carry_out_order(output);
        }
        let due = self.sequencer.orderer.next_timeout();
        if let Some(due) = due.filter(|due| self.sequencer.turn_planned != Some(*due)) {
            let wait = due.0.saturating_sub(now.0) * MICROSECOND;
            self.agenda.plan(self.now + wait.max(1), Event::Turn);
            self.sequencer.turn_planned = Some(due);
        }
    }

    fn carry_out_order(&mut self, output: Output) {
        match output {
            Output::Append { batch, .. } => {
                let transactions = batch.entries.len() as u64;
                self.tell_log(LogCommand::Batch { transactions });
            }
            Output::AppendEpoch(record) => self.tell_log(LogCommand::Epoch(record.number)),
            Output::Sync => self.tell_log(LogCommand::Sync),
            Output::Dispatch { record, batches } => {
                if let Some(ordered) = &mut self.ordered {
                    let batches = batches.iter().map(|batch| (**batch).clone()).collect();
                    ordered.epochs.push((record.clone(), batches));
                }
                let index = Task::Index(record.transactions());
                self.start(SEQUENCER_NODE, Stage::Index, index);
                let task = Task::Cut(Box::new((record, batches)));
                self.start(SEQUENCER_NODE, Stage::Dispatch, task);
            }
            Output::Reply { token, receipt } => self.reply(token, receipt),
            Output::Rediscover(strays) => {
                strays.into_iter().for_each(|stray| self.rediscover(stray));
            }
            Output::Summarize { .. } => self.stop("no lane here has a summary key"),
        }
    }

    /// The footprint that strayed was too narrow by one access: that is what a trial would add.
    fn rediscover(&mut self, stray: Rediscovery) {
        let Rediscovery { entry, stray, attempt, .. } = stray;
        let wider = Footprint::new(vec![stray]).and_then(|more| entry.footprint.union(&more));
        match wider {
            Ok(wider) => self.sequencer.orderer.on_discovered(entry.id, attempt, Ok(wider)),
            Err(error) => self.stop(error.to_string()),
        }
    }
}

/// The log.
impl Simulation<'_> {
    fn tell_log(&mut self, command: LogCommand) {
        self.sequencer.log.push_back(command);
        self.log_soon();
    }

    fn log_soon(&mut self) {
        let has_sync = self.sequencer.log.iter().any(|next| matches!(next, LogCommand::Sync));
        if has_sync && !std::mem::replace(&mut self.sequencer.is_logging, true) {
            self.start(SEQUENCER_NODE, Stage::Log, Task::Log);
        }
    }

    /// Writes everything up to the next sync.
    pub(super) fn begin_log(&mut self) -> (Work, Effect) {
        let mut work = Work::default();
        while let Some(command) = self.sequencer.log.pop_front() {
            match command {
                LogCommand::Batch { transactions } => work.transactions += transactions,
                LogCommand::Epoch(epoch) => {
                    work.events += 1;
                    self.sequencer.durability.on_appended(epoch);
                }
                LogCommand::Sync => break,
            }
        }
        (work, Effect::Logged)
    }

    pub(super) fn on_synced(&mut self) {
        self.sequencer.durability.on_synced();
        self.sequencer.is_logging = false;
        let place = self.place(SEQUENCER_NODE, Stage::Log);
        self.processors[place.processor].release(place.lane);
        self.turn_soon();
        self.log_soon();
        self.pump(place.processor);
    }
}

/// The executors.
impl Simulation<'_> {
    pub(super) fn begin_cut(
        &mut self,
        record: &EpochRecord,
        batches: &[Arc<Batch>],
    ) -> (Work, Effect) {
        let plain: Vec<&Batch> = batches.iter().map(|batch| &**batch).collect();
        let cut = self.sequencer.cutter.cut(record, &plain);
        let hosts = self.sequencer.followers.layout().hosts().len();
        let parts = (0..hosts).flat_map(|place| cut.messages(place)).map(parts_in).sum();
        let work = Work { transactions: record.transactions(), parts, events: hosts as u64 };
        (work, Effect::Cut(Box::new(cut)))
    }

    pub(super) fn finish_cut(&mut self, cut: CutEpoch) {
        self.sequencer.followers.on_ordered(cut);
        for host in 1..=self.hosts.len() {
            self.serve_soon(host);
        }
    }

    fn serve_soon(&mut self, host: usize) {
        if !std::mem::replace(&mut self.sequencer.served[host - 1], true) {
            self.start(SEQUENCER_NODE, Stage::Ordering, Task::Serve(host));
        }
    }

    pub(super) fn begin_serve(&mut self, host: usize) -> (Work, Effect) {
        let node = self.hosts[host - 1].id();
        let mut frames = Vec::new();
        while let Some(step) = self.sequencer.followers.next(node) {
            let Step::Send { epoch, .. } = step else {
                self.stop("what is kept to be sent does not go back far enough");
                break;
            };
            self.sequencer.sent[host - 1] = epoch.number();
            for message in epoch.messages(host - 1) {
                frames.push(self.peer_frame(SEQUENCER_NODE, host, message.clone()));
            }
        }
        let work = Work { transactions: 0, parts: 0, events: frames.len() as u64 };
        (work, Effect::Served(host, frames))
    }

    /// Epochs go to a host one after another: one task serves it.
    pub(super) fn finish_serve(&mut self, host: usize) {
        self.sequencer.served[host - 1] = false;
        let last = self.sequencer.sent[host - 1];
        if last < self.sequencer.followers.ordered() {
            self.serve_soon(host);
        }
    }
}

/// The clients.
impl Simulation<'_> {
    fn reply(&mut self, token: Token, receipt: Arc<Receipt>) {
        if let Some(ordered) = &mut self.ordered {
            ordered.receipts.push(receipt.clone());
        }
        let connection = usize::try_from(token.connection).unwrap_or(usize::MAX);
        let receipt = ClientReceipt { request: token.request, index: token.index, receipt };
        self.sequencer.outboxes[connection].receipts.push_back(receipt);
        self.answer_soon(connection);
    }

    fn answer_soon(&mut self, connection: usize) {
        if !std::mem::replace(&mut self.sequencer.outboxes[connection].is_written, true) {
            self.start(SEQUENCER_NODE, Stage::Ordering, Task::Answer(connection));
        }
    }

    /// Writes all that waits for a connection.
    pub(super) fn begin_answer(&mut self, connection: usize) -> (Work, Effect) {
        let outbox = &mut self.sequencer.outboxes[connection];
        outbox.is_written = false;
        let answers: Vec<usize> = outbox.answers.drain(..).collect();
        let receipts: Vec<ClientReceipt> = outbox.receipts.drain(..).collect();
        let client = self.client_node();
        let mut frames: Vec<Frame> = answers
            .into_iter()
            .map(|bytes| self.frame(SEQUENCER_NODE, client, Parcel::Verdicts, bytes))
            .collect();
        let mut rest = receipts.into_iter().peekable();
        while rest.peek().is_some() {
            let receipts: Vec<_> = rest.by_ref().take(FRAME_RECEIPTS_MAX).collect();
            let message = ServerMessage::Receipts(receipts);
            let bytes = codec::encode(&message).len();
            let ServerMessage::Receipts(receipts) = message else { continue };
            debug_assert!(bytes < 16 * FRAME_BYTES_TARGET);
            let parcel = Parcel::Receipts(connection, receipts);
            frames.push(self.frame(SEQUENCER_NODE, client, parcel, bytes));
        }
        let work = Work { transactions: 0, parts: 0, events: frames.len() as u64 };
        (work, Effect::Answered(frames))
    }
}

/// How many parts of transactions there are in a message that are not their home's.
fn parts_in(message: &PeerMessage) -> u64 {
    let PeerMessage::Slices(slices) = message else { return 0 };
    let entries = slices.slices.iter().flat_map(|slice| &slice.entries);
    entries.filter(|entry| matches!(entry.role, Role::Participant { .. })).count() as u64
}

/// What the sequencer's clock shows.
fn clock(now: Nanos) -> Tick {
    Tick(EPOCH_BEGIN + now / MICROSECOND)
}
