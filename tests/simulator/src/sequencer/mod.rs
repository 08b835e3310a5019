//! The sequencer's node: the production state machines over a simulated disk and network.
//!
//! Like the production shell it decides nothing about the order: it carries inputs to the
//! [`Orderer`], the [`Followers`], the [`Indexing`] and the [`Durability`], and their outputs out.
//! What is simpler than in production is finding footprints: there are no caches and no
//! predictions.

mod clients;
mod index;
mod queries;
mod trials;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::Channel;
use parsec_protocol::{Batch, BatchRef, EpochNumber, EpochRecord, LaneId, NodeId};
use parsec_runtimes::Sessions;
use parsec_sequencer_core::{
    Cutter, Durability, Followers, HomeChooser, Identity, Indexing, LogExtent, Orderer, Output,
    Rediscovery, Restored, Restorer, SingleLedger, Step, Tick,
};
use parsec_storage::log::{LogEnd, LogOptions, LogReader, LogWriter, Record};

use self::clients::Connection;
use self::index::Index;
use self::queries::Question;
use self::trials::Trial;
use crate::agenda::{MILLISECOND, Micros};
use crate::disk::SimDisk;
use crate::network::Seen;
use crate::surroundings::{Event, Halt, SEQUENCER, Surroundings, client_of};

/// Where the log is.
pub(crate) const LOG: &str = "/log";
/// The one lane.
const LANE: LaneId = LaneId(0);
/// Messages that may be under way to a host before the next epoch waits.
const UNDER_WAY_MAX: usize = 24;
/// How long the next epoch waits then, at most.
const BACK_OFF: Micros = 5 * MILLISECOND;
/// Epochs that are read from the log in one go.
const EPOCHS_READ: usize = 8;

/// What a sequencer has planned.
#[derive(Debug)]
pub(crate) enum SequencerTimer {
    /// Take what is new, and advance the order.
    Turn,
    /// The log has done the next thing that it was told.
    Log,
    /// Write the index.
    Index,
    /// Send a host what it needs next.
    Serve(NodeId),
    /// A submission has been admitted.
    Admitted { client: NodeId, session: u64, request: u64 },
    /// A question has had no answer for too long.
    Unanswered(u64),
    /// Ask again for a receipt.
    Receipt(clients::Recorded),
    /// Find a footprint again.
    Stray(Box<Rediscovery>),
}

/// What the log is told, in this order.
enum LogCommand {
    Batch { reference: BatchRef, encoded: Vec<u8> },
    Epoch(EpochRecord),
    Sync,
}

/// The sequencer's node, while it is up.
pub(crate) struct Sequencer {
    boot: u64,
    disk: SimDisk,
    orderer: Orderer<SingleLedger>,
    followers: Followers,
    cutter: Cutter,
    durability: Durability,
    log: LogWriter<SimDisk>,
    log_queue: VecDeque<LogCommand>,
    indexing: Indexing,
    index: Index,
    latest: Option<EpochRecord>,
    /// Through which epoch the order was told that all partitions are.
    applied: EpochNumber,
    /// The session of each executor whose link is up.
    hosts: BTreeMap<NodeId, u64>,
    /// Hosts that are to be served soon.
    served: BTreeSet<NodeId>,
    connections: BTreeMap<NodeId, Connection>,
    questions: BTreeMap<u64, Question>,
    reads: BTreeMap<u64, clients::Reading>,
    trials: BTreeMap<u64, Trial>,
    /// The last number of a question, a read or a trial.
    numbers: u64,
    sessions: Sessions,
    turn_planned: bool,
    index_planned: bool,
    timeout_planned: Option<Tick>,
}

/// Starting.
impl Sequencer {
    /// Starts on what the disk holds.
    pub(crate) fn start(s: &mut Surroundings, disk: &SimDisk, boot: u64) -> Result<Self, Halt> {
        let cluster = s.cluster.clone();
        let options = LogOptions { segment_bytes: s.options.segment_bytes };
        let (log, end) = LogWriter::open_on(disk.clone(), Path::new(LOG), cluster.id.0, options)?;
        let mut index = Index::open(disk).map_err(Halt::Index)?;
        let Restored { orderer, indexing } = restore(s, disk, &end, &mut index)?;
        let last = end.last_epoch.as_ref().map_or(EpochNumber(0), |record| record.number);
        s.note(SEQUENCER, || {
            let torn = end.torn_bytes;
            format!("starts after {last}, {} unordered, {torn} torn bytes", end.unordered.len())
        });
        let mut sequencer = Self {
            boot,
            disk: disk.clone(),
            orderer,
            followers: Followers::new(cluster.layout.clone(), last, s.options.ring),
            cutter: Cutter::new(LANE, (*cluster.map).clone(), cluster.layout.clone()),
            durability: Durability::new(last),
            log,
            log_queue: VecDeque::new(),
            indexing,
            index,
            latest: end.last_epoch,
            applied: EpochNumber(0),
            hosts: BTreeMap::new(),
            served: BTreeSet::new(),
            connections: BTreeMap::new(),
            questions: BTreeMap::new(),
            reads: BTreeMap::new(),
            trials: BTreeMap::new(),
            numbers: 0,
            sessions: cluster.runtimes.sessions(),
            turn_planned: false,
            index_planned: false,
            timeout_planned: None,
        };
        sequencer.index_soon(s);
        sequencer.wake(s);
        Ok(sequencer)
    }

