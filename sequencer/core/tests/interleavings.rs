//! Random interleavings of everything that can happen to an orderer: submissions, syncs, receipts
//! late, twice and out of order, strays, crashes.
//!
//! [`World`] plays the log, the executors and the clients, and checks every output against what
//! came before it.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{
    Access, Batch, Entry, EpochNumber, EpochRecord, ErrorCode, Footprint, Key, LaneId, Mode,
    Namespace, Outcome, PartitionMap, Position, Receipt, RuntimeId, TxId, codec,
};
use parsec_sequencer_core::{
    Accepted, Candidate, HomeChooser, LaneOptions, Lookup, Orderer, Output, Place, Rediscovery,
    Refused, SingleLedger, Tick, Token,
};
use proptest::prelude::*;

const LANE: LaneId = LaneId(3);

#[derive(Debug, Clone)]
enum Op {
    Submit { id: u8, expires: Option<u8> },
    Sync,
    Receipt { pick: usize },
    Redeliver { pick: usize },
    Discover { pick: usize, fails: bool },
    Apply,
    Index,
    Wait { micros: u64 },
    Crash { keep: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..40, proptest::option::weighted(0.1, 0u8..20))
            .prop_map(|(id, expires)| Op::Submit { id, expires }),
        4 => Just(Op::Sync),
        6 => any::<usize>().prop_map(|pick| Op::Receipt { pick }),
        1 => any::<usize>().prop_map(|pick| Op::Redeliver { pick }),
        3 => (any::<usize>(), proptest::bool::weighted(0.1))
            .prop_map(|(pick, fails)| Op::Discover { pick, fails }),
        3 => Just(Op::Apply),
        2 => Just(Op::Index),
        1 => (0u64..3_000).prop_map(|micros| Op::Wait { micros }),
        1 => (0usize..5).prop_map(|keep| Op::Crash { keep }),
    ]
}

#[derive(Debug, Clone)]
enum Record {
    Batch(Arc<Batch>),
    Epoch(EpochRecord),
}

/// An epoch with the batches that it orders.
type Epoch = (EpochRecord, Vec<Arc<Batch>>);

/// How often each id strays before it gives a final receipt.
type Strays = BTreeMap<u8, u8>;

struct World {
    orderer: Orderer<SingleLedger>,
    options: LaneOptions,
    strays: Strays,
    now: Tick,
    log: Vec<Record>,
    durable: usize,
    wants_sync: bool,
    /// The index of ids, the epoch through which it is complete, and what is persisted with it.
    index: BTreeMap<TxId, Place>,
    indexed: EpochNumber,
    settled: EpochNumber,
    dispatched: EpochNumber,
    applied: EpochNumber,
    executed: Vec<Receipt>,
    undelivered: Vec<usize>,
    rediscoveries: Vec<Rediscovery>,
    /// Those of the group that runs apart that are not ordered yet, in their order.
    group: VecDeque<TxId>,
    in_flight: usize,
    next_token: u64,
    /// Tokens to be answered, and the id that each is for.
    waiting: BTreeMap<Token, TxId>,
    /// Ids in the order in which they were queued, until their first batch.
    queued: VecDeque<TxId>,
    answered: BTreeMap<TxId, Receipt>,
    attempts: BTreeSet<(TxId, u8)>,
}

fn id(number: u8) -> TxId {
    TxId([number; 32])
}

fn access(number: u8, mode: Mode) -> Access {
    Access { key: Key::new(Namespace::partitioned(1), &[number]).unwrap(), mode }
}

fn small_options() -> LaneOptions {
    LaneOptions {
        pending_transactions_max: 8,
        in_flight_transactions_max: 10,
        epochs_in_flight_max: 4,
        batch_transactions_max: 3,
        retained_transactions_max: 16,
        epoch_interval_min_us: 1_000,
        ..LaneOptions::default()
    }
}

