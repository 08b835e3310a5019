//! Transactions one after another over a map, each with exactly the footprint that it has there.

use std::collections::BTreeMap;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    EpochNumber, EpochRecord, Footprint, Key, PartitionId, Receipt, Transaction, Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::{Call, Execution, Recorder, Runtimes, Sessions};
use parsec_storage::Digest;

const ENTROPY: [u8; 32] = [0; 32];

/// A host with neither network nor disk nor order to agree on: what is run next comes next.
///
/// Its epoch is always the same one, so that it serves for transactions that don't look at it.
pub struct Serial {
    runtimes: Runtimes,
    sessions: Sessions,
    state: Snapshot,
    epoch: EpochRecord,
}

struct Snapshot(BTreeMap<Key, Value>);

impl Source for Snapshot {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

impl Serial {
    /// A host that begins with this state.
    #[must_use]
    pub fn new(runtimes: &Runtimes, genesis: &[(Key, Value)]) -> Self {
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 0,
            block: 1,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self {
            runtimes: runtimes.clone(),
            sessions: runtimes.sessions(),
            state: Snapshot(genesis.iter().cloned().collect()),
            epoch,
        }
    }

    /// Runs a transaction. Returns what became of it, and what it touched on the way.
    ///
    /// # Panics
    /// If it is refused, or has not the same footprint twice.
    pub fn run(&mut self, transaction: &Transaction) -> (Receipt, Footprint) {
        let admitted = self.runtimes.get(transaction.runtime).unwrap().admit(transaction).unwrap();
        let mut entry = Entry {
            id: admitted.id,
            runtime: transaction.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            footprint: Footprint::default(),
            expires: None,
        };
        entry.footprint = self.record(&entry);
        let accesses = entry.footprint.accesses();
        let values: Vec<_> = accesses.iter().map(|a| self.state.0.get(&a.key).cloned()).collect();
        let run = Execution::run(&mut self.sessions, &entry, &self.epoch, &ENTROPY, 0, &values);
        let Execution { changes, receipt } = run.unwrap();
        assert!(receipt.outcome.is_final(), "{receipt:?}");
        for ((access, old), change) in accesses.iter().zip(&values).zip(&changes) {
            match change.apply(old.as_ref()) {
                Some(value) => self.state.0.insert(access.key.clone(), value),
                None => self.state.0.remove(&access.key),
            };
        }
        (receipt, entry.footprint)
    }

    /// The digest of the state.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.state.0.iter().map(|(key, value)| Digest::of(key, value)).sum()
    }

    fn record(&mut self, entry: &Entry) -> Footprint {
        let mut recorder = Recorder::new(&self.state);
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &self.epoch,
            entropy: &ENTROPY,
            trial: false,
        };
        self.sessions.execute(entry.runtime, &call, &mut recorder).unwrap();
        recorder.finish().unwrap().footprint
    }
}
