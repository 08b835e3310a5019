//! An executor's node: the production [`Host`] and [`Partition`]s over a simulated disk and network.
//!
//! Like the production shell it decides nothing: it carries messages, epochs and pushes from one to
//! the other, runs transactions, and commits what is finished.

mod queries;
mod stores;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_executor_core::{
    EpochContext, FinishedEpoch, Host, HostOutput, KeyIndex, Output, Partition, Request, Routes,
    Task,
};
use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::transport::Channel;
use parsec_protocol::{EpochNumber, Key, NodeId, PartitionId, Push, Receipt, Role, codec};
use parsec_runtimes::{Execution, Sessions};
use parsec_storage::Store as _;

use self::queries::Waiting;
use crate::agenda::Micros;
use crate::disk::SimDisk;
use crate::network::Seen;
use crate::store::SimStore;
use crate::surroundings::{Event, Halt, SEQUENCER, Surroundings};

/// What an executor has planned.
#[derive(Debug)]
pub(crate) enum HostTimer {
    /// A worker takes what has happened to a partition into its state machine.
    Work(PartitionId),
    /// The store has answered.
    Fetched(PartitionId, KeyIndex, Key),
    /// A transaction has run.
    Executed(PartitionId, u64),
    /// The next finished epoch of a partition is written.
    Commit(PartitionId),
    /// What was made goes on its way.
    Flush,
    /// The next message of the sequencer is taken.
    Order,
    /// The store of a partition is synced, and then that of the next one.
    Sync(PartitionId),
    /// All stores have been synced.
    Synced,
    /// The sequencer is told how far this host is.
    Progress,
    /// Pushes are read from a store, to be sent again.
    Outbox {
        request: Request,
        partition: PartitionId,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    },
    /// Receipts are read from a store, to be sent again.
    Receipts { request: Request, partition: PartitionId, from: EpochNumber, limit: usize },
    /// A read has waited too long.
    Unread(u64),
}

/// Something that happened to a partition.
enum ShardEvent {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Pushes(Vec<Push>),
    Stored(EpochNumber),
}

/// A partition, its store, and what is going on there.
struct Shard {
    core: Partition,
    store: SimStore,
    inbox: VecDeque<ShardEvent>,
    is_woken: bool,
    running: BTreeMap<u64, Task>,
    tasks: u64,
    finished: VecDeque<FinishedEpoch>,
}

/// An executor's node, while it is up.
pub(crate) struct Executor {
    node: NodeId,
    boot: u64,
    host: Host,
    shards: BTreeMap<PartitionId, Shard>,
    /// What the sequencer sent, until every partition has room for it.
    order: VecDeque<(u64, PeerMessage)>,
    /// What partitions made, until it is sent.
    pushes: Vec<Push>,
    receipts: Vec<(PartitionId, Arc<Receipt>)>,
    is_flush_planned: bool,
    is_order_planned: bool,
    is_progress_planned: bool,
    is_sync_planned: bool,
    /// What has been synced in this round.
    synced: Vec<(PartitionId, EpochNumber)>,
    waiting: Vec<Waiting>,
    /// The last number of a waiting read.
    reads: u64,
    sessions: Sessions,
}

/// Starting, and looking at it.
impl Executor {
    /// Starts on what the disk holds.
    pub(crate) fn start(
        s: &mut Surroundings,
        node: NodeId,
        disk: &SimDisk,
        boot: u64,
    ) -> Result<Self, Halt> {
        let cluster = s.cluster.clone();
        let mut shards = BTreeMap::new();
        for &partition in cluster.held(node) {
            let store = SimStore::open(disk, cluster.id.0, partition)?;
            let applied = store.applied();
            s.note(node, || format!("{partition} starts after {}", applied.epoch));
            s.history.on_found(partition, &applied);
            let cached = s.options.executors.cached_keys;
            let core = Partition::with_cache(partition, cluster.map.clone(), applied.epoch, cached)
                .with_early_pushes(s.options.executors.early_pushes)
                .with_ready(s.options.executors.ready_low, s.options.executors.ready_ahead);
            shards.insert(partition, Shard::new(core, store));
        }
        let holders = cluster.map.partitions().filter_map(|partition| {
            cluster.layout.holder(partition).map(|holder| (partition, holder))
        });
        let routes = Arc::new(Routes::new(node, &holders.collect()));
        let applied = shards.iter().map(|(id, shard)| (*id, shard.store.applied().epoch)).collect();
        let host = Host::new(routes, SEQUENCER, &applied)
            .with_frame_bytes(s.options.executors.frame_bytes);
        let mut executor = Self {
            node,
            boot,
            host,
            shards,
            order: VecDeque::new(),
            pushes: Vec::new(),
            receipts: Vec::new(),
            is_flush_planned: false,
            is_order_planned: false,
            is_progress_planned: false,
            is_sync_planned: false,
            synced: Vec::new(),
            waiting: Vec::new(),
            reads: 0,
            sessions: cluster.runtimes.sessions(),
        };
        executor.carry_out(s)?;
        executor.sync_soon(s);
        Ok(executor)
    }

