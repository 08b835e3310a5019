//! The system runtime: what operators do to the whole cluster.
//!
//! Its one call loads state, a genesis or a table to measure with. Clients may not make it: what
//! it does to the state is bound by no rule of any other runtime.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use bytes::Bytes;
use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::limits::{
    FOOTPRINT_KEYS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX,
};
use parsec_protocol::{
    Access, EpochNumber, ErrorCode, Footprint, Key, Mode, Outcome, RuntimeId, Transaction, TxId,
    Value,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{Admitted, Call, Done, Interrupt, Rejection, Runtime, Session, State};

/// Most entries of one load.
pub const LOAD_ENTRIES_MAX: usize = 1_000;
/// A load is closed before it would exceed this many bytes, unless one entry alone does.
const LOAD_BYTES_TARGET: usize = 256 * 1_024;
/// What an entry takes in a payload beside its bytes: lengths, offsets, and the option's tag.
const ENTRY_OVERHEAD_BYTES: usize = 32;

const _: () = assert!(LOAD_ENTRIES_MAX <= FOOTPRINT_KEYS_MAX);
const _: () = assert!(
    LOAD_BYTES_TARGET + KEY_BYTES_MAX + VALUE_BYTES_MAX + 2 * ENTRY_OVERHEAD_BYTES
        < PAYLOAD_BYTES_MAX
);

/// What an operator has the cluster do: the payload of a system transaction.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SystemCall {
    /// Sets these values, in this order.
    Load {
        /// At most [`LOAD_ENTRIES_MAX`].
        entries: Vec<(Key, Value)>,
    },
}

impl Wire for SystemCall {
    fn check(&self) -> Result<(), Malformed> {
        let Self::Load { entries } = self;
        if entries.len() > LOAD_ENTRIES_MAX {
            return Err(Malformed::FootprintLength { keys: entries.len() });
        }
        entries.iter().try_for_each(|(key, value)| {
            key.check()?;
            match value.len() > VALUE_BYTES_MAX {
                true => Err(Malformed::ValueLength { bytes: value.len() }),
                false => Ok(()),
            }
        })
    }
}

/// One load, ready to be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The payload.
    pub payload: Bytes,
    /// A write of each of its keys.
    pub footprint: Footprint,
    /// An id that follows from the content and the place of the load in the genesis.
    pub id: TxId,
}

/// Splits a genesis into loads within the limits, in the order of its entries.
///
/// # Errors
/// Names the first key or value that is too long.
pub fn load_transactions(
    entries: impl IntoIterator<Item = (Key, Value)>,
) -> Result<Vec<Load>, Malformed> {
    let mut loads = Vec::new();
    let mut pending = Vec::new();
    let mut bytes = 0;
    for (key, value) in entries {
        let size = key.encoded().len() + value.len() + ENTRY_OVERHEAD_BYTES;
        let full = pending.len() == LOAD_ENTRIES_MAX || bytes + size > LOAD_BYTES_TARGET;
        if full && !pending.is_empty() {
            loads.push(load(loads.len(), std::mem::take(&mut pending))?);
            bytes = 0;
        }
        bytes += size;
        pending.push((key, value));
    }
    if !pending.is_empty() {
        loads.push(load(loads.len(), pending)?);
    }
    Ok(loads)
}

/// A load of one value that sums up all epochs through `through`, with an id of its own.
///
/// # Errors
/// If the value is too long.
pub fn summary(through: EpochNumber, key: Key, value: Value) -> Result<Load, Malformed> {
    let mut load = load(0, vec![(key, value)])?;
    let mut hasher = blake3::Hasher::new_derive_key("parsec 2026 summary load id");
    hasher.update(&through.0.to_be_bytes()).update(&load.payload);
    load.id = TxId(hasher.finalize().into());
    Ok(load)
}

fn load(index: usize, entries: Vec<(Key, Value)>) -> Result<Load, Malformed> {
    let write = |(key, _): &(Key, Value)| Access { key: key.clone(), mode: Mode::Write };
    let footprint = Footprint::new(entries.iter().map(write).collect())?;
    let call = SystemCall::Load { entries };
    call.check()?;
    let payload = Bytes::from(codec::encode(&call));
    let mut hasher = blake3::Hasher::new_derive_key("parsec 2026 genesis load id");
    hasher.update(&u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes()).update(&payload);
    Ok(Load { payload, footprint, id: TxId(hasher.finalize().into()) })
}

