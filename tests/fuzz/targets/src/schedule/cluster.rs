//! A cluster of partitions in one thread: the executors' own state machines and stores in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_executor::to_commit;
use parsec_executor_core::{FinishedEpoch, Intake, KeyIndex, Output, Partition, Task};
use parsec_protocol::{
    EpochNumber, EpochRecord, HostSlices, Key, PartitionId, PartitionMap, Push, Receipt, slice,
};
use parsec_runtimes::{Execution, Sessions};
use parsec_storage::{Digest, MemoryStore, Store as _};

use super::Dice;
use super::programs::{Order, keys, runtimes};

/// More than any order takes, unless something is lost or deadlocked.
const STEPS_MAX: usize = 400_000;
/// After so many steps nobody restarts any more, so that it comes to an end.
const STEPS_WITH_RESTARTS: usize = 4_000;

/// What a host hears from the sequencer, in this order.
enum Heard {
    Slices(HostSlices),
    Epoch(EpochRecord),
}

/// A host with one partition. Its store survives a restart, all else does not.
struct Host {
    id: PartitionId,
    store: MemoryStore,
    sessions: Sessions,
    intake: Intake,
    partition: Partition,
    heard: VecDeque<Heard>,
    fetches: Vec<(KeyIndex, Key)>,
    tasks: Vec<Task>,
    finished: VecDeque<FinishedEpoch>,
}

/// The cluster.
pub(super) struct Cluster<'a> {
    map: Arc<PartitionMap>,
    cache: usize,
    order: &'a Order,
    hosts: Vec<Host>,
    wire: Vec<Push>,
    /// Every push that a host got since it started: one that comes again does no harm, but it is
    /// no cure for one that was lost, either.
    past: Vec<Push>,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(map: &Arc<PartitionMap>, cache: usize, order: &'a Order) -> Self {
        let begin = EpochNumber(0);
        let host = |id| Host {
            id,
            store: MemoryStore::new(),
            sessions: runtimes().sessions(),
            intake: Intake::new(begin),
            partition: Partition::with_cache(id, map.clone(), begin, cache),
            heard: from_sequencer(order, map, id, begin),
            fetches: Vec::new(),
            tasks: Vec::new(),
            finished: VecDeque::new(),
        };
        let hosts = map.partitions().map(host).collect();
        Self { map: map.clone(), cache, order, hosts, wire: Vec::new(), past: Vec::new() }
    }

    /// Runs until every host has stored every epoch.
    pub(super) fn run(&mut self, dice: &mut Dice<'_>) {
        let last = EpochNumber(self.order.epochs.len() as u64);
        let mut steps = 0;
        while self.hosts.iter().any(|host| host.store.applied().epoch < last) {
            self.step(dice, steps < STEPS_WITH_RESTARTS);
            steps += 1;
            assert!(steps < STEPS_MAX, "no progress: something is lost or deadlocked");
        }
    }

    fn step(&mut self, dice: &mut Dice<'_>, restarts: bool) {
        let at = dice.roll(self.hosts.len());
        match dice.roll(64) {
            0..12 => self.hosts[at].hear(),
            12..22 if !self.wire.is_empty() => {
                let push = self.wire.swap_remove(dice.roll(self.wire.len()));
                self.deliver(push);
            }
            22..30 => self.hosts[at].fetch(dice),
            30..38 => self.hosts[at].take(),
            38..50 => self.hosts[at].execute(dice),
            50..56 => self.hosts[at].store(),
            56..58 if !self.past.is_empty() => {
                let push = self.past.swap_remove(dice.roll(self.past.len()));
                self.deliver(push);
            }
            58..60 => self.hosts[at].partition.enter_all(),
            60 => self.hosts[at].partition.on_receipts_lost(),
            61 => self.forget_what_is_owed(at, dice.roll(self.hosts.len())),
            62 if restarts && dice.roll(4) == 0 => self.restart(at),
            _ => {}
        }
        for host in &mut self.hosts {
            host.collect(self.order, &mut self.wire);
        }
    }

    fn deliver(&mut self, push: Push) {
        self.past.push(push.clone());
        self.hosts[push.to.index()].partition.on_push(push);
    }

    /// A host forgets what it owed to one that has stored it.
    fn forget_what_is_owed(&mut self, by: usize, to: usize) {
        let (id, through) = (self.hosts[to].id, self.hosts[to].store.applied().epoch);
        self.hosts[by].store.prune_outbox(id, through).unwrap();
    }

    /// A host loses all but its store, and all that is under way to it and from it.
    fn restart(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let (id, applied) = (host.id, host.store.applied().epoch);
        host.intake = Intake::new(applied);
        host.partition = Partition::with_cache(id, self.map.clone(), applied, self.cache);
        host.heard = from_sequencer(self.order, &self.map, id, applied);
        host.fetches.clear();
        host.tasks.clear();
        host.finished.clear();
        self.wire.retain(|push| push.to != id && push.from != id);
        self.past.retain(|push| push.to != id);
        for other in 0..self.hosts.len() {
            let peer = &mut self.hosts[other];
            let (peer_id, reached) = (peer.id, peer.store.applied().epoch);
            let stored = peer.store.outbox(id, applied, usize::MAX).unwrap();
            let finished = peer.finished.iter().flat_map(|epoch| &epoch.outbox);
            let finished = finished.filter(|push| push.to == id && push.position.epoch > applied);
            self.wire.extend(stored.into_iter().chain(finished.cloned()));
            peer.partition.on_resume(id, applied);
            let owed = self.hosts[at].store.outbox(peer_id, reached, usize::MAX).unwrap();
            self.wire.extend(owed);
        }
    }

    /// Compares with the serial oracle.
    pub(super) fn check(&self) {
        let mut receipts: Vec<Receipt> = Vec::new();
        for host in &self.hosts {
            let stored = host.store.receipts(EpochNumber(0), usize::MAX).unwrap();
            receipts.extend(stored.into_iter().flat_map(|(_, receipts)| receipts));
            host.store.verify(&|key: &Key| self.map.owner(key) == host.id).unwrap();
        }
        receipts.sort_by_key(|receipt| receipt.position);
        assert_eq!(receipts, self.order.receipts);
        self.check_states();
        let applied = || self.hosts.iter().map(|host| host.store.applied());
        assert_eq!(applied().map(|a| a.state).sum::<Digest>(), self.order.state_digest);
        assert_eq!(applied().map(|a| a.receipts).sum::<Digest>(), self.order.receipts_digest);
        assert_eq!(applied().map(|a| a.executed).sum::<u64>(), receipts.len() as u64);
    }

    /// Every key has the oracle's value after every epoch, wherever it stands.
    fn check_states(&self) {
        let keys: Vec<Key> = keys().collect();
        for ordered in &self.order.epochs {
            let number = ordered.record.number;
            for host in &self.hosts {
                let found = host.store.read_at(number, &keys).unwrap();
                for (key, value) in keys.iter().zip(&found) {
                    if key.is_replicated() || self.map.owner(key) == host.id {
                        let expected = ordered.state.get(key);
                        assert_eq!(value.as_ref(), expected, "{key} after {number}");
                    }
                }
            }
        }
    }
}

