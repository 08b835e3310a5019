//! A cluster of [`Partition`]s, driven in one thread by a random schedule, against one thread
//! that executes in order.
//!
//! The schedule delays, reorders and repeats pushes, fetches late, executes ready transactions in
//! any order, stores epochs late, and restarts partitions from what their store holds.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_executor_core::{EpochContext, FinishedEpoch, Output, Partition, Task, Traffic};
use parsec_protocol::transaction::Batch;
use parsec_protocol::{EpochNumber, Key, PartitionMap, Position, Push, Receipt, Role, slice};
use proptest::prelude::*;

use crate::support::{State, build, execute, serial, transaction};

/// A partition with what it keeps across a restart.
struct Host {
    partition: Partition,
    stored: State,
    applied: EpochNumber,
    outbox: Vec<Push>,
    receipts: BTreeMap<Position, Arc<Receipt>>,
    fetches: Vec<(parsec_executor_core::KeyIndex, Key)>,
    tasks: Vec<Task>,
    finished: Vec<FinishedEpoch>,
    /// The next epoch to be handed to it.
    next: usize,
}

struct Cluster<'a> {
    map: Arc<PartitionMap>,
    epochs: &'a [(Arc<EpochContext>, Batch)],
    hosts: Vec<Host>,
    wire: Vec<Push>,
    /// Every push that was ever made: repeating one must do no harm.
    past: Vec<Push>,
}

impl<'a> Cluster<'a> {
    fn new(epochs: &'a [(Arc<EpochContext>, Batch)], partitions: u16, cache: usize) -> Self {
        let map = Arc::new(PartitionMap::even(partitions).unwrap());
        let host = |id| Host {
            partition: Partition::with_cache(id, map.clone(), EpochNumber(0), cache),
            stored: State::new(),
            applied: EpochNumber(0),
            outbox: Vec::new(),
            receipts: BTreeMap::new(),
            fetches: Vec::new(),
            tasks: Vec::new(),
            finished: Vec::new(),
            next: 0,
        };
        let hosts = map.partitions().map(host).collect();
        Self { map, epochs, hosts, wire: Vec::new(), past: Vec::new() }
    }

    fn step(&mut self, dice: u64, restarts: bool) -> bool {
        let at = (dice >> 8) as usize % self.hosts.len();
        let pick = (dice >> 24) as usize;
        let did = match dice % 16 {
            0..=2 => self.feed(at),
            3..=5 => self.deliver(pick),
            6..=7 => self.fetch(at, pick),
            8..=9 => self.take(at),
            10..=12 => self.execute(at, pick),
            13 => self.store(at),
            14 if !self.past.is_empty() => {
                let push = self.past[pick % self.past.len()].clone();
                self.hosts[push.to.index()].partition.on_push(push);
                false
            }
            15 if restarts && pick.is_multiple_of(8) => self.restart(at, cache_of(pick)),
            _ => false,
        };
        (0..self.hosts.len()).for_each(|host| self.collect(host));
        did
    }

    fn feed(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        let Some((context, batch)) = self.epochs.get(host.next) else { return false };
        host.next += 1;
        let slice = slice::cut(batch, &self.map).swap_remove(at);
        assert_eq!(slice.partition.index(), at);
        let entries: Vec<(u32, Role)> =
            slice.entries.into_iter().map(|entry| (entry.index, entry.role)).collect();
        host.partition.on_epoch(context.clone(), entries);
        true
    }

    fn deliver(&mut self, pick: usize) -> bool {
        if self.wire.is_empty() {
            return false;
        }
        let push = self.wire.swap_remove(pick % self.wire.len());
        self.hosts[push.to.index()].partition.on_push(push);
        true
    }

    fn fetch(&mut self, at: usize, pick: usize) -> bool {
        let host = &mut self.hosts[at];
        if host.fetches.is_empty() {
            return false;
        }
        let (index, key) = host.fetches.swap_remove(pick % host.fetches.len());
        host.partition.on_fetched(index, host.stored.get(&key).cloned());
        true
    }

    fn take(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        host.partition.take_ready().map(|task| host.tasks.push(task)).is_some()
    }

    fn execute(&mut self, at: usize, pick: usize) -> bool {
        let host = &mut self.hosts[at];
        if host.tasks.is_empty() {
            return false;
        }
        let task = host.tasks.swap_remove(pick % host.tasks.len());
        let position = Position { epoch: task.context.record.number, index: task.index };
        let (changes, receipt) = execute(&task.entry, position, &task.values);
        host.partition.on_executed(task, changes, receipt);
        true
    }

    fn store(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        if host.finished.is_empty() {
            return false;
        }
        let finished = host.finished.remove(0);
        assert_eq!(finished.epoch, host.applied.next());
        for write in finished.writes {
            assert_eq!(host.stored.get(&write.key), write.old.as_ref(), "{}", write.key);
            match write.new {
                Some(value) => drop(host.stored.insert(write.key, value)),
                None => drop(host.stored.remove(&write.key)),
            }
        }
        let twice = finished.receipts.into_iter().find_map(|r| host.receipts.insert(r.position, r));
        assert_eq!(twice, None);
        host.outbox.extend(finished.outbox);
        host.applied = finished.epoch;
        host.partition.on_stored(finished.epoch);
        true
    }

