//! Executing transactions one after another, in a block that is being made.

use std::sync::Arc;

use alloy_primitives::B256;
use bytes::Bytes;
use parsec_ethereum::{BlockTransaction, Environment};
use parsec_protocol::{
    EpochNumber, EpochRecord, ErrorCode, Key, Outcome, Position, Receipt, RuntimeId, TxId, Value,
    message,
};
use parsec_runtimes::evm::{Changes, Overlay};
use parsec_runtimes::{Call, Done, Interrupt, Sessions};

use crate::state::States;
use crate::transaction::Submission;

/// Why the chain must not go on: its state is damaged, or the machine is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the development chain can't go on: {0}")]
pub struct Stop(pub(crate) String);

/// Why a transaction is not in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) code: ErrorCode,
    pub(super) detail: String,
}

/// A block that is being made.
pub(super) struct Run {
    /// What its transactions see of it.
    pub(super) environment: Environment,
    /// What it has changed so far.
    pub(super) changes: Changes,
    pub(super) included: Vec<BlockTransaction>,
    pub(super) gas_used: u64,
    pub(super) blob_gas_used: u64,
    params: Value,
    epoch: EpochRecord,
}

impl Run {
    pub(super) fn new(environment: Environment, params: Value, changes: Changes) -> Self {
        let epoch = EpochRecord {
            number: EpochNumber(environment.number),
            timestamp_ms: environment.timestamp.saturating_mul(1_000),
            block: environment.number,
            parent: [0; 32],
            batches: Vec::new(),
        };
        let included = Vec::new();
        Self { environment, changes, included, gas_used: 0, blob_gas_used: 0, params, epoch }
    }

    /// Executes a transaction after those that are in the block, and puts it into the block.
    ///
    /// # Errors
    /// [`Stop`]; a transaction that can't be executed leaves no trace.
    pub(super) fn execute(
        &mut self,
        sessions: &mut Sessions,
        states: &States,
        transaction: &Submission,
    ) -> Result<Result<(), Invalid>, Stop> {
        let id = TxId(transaction.hash.0);
        let call = Call {
            id: &id,
            sender: transaction.sender.as_slice(),
            payload: &transaction.raw,
            epoch: &self.epoch,
            entropy: &self.environment.prevrandao.0,
            trial: false,
        };
        let below = |key: &Key| states.get(key).cloned();
        let mut overlay = Overlay::new(&below, &self.changes, &self.params);
        let done = match sessions.execute(RuntimeId::EVM, &call, &mut overlay) {
            Ok(done) => done,
            Err(Interrupt::Fatal(reason)) => return Err(Stop(reason)),
            Err(interrupt) => return Err(Stop(format!("an interrupt: {interrupt:?}"))),
        };
        let own = overlay.into_changes();
        if let Outcome::Invalid(code) = done.outcome {
            let detail = String::from_utf8_lossy(&done.output).into_owned();
            return Ok(Err(Invalid { code, detail }));
        }
        self.changes.extend(own);
        self.include(transaction, id, done);
        Ok(Ok(()))
    }

    fn include(&mut self, transaction: &Submission, id: TxId, done: Done) {
        let index = u32::try_from(self.included.len())
            .expect("each transaction takes gas, of which a block has less than 2^64");
        self.gas_used += done.work;
        self.blob_gas_used += transaction.blob_gas;
        let receipt = Receipt {
            id,
            position: Position { epoch: self.epoch.number, index },
            attempt: 0,
            outcome: done.outcome,
            work: done.work,
            output: message::short_output(&done.output),
            events: done.events,
        };
        let raw: Bytes = transaction.raw.clone();
        let sender = transaction.sender.0.0;
        self.included.push(BlockTransaction { raw, sender, receipt, state_root: None });
    }
}

/// What the transactions that wait would do if they were in the next block.
#[derive(Debug, Clone)]
pub struct Pending {
    /// What they would see of the block.
    pub environment: Environment,
    /// They themselves, in order, with what would become of them.
    pub transactions: Vec<BlockTransaction>,
    /// What they would change.
    changes: Arc<Changes>,
    /// The block before.
    pub parent: B256,
}

impl Pending {
    pub(super) fn new(run: Run, parent: B256) -> Self {
        let Run { environment, included, changes, .. } = run;
        Self { environment, transactions: included, changes: Arc::new(changes), parent }
    }

    /// The value of a key after them, if they would change it.
    #[must_use]
    pub fn changed(&self, key: &Key) -> Option<Option<&Value>> {
        self.changes.get(key).map(Option::as_ref)
    }
}
