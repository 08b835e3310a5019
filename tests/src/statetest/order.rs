//! One transaction after a genesis: its footprint, and what the serial oracle and a cluster make
//! of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parsec_oracle::Oracle;
use parsec_partitions::{Dice, Options, Partitions};
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, Batch, EpochNumber, EpochRecord, ErrorCode, Footprint, Key, LaneId, Outcome,
    PartitionId, PartitionMap, Receipt, RuntimeId, Value, codec,
};
use parsec_runtimes::evm::EvmRuntime;
use parsec_runtimes::system::{SystemRuntime, load_transactions};
use parsec_runtimes::trial::{Memory, Refusal, Setting, Subject, Trials, Unit};
use parsec_runtimes::{Runtime as _, Runtimes};

use super::Failure;

/// Partitions of the cluster.
const PARTITIONS: u16 = 3;
/// Keys that a partition keeps in memory: some must be fetched again.
const CACHE: usize = 64;
/// After so many steps of its schedule no partition restarts any more.
const STEPS_WITH_RESTARTS: usize = 300;
/// Most rounds of reads of a trial. As many as the sequencer makes.
const ROUNDS_MAX: usize = 1_040;
/// Most times that a transaction may stray. A cluster finds the footprint anew each time, and so
/// needs fewer.
const STRAYS_MAX: u8 = 64;

/// The runtimes of a chain, and what tries its transactions.
pub(crate) struct Chain {
    pub(crate) evm: EvmRuntime,
    runtimes: Runtimes,
    trials: Trials,
}

impl Chain {
    pub(crate) fn new(id: u64) -> Self {
        let evm = EvmRuntime::for_import(id);
        let runtimes = Runtimes::new(vec![Arc::new(SystemRuntime), Arc::new(evm.clone())]);
        Self { evm, trials: Trials::new(runtimes.clone()), runtimes }
    }

    /// Finds the footprint of a transaction as the sequencer does: in rounds of reads, beginning
    /// with the keys that it is likely to need.
    pub(crate) fn discover(
        &self,
        entry: &Entry,
        state: &BTreeMap<Key, Value>,
    ) -> Result<Footprint, Refusal> {
        let epoch = record(&[], &[]);
        let setting = Setting { entropy: epoch.digest(), epoch };
        let Entry { id, runtime, sender, payload, .. } = entry.clone();
        let mut unit = Unit::new(vec![Subject {
            id,
            runtime,
            sender,
            payload,
            known: None,
            declares: false,
            erratic: false,
        }]);
        let mut wanted: BTreeSet<_> =
            self.evm.likely_keys(&entry.sender, &entry.payload).into_iter().collect();
        for _ in 0..ROUNDS_MAX {
            for key in wanted {
                let value = state.get(&key).cloned();
                unit.learn(key, value);
            }
            wanted = BTreeSet::new();
            let attempt = unit.attempt(0, &self.trials, &setting, &Nothing);
            unit.take(0, attempt, &mut wanted);
            if unit.open().is_empty() {
                break;
            }
        }
        unit.finish().swap_remove(0).unwrap_or_else(|| {
            let detail = format!("no footprint was found in {ROUNDS_MAX} rounds");
            Err(Refusal { code: ErrorCode::TooLarge, detail })
        })
    }

    /// Executes a transaction after a genesis, by the serial oracle and on a cluster.
    ///
    /// # Errors
    /// In what they differ.
    pub(crate) fn execute(
        &self,
        genesis: Vec<(Key, Value)>,
        mut entry: Entry,
        mut dice: Draw,
    ) -> Result<Executed, Failure> {
        let map = Arc::new(PartitionMap::even(PARTITIONS).map_err(|error| error.to_string())?);
        entry.home = PartitionId(u16::try_from(dice.roll(map.len().into())).unwrap_or(0));
        let mut order = Order::new(&self.runtimes, map);
        order.close(loads(genesis)?)?;
        let (receipt, strays) = order.settle(entry)?;
        order.check_cluster(&self.runtimes, &mut dice);
        Ok(Executed { receipt, strays, state: order.oracle.state().clone() })
    }

    /// Executes transactions after a genesis, one after another, by the serial oracle and on a
    /// cluster, each with the footprint that is found for it when its turn comes. None if one of
    /// them touches more keys than a footprint holds.
    ///
    /// # Errors
    /// In what they differ.
    pub(crate) fn execute_all(
        &self,
        genesis: Vec<(Key, Value)>,
        entries: Vec<Entry>,
        mut dice: Draw,
    ) -> Result<Option<ExecutedAll>, Failure> {
        let map = Arc::new(PartitionMap::even(PARTITIONS).map_err(|error| error.to_string())?);
        let homes = usize::from(map.len());
        let mut order = Order::new(&self.runtimes, map);
        order.close(loads(genesis)?)?;
        let (mut receipts, mut strays) = (Vec::with_capacity(entries.len()), 0);
        for mut entry in entries {
            entry.home = PartitionId(u16::try_from(dice.roll(homes)).unwrap_or(0));
            entry.footprint = match self.discover(&entry, order.oracle.state()) {
                Ok(footprint) => footprint,
                Err(refusal) if refusal.code == ErrorCode::TooLarge => return Ok(None),
                Err(refusal) => return Err(refusal.detail),
            };
            let (receipt, times) = order.settle(entry)?;
            receipts.push(receipt);
            strays += times;
        }
        order.check_cluster(&self.runtimes, &mut dice);
        Ok(Some(ExecutedAll { receipts, strays, state: order.oracle.state().clone() }))
    }
}