fn orderer(
    options: &LaneOptions,
    last: Option<&EpochRecord>,
    settled: EpochNumber,
    indexed: EpochNumber,
) -> Orderer<SingleLedger> {
    let homes = HomeChooser::new(PartitionMap::even(4).unwrap());
    Orderer::new(LANE, options.clone(), homes, SingleLedger::new(last), settled, indexed)
}

impl World {
    fn new(options: LaneOptions, strays: Strays) -> Self {
        Self {
            orderer: orderer(&options, None, EpochNumber(0), EpochNumber(0)),
            options,
            strays,
            now: Tick(1_000_000),
            log: Vec::new(),
            durable: 0,
            wants_sync: false,
            index: BTreeMap::new(),
            indexed: EpochNumber(0),
            settled: EpochNumber(0),
            dispatched: EpochNumber(0),
            applied: EpochNumber(0),
            executed: Vec::new(),
            undelivered: Vec::new(),
            rediscoveries: Vec::new(),
            group: VecDeque::new(),
            in_flight: 0,
            next_token: 0,
            waiting: BTreeMap::new(),
            queued: VecDeque::new(),
            answered: BTreeMap::new(),
            attempts: BTreeSet::new(),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Submit { id, expires } => self.submit(id, expires),
            Op::Sync => self.sync(),
            Op::Receipt { pick } => self.deliver(pick),
            Op::Redeliver { pick } if !self.executed.is_empty() => {
                let again = self.executed[pick % self.executed.len()].clone();
                self.orderer.on_receipt(again.into());
            }
            Op::Redeliver { .. } => {}
            Op::Discover { pick, fails } => self.discover(pick, fails),
            Op::Apply => {
                self.applied = self.dispatched;
                self.orderer.on_applied(self.applied);
            }
            Op::Index => self.index(),
            Op::Wait { micros } => self.now = self.now.after(micros),
            Op::Crash { keep } => self.crash(keep),
        }
        self.orderer.advance(self.now);
        self.outputs();
    }

    fn submit(&mut self, number: u8, expires: Option<u8>) {
        let found = self.index.get(&id(number)).copied();
        let lookup = Lookup { found, void: false, through: self.indexed };
        let candidate = Candidate {
            id: id(number),
            runtime: if number.is_multiple_of(3) { RuntimeId::EVM } else { RuntimeId::NATIVE },
            sender: vec![number].into(),
            payload: vec![number; 5].into(),
            footprint: Footprint::new(vec![access(number, Mode::Write)]).unwrap(),
            expires: expires.map(|last| EpochNumber(last.into())),
            renews: false,
        };
        self.next_token += 1;
        let token = Token { connection: 1, request: self.next_token, index: 0 };
        match self.orderer.submit(candidate, lookup, Some(token)) {
            Ok(Accepted::Queued) => {
                assert!(!self.is_known(id(number)), "queued although it is under way or done");
                self.queued.push_back(id(number));
                self.waiting.insert(token, id(number));
            }
            Ok(Accepted::Attached) => {
                self.waiting.insert(token, id(number));
            }
            Ok(Accepted::Known(place)) => {
                let receipt = self.recorded(place.position);
                assert_eq!(receipt.id, id(number));
                if let Some(answered) = self.answered.get(&receipt.id) {
                    assert_eq!(answered.position, place.position, "another answer than before");
                }
            }
            Err(Refused::Expired) => assert!(expires.is_some()),
            Err(Refused::Busy) => {
                assert!(self.orderer.lane().pending() >= self.options.pending_transactions_max);
            }
            Err(Refused::LookupTooOld) => panic!("the lookup was made a moment ago"),
        }
    }

    /// Whether an id is in the log, or waits to get there.
    fn is_known(&self, id: TxId) -> bool {
        self.queued.contains(&id) || self.attempts.iter().any(|(known, _)| *known == id)
    }

    fn recorded(&self, position: Position) -> &Receipt {
        self.executed.iter().find(|receipt| receipt.position == position).expect("it was executed")
    }