    /// Whether nothing is under way, and every partition has everything.
    pub(crate) fn is_idle(&self) -> bool {
        let lane = self.orderer.lane();
        lane.pending() + lane.in_flight() == 0
            && lane.settled() == lane.ordered()
            && self.followers.applied_by_all() == lane.ordered()
            && self.log_queue.is_empty()
            && self.reads.is_empty()
    }
}

/// Takes up the order again, as the production shell does, and shows the log to the history: what
/// it holds is in the order for good.
fn restore(
    s: &mut Surroundings,
    disk: &SimDisk,
    end: &LogEnd,
    index: &mut Index,
) -> Result<Restored, Halt> {
    let identity = Identity {
        lane: LANE,
        options: s.options.lane.clone(),
        homes: HomeChooser::new((*s.cluster.map).clone()),
    };
    let extent = LogExtent {
        last_epoch: end.last_epoch.clone(),
        last_batch: end.lanes.get(&LANE).copied().unwrap_or(0),
        unordered: end.unordered.len() as u64,
    };
    let defect = |error: &dyn std::fmt::Display| Halt::Defect(error.to_string());
    let mut restorer =
        Restorer::new(identity, &extent, index.mark()).map_err(|error| defect(&error))?;
    let needed = restorer.first_epoch();
    let known = s.history.last();
    let first = needed.unwrap_or(EpochNumber(u64::MAX)).min(known.next());
    if end.last_epoch.as_ref().is_some_and(|last| last.number >= first) {
        for epoch in LogReader::epochs_from_on(disk, Path::new(LOG), first)? {
            let (record, batches) = epoch?;
            s.history.on_ordered(&record, &batches);
            if needed.is_some_and(|needed| record.number >= needed) {
                let write = restorer.on_epoch(&record, batches).map_err(|error| defect(&error))?;
                write.map_or(Ok(()), |write| index.write(write)).map_err(Halt::Index)?;
            }
        }
    }
    for unordered in end.unordered.values() {
        let location = unordered.location;
        let mut reader = LogReader::open_at_on(disk.clone(), Path::new(LOG), location)?;
        match reader.next().transpose()? {
            Some((_, Record::Batch(batch))) => restorer.on_unordered(batch),
            other => return Err(Halt::Defect(format!("{location} holds {other:?}, not a batch"))),
        }
    }
    let (restored, write) = restorer.finish().map_err(|error| defect(&error))?;
    write.map_or(Ok(()), |write| index.write(write)).map_err(Halt::Index)?;
    let mark = index.mark();
    let counted = s.history.transactions(mark.through);
    if mark.transactions != counted {
        let detail = format!("{mark:?}, but there are {counted}");
        s.history.violate("the index counts what is ordered", detail);
    }
    let last = end.last_epoch.as_ref().map_or(EpochNumber(0), |record| record.number);
    if last < s.history.last() {
        let detail = format!("the log ends with {last}, but {} was told", s.history.last());
        s.history.violate("durable before told", detail);
    }
    Ok(restored)
}

/// Inputs.
impl Sequencer {
    /// Something was seen of the network.
    pub(crate) fn on_seen(&mut self, s: &mut Surroundings, seen: Seen) -> Result<(), Halt> {
        match seen {
            Seen::Up { peer, session } => self.on_up(s, peer, session),
            Seen::Down { peer, session } => {
                self.on_down(s, peer, session);
                Ok(())
            }
            Seen::Message { peer, session, bytes, channel } => match client_of(peer) {
                Some(_) => self.on_request(s, peer, session, &bytes),
                None => self.on_message(s, peer, session, channel, &bytes),
            },
        }
    }

    fn on_up(&mut self, s: &mut Surroundings, peer: NodeId, session: u64) -> Result<(), Halt> {
        if client_of(peer).is_some() {
            self.connect(s, peer, session);
            return Ok(());
        }
        self.hosts.insert(peer, session);
        let settled = self.orderer.lane().settled();
        if let Some(message) = self.followers.on_link_up(peer, session, settled) {
            s.send(SEQUENCER, peer, session, Channel::Order, &message);
        }
        Ok(())
    }