    /// The stores of the partitions here.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (PartitionId, &SimStore)> {
        self.shards.iter().map(|(id, shard)| (*id, &shard.store))
    }

    /// What keeps this host from being at rest after `last`, if anything does: before the last
    /// restart of a run, everything has to be durable, and after it, nothing may be owed any more.
    pub(crate) fn unrest(&self, last: EpochNumber, restarted: bool) -> Option<String> {
        let durable = |status: &PartitionStatus| status.durable < last;
        if let Some(status) = self.host.statuses().into_iter().find(durable) {
            return Some(format!("{} is durable through {}", status.partition, status.durable));
        }
        self.shards.iter().find_map(|(id, shard)| {
            let applied = shard.store.applied().epoch;
            let owed = |to: &PartitionId| {
                let owed = shard.store.outbox(*to, EpochNumber(0), 1);
                owed.is_ok_and(|owed| !owed.is_empty())
            };
            let mut others = (0..u16::MAX).map(PartitionId).take(64);
            if applied < last {
                let (ready, in_hand) = (shard.core.ready(), shard.core.in_hand());
                Some(format!(
                    "{id} has applied {applied} of {last}; taken in {}, {in_hand} in hand, {ready} \
                     ready, {} running, {} epochs to commit",
                    shard.core.last(),
                    shard.running.len(),
                    shard.finished.len()
                ))
            } else if let Some(to) = others.find(owed).filter(|_| restarted) {
                Some(format!("{id} keeps what it owed to {to}"))
            } else {
                let in_hand = shard.core.in_hand();
                (in_hand > 0).then(|| format!("{id} has {in_hand} transactions in hand"))
            }
        })
    }

    fn plan(&self, s: &mut Surroundings, delay: Micros, timer: HostTimer) {
        s.after(delay, Event::Host(self.node, self.boot, timer));
    }

    fn shard(&mut self, partition: PartitionId) -> &mut Shard {
        self.shards.get_mut(&partition).expect("only partitions of this host are named")
    }
}

impl Shard {
    fn new(core: Partition, store: SimStore) -> Self {
        Self {
            core,
            store,
            inbox: VecDeque::new(),
            is_woken: false,
            running: BTreeMap::new(),
            tasks: 0,
            finished: VecDeque::new(),
        }
    }

    fn is_full(&self, inbox_max: usize) -> bool {
        let epochs = self.inbox.iter().filter(|event| matches!(event, ShardEvent::Epoch(..)));
        self.core.is_full() || epochs.count() >= inbox_max
    }
}

/// Inputs.
impl Executor {
    /// Something was seen of the network.
    pub(crate) fn on_seen(&mut self, s: &mut Surroundings, seen: Seen) -> Result<(), Halt> {
        match seen {
            Seen::Up { peer, session } => self.host.on_link_up(peer, session),
            Seen::Down { peer, session } => {
                s.note(self.node, || format!("session {session} with {peer} is over"));
                self.host.on_link_down(peer, session);
            }
            Seen::Message { peer, session, channel, bytes } => {
                let message = codec::decode(&bytes)
                    .map_err(|error| Halt::Defect(format!("a message does not decode: {error}")))?;
                match channel {
                    Channel::Order => {
                        self.order.push_back((session, message));
                        self.order_soon(s);
                    }
                    Channel::Exchange => self.take(s, peer, session, message)?,
                    Channel::Query => self.on_query(s, (peer, session), message)?,
                }
            }
        }
        self.carry_out(s)
    }

