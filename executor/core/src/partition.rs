//! The state machine of one partition: it schedules, exchanges and finishes.
//!
//! ```text
//!   on_epoch ──▶ enter: one node a transaction, into the queue of each of its keys here
//!                  │  missing = keys held by others + values being fetched + values to be pushed
//!   on_fetched ──▶ │
//!   on_push    ──▶ ▼  missing = 0
//!                home: take_ready ──▶ (a worker executes) ──▶ on_executed: apply here, push
//!                  │                                          changes to the participants
//!                participant: push values to the home, await changes (on_push), apply
//!                  ▼
//!                release the keys: the next in their queues miss one thing less
//!                  ▼
//!                epoch: nothing outstanding, and none before it either ──▶ Output::Finished
//! ```
//!
//! **Invariants**
//! - A value is read and written only by a transaction that holds its key, so that for each key
//!   the order is the agreed one; nothing else orders transactions, and epochs are no barrier.
//! - There is no deadlock: every queue is entered in the agreed order, so of all unfinished
//!   transactions of the cluster the first waits for nobody.
//! - Epochs finish in order, each once; the writes of an epoch are those of its last writers.
//! - What this partition pushed for an epoch is kept until the epoch is finished, and then handed
//!   over to be stored with it, so that a peer that lost it can be served again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_protocol::{
    Access, Change, Entry, EpochNumber, Key, PartitionId, PartitionMap, Position, Push, PushKind,
    Receipt, Role, Value, slice,
};
use smallvec::SmallVec;

use crate::intake::EpochContext;
use crate::keys::{Cached, KeyIndex, KeyTable};
use crate::limits::{CACHE_KEYS_MAX, EARLY_PUSHES_MAX, NODES_MAX};
use crate::nodes::{LocalAccess, Node, NodeIndex, Nodes, Part};

/// A transaction to execute.
#[derive(Debug)]
pub struct Task {
    /// By which to hand back what it did.
    pub node: NodeIndex,
    /// The epoch that it is in.
    pub context: Arc<EpochContext>,
    /// Its index in the epoch.
    pub index: u32,
    /// The transaction.
    pub entry: Arc<Entry>,
    /// A value for each access of its footprint (none for those that only add).
    pub values: Vec<Option<Value>>,
}

/// What an epoch did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochWrite {
    /// The key.
    pub key: Key,
    /// Its value before the epoch.
    pub old: Option<Value>,
    /// Its value after the epoch.
    pub new: Option<Value>,
    /// Whether this partition counts the key in the state digest: it does unless the key is
    /// replicated and its slot lies elsewhere.
    pub counted: bool,
}

/// An epoch of which this partition has done its part, to be stored atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedEpoch {
    /// Its number.
    pub epoch: EpochNumber,
    /// What it did to keys here, each key once.
    pub writes: Vec<EpochWrite>,
    /// Receipts of the transactions that ran here, in the order of their positions.
    pub receipts: Vec<Receipt>,
    /// What was pushed to other partitions.
    pub outbox: Vec<Push>,
    /// How many of the transactions that ran here had keys elsewhere.
    pub multi_partition: u64,
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
    Receipt(Receipt),
    /// Store this atomically, in the order in which these come out, then call
    /// [`Partition::on_stored`].
    Finished(FinishedEpoch),
}

/// An epoch in hand.
#[derive(Debug)]
struct OpenEpoch {
    context: Arc<EpochContext>,
    /// How many transactions of it this partition has not done its part for.
    outstanding: usize,
    written: Vec<KeyIndex>,
    finished: FinishedEpoch,
}

/// An epoch that is on its way to the store.
#[derive(Debug)]
struct StoringEpoch {
    epoch: EpochNumber,
    written: Vec<KeyIndex>,
}

