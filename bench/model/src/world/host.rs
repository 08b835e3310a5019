//! A host: the production protocol and partitions, and what its threads carry to and fro.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parsec_executor_core::frames::{push_frames, receipt_frames};
use parsec_executor_core::{
    Destination, EpochContext, FinishedEpoch, Host, HostOutput, KeyIndex, Output, Partition,
    Routes, Task as Transaction,
};
use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::{
    EpochNumber, Key, NodeId, PartitionId, PartitionMap, Push, Receipt, Role, Value,
};
use parsec_runtimes::Execution;

use super::{
    Effect, Event, Frame, Parcel, Place, SEQUENCER, SEQUENCER_NODE, SESSION, Simulation, Stage,
    Task, Work,
};
use crate::agenda::{MILLISECOND, Nanos, SECOND};

/// How long progress is collected before it is reported, as in production.
const PROGRESS_INTERVAL: Nanos = 2 * MILLISECOND;
/// How often stores are synced, as in production.
const SYNC_INTERVAL: Nanos = 4 * SECOND;
/// Transactions that a worker executes before it sends what they made, as in production.
const ROUTE_AFTER: u64 = 32;

/// Something that happened to a partition.
#[derive(Debug)]
enum ShardEvent {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Pushes(Vec<Push>),
    Stored(EpochNumber),
}

/// A partition, and what is going on there.
pub(super) struct Shard {
    id: PartitionId,
    core: Partition,
    inbox: VecDeque<ShardEvent>,
    /// Whether a worker is about to take what has happened.
    is_woken: bool,
    finished: VecDeque<FinishedEpoch>,
    pub(super) applied: EpochNumber,
    pub(super) worker: Option<Place>,
    pub(super) store: Option<Place>,
}

/// What waits to be sent to one node.
#[derive(Debug, Default)]
struct Outgoing {
    messages: Vec<PeerMessage>,
    pushes: Vec<Push>,
    receipts: BTreeMap<PartitionId, Vec<Arc<Receipt>>>,
}

/// A host.
pub(super) struct HostNode {
    routes: Arc<Routes>,
    host: Host,
    shards: BTreeMap<PartitionId, Shard>,
    outgoing: BTreeMap<usize, Outgoing>,
    /// Nodes that something is being sent to, or about to be: one task sends to each.
    sends: BTreeSet<usize>,
    reported: Nanos,
    is_report_planned: bool,
}

impl HostNode {
    pub(super) fn new(
        routes: Arc<Routes>,
        partitions: &[PartitionId],
        map: &Arc<PartitionMap>,
    ) -> Self {
        let begin = EpochNumber(0);
        let applied = partitions.iter().map(|partition| (*partition, begin)).collect();
        let shard = |id: &PartitionId| {
            let shard = Shard {
                id: *id,
                core: Partition::new(*id, map.clone(), begin),
                inbox: VecDeque::new(),
                is_woken: false,
                finished: VecDeque::new(),
                applied: begin,
                worker: None,
                store: None,
            };
            (*id, shard)
        };
        Self {
            host: Host::new(routes.clone(), SEQUENCER, &applied),
            routes,
            shards: partitions.iter().map(shard).collect(),
            outgoing: BTreeMap::new(),
            sends: BTreeSet::new(),
            reported: 0,
            is_report_planned: false,
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.routes.node()
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    pub(super) fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.values_mut()
    }

    /// All links come up. Returns what it tells the sequencer.
    pub(super) fn link_up(&mut self) -> Vec<PartitionStatus> {
        self.host.on_link_up(SEQUENCER, SESSION);
        for peer in self.routes.peers() {
            self.host.on_link_up(peer, SESSION);
            while self.host.poll_output().is_some() {}
        }
        while self.host.poll_output().is_some() {}
        self.host.statuses()
    }
}

/// Messages.
impl Simulation<'_> {
    pub(super) fn on_host(&mut self, host: usize, Frame { from, parcel, .. }: Frame) {
        let Parcel::Peer(message) = parcel else {
            return self.stop("a host got what only clients send");
        };
        // What peers have synced only lets this host forget what it owed them, which is not kept
        // here.
        if matches!(message, PeerMessage::Watermarks { .. }) {
            return;
        }
        let from = NodeId(u16::try_from(from).unwrap_or(u16::MAX));
        let taken = self.hosts[host - 1].host.on_message(from, SESSION, message);
        if let Err(refused) = taken {
            self.stop(format!("a message of {from}: {refused}"));
        }
        self.carry_out(host);
    }

