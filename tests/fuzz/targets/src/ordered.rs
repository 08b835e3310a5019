//! What the ledger orders: batches and epoch records, and what becomes of them at a host.
//!
//! Input: a byte that says whether it is a batch or an epoch, a byte that chooses the number of
//! partitions, then the archive.

use std::collections::{BTreeMap, BTreeSet};

use parsec_executor_core::Intake;
use parsec_protocol::slice::{self, concerns};
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, Forwards, HostSlices, PartitionId, PartitionMap, Role, Slice,
    codec,
};

use crate::encoded::{Encoded, decode};
use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "ordered", run, seeds };

fn run(input: &[u8]) -> Verdict {
    let [kind, partitions, archive @ ..] = input else { return Verdict::Refused };
    let map = PartitionMap::even(1 + u16::from(partitions % 8)).unwrap();
    let accepted = match kind % 2 {
        0 => decode::<Batch>(archive).map(|batch| of_a_batch(&batch, archive, &map)).is_some(),
        _ => decode::<EpochRecord>(archive).map(|record| of_an_epoch(&record)).is_some(),
    };
    if accepted { Verdict::Accepted } else { Verdict::Refused }
}

/// The indexes of the accesses of each transaction whose values another one leaves to it.
fn left_to_each(slices: &[Slice]) -> BTreeMap<u32, BTreeSet<u16>> {
    let entries = slices.iter().flat_map(|slice| &slice.entries);
    let homes = entries.filter_map(|item| match &item.role {
        Role::Home { forwards, .. } => Some((item.index, forwards)),
        Role::Participant { .. } => None,
    });
    let left = |forwards: &Forwards| {
        let left = forwards.iter().filter(|(_, how)| how.is_left());
        left.map(|(index, _)| *index).collect()
    };
    homes.map(|(index, forwards)| (index, left(forwards))).collect()
}

/// A batch is cut so that each transaction has one home, and each partition that its footprint
/// concerns a part; a host takes in what was cut.
fn of_a_batch(batch: &Batch, archive: &[u8], map: &PartitionMap) {
    let reference = batch.reference(archive);
    assert_eq!(usize::try_from(reference.transactions), Ok(batch.entries.len()));
    assert!(batch.entries.iter().all(|e| e.runtime.0 > 31 || reference.calls(e.runtime)));

    let slices = slice::cut(batch, map);
    assert_eq!(slices.len(), usize::from(map.len()));
    let mut homes = BTreeSet::new();
    let left = left_to_each(&slices);
    for slice in &slices {
        for item in &slice.entries {
            let entry = &batch.entries[usize::try_from(item.index).unwrap()];
            // A partition has no part in what is only read, and left to it by another one at its home.
            let left = &left[&item.index];
            let concerned = |home: PartitionId| {
                let here = entry.footprint.indexed().filter(|(index, access)| {
                    let is_told = access.mode.may_change() || !left.contains(index);
                    is_told && concerns(slice.partition, home, access, map)
                });
                here.map(|(index, access)| (index, access.clone())).collect::<Vec<_>>()
            };
            match &item.role {
                Role::Home { entry: home, forwards } => {
                    assert!(forwards.is_sorted_by_key(|(index, _)| *index));
                    assert!(homes.insert(item.index), "a transaction has two homes");
                    assert_eq!((home.home, &home.footprint), (slice.partition, &entry.footprint));
                }
                Role::Participant { home, accesses, forwarded } => {
                    assert_eq!(*accesses, concerned(*home));
                    let indexes = accesses.iter().map(|(index, _)| *index);
                    let is_left = indexes.filter(|index| left.contains(index));
                    assert_eq!(*forwarded, is_left.collect::<Vec<_>>());
                }
            }
        }
    }
    assert_eq!(homes.len(), batch.entries.len());

    let (lane, sequence, digest) = (batch.lane, batch.sequence, reference.digest);
    let host = HostSlices { lane, sequence, digest, slices };
    assert_eq!(HostSlices::decoded(&host.encoded()).as_ref(), Ok(&host));
    let mut intake = Intake::new(EpochNumber(0));
    intake.on_slices(host).unwrap();
    let (number, parent) = (EpochNumber(1), [0; 32]);
    let batches = vec![reference];
    let record = EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches };
    let ready = intake.on_epoch(record).unwrap().expect("the first epoch comes out");
    let homes = ready.partitions.iter().flat_map(|(_, entries)| entries);
    let homes = homes.filter(|(_, role)| matches!(role, Role::Home { .. })).count();
    assert_eq!(homes, batch.entries.len());
}

/// A host takes in any record that names it as the next, with whatever slices it names.
fn of_an_epoch(record: &EpochRecord) {
    assert_eq!(record.digest(), codec::digest(&record.encoded()));
    let transactions: u64 = record.batches.iter().map(|batch| u64::from(batch.transactions)).sum();
    assert_eq!(record.transactions(), transactions);
    let Some(before) = record.number.0.checked_sub(1) else { return };
    assert_eq!(EpochNumber(before).next(), record.number);
    let mut intake = Intake::new(EpochNumber(before));
    for batch in &record.batches {
        let (lane, sequence, digest) = (batch.lane, batch.sequence, batch.digest);
        intake.on_slices(HostSlices { lane, sequence, digest, slices: Vec::new() }).unwrap();
    }
    if let Ok(ready) = intake.on_epoch(record.clone()) {
        assert!(ready.is_some());
        assert_eq!(intake.last(), record.number);
        // What comes next is refused or not, but looked at.
        let next = EpochRecord { parent: [1; 32], ..record.clone() };
        assert!(matches!(intake.on_epoch(next), Ok(None)));
    }
}

fn seeds() -> Vec<Seed> {
    let seed = |name, kind: u8, partitions: u8, archive: Vec<u8>| {
        Seed::new(name, [vec![kind, partitions], archive].concat())
    };
    let batch = samples::batch(1);
    let epoch = samples::epoch(&[&batch], [3; 32]);
    let empty = Batch { entries: Vec::new(), ..batch.clone() };
    // Together they hold more transactions than there are numbers for.
    let mut enormous = samples::epoch(&[&batch, &samples::batch(2)], [3; 32]);
    enormous.batches.iter_mut().for_each(|batch| batch.transactions = u32::MAX);
    vec![
        seed("batch", 0, 2, batch.encoded()),
        seed("batch-of-nothing", 0, 0, empty.encoded()),
        seed("epoch", 1, 0, epoch.encoded()),
        Seed::refused("epoch-too-large", [vec![1, 0], enormous.encoded()].concat()),
    ]
}