/// The runtime of [`SystemCall`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRuntime;

impl Runtime for SystemRuntime {
    fn id(&self) -> RuntimeId {
        RuntimeId::SYSTEM
    }

    fn admit(&self, _: &Transaction) -> Result<Admitted, Rejection> {
        Err(Rejection::new(ErrorCode::NotPermitted, "system transactions come from operators"))
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(SystemSession)
    }
}

struct SystemSession;

impl Session for SystemSession {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let Ok(SystemCall::Load { entries }) = codec::decode(call.payload) else {
            // Not the decoder's words: they may hold addresses, which differ between hosts.
            return Ok(Done::invalid(ErrorCode::Malformed, "not a system call"));
        };
        let work = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        for (key, value) in entries {
            state.put(&key, Some(value))?;
        }
        Ok(Done { outcome: Outcome::Committed, work, output: Bytes::new(), events: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use parsec_protocol::transaction::Entry;
    use parsec_protocol::{Namespace, PartitionId};

    use super::*;
    use crate::testing::Host;

    fn key(n: usize) -> Key {
        Key::new(Namespace::partitioned(0x10), &n.to_be_bytes()).unwrap()
    }

    fn entry(load: Load) -> Entry {
        Entry {
            id: load.id,
            runtime: RuntimeId::SYSTEM,
            attempt: 0,
            home: PartitionId(0),
            sender: Bytes::new(),
            payload: load.payload,
            footprint: load.footprint,
            expires: None,
        }
    }

    #[test]
    fn a_genesis_is_split_within_the_limits_and_loads_as_a_whole() {
        let large = Value::from(vec![3; VALUE_BYTES_MAX]);
        let mut entries: Vec<_> =
            (0..2_500).map(|n| (key(n), Value::from(n.to_string()))).collect();
        entries.extend((3_000..3_004).map(|n| (key(n), large.clone())));
        let loads = load_transactions(entries.clone()).unwrap();
        assert_eq!(loads.len(), 3 + 4);
        let ids: BTreeSet<_> = loads.iter().map(|load| load.id).collect();
        assert_eq!(ids.len(), loads.len());
        let mut host = Host::new(SystemRuntime);
        for load in loads {
            assert!(load.payload.len() < PAYLOAD_BYTES_MAX);
            assert!(host.execute(&entry(load)).is_committed());
        }
        assert_eq!(host.state, entries.into_iter().collect());
    }

    #[test]
    fn equal_loads_at_different_places_are_different_transactions() {
        let one = || vec![(key(1), Value::from_static(b"x")); LOAD_ENTRIES_MAX];
        let loads = load_transactions([one(), one()].concat()).unwrap();
        assert_eq!(loads[0].payload, loads[1].payload);
        assert_ne!(loads[0].id, loads[1].id);
        assert_eq!(loads, load_transactions([one(), one()].concat()).unwrap());
    }

    #[test]
    fn the_last_of_two_values_of_a_key_counts() {
        let pair = [(key(1), Value::from_static(b"a")), (key(1), Value::from_static(b"b"))];
        let mut host = Host::new(SystemRuntime);
        for load in load_transactions(pair).unwrap() {
            assert!(host.execute(&entry(load)).is_committed());
        }
        assert_eq!(host.state[&key(1)], Value::from_static(b"b"));
    }

    #[test]
    fn what_is_too_long_or_garbled_is_refused() {
        let long = Value::from(vec![0; VALUE_BYTES_MAX + 1]);
        assert!(matches!(load_transactions([(key(1), long)]), Err(Malformed::ValueLength { .. })));
        let garbled = Load {
            payload: Bytes::from_static(b"no archive"),
            footprint: Footprint::default(),
            id: TxId([1; 32]),
        };
        let receipt = Host::new(SystemRuntime).execute(&entry(garbled));
        assert_eq!(receipt.outcome, Outcome::Invalid(ErrorCode::Malformed));
    }

    #[test]
    fn clients_may_not() {
        let load = load_transactions([(key(1), Value::new())]).unwrap().remove(0);
        let refused = SystemRuntime.admit(&Transaction::new(RuntimeId::SYSTEM, load.payload));
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotPermitted);
    }
}