    /// Brings about what a host has decided.
    pub(super) fn carry_out(&mut self, host: usize) {
        while let Some(output) = self.hosts[host - 1].host.poll_output() {
            match output {
                HostOutput::Send { to, message, .. } => {
                    self.queue(host, usize::from(to.0), |waiting| waiting.add(message));
                }
                HostOutput::Epoch { partition, context, entries } => {
                    self.tell(partition, ShardEvent::Epoch(context, entries));
                }
                HostOutput::Pushes { partition, pushes } => {
                    self.tell(partition, ShardEvent::Pushes(pushes));
                }
                HostOutput::PruneOutbox { .. } => {}
                other => self.stop(format!("links do not go down here, but: {other:?}")),
            }
        }
        let here = &mut self.hosts[host - 1];
        if here.host.is_progress_due() && !std::mem::replace(&mut here.is_report_planned, true) {
            let at = self.now.max(here.reported + PROGRESS_INTERVAL);
            self.agenda.plan(at, Event::Progress(host));
        }
    }

    pub(super) fn report_progress(&mut self, host: usize) {
        let here = &mut self.hosts[host - 1];
        here.is_report_planned = false;
        here.reported = self.now;
        here.host.report_progress();
        self.carry_out(host);
    }

    /// Adds to what waits to be sent to a node.
    fn queue(&mut self, from: usize, to: usize, add: impl FnOnce(&mut Outgoing)) {
        let here = &mut self.hosts[from - 1];
        add(here.outgoing.entry(to).or_default());
        if here.sends.insert(to) {
            self.start(from, Stage::Messages, Task::Send { from, to });
        }
    }

    /// Sends all that waits for a node.
    pub(super) fn begin_send(&mut self, from: usize, to: usize) -> (Work, Effect) {
        let waiting = self.hosts[from - 1].outgoing.remove(&to).unwrap_or_default();
        let Outgoing { mut messages, pushes, receipts } = waiting;
        let parts = pushes.len() as u64;
        let transactions = receipts.values().map(|receipts| receipts.len() as u64).sum();
        messages.extend(push_frames(pushes).into_iter().map(PeerMessage::Pushes));
        for (partition, mut receipts) in receipts {
            receipts.sort_by_key(|receipt| receipt.position);
            let frames = receipt_frames(receipts).into_iter();
            messages.extend(frames.map(|receipts| PeerMessage::Receipts { partition, receipts }));
        }
        let work = Work { transactions, parts, events: messages.len() as u64 };
        let frames = messages.into_iter().map(|message| self.peer_frame(from, to, message));
        let frames = frames.collect();
        (work, Effect::Sent { from, to, frames })
    }

    pub(super) fn finish_send(&mut self, from: usize, to: usize) {
        let here = &mut self.hosts[from - 1];
        match here.outgoing.contains_key(&to) {
            true => self.start(from, Stage::Messages, Task::Send { from, to }),
            false => drop(here.sends.remove(&to)),
        }
    }
}

