//! One host without network or disk.

use std::cell::RefCell;
use std::collections::BTreeSet;

use ahash::AHashMap;
use bytes::Bytes;
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    EpochNumber, EpochRecord, Footprint, Key, Outcome, PartitionId, RuntimeId, Transaction, TxId,
    Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::trial::{Memory, Setting, Subject, Trials, Unit};
use parsec_runtimes::{Call, Execution, Interrupt, Recorder, Runtimes, Sessions};

const ENTROPY: [u8; 32] = [7; 32];

/// The chain id that transactions are signed for.
pub(crate) const CHAIN_ID: u64 = 1;

/// An admitted transaction.
pub(crate) struct Outing {
    pub(crate) id: TxId,
    pub(crate) runtime: RuntimeId,
    pub(crate) sender: Bytes,
    pub(crate) payload: Bytes,
    known: Option<Footprint>,
}

/// All values.
#[derive(Default)]
struct State(AHashMap<Key, Value>);

impl Source for State {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// Values that were fetched, over those of replicated keys that are remembered.
struct Fetched<'a> {
    values: AHashMap<Key, Option<Value>>,
    remembered: &'a Remembered,
}

impl Source for Fetched<'_> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        let fetched = self.values.get(key).cloned();
        fetched.or_else(|| self.remembered.replicated.get(key).cloned().map(Some))
    }
}

/// What is remembered of values that were fetched for others.
#[derive(Default)]
struct Remembered {
    replicated: AHashMap<Key, Value>,
    recent: AHashMap<Key, Value>,
}

impl Memory for Remembered {
    fn replicated(&self, key: &Key) -> Option<Value> {
        self.replicated.get(key).cloned()
    }

    fn last_known(&self, key: &Key) -> Option<Value> {
        self.recent.get(key).cloned()
    }
}