    /// Loses all that is not stored, at one partition and on the wires to it and from it.
    fn restart(&mut self, at: usize, cache: usize) -> bool {
        let id = self.map.partitions().nth(at).unwrap();
        let host = &mut self.hosts[at];
        host.partition = Partition::with_cache(id, self.map.clone(), host.applied, cache);
        host.fetches.clear();
        host.tasks.clear();
        host.finished.clear();
        host.next = host.applied.0 as usize;
        let applied = host.applied;
        self.wire.retain(|push| push.to != id && push.from != id);
        for other in 0..self.hosts.len() {
            let host = &mut self.hosts[other];
            let stored = host.outbox.iter().chain(host.finished.iter().flat_map(|f| &f.outbox));
            let owed = stored.filter(|push| push.to == id && push.position.epoch > applied);
            self.wire.extend(owed.cloned());
            host.partition.on_resume(id, applied);
        }
        // What was on the wire from it and is stored there is owed to the others.
        let outbox = self.hosts[at].outbox.clone();
        self.wire.extend(outbox);
        true
    }

    fn collect(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        while let Some(output) = host.partition.poll_output() {
            match output {
                Output::Fetch { index, key } => host.fetches.push((index, key)),
                Output::Push(push) => {
                    self.past.push(push.clone());
                    self.wire.push(push);
                }
                Output::Receipt(_) => {}
                Output::Finished(finished) => host.finished.push(*finished),
            }
        }
    }

    fn is_done(&self) -> bool {
        let last = EpochNumber(self.epochs.len() as u64);
        self.hosts.iter().all(|host| host.applied == last)
    }

    fn run(&mut self, mut seed: u64) {
        let mut steps = 0u64;
        while !self.is_done() {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            steps += 1;
            assert!(steps < 2_000_000, "no progress: something is lost or deadlocked");
            self.step(seed >> 11, steps < 20_000);
        }
    }
}

fn cache_of(pick: usize) -> usize {
    if pick & 1024 == 0 { 2 } else { 1_000 }
}

/// What each partition must have counted: its parts of the slices, every push that was made once,
/// and every push that was delivered, which may be more often.
fn expected_traffic(cluster: &Cluster<'_>, counted: &[Traffic]) -> Vec<Traffic> {
    let mut expected = vec![Traffic::default(); cluster.hosts.len()];
    for slice in cluster.epochs.iter().flat_map(|(_, batch)| slice::cut(batch, &cluster.map)) {
        let traffic = &mut expected[slice.partition.index()];
        for entry in slice.entries {
            match entry.role {
                Role::Home { .. } => traffic.homed += 1,
                Role::Participant { .. } => traffic.participations += 1,
            }
        }
    }
    for (traffic, counted) in expected.iter_mut().zip(counted) {
        traffic.pushes_received = counted.pushes_received;
    }
    for push in &cluster.past {
        expected[push.from.index()].pushes_sent += 1;
    }
    let made = |to| cluster.past.iter().filter(|push| push.to.index() == to).count() as u64;
    let received = |to: usize| counted[to].pushes_received;
    assert!((0..expected.len()).all(|to| received(to) >= made(to)), "a push was not counted");
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_agrees_with_one_thread(
        epochs in prop::collection::vec(prop::collection::vec(transaction(), 0..12), 1..8),
        partitions in 1u16..8,
        cache in prop_oneof![Just(2usize), Just(1_000)],
        seed: u64,
    ) {
        let epochs = build(&epochs);
        let (state, receipts) = serial(&epochs);
        let mut cluster = Cluster::new(&epochs, partitions, cache);
        cluster.run(seed);

        let mut seen = BTreeMap::new();
        for host in &cluster.hosts {
            seen.extend(host.receipts.clone());
            for (key, value) in &host.stored {
                prop_assert_eq!(state.get(key), Some(value));
            }
            let replicated = state.keys().filter(|key| key.is_replicated());
            prop_assert!(replicated.into_iter().all(|key| host.stored.contains_key(key)));
        }
        let seen: Vec<_> = seen.into_values().map(Arc::unwrap_or_clone).collect();
        prop_assert_eq!(seen, receipts);
        for key in state.keys().filter(|key| !key.is_replicated()) {
            let owner = cluster.map.owner(key).index();
            prop_assert!(cluster.hosts[owner].stored.contains_key(key));
        }
    }
}

#[test]
fn partitions_count_what_they_have_to_do() {
    let transactions = (0u8..200).map(|n| vec![(n % 14, n % 3), ((n / 3) % 14, 1)]).collect();
    let epochs = build(&[transactions]);
    let mut cluster = Cluster::new(&epochs, 5, 1_000);
    for turn in 0u64.. {
        if cluster.is_done() {
            break;
        }
        // Odd, so that every step comes with every host and pick in the end.
        cluster.step(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15), false);
    }
    let traffic: Vec<_> = cluster.hosts.iter().map(|host| host.partition.traffic()).collect();
    assert_eq!(traffic, expected_traffic(&cluster, &traffic));
    assert!(traffic.iter().all(|traffic| traffic.participations > 0 && traffic.pushes_sent > 0));
}

#[test]
fn a_long_chain_of_participants_does_not_exhaust_the_stack() {
    let transactions = vec![vec![(13u8, 2u8), (13, 0)]; 60_000];
    let epochs = build(&[transactions]);
    let (state, _) = serial(&epochs);
    let mut cluster = Cluster::new(&epochs, 2, 1_000);
    (0..2).for_each(|at| {
        cluster.feed(at);
        cluster.collect(at);
    });
    while !cluster.is_done() {
        // All that a home does reaches the participant before it may touch its keys.
        let (blocked, free) = (1, 0);
        while cluster.fetch(free, 0) || cluster.take(free) || cluster.execute(free, 0) {
            cluster.collect(free);
        }
        while cluster.deliver(0) {}
        cluster.fetch(blocked, 0);
        while cluster.take(blocked) || cluster.execute(blocked, 0) {}
        cluster.collect(blocked);
        (0..2).for_each(|at| while cluster.store(at) {});
    }
    assert_eq!(cluster.hosts[0].stored, state);
}