    fn on_down(&mut self, s: &mut Surroundings, peer: NodeId, session: u64) {
        if client_of(peer).is_some() {
            return self.disconnect(peer, session);
        }
        self.hosts.remove(&peer);
        self.followers.on_link_down(peer, session);
        self.fail_questions_to(s, peer);
    }

    fn on_message(
        &mut self,
        s: &mut Surroundings,
        from: NodeId,
        session: u64,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        let message = parsec_protocol::codec::decode(bytes)
            .map_err(|error| Halt::Defect(format!("a message does not decode: {error}")))?;
        match (channel, message) {
            (Channel::Order, PeerMessage::Progress(statuses)) => {
                let taken = self.followers.on_progress(from, session, &statuses);
                taken.map_err(|ahead| Halt::Defect(ahead.to_string()))?;
                self.serve_soon(s, from);
                self.wake(s);
            }
            (Channel::Order, PeerMessage::Receipts { receipts, .. }) => {
                receipts.into_iter().for_each(|receipt| self.orderer.on_receipt(receipt));
                self.wake(s);
            }
            (Channel::Query, PeerMessage::Answer { number, answer }) => {
                self.on_answer(s, from, number, answer)?;
            }
            (channel, other) => {
                let what = crate::wire::describe(&other);
                return Err(Halt::Defect(format!("{from} sent on {channel:?}: {what}")));
            }
        }
        Ok(())
    }

    /// Something is due.
    pub(crate) fn on_timer(
        &mut self,
        s: &mut Surroundings,
        timer: SequencerTimer,
    ) -> Result<(), Halt> {
        match timer {
            SequencerTimer::Turn => self.turn(s),
            SequencerTimer::Log => self.write_log(s),
            SequencerTimer::Index => self.write_index(s),
            SequencerTimer::Serve(host) => self.serve(s, host),
            SequencerTimer::Admitted { client, session, request } => {
                self.on_admitted(s, client, session, request);
                Ok(())
            }
            SequencerTimer::Unanswered(number) => self.on_unanswered(s, number),
            SequencerTimer::Receipt(recorded) => {
                self.fetch_receipt(s, recorded);
                Ok(())
            }
            SequencerTimer::Stray(stray) => {
                self.rediscover(s, *stray);
                Ok(())
            }
        }
    }

    fn plan(&self, s: &mut Surroundings, delay: Micros, timer: SequencerTimer) {
        s.after(delay, Event::Sequencer(self.boot, timer));
    }

