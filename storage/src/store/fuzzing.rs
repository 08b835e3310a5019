//! For fuzz targets only: the decoders of what a store keeps, without an engine below them.

use parsec_protocol::{EpochNumber, Malformed, Position, Push, Receipt};

use super::packed;

/// A record of receipts: its key and its value.
pub type StoredRecord = (Vec<u8>, Vec<u8>);

/// The records of these receipts, which are in order.
#[must_use]
pub fn pack_receipts(receipts: Vec<Receipt>) -> Vec<StoredRecord> {
    let records = packed::pack_receipts(&receipts);
    records.map(|record| (packed::receipt_key(record.first).to_vec(), record.value)).collect()
}

/// The records of these pushes.
#[must_use]
pub fn pack_pushes(pushes: Vec<Push>) -> Vec<Vec<u8>> {
    packed::pack_pushes(&pushes).map(|record| record.value).collect()
}

/// The receipts of a record.
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn unpack_receipts(value: &[u8]) -> Result<Vec<Receipt>, Malformed> {
    packed::unpack_receipts(value)
}

/// The pushes of a record.
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn unpack_pushes(value: &[u8]) -> Result<Vec<Push>, Malformed> {
    packed::unpack_pushes(value)
}

/// One receipt of a record.
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn find_receipt(value: &[u8], position: Position) -> Result<Option<Receipt>, Malformed> {
    packed::find_receipt(value, position)
}

/// The epoch in the key of a record of receipts.
#[must_use]
pub fn receipt_epoch(key: &[u8]) -> Option<EpochNumber> {
    packed::receipt_epoch(key)
}
