//! What a store keeps: packed receipts, packed pushes, and the floor.
//!
//! Input: a byte that chooses, then the record. A floor file is never accepted unless its checksum
//! is right, so that half of the inputs get one.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use parsec_protocol::{EpochNumber, PartitionId, Position, Receipt, codec};
use parsec_storage::StdDisk;
use parsec_storage::store::Floor;
use parsec_storage::store::fuzzing::{
    find_receipt, pack_pushes, pack_receipts, receipt_epoch, unpack_pushes, unpack_receipts,
};
use tempfile::TempDir;

use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "store_records", run, seeds };

const CLUSTER: [u8; 32] = [7; 32];
const PARTITION: PartitionId = PartitionId(2);

fn run(input: &[u8]) -> Verdict {
    let Some((kind, bytes)) = input.split_first() else { return Verdict::Refused };
    let accepted = match kind % 4 {
        0 => of_receipts(bytes),
        1 => of_pushes(bytes),
        2 => of_a_floor(bytes),
        _ => of_a_floor(&with_check(bytes)),
    };
    if accepted { Verdict::Accepted } else { Verdict::Refused }
}

/// Receipts come back when they are packed again, and each can be found alone.
fn of_receipts(bytes: &[u8]) -> bool {
    assert_eq!(receipt_epoch(bytes).is_some(), bytes.len() >= 8);
    let at = |index| Position { epoch: EpochNumber(4), index };
    let Ok(receipts) = unpack_receipts(bytes) else {
        assert!(find_receipt(bytes, at(0)).is_err());
        return false;
    };
    // Whatever the order: something, or nothing, but no panic.
    for receipt in &receipts {
        find_receipt(bytes, receipt.position).unwrap();
    }
    find_receipt(bytes, at(1)).unwrap();
    let is_sorted = receipts.is_sorted_by(|a, b| a.position < b.position);
    if is_sorted {
        packed_again(&receipts);
    }
    !receipts.is_empty() && is_sorted
}

fn packed_again(receipts: &[Receipt]) {
    let records = pack_receipts(receipts.to_vec());
    let mut unpacked = Vec::new();
    for (key, value) in &records {
        let some = unpack_receipts(value).unwrap();
        assert!(some.iter().all(|one| receipt_epoch(key) == Some(one.position.epoch)));
        for receipt in &some {
            assert_eq!(find_receipt(value, receipt.position).unwrap().as_ref(), Some(receipt));
        }
        unpacked.extend(some);
    }
    assert_eq!(unpacked, receipts);
}

fn of_pushes(bytes: &[u8]) -> bool {
    let Ok(mut pushes) = unpack_pushes(bytes) else { return false };
    let records = pack_pushes(pushes.clone());
    let unpacked: Vec<_> = records.iter().flat_map(|value| unpack_pushes(value).unwrap()).collect();
    pushes.sort_by_key(|push| (push.to, push.position.epoch));
    assert_eq!(unpacked, pushes);
    !pushes.is_empty()
}

fn of_a_floor(bytes: &[u8]) -> bool {
    let path = file(bytes);
    let floor = Floor::new(StdDisk, path, CLUSTER, PARTITION);
    let Ok(found) = floor.read() else { return false };
    let applied = found.expect("the file is there");
    let body =
        floor_body(applied.epoch.0, &bytes[54..118], applied.executed, applied.multi_partition);
    assert_eq!(with_check(&body), bytes, "a floor is what was written, to the last bit");
    assert_eq!(bytes[54..86], applied.state.0);
    assert_eq!(bytes[86..118], applied.receipts.0);
    true
}

/// The floor file as its module documents it, without its checksum.
fn floor_body(epoch: u64, digests: &[u8], executed: u64, multi_partition: u64) -> Vec<u8> {
    let mut body = b"PFLOOR\0\0".to_vec();
    body.extend_from_slice(&1u32.to_be_bytes());
    body.extend_from_slice(&CLUSTER);
    body.extend_from_slice(&PARTITION.0.to_be_bytes());
    body.extend_from_slice(&epoch.to_be_bytes());
    body.extend_from_slice(digests);
    body.extend_from_slice(&executed.to_be_bytes());
    body.extend_from_slice(&multi_partition.to_be_bytes());
    body
}

fn with_check(body: &[u8]) -> Vec<u8> {
    [body, blake3::hash(body).as_bytes()].concat()
}

/// A file with that content, the same one each time.
fn file(content: &[u8]) -> PathBuf {
    thread_local! {
        static DIRECTORY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    DIRECTORY.with_borrow_mut(|directory| {
        let path =
            directory.get_or_insert_with(|| tempfile::tempdir().unwrap()).path().join("floor");
        fs::write(&path, content).unwrap();
        path
    })
}

fn seeds() -> Vec<Seed> {
    let seed = |name, kind: u8, bytes: &[u8]| Seed::new(name, [&[kind], bytes].concat());
    let receipts = pack_receipts(samples::receipts());
    let pushes = pack_pushes(samples::pushes());
    let digests = [codec::digest(b"state"), codec::digest(b"receipts")].concat();
    let body = floor_body(9, &digests, 100, 3);
    vec![
        seed("receipts", 0, &receipts[0].1),
        seed("pushes", 1, &pushes[0]),
        seed("floor", 2, &with_check(&body)),
        seed("floor-unchecked", 3, &body),
    ]
}
