//! The state machine of one partition: it schedules, exchanges and finishes.
//!
//! ```text
//!   on_epoch ──▶ pending, until few are ready
//!                  ▼
//!                enter: one node a transaction, into the queue of each of its keys here
//!                  │  missing = keys held by others + values being fetched + values to be pushed
//!   on_fetched ──▶ │
//!   on_push    ──▶ ▼  missing = 0
//!                home: take_ready ──▶ (a worker executes) ──▶ on_executed: apply here, push
//!                  │                                          changes to the participants
//!                participant: push values to the home; when it holds the other keys, too, and the
//!                  │                                          changes have come (on_push), apply
//!                  ▼
//!                release the keys: the next in their queues miss one thing less
//!                  ▼
//!                epoch: nothing outstanding, and none before it either ──▶ Output::Finished
//! ```
//!
//! **Invariants**
//! - A value is read and written only by a transaction that holds its key, or the [copy](Copies) of
//!   it that transactions here leave to one another, so that for each key the order is the agreed one;
//!   nothing else orders transactions, and epochs are no barrier.
//! - There is no deadlock: every queue is entered in the agreed order, so of all unfinished
//!   transactions of the cluster the first waits for nobody.
//! - Epochs finish in order, each once; the writes of an epoch are those of its last writers.
//! - What this partition pushed for an epoch is kept until the epoch is finished, and then handed
//!   over to be stored with it, so that a peer that lost it can be served again.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::{
    Access, Change, Entry, EpochNumber, Forward, Key, Mode, PartitionId, PartitionMap, Position,
    Push, Receipt, Role, Value,
};
use smallvec::SmallVec;

use crate::copies::Copies;
use crate::epochs::{Epochs, FinishedEpoch};
use crate::exchange::Early;
use crate::intake::EpochContext;
use crate::keys::{Cached, KeyIndex, KeyTable, Places};
use crate::limits::{CACHE_KEYS_MAX, KEYS_TOGETHER, NODES_MAX, READY_AHEAD, READY_LOW};
use crate::nodes::{LocalAccess, LocalAccesses, Node, NodeIndex, Nodes, Part, Participants};
use crate::pending::{Next, Pending};
use crate::traffic::Traffic;

/// A transaction to execute.
#[derive(Debug)]
pub struct Task {
    node: NodeIndex,
    /// The epoch that it is in.
    pub context: Arc<EpochContext>,
    /// Its index in the epoch.
    pub index: u32,
    /// The transaction.
    pub entry: Arc<Entry>,
    /// A value for each access of its footprint (none for those that only add). To be handed back as
    /// they are: those of keys that it may write are lent.
    pub values: Vec<Option<Value>>,
}

/// A transaction that is entered into the queues of its keys, and is no node yet.
pub(crate) struct Entering {
    /// Where its node will be.
    pub(crate) index: NodeIndex,
    pub(crate) missing: u32,
    /// What it waits for with keys whose values it has to hold only when it changes them.
    pub(crate) late: u32,
    accesses: LocalAccesses,
    /// Keys that it shares with readers before it.
    shared: SmallVec<[KeyIndex; 8]>,
}

impl Entering {
    /// One with so many keys here, at most.
    fn new(index: NodeIndex, keys: usize) -> Self {
        let accesses = LocalAccesses::with_capacity(keys);
        Self { index, missing: 0, late: 0, accesses, shared: SmallVec::new() }
    }
}

/// An effect that the shell has to bring about.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Fetch the value of a key from the store, and hand it to [`Partition::on_fetched`].
    Fetch {
        /// By which to hand it over.
        index: KeyIndex,
        /// The key.
        key: Key,
    },
    /// Hand this to another partition.
    Push(Push),
    /// Tell the sequencer.
    Receipt(Arc<Receipt>),
    /// Store this atomically, in the order in which these come out, then call
    /// [`Partition::on_stored`].
    Finished(Box<FinishedEpoch>),
}

