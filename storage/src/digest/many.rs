//! Hashing many pairs at a time.
//!
//! Most pairs are one to five blocks of BLAKE3, and a processor with wide registers hashes a block of
//! each of sixteen inputs in little more than the time of one. The inputs have to be equally many
//! whole blocks, which is why a pair's last one is filled up.

use std::sync::LazyLock;

use blake3::IncrementCounter;
use blake3::platform::Platform;
use parsec_protocol::Key;
use smallvec::SmallVec;

use super::{Digest, PAIR};

/// Bytes of a block of BLAKE3.
const BLOCK_BYTES: usize = 64;
/// Bytes before those of key and value: the lengths of both.
const HEADER_BYTES: usize = 8;
/// The widest registers take so many inputs.
const LANES: usize = 16;
/// Longer pairs are hashed one by one. Those of so many blocks are no longer than a chunk of BLAKE3,
/// so that they need no tree.
const BLOCKS_MAX: usize = 16;

// Flags of the compression function (table 3 of BLAKE3's specification).
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const DERIVE_KEY_MATERIAL: u8 = 1 << 6;

static PLATFORM: LazyLock<Platform> = LazyLock::new(Platform::detect);

/// The words of [`PAIR`].
static KEY: LazyLock<[u32; 8]> = LazyLock::new(|| {
    let (words, _) = PAIR.as_chunks();
    std::array::from_fn(|word| u32::from_le_bytes(words[word]))
});

/// What precedes key and value.
pub(super) fn header(key: &[u8], value: &[u8]) -> [u8; HEADER_BYTES] {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut header = [0; HEADER_BYTES];
    let (of_key, of_value) = header.split_at_mut(4);
    of_key.copy_from_slice(&length(key));
    of_value.copy_from_slice(&length(value));
    header
}

/// How many zeros follow key and value.
pub(super) fn padding(key: &[u8], value: &[u8]) -> usize {
    let bytes = HEADER_BYTES + key.len() + value.len();
    bytes.next_multiple_of(BLOCK_BYTES) - bytes
}

fn blocks((key, value): (&Key, &[u8])) -> usize {
    (HEADER_BYTES + key.encoded().len() + value.len()).div_ceil(BLOCK_BYTES)
}

/// The digest of each of these pairs.
pub(super) fn of_all(pairs: &[(&Key, &[u8])]) -> Vec<Digest> {
    let mut digests = vec![Digest::ZERO; pairs.len()];
    // Those of one block, of two, and so on.
    let mut groups: [Vec<usize>; BLOCKS_MAX] = Default::default();
    for (index, pair) in pairs.iter().enumerate() {
        match groups.get_mut(blocks(*pair) - 1) {
            Some(group) => group.push(index),
            None => digests[index] = Digest::of(pair.0, pair.1),
        }
    }
    for (group, hash) in groups.iter().zip(HASHES) {
        group.chunks(LANES).for_each(|indexes| hash(pairs, indexes, &mut digests));
    }
    digests
}

/// Sets those of `digests` that have these indexes, at most [`LANES`].
type Hash = fn(pairs: &[(&Key, &[u8])], indexes: &[usize], digests: &mut [Digest]);

const HASHES: [Hash; BLOCKS_MAX] = [
    hash::<BLOCK_BYTES>,
    hash::<{ 2 * BLOCK_BYTES }>,
    hash::<{ 3 * BLOCK_BYTES }>,
    hash::<{ 4 * BLOCK_BYTES }>,
    hash::<{ 5 * BLOCK_BYTES }>,
    hash::<{ 6 * BLOCK_BYTES }>,
    hash::<{ 7 * BLOCK_BYTES }>,
    hash::<{ 8 * BLOCK_BYTES }>,
    hash::<{ 9 * BLOCK_BYTES }>,
    hash::<{ 10 * BLOCK_BYTES }>,
    hash::<{ 11 * BLOCK_BYTES }>,
    hash::<{ 12 * BLOCK_BYTES }>,
    hash::<{ 13 * BLOCK_BYTES }>,
    hash::<{ 14 * BLOCK_BYTES }>,
    hash::<{ 15 * BLOCK_BYTES }>,
    hash::<{ 16 * BLOCK_BYTES }>,
];

fn hash<const BYTES: usize>(pairs: &[(&Key, &[u8])], indexes: &[usize], digests: &mut [Digest]) {
    let mut inputs = [[0; BYTES]; LANES];
    for (input, index) in inputs.iter_mut().zip(indexes) {
        let (key, value) = pairs[*index];
        let key = key.encoded();
        let (header_bytes, rest) = input.split_at_mut(HEADER_BYTES);
        let (key_bytes, rest) = rest.split_at_mut(key.len());
        header_bytes.copy_from_slice(&header(key, value));
        key_bytes.copy_from_slice(key);
        rest[..value.len()].copy_from_slice(value);
    }
    let inputs: SmallVec<[&[u8; BYTES]; LANES]> = inputs.iter().take(indexes.len()).collect();
    let mut hashes = [0; 32 * LANES];
    PLATFORM.hash_many(
        &inputs,
        &KEY,
        0,
        IncrementCounter::No,
        DERIVE_KEY_MATERIAL,
        CHUNK_START,
        CHUNK_END | ROOT,
        &mut hashes,
    );
    for (index, hash) in indexes.iter().zip(hashes.as_chunks().0) {
        digests[*index] = Digest(*hash);
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn together_they_are_what_each_is_alone(
            lengths in vec((0usize..80, 0usize..1_200), 0..100),
        ) {
            let keys = lengths.iter().zip(0u8..).map(|((length, _), byte)| {
                Key::new(Namespace::partitioned(1), &vec![byte; *length]).unwrap()
            });
            let keys: Vec<_> = keys.collect();
            let values = lengths.iter().zip(100u8..).map(|((_, length), byte)| vec![byte; *length]);
            let values: Vec<_> = values.collect();
            let pairs = keys.iter().zip(&values).map(|(key, value)| (key, &value[..]));
            let pairs: Vec<_> = pairs.collect();
            let alone: Vec<_> = pairs.iter().map(|(key, value)| Digest::of(key, value)).collect();
            prop_assert_eq!(of_all(&pairs), alone);
        }
    }
}
