//! Postings: where the things are that blocks are searched for.
//!
//! A posting is a fingerprint of a [`Term`] and a [`Place`]. Fingerprints may collide, so what is
//! found is a candidate until it was looked at. The latest postings are kept in memory (the
//! *tail*), as sorted [`Piece`]s of growing size; when they are many they are written, sorted, as
//! records of many places of one fingerprint.

use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256};
use parsec_ethereum::Block;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::limits::RECORD_PLACES_MAX;
use crate::Transaction;

/// A transaction's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the block.
    pub number: u64,
    /// The index of the transaction in it.
    pub index: u32,
}

impl Place {
    /// The first place of a block.
    #[must_use]
    pub fn start(number: u64) -> Self {
        Self { number, index: 0 }
    }

    /// The last place that a block can have.
    #[must_use]
    pub fn end(number: u64) -> Self {
        Self { number, index: u32::MAX }
    }

    /// The place after this one; none after the last of all.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.index.checked_add(1) {
            Some(index) => Some(Self { index, ..self }),
            None => self.number.checked_add(1).map(Self::start),
        }
    }

    /// The place before this one; none before the first of all.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        match self.index.checked_sub(1) {
            Some(index) => Some(Self { index, ..self }),
            None => self.number.checked_sub(1).map(Self::end),
        }
    }
}

/// What can be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// The block with that hash.
    Block(B256),
    /// The transaction with that hash.
    Transaction(B256),
    /// Transactions that wrote any log entry.
    Logs,
    /// Those that wrote a log entry of that contract.
    Address(Address),
    /// Those that wrote a log entry with that topic in that position.
    Topic(u8, B256),
    /// Those of that sender.
    Sender(Address),
    /// Those sent to that account, or that created it.
    Recipient(Address),
}

impl Term {
    /// A hash that depends on the index, so that nobody can aim at collisions.
    pub(super) fn fingerprint(self, seed: u64) -> u64 {
        let hash = |kind: u8, content: &[u8]| {
            let mut bytes = [0; 34];
            bytes[0] = kind;
            bytes[1..=content.len()].copy_from_slice(content);
            xxh3_64_with_seed(&bytes[..=content.len()], seed)
        };
        match self {
            Self::Block(value) => hash(0, value.as_slice()),
            Self::Transaction(value) => hash(1, value.as_slice()),
            Self::Logs => hash(2, &[]),
            Self::Address(value) => hash(3, value.as_slice()),
            Self::Sender(value) => hash(4, value.as_slice()),
            Self::Recipient(value) => hash(5, value.as_slice()),
            Self::Topic(position, value) => hash(16 + position.min(4), value.as_slice()),
        }
    }
}

/// A fingerprint and where it is.
pub(super) type Entry = (u64, Place);

/// The sorted postings of consecutive blocks.
#[derive(Debug)]
pub(super) struct Piece {
    entries: Vec<Entry>,
}

impl Piece {
    /// The postings of a block, whose transactions are `decoded`.
    pub(super) fn of(block: &Block, decoded: &[Transaction], seed: u64) -> Self {
        let start = Place::start(block.number);
        let mut entries = vec![(Term::Block(B256::new(block.hash)).fingerprint(seed), start)];
        for (index, (tx, content)) in (0..).zip(block.transactions.iter().zip(decoded)) {
            let place = Place { index, ..start };
            let mut post = |term: Term| entries.push((term.fingerprint(seed), place));
            post(Term::Transaction(tx.hash()));
            post(Term::Sender(tx.sender()));
            let created = || tx.sender().create(content.nonce());
            post(Term::Recipient(content.to().unwrap_or_else(created)));
            if !tx.receipt.events.is_empty() {
                post(Term::Logs);
            }
            for event in &tx.receipt.events {
                if let Ok(address) = Address::try_from(&event.source[..]) {
                    post(Term::Address(address));
                }
                for (position, topic) in (0..).zip(&event.topics) {
                    post(Term::Topic(position, B256::from(topic)));
                }
            }
        }
        entries.sort_unstable();
        entries.dedup();
        Self { entries }
    }

    /// The fingerprints of its entries.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.0)
    }

    fn merge(&self, later: &Self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len() + later.entries.len());
        let (mut left, mut right) = (&self.entries[..], &later.entries[..]);
        while let (Some(first), Some(second)) = (left.first(), right.first()) {
            match first <= second {
                true => {
                    entries.push(*first);
                    left = &left[1..];
                }
                false => {
                    entries.push(*second);
                    right = &right[1..];
                }
            }
        }
        entries.extend_from_slice(left);
        entries.extend_from_slice(right);
        Self { entries }
    }

    /// The entries of one fingerprint.
    pub(super) fn places(&self, fingerprint: u64) -> impl Iterator<Item = Place> {
        let first = self.entries.partition_point(|entry| entry.0 < fingerprint);
        let entries = self.entries[first..].iter();
        entries.take_while(move |entry| entry.0 == fingerprint).map(|entry| entry.1)
    }
}

/// Pieces in the order of their blocks, larger ones first.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    pieces: Vec<Arc<Piece>>,
}

