//! One host without network or disk, for tests: it admits, discovers and executes transactions one
//! after another.

use std::collections::BTreeMap;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, EpochNumber, EpochRecord, Footprint, Key, Outcome, PartitionId, Receipt, Transaction,
    Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::{Call, Execution, Recorder, Runtimes, Sessions};

use crate::workload::{Audit, LoadTransaction, Stage, Workload};

/// The chain id that the host's Ethereum transactions are signed for.
pub(crate) const CHAIN_ID: u64 = 1_234;

/// The state of the host.
#[derive(Default)]
struct State(BTreeMap<Key, Value>);

impl Source for State {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// Admits, discovers and executes transactions one after another.
pub(crate) struct Host {
    runtimes: Runtimes,
    sessions: Sessions,
    state: State,
    epoch: EpochRecord,
}

impl Host {
    pub(crate) fn new() -> Self {
        let runtimes = Runtimes::standard(CHAIN_ID);
        let sessions = runtimes.sessions();
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 1_800_000_000_000,
            block: 1,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self { runtimes, sessions, state: State::default(), epoch }
    }

    pub(crate) fn admit(&self, transaction: &Transaction) -> (Entry, Option<Footprint>) {
        let runtime = self.runtimes.get(transaction.runtime).unwrap();
        let admitted = runtime.admit(transaction).unwrap();
        let entry = Entry {
            id: admitted.id,
            runtime: transaction.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            footprint: Footprint::default(),
            expires: transaction.expires,
        };
        (entry, transaction.footprint.clone().or(admitted.footprint))
    }

    fn discover(&mut self, entry: &Entry) -> Footprint {
        let mut recorder = Recorder::new(&self.state);
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &self.epoch,
            entropy: &[7; 32],
            trial: true,
        };
        self.sessions.execute(entry.runtime, &call, &mut recorder).unwrap();
        recorder.finish().unwrap().footprint
    }

    /// Runs a setup, of which everything has to commit, or be tolerated.
    pub(crate) fn set_up(&mut self, workload: &dyn Workload) {
        for Stage { purpose, transactions, tolerated } in workload.setup() {
            for LoadTransaction { transaction, .. } in transactions {
                let receipt = self.execute(&transaction);
                let fine = match receipt.outcome {
                    Outcome::Committed => true,
                    Outcome::Reverted(code) => tolerated == Some(code),
                    _ => false,
                };
                assert!(fine, "{purpose}: {receipt:?}");
            }
        }
    }

    /// What a transaction would touch now.
    pub(crate) fn footprint(&mut self, transaction: &Transaction) -> Footprint {
        let (entry, known) = self.admit(transaction);
        known.unwrap_or_else(|| self.discover(&entry))
    }

    /// Executes a transaction, which may stray only if its footprint was discovered.
    pub(crate) fn execute(&mut self, transaction: &Transaction) -> Receipt {
        let (mut entry, known) = self.admit(transaction);
        let strays_allowed = if known.is_some() { 0 } else { 8 };
        entry.footprint = known.unwrap_or_else(|| self.discover(&entry));
        for _ in 0..=strays_allowed {
            let receipt = self.attempt(&entry);
            let Outcome::Strayed { key, mode } = receipt.outcome else { return receipt };
            let wider = Footprint::new(vec![Access { key, mode }]).unwrap();
            entry.footprint = entry.footprint.union(&wider).unwrap();
        }
        panic!("{} strays outside {:?}", entry.id, entry.footprint);
    }

    fn attempt(&mut self, entry: &Entry) -> Receipt {
        let accesses = entry.footprint.accesses();
        let values: Vec<_> =
            accesses.iter().map(|access| self.state.0.get(&access.key).cloned()).collect();
        let (sessions, epoch) = (&mut self.sessions, &self.epoch);
        let done = Execution::run(sessions, entry, epoch, &[7; 32], 0, &values).unwrap();
        for ((access, value), change) in accesses.iter().zip(&values).zip(&done.changes) {
            match change.apply(value.as_ref()) {
                Some(value) => self.state.0.insert(access.key.clone(), value),
                None => self.state.0.remove(&access.key),
            };
        }
        done.receipt
    }

    /// What is in the state under a key.
    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.state.0.get(key).cloned()
    }
}

/// The values of an audit's keys.
pub(crate) fn values(host: &Host, audit: &Audit) -> Vec<Option<Value>> {
    audit.keys().map(|key| host.value(key)).collect()
}
