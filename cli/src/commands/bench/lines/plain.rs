//! One thread that executes transactions over a map, one after another, as fast as that goes.
//!
//! There are no footprints: a transaction touches what it touches. What the runtimes do, and the
//! receipts, are the same as in a cluster.

use ahash::AHashMap;
use alloy_primitives::{Address, U256};
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Delta, EpochNumber, EpochRecord, Key, Mode, Outcome, PartitionId, Position, Receipt,
    Transaction, Value, message,
};
use parsec_runtimes::evm::keys::{self, AccountRecord};
use parsec_runtimes::{Call, Interrupt, Runtimes, Sessions, State};

use crate::failure::{Failure, failed};

/// What a transaction did to a key.
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

/// The thread's state, and what it executes with.
pub(super) struct PlainThread {
    runtimes: Runtimes,
    sessions: Sessions,
    held: Held,
    epoch: EpochRecord,
    entropy: [u8; 32],
    index: u32,
    committed: u64,
}

/// The state, and what the transaction that is being executed has done to it.
#[derive(Default)]
struct Held {
    state: AHashMap<Key, Value>,
    /// What it wrote, with what was there before, in order.
    written: Vec<Change>,
}

impl PlainThread {
    /// A thread with an empty state.
    pub(super) fn new(chain_id: u64) -> Self {
        let runtimes = Runtimes::standard(chain_id);
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 1_800_000_000_000,
            block: 1,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self {
            sessions: runtimes.sessions(),
            runtimes,
            held: Held::default(),
            entropy: epoch.digest(),
            epoch,
            index: 0,
            committed: 0,
        }
    }

    /// Gives the accounts of a genesis their Ether.
    pub(super) fn endow(&mut self, genesis: &[(Address, U256)]) {
        for (address, balance) in genesis {
            let record = AccountRecord { balance: *balance, nonce: 0 };
            self.held.state.insert(keys::account(address), record.encode());
        }
    }

    /// The set-up is done: what commits is counted from here.
    pub(super) fn begin_load(&mut self) {
        self.committed = 0;
    }

    /// Begins the next epoch.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch.parent = self.entropy;
        self.epoch.number = self.epoch.number.next();
        self.epoch.block += 1;
        self.entropy = self.epoch.digest();
        self.index = 0;
    }

    /// How many transactions of the load committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// What is in the state under a key.
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.held.state.get(key)
    }

    /// Decodes and authenticates a transaction.
    pub(super) fn admit(&self, transaction: &Transaction) -> Result<Entry, Failure> {
        let runtime = self.runtimes.get(transaction.runtime);
        let runtime = runtime.ok_or_else(|| failed("there is no such runtime"))?;
        let admitted = runtime.admit(transaction).map_err(failed)?;
        Ok(Entry {
            id: admitted.id,
            runtime: transaction.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            footprint: transaction.footprint.clone().or(admitted.footprint).unwrap_or_default(),
            expires: transaction.expires,
        })
    }

    /// Executes a transaction; what it changes is added to `changes`.
    pub(super) fn execute(
        &mut self,
        entry: &Entry,
        changes: Option<&mut Vec<Change>>,
    ) -> Result<Receipt, Failure> {
        let Entry { id, sender, payload, .. } = entry;
        let Self { sessions, held, epoch, entropy, .. } = self;
        let call = Call { id, sender, payload, epoch, entropy, trial: false };
        let done = sessions.execute(entry.runtime, &call, held);
        let done = done.map_err(|interrupt| failed(format!("one thread: {interrupt:?}")))?;
        match (&done.outcome, changes) {
            (Outcome::Invalid(_), _) => held.undo(),
            (_, Some(changes)) => changes.append(&mut held.written),
            (_, None) => held.written.clear(),
        }
        self.committed += u64::from(done.outcome == Outcome::Committed);
        let position = Position { epoch: epoch.number, index: self.index };
        self.index += 1;
        Ok(Receipt {
            id: *id,
            position,
            attempt: 0,
            outcome: done.outcome,
            work: done.work,
            output: message::short_output(&done.output),
            events: done.events,
        })
    }
}

impl Held {
    fn set(&mut self, key: &Key, new: Option<Value>) {
        let old = match &new {
            Some(value) => match self.state.get_mut(key) {
                Some(held) => Some(std::mem::replace(held, value.clone())),
                None => self.state.insert(key.clone(), value.clone()),
            },
            None => self.state.remove(key),
        };
        self.written.push(Change { key: key.clone(), old, new });
    }

    /// Takes everything back that the transaction wrote.
    fn undo(&mut self) {
        while let Some(Change { key, old, .. }) = self.written.pop() {
            match old {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
    }
}

impl State for Held {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        Ok(self.state.get(key).cloned())
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        self.set(key, value);
        Ok(())
    }

    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        let new = delta.apply(self.state.get(key));
        self.set(key, new);
        Ok(())
    }

    fn covers(&self, _: &Key, _: Mode) -> bool {
        true
    }
}
