//! One host without network or disk, for the tests of runtimes: it admits, discovers and executes
//! transactions one after another over a map.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, EpochNumber, EpochRecord, Footprint, Key, Outcome, PartitionId, Receipt, Transaction,
    Value,
};

use crate::access::Source;
use crate::trial::{Memory, Refusal, Setting, Subject, Trials, Unit};
use crate::{Call, Execution, Interrupt, Recorder, Rejection, Runtime, Runtimes, Sessions};

/// A host with one runtime.
pub(crate) struct Host {
    runtime: Arc<dyn Runtime>,
    sessions: Sessions,
    pub(crate) state: BTreeMap<Key, Value>,
    pub(crate) epoch: EpochRecord,
}

impl Source for BTreeMap<Key, Value> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.get(key).cloned())
    }
}

impl Host {
    pub(crate) fn new(runtime: impl Runtime + 'static) -> Self {
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let sessions = Runtimes::new(vec![runtime.clone()]).sessions();
        let epoch = EpochRecord {
            number: EpochNumber(7),
            timestamp_ms: 1_700_000_000_123,
            block: 0,
            parent: [5; 32],
            batches: Vec::new(),
        };
        Self { runtime, sessions, state: BTreeMap::new(), epoch }
    }

    /// Forgets what sessions keep between calls.
    pub(crate) fn restart(&mut self) {
        self.sessions = Runtimes::new(vec![self.runtime.clone()]).sessions();
    }

    /// Admits a transaction and takes it through discovery and execution, again if it strays.
    pub(crate) fn submit(&mut self, transaction: &Transaction) -> Result<Receipt, Rejection> {
        let mut entry = self.admit(transaction)?;
        for _ in 0..64 {
            let receipt = self.execute(&entry);
            let Outcome::Strayed { key, mode } = receipt.outcome else { return Ok(receipt) };
            let wider = Footprint::new(vec![Access { key, mode }]).unwrap();
            entry.footprint = entry.footprint.union(&wider).unwrap();
            entry.attempt += 1;
        }
        panic!("a transaction strays for ever");
    }

    /// The entry of a transaction, with the footprint that it has or that a trial finds.
    pub(crate) fn admit(&mut self, transaction: &Transaction) -> Result<Entry, Rejection> {
        let admitted = self.runtime.admit(transaction)?;
        let mut entry = Entry {
            id: admitted.id,
            runtime: transaction.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            footprint: Footprint::default(),
            expires: transaction.expires,
        };
        let known = transaction.footprint.clone().or(admitted.footprint);
        entry.footprint = known.unwrap_or_else(|| self.discover(&entry));
        Ok(entry)
    }

    /// Runs an entry once for its footprint alone.
    pub(crate) fn discover(&mut self, entry: &Entry) -> Footprint {
        let mut recorder = Recorder::new(&self.state);
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &self.epoch,
            entropy: &[9; 32],
            trial: true,
        };
        match self.sessions.execute(entry.runtime, &call, &mut recorder) {
            Ok(_) => recorder.finish().unwrap().footprint,
            Err(interrupt) => panic!("a trial over the whole state ends with {interrupt:?}"),
        }
    }

    /// Runs an entry in its footprint and applies what it changed.
    pub(crate) fn execute(&mut self, entry: &Entry) -> Receipt {
        let accesses = entry.footprint.accesses();
        let values: Vec<_> =
            accesses.iter().map(|access| self.state.get(&access.key).cloned()).collect();
        let (epoch, sessions) = (&self.epoch, &mut self.sessions);
        let done = Execution::run(sessions, entry, epoch, &[9; 32], 0, &values).unwrap();
        for ((access, value), change) in accesses.iter().zip(&values).zip(&done.changes) {
            match change.apply(value.as_ref()) {
                Some(value) => self.state.insert(access.key.clone(), value),
                None => self.state.remove(&access.key),
            };
        }
        done.receipt
    }

    /// Runs a call over a state that answers as `state` does.
    pub(crate) fn call(
        &mut self,
        entry: &Entry,
        state: &mut dyn crate::State,
    ) -> Result<crate::Done, Interrupt> {
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &self.epoch,
            entropy: &[9; 32],
            trial: false,
        };
        self.sessions.execute(entry.runtime, &call, state)
    }
}

