//! What tests of this crate share: transactions over few keys, and one thread that executes them in
//! order.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may")]

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_executor_core::EpochContext;
use parsec_protocol::codec::digest;
use parsec_protocol::transaction::{Batch, LaneId};
use parsec_protocol::{
    Access, Change, Delta, Entry, EpochNumber, EpochRecord, Footprint, Key, Mode, Namespace,
    Outcome, PartitionId, Position, Receipt, RuntimeId, TxId, Value,
};
use proptest::prelude::*;

/// What a transaction does, as a pure function of what it reads: writes a digest of all it read to
/// every second key that it may write, adds to every key that it may add to.
pub(crate) fn execute(
    entry: &Entry,
    position: Position,
    values: &[Option<Value>],
) -> (Vec<Change>, Receipt) {
    let mut seen = digest(&entry.id.0);
    for value in values.iter().flatten() {
        seen = digest(&[&seen[..], value].concat());
    }
    let changes = entry.footprint.indexed().map(|(index, access)| match access.mode {
        Mode::Read => Change::Keep,
        Mode::Add => Change::Add(Delta::from(i128::from(position.index) + 1)),
        Mode::Write if (index + u16::from(seen[0])) % 3 == 0 => Change::Keep,
        Mode::Write if seen[1].is_multiple_of(5) => Change::Delete,
        Mode::Write => Change::Put(Value::copy_from_slice(&seen)),
    });
    let receipt = Receipt {
        id: entry.id,
        position,
        attempt: 0,
        outcome: Outcome::Committed,
        work: 1,
        output: seen.to_vec().into(),
        events: Vec::new(),
    };
    (changes.collect(), receipt)
}

/// The values of keys.
pub(crate) type State = BTreeMap<Key, Value>;

/// One thread, in order.
pub(crate) fn serial(epochs: &[(Arc<EpochContext>, Batch)]) -> (State, Vec<Receipt>) {
    let (mut state, mut receipts) = (State::new(), Vec::new());
    for (context, batch) in epochs {
        for (index, entry) in (0..).zip(&batch.entries) {
            let position = Position { epoch: context.record.number, index };
            let accesses = entry.footprint.accesses();
            let read = |access: &Access| match access.mode {
                Mode::Add => None,
                _ => state.get(&access.key).cloned(),
            };
            let values: Vec<_> = accesses.iter().map(read).collect();
            let (changes, receipt) = execute(entry, position, &values);
            for (access, change) in accesses.iter().zip(changes) {
                match change.apply(state.get(&access.key)) {
                    Some(value) => drop(state.insert(access.key.clone(), value)),
                    None => drop(state.remove(&access.key)),
                }
            }
            receipts.push(receipt);
        }
    }
    (state, receipts)
}

/// Transactions over few keys, so that they conflict; some keys are replicated.
pub(crate) fn transaction() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..14, 0u8..3), 0..6)
}

/// Puts transactions into a batch for each epoch.
pub(crate) fn build(epochs: &[Vec<Vec<(u8, u8)>>]) -> Vec<(Arc<EpochContext>, Batch)> {
    let mut id = 0u64;
    let mut parent = [0; 32];
    let mut built = Vec::new();
    for (sequence, transactions) in (1..).zip(epochs) {
        let entries = transactions.iter().map(|accesses| {
            id += 1;
            entry(id, accesses)
        });
        let batch = Batch {
            lane: LaneId(0),
            sequence,
            map_version: 0,
            entries: entries.map(Arc::new).collect(),
        };
        let record = EpochRecord {
            number: EpochNumber(sequence),
            timestamp_ms: sequence,
            block: 0,
            parent,
            batches: vec![batch.reference(&parsec_protocol::codec::encode(&batch))],
        };
        parent = record.digest();
        built.push((Arc::new(EpochContext { record, entropy: parent }), batch));
    }
    built
}

fn entry(id: u64, accesses: &[(u8, u8)]) -> Entry {
    let access = |(key, mode): &(u8, u8)| {
        let namespace = match key {
            12.. => Namespace::replicated(2),
            _ => Namespace::partitioned(1),
        };
        let mode = [Mode::Read, Mode::Write, Mode::Add][usize::from(*mode)];
        Access { key: Key::new(namespace, &[*key]).unwrap(), mode }
    };
    Entry {
        id: TxId(digest(&id.to_be_bytes())),
        runtime: RuntimeId::NATIVE,
        attempt: 0,
        home: PartitionId(0),
        sender: Default::default(),
        payload: Default::default(),
        footprint: Footprint::new(accesses.iter().map(access).collect()).unwrap(),
        expires: None,
    }
}
