//! The native runtime: stored procedures as programs of a few strong operations.
//!
//! A [`Program`] is a list of operations on keys that runs from its first to its last as one
//! transaction. Reads see what came before them in the program. If an operation says no, nothing
//! of the program takes effect.
//!
//! Values that are numbers (accounts, counters) begin with 32 bytes, big-endian, as
//! [`Delta`](parsec_protocol::Delta) has it; the bytes after them are the owner's own. Keys are
//! those of the namespaces [`TABLE_FIRST`] to [`TABLE_LAST`], partitioned or replicated.
//!
//! The footprint of a program is what its operations name; only a chase has to be discovered.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use bytes::Bytes;
use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::limits::{FOOTPRINT_KEYS_MAX, OUTPUT_BYTES_MAX, VALUE_BYTES_MAX};
use parsec_protocol::{
    Access, ErrorCode, Footprint, Key, Mode, Namespace, Outcome, RuntimeId, Transaction, Value,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{Admitted, Call, Done, Interrupt, Rejection, Runtime, Session, State};

mod steps;

use steps::Steps;

/// Most operations of one program.
pub const OPS_MAX: usize = 1_024;
/// Most hops of all chases of one program.
pub const HOPS_MAX: usize = 1_024;
/// Most rounds of work of one program: some milliseconds of a core.
pub const ROUNDS_MAX: u64 = 65_536;
/// The first of the namespaces that programs may use.
pub const TABLE_FIRST: u16 = 0x10;
/// The last of the namespaces that programs may use.
pub const TABLE_LAST: u16 = 0x1f;

// Each operation names at most two keys, and each hop one more.
const _: () = assert!(2 * OPS_MAX + HOPS_MAX <= FOOTPRINT_KEYS_MAX);

/// The key of `bytes` in the first table.
///
/// # Errors
/// [`Malformed::KeyLength`] if it is too long.
pub fn key(bytes: impl AsRef<[u8]>) -> Result<Key, Malformed> {
    Key::new(Namespace::partitioned(TABLE_FIRST), bytes.as_ref())
}

/// One operation of a [`Program`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Op {
    /// Returns the value of a key.
    Get { key: Key },
    /// Sets the value of a key.
    Put { key: Key, value: Value },
    /// Removes a key.
    Delete { key: Key },
    /// Adds to a number without reading it, modulo 2^256. Such additions commute.
    Add { key: Key, amount: i128 },
    /// Moves an amount from one account to another. Says no if there is less in the first
    /// ([`ErrorCode::InsufficientFunds`]), or if a balance is or would be negative or larger than
    /// a `u128` ([`ErrorCode::Overflow`]).
    Transfer { from: Key, to: Key, amount: u128 },
    /// Says no ([`ErrorCode::Refused`]) unless the key has this value.
    Require { key: Key, equals: Option<Value> },
    /// Follows keys: `hops` times, the value of the key at hand is the encoded form of the next
    /// one. Returns the value of the last key, then sets it to `put`, if that is given. Says no
    /// ([`ErrorCode::Refused`]) if a value on the way names no key of a table.
    Chase { start: Key, hops: u8, put: Option<Value> },
    /// Keeps a core busy: `rounds` times the BLAKE3 hash of 32 bytes.
    Work { rounds: u32 },
}

impl Op {
    /// The accesses that the operation is sure to make.
    fn accesses(&self) -> [Option<(&Key, Mode)>; 2] {
        match self {
            Self::Get { key } | Self::Require { key, .. } => [Some((key, Mode::Read)), None],
            Self::Put { key, .. } | Self::Delete { key } => [Some((key, Mode::Write)), None],
            Self::Add { key, .. } => [Some((key, Mode::Add)), None],
            Self::Transfer { from, to, .. } => [Some((from, Mode::Write)), Some((to, Mode::Write))],
            Self::Chase { start, .. } => [Some((start, Mode::Read)), None],
            Self::Work { .. } => [None, None],
        }
    }

    /// The value that the operation holds.
    fn value(&self) -> Option<&Value> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Require { equals: value, .. } | Self::Chase { put: value, .. } => value.as_ref(),
            _ => None,
        }
    }
}