    /// Something is due.
    pub(crate) fn on_timer(&mut self, s: &mut Surroundings, timer: HostTimer) -> Result<(), Halt> {
        match timer {
            HostTimer::Work(partition) => self.work(s, partition)?,
            HostTimer::Fetched(partition, index, key) => {
                let shard = self.shard(partition);
                let value = shard.store.get(&key)?;
                shard.core.on_fetched(index, value);
                self.drain(s, partition);
            }
            HostTimer::Executed(partition, task) => self.executed(s, partition, task)?,
            HostTimer::Commit(partition) => self.commit(s, partition)?,
            HostTimer::Flush => self.flush(),
            HostTimer::Order => self.take_order(s)?,
            HostTimer::Sync(partition) => self.sync(s, partition)?,
            HostTimer::Synced => self.tell_synced(s),
            HostTimer::Progress => {
                self.is_progress_planned = false;
                self.host.report_progress();
            }
            HostTimer::Outbox { request, partition, to, after, limit } => {
                let pushes = self.shard(partition).store.outbox(to, after, limit)?;
                s.note(self.node, || format!("{partition} reads {} pushes to {to}", pushes.len()));
                self.host.on_outbox(request, pushes);
            }
            HostTimer::Receipts { request, partition, from, limit } => {
                let receipts = self.shard(partition).store.receipts(from, limit)?;
                self.host.on_stored_receipts(request, receipts);
            }
            HostTimer::Unread(number) => self.unread(s, number),
        }
        self.carry_out(s)
    }

    fn order_soon(&mut self, s: &mut Surroundings) {
        if !self.order.is_empty() && !std::mem::replace(&mut self.is_order_planned, true) {
            let delay = s.within(s.options.executors.step);
            self.plan(s, delay, HostTimer::Order);
        }
    }

    fn take_order(&mut self, s: &mut Surroundings) -> Result<(), Halt> {
        self.is_order_planned = false;
        let inbox_max = s.options.executors.inbox;
        while !self.shards.values().any(|shard| shard.is_full(inbox_max))
            && let Some((session, message)) = self.order.pop_front()
        {
            self.take(s, SEQUENCER, session, message)?;
            self.carry_out(s)?;
        }
        self.order_soon(s);
        Ok(())
    }

    fn take(
        &mut self,
        s: &mut Surroundings,
        from: NodeId,
        session: u64,
        message: PeerMessage,
    ) -> Result<(), Halt> {
        use parsec_executor_core::Refused;
        match self.host.on_message(from, session, message) {
            Ok(()) => Ok(()),
            Err(Refused::Stale) => {
                s.note(self.node, || format!("ignores a message of {from}'s session {session}"));
                Ok(())
            }
            Err(other) => Err(Halt::Defect(format!("a message of {from}: {other}"))),
        }
    }

    /// Brings about what the host has decided.
    fn carry_out(&mut self, s: &mut Surroundings) -> Result<(), Halt> {
        while let Some(output) = self.host.poll_output() {
            self.carry_out_one(s, output)?;
        }
        if self.host.is_progress_due() && !std::mem::replace(&mut self.is_progress_planned, true) {
            let delay = s.within(s.options.executors.progress_interval);
            self.plan(s, delay, HostTimer::Progress);
        }
        Ok(())
    }

    fn carry_out_one(&mut self, s: &mut Surroundings, output: HostOutput) -> Result<(), Halt> {
        let read = s.options.executors.step;
        match output {
            HostOutput::Send { to, session, channel, message } => {
                self.check_told(s, &message);
                s.send(self.node, to, session, channel, &message);
            }
            HostOutput::Epoch { partition, context, entries } => {
                self.deliver(s, partition, ShardEvent::Epoch(context, entries));
            }
            HostOutput::Pushes { partition, pushes } => {
                self.deliver(s, partition, ShardEvent::Pushes(pushes));
            }
            HostOutput::Resume { request, partition, to, after } => {
                let core = &mut self.shard(partition).core;
                core.on_resume(to, after);
                let finished = core.finished();
                self.host.on_resumed(request, finished);
                self.wake(s, partition);
            }
            HostOutput::ResumeReceipts { request, partition } => {
                let core = &mut self.shard(partition).core;
                core.on_receipts_lost();
                let finished = core.finished();
                self.host.on_resumed(request, finished);
                self.wake(s, partition);
            }
            HostOutput::ReadOutbox { request, partition, to, after, limit } => {
                let limit = limit.min(s.random.between(1, 8).try_into().unwrap_or(1));
                let delay = s.within(read);
                self.plan(s, delay, HostTimer::Outbox { request, partition, to, after, limit });
            }
            HostOutput::ReadReceipts { request, partition, from, limit } => {
                let limit = limit.min(s.random.between(1, 32).try_into().unwrap_or(1));
                let delay = s.within(read);
                self.plan(s, delay, HostTimer::Receipts { request, partition, from, limit });
            }
            HostOutput::PruneOutbox { partition, to, through } => {
                s.note(self.node, || {
                    format!("{partition} forgets what {to} has through {through}")
                });
                self.shard(partition).store.prune_outbox(to, through)?;
            }
            HostOutput::Forgotten { partition, applied, pruned } => {
                return Err(Halt::Defect(format!(
                    "{partition} is back at {applied}, but what it needs through {pruned} is \
                     forgotten"
                )));
            }
            HostOutput::Stop(reason) => return Err(Halt::Defect(reason.to_string())),
        }
        Ok(())
    }
}

