//! What executes transactions: the [`Runtime`] trait, and one module for each runtime.
//!
//! This crate owns what a payload means: how it is encoded and authenticated, which keys it
//! touches, what it does. A runtime is deterministic: all that it sees is its transaction, the
//! epoch's record, and the state through [`State`].
//!
//! It must not know the network, the storage engine, or how keys are partitioned.

pub mod access;
mod draft;
pub mod evm;
pub mod lua;
pub mod native;
pub mod predict;
pub mod procedures;
pub mod system;
#[cfg(test)]
mod testing;
pub mod trial;

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::{
    Access, Delta, EpochRecord, ErrorCode, Event, Footprint, Key, Mode, Outcome, RuntimeId,
    Transaction, TxId, Value,
};

pub use access::{Execution, Recorder, Recording, Workspace};
pub use predict::{Predictor, Predictors};

/// Why a call to [`State`] can't be served. A runtime hands it on at once, unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupt {
    /// The key is outside the footprint that the transaction was ordered with.
    Stray(Access),
    /// The value is not at hand yet; the same execution will be tried again when it is.
    Missing(Key),
    /// This host is broken: it must stop before it answers anyone.
    Fatal(String),
}

/// The state, as one transaction sees it: what it wrote itself, over what came before it.
pub trait State {
    /// The value of `key`.
    ///
    /// # Errors
    /// An [`Interrupt`], to be handed on.
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt>;

    /// Sets the value of `key`, or removes it.
    ///
    /// # Errors
    /// An [`Interrupt`], to be handed on.
    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt>;

    /// Adds to the number that the value of `key` begins with, without reading it.
    ///
    /// # Errors
    /// An [`Interrupt`], to be handed on.
    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt>;

    /// Whether `key` may be touched in `mode` without an interrupt. While a footprint is being
    /// discovered, this is so only for what was touched before.
    fn covers(&self, key: &Key, mode: Mode) -> bool;
}

/// A transaction to execute, with all the context it may see beside the state.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its id.
    pub id: &'a TxId,
    /// Who sent it, as authenticated by [`Runtime::admit`].
    pub sender: &'a [u8],
    /// What to do.
    pub payload: &'a Bytes,
    /// The epoch in which it runs.
    pub epoch: &'a EpochRecord,
    /// The epoch's digest, from which entropy is taken.
    pub entropy: &'a [u8; 32],
    /// Whether this is a trial to discover the footprint: what depends on transactions that will
    /// come before it (its nonce, its sender's funds) is then not checked.
    pub trial: bool,
}

/// What became of a call. If the outcome is not `Committed`, the changes are what remains all the
/// same (the gas that an Ethereum transaction paid for).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Whether it took effect. Never [`Outcome::Strayed`].
    pub outcome: Outcome,
    /// The work it took: gas, or instructions.
    pub work: u64,
    /// What it returned.
    pub output: Bytes,
    /// What it announced.
    pub events: Vec<Event>,
}

impl Done {
    /// A call that could not run, and why, for people.
    #[must_use]
    pub fn invalid(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Invalid(code),
            work: 0,
            output: detail.into().into(),
            events: Vec::new(),
        }
    }
}

/// What admission found out about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The id by which it executes at most once.
    pub id: TxId,
    /// Who sent it; empty if that does not matter.
    pub sender: Bytes,
    /// The footprint, where the payload itself tells it.
    pub footprint: Option<Footprint>,
}

/// What a payload declares of its footprint, beside what [`Runtime::admit`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// Nothing.
    Nothing,
    /// It can be told when the values of these keys are at hand.
    Needs(Vec<Key>),
    /// All of it.
    Footprint(Footprint),
    /// All of it, which depends on [how many](access::Source::ahead) come before that change
    /// `counter`, as this one does.
    Counting {
        /// All of it.
        footprint: Footprint,
        /// What is counted.
        counter: Key,
    },
}

/// Why a transaction is refused at admission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {detail}")]
pub struct Rejection {
    /// Why.
    pub code: ErrorCode,
    /// Why, for people.
    pub detail: String,
}

impl Rejection {
    /// A rejection.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// A runtime: what is shared by all that execute transactions of one kind.
pub trait Runtime: Send + Sync {
    /// The number by which transactions name it.
    fn id(&self) -> RuntimeId;

    /// Decodes and authenticates a transaction. The most costly part of admission, run on many
    /// threads; never needs the state.
    ///
    /// # Errors
    /// Why the transaction is refused.
    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection>;

    /// Keys that a call of this payload is likely to touch, to be fetched before the first trial.
    fn likely_keys(&self, sender: &[u8], payload: &Bytes) -> Vec<Key> {
        let _ = (sender, payload);
        Vec::new()
    }

    /// What the value of a key may well be, where a trial goes on before it is at hand. Never asked
    /// about replicated keys.
    fn guess(&self, key: &Key) -> Option<Value> {
        let _ = key;
        None
    }

