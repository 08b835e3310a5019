//! A host without network or disk, on one thread: with it, a client finds the footprints that it
//! declares.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use alloy_primitives::{Address, U256};
use bytes::Bytes;
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, EpochNumber, EpochRecord, Footprint, Key, Outcome, PartitionId, Receipt, RuntimeId,
    Transaction, TxId, Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::evm::keys::{self, AccountRecord};
use parsec_runtimes::{Call, Execution, Recorder, Runtimes, Sessions};
use rayon::prelude::*;

use crate::workload::{LoadTransaction, Stage, Workload};

const ENTROPY: [u8; 32] = [7; 32];
/// Most strays of a transaction whose footprint was found.
const STRAYS_MAX: usize = 8;
/// Transactions whose footprints are found by one session.
const CHUNK: usize = 256;

/// The state.
#[derive(Default)]
struct State(BTreeMap<Key, Value>);

impl Source for State {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// Admits, discovers and executes transactions one after another.
pub(crate) struct Twin {
    runtimes: Runtimes,
    /// Only ever used alone; the lock lets a twin be looked at by many.
    sessions: Mutex<Sessions>,
    state: State,
    epoch: EpochRecord,
}

/// Names only what it is: a state may be long.
impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twin").field("keys", &self.state.0.len()).finish_non_exhaustive()
    }
}

/// Why a twin did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

impl Twin {
    /// A host with an empty state.
    pub(crate) fn new(chain_id: u64) -> Self {
        let runtimes = Runtimes::standard(chain_id);
        let sessions = Mutex::new(runtimes.sessions());
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 1_800_000_000_000,
            block: 1,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self { runtimes, sessions, state: State::default(), epoch }
    }

    /// Gives the accounts of a genesis their Ether.
    pub(crate) fn endow(&mut self, genesis: &[(Address, U256)]) {
        for (address, balance) in genesis {
            let record = AccountRecord { balance: *balance, nonce: 0 };
            self.state.0.insert(keys::account(address), record.encode());
        }
    }

    /// Runs a setup, of which everything has to commit, or be tolerated.
    pub(crate) fn set_up(&mut self, workload: &dyn Workload) -> Result<(), Failure> {
        self.endow(&workload.genesis());
        for Stage { purpose, transactions, tolerated } in workload.setup() {
            for LoadTransaction { transaction, .. } in transactions {
                let receipt = self.execute(&transaction)?;
                let fine = match receipt.outcome {
                    Outcome::Committed => true,
                    Outcome::Reverted(code) => tolerated == Some(code),
                    _ => false,
                };
                if !fine {
                    return Err(Failure(format!("{purpose}: {receipt:?}")));
                }
            }
        }
        Ok(())
    }

    /// Admits a transaction.
    pub(crate) fn admit(
        &self,
        transaction: &Transaction,
    ) -> Result<(Entry, Option<Footprint>), Failure> {
        let runtime = self.runtimes.get(transaction.runtime);
        let runtime = runtime.ok_or_else(|| Failure("no such runtime".to_owned()))?;
        let admitted = runtime.admit(transaction).map_err(|error| Failure(error.to_string()))?;
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
        Ok((entry, transaction.footprint.clone().or(admitted.footprint)))
    }

    /// What a transaction would touch now.
    #[cfg(test)]
    pub(crate) fn footprint(&mut self, transaction: &Transaction) -> Result<Footprint, Failure> {
        let (entry, known) = self.admit(transaction)?;
        match known {
            Some(known) => Ok(known),
            None => self.discover(&entry),
        }
    }

    fn discover(&mut self, entry: &Entry) -> Result<Footprint, Failure> {
        let Entry { id, runtime, sender, payload, .. } = entry;
        let sessions = self.sessions.get_mut().unwrap_or_else(PoisonError::into_inner);
        attempt(sessions, &self.state, &self.epoch, (*id, *runtime, sender, payload))
    }

    /// Declares the footprints of Ethereum transactions, by what they would touch now.
    pub(crate) fn declare(
        &self,
        load: &mut [LoadTransaction],
        address: impl Fn(u32) -> Address + Sync,
    ) -> Result<(), Failure> {
        load.par_chunks_mut(CHUNK).try_for_each(|chunk| {
            let mut sessions = self.runtimes.sessions();
            for LoadTransaction { sender, transaction } in chunk {
                let sender = sender.map(&address).unwrap_or_default();
                let sender = Bytes::copy_from_slice(sender.as_slice());
                // Nothing of what a trial sees depends on the id.
                let subject = (TxId([0; 32]), transaction.runtime, &sender, &transaction.payload);
                let found = attempt(&mut sessions, &self.state, &self.epoch, subject)?;
                transaction.footprint = Some(found);
            }
            Ok(())
        })
    }

    /// Executes a transaction, which may stray only if its footprint was discovered.
    pub(crate) fn execute(&mut self, transaction: &Transaction) -> Result<Receipt, Failure> {
        let (mut entry, known) = self.admit(transaction)?;
        let strays_allowed = if known.is_some() { 0 } else { STRAYS_MAX };
        entry.footprint = match known {
            Some(known) => known,
            None => self.discover(&entry)?,
        };
        for _ in 0..=strays_allowed {
            let receipt = self.run(&entry)?;
            let Outcome::Strayed { key, mode } = receipt.outcome else { return Ok(receipt) };
            let wider = Footprint::new(vec![Access { key, mode }]);
            let wider = wider.and_then(|wider| entry.footprint.union(&wider));
            entry.footprint = wider.map_err(|error| Failure(error.to_string()))?;
        }
        Err(Failure(format!("{} strays outside {:?}", entry.id, entry.footprint)))
    }

    fn run(&mut self, entry: &Entry) -> Result<Receipt, Failure> {
        let accesses = entry.footprint.accesses();
        let values: Vec<_> =
            accesses.iter().map(|access| self.state.0.get(&access.key).cloned()).collect();
        let sessions = self.sessions.get_mut().unwrap_or_else(PoisonError::into_inner);
        let done =
            Execution::run(sessions, entry, &self.epoch, &ENTROPY, 0, &values).map_err(Failure)?;
        for ((access, value), change) in accesses.iter().zip(&values).zip(&done.changes) {
            match change.apply(value.as_ref()) {
                Some(value) => self.state.0.insert(access.key.clone(), value),
                None => self.state.0.remove(&access.key),
            };
        }
        Ok(done.receipt)
    }

    /// What is in the state under a key.
    #[cfg(test)]
    pub(crate) fn value(&self, key: &Key) -> Option<Value> {
        self.state.0.get(key).cloned()
    }
}

/// What a transaction touches when it is tried.
fn attempt(
    sessions: &mut Sessions,
    state: &State,
    epoch: &EpochRecord,
    (id, runtime, sender, payload): (TxId, RuntimeId, &Bytes, &Bytes),
) -> Result<Footprint, Failure> {
    let mut recorder = Recorder::new(state);
    let call = Call { id: &id, sender, payload, epoch, entropy: &ENTROPY, trial: true };
    let tried = sessions.execute(runtime, &call, &mut recorder);
    tried.map_err(|interrupt| Failure(format!("{interrupt:?}")))?;
    let found = recorder.finish().map_err(|error| Failure(error.to_string()))?;
    Ok(found.footprint)
}