    fn sync(&mut self) {
        if !std::mem::take(&mut self.wants_sync) {
            return;
        }
        self.durable = self.log.len();
        let epochs = self.log.iter().filter_map(|record| match record {
            Record::Epoch(record) => Some(record.number),
            Record::Batch(_) => None,
        });
        self.orderer.on_durable(epochs.max().unwrap_or_default());
    }

    fn deliver(&mut self, pick: usize) {
        if self.undelivered.is_empty() {
            return;
        }
        let index = self.undelivered.swap_remove(pick % self.undelivered.len());
        self.orderer.on_receipt(self.executed[index].clone().into());
    }

    fn discover(&mut self, pick: usize, fails: bool) {
        if self.rediscoveries.is_empty() {
            return;
        }
        let chosen = self.rediscoveries.swap_remove(pick % self.rediscoveries.len());
        let found = match fails {
            true => Err(ErrorCode::TooLarge),
            false => Ok(Footprint::new(vec![access(100 + chosen.attempt, Mode::Read)]).unwrap()),
        };
        self.orderer.on_discovered(chosen.entry.id, chosen.attempt, found);
    }

    fn index(&mut self) {
        for receipt in &self.executed {
            let position = receipt.position;
            if position.epoch > self.indexed {
                let home = PartitionMap::even(4).unwrap().partitions().next().unwrap();
                self.index.insert(receipt.id, Place { position, home });
            }
        }
        self.indexed = self.dispatched;
        self.settled = self.orderer.lane().settled();
        self.orderer.on_indexed(self.indexed);
    }

    /// The process dies: what was not synced may be lost, and every client is cut off.
    fn crash(&mut self, keep: usize) {
        self.log.truncate((self.durable + keep).min(self.log.len()));
        self.durable = self.log.len();
        self.wants_sync = false;
        self.waiting.clear();
        self.queued.clear();
        self.rediscoveries.clear();
        self.group.clear();
        let (epochs, orphans) = read(&self.log);
        let last = epochs.last().map(|(record, _)| record);
        self.orderer = orderer(&self.options, last, self.settled, self.indexed);
        let from = self.settled.min(self.indexed);
        let sequence = epochs.iter().flat_map(|(_, batches)| batches).map(|b| b.sequence).max();
        self.orderer.restore_sequence(sequence.unwrap_or(0));
        self.attempts.clear();
        for (record, batches) in &epochs {
            let entries = batches.iter().flat_map(|batch| &batch.entries);
            self.attempts.extend(entries.map(|entry| (entry.id, entry.attempt)));
            if record.number > from {
                self.orderer.restore_epoch(record, batches.clone());
            }
            if record.number > self.dispatched {
                self.execute(record, batches);
            }
        }
        for batch in orphans {
            self.attempts.extend(batch.entries.iter().map(|entry| (entry.id, entry.attempt)));
            self.orderer.restore_batch(batch);
        }
        self.orderer.on_applied(self.applied);
        self.in_flight = self.orderer.lane().in_flight();
        // The executors send again what was not settled.
        let unsettled = |index: &usize| self.executed[*index].position.epoch > self.settled;
        self.undelivered = (0..self.executed.len()).filter(unsettled).collect();
    }

    fn outputs(&mut self) {
        while let Some(output) = self.orderer.poll_output() {
            match output {
                Output::Append { batch, reference, encoded } => {
                    assert_eq!(reference, batch.reference(&encoded));
                    self.append(batch, &encoded);
                }
                Output::AppendEpoch(record) => self.append_epoch(record),
                Output::Sync => self.wants_sync = true,
                Output::Dispatch { record, batches } => self.dispatch(&record, &batches),
                Output::Reply { token, receipt } => {
                    self.reply(token, Arc::unwrap_or_clone(receipt))
                }
                Output::Summarize { .. } => unreachable!("no lane here has a summary key"),
                Output::Rediscover(strays) => {
                    assert!(strays.iter().all(|stray| stray.least <= self.dispatched));
                    if strays.len() > 1 {
                        assert!(self.group.is_empty(), "one group at a time");
                        self.group.extend(strays.iter().map(|stray| stray.entry.id));
                    }
                    self.rediscoveries.extend(strays);
                }
            }
        }
        let lane = self.orderer.lane();
        assert!(lane.pending() <= self.options.pending_transactions_max);
        // After a restart, what was answered but not known to be settled counts again.
        assert!(lane.in_flight() <= self.options.in_flight_transactions_max.max(self.in_flight));
        self.in_flight = lane.in_flight();
        let ahead = lane.ordered().0 - self.applied.0;
        assert!(ahead <= self.options.epochs_in_flight_max);
        assert!(lane.settled() <= lane.ordered());
        if let Some(due) = self.orderer.next_timeout() {
            assert!(due > self.now, "a timeout that is past would never end");
        }
    }