/// The state machine of one partition.
pub struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) map: Arc<PartitionMap>,
    pub(crate) keys: KeyTable,
    pub(crate) nodes: Nodes,
    pub(crate) copies: Copies,
    /// Transactions of epochs that were taken in, which are not nodes yet.
    pending: Pending,
    /// Where keys of the next of them were when they were looked for.
    places: Places,
    ready: VecDeque<NodeIndex>,
    /// With fewer ready than this, more are entered ...
    ready_low: usize,
    /// ... until so many are.
    ready_ahead: usize,
    /// Participants that hold all keys that they push, or all that they have, from now on. A queue,
    /// because one that is done at once lets others follow: a chain of them would else be as deep on
    /// the stack as it is long.
    holding: VecDeque<NodeIndex>,
    pub(crate) epochs: Epochs,
    pub(crate) early: Early,
    pub(crate) traffic: Traffic,
    pub(crate) outputs: VecDeque<Output>,
}

impl Partition {
    /// A partition whose store holds the epochs through `applied`.
    #[must_use]
    pub fn new(id: PartitionId, map: Arc<PartitionMap>, applied: EpochNumber) -> Self {
        Self::with_cache(id, map, applied, CACHE_KEYS_MAX)
    }

    /// As [`Self::new`], keeping the values of at most `keys_max` unused keys in memory.
    #[must_use]
    pub fn with_cache(
        id: PartitionId,
        map: Arc<PartitionMap>,
        applied: EpochNumber,
        keys_max: usize,
    ) -> Self {
        Self {
            id,
            map,
            keys: KeyTable::new(keys_max, applied),
            nodes: Nodes::default(),
            copies: Copies::default(),
            pending: Pending::default(),
            places: Places::default(),
            ready: VecDeque::new(),
            ready_low: READY_LOW,
            ready_ahead: READY_AHEAD,
            holding: VecDeque::new(),
            epochs: Epochs::new(applied),
            early: Early::default(),
            traffic: Traffic::default(),
            outputs: VecDeque::new(),
        }
    }

    /// As [`Self::new`] makes one, but it enters transactions only when fewer than `low` are ready,
    /// until `ahead` are.
    #[must_use]
    pub fn with_ready(mut self, low: usize, ahead: usize) -> Self {
        (self.ready_low, self.ready_ahead) = (low, ahead);
        self
    }

    /// An epoch was ordered. `entries` are the transactions that concern this partition, in
    /// order. An epoch that it has taken in before is ignored.
    ///
    /// # Panics
    /// If an epoch is left out; [`Intake`](crate::Intake) never does.
    pub fn on_epoch(&mut self, context: Arc<EpochContext>, entries: Vec<(u32, Role)>) {
        let epoch = context.record.number;
        if epoch <= self.epochs.last() {
            return;
        }
        self.epochs.begin(context, entries.len());
        self.pending.push(epoch, entries);
        self.enter_while_fewer_are_ready_than(self.ready_ahead);
    }

    /// Enters all transactions that were taken in, however many are ready.
    ///
    /// To be called after a transaction that took long, so that what other partitions wait for does not
    /// wait for more of its kind.
    pub fn enter_all(&mut self) {
        self.enter_while_fewer_are_ready_than(usize::MAX);
    }

    /// The value of a key came from the store.
    pub fn on_fetched(&mut self, index: KeyIndex, value: Option<Value>) {
        for node in self.keys.on_fetched(index, value) {
            self.found_key(node, index);
        }
        self.settle();
    }

    /// Another partition pushed something. What came before is ignored.
    pub fn on_push(&mut self, push: Push) {
        if push.to != self.id {
            return;
        }
        self.traffic.pushes_received += 1;
        if let Some(node) = self.nodes.find_shared(push.position) {
            self.deliver(node, push.kind);
            self.settle();
        } else if push.position >= self.pending.first(self.epochs.last()) {
            self.early.keep(push);
        }
    }

    /// A worker executed a task: `changes` has an item for each access of the footprint.
    pub fn on_executed(&mut self, task: Task, changes: Vec<Change>, receipt: Receipt) {
        let node = self.nodes.remove(task.node);
        let epoch = node.position.epoch;
        let Part::Home { participants, copies, .. } = &node.part else {
            unreachable!("only homes are handed out as tasks");
        };
        for participant in participants {
            self.push_writes(*participant, node.position, &task.entry, &changes);
        }
        for access in copies.iter().filter(|access| access.mode.may_change()) {
            self.copies.change(access.copy, &changes[usize::from(access.index)]);
        }
        let mut local = node.accesses.iter().peekable();
        let accesses =
            Arc::unwrap_or_clone(task.entry).footprint.into_accesses().into_iter().zip(task.values);
        for (index, ((access, value), change)) in (0..=u16::MAX).zip(accesses.zip(changes)) {
            if let Some(here) = local.next_if(|here| here.index == index) {
                if here.mode == Mode::Write {
                    self.keys.give_back(here.key, value);
                }
                self.apply(epoch, here.key, access.key, change);
            }
        }
        let receipt = Arc::new(receipt);
        let open = self.epochs.get_mut(epoch);
        open.multi_partition += u64::from(node.part.is_shared());
        open.receipts.push(receipt.clone());
        self.outputs.push_back(Output::Receipt(receipt));
        self.release(&node);
        self.settle();
    }