/// Partitions.
impl Executor {
    fn deliver(&mut self, s: &mut Surroundings, partition: PartitionId, event: ShardEvent) {
        self.shard(partition).inbox.push_back(event);
        self.wake(s, partition);
    }

    fn wake(&mut self, s: &mut Surroundings, partition: PartitionId) {
        if !std::mem::replace(&mut self.shard(partition).is_woken, true) {
            let delay = s.within(s.options.executors.step);
            self.plan(s, delay, HostTimer::Work(partition));
        }
    }

    /// A worker takes what has happened into the state machine.
    fn work(&mut self, s: &mut Surroundings, partition: PartitionId) -> Result<(), Halt> {
        let shard = self.shard(partition);
        shard.is_woken = false;
        let mut pushes_lost = false;
        for event in std::mem::take(&mut shard.inbox) {
            match event {
                ShardEvent::Epoch(context, entries) => shard.core.on_epoch(context, entries),
                ShardEvent::Pushes(pushes) => {
                    pushes.into_iter().for_each(|push| shard.core.on_push(push));
                }
                ShardEvent::Stored(epoch) => shard.core.on_stored(epoch),
            }
            pushes_lost |= shard.core.take_pushes_lost();
        }
        if pushes_lost {
            s.note(self.node, || format!("{partition} has lost pushes"));
            self.host.on_pushes_lost(partition);
        }
        self.drain(s, partition);
        self.order_soon(s);
        Ok(())
    }

    /// Takes the outputs of a partition, and sets its idle workers to work.
    fn drain(&mut self, s: &mut Surroundings, partition: PartitionId) {
        while let Some(output) = self.shard(partition).core.poll_output() {
            match output {
                Output::Fetch { index, key } => {
                    let delay = s.within(s.options.executors.step);
                    self.plan(s, delay, HostTimer::Fetched(partition, index, key));
                }
                Output::Push(push) => self.pushes.push(push),
                Output::Receipt(receipt) => self.receipts.push((partition, receipt)),
                Output::Finished(epoch) => {
                    let shard = self.shard(partition);
                    shard.finished.push_back(*epoch);
                    if shard.finished.len() == 1 {
                        self.plan_commit(s, partition);
                    }
                }
            }
        }
        let workers = s.options.executors.workers;
        let shard = self.shard(partition);
        let mut begun = Vec::new();
        while shard.running.len() < workers
            && let Some(task) = shard.core.take_ready()
        {
            shard.tasks += 1;
            shard.running.insert(shard.tasks, task);
            begun.push(shard.tasks);
        }
        for task in begun {
            let delay = s.within(s.options.executors.step);
            self.plan(s, delay, HostTimer::Executed(partition, task));
        }
        let has_some = !self.pushes.is_empty() || !self.receipts.is_empty();
        if has_some && !std::mem::replace(&mut self.is_flush_planned, true) {
            let delay = s.within(30);
            self.plan(s, delay, HostTimer::Flush);
        }
    }

    fn executed(
        &mut self,
        s: &mut Surroundings,
        partition: PartitionId,
        task: u64,
    ) -> Result<(), Halt> {
        let task = self.shard(partition).running.remove(&task);
        let task = task.expect("a task runs until it is executed");
        let (epoch, entropy) = (&task.context.record, &task.context.entropy);
        let sessions = &mut self.sessions;
        let execution =
            Execution::run(sessions, &task.entry, epoch, entropy, task.index, &task.values)
                .map_err(Halt::Defect)?;
        s.note(self.node, || {
            let receipt = crate::wire::describe_receipt(&execution.receipt);
            format!("{partition} executes {receipt}")
        });
        // As production does after a transaction that took long.
        let enters_all = s.random.chance(100);
        let core = &mut self.shard(partition).core;
        core.on_executed(task, execution.changes, execution.receipt);
        if enters_all {
            core.enter_all();
        }
        self.drain(s, partition);
        Ok(())
    }

    fn flush(&mut self) {
        self.is_flush_planned = false;
        self.host.on_pushes(std::mem::take(&mut self.pushes));
        let mut receipts = std::mem::take(&mut self.receipts);
        receipts.sort_by_key(|(partition, receipt)| (*partition, receipt.position));
        let mut receipts = receipts.into_iter().peekable();
        while let Some((partition, first)) = receipts.next() {
            let mut own = vec![first];
            while let Some((_, receipt)) = receipts.next_if(|(other, _)| *other == partition) {
                own.push(receipt);
            }
            self.host.on_receipts(partition, own);
        }
    }
}
