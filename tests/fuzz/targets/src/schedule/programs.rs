//! An order of random transactions, and what one thread makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use parsec_oracle::Oracle;
use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{
    Access, Batch, Delta, Entry, EpochNumber, EpochRecord, Footprint, Key, LaneId, Mode, Namespace,
    Outcome, PartitionId, PartitionMap, Receipt, RuntimeId, TxId, Value, codec,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::native::{NativeRuntime, Op, Program, TABLE_FIRST};
use parsec_runtimes::{Call, Recorder, Runtimes};
use parsec_storage::Digest;

const EPOCHS_MAX: u64 = 6;
const TRANSACTIONS_MAX: usize = 8;
const OPS_MAX: usize = 5;
const KEYS: u8 = 12;
/// From this one on, keys are replicated.
const REPLICATED_FROM: u8 = 10;

/// An order, and what one thread makes of it.
pub(super) struct Order {
    pub(super) epochs: Vec<(EpochRecord, Vec<Batch>)>,
    /// The state after each epoch.
    pub(super) states: Vec<BTreeMap<Key, Value>>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) state_digest: Digest,
    pub(super) receipts_digest: Digest,
}

pub(super) fn runtimes() -> Runtimes {
    Runtimes::new(vec![Arc::new(NativeRuntime)])
}

/// The key with that number.
pub(super) fn key(number: u8) -> Key {
    let namespace = match number {
        REPLICATED_FROM.. => Namespace::replicated(TABLE_FIRST),
        _ => Namespace::partitioned(TABLE_FIRST),
    };
    Key::new(namespace, &[number]).unwrap()
}

pub(super) fn keys() -> impl Iterator<Item = Key> {
    (0..KEYS).map(key)
}

/// Draws an order.
pub(super) fn order(plan: &mut Unstructured<'_>, map: &PartitionMap) -> Result<Order> {
    let mut ledger = Ledger {
        oracle: Oracle::new(&runtimes()).watching_ids(),
        order: Vec::new(),
        states: Vec::new(),
        receipts: Vec::new(),
        strayed: Vec::new(),
        ids: 0,
        sequences: [0; 2],
    };
    for _ in 0..plan.int_in_range(1..=EPOCHS_MAX)? {
        let fresh = plan.int_in_range(0..=TRANSACTIONS_MAX)?;
        ledger.close(plan, map, fresh)?;
    }
    while !ledger.strayed.is_empty() {
        ledger.close(plan, map, 0)?;
    }
    Ok(Order {
        state_digest: ledger.oracle.state_digest(),
        receipts_digest: ledger.oracle.receipts_digest(),
        epochs: ledger.order,
        states: ledger.states,
        receipts: ledger.receipts,
    })
}

struct Ledger {
    oracle: Oracle,
    order: Vec<(EpochRecord, Vec<Batch>)>,
    states: Vec<BTreeMap<Key, Value>>,
    receipts: Vec<Receipt>,
    /// What is to be ordered again.
    strayed: Vec<Entry>,
    ids: u64,
    /// The last batch of each lane.
    sequences: [u64; 2],
}

impl Ledger {
    fn close(
        &mut self,
        plan: &mut Unstructured<'_>,
        map: &PartitionMap,
        fresh: usize,
    ) -> Result<()> {
        let mut entries = std::mem::take(&mut self.strayed);
        for _ in 0..fresh {
            entries.push(self.entry(plan, map)?);
        }
        let second = entries.split_off(entries.len() - plan.int_in_range(0..=entries.len())?);
        let known = plan.arbitrary()?;
        let map_version = if known { map.version() } else { 0 };
        let mut batches = Vec::new();
        for (lane, entries) in (0..).zip([entries, second]) {
            if lane == 0 || !entries.is_empty() {
                self.sequences[usize::from(lane)] += 1;
                let sequence = self.sequences[usize::from(lane)];
                batches.push(Batch {
                    lane: LaneId(lane),
                    sequence,
                    map_version,
                    entries: entries.into_iter().map(Arc::new).collect(),
                });
            }
        }
        let number = EpochNumber(self.order.len() as u64 + 1);
        let record = EpochRecord {
            number,
            timestamp_ms: 10 * number.0,
            block: 0,
            parent: self.order.last().map_or([0; 32], |(last, _)| last.digest()),
            batches: batches.iter().map(|b| b.reference(&codec::encode(b))).collect(),
        };
        let receipts = self.oracle.apply(&record, &batches).expect("it is the next epoch");
        let entries = batches.iter().flat_map(|batch| &batch.entries);
        self.strayed = entries.zip(&receipts).filter_map(|(e, r)| again(e, r)).collect();
        self.receipts.extend(receipts);
        self.states.push(self.oracle.state().clone());
        self.order.push((record, batches));
        Ok(())
    }

