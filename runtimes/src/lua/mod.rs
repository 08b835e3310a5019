//! The Lua runtime: contracts in Lua 5.4, sandboxed, metered and deterministic.
//!
//! A contract is a chunk that returns a table of functions; its id is the BLAKE3 hash of its
//! source, which stands under a replicated key. Each call runs the chunk anew in an environment of
//! its own, then one of the functions, as one transaction: an error undoes everything.
//!
//! **What contracts have.** Of Lua: the language without `^` and `__concat`, without strings as
//! numbers in arithmetic and without tables or functions as keys of tables; the basic functions and
//! `coroutine`, `math`, `string`, `table` and `utf8`, without what loads code, draws random
//! numbers, looks at clocks or depends on the C library (`math.pow(x, n)` takes an integer `n`). An
//! `xpcall`'s handler runs after the error has unwound the stack. `__gc` is refused.
//!
//! Of the host:
//!
//! | function | does |
//! |---|---|
//! | `state.get(key)` | the value of a key of the contract, or nil |
//! | `state.put(key, value)` | sets it to a string, or removes it with nil |
//! | `state.add(key, n)` | adds to the 256-bit number it begins with, without reading it |
//! | `state.number(key)` | that number as an integer; 0 if absent |
//! | `emit(topic, data)` | announces an event; a topic that has not 32 bytes is hashed (BLAKE3) |
//! | `check_sig(key, signature, message)` | an error unless it is good: BIP-340, of the SHA-256 |
//! | `sha256(s)`, `blake3(s)` | hashes |
//! | `block.epoch`, `block.timestamp` | of the epoch; milliseconds since 1970 |
//! | `tx.id` | of the transaction, 32 bytes |
//!
//! **Work** is counted in Lua instructions, in steps of [`limits::TICK_INSTRUCTIONS`]; each byte of
//! source, each request to the state and each host function that may take long costs some as well,
//! and long strings and much memory make every instruction dearer. [`limits`] has the numbers.
//!
//! **Determinism.** Whoever changes the version of Lua changes the protocol: the order of `pairs`,
//! the texts of errors and the memory counted are Lua's.
//!
//! **What is not bounded well.** One instruction may take as long as the largest table of the call
//! allows (it may be rehashed, or searched for its first key), or as long strings compare. Prices
//! hold that down, but a hostile contract can still be some hundred times slower than its work
//! tells (twenty seconds for all of [`limits::WORK_MAX`]).

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

mod host;
pub mod limits;
mod machine;
mod meter;
mod pattern;
mod predict;
mod services;
mod source;

use bytes::Bytes;
use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::limits::OUTPUT_BYTES_MAX;
use parsec_protocol::{
    Access, ErrorCode, Event, Footprint, Key, Mode, Namespace, Outcome, RuntimeId, Transaction,
    Value,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::draft::Draft;
use crate::{Admitted, Call, Done, Interrupt, Predictor, Rejection, Runtime, Session, State};
use limits::{FUNCTION_BYTES_MAX, SOURCE_BYTES_MAX, VALUES_MAX, WORK_DEFAULT, WORK_MAX};
use machine::{Ended, Invocation, Kind, Machine};
use services::Services;

/// The keys of contracts' sources.
const SOURCES: Namespace = Namespace::replicated(0x30);
/// The keys of contracts' states.
const STATES: Namespace = Namespace::partitioned(0x31);

/// The source of the contract `pay`: signed payments, and unsigned ones to measure with.
pub const PAY: &str = include_str!("contracts/pay.lua");

/// A value that goes into a contract or comes out of it.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum LuaValue {
    /// nil.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float. Any NaN becomes the same one.
    Float(f64),
    /// A string: any bytes.
    Bytes(Bytes),
}

impl From<bool> for LuaValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for LuaValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for LuaValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&[u8]> for LuaValue {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Bytes::copy_from_slice(value))
    }
}

impl From<&str> for LuaValue {
    fn from(value: &str) -> Self {
        value.as_bytes().into()
    }
}

