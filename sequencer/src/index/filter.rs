//! A filter of all ids: says of an id that it was never put in, at the cost of a miss or two of the
//! processor's cache instead of a search in the tables.
//!
//! A split-block Bloom filter (Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom
//! Filters", 2007; one bit in each word of a block, as in Apache Parquet), scalable as in Almeida,
//! Baquero, Preguiça, Hutchison, "Scalable Bloom Filters" (2007): it has parts, each as large as all
//! before it, so that memory follows what was put in.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use parsec_protocol::TxId;

use crate::limits::{INDEX_FILTER_BITS_PER_ID, INDEX_FILTER_IDS_FIRST, INDEX_FILTER_PARTS_MAX};

const WORDS: usize = 8;
const BLOCK_BITS: usize = WORDS * 64;

/// What one id sets bits in: a line of the processor's cache.
#[derive(Default)]
#[repr(align(64))]
struct Block([AtomicU64; WORDS]);

/// Where an id has its bits, in a filter of any size.
#[derive(Clone, Copy)]
struct Fingerprint {
    hash: u64,
    bits: u64,
}

impl Fingerprint {
    fn of(id: &TxId, hasher: &RandomState) -> Self {
        let hash = hasher.hash_one(id.0);
        // The block is chosen by the upper bits of the hash; so the bits within it are of a product
        // whose upper bits depend on all of them.
        Self { hash, bits: hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    fn block(self, blocks: &[Block]) -> Option<&Block> {
        let scaled = (u128::from(self.hash) * blocks.len() as u128) >> 64;
        blocks.get(usize::try_from(scaled).ok()?)
    }

    /// One bit for each word.
    fn masks(self) -> impl Iterator<Item = u64> {
        (0..WORDS).map(move |word| 1 << ((self.bits >> (16 + 6 * word)) & 63))
    }
}

/// The filter. Ids are put in by any number of threads, and looked up meanwhile.
pub(super) struct IdFilter {
    hasher: RandomState,
    /// How many were put in, more often than once included.
    added: AtomicU64,
    /// The first is for [`INDEX_FILTER_IDS_FIRST`] ids, each other for as many as all before it. The
    /// last one takes what is too many: it errs more and more.
    parts: [OnceLock<Box<[Block]>>; INDEX_FILTER_PARTS_MAX],
}

impl IdFilter {
    /// An empty one, hashed with a secret, so that no client can choose ids that share their bits.
    pub(super) fn new() -> Self {
        Self::with_hasher(RandomState::new())
    }

    fn with_hasher(hasher: RandomState) -> Self {
        Self { hasher, added: AtomicU64::new(0), parts: Default::default() }
    }

    /// Puts an id in.
    pub(super) fn add(&self, id: &TxId) {
        let part = part_of(self.added.fetch_add(1, Ordering::Relaxed));
        let Some(blocks) = self.parts.get(part) else { return };
        let blocks = blocks.get_or_init(|| {
            let bits = ids_of(part) * INDEX_FILTER_BITS_PER_ID;
            (0..bits.div_ceil(BLOCK_BITS)).map(|_| Block::default()).collect()
        });
        let fingerprint = Fingerprint::of(id, &self.hasher);
        let Some(block) = fingerprint.block(blocks) else { return };
        for (word, mask) in block.0.iter().zip(fingerprint.masks()) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Whether an id may have been put in. `false`: it was not, by any thread whose writes the
    /// caller's thread can see.
    pub(super) fn may_contain(&self, id: &TxId) -> bool {
        let fingerprint = Fingerprint::of(id, &self.hasher);
        let has_bits = |block: &Block| {
            let mut words = block.0.iter().zip(fingerprint.masks());
            words.all(|(word, mask)| word.load(Ordering::Relaxed) & mask != 0)
        };
        let mut parts = self.parts.iter().filter_map(OnceLock::get);
        parts.any(|blocks| fingerprint.block(blocks).is_some_and(has_bits))
    }
}

/// Ids that a part is for.
fn ids_of(part: usize) -> usize {
    INDEX_FILTER_IDS_FIRST << part.saturating_sub(1)
}

/// The part that an id goes to before which so many were put in.
fn part_of(added: u64) -> usize {
    let times = added / INDEX_FILTER_IDS_FIRST as u64;
    let part = times.checked_ilog2().map_or(0, |log| log as usize + 1);
    part.min(INDEX_FILTER_PARTS_MAX - 1)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Hashed as always, so that what is counted is always the same.
    fn filter() -> IdFilter {
        IdFilter::with_hasher(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn id(number: u64) -> TxId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        TxId(id)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_put_in_is_found_wherever_it_went(
            ids in vec(any::<[u8; 32]>(), 1..100),
            before in 0..10 * INDEX_FILTER_IDS_FIRST as u64,
        ) {
            let filter = filter();
            filter.added.store(before, Ordering::Relaxed);
            ids.iter().for_each(|id| filter.add(&TxId(*id)));
            for id in &ids {
                prop_assert!(filter.may_contain(&TxId(*id)));
            }
        }

        #[test]
        fn each_part_is_for_as_many_ids_as_all_before_it(added in any::<u64>()) {
            let part = part_of(added);
            let before: u64 = (0..part).map(|part| ids_of(part) as u64).sum();
            prop_assert!(before <= added);
            let is_last = part == INDEX_FILTER_PARTS_MAX - 1;
            prop_assert!(is_last || added - before < ids_of(part) as u64);
            prop_assert!(part == 0 || ids_of(part) as u64 == before);
        }
    }

    #[test]
    fn an_empty_one_contains_nothing() {
        assert!(!filter().may_contain(&id(1)));
    }

    #[test]
    fn full_parts_err_for_few_ids() {
        let filter = filter();
        let all = INDEX_FILTER_IDS_FIRST as u64;
        (0..all).for_each(|number| filter.add(&id(number)));
        assert!((0..all).all(|number| filter.may_contain(&id(number))));
        assert!(filter.parts[0].get().is_some() && filter.parts[1].get().is_none());
        let others = 100_000;
        let wrong = (all..all + others).filter(|number| filter.may_contain(&id(*number)));
        let wrong = wrong.count() as u64;
        assert!((1..others / 50).contains(&wrong), "{wrong} of {others}");
    }
}