    fn append(&mut self, batch: Arc<Batch>, encoded: &[u8]) {
        assert_eq!(codec::decode::<Batch>(encoded).unwrap(), *batch);
        let sequence = self.log.iter().rev().find_map(|record| match record {
            Record::Batch(batch) => Some(batch.sequence),
            Record::Epoch(_) => None,
        });
        assert_eq!(batch.sequence, sequence.unwrap_or(0) + 1, "batches are dense");
        assert!((1..=self.options.batch_transactions_max).contains(&batch.entries.len()));
        for entry in &batch.entries {
            assert!(self.attempts.insert((entry.id, entry.attempt)), "ordered twice");
            if entry.attempt == 0 {
                assert_eq!(self.queued.pop_front(), Some(entry.id), "not in submission's order");
            }
        }
        self.log.push(Record::Batch(batch));
    }

    fn append_epoch(&mut self, record: EpochRecord) {
        let (epochs, orphans) = read(&self.log);
        let last = epochs.last().map(|(record, _)| record);
        assert_eq!(record.number, last.map_or(EpochNumber(1), |last| last.number.next()));
        assert_eq!(record.parent, last.map_or([0; 32], EpochRecord::digest));
        assert!(record.timestamp_ms >= last.map_or(0, |last| last.timestamp_ms));
        let evm = record.batches.iter().any(|batch| batch.calls(RuntimeId::EVM));
        assert_eq!(record.block, last.map_or(0, |last| last.block) + u64::from(evm));
        assert!(!record.batches.is_empty() && record.batches.len() <= orphans.len());
        self.log.push(Record::Epoch(record));
    }

    fn dispatch(&mut self, record: &EpochRecord, batches: &[Arc<Batch>]) {
        let durable = self.log[..self.durable]
            .iter()
            .any(|known| matches!(known, Record::Epoch(known) if known == record));
        assert!(durable, "dispatched before the log had it");
        assert_eq!(record.number, self.dispatched.next());
        self.execute(record, batches);
    }

    /// Executes an epoch: what each transaction gives depends on its id and attempt alone.
    fn execute(&mut self, record: &EpochRecord, batches: &[Arc<Batch>]) {
        self.dispatched = record.number;
        let entries = batches.iter().flat_map(|batch| &batch.entries);
        let alone = entries.clone().count() == 1;
        for (index, entry) in (0u32..).zip(entries) {
            if let Some(next) = self.group.pop_front() {
                assert_eq!(entry.id, next, "a group is ordered as it stood, and nothing between");
            }
            let position = Position { epoch: record.number, index };
            self.undelivered.push(self.executed.len());
            self.executed.push(execute(&self.strays, entry, position));
            assert!(
                entry.attempt < STRAY_ATTEMPTS_MAX
                    || alone
                    || !entry
                        .footprint
                        .covers(&access(100 + entry.attempt, Mode::Read).key, Mode::Read),
                "the last attempt runs alone, unless no footprint was found"
            );
        }
    }