    /// The driver takes a turn soon.
    fn wake(&mut self, s: &mut Surroundings) {
        if !std::mem::replace(&mut self.turn_planned, true) {
            let delay = s.within(30);
            self.plan(s, delay, SequencerTimer::Turn);
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

/// The order.
impl Sequencer {
    fn turn(&mut self, s: &mut Surroundings) -> Result<(), Halt> {
        self.turn_planned = false;
        self.orderer.on_durable(self.durability.durable());
        self.applied = self.applied.max(self.followers.applied_by_all());
        self.orderer.on_applied(self.followers.applied_by_all());
        self.orderer.on_indexed(self.indexing.told());
        let now = s.clock();
        self.orderer.advance(now);
        while let Some(output) = self.orderer.poll_output() {
            self.carry_out(s, output)?;
        }
        let due = self.orderer.next_timeout();
        if let Some(due) = due.filter(|due| self.timeout_planned != Some(*due)) {
            let delay = due.0.saturating_sub(now.0) + 1;
            self.plan(s, delay, SequencerTimer::Turn);
        }
        self.timeout_planned = due;
        self.index_soon(s);
        Ok(())
    }

    fn carry_out(&mut self, s: &mut Surroundings, output: Output) -> Result<(), Halt> {
        match output {
            Output::Append { batch, reference, encoded } => {
                self.check_limits(s, &batch);
                self.tell_log(s, LogCommand::Batch { reference, encoded });
            }
            Output::AppendEpoch(record) => self.tell_log(s, LogCommand::Epoch(record)),
            Output::Sync => self.tell_log(s, LogCommand::Sync),
            Output::Dispatch { record, batches } => {
                s.note(SEQUENCER, || {
                    format!("{} of {} is ordered", record.number, record.transactions())
                });
                let plain: Vec<Batch> = batches.iter().map(|batch| (**batch).clone()).collect();
                s.history.on_ordered(&record, &plain);
                self.indexing.on_durable(&record, &batches);
                self.followers.on_ordered(self.cutter.cut(&record, &plain));
                self.latest = Some(record);
                let hosts: Vec<NodeId> = self.hosts.keys().copied().collect();
                hosts.into_iter().for_each(|host| self.serve_soon(s, host));
            }
            Output::Reply { token, receipt } => self.reply(s, token, receipt),
            Output::Rediscover(strays) => {
                strays.into_iter().for_each(|stray| self.rediscover(s, stray));
            }
            Output::Summarize { .. } => unreachable!("no lane here has a summary key"),
        }
        Ok(())
    }

    /// A batch is closed only as far as the limits of the lane allow.
    fn check_limits(&self, s: &mut Surroundings, batch: &Batch) {
        let (lane, limits) = (self.orderer.lane(), &s.options.lane);
        let ahead = lane.ordered().next().0.saturating_sub(self.applied.0);
        let in_flight = lane.in_flight();
        // Transactions that strayed are under way already.
        let adds = batch.entries.iter().any(|entry| entry.attempt == 0);
        if ahead > limits.epochs_in_flight_max
            || (adds && in_flight > limits.in_flight_transactions_max)
        {
            let detail = format!("{ahead} epochs and {in_flight} transactions are in flight");
            s.history.violate("the lane keeps to its limits", detail);
        }
    }

    fn tell_log(&mut self, s: &mut Surroundings, command: LogCommand) {
        self.log_queue.push_back(command);
        if self.log_queue.len() == 1 {
            self.plan_log(s);
        }
    }

    fn plan_log(&self, s: &mut Surroundings) {
        let most = match self.log_queue.front() {
            None => return,
            Some(LogCommand::Sync) => s.options.sync,
            Some(_) => s.options.append,
        };
        let delay = s.within(most);
        self.plan(s, delay, SequencerTimer::Log);
    }

    fn write_log(&mut self, s: &mut Surroundings) -> Result<(), Halt> {
        let Some(command) = self.log_queue.pop_front() else { return Ok(()) };
        let done = match command {
            LogCommand::Batch { reference, encoded } => {
                self.log.append_batch(&reference, &encoded).map(|_| ())
            }
            LogCommand::Epoch(record) => {
                self.log.append_epoch(&record).map(|_| self.durability.on_appended(record.number))
            }
            LogCommand::Sync => self.log.sync().map(|_| self.durability.on_synced()),
        };
        if let Err(error) = done {
            self.durability.on_failed();
            return Err(error.into());
        }
        self.plan_log(s);
        self.wake(s);
        Ok(())
    }

    fn write_index(&mut self, s: &mut Surroundings) -> Result<(), Halt> {
        self.index_planned = false;
        if let Some(write) = self.indexing.write(self.orderer.lane().settled()) {
            let mark = write.mark;
            self.index.write(write).map_err(Halt::Index)?;
            self.indexing.on_written(mark);
        }
        self.index_soon(s);
        self.wake(s);
        Ok(())
    }

    /// The index is written soon, if there is anything to write.
    fn index_soon(&mut self, s: &mut Surroundings) {
        let settled = self.orderer.lane().settled();
        let is_done = self.indexing.is_done() && settled <= self.indexing.mark().settled;
        if !is_done && !std::mem::replace(&mut self.index_planned, true) {
            let delay = s.within(s.options.index_interval);
            self.plan(s, delay, SequencerTimer::Index);
        }
    }
}

/// The executors.
impl Sequencer {
    fn serve_soon(&mut self, s: &mut Surroundings, host: NodeId) {
        if self.served.insert(host) {
            let delay = s.within(20);
            self.plan(s, delay, SequencerTimer::Serve(host));
        }
    }

    fn serve(&mut self, s: &mut Surroundings, host: NodeId) -> Result<(), Halt> {
        self.served.remove(&host);
        if s.network.under_way(SEQUENCER, host, Channel::Order) > UNDER_WAY_MAX {
            self.served.insert(host);
            let delay = s.within(BACK_OFF);
            self.plan(s, delay, SequencerTimer::Serve(host));
            return Ok(());
        }
        let Some(step) = self.followers.next(host) else { return Ok(()) };
        match step {
            Step::Send { session, epoch } => self.send_epoch(s, host, session, &epoch),
            Step::ReadLog { session, from } => {
                let log = Path::new(LOG);
                for epoch in LogReader::epochs_from_on(&self.disk, log, from)?.take(EPOCHS_READ) {
                    let (record, batches) = epoch?;
                    if !self.followers.take_from_log(host, session, record.number) {
                        break;
                    }
                    let cut = self.cutter.cut(&record, &batches);
                    self.send_epoch(s, host, session, &cut);
                }
            }
        }
        self.serve_soon(s, host);
        Ok(())
    }

    fn send_epoch(
        &mut self,
        s: &mut Surroundings,
        host: NodeId,
        session: u64,
        epoch: &parsec_sequencer_core::CutEpoch,
    ) {
        let Some(place) = self.followers.layout().place(host) else { return };
        for message in epoch.messages(place) {
            if !s.send(SEQUENCER, host, session, Channel::Order, message) {
                return self.followers.on_send_failed(host, session);
            }
        }
    }
}