    /// The store has an epoch. Epochs are stored in order.
    ///
    /// # Panics
    /// If another epoch was to be stored before.
    pub fn on_stored(&mut self, epoch: EpochNumber) {
        self.epochs.on_stored(epoch);
        self.keys.on_stored(epoch);
    }

    /// A peer's partition has applied the epochs through `applied` and may have lost what came
    /// later: pushes again what it is owed for epochs that are not finished here. What it is owed
    /// for those through [`Self::finished`] is in their outboxes.
    pub fn on_resume(&mut self, to: PartitionId, applied: EpochNumber) {
        let owed = self.epochs.iter().flat_map(|epoch| &epoch.outbox);
        let again = owed.filter(|push| push.to == to && push.position.epoch > applied);
        self.outputs.extend(again.cloned().map(Output::Push));
    }

    /// The sequencer may have lost receipts: gives again those of epochs that are not finished.
    pub fn on_receipts_lost(&mut self) {
        let receipts = self.epochs.iter().flat_map(|epoch| &epoch.receipts);
        self.outputs.extend(receipts.cloned().map(Output::Receipt));
    }

    /// A transaction to execute, if one is ready.
    pub fn take_ready(&mut self) -> Option<Task> {
        if self.ready.len() < self.ready_low {
            self.enter_while_fewer_are_ready_than(self.ready_ahead);
        }
        let index = self.ready.pop_front()?;
        let node = self.nodes.get_mut(index);
        let Part::Home { entry, remote, copies, .. } = &mut node.part else {
            unreachable!("only homes become ready");
        };
        let entry = entry.take().expect("a task is handed out once");
        let nothing = std::iter::repeat_with(|| None);
        let mut values: Vec<_> = nothing.take(entry.footprint.accesses().len()).collect();
        for access in node.accesses.iter().filter(|access| access.mode.needs_value()) {
            values[usize::from(access.index)] = match access.mode {
                // Nobody else looks at it meanwhile, and a clone costs two atomic operations.
                Mode::Write => self.keys.lend(access.key),
                _ => self.keys.value(access.key).cloned(),
            };
        }
        for (index, value) in remote {
            values[usize::from(*index)] = value.take().flatten();
        }
        for (index, value) in std::mem::take(&mut node.read) {
            values[usize::from(index)] = value;
        }
        for access in copies.iter().filter(|access| access.is_left) {
            values[usize::from(access.index)] = self.copies.value(access.copy);
        }
        let position = node.position;
        let context = self.epochs.get_mut(position.epoch).context.clone();
        Some(Task { node: index, context, index: position.index, entry, values })
    }

    /// The next effect to bring about.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The last epoch taken in.
    #[must_use]
    pub fn last(&self) -> EpochNumber {
        self.epochs.last()
    }

    /// The last epoch that has come out as [`Output::Finished`].
    #[must_use]
    pub fn finished(&self) -> EpochNumber {
        self.epochs.finished()
    }