/// What the sequencer sends to the host of a partition for the epochs after `applied`.
fn from_sequencer(
    order: &Order,
    map: &PartitionMap,
    id: PartitionId,
    applied: EpochNumber,
) -> VecDeque<Heard> {
    let mut heard = VecDeque::new();
    for epoch in order.epochs.iter().filter(|epoch| epoch.record.number > applied) {
        for (batch, reference) in epoch.batches.iter().zip(&epoch.record.batches) {
            let mut slices = slice::cut(batch, map);
            slices.retain(|slice| slice.partition == id && !slice.entries.is_empty());
            let (lane, sequence, digest) = (batch.lane, batch.sequence, reference.digest);
            heard.push_back(Heard::Slices(HostSlices { lane, sequence, digest, slices }));
        }
        heard.push_back(Heard::Epoch(epoch.record.clone()));
    }
    heard
}

impl Host {
    fn hear(&mut self) {
        match self.heard.pop_front() {
            Some(Heard::Slices(slices)) => self.intake.on_slices(slices).unwrap(),
            Some(Heard::Epoch(record)) => {
                let ready = self.intake.on_epoch(record).unwrap().expect("it is the next");
                let own = ready.partitions.into_iter().find(|(partition, _)| *partition == self.id);
                let entries = own.map(|(_, entries)| entries).unwrap_or_default();
                self.partition.on_epoch(ready.context, entries);
            }
            None => {}
        }
    }

    fn fetch(&mut self, dice: &mut Dice<'_>) {
        if !self.fetches.is_empty() {
            let (index, key) = self.fetches.swap_remove(dice.roll(self.fetches.len()));
            self.partition.on_fetched(index, self.store.get(&key).unwrap());
        }
    }

    fn take(&mut self) {
        self.tasks.extend(self.partition.take_ready());
    }

    fn execute(&mut self, dice: &mut Dice<'_>) {
        if self.tasks.is_empty() {
            return;
        }
        let task = self.tasks.swap_remove(dice.roll(self.tasks.len()));
        let (context, sessions) = (&task.context, &mut self.sessions);
        let (record, entropy) = (&context.record, &context.entropy);
        let execution =
            Execution::run(sessions, &task.entry, record, entropy, task.index, &task.values);
        let Execution { changes, receipt } = execution.unwrap();
        self.partition.on_executed(task, changes, receipt);
    }

    fn store(&mut self) {
        let Some(finished) = self.finished.pop_front() else { return };
        let number = finished.epoch;
        assert_eq!(number, self.store.applied().epoch.next());
        let commit = to_commit(finished);
        match commit.is_empty() {
            true => self.store.advance(number),
            false => self.store.commit(commit).unwrap(),
        }
        self.partition.on_stored(number);
    }

    fn collect(&mut self, order: &Order, wire: &mut Vec<Push>) {
        while let Some(output) = self.partition.poll_output() {
            match output {
                Output::Fetch { index, key } => self.fetches.push((index, key)),
                Output::Push(push) => wire.push(push),
                Output::Receipt(receipt) => {
                    let at = order.receipts.binary_search_by_key(&receipt.position, |r| r.position);
                    let expected = at.ok().map(|at| &order.receipts[at]);
                    assert_eq!(Some(&*receipt), expected, "a receipt differs");
                }
                Output::Finished(finished) => self.finished.push_back(*finished),
            }
        }
    }
}
