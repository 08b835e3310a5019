//! One host without network or disk, for tests: it does what it is told, or panics.

use parsec_protocol::transaction::Entry;
use parsec_protocol::{Footprint, Key, Receipt, Transaction, Value};

use crate::twin::Twin;
use crate::workload::{Audit, Workload};

/// The chain id that the host's Ethereum transactions are signed for.
pub(crate) const CHAIN_ID: u64 = 1_234;

/// Admits, discovers and executes transactions one after another.
pub(crate) struct Host(Twin);

impl Host {
    pub(crate) fn new() -> Self {
        Self(Twin::new(CHAIN_ID))
    }

    pub(crate) fn admit(&self, transaction: &Transaction) -> (Entry, Option<Footprint>) {
        self.0.admit(transaction).unwrap()
    }

    /// Runs a setup, of which everything has to commit, or be tolerated.
    pub(crate) fn set_up(&mut self, workload: &dyn Workload) {
        self.0.set_up(workload).unwrap();
    }

    /// What a transaction would touch now.
    pub(crate) fn footprint(&mut self, transaction: &Transaction) -> Footprint {
        self.0.footprint(transaction).unwrap()
    }

    /// Executes a transaction, which may stray only if its footprint was discovered.
    pub(crate) fn execute(&mut self, transaction: &Transaction) -> Receipt {
        self.0.execute(transaction).unwrap()
    }

    /// What is in the state under a key.
    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.0.value(key)
    }
}

/// The values of an audit's keys.
pub(crate) fn values(host: &Host, audit: &Audit) -> Vec<Option<Value>> {
    audit.keys().map(|key| host.value(key)).collect()
}