/// Partitions.
impl Simulation<'_> {
    fn shard(&mut self, partition: PartitionId) -> &mut Shard {
        let host = self.holders[partition.index()];
        let shard = self.hosts[host - 1].shards.get_mut(&partition);
        shard.expect("each partition is where the layout says")
    }

    fn tell(&mut self, partition: PartitionId, event: ShardEvent) {
        self.shard(partition).inbox.push_back(event);
        self.wake(partition);
    }

    fn wake(&mut self, partition: PartitionId) {
        let shard = self.shard(partition);
        if !std::mem::replace(&mut shard.is_woken, true) {
            let place = shard.worker.expect("workers have their place");
            self.start_at(place, Task::Work(partition));
        }
    }

    /// A worker takes in what has happened, and executes what is ready, up to a number.
    pub(super) fn begin_work(&mut self, partition: PartitionId) -> (Work, Effect) {
        let mut work = Work::default();
        let shard = self.shard(partition);
        shard.is_woken = false;
        for event in std::mem::take(&mut shard.inbox) {
            match event {
                ShardEvent::Epoch(context, entries) => {
                    let parts =
                        entries.iter().filter(|(_, role)| !matches!(role, Role::Home { .. }));
                    work.parts += parts.count() as u64;
                    work.events += 1;
                    shard.core.on_epoch(context, entries);
                }
                ShardEvent::Pushes(pushes) => {
                    pushes.into_iter().for_each(|push| shard.core.on_push(push));
                }
                ShardEvent::Stored(epoch) => shard.core.on_stored(epoch),
            }
        }
        let (mut pushes, mut receipts) = (Vec::new(), Vec::new());
        loop {
            self.drain(partition, &mut pushes, &mut receipts);
            if work.transactions >= ROUTE_AFTER {
                break;
            }
            let Some(task) = self.shard(partition).core.take_ready() else { break };
            work.transactions += 1;
            self.execute(partition, task);
        }
        // Entering what is ready next may have made something.
        self.drain(partition, &mut pushes, &mut receipts);
        let shard = self.shard(partition);
        let (lost, more) = (shard.core.take_pushes_lost(), shard.core.ready() > 0);
        if lost {
            self.stop(format!("{partition} got more pushes early than it has room for"));
        }
        if more {
            self.wake(partition);
        }
        (work, Effect::Worked { partition, pushes, receipts })
    }

    /// Takes what a partition made.
    fn drain(
        &mut self,
        partition: PartitionId,
        pushes: &mut Vec<Push>,
        made: &mut Vec<Arc<Receipt>>,
    ) {
        while let Some(output) = self.shard(partition).core.poll_output() {
            match output {
                Output::Fetch { index, key } => self.fetch(partition, index, &key),
                Output::Push(push) => pushes.push(push),
                Output::Receipt(receipt) => made.push(receipt),
                Output::Finished(epoch) => {
                    let shard = self.shard(partition);
                    shard.finished.push_back(*epoch);
                    let place = shard.store.expect("stores have their place");
                    self.start_at(place, Task::Store(partition));
                }
            }
        }
    }

    fn fetch(&mut self, partition: PartitionId, index: KeyIndex, key: &Key) {
        let value = self.value(partition, key);
        self.shard(partition).core.on_fetched(index, value);
    }

    fn value(&self, partition: PartitionId, key: &Key) -> Option<Value> {
        let stored = match key.is_replicated() {
            true => self.stored_everywhere.get(&(partition, key.clone())),
            false => self.stored.get(key),
        };
        stored.cloned().unwrap_or_else(|| self.load.state.get(key).cloned())
    }

    fn execute(&mut self, partition: PartitionId, task: Transaction) {
        let (epoch, entropy) = (&task.context.record, &task.context.entropy);
        let done = Execution::run(
            &mut self.sessions,
            &task.entry,
            epoch,
            entropy,
            task.index,
            &task.values,
        );
        match done {
            Ok(Execution { changes, receipt }) => {
                self.shard(partition).core.on_executed(task, changes, receipt);
            }
            Err(reason) => self.stop(reason),
        }
    }

    pub(super) fn finish_work(
        &mut self,
        partition: PartitionId,
        mut pushes: Vec<Push>,
        receipts: Vec<Arc<Receipt>>,
    ) {
        let host = self.holders[partition.index()];
        let routes = self.hosts[host - 1].routes.clone();
        let routed = routes.group(&mut pushes, |destination, group| match destination {
            Destination::Here(partition) => self.tell(partition, ShardEvent::Pushes(group)),
            Destination::Peer(node) => {
                self.queue(host, usize::from(node.0), |waiting| waiting.pushes.extend(group));
            }
        });
        if let Err(unheld) = routed {
            self.stop(unheld.to_string());
        }
        if !receipts.is_empty() {
            self.queue(host, SEQUENCER_NODE, |waiting| {
                waiting.receipts.entry(partition).or_default().extend(receipts);
            });
        }
    }
}

/// Stores.
impl Simulation<'_> {
    pub(super) fn begin_store(&mut self, partition: PartitionId) -> (Work, Effect) {
        let Some(finished) = self.shard(partition).finished.pop_front() else {
            return (Work::default(), Effect::Nothing);
        };
        let transactions = finished.receipts.len() as u64;
        let work = Work { transactions, parts: finished.writes.len() as u64, events: 1 };
        (work, Effect::Stored(partition, Box::new(finished)))
    }

    pub(super) fn finish_store(&mut self, partition: PartitionId, finished: FinishedEpoch) {
        let epoch = finished.epoch;
        self.executed += finished.receipts.len() as u64;
        self.multi_partition += finished.multi_partition;
        for write in finished.writes {
            match write.key.is_replicated() {
                true => self.stored_everywhere.insert((partition, write.key), write.new),
                false => self.stored.insert(write.key, write.new),
            };
        }
        let shard = self.shard(partition);
        shard.applied = epoch;
        self.tell(partition, ShardEvent::Stored(epoch));
        let host = self.holders[partition.index()];
        self.hosts[host - 1].host.on_applied(partition, epoch);
        self.carry_out(host);
    }

    /// Hosts do not sync at the same moment.
    pub(super) fn plan_first_sync(&mut self, host: usize) {
        let share = SYNC_INTERVAL / (self.hosts.len() as u64 + 1);
        self.agenda.plan(share * host as u64, Event::Sync(host));
    }

    pub(super) fn sync_stores(&mut self, host: usize) {
        let here = &mut self.hosts[host - 1];
        let synced: Vec<_> = here.shards().map(|shard| (shard.id, shard.applied)).collect();
        here.host.on_durable(&synced);
        self.carry_out(host);
        self.agenda.plan(self.now + SYNC_INTERVAL, Event::Sync(host));
    }
}

impl Outgoing {
    /// Adds a message. How far a host is takes the place of how far it was.
    fn add(&mut self, message: PeerMessage) {
        use PeerMessage::{Progress, Watermarks};
        let is_newer = |old: &PeerMessage| match old {
            Progress(_) => matches!(message, Progress(_)),
            Watermarks { resume: false, .. } => {
                matches!(message, Watermarks { resume: false, .. })
            }
            _ => false,
        };
        match self.messages.iter_mut().find(|old| is_newer(old)) {
            Some(old) => *old = message,
            None => self.messages.push(message),
        }
    }
}