    fn reply(&mut self, token: Token, receipt: Receipt) {
        let id = self.waiting.remove(&token).expect("answered once, and only if accepted");
        assert_eq!(id, receipt.id);
        assert!(receipt.outcome.is_final());
        let recorded = self.recorded(receipt.position);
        if receipt != *recorded {
            assert_eq!(receipt.outcome, Outcome::Invalid(ErrorCode::StrayedTooOften));
            assert!(!recorded.outcome.is_final() && recorded.attempt == STRAY_ATTEMPTS_MAX);
        }
        let first = self.answered.entry(id).or_insert_with(|| receipt.clone());
        assert_eq!(*first, receipt, "another answer than before");
    }

    fn is_quiet(&self) -> bool {
        let lane = self.orderer.lane();
        lane.pending() + lane.in_flight() + lane.retained() == 0 && self.undelivered.is_empty()
    }

    /// Nothing bad happens any more: everything has to come to an end.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            if self.is_quiet() {
                break;
            }
            self.now = self.now.after(2_000);
            self.step(&Op::Sync);
            self.step(&Op::Receipt { pick: 0 });
            self.step(&Op::Discover { pick: 0, fails: false });
            self.step(&Op::Apply);
            self.step(&Op::Index);
        }
        assert_eq!(self.waiting, BTreeMap::new(), "accepted and never answered");
        assert_eq!(self.orderer.lane().in_flight(), 0);
        assert_eq!(self.orderer.lane().pending(), 0);
        assert_eq!(self.orderer.lane().retained(), 0);
        assert_eq!(self.orderer.lane().settled(), self.dispatched);
    }
}

fn execute(strays: &Strays, entry: &Entry, position: Position) -> Receipt {
    let often = strays.get(&entry.id.0[0]).copied().unwrap_or(0);
    let Access { key, mode } = access(200, Mode::Read);
    Receipt {
        id: entry.id,
        position,
        attempt: entry.attempt,
        outcome: match entry.attempt < often {
            true => Outcome::Strayed { key, mode },
            false => Outcome::Committed,
        },
        work: 1,
        output: entry.payload.clone().into(),
        events: Vec::new(),
    }
}

/// The epochs of a log with their batches, and the batches after the last of them.
fn read(log: &[Record]) -> (Vec<Epoch>, Vec<Arc<Batch>>) {
    let mut epochs = Vec::new();
    let mut batches = VecDeque::new();
    for record in log {
        match record {
            Record::Batch(batch) => batches.push_back(batch.clone()),
            Record::Epoch(record) => {
                let own = batches.drain(..record.batches.len()).collect();
                epochs.push((record.clone(), own));
            }
        }
    }
    (epochs, batches.into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_order_holds(
        ops in proptest::collection::vec(op(), 0..400),
        strays in proptest::collection::btree_map(0u8..40, 1u8..=STRAY_ATTEMPTS_MAX + 2, 0..12),
    ) {
        let mut world = World::new(small_options(), strays);
        ops.iter().for_each(|op| world.step(op));
        world.settle();
    }
}

#[test]
fn a_transaction_that_always_strays_ends_alone() {
    let mut world = World::new(small_options(), Strays::from([(7, 200)]));
    for number in [1, 7, 2] {
        world.step(&Op::Submit { id: number, expires: None });
    }
    world.settle();
    let outcome = |number| world.answered[&id(number)].outcome.clone();
    assert_eq!(outcome(7), Outcome::Invalid(ErrorCode::StrayedTooOften));
    assert_eq!(world.answered[&id(7)].attempt, STRAY_ATTEMPTS_MAX);
    assert_eq!((outcome(1), outcome(2)), (Outcome::Committed, Outcome::Committed));
}

#[test]
fn a_footprint_grows_with_every_stray() {
    let mut world = World::new(small_options(), Strays::from([(7, 3)]));
    world.step(&Op::Submit { id: 7, expires: None });
    world.settle();
    let last = world.log.iter().rev().find_map(|record| match record {
        Record::Batch(batch) => Some(batch.entries[0].clone()),
        Record::Epoch(_) => None,
    });
    let footprint = last.unwrap().footprint.clone();
    let keys: Vec<_> = footprint.accesses().iter().map(|access| access.key.bytes()[0]).collect();
    assert_eq!(keys, [7, 101, 102, 103, 200]);
}
