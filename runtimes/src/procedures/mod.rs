//! The runtime of built-in stored procedures: Rust code that knows its tables, called with typed
//! arguments.
//!
//! Where a [native program](crate::native) is a list of operations on keys, a procedure computes:
//! what it writes follows from what it read. The ones here are those that databases are measured
//! with, so that they can be compared: [SmallBank](smallbank), [YCSB](ycsb) and [TPC-C](tpcc).
//!
//! The payload is an [`Invocation`], encoded. Its footprint follows from the arguments, except
//! where a procedure goes on from what it reads: then admission does not know it, and it is
//! declared, once the rows that it needs are at hand. Only if those say nothing, it is tried.
//!
//! A procedure reads and computes first, and writes last: if it says no, it has changed nothing.
//! Rows are no one's own (native programs may write them, too), so what a procedure finds is
//! checked as input from outside is: a row that can't be read makes it say no
//! ([`ErrorCode::Refused`]).

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use bytes::Bytes;
use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::limits::OUTPUT_BYTES_MAX;
use parsec_protocol::{
    Access, ErrorCode, Footprint, Key, Mode, Outcome, RuntimeId, Transaction, Value,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::access::Source;
use crate::{Admitted, Call, Declared, Done, Interrupt, Rejection, Runtime, Session, State};

mod fields;
pub mod smallbank;
pub mod tpcc;
pub mod ycsb;

/// A call of a procedure: the payload of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Invocation {
    /// On the accounts of a bank.
    SmallBank { bank: u64, call: smallbank::Call },
    /// On the records of a table.
    Ycsb(ycsb::Call),
    /// On the warehouses of a database.
    Tpcc { database: u64, call: tpcc::Call },
}

impl Invocation {
    /// The transaction that makes the call. Calls that are to run more than once need different
    /// salts.
    #[must_use]
    pub fn into_transaction(self, salt: u128) -> Transaction {
        let payload = Bytes::from(codec::encode(&self));
        Transaction { salt, ..Transaction::new(RuntimeId::PROCEDURES, payload) }
    }

    /// The footprint, unless it depends on the state.
    ///
    /// # Errors
    /// [`Malformed::FootprintLength`] if the arguments exceed the limits of the procedure by far.
    pub fn footprint(&self) -> Result<Option<Footprint>, Malformed> {
        self.accesses().map(Footprint::new).transpose()
    }

    fn accesses(&self) -> Option<Vec<Access>> {
        match self {
            Self::SmallBank { bank, call } => Some(call.accesses(*bank)),
            Self::Ycsb(call) => Some(call.accesses()),
            Self::Tpcc { database, call } => call.accesses(*database),
        }
    }

    /// What is wrong with the arguments, if anything is.
    fn fault(&self) -> Option<&'static str> {
        match self {
            Self::SmallBank { call, .. } => call.fault(),
            Self::Ycsb(call) => call.fault(),
            Self::Tpcc { call, .. } => call.fault(),
        }
    }

    fn run(&self, call: &Call<'_>, state: &mut dyn State) -> Step {
        match self {
            Self::SmallBank { bank, call } => call.run(*bank, state),
            Self::Ycsb(call) => call.run(state),
            Self::Tpcc { database, call: arguments } => arguments.run(*database, call, state),
        }
    }
}

/// The limits of arguments are the procedures' own: see `Invocation::fault`.
impl Wire for Invocation {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// What a procedure does when it says yes.
#[derive(Debug, Default)]
struct Effects {
    /// What it sets.
    writes: Vec<(Key, Value)>,
    /// What it adds.
    additions: Vec<(Key, i128)>,
    /// What it returns.
    output: Vec<u8>,
}

/// `Err` within is the procedure's own no.
type Step<T = Effects> = Result<Result<T, ErrorCode>, Interrupt>;

/// Takes the value out of a step, or returns its no.
macro_rules! yes {
    ($step:expr) => {
        match $step {
            Ok(value) => value,
            Err(code) => return Ok(Err(code)),
        }
    };
}
use yes;

fn access(key: Key, mode: Mode) -> Access {
    Access { key, mode }
}

/// Decodes a payload, and refuses arguments that no procedure may have.
fn decode(payload: &[u8]) -> Result<Invocation, Rejection> {
    let invocation: Invocation = codec::decode(payload)
        .map_err(|error| Rejection::new(ErrorCode::Malformed, error.to_string()))?;
    match invocation.fault() {
        Some(fault) => Err(Rejection::new(ErrorCode::Malformed, fault)),
        None => Ok(invocation),
    }
}

/// The runtime of [`Invocation`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcedureRuntime;

impl Runtime for ProcedureRuntime {
    fn id(&self) -> RuntimeId {
        RuntimeId::PROCEDURES
    }

    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection> {
        let footprint = decode(&transaction.payload)?
            .footprint()
            .map_err(|error| Rejection::new(ErrorCode::TooLarge, error.to_string()))?;
        Ok(Admitted { id: transaction.content_id(), sender: Bytes::new(), footprint })
    }

    fn declared(&self, _: &[u8], payload: &Bytes, source: &dyn Source) -> Declared {
        match decode(payload) {
            Ok(Invocation::Tpcc { database, call }) => call.declared(database, source),
            _ => Declared::Nothing,
        }
    }

    fn declares_by_values(&self) -> bool {
        true
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(ProcedureSession)
    }
}

struct ProcedureSession;

impl Session for ProcedureSession {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let invocation = match decode(call.payload) {
            Ok(invocation) => invocation,
            // Not the decoder's words: they may hold addresses, which differ between hosts.
            Err(rejection) => return Ok(Done::invalid(rejection.code, "not a procedure's call")),
        };
        let mut counted = Counted { state, touched: 0 };
        let verdict = invocation.run(call, &mut counted)?;
        let outcome = match verdict {
            Ok(effects) if effects.output.len() > OUTPUT_BYTES_MAX => Err(ErrorCode::TooLarge),
            Ok(effects) => Ok(effects),
            Err(code) => Err(code),
        };
        let (outcome, output) = match outcome {
            Ok(Effects { writes, additions, output }) => {
                for (key, value) in writes {
                    counted.put(&key, Some(value))?;
                }
                for (key, amount) in additions {
                    counted.add(&key, amount.into())?;
                }
                (Outcome::Committed, output.into())
            }
            Err(code) => (Outcome::Reverted(code), Bytes::new()),
        };
        Ok(Done { outcome, work: counted.touched, output, events: Vec::new() })
    }
}

/// The state, and how often it was touched: the work of a procedure.
struct Counted<'a> {
    state: &'a mut dyn State,
    touched: u64,
}

impl State for Counted<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        self.touched += 1;
        self.state.get(key)
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        self.touched += 1;
        self.state.put(key, value)
    }

    fn add(&mut self, key: &Key, delta: parsec_protocol::Delta) -> Result<(), Interrupt> {
        self.touched += 1;
        self.state.add(key, delta)
    }

    fn covers(&self, key: &Key, mode: Mode) -> bool {
        self.state.covers(key, mode)
    }
}

#[cfg(test)]
mod tests;