/// A procedure: the payload of a native transaction. Build one by chaining.
///
/// ```
/// use parsec_runtimes::native::{Program, key};
/// # fn main() -> Result<(), parsec_protocol::Malformed> {
/// let (alice, bob) = (key("alice")?, key("bob")?);
/// let transaction =
///     Program::new().transfer(&alice, &bob, 5).add(&key("payments")?, 1).into_transaction(1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Program {
    /// What to do, in this order. At most [`OPS_MAX`].
    pub ops: Vec<Op>,
}

impl Program {
    /// A program that does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This program, and then `op`.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// ... and then [`Op::Get`].
    #[must_use]
    pub fn get(self, key: &Key) -> Self {
        self.then(Op::Get { key: key.clone() })
    }

    /// ... and then [`Op::Put`].
    #[must_use]
    pub fn put(self, key: &Key, value: impl Into<Value>) -> Self {
        self.then(Op::Put { key: key.clone(), value: value.into() })
    }

    /// ... and then [`Op::Delete`].
    #[must_use]
    pub fn delete(self, key: &Key) -> Self {
        self.then(Op::Delete { key: key.clone() })
    }

    /// ... and then [`Op::Add`].
    #[must_use]
    pub fn add(self, key: &Key, amount: i128) -> Self {
        self.then(Op::Add { key: key.clone(), amount })
    }

    /// ... and then [`Op::Transfer`].
    #[must_use]
    pub fn transfer(self, from: &Key, to: &Key, amount: u128) -> Self {
        self.then(Op::Transfer { from: from.clone(), to: to.clone(), amount })
    }

    /// ... and then [`Op::Require`].
    #[must_use]
    pub fn require(self, key: &Key, equals: Option<Value>) -> Self {
        self.then(Op::Require { key: key.clone(), equals })
    }

    /// ... and then [`Op::Chase`].
    #[must_use]
    pub fn chase(self, start: &Key, hops: u8, put: Option<Value>) -> Self {
        self.then(Op::Chase { start: start.clone(), hops, put })
    }

    /// ... and then [`Op::Work`].
    #[must_use]
    pub fn work(self, rounds: u32) -> Self {
        self.then(Op::Work { rounds })
    }

    /// The transaction of this program, without a declared footprint: admission knows it, unless
    /// the program chases. Programs that are to run more than once need different salts.
    #[must_use]
    pub fn into_transaction(self, salt: u128) -> Transaction {
        let payload = Bytes::from(codec::encode(&self));
        Transaction { salt, ..Transaction::new(RuntimeId::NATIVE, payload) }
    }

    /// The footprint, unless it depends on the state.
    ///
    /// # Errors
    /// [`Malformed::FootprintLength`] if the program has far more than [`OPS_MAX`] operations.
    pub fn footprint(&self) -> Result<Option<Footprint>, Malformed> {
        let chases = self.ops.iter().any(|op| matches!(op, Op::Chase { .. }));
        if chases { Ok(None) } else { Footprint::new(self.accesses()).map(Some) }
    }

    fn accesses(&self) -> Vec<Access> {
        let named = self.ops.iter().flat_map(Op::accesses).flatten();
        named.map(|(key, mode)| Access { key: key.clone(), mode }).collect()
    }

    /// How much work it is: an operation or a hop counts as one, and so does a round.
    fn work_units(&self) -> u64 {
        let units = |op: &Op| match op {
            Op::Work { rounds } => u64::from(*rounds),
            Op::Chase { hops, .. } => 1 + u64::from(*hops),
            _ => 1,
        };
        self.ops.iter().map(units).sum()
    }
}

impl Wire for Program {
    fn check(&self) -> Result<(), Malformed> {
        let count = |items: usize| match items > OPS_MAX {
            true => Err(Malformed::FootprintLength { keys: items }),
            false => Ok(()),
        };
        count(self.ops.len())?;
        for op in &self.ops {
            op.accesses().into_iter().flatten().try_for_each(|(key, _)| key.check())?;
            if let Some(value) = op.value().filter(|value| value.len() > VALUE_BYTES_MAX) {
                return Err(Malformed::ValueLength { bytes: value.len() });
            }
        }
        Ok(())
    }
}