    /// How many transactions wait or run.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.nodes.len() + self.pending.len()
    }

    /// How many transactions are ready to be executed.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many keys are in memory.
    #[must_use]
    pub fn cached_keys(&self) -> usize {
        self.keys.len()
    }

    /// What it has had to do, and what it has handed to others, since it started.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether the next epoch should wait, because too many transactions are in hand.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.in_hand() >= NODES_MAX
    }

    /// Enters transactions into the graph, but not more than keep the workers busy for a while: one
    /// that is executed soon after it was entered finds its keys still in the processor's cache. What
    /// waits for others does not count, so that whatever can be done for them is done.
    fn enter_while_fewer_are_ready_than(&mut self, ready_max: usize) {
        while self.ready.len() < ready_max {
            if self.places.is_empty() {
                self.find_next();
            }
            match self.pending.next() {
                Some(Next::Transaction(position, role)) => self.enter(position, role),
                Some(Next::EndOf(epoch)) => self.early.drop_through(epoch),
                None => break,
            }
        }
        self.settle();
    }

    /// Finds the keys of the transactions that come next.
    fn find_next(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        let mut keys = 0;
        let next = self.pending.upcoming().iter().map(|(_, role)| accesses(role));
        let next = next.take_while(|(home, part)| {
            let is_room = keys < KEYS_TOGETHER;
            keys += home.len() + part.len();
            is_room
        });
        let accesses = next.flat_map(|(home, part)| {
            let here =
                home.iter().filter(|access| self.is_here(&access.key, self.map.owner(&access.key)));
            here.chain(part.iter().map(|(_, access)| access))
        });
        self.keys.find_all(accesses.map(|access| &access.key), &mut places);
        self.places = places;
    }

    /// Whether a key of a transaction that runs here is in this partition.
    fn is_here(&self, key: &Key, owner: PartitionId) -> bool {
        key.is_replicated() || owner == self.id
    }

    /// Enters a transaction into the graph.
    fn enter(&mut self, position: Position, role: Role) {
        let (home, part) = accesses(&role);
        let mut entering = Entering::new(self.nodes.reserve(), home.len() + part.len());
        let part = match role {
            Role::Home { entry, forwards } => {
                self.traffic.homed += 1;
                self.enter_home(&mut entering, entry, &forwards)
            }
            Role::Participant { home, accesses, forwarded } => {
                self.traffic.participations += 1;
                self.enter_participant(&mut entering, home, &accesses, &forwarded)
            }
        };
        let Entering { index, missing, accesses, shared, .. } = entering;
        let is_shared = part.is_shared();
        self.nodes.place(index, Node { position, missing, accesses, read: Vec::new(), part });
        if missing == 0 {
            self.found_all(index);
        } else {
            shared.into_iter().for_each(|key| self.read_early(index, key));
        }
        if is_shared {
            for push in self.early.take(position) {
                self.deliver(index, push.kind);
            }
        }
    }

    fn enter_home(
        &mut self,
        entering: &mut Entering,
        entry: Arc<Entry>,
        forwards: &[(u16, Forward)],
    ) -> Part {
        let (mut remote, mut copies) = (Vec::new(), Vec::with_capacity(forwards.len()));
        let mut forwards = forwards.iter().peekable();
        let mut participants = Participants::new();
        for (index, access) in entry.footprint.indexed() {
            let owner = self.map.owner(&access.key);
            if self.is_here(&access.key, owner) {
                self.enter_key(entering, (index, access), None);
            } else if access.mode.needs_value() {
                let forward = forwards.next_if(|(next, _)| *next == index);
                let copy =
                    forward.and_then(|(_, how)| self.enter_copy(entering, index, access, *how));
                if copy.is_none_or(|copy| !copy.is_left) {
                    remote.push((index, None));
                }
                copies.extend(copy);
            }
            if access.mode.may_change() {
                self.add_writers(access, owner, &mut participants);
            }
        }
        entering.missing += u32::try_from(remote.len()).expect("a footprint's keys fit a u16");
        Part::Home { entry: Some(entry), remote, copies, participants }
    }

    /// Adds the partitions other than this one that a write to a key has as participants.
    fn add_writers(&self, access: &Access, owner: PartitionId, participants: &mut Participants) {
        let mut add = |partition: PartitionId| {
            if partition != self.id && !participants.contains(&partition) {
                participants.push(partition);
            }
        };
        match access.key.is_replicated() {
            true => self.map.partitions().for_each(add),
            false => add(owner),
        }
    }

    /// Enters a transaction into the queue of a key: of the one whose place is next, because the keys of
    /// transactions are entered in the order in which they were found. Of a participant's is told
    /// whether their values are `pushed`.
    pub(crate) fn enter_key(
        &mut self,
        entering: &mut Entering,
        (index, access): (u16, &Access),
        pushed: Option<bool>,
    ) {
        let place = self.places.take().expect("the keys of what is entered were looked for");
        let counted = || !access.key.is_replicated() || self.map.owner(&access.key) == self.id;
        let (key, is_new) = self.keys.enter(&access.key, place, counted);
        if is_new {
            self.outputs.push_back(Output::Fetch { index: key, key: access.key.clone() });
        }
        let state = self.keys.get_mut(key);
        let is_free = state.queue.is_empty();
        let holds = state.queue.enter(entering.index, access.mode);
        let mut missing = u32::from(!holds);
        if holds && !is_free && access.mode == Mode::Read {
            entering.shared.push(key);
        }
        if let Cached::Fetching(waiting) = &mut state.cached {
            waiting.push(entering.index);
            missing += 1;
        }
        match pushed {
            Some(false) => entering.late += missing,
            _ => entering.missing += missing,
        }
        let pushed = pushed == Some(true);
        entering.accesses.push(LocalAccess { index, mode: access.mode, key, pushed });
    }

    /// A node misses one thing less with one of its keys.
    pub(crate) fn found_key(&mut self, index: NodeIndex, key: KeyIndex) {
        let node = self.nodes.get_mut(index);
        match &mut node.part {
            Part::Participant { late, awaited, holds, .. }
                if node.accesses.iter().any(|access| access.key == key && !access.pushed) =>
            {
                *late -= 1;
                if *late == 0 && *awaited == 0 && *holds {
                    self.holding.push_back(index);
                }
            }
            _ => self.found_one(index),
        }
    }

    /// A node misses one thing less.
    pub(crate) fn found_one(&mut self, index: NodeIndex) {
        let node = self.nodes.get_mut(index);
        node.missing -= 1;
        if node.missing == 0 {
            self.found_all(index);
        }
    }

    /// A node misses nothing any more.
    fn found_all(&mut self, index: NodeIndex) {
        match &self.nodes.get(index).part {
            Part::Home { .. } => self.ready.push_back(index),
            Part::Participant { .. } => self.holding.push_back(index),
        }
    }

    /// Brings to an end what an event has begun.
    fn settle(&mut self) {
        while let Some(index) = self.holding.pop_front() {
            self.participate(index);
        }
        while let Some(finished) = self.epochs.finish_first() {
            self.outputs.push_back(Output::Finished(Box::new(finished)));
        }
    }

    /// Changes the value of a key, on behalf of a transaction that holds it.
    pub(crate) fn apply(&mut self, epoch: EpochNumber, index: KeyIndex, key: Key, change: Change) {
        if change != Change::Keep {
            self.epochs.write(&mut self.keys, epoch, index, key, change);
        }
    }

    /// Reads a key that a node holds, and lets the key go, while the node still waits for others: a
    /// reader is done with a key when it has the value, and a writer behind it need not wait for what
    /// else that transaction waits for.
    fn read_early(&mut self, index: NodeIndex, key: KeyIndex) {
        let node = self.nodes.get_mut(index);
        let is_read = |access: &LocalAccess| access.key == key && access.mode == Mode::Read;
        let Some(at) = node.accesses.iter().position(is_read) else { return };
        let Cached::Known(value) = &self.keys.get(key).cached else { return };
        node.read.push((node.accesses[at].index, value.clone()));
        node.accesses.remove(at);
        self.let_go(key);
    }

    /// One that holds a key lets it go.
    pub(crate) fn let_go(&mut self, key: KeyIndex) {
        for next in self.keys.get_mut(key).queue.leave().into_iter().flatten() {
            self.found_key(next, key);
            // Readers are followed by others than readers, so this comes back once at most.
            if self.nodes.get(next).missing > 0 {
                self.read_early(next, key);
            }
        }
    }

    /// Lets the keys of a node go, and counts it as done.
    pub(crate) fn release(&mut self, node: &Node) {
        for access in &node.accesses {
            self.let_go(access.key);
        }
        if let Part::Home { copies, .. } = &node.part {
            for access in copies {
                let next = self.copies.leave(access.copy);
                next.into_iter().flatten().for_each(|next| self.found_one(next));
            }
        }
        self.epochs.get_mut(node.position.epoch).outstanding -= 1;
    }
}

/// The accesses of a transaction that runs here, or those by which this partition has a part in it.
fn accesses(role: &Role) -> (&[Access], &[(u16, Access)]) {
    match role {
        Role::Home { entry, .. } => (entry.footprint.accesses(), &[]),
        Role::Participant { accesses, .. } => (&[], accesses),
    }
}