/// What to do: the payload of a Lua transaction.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum LuaCall {
    /// Stores a contract. Reverts if it is there already ([`ErrorCode::AlreadyExists`]), or does
    /// not compile.
    Deploy {
        /// Its source, at most [`SOURCE_BYTES_MAX`].
        source: Bytes,
    },
    /// Calls a function of a contract.
    Invoke {
        /// The contract's id.
        contract: [u8; 32],
        /// The name of the function, at most [`FUNCTION_BYTES_MAX`] bytes.
        function: String,
        /// Its arguments, at most [`VALUES_MAX`].
        arguments: Vec<LuaValue>,
        /// The work that the call may take, at most [`WORK_MAX`].
        limit: u64,
    },
}

impl LuaCall {
    /// Stores a contract.
    #[must_use]
    pub fn deploy(source: impl Into<Bytes>) -> Self {
        Self::Deploy { source: source.into() }
    }

    /// Calls a function of a contract, with the usual limit.
    #[must_use]
    pub fn invoke(
        contract: [u8; 32],
        function: impl Into<String>,
        arguments: impl Into<Vec<LuaValue>>,
    ) -> Self {
        let (function, arguments) = (function.into(), arguments.into());
        Self::Invoke { contract, function, arguments, limit: WORK_DEFAULT }
    }

    /// The transaction of this call. Calls that are to run more than once need different salts.
    #[must_use]
    pub fn into_transaction(self, salt: u128) -> Transaction {
        let payload = Bytes::from(codec::encode(&self));
        Transaction { salt, ..Transaction::new(RuntimeId::LUA, payload) }
    }
}

impl Wire for LuaCall {
    fn check(&self) -> Result<(), Malformed> {
        let bytes = |length: usize, most: usize| match length > most {
            true => Err(Malformed::PayloadLength { bytes: length }),
            false => Ok(()),
        };
        match self {
            Self::Deploy { source } => bytes(source.len(), SOURCE_BYTES_MAX),
            Self::Invoke { function, arguments, .. } => {
                bytes(function.len(), FUNCTION_BYTES_MAX)?;
                bytes(arguments.len(), VALUES_MAX)
            }
        }
    }
}

/// What a call returned: the output of a committed Lua transaction. The encoding of no values is
/// no bytes. The output of a deployment is the contract's id, that of a failure a text.
#[derive(Debug, Clone, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct Returned {
    /// The values.
    pub values: Vec<LuaValue>,
}

impl Returned {
    /// The values in the output of a committed call.
    ///
    /// # Errors
    /// [`Malformed::Archive`] if it is not one of a call.
    pub fn decode(output: &[u8]) -> Result<Self, Malformed> {
        if output.is_empty() { Ok(Self::default()) } else { codec::decode(output) }
    }

    fn encode(&self) -> Bytes {
        match self.values.is_empty() {
            true => Bytes::new(),
            false => Bytes::from(codec::encode(self)),
        }
    }
}

impl Wire for Returned {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// The id of a contract: the BLAKE3 hash of its source.
#[must_use]
pub fn contract_id(source: &[u8]) -> [u8; 32] {
    *blake3::hash(source).as_bytes()
}

/// The key under which a contract's source stands.
#[must_use]
pub fn source_key(contract: &[u8; 32]) -> Key {
    Key::new(SOURCES, contract).expect("35 bytes are no long key")
}

/// The key of the state that is `name` to a contract.
///
/// # Errors
/// [`Malformed::KeyLength`] if it is too long.
pub fn contract_key(contract: &[u8; 32], name: &[u8]) -> Result<Key, Malformed> {
    Key::with_affinity(STATES, 0, &[contract, name])
}

/// The name by which a contract knows the state at a key of it.
fn state_name<'a>(contract: &[u8; 32], key: &'a Key) -> Option<&'a [u8]> {
    key.bytes().strip_prefix(contract).filter(|_| key.namespace() == STATES)
}

/// The name and the value of an account of [`PAY`], to begin with.
#[must_use]
pub fn pay_account(key: &[u8; 32], balance: u64, sequence: u64) -> (Key, Value) {
    let name = [b"account_", &key[..]].concat();
    let key = contract_key(&contract_id(PAY.as_bytes()), &name).expect("75 bytes are no long key");
    let value = [&[0; 24][..], &balance.to_be_bytes(), &sequence.to_be_bytes()].concat();
    (key, value.into())
}