    /// The footprint that the payload itself declares, where values are needed to tell it, but no
    /// trial. At first, `source` has those of replicated keys at most.
    fn declared(&self, sender: &[u8], payload: &Bytes, source: &dyn access::Source) -> Declared {
        let _ = (sender, payload, source);
        Declared::Nothing
    }

    /// Whether what payloads declare depends on values that change: then one that strayed declares
    /// anew. (What else a stray declares, it would stray from again.)
    fn declares_by_values(&self) -> bool {
        false
    }

    /// Whether transactions that need a trial go where values send them, which other transactions
    /// write: then a trial has to know what those before it do.
    fn follows_values(&self) -> bool {
        false
    }

    /// Predicts footprints without a trial, if this runtime can.
    fn predictor(&self) -> Option<Box<dyn Predictor>> {
        None
    }

    /// Answers a question about the state after an epoch, in the runtime's own encoding, without
    /// any effect. It may execute for long: it belongs on a thread that may be kept busy.
    ///
    /// # Errors
    /// Why there is no answer. By default, a runtime answers none.
    fn answer(&self, snapshot: &mut dyn Snapshot, question: &Bytes) -> Result<Bytes, Rejection> {
        let _ = (snapshot, question);
        let detail = format!("runtime {} answers no questions", self.id().0);
        Err(Rejection::new(ErrorCode::Unsupported, detail))
    }

    /// An executor of calls, for one thread.
    fn session(&self) -> Box<dyn Session>;
}

/// The state after an epoch, over all partitions, as a question to a runtime reads it.
pub trait Snapshot {
    /// The values of keys, in their order. A call may be a round trip to other hosts.
    ///
    /// # Errors
    /// [`ErrorCode::NotKept`] if the state is too old, [`ErrorCode::Unavailable`] if it can't be
    /// read now: the question has no answer then.
    fn values(&mut self, keys: &[Key]) -> Result<Vec<Option<Value>>, Rejection>;

    /// The hash of an Ethereum block of this cluster; none if it is not sealed.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    fn block_hash(&mut self, number: u64) -> Result<Option<[u8; 32]>, Rejection>;
}

/// Executes calls one after another; what it keeps between them (a pooled virtual machine, code
/// already analysed) never changes an outcome.
pub trait Session: Send {
    /// Executes a call.
    ///
    /// # Errors
    /// The [`Interrupt`] that [`State`] raised, or [`Interrupt::Fatal`] if the host is broken.
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt>;
}

/// The runtimes of a cluster, by number.
#[derive(Clone)]
pub struct Runtimes {
    by_id: Vec<Option<Arc<dyn Runtime>>>,
}

impl Runtimes {
    /// A set of runtimes; of two with one number, the later counts.
    #[must_use]
    pub fn new(runtimes: Vec<Arc<dyn Runtime>>) -> Self {
        let mut by_id = Vec::new();
        for runtime in runtimes {
            let index = usize::from(runtime.id().0);
            if by_id.len() <= index {
                by_id.resize(index + 1, None);
            }
            by_id[index] = Some(runtime);
        }
        Self { by_id }
    }

    /// All runtimes of this crate, for a cluster whose chain id is `chain_id`.
    #[must_use]
    pub fn standard(chain_id: u64) -> Self {
        Self::new(vec![
            Arc::new(system::SystemRuntime),
            Arc::new(native::NativeRuntime),
            Arc::new(evm::EvmRuntime::new(chain_id)),
            Arc::new(lua::LuaRuntime::new()),
            Arc::new(procedures::ProcedureRuntime),
        ])
    }

    /// The runtime with that number.
    #[must_use]
    pub fn get(&self, id: RuntimeId) -> Option<&Arc<dyn Runtime>> {
        self.by_id.get(usize::from(id.0))?.as_ref()
    }

    /// A predictor of every runtime that has one.
    #[must_use]
    pub fn predictors(&self) -> Predictors {
        Predictors::new(self.by_id.iter().map(|r| r.as_ref().and_then(|r| r.predictor())))
    }

    /// A session of every runtime, for one thread.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions { by_id: self.by_id.iter().map(|r| r.as_ref().map(|r| r.session())).collect() }
    }
}

/// A session of every runtime, for one thread.
pub struct Sessions {
    by_id: Vec<Option<Box<dyn Session>>>,
}

impl Sessions {
    /// Executes a call of `runtime`. A runtime that this host does not have makes it stop, since
    /// others may have it.
    ///
    /// # Errors
    /// The [`Interrupt`] of the session.
    pub fn execute(
        &mut self,
        runtime: RuntimeId,
        call: &Call<'_>,
        state: &mut dyn State,
    ) -> Result<Done, Interrupt> {
        match self.by_id.get_mut(usize::from(runtime.0)) {
            Some(Some(session)) => session.execute(call, state),
            _ => Err(Interrupt::Fatal(format!("this host has no runtime {}", runtime.0))),
        }
    }
}
