//! The one encoding of everything that is sent or stored: rkyv archives, checked on the way in.
//!
//! Archives are little-endian, unaligned, with 32-bit offsets; they are the same on every host.

use std::cell::Cell;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

use crate::limits::{
    BATCH_TRANSACTIONS_MAX, EPOCH_BATCHES_MAX, FOOTPRINT_KEYS_MAX, KEY_BYTES_MAX, OUTPUT_BYTES_MAX,
    PARTITIONS_MAX, PAYLOAD_BYTES_MAX, READ_KEYS_MAX, SENDER_BYTES_MAX,
    SUBMISSION_TRANSACTIONS_MAX, VALUE_BYTES_MAX,
};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum Malformed {
    #[error("the bytes are not a valid archive: {reason}")]
    Archive { reason: String },
    #[error("a key has {bytes} bytes; 3 to {KEY_BYTES_MAX} are allowed, header included")]
    KeyLength { bytes: usize },
    #[error("a key's affinity exceeds its length")]
    KeyAffinity,
    #[error("a value has {bytes} bytes; at most {VALUE_BYTES_MAX} are allowed")]
    ValueLength { bytes: usize },
    #[error("a footprint has {keys} keys; at most {FOOTPRINT_KEYS_MAX} are allowed")]
    FootprintLength { keys: usize },
    #[error("a footprint's keys are not sorted, or one occurs twice")]
    FootprintOrder,
    #[error("a payload has {bytes} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")]
    PayloadLength { bytes: usize },
    #[error("a sender has {bytes} bytes; at most {SENDER_BYTES_MAX} are allowed")]
    SenderLength { bytes: usize },
    #[error("an output has {bytes} bytes; at most {OUTPUT_BYTES_MAX} are allowed")]
    OutputLength { bytes: usize },
    #[error(
        "a batch has {transactions} transactions; at most {BATCH_TRANSACTIONS_MAX} are allowed"
    )]
    BatchLength { transactions: usize },
    #[error(
        "a submission has {transactions} transactions; \
         at most {SUBMISSION_TRANSACTIONS_MAX} are allowed"
    )]
    SubmissionLength { transactions: usize },
    #[error("a read has {keys} keys; at most {READ_KEYS_MAX} are allowed")]
    ReadLength { keys: usize },
    #[error("an epoch has {batches} batches; at most {EPOCH_BATCHES_MAX} are allowed")]
    EpochLength { batches: usize },
    #[error("a partition map needs 1 to {PARTITIONS_MAX} partitions")]
    PartitionMap,
}

/// A type that is encoded as a whole: a message, or a record of the log.
pub trait Wire {
    /// Checks what the archive's own validation does not: limits and invariants.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    fn check(&self) -> Result<(), Malformed>;
}

/// A thread's buffer that has grown beyond this is given back after the value that needed it, bytes.
const BUFFER_KEPT_BYTES: usize = 512 * 1_024;

thread_local! {
    /// Where values are encoded: one that has its length already. What grows on its way is copied
    /// each time, to memory that was not used yet.
    static BUFFER: Cell<AlignedVec> = Cell::new(AlignedVec::new());
}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this crate: they hold only what rkyv can always write to memory, well
/// under the four GiB that 32-bit offsets reach.
pub fn encode<T>(value: &T) -> Vec<u8>
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
{
    with_encoded(value, <[u8]>::to_vec)
}

/// Encodes a value for `look`, and for nobody else.
///
/// # Panics
/// As [`encode`].
pub fn with_encoded<T, R>(value: &T, look: impl FnOnce(&[u8]) -> R) -> R
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
{
    let mut buffer = BUFFER.take();
    buffer.clear();
    let encoded = rkyv::api::high::to_bytes_in::<_, Error>(value, buffer)
        .expect("plain data always archives to memory");
    let result = look(&encoded);
    if encoded.capacity() <= BUFFER_KEPT_BYTES {
        BUFFER.set(encoded);
    }
    result
}

/// Decodes and checks a value.
///
/// # Errors
/// [`Malformed::Archive`] if the bytes are not a valid archive of a `T`, else what
/// [`Wire::check`] says.
pub fn decode<T>(bytes: &[u8]) -> Result<T, Malformed>
where
    T: rkyv::Archive + Wire,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>>
        + rkyv::Deserialize<T, HighDeserializer<Error>>,
{
    let value: T = rkyv::from_bytes::<T, Error>(bytes)
        .map_err(|error| Malformed::Archive { reason: error.to_string() })?;
    value.check()?;
    Ok(value)
}

/// The digest by which encoded things are named: BLAKE3, 32 bytes.
#[must_use]
pub fn digest(encoded: &[u8]) -> [u8; 32] {
    blake3::hash(encoded).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_before_leaves_no_trace() {
        let values = [vec![1u8; 100], vec![2; 2 * BUFFER_KEPT_BYTES], Vec::new(), vec![3; 10]];
        for value in values {
            let expected = rkyv::to_bytes::<Error>(&value).unwrap();
            assert_eq!(encode(&value)[..], expected[..]);
            assert!(with_encoded(&value, |encoded| encoded == &expected[..]));
            // Also if one is encoded while another is looked at.
            let within = with_encoded(&value, |encoded| (encode(&7u32), encoded.to_vec()));
            assert_eq!(within.1, expected[..]);
        }
    }
}
