//! How receipts and pushes are packed into records: few of them, because each costs the engine
//! microseconds, and none of them large. Pure.
//!
//! The key of a record of receipts is their epoch and the index of the first, big-endian, so that
//! records lie in the order of the ledger.

use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::{EpochNumber, PartitionId, Position, Push, Receipt};
use rkyv::rancor::Error;
use rkyv::with::{Inline, Map};
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::PACKED_BYTES_TARGET;

/// Receipts of one epoch, in the order of their positions.
#[derive(Debug, Archive, Serialize, Deserialize)]
struct Receipts {
    receipts: Vec<Receipt>,
}

/// Pushes of one epoch to one partition.
#[derive(Debug, Archive, Serialize, Deserialize)]
struct Pushes {
    pushes: Vec<Push>,
}

/// As [`Receipts`], to be written.
#[derive(Archive, Serialize)]
struct BorrowedReceipts<'a> {
    #[rkyv(with = Map<Inline>)]
    receipts: Vec<&'a Receipt>,
}

/// As [`Pushes`], to be written.
#[derive(Archive, Serialize)]
struct BorrowedPushes<'a> {
    #[rkyv(with = Map<Inline>)]
    pushes: Vec<&'a Push>,
}

// What lies in the store has been checked before it was executed.
impl Wire for Receipts {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl Wire for Pushes {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// A record of receipts.
#[derive(Debug)]
pub(super) struct PackedReceipts {
    /// Where the first one is; all are of its epoch.
    pub(super) first: Position,
    pub(super) value: Vec<u8>,
}

/// A record of pushes.
#[derive(Debug)]
pub(super) struct PackedPushes {
    pub(super) to: PartitionId,
    pub(super) epoch: EpochNumber,
    pub(super) value: Vec<u8>,
}

/// Packs receipts, which are in order.
pub(super) fn pack_receipts<'a>(
    receipts: impl IntoIterator<Item = &'a Receipt>,
) -> impl Iterator<Item = PackedReceipts> {
    let records = split(receipts, |receipt| receipt.position.epoch, receipt_bytes);
    records.into_iter().map(|receipts| PackedReceipts {
        first: receipts[0].position,
        value: codec::with_encoded(&BorrowedReceipts { receipts }, <[u8]>::to_vec),
    })
}

/// Packs pushes, by partition and epoch, keeping their order within.
pub(super) fn pack_pushes<'a>(
    pushes: impl IntoIterator<Item = &'a Push>,
) -> impl Iterator<Item = PackedPushes> {
    let group = |push: &Push| (push.to, push.position.epoch);
    let mut pushes: Vec<&Push> = pushes.into_iter().collect();
    pushes.sort_by_key(|push| group(push));
    split(pushes, group, Push::size).into_iter().map(move |pushes| {
        let (to, epoch) = group(pushes[0]);
        let value = codec::with_encoded(&BorrowedPushes { pushes }, <[u8]>::to_vec);
        PackedPushes { to, epoch, value }
    })
}

/// Splits items into runs of the same group, none much above [`PACKED_BYTES_TARGET`].
fn split<'a, T, G: PartialEq>(
    items: impl IntoIterator<Item = &'a T>,
    group: impl Fn(&T) -> G,
    size: impl Fn(&T) -> usize,
) -> Vec<Vec<&'a T>> {
    let mut runs: Vec<Vec<&T>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        let added = size(item);
        match runs.last_mut() {
            Some(run) if group(run[0]) == group(item) && bytes < PACKED_BYTES_TARGET => {
                bytes += added;
                run.push(item);
            }
            _ => {
                bytes = added;
                runs.push(vec![item]);
            }
        }
    }
    runs
}

/// Roughly how many bytes a receipt takes.
fn receipt_bytes(receipt: &Receipt) -> usize {
    let events = receipt.events.iter();
    96 + receipt.output.len()
        + events
            .map(|event| 24 + event.source.len() + 32 * event.topics.len() + event.data.len())
            .sum::<usize>()
}

/// The key of the record whose first receipt is at `position`.
pub(super) fn receipt_key(position: Position) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&position.epoch.0.to_be_bytes());
    key[8..].copy_from_slice(&position.index.to_be_bytes());
    key
}

/// The epoch in the key of a record of receipts.
pub(super) fn receipt_epoch(key: &[u8]) -> Option<EpochNumber> {
    Some(EpochNumber(u64::from_be_bytes(*key.first_chunk()?)))
}

/// Receipts by epoch: whole epochs, until there are enough.
pub(super) struct Gathered {
    pub(super) epochs: Vec<(EpochNumber, Vec<Receipt>)>,
    count: usize,
    limit: usize,
}

impl Gathered {
    /// These, and more until there are at least `limit` receipts.
    pub(super) fn new(epochs: Vec<(EpochNumber, Vec<Receipt>)>, limit: usize) -> Self {
        let count = epochs.iter().map(|(_, receipts)| receipts.len()).sum();
        Self { epochs, count, limit }
    }

    /// Adds those of the next record, unless it begins an epoch and there are enough; whether it did.
    pub(super) fn add(&mut self, epoch: EpochNumber, value: &[u8]) -> Result<bool, Malformed> {
        let known = self.epochs.last().is_some_and(|(last, _)| *last == epoch);
        if !known && self.count >= self.limit {
            return Ok(false);
        }
        let receipts = unpack_receipts(value)?;
        self.count += receipts.len();
        match self.epochs.last_mut() {
            Some((_, all)) if known => all.extend(receipts),
            _ => self.epochs.push((epoch, receipts)),
        }
        Ok(true)
    }
}

/// The receipts of a record.
pub(super) fn unpack_receipts(value: &[u8]) -> Result<Vec<Receipt>, Malformed> {
    codec::decode::<Receipts>(value).map(|record| record.receipts)
}

/// The pushes of a record.
pub(super) fn unpack_pushes(value: &[u8]) -> Result<Vec<Push>, Malformed> {
    codec::decode::<Pushes>(value).map(|record| record.pushes)
}

/// The receipt at a position, without unpacking the record's others.
pub(super) fn find_receipt(value: &[u8], position: Position) -> Result<Option<Receipt>, Malformed> {
    let malformed = |error: Error| Malformed::Archive { reason: error.to_string() };
    let record = rkyv::access::<ArchivedReceipts, Error>(value).map_err(malformed)?;
    let at = |receipt: &rkyv::Archived<Receipt>| receipt.position.index.to_native();
    let Ok(found) = record.receipts.binary_search_by_key(&position.index, at) else {
        return Ok(None);
    };
    let receipt = &record.receipts[found];
    if receipt.position.epoch.0.to_native() != position.epoch.0 {
        return Ok(None);
    }
    rkyv::deserialize::<Receipt, Error>(receipt).map(Some).map_err(malformed)
}