    fn entry(&mut self, plan: &mut Unstructured<'_>, map: &PartitionMap) -> Result<Entry> {
        let program = program(plan)?;
        let payload = program.clone().into_transaction(0).payload;
        self.ids += 1;
        let id = TxId(codec::digest(&self.ids.to_be_bytes()));
        let footprint = self.trial(&id, &payload);
        let next = self.order.len() as u64 + 1;
        let expires = match plan.int_in_range(0..=15)? {
            0 => Some(EpochNumber(next - 1)),
            1 => Some(EpochNumber(next)),
            _ => None,
        };
        Ok(Entry {
            id,
            runtime: RuntimeId::NATIVE,
            attempt: 0,
            home: PartitionId(plan.int_in_range(0..=map.len())?),
            sender: Bytes::new(),
            payload,
            footprint: distorted(plan, footprint)?,
            expires,
        })
    }

    /// The footprint that reconnaissance finds at this point.
    fn trial(&mut self, id: &TxId, payload: &Bytes) -> Footprint {
        let state = Snapshot(self.oracle.state());
        let mut recorder = Recorder::new(&state);
        let (number, parent) = (EpochNumber(1), [0; 32]);
        let epoch = EpochRecord { number, timestamp_ms: 5, block: 0, parent, batches: Vec::new() };
        let call = Call { id, sender: &[], payload, epoch: &epoch, entropy: &[0; 32], trial: true };
        runtimes().sessions().execute(RuntimeId::NATIVE, &call, &mut recorder).unwrap();
        recorder.finish().unwrap().footprint
    }
}

struct Snapshot<'a>(&'a BTreeMap<Key, Value>);

impl Source for Snapshot<'_> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// A transaction that strayed, with what it lacked; none if it did not, or did so too often.
fn again(entry: &Entry, receipt: &Receipt) -> Option<Entry> {
    let Outcome::Strayed { key, mode } = &receipt.outcome else { return None };
    let lacking = Footprint::new(vec![Access { key: key.clone(), mode: *mode }]).unwrap();
    let footprint = entry.footprint.union(&lacking).unwrap();
    assert_ne!(footprint, entry.footprint, "it strayed within its footprint");
    let attempt = entry.attempt + 1;
    (attempt < STRAY_ATTEMPTS_MAX).then(|| Entry { attempt, footprint, ..entry.clone() })
}

fn any_key(plan: &mut Unstructured<'_>) -> Result<Key> {
    plan.int_in_range(0..=KEYS - 1).map(key)
}

fn any_mode(plan: &mut Unstructured<'_>) -> Result<Mode> {
    Ok(*plan.choose(&[Mode::Add, Mode::Read, Mode::Write])?)
}

fn program(plan: &mut Unstructured<'_>) -> Result<Program> {
    let mut program = Program::new();
    for _ in 0..plan.int_in_range(0..=OPS_MAX)? {
        program = program.then(op(plan)?);
    }
    Ok(program)
}

fn op(plan: &mut Unstructured<'_>) -> Result<Op> {
    let key = any_key(plan)?;
    Ok(match plan.int_in_range(0..=9)? {
        0 => Op::Get { key },
        1 | 2 => Op::Put { key, value: value(plan)? },
        3 => Op::Delete { key },
        4 | 5 => Op::Add { key, amount: plan.int_in_range(-3..=9)? },
        6 | 7 => Op::Transfer { from: key, to: any_key(plan)?, amount: plan.int_in_range(0..=4)? },
        8 => {
            let equals = if plan.arbitrary()? { Some(value(plan)?) } else { None };
            Op::Require { key, equals }
        }
        _ => {
            let put = if plan.arbitrary()? { Some(value(plan)?) } else { None };
            Op::Chase { start: key, hops: plan.int_in_range(0..=3)?, put }
        }
    })
}

/// A number, the name of a key for chases to follow, or something short.
fn value(plan: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match plan.int_in_range(0..=4)? {
        0 | 1 => Value::copy_from_slice(any_key(plan)?.encoded()),
        2 | 3 => Value::copy_from_slice(&Delta::from(plan.int_in_range(0..=9i128)?).0),
        _ => {
            let length = plan.int_in_range(0..=3)?;
            Value::copy_from_slice(plan.bytes(length)?)
        }
    })
}

/// The footprint, or one that is too narrow, too wide, or both.
fn distorted(plan: &mut Unstructured<'_>, footprint: Footprint) -> Result<Footprint> {
    let mut accesses = footprint.into_accesses();
    let count = accesses.len();
    match plan.int_in_range(0..=11)? {
        0 if count > 0 => drop(accesses.remove(plan.choose_index(count)?)),
        1 if count > 0 => accesses[plan.choose_index(count)?].mode = any_mode(plan)?,
        2 => {
            for _ in 0..plan.int_in_range(1..=4)? {
                accesses.push(Access { key: any_key(plan)?, mode: any_mode(plan)? });
            }
        }
        3 => accesses.clear(),
        4 => {
            let mode = any_mode(plan)?;
            accesses = keys().map(|key| Access { key, mode }).collect();
        }
        _ => {}
    }
    Ok(Footprint::new(accesses).unwrap())
}