impl Tail {
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.entries.len()).sum()
    }

    /// Adds the postings of later blocks. Pieces at least double in size towards the front, so
    /// that there are few of them and each posting is moved rarely.
    pub(super) fn push(&mut self, mut piece: Piece) {
        while let Some(last) = self.pieces.pop_if(|last| last.entries.len() <= piece.entries.len())
        {
            piece = last.merge(&piece);
        }
        self.pieces.push(Arc::new(piece));
    }

    /// Without the postings of blocks after that one.
    pub(super) fn rewound(&self, to: u64) -> Self {
        let mut tail = Self::default();
        for piece in &self.pieces {
            let kept = |entry: &&Entry| entry.1.number <= to;
            let entries: Vec<Entry> = piece.entries.iter().filter(kept).copied().collect();
            match entries.len() {
                0 => {}
                all if all == piece.entries.len() => tail.pieces.push(Arc::clone(piece)),
                _ => tail.push(Piece { entries }),
            }
        }
        tail
    }

    /// The places of a fingerprint, in order.
    pub(super) fn places(&self, fingerprint: u64) -> Vec<Place> {
        self.pieces.iter().flat_map(|piece| piece.places(fingerprint)).collect()
    }

    /// The records of all postings, in the order of their keys.
    pub(super) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> {
        let all = self
            .pieces
            .iter()
            .rev()
            .fold(Piece { entries: Vec::new() }, |later, earlier| earlier.merge(&later));
        let mut entries = all.entries.into_iter().peekable();
        std::iter::from_fn(move || {
            let (fingerprint, first) = entries.next()?;
            let mut places = vec![first];
            while places.len() < RECORD_PLACES_MAX
                && let Some((_, place)) = entries.next_if(|entry| entry.0 == fingerprint)
            {
                places.push(place);
            }
            Some((record_key(fingerprint, first), encode(&places)))
        })
    }
}

/// The key of a stored record: a fingerprint and its first place.
pub(super) type RecordKey = [u8; 20];

pub(super) fn record_key(fingerprint: u64, place: Place) -> RecordKey {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&fingerprint.to_be_bytes());
    key[8..16].copy_from_slice(&place.number.to_be_bytes());
    key[16..].copy_from_slice(&place.index.to_be_bytes());
    key
}

/// The value of a record: its places but the first, which its key has. Each is the distance to
/// the block before, then the distance to the index before, which within another block is 0.
pub(super) fn encode(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pair in places.windows(2) {
        let [before, place] = [pair[0], pair[1]];
        let blocks = place.number - before.number;
        put(&mut bytes, blocks);
        let index = if blocks == 0 { place.index - before.index } else { place.index };
        put(&mut bytes, index.into());
    }
    bytes
}

/// The places of a record; none if it is no record.
pub(super) fn decode(key: &[u8], mut value: &[u8]) -> Option<Vec<Place>> {
    let (number, index) = key.get(8..20)?.split_at_checked(8)?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let mut last = Place { number, index: u32::from_be_bytes(index.try_into().ok()?) };
    let mut places = vec![last];
    while !value.is_empty() {
        let blocks = take(&mut value)?;
        let index = u32::try_from(take(&mut value)?).ok()?;
        last = match blocks {
            0 => Place { index: last.index.checked_add(index)?, ..last },
            _ => Place { number: last.number.checked_add(blocks)?, index },
        };
        places.push(last);
    }
    Some(places)
}

/// Seven bits to the byte, the lowest first; the highest bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        match number {
            0 => return bytes.push(low & 0x7f),
            _ => bytes.push(low | 0x80),
        }
    }
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places() -> impl Strategy<Value = Vec<Place>> {
        let place = (0..u64::MAX, any::<u32>()).prop_map(|(number, index)| Place { number, index });
        let near = (0..9_u64, 0..5_u32).prop_map(|(number, index)| Place { number, index });
        prop_oneof![
            prop::collection::btree_set(place, 1..50),
            prop::collection::btree_set(near, 1..50)
        ]
        .prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn records_come_back(places in places()) {
            let key = record_key(7, places[0]);
            prop_assert_eq!(decode(&key, &encode(&places)), Some(places));
        }

        #[test]
        fn no_bytes_break_the_decoder(key in prop::collection::vec(any::<u8>(), 0..24),
                                      value in prop::collection::vec(any::<u8>(), 0..64)) {
            decode(&key, &value);
        }

        #[test]
        fn a_tail_finds_what_was_pushed(blocks in prop::collection::vec(
                prop::collection::btree_set((0..20_u64, 0..4_u32), 0..12), 0..40), to in 0..40_u64) {
            let mut tail = Tail::default();
            let mut all = Vec::new();
            for (number, entries) in (0..).zip(&blocks) {
                let entries: Vec<Entry> =
                    entries.iter().map(|&(fp, index)| (fp, Place { number, index })).collect();
                all.extend_from_slice(&entries);
                tail.push(Piece { entries });
            }
            let naive = |fp: u64, to: u64| -> Vec<Place> {
                let found = all.iter().filter(|entry| entry.0 == fp && entry.1.number <= to);
                found.map(|entry| entry.1).collect()
            };
            let rewound = tail.rewound(to);
            for fp in 0..20 {
                prop_assert_eq!(tail.places(fp), naive(fp, u64::MAX));
                prop_assert_eq!(rewound.places(fp), naive(fp, to));
            }
            let stored: Vec<Entry> = tail.records().flat_map(|(key, value)| {
                let fp = u64::from_be_bytes(key[..8].try_into().unwrap());
                decode(&key, &value).unwrap().into_iter().map(move |place| (fp, place))
            }).collect();
            all.sort_unstable();
            prop_assert_eq!(stored, all);
        }
    }
}