/// Who finds the footprints of units, over a state of which every value has to be fetched.
pub(crate) struct Scout {
    runtimes: Runtimes,
    trials: Trials,
    setting: Setting,
    memory: Remembered,
    /// How many transactions may still be tried again in order.
    pub(crate) retrials: Cell<usize>,
}

/// Values of replicated keys that were fetched before, and what others had.
#[derive(Default)]
struct Remembered {
    replicated: BTreeMap<Key, Value>,
    last_known: BTreeMap<Key, Value>,
}

impl Memory for Remembered {
    fn replicated(&self, key: &Key) -> Option<Value> {
        self.replicated.get(key).cloned()
    }

    fn last_known(&self, key: &Key) -> Option<Value> {
        self.last_known.get(key).cloned()
    }
}

/// What a [`Scout`] found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) footprints: Vec<Result<Footprint, Refusal>>,
    /// Rounds of reads.
    pub(crate) rounds: usize,
    /// Keys that were read.
    pub(crate) fetched: usize,
    /// What deployments would write.
    pub(crate) deployments: Vec<Key>,
}

impl Found {
    /// The footprints, all of which were found.
    pub(crate) fn all(self) -> Vec<Footprint> {
        self.footprints.into_iter().map(Result::unwrap).collect()
    }
}

impl Scout {
    pub(crate) fn new(runtimes: Runtimes, epoch: EpochRecord, entropy: [u8; 32]) -> Self {
        let trials = Trials::new(runtimes.clone());
        let setting = Setting { epoch, entropy };
        let (memory, retrials) = (Remembered::default(), Cell::new(usize::MAX));
        Self { runtimes, trials, setting, memory, retrials }
    }

    /// An admitted transaction, to be tried.
    pub(crate) fn subject(&self, transaction: &Transaction) -> Subject {
        let runtime = self.runtimes.get(transaction.runtime).unwrap();
        let admitted = runtime.admit(transaction).unwrap();
        Subject {
            id: admitted.id,
            runtime: transaction.runtime,
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            known: transaction.footprint.clone().or(admitted.footprint),
            declares: false,
            erratic: runtime.follows_values(),
        }
    }

    /// Finds the footprints of a unit.
    pub(crate) fn find(&mut self, state: &impl Source, subjects: Vec<Subject>) -> Found {
        let mut unit = Unit::new(subjects);
        let (mut rounds, mut fetched) = (0, 0);
        loop {
            let mut wanted = BTreeSet::new();
            for index in unit.open() {
                let attempt = unit.attempt(index, &self.trials, &self.setting, &self.memory);
                unit.take(index, attempt, &mut wanted);
            }
            if unit.open().is_empty() {
                let Self { trials, setting, memory, retrials, .. } = &*self;
                let may_go_on = || retrials.replace(retrials.get().saturating_sub(1)) > 0;
                wanted.extend(unit.in_order(trials, setting, memory, &may_go_on));
            }
            wanted.retain(|key| !unit.has(key));
            if wanted.is_empty() {
                assert!(unit.open().is_empty(), "a trial does not get on");
                break;
            }
            (rounds, fetched) = (rounds + 1, fetched + wanted.len());
            for key in wanted {
                let value = state.value(&key).unwrap();
                let memory = match key.is_replicated() {
                    true => &mut self.memory.replicated,
                    false => &mut self.memory.last_known,
                };
                memory.extend(value.clone().map(|value| (key.clone(), value)));
                unit.learn(key, value);
            }
        }
        let deployments = unit.deployments().map(|(key, _)| key.clone()).collect();
        let footprints = unit.finish().into_iter().map(Option::unwrap).collect();
        Found { footprints, rounds, fetched, deployments }
    }
}