/// Decodes a payload, and refuses what no call may ask for.
fn decode(payload: &[u8]) -> Result<LuaCall, Rejection> {
    let call: LuaCall = codec::decode(payload)
        .map_err(|error| Rejection::new(ErrorCode::Malformed, error.to_string()))?;
    match call {
        LuaCall::Invoke { limit, .. } if limit > WORK_MAX => {
            let detail = format!("a call may take at most {WORK_MAX} units of work");
            Err(Rejection::new(ErrorCode::TooLarge, detail))
        }
        call => Ok(call),
    }
}

/// The runtime of [`LuaCall`]s.
#[derive(Debug, Clone, Copy)]
pub struct LuaRuntime(());

impl LuaRuntime {
    /// The runtime.
    ///
    /// # Panics
    /// If this program was built without the fixed seed of Lua's hashes (`.cargo/config.toml`):
    /// it would disagree with others.
    #[must_use]
    pub fn new() -> Self {
        assert_eq!(
            order_of_pairs().ok().as_deref(),
            Some(PINNED_ORDER),
            "Lua was built without -Dluai_makeseed: build with the workspace's .cargo/config.toml, \
             and without CFLAGS of your own"
        );
        Self(())
    }
}

impl Default for LuaRuntime {
    fn default() -> Self {
        Self::new()
    }
}

/// The order in which a table with string keys is traversed: that of their hashes.
fn order_of_pairs() -> mlua::Result<String> {
    let code = "local t, order = {}, {} for i = 1, 16 do t['key' .. i] = i end \
                for _, i in pairs(t) do order[#order + 1] = i end return table.concat(order, ' ')";
    mlua::Lua::new().load(code).eval()
}

const PINNED_ORDER: &str = "2 16 7 12 5 13 14 9 15 1 11 10 8 4 6 3";

impl Runtime for LuaRuntime {
    fn id(&self) -> RuntimeId {
        RuntimeId::LUA
    }

    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection> {
        let footprint = match decode(&transaction.payload)? {
            LuaCall::Deploy { source } => {
                source::prepare(&source)
                    .map_err(|problem| Rejection::new(ErrorCode::Malformed, problem))?;
                let key = source_key(&contract_id(&source));
                let write = Access { key, mode: Mode::Write };
                Some(Footprint::new(vec![write]).expect("one key is no long footprint"))
            }
            LuaCall::Invoke { .. } => None,
        };
        Ok(Admitted { id: transaction.content_id(), sender: Bytes::new(), footprint })
    }

    fn likely_keys(&self, _: &[u8], payload: &Bytes) -> Vec<Key> {
        match decode(payload) {
            Ok(LuaCall::Deploy { source }) => vec![source_key(&contract_id(&source))],
            Ok(LuaCall::Invoke { contract, .. }) => vec![source_key(&contract)],
            Err(_) => Vec::new(),
        }
    }

    /// A number, as `state.number` and the like of [`PAY`] take it, and plenty.
    fn guess(&self, _: &Key) -> Option<Value> {
        Some([&[0; 24][..], &(1u64 << 62).to_be_bytes()].concat().into())
    }

    fn predictor(&self) -> Option<Box<dyn Predictor>> {
        Some(Box::new(predict::LuaPredictor::default()))
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(LuaSession { pooled: None })
    }
}

struct LuaSession {
    /// The machine for calls that need little memory.
    pooled: Option<Machine>,
}

/// A call that is done, before its changes are made.
struct Finished {
    outcome: Outcome,
    work: u64,
    output: Bytes,
    events: Vec<Event>,
}

impl Finished {
    fn reverted(code: ErrorCode, work: u64, detail: impl Into<String>) -> Self {
        let outcome = Outcome::Reverted(code);
        Self { outcome, work, output: detail.into().into(), events: Vec::new() }
    }
}