/// Nothing is remembered.
struct Nothing;

impl Memory for Nothing {
    fn replicated(&self, _: &Key) -> Option<Value> {
        None
    }

    fn last_known(&self, _: &Key) -> Option<Value> {
        None
    }
}

/// What became of a transaction.
pub(crate) struct Executed {
    pub(crate) receipt: Receipt,
    /// Times that it strayed before.
    pub(crate) strays: u32,
    /// The state after it.
    pub(crate) state: BTreeMap<Key, Value>,
}

/// What became of several transactions.
pub(crate) struct ExecutedAll {
    pub(crate) receipts: Vec<Receipt>,
    /// Times that one of them strayed.
    pub(crate) strays: u32,
    /// The state after them.
    pub(crate) state: BTreeMap<Key, Value>,
}

/// Numbers drawn from a seed.
pub(crate) struct Draw(pub(crate) u64);

impl Dice for Draw {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % sides
    }
}

/// An order, with what the oracle made of it so far.
struct Order {
    oracle: Oracle,
    map: Arc<PartitionMap>,
    epochs: Vec<(EpochRecord, Vec<Batch>)>,
    receipts: Vec<Receipt>,
}

impl Order {
    fn new(runtimes: &Runtimes, map: Arc<PartitionMap>) -> Self {
        let oracle = Oracle::new(runtimes).watching_ids();
        Self { oracle, map, epochs: Vec::new(), receipts: Vec::new() }
    }

    /// Orders an epoch of these transactions, which are some. Returns what became of the last.
    fn close(&mut self, entries: Vec<Entry>) -> Result<Receipt, Failure> {
        let sequence = self.epochs.len() as u64 + 1;
        let map_version = self.map.version();
        let batches = vec![Batch {
            lane: LaneId(0),
            sequence,
            map_version,
            entries: entries.into_iter().map(Arc::new).collect(),
        }];
        let record = record(&self.epochs, &batches);
        let receipts = self.oracle.apply(&record, &batches).map_err(|error| error.to_string())?;
        self.receipts.extend(receipts);
        self.epochs.push((record, batches));
        self.receipts.last().cloned().ok_or_else(|| "an epoch of nothing".to_owned())
    }

    /// Orders a transaction until it does not stray any more. Returns what became of it, and how
    /// often it strayed.
    fn settle(&mut self, mut entry: Entry) -> Result<(Receipt, u32), Failure> {
        loop {
            let receipt = self.close(vec![entry.clone()])?;
            let Outcome::Strayed { key, mode } = &receipt.outcome else {
                return Ok((receipt, entry.attempt.into()));
            };
            if entry.attempt == STRAYS_MAX {
                return Err(format!("it strays again and again, last at {key}"));
            }
            let wider = Footprint::new(vec![Access { key: key.clone(), mode: *mode }]);
            let wider = wider.and_then(|wider| entry.footprint.union(&wider));
            entry.footprint = wider.map_err(|error| error.to_string())?;
            entry.attempt += 1;
        }
    }

    /// Takes a cluster through the order.
    ///
    /// # Panics
    /// If it comes to something else than the oracle.
    fn check_cluster(&self, runtimes: &Runtimes, dice: &mut Draw) {
        let options = Options { cache: CACHE, steps_with_restarts: STEPS_WITH_RESTARTS };
        let mut cluster =
            Partitions::new(&self.map, options, runtimes, &self.epochs, &self.receipts);
        cluster.run(dice);
        cluster.check();
        let state = self.oracle.state();
        let keys: Vec<_> = state.keys().cloned().collect();
        cluster.check_state(self.oracle.applied(), &keys, state);
        let expected = (self.oracle.state_digest(), self.oracle.receipts_digest());
        assert_eq!(cluster.digests(), expected, "the digests differ");
    }
}

/// The record of the epoch after those, of these batches.
fn record(before: &[(EpochRecord, Vec<Batch>)], batches: &[Batch]) -> EpochRecord {
    let last = before.last().map(|(record, _)| record);
    let number = last.map_or(EpochNumber(0), |last| last.number).next();
    let references = batches.iter().map(|batch| batch.reference(&codec::encode(batch)));
    let batches: Vec<_> = references.collect();
    let calls = batches.iter().any(|batch| batch.calls(RuntimeId::EVM));
    EpochRecord {
        number,
        timestamp_ms: number.0,
        block: last.map_or(0, |last| last.block) + u64::from(calls),
        parent: last.map_or([0; 32], EpochRecord::digest),
        batches,
    }
}

/// The genesis as transactions.
fn loads(genesis: Vec<(Key, Value)>) -> Result<Vec<Entry>, Failure> {
    let loads = load_transactions(genesis).map_err(|error| error.to_string())?;
    let entry = |load: parsec_runtimes::system::Load| Entry {
        id: load.id,
        runtime: RuntimeId::SYSTEM,
        attempt: 0,
        home: PartitionId(0),
        sender: Bytes::new(),
        payload: load.payload,
        footprint: load.footprint,
        expires: None,
    };
    Ok(loads.into_iter().map(entry).collect())
}