/// What a program's gets and chases returned: the output of a native transaction. The encoding of
/// no values is no bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Results {
    /// One value for each get and each chase, in their order.
    pub values: Vec<Option<Value>>,
}

impl Results {
    /// The results in the output of a committed transaction.
    ///
    /// # Errors
    /// [`Malformed::Archive`] if it is not one of a native transaction.
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

impl Wire for Results {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Whether programs may use `key`.
fn is_of_a_table(key: &Key) -> bool {
    let namespace = key.namespace();
    let tables = match namespace.is_replicated() {
        true => Namespace::replicated(TABLE_FIRST)..=Namespace::replicated(TABLE_LAST),
        false => Namespace::partitioned(TABLE_FIRST)..=Namespace::partitioned(TABLE_LAST),
    };
    tables.contains(&namespace)
}

/// Decodes a payload, and refuses what no program may do.
fn decode(payload: &[u8]) -> Result<Program, Rejection> {
    let program: Program = codec::decode(payload)
        .map_err(|error| Rejection::new(ErrorCode::Malformed, error.to_string()))?;
    let total = |units: fn(&Op) -> u64| program.ops.iter().map(units).sum::<u64>();
    let rounds = total(|op| if let Op::Work { rounds } = op { u64::from(*rounds) } else { 0 });
    let hops = total(|op| if let Op::Chase { hops, .. } = op { u64::from(*hops) } else { 0 });
    if rounds > ROUNDS_MAX || hops > HOPS_MAX as u64 {
        let detail = format!("at most {ROUNDS_MAX} rounds and {HOPS_MAX} hops are allowed");
        return Err(Rejection::new(ErrorCode::TooLarge, detail));
    }
    let foreign = |(key, _): (&Key, Mode)| !is_of_a_table(key);
    if program.ops.iter().flat_map(Op::accesses).flatten().any(foreign) {
        let detail = "a key is in no namespace of native tables";
        return Err(Rejection::new(ErrorCode::NotPermitted, detail));
    }
    Ok(program)
}

/// The runtime of [`Program`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct NativeRuntime;

impl Runtime for NativeRuntime {
    fn id(&self) -> RuntimeId {
        RuntimeId::NATIVE
    }

    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection> {
        let program = decode(&transaction.payload)?;
        let footprint = program
            .footprint()
            .map_err(|error| Rejection::new(ErrorCode::TooLarge, error.to_string()))?;
        Ok(Admitted { id: transaction.content_id(), sender: Bytes::new(), footprint })
    }

    fn likely_keys(&self, _: &[u8], payload: &Bytes) -> Vec<Key> {
        let program = decode(payload).unwrap_or_default();
        program.accesses().into_iter().map(|access| access.key).collect()
    }

    /// Programs that need a trial chase.
    fn follows_values(&self) -> bool {
        true
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(NativeSession)
    }
}

struct NativeSession;

impl Session for NativeSession {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let program = match decode(call.payload) {
            Ok(program) => program,
            // Not the decoder's words: they may hold addresses, which differ between hosts.
            Err(rejection) => return Ok(Done::invalid(rejection.code, "not a native program")),
        };
        let work = program.work_units();
        let mut steps = Steps::new(state, call.trial);
        let mut results = Results::default();
        let mut said_no = false;
        for (index, op) in program.ops.into_iter().enumerate() {
            match steps.run(op, &mut results.values)? {
                Ok(()) => {}
                // What comes before it may yet turn a no into a yes: a trial sees what is next.
                Err(_) if call.trial => said_no = true,
                Err(code) => return Ok(reverted(code, work, format!("operation {index}"))),
            }
        }
        let output = results.encode();
        if output.len() > OUTPUT_BYTES_MAX {
            return Ok(reverted(ErrorCode::TooLarge, work, "the results".into()));
        }
        steps.finish()?;
        let outcome = match said_no {
            true => Outcome::Reverted(ErrorCode::Refused),
            false => Outcome::Committed,
        };
        Ok(Done { outcome, work, output, events: Vec::new() })
    }
}

fn reverted(code: ErrorCode, work: u64, detail: String) -> Done {
    let outcome = Outcome::Reverted(code);
    Done { outcome, work, output: detail.into(), events: Vec::new() }
}

#[cfg(test)]
mod tests;