impl Session for LuaSession {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let decoded = match decode(call.payload) {
            Ok(decoded) => decoded,
            // Not the decoder's words: they may hold addresses, which differ between hosts.
            Err(rejection) => return Ok(Done::invalid(rejection.code, "not a Lua call")),
        };
        let mut draft = Draft::new(state);
        let finished = match decoded {
            LuaCall::Deploy { source } => self.deploy(source, call.trial, &mut draft)?,
            LuaCall::Invoke { contract, function, arguments, limit } => {
                let (function, arguments) = (&function[..], &arguments[..]);
                let key = source_key(&contract);
                match draft.get(&key)? {
                    Some(source) => {
                        let invocation = Invocation {
                            contract,
                            source: &source,
                            function,
                            arguments,
                            limit,
                            epoch: call.epoch.number.0,
                            timestamp_ms: call.epoch.timestamp_ms,
                            id: &call.id.0,
                        };
                        self.invoke(&invocation, &mut draft)?
                    }
                    None => Finished::reverted(ErrorCode::UnknownContract, 0, key.to_string()),
                }
            }
        };
        let Finished { outcome, work, output, events } = finished;
        // What a trial touched before it gave up is likely to be touched when it does not.
        if outcome == Outcome::Committed || call.trial {
            draft.finish()?;
        }
        Ok(Done { outcome, work, output, events })
    }
}

impl LuaSession {
    fn pooled(&mut self) -> Result<Machine, Interrupt> {
        if let Some(mut machine) = self.pooled.take()
            && machine.tidy().map_err(|error| fatal(&error))?
        {
            return Ok(machine);
        }
        Machine::new(Kind::Pooled).map_err(|error| fatal(&error))
    }

    fn deploy(
        &mut self,
        source: Bytes,
        trial: bool,
        draft: &mut Draft<'_>,
    ) -> Result<Finished, Interrupt> {
        let id = contract_id(&source);
        let key = source_key(&id);
        let work = u64::try_from(source.len()).unwrap_or(u64::MAX);
        if draft.get(&key)?.is_some() && !trial {
            return Ok(Finished::reverted(ErrorCode::AlreadyExists, work, key.to_string()));
        }
        let machine = self.pooled()?;
        let checked = machine.check(&source);
        self.pooled = Some(machine);
        if let Err(problem) = checked {
            return Ok(Finished::reverted(ErrorCode::Refused, work, problem));
        }
        draft.put(key, Some(source.into()));
        let output = Bytes::copy_from_slice(&id);
        Ok(Finished { outcome: Outcome::Committed, work, output, events: Vec::new() })
    }

    fn invoke(
        &mut self,
        invocation: &Invocation<'_>,
        draft: &mut Draft<'_>,
    ) -> Result<Finished, Interrupt> {
        let mut services = Services::new(draft, invocation.contract);
        let mut machine = self.pooled()?;
        let mut ended = machine.run(invocation, &mut services);
        if matches!(ended, Ok(Ended::OutOfMemory)) {
            services.restart();
            machine = Machine::new(Kind::Fresh).map_err(|error| fatal(&error))?;
            ended = machine.run(invocation, &mut services);
        }
        let work = machine.work();
        if machine.is_pooled() {
            self.pooled = Some(machine);
        }
        let finished = match ended? {
            Ended::Returned(values) => {
                let output = Returned { values }.encode();
                if output.len() > OUTPUT_BYTES_MAX {
                    return Ok(Finished::reverted(ErrorCode::TooLarge, work, "the results"));
                }
                let events = services.events;
                Finished { outcome: Outcome::Committed, work, output, events }
            }
            Ended::Failed(text) => Finished::reverted(ErrorCode::Refused, work, text),
            Ended::OutOfWork => {
                let detail = format!("the limit is {} units", invocation.limit);
                Finished::reverted(ErrorCode::OutOfWork, work, detail)
            }
            Ended::OutOfMemory => {
                let detail = format!("the limit is {} bytes", limits::CALL_BYTES_MAX);
                Finished::reverted(ErrorCode::OutOfMemory, work, detail)
            }
        };
        Ok(finished)
    }
}

fn fatal(error: &mlua::Error) -> Interrupt {
    Interrupt::Fatal(format!("the Lua machine failed: {error}"))
}

#[cfg(test)]
mod tests;