/// The state machine of one partition.
pub struct Partition {
    id: PartitionId,
    map: Arc<PartitionMap>,
    keys: KeyTable,
    nodes: Nodes,
    ready: VecDeque<NodeIndex>,
    /// Participants that hold all their keys from now on. A queue, because one that is done at
    /// once lets others follow: a chain of them would else be as deep on the stack as it is long.
    holding: VecDeque<NodeIndex>,
    /// The last epoch taken in.
    last: EpochNumber,
    open: VecDeque<OpenEpoch>,
    storing: VecDeque<StoringEpoch>,
    /// Pushes for epochs that were not taken in yet.
    early: BTreeMap<Position, Vec<Push>>,
    early_count: usize,
    outputs: VecDeque<Output>,
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
            keys: KeyTable::new(keys_max),
            nodes: Nodes::default(),
            ready: VecDeque::new(),
            holding: VecDeque::new(),
            last: applied,
            open: VecDeque::new(),
            storing: VecDeque::new(),
            early: BTreeMap::new(),
            early_count: 0,
            outputs: VecDeque::new(),
        }
    }

    /// An epoch was ordered. `entries` are the transactions that concern this partition, in
    /// order. An epoch that it has taken in before is ignored.
    ///
    /// # Panics
    /// If an epoch is left out; [`Intake`](crate::Intake) never does.
    pub fn on_epoch(&mut self, context: Arc<EpochContext>, entries: Vec<(u32, Role)>) {
        let epoch = context.record.number;
        if epoch <= self.last {
            return;
        }
        assert_eq!(epoch, self.last.next(), "epochs are taken in without gaps");
        self.last = epoch;
        self.open.push_back(OpenEpoch {
            context,
            outstanding: entries.len(),
            written: Vec::new(),
            finished: FinishedEpoch {
                epoch,
                writes: Vec::new(),
                receipts: Vec::new(),
                outbox: Vec::new(),
                multi_partition: 0,
            },
        });
        for (index, role) in entries {
            self.enter(Position { epoch, index }, role);
        }
        self.drop_stale_pushes();
        self.settle();
    }

    /// The value of a key came from the store.
    pub fn on_fetched(&mut self, index: KeyIndex, value: Option<Value>) {
        if let Cached::Fetching(waiting) = self.keys.set_value(index, value) {
            waiting.into_iter().for_each(|node| self.found_one(node));
        }
        self.settle();
    }

    /// Another partition pushed something. What came before is ignored.
    pub fn on_push(&mut self, push: Push) {
        if push.to != self.id {
            return;
        }
        if let Some(node) = self.nodes.find_shared(push.position) {
            self.deliver(node, push.kind);
            self.settle();
        } else if push.position.epoch > self.last && self.early_count < EARLY_PUSHES_MAX {
            // A push that does not fit is not lost for good: its sender keeps it, and pushes it
            // again when this partition resumes.
            self.early_count += 1;
            self.early.entry(push.position).or_default().push(push);
        }
    }

    /// A worker executed a task: `changes` has an item for each access of the footprint.
    pub fn on_executed(&mut self, node: NodeIndex, changes: &[Change], receipt: Receipt) {
        let node = self.nodes.remove(node);
        let Part::Home { entry, participants, remote } = &node.part else {
            unreachable!("only homes are handed out as tasks");
        };
        for participant in participants {
            let push = writes_for(*participant, &node, entry, changes, &self.map, self.id);
            self.push(push);
        }
        for access in &node.accesses {
            self.apply(node.position.epoch, access.key, &changes[usize::from(access.index)]);
        }
        let open = self.open_epoch(node.position.epoch);
        let is_shared = !participants.is_empty() || !remote.is_empty();
        open.finished.multi_partition += u64::from(is_shared);
        open.finished.receipts.push(receipt.clone());
        self.outputs.push_back(Output::Receipt(receipt));
        self.release(&node);
        self.settle();
    }

    /// The store has an epoch. Epochs are stored in order.
    ///
    /// # Panics
    /// If another epoch was to be stored before.
    pub fn on_stored(&mut self, epoch: EpochNumber) {
        let stored = self.storing.pop_front().expect("an epoch is stored after it finished");
        assert_eq!(stored.epoch, epoch, "epochs are stored in order");
        for key in stored.written {
            self.keys.get_mut(key).uncommitted -= 1;
        }
    }

    /// A peer's partition has applied the epochs through `applied` and may have lost what came
    /// later: pushes again what it is owed for epochs that are not finished here. What it is owed
    /// for those through [`Self::finished`] is in their outboxes.
    pub fn on_resume(&mut self, to: PartitionId, applied: EpochNumber) {
        let owed = self.open.iter().flat_map(|epoch| &epoch.finished.outbox);
        let again = owed.filter(|push| push.to == to && push.position.epoch > applied);
        self.outputs.extend(again.cloned().map(Output::Push));
    }

    /// The sequencer may have lost receipts: gives again those of epochs that are not finished.
    pub fn on_receipts_lost(&mut self) {
        let receipts = self.open.iter().flat_map(|epoch| &epoch.finished.receipts);
        self.outputs.extend(receipts.cloned().map(Output::Receipt));
    }

    /// A transaction to execute, if one is ready.
    pub fn take_ready(&mut self) -> Option<Task> {
        let index = self.ready.pop_front()?;
        let node = self.nodes.get(index);
        let Part::Home { entry, remote, .. } = &node.part else {
            unreachable!("only homes become ready");
        };
        let mut values = vec![None; entry.footprint.accesses().len()];
        for access in node.accesses.iter().filter(|access| access.mode.needs_value()) {
            values[usize::from(access.index)] = self.keys.value(access.key).cloned();
        }
        for (index, value) in remote {
            values[usize::from(*index)] = value.clone().flatten();
        }
        let (entry, position) = (entry.clone(), node.position);
        let context = self.open_epoch(position.epoch).context.clone();
        Some(Task { node: index, context, index: position.index, entry, values })
    }

    /// The next effect to bring about.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The last epoch taken in.
    #[must_use]
    pub fn last(&self) -> EpochNumber {
        self.last
    }

    /// The last epoch that has come out as [`Output::Finished`].
    #[must_use]
    pub fn finished(&self) -> EpochNumber {
        EpochNumber(self.last.0 - self.open.len() as u64)
    }

    /// How many transactions wait or run.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.nodes.len()
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

    /// Whether the next epoch should wait, because too many transactions are in hand.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.nodes.len() >= NODES_MAX
    }

    /// Enters a transaction into the graph.
    fn enter(&mut self, position: Position, role: Role) {
        let (part, accesses, shared) = match role {
            Role::Home(entry) => self.home_part(entry),
            Role::Participant { home, accesses } => self.participant_part(home, accesses),
        };
        let index = self
            .nodes
            .insert(Node { position, missing: 1, accesses: SmallVec::new(), part }, shared);
        let mut missing = self.remote_reads(index);
        let mut entered = SmallVec::new();
        for (footprint_index, access, pushed) in accesses {
            let (key, is_new) = self.keys.enter(&access.key);
            if is_new {
                self.outputs.push_back(Output::Fetch { index: key, key: access.key });
            }
            let state = self.keys.get_mut(key);
            missing += u32::from(!state.queue.enter(index, access.mode));
            if let Cached::Fetching(waiting) = &mut state.cached {
                waiting.push(index);
                missing += 1;
            }
            entered.push(LocalAccess { index: footprint_index, mode: access.mode, key, pushed });
        }
        let node = self.nodes.get_mut(index);
        node.accesses = entered;
        // The one that it was inserted with stands for this very entering.
        node.missing += missing;
        if shared {
            self.deliver_early(index, position);
        }
        self.found_one(index);
    }

    fn home_part(&self, entry: Entry) -> (Part, Vec<(u16, Access, bool)>, bool) {
        let mut accesses = Vec::with_capacity(entry.footprint.accesses().len());
        let mut remote = Vec::new();
        let mut participants = SmallVec::new();
        let mut take_part = |partition: PartitionId| {
            if partition != self.id && !participants.contains(&partition) {
                participants.push(partition);
            }
        };
        for (index, access) in entry.footprint.indexed() {
            if slice::concerns(self.id, self.id, access, &self.map) {
                accesses.push((index, access.clone(), false));
            }
            if slice::is_remote_read(self.id, access, &self.map) {
                remote.push((index, None));
            }
            match access.mode.may_change() {
                true if access.key.is_replicated() => {
                    self.map.partitions().for_each(&mut take_part);
                }
                true => take_part(self.map.owner(&access.key)),
                false => {}
            }
        }
        let shared = !remote.is_empty() || !participants.is_empty();
        (Part::Home { entry: Arc::new(entry), remote, participants }, accesses, shared)
    }

    fn participant_part(
        &self,
        home: PartitionId,
        accesses: Vec<(u16, Access)>,
    ) -> (Part, Vec<(u16, Access, bool)>, bool) {
        let awaited = accesses.iter().filter(|(_, access)| access.mode.may_change()).count();
        let accesses = accesses.into_iter().map(|(index, access)| {
            let pushed = slice::is_remote_read(home, &access, &self.map);
            (index, access, pushed)
        });
        let part = Part::Participant { home, changes: Vec::new(), awaited, holds: false };
        (part, accesses.collect(), true)
    }

    /// How many values a node awaits from other partitions.
    fn remote_reads(&self, index: NodeIndex) -> u32 {
        match &self.nodes.get(index).part {
            Part::Home { remote, .. } => u32::try_from(remote.len()).unwrap_or(u32::MAX),
            Part::Participant { .. } => 0,
        }
    }

    fn deliver_early(&mut self, index: NodeIndex, position: Position) {
        for push in self.early.remove(&position).unwrap_or_default() {
            self.early_count -= 1;
            self.deliver(index, push.kind);
        }
    }

    /// Forgets early pushes for epochs that have come, in which they found no transaction.
    fn drop_stale_pushes(&mut self) {
        while let Some(first) = self.early.first_entry()
            && first.key().epoch <= self.last
        {
            self.early_count -= first.remove().len();
        }
    }

    fn deliver(&mut self, index: NodeIndex, kind: PushKind) {
        match kind {
            PushKind::Reads(items) => {
                for (item, value) in items {
                    if self.deliver_read(index, item, value) {
                        self.found_one(index);
                    }
                }
            }
            PushKind::Writes(items) => self.deliver_writes(index, items),
        }
    }

    /// Whether the value was awaited.
    fn deliver_read(&mut self, index: NodeIndex, item: u16, value: Option<Value>) -> bool {
        let Part::Home { remote, .. } = &mut self.nodes.get_mut(index).part else { return false };
        let Ok(place) = remote.binary_search_by_key(&item, |(index, _)| *index) else {
            return false;
        };
        let awaited = remote[place].1.is_none();
        if awaited {
            remote[place].1 = Some(value);
        }
        awaited
    }

    fn deliver_writes(&mut self, index: NodeIndex, items: Vec<(u16, Change)>) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { changes, awaited, holds, .. } = &mut node.part else { return };
        for (item, change) in items {
            let expected = node.accesses.iter().any(|a| a.index == item && a.mode.may_change());
            if expected && !changes.iter().any(|(known, _)| *known == item) {
                changes.push((item, change));
                *awaited -= 1;
            }
        }
        if *awaited == 0 && *holds {
            self.complete_participant(index);
        }
    }

    /// A node misses one thing less.
    fn found_one(&mut self, index: NodeIndex) {
        let node = self.nodes.get_mut(index);
        node.missing -= 1;
        if node.missing > 0 {
            return;
        }
        match &node.part {
            Part::Home { .. } => self.ready.push_back(index),
            Part::Participant { .. } => self.holding.push_back(index),
        }
    }

    /// Brings to an end what an event has begun.
    fn settle(&mut self) {
        while let Some(index) = self.holding.pop_front() {
            self.participate(index);
        }
        self.finish_epochs();
    }

    /// A participant holds its keys: it pushes their values, and is done if it awaits no changes.
    fn participate(&mut self, index: NodeIndex) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { home, awaited, holds, .. } = &mut node.part else { return };
        *holds = true;
        let (home, awaited) = (*home, *awaited);
        let pushed = node.accesses.iter().filter(|access| access.pushed);
        let items: Vec<_> =
            pushed.map(|access| (access.index, self.keys.value(access.key).cloned())).collect();
        let position = node.position;
        if !items.is_empty() {
            let kind = PushKind::Reads(items);
            self.push(Push { position, from: self.id, to: home, kind });
        }
        if awaited == 0 {
            self.complete_participant(index);
        }
    }

    fn complete_participant(&mut self, index: NodeIndex) {
        let node = self.nodes.remove(index);
        let Part::Participant { changes, .. } = &node.part else { return };
        for (item, change) in changes {
            if let Some(access) = node.accesses.iter().find(|access| access.index == *item) {
                self.apply(node.position.epoch, access.key, change);
            }
        }
        self.release(&node);
    }

    /// Changes the value of a key, on behalf of a transaction that holds it.
    ///
    /// Additions of several epochs may hold a key together, so one of an earlier epoch may come
    /// after one of a later epoch; what the later epochs found and left is then corrected.
    fn apply(&mut self, epoch: EpochNumber, key: KeyIndex, change: &Change) {
        if *change == Change::Keep {
            return;
        }
        let new = change.apply(self.keys.value(key));
        let Cached::Known(mut old) = self.keys.set_value(key, new) else {
            unreachable!("a transaction runs when its values are known");
        };
        let first = self.open.front().expect("the epoch of a node is open").finished.epoch;
        let place_of =
            |epoch: EpochNumber| usize::try_from(epoch.0 - first.0).expect("few epochs are open");
        let state = self.keys.get_mut(key);
        let later = state.writes.iter().rev().take_while(|(other, _)| *other > epoch);
        for (other, place) in later {
            let write = &mut self.open[place_of(*other)].finished.writes[*place];
            old.clone_from(&write.old);
            write.old = change.apply(write.old.as_ref());
            write.new = change.apply(write.new.as_ref());
        }
        let open = &mut self.open[place_of(epoch)];
        match state.writes.binary_search_by_key(&epoch, |(other, _)| *other) {
            Ok(known) => {
                let write = &mut open.finished.writes[state.writes[known].1];
                write.new = change.apply(write.new.as_ref());
            }
            Err(among) => {
                state.writes.insert(among, (epoch, open.finished.writes.len()));
                state.uncommitted += 1;
                let counted = !state.key.is_replicated() || self.map.owner(&state.key) == self.id;
                let new = change.apply(old.as_ref());
                let name = state.key.clone();
                open.finished.writes.push(EpochWrite { key: name, old, new, counted });
                open.written.push(key);
            }
        }
    }

    /// Lets the keys of a node go, and counts it as done.
    fn release(&mut self, node: &Node) {
        for access in &node.accesses {
            for next in self.keys.get_mut(access.key).queue.leave() {
                self.found_one(next);
            }
        }
        self.open_epoch(node.position.epoch).outstanding -= 1;
    }

    fn push(&mut self, push: Push) {
        self.open_epoch(push.position.epoch).finished.outbox.push(push.clone());
        self.outputs.push_back(Output::Push(push));
    }

    /// # Panics
    /// If the epoch is not open, which would be a defect: it is while it has nodes.
    fn open_epoch(&mut self, epoch: EpochNumber) -> &mut OpenEpoch {
        let first = self.open.front().expect("the epoch of a node is open").finished.epoch;
        &mut self.open[usize::try_from(epoch.0 - first.0).expect("few epochs are open")]
    }

    fn finish_epochs(&mut self) {
        while self.open.front().is_some_and(|epoch| epoch.outstanding == 0)
            && let Some(mut epoch) = self.open.pop_front()
        {
            for key in &epoch.written {
                let writes = &mut self.keys.get_mut(*key).writes;
                writes.retain(|(other, _)| *other != epoch.finished.epoch);
            }
            // ORDER: workers finish in any order; what is stored must not depend on it.
            epoch.finished.receipts.sort_by_key(|receipt| receipt.position);
            epoch.finished.outbox.sort_by_key(|push| (push.to, push.position));
            self.storing
                .push_back(StoringEpoch { epoch: epoch.finished.epoch, written: epoch.written });
            self.outputs.push_back(Output::Finished(epoch.finished));
        }
    }
}

/// What a transaction did to the keys that `participant` has to change: an item for each.
fn writes_for(
    participant: PartitionId,
    node: &Node,
    entry: &Entry,
    changes: &[Change],
    map: &PartitionMap,
    home: PartitionId,
) -> Push {
    let concerned = entry.footprint.indexed().filter(|(_, access)| {
        access.mode.may_change() && slice::concerns(participant, home, access, map)
    });
    let items = concerned.map(|(index, _)| (index, changes[usize::from(index)].clone()));
    let kind = PushKind::Writes(items.collect());
    Push { position: node.position, from: home, to: participant, kind }
}
