//! A cluster of partitions in one thread: the executors' own state machines over stores in memory,
//! taken through an order by a schedule that is drawn.
//!
//! What is drawn decides when a host hears of an epoch, fetches, executes, pushes and stores, and
//! when one of them restarts from its store. Every receipt must be the one that is expected.
//!
//! It must not know where the order or what is expected of it come from. Whatever goes wrong
//! panics, since only tests and fuzzers call this.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a harness fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_executor::to_commit;
use parsec_executor_core::{FinishedEpoch, Intake, KeyIndex, Output, Partition, Task};
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, HostSlices, Key, PartitionId, PartitionMap, Push, Receipt,
    Value, slice,
};
use parsec_runtimes::{Execution, Runtimes, Sessions};
use parsec_storage::{Applied, Digest, MemoryStore, Store as _};

/// More than any order takes, unless something is lost or deadlocked.
const STEPS_MAX: usize = 400_000;

/// Epochs in their order, each with its batches.
pub type Epochs = [(EpochRecord, Vec<Batch>)];

/// What a schedule is drawn from.
pub trait Dice {
    /// A number below `sides`, which is not zero.
    fn roll(&mut self, sides: usize) -> usize;
}

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many keys a partition keeps in memory.
    pub cache: usize,
    /// After so many steps nobody restarts any more, so that it comes to an end.
    pub steps_with_restarts: usize,
}

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
pub struct Partitions<'a> {
    map: Arc<PartitionMap>,
    options: Options,
    epochs: &'a Epochs,
    expected: &'a [Receipt],
    hosts: Vec<Host>,
    wire: Vec<Push>,
    /// Every push that a host got since it started: one that comes again does no harm, but it is
    /// no cure for one that was lost, either.
    past: Vec<Push>,
}

impl<'a> Partitions<'a> {
    /// A cluster that is to go through `epochs`, which begin with the first one, and to give the
    /// receipts that are `expected`, sorted by position.
    #[must_use]
    pub fn new(
        map: &Arc<PartitionMap>,
        options: Options,
        runtimes: &Runtimes,
        epochs: &'a Epochs,
        expected: &'a [Receipt],
    ) -> Self {
        let begin = EpochNumber(0);
        let host = |id| Host {
            id,
            store: MemoryStore::new(),
            sessions: runtimes.sessions(),
            intake: Intake::new(begin),
            partition: Partition::with_cache(id, map.clone(), begin, options.cache),
            heard: from_sequencer(epochs, map, id, begin),
            fetches: Vec::new(),
            tasks: Vec::new(),
            finished: VecDeque::new(),
        };
        let hosts = map.partitions().map(host).collect();
        let (wire, past) = (Vec::new(), Vec::new());
        Self { map: map.clone(), options, epochs, expected, hosts, wire, past }
    }

    /// Runs until every host has stored every epoch.
    ///
    /// # Panics
    /// If a receipt is not the expected one, or there is no progress.
    pub fn run(&mut self, dice: &mut dyn Dice) {
        let last = self.epochs.last().map_or(EpochNumber(0), |(record, _)| record.number);
        let mut steps = 0;
        while self.hosts.iter().any(|host| host.store.applied().epoch < last) {
            self.step(dice, steps < self.options.steps_with_restarts);
            steps += 1;
            assert!(steps < STEPS_MAX, "no progress: something is lost or deadlocked");
        }
    }

    fn step(&mut self, dice: &mut dyn Dice, restarts: bool) {
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
            host.collect(self.expected, &mut self.wire);
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
        host.partition = Partition::with_cache(id, self.map.clone(), applied, self.options.cache);
        host.heard = from_sequencer(self.epochs, &self.map, id, applied);
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

    /// Makes sure that what is stored adds up: every receipt once, and the digests of each store
    /// those of its content.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        let mut receipts: Vec<Receipt> = Vec::new();
        for host in &self.hosts {
            let stored = host.store.receipts(EpochNumber(0), usize::MAX).unwrap();
            receipts.extend(stored.into_iter().flat_map(|(_, receipts)| receipts));
            host.store.verify(&|key: &Key| self.map.owner(key) == host.id).unwrap();
        }
        receipts.sort_by_key(|receipt| receipt.position);
        assert_eq!(receipts, self.expected);
        let executed: u64 = self.applied().map(|applied| applied.executed).sum();
        assert_eq!(executed, receipts.len() as u64);
    }

    /// Makes sure that every key has the value of `state` after `epoch`, wherever it stands.
    ///
    /// # Panics
    /// If one has not.
    pub fn check_state(&self, epoch: EpochNumber, keys: &[Key], state: &BTreeMap<Key, Value>) {
        for host in &self.hosts {
            let found = host.store.read_at(epoch, keys).unwrap();
            for (key, value) in keys.iter().zip(&found) {
                if key.is_replicated() || self.map.owner(key) == host.id {
                    assert_eq!(value.as_ref(), state.get(key), "{key} after {epoch}");
                }
            }
        }
    }

    /// The digest of the state of all partitions, and that of their receipts.
    #[must_use]
    pub fn digests(&self) -> (Digest, Digest) {
        let sum = |of: fn(Applied) -> Digest| self.applied().map(of).sum();
        (sum(|applied| applied.state), sum(|applied| applied.receipts))
    }

    fn applied(&self) -> impl Iterator<Item = Applied> {
        self.hosts.iter().map(|host| host.store.applied())
    }
}

/// What the sequencer sends to the host of a partition for the epochs after `applied`.
fn from_sequencer(
    epochs: &Epochs,
    map: &PartitionMap,
    id: PartitionId,
    applied: EpochNumber,
) -> VecDeque<Heard> {
    let mut heard = VecDeque::new();
    for (record, batches) in epochs.iter().filter(|(record, _)| record.number > applied) {
        for (batch, reference) in batches.iter().zip(&record.batches) {
            let mut slices = slice::cut(batch, map);
            slices.retain(|slice| slice.partition == id && !slice.entries.is_empty());
            let (lane, sequence, digest) = (batch.lane, batch.sequence, reference.digest);
            heard.push_back(Heard::Slices(HostSlices { lane, sequence, digest, slices }));
        }
        heard.push_back(Heard::Epoch(record.clone()));
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

    fn fetch(&mut self, dice: &mut dyn Dice) {
        if !self.fetches.is_empty() {
            let (index, key) = self.fetches.swap_remove(dice.roll(self.fetches.len()));
            self.partition.on_fetched(index, self.store.get(&key).unwrap());
        }
    }

    fn take(&mut self) {
        self.tasks.extend(self.partition.take_ready());
    }

    fn execute(&mut self, dice: &mut dyn Dice) {
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

    fn collect(&mut self, expected: &[Receipt], wire: &mut Vec<Push>) {
        while let Some(output) = self.partition.poll_output() {
            match output {
                Output::Fetch { index, key } => self.fetches.push((index, key)),
                Output::Push(push) => wire.push(push),
                Output::Receipt(receipt) => {
                    let at = expected.binary_search_by_key(&receipt.position, |r| r.position);
                    let expected = at.ok().map(|at| &expected[at]);
                    assert_eq!(Some(&*receipt), expected, "a receipt differs");
                }
                Output::Finished(finished) => self.finished.push_back(*finished),
            }
        }
    }
}