/// A host that tries and executes transactions one after another.
pub(crate) struct World {
    pub(crate) runtimes: Runtimes,
    sessions: RefCell<Sessions>,
    trials: Trials,
    state: State,
    remembered: Remembered,
    setting: Setting,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtimes = Runtimes::standard(CHAIN_ID);
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 1_800_000_000_000,
            block: 1,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self {
            sessions: RefCell::new(runtimes.sessions()),
            trials: Trials::new(runtimes.clone()),
            runtimes,
            state: State::default(),
            remembered: Remembered::default(),
            setting: Setting { epoch, entropy: ENTROPY },
        }
    }

    /// Sets a value, before anything is executed.
    pub(crate) fn put(&mut self, key: Key, value: Value) {
        self.state.0.insert(key, value);
    }

    /// Admits a transaction.
    pub(crate) fn admit(&self, transaction: &Transaction) -> Result<Outing, String> {
        let runtime = self.runtimes.get(transaction.runtime).ok_or("no such runtime")?;
        let admitted = runtime.admit(transaction).map_err(|error| error.to_string())?;
        Ok(Outing {
            id: admitted.id,
            runtime: transaction.runtime,
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            known: transaction.footprint.clone().or(admitted.footprint),
        })
    }

    /// Runs transactions that have to commit.
    pub(crate) fn set_up(&mut self, transactions: &[Transaction]) -> Result<(), String> {
        for transaction in transactions {
            let outing = self.admit(transaction)?;
            let footprint = match &outing.known {
                Some(known) => known.clone(),
                None => self.try_at_hand(&outing)?,
            };
            if !self.execute(&outing, footprint)? {
                return Err("a setup strays".to_owned());
            }
        }
        Ok(())
    }

    /// Executes a transaction in a footprint; whether it did not stray.
    pub(crate) fn execute(
        &mut self,
        outing: &Outing,
        footprint: Footprint,
    ) -> Result<bool, String> {
        let entry = Entry {
            id: outing.id,
            runtime: outing.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: outing.sender.clone(),
            payload: outing.payload.clone(),
            footprint,
            expires: None,
        };
        let accesses = entry.footprint.accesses();
        let values: Vec<_> = accesses.iter().map(|a| self.state.0.get(&a.key).cloned()).collect();
        let sessions = &mut self.sessions.borrow_mut();
        let done = Execution::run(sessions, &entry, &self.setting.epoch, &ENTROPY, 0, &values)?;
        for ((access, old), change) in accesses.iter().zip(&values).zip(&done.changes) {
            match change.apply(old.as_ref()) {
                Some(value) => self.state.0.insert(access.key.clone(), value),
                None => self.state.0.remove(&access.key),
            };
        }
        match done.receipt.outcome {
            Outcome::Committed => Ok(true),
            Outcome::Strayed { .. } => Ok(false),
            outcome => Err(format!("{outcome:?}: {:?}", done.receipt.output)),
        }
    }

    /// Tries a transaction with all values at hand.
    pub(crate) fn try_at_hand(&self, outing: &Outing) -> Result<Footprint, String> {
        let mut recorder = Recorder::new(&self.state);
        self.attempt(outing, &mut recorder).map_err(|interrupt| format!("{interrupt:?}"))?;
        recorder.finish().map(|found| found.footprint).map_err(|error| error.to_string())
    }

    fn attempt<S: Source>(
        &self,
        outing: &Outing,
        recorder: &mut Recorder<'_, S>,
    ) -> Result<(), Interrupt> {
        let call = Call {
            id: &outing.id,
            sender: &outing.sender,
            payload: &outing.payload,
            epoch: &self.setting.epoch,
            entropy: &ENTROPY,
            trial: true,
        };
        self.sessions.borrow_mut().execute(outing.runtime, &call, recorder).map(drop)
    }

    /// Finds a footprint by trials that stop at the first value that is not at hand. Returns also
    /// in how many rounds of reads.
    pub(crate) fn find_stopping(&self, outing: &Outing) -> Result<(Footprint, usize), String> {
        let runtime = self.runtimes.get(outing.runtime).ok_or("no such runtime")?;
        let mut fetched = Fetched { values: AHashMap::new(), remembered: &self.remembered };
        let mut wanted = runtime.likely_keys(&outing.sender, &outing.payload);
        for round in 1.. {
            wanted.retain(|key| fetched.value(key).is_none());
            for key in wanted {
                let value = self.state.0.get(&key).cloned();
                fetched.values.insert(key, value);
            }
            let mut recorder = Recorder::new(&fetched);
            match self.attempt(outing, &mut recorder) {
                Ok(()) => {
                    let found = recorder.finish().map_err(|error| error.to_string())?;
                    return Ok((found.footprint, round));
                }
                Err(Interrupt::Missing(key)) => wanted = vec![key],
                Err(interrupt) => return Err(format!("{interrupt:?}")),
            }
        }
        Err("it never ends".to_owned())
    }

    /// Finds a footprint as a sequencer does. Returns also in how many rounds of reads.
    pub(crate) fn find_going_on(&mut self, outing: &Outing) -> Result<(Footprint, usize), String> {
        let mut unit = Unit::new(vec![Subject {
            id: outing.id,
            runtime: outing.runtime,
            sender: outing.sender.clone(),
            payload: outing.payload.clone(),
            known: None,
            declares: false,
            erratic: false,
        }]);
        let runtime = self.runtimes.get(outing.runtime).ok_or("no such runtime")?;
        let likely = runtime.likely_keys(&outing.sender, &outing.payload);
        let mut wanted: BTreeSet<Key> = likely.into_iter().collect();
        let mut rounds = 0;
        while !unit.open().is_empty() {
            let attempt = unit.attempt(0, &self.trials, &self.setting, &self.remembered);
            unit.take(0, attempt, &mut wanted);
            if unit.open().is_empty() {
                break;
            }
            rounds += 1;
            for key in std::mem::take(&mut wanted) {
                let value = self.state.0.get(&key).cloned();
                let memory = match key.is_replicated() {
                    true => &mut self.remembered.replicated,
                    false => &mut self.remembered.recent,
                };
                memory.extend(value.clone().map(|value| (key.clone(), value)));
                unit.learn(key, value);
            }
        }
        match unit.finish().pop().flatten() {
            Some(Ok(footprint)) => Ok((footprint, rounds)),
            other => Err(format!("{other:?}")),
        }
    }
}
