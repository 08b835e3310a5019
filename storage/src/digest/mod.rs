//! The state digest: a hash of a set of key-value pairs that can be updated and added up.

mod many;

use std::iter::Sum;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use parsec_protocol::{Key, Value};

/// An additive multiset hash: the sum, modulo 2^256, of a hash of each member.
///
/// The digest of the state sums BLAKE3 over all pairs; an absent key adds nothing. BLAKE3 is in
/// `derive_key` mode, over the lengths of key and value (four bytes each, big-endian), the key, the
/// value, and zeros up to a multiple of 64 bytes. The digest of
/// receipts sums their [`Receipt::digest`](parsec_protocol::Receipt::digest)s. The bytes are the
/// sum, big-endian.
///
/// Sums don't depend on the order of updates, nor on how the pairs are spread over partitions: the
/// sum over all partitions is the digest of the whole state, however many there are.
///
/// **What it guarantees.** Two states that differ by accident (a lost write, a flipped bit, an
/// execution that diverged) have the same digest with a probability of 2^-256.
///
/// **What it does not.** It is no commitment against somebody who chooses keys and values on
/// purpose. The construction is AdHash (Bellare and Micciancio, "A New Paradigm for
/// Collision-Free Hashing: Incrementality at Reduced Cost", Eurocrypt 1997); Wagner's "A
/// Generalized Birthday Problem" (Crypto 2002) finds sets with the same sum in about
/// 2^(2·√256) = 2^32 steps. Operators trust their own hosts, so this is enough to compare those.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Pairs up to this length, with those of key and value, are hashed in one piece.
const JOINED_BYTES: usize = 256;

static PAIR: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("parsec 2026 state digest pair"));

impl Digest {
    /// The digest of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of one pair.
    #[must_use]
    pub fn of(key: &Key, value: &[u8]) -> Self {
        let key = key.encoded();
        let header = many::header(key, value);
        let padding = [0; 64];
        let parts = [&header[..], key, value, &padding[..many::padding(key, value)]];
        let mut hasher = blake3::Hasher::new_from_context_key(&PAIR);
        let mut joined = [0; JOINED_BYTES];
        match join(&mut joined, parts) {
            Some(joined) => hasher.update(joined),
            None => parts.into_iter().fold(&mut hasher, |hasher, part| hasher.update(part)),
        };
        Self(hasher.finalize().into())
    }

    /// Adds the members of `other`.
    pub fn add(&mut self, other: Self) {
        self.0 = sum(&self.0, &other.0, false);
    }

    /// Takes the members of `other` out.
    pub fn subtract(&mut self, other: Self) {
        // Two's complement: minus x is the complement of x, plus one.
        self.0 = sum(&self.0, &other.0.map(|byte| !byte), true);
    }

    /// Replaces the values of keys, each given with the one before and the one after: many at a time
    /// cost a fraction of one after the other.
    pub fn update_all<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a Key, Option<&'a Value>, Option<&'a Value>)>,
    ) {
        let changed = changes.into_iter().filter(|(_, old, new)| old != new);
        let values = changed.flat_map(|(key, old, new)| {
            let [old, new] = [(old, false), (new, true)]
                .map(|(value, comes)| value.map(|value| ((key, &value[..]), comes)));
            old.into_iter().chain(new)
        });
        let (pairs, comes): (Vec<_>, Vec<_>) = values.unzip();
        for (digest, comes) in many::of_all(&pairs).into_iter().zip(comes) {
            if comes { self.add(digest) } else { self.subtract(digest) }
        }
    }

    /// Replaces the value of a key; `None` is an absent one.
    pub fn update(&mut self, key: &Key, old: Option<&Value>, new: Option<&Value>) {
        if old != new {
            old.into_iter().for_each(|old| self.subtract(Self::of(key, old)));
            new.into_iter().for_each(|new| self.add(Self::of(key, new)));
        }
    }
}

/// The parts one after the other, if they fit: for few bytes, a call of the hasher takes longer than
/// copying them.
fn join<'a>(joined: &'a mut [u8; JOINED_BYTES], parts: [&[u8]; 4]) -> Option<&'a [u8]> {
    let mut length = 0;
    for part in parts {
        let end = length + part.len();
        joined.get_mut(length..end)?.copy_from_slice(part);
        length = end;
    }
    Some(&joined[..length])
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(digests: I) -> Self {
        digests.fold(Self::ZERO, |mut sum, digest| {
            sum.add(digest);
            sum
        })
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// `a + b + carry` modulo 2^256, all big-endian.
fn sum(a: &[u8; 32], b: &[u8; 32], mut carry: bool) -> [u8; 32] {
    let half = |bytes: &[u8; 32], at: usize| {
        let mut word = [0; 16];
        word.copy_from_slice(&bytes[at..at + 16]);
        u128::from_be_bytes(word)
    };
    let mut total = [0; 32];
    for at in [16, 0] {
        let (partial, first) = half(a, at).overflowing_add(half(b, at));
        let (word, second) = partial.overflowing_add(u128::from(carry));
        carry = first || second;
        total[at..at + 16].copy_from_slice(&word.to_be_bytes());
    }
    total
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(Namespace::partitioned(1), bytes).unwrap()
    }

    fn digests() -> impl Strategy<Value = Vec<Digest>> {
        vec(any::<[u8; 32]>().prop_map(Digest), 0..20)
    }

    #[test]
    fn the_digest_of_a_pair_never_changes() {
        let digest = Digest::of(&key(b"alice"), b"100").to_string();
        assert_eq!(digest, "291278f2f72f6042fd80e6f5296a7dbdf9fc14d17b423ab16865a0c33e1627f9");
    }

    #[test]
    fn what_moves_between_key_and_value_changes_the_digest() {
        assert_ne!(Digest::of(&key(b"ab"), b"c"), Digest::of(&key(b"a"), b"bc"));
        assert_ne!(Digest::of(&key(b"a"), b""), Digest::ZERO);
    }

    #[test]
    fn a_pair_has_one_digest_whether_it_is_hashed_in_one_piece_or_not() {
        let key = key(b"alice");
        for length in 0..2 * JOINED_BYTES {
            let value = vec![7; length];
            let lengths = [key.encoded().len(), length].map(|it| u32::try_from(it).unwrap());
            let mut bytes = lengths.map(u32::to_be_bytes).concat();
            bytes.extend([key.encoded(), &value].concat());
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            let expected = blake3::derive_key("parsec 2026 state digest pair", &bytes);
            assert_eq!(Digest::of(&key, &value), Digest(expected), "{length}");
        }
    }

    #[test]
    fn carries_cross_the_halves_and_wrap() {
        let mut one = [0; 32];
        one[31] = 1;
        let mut digest = Digest([0xff; 32]);
        digest.add(Digest(one));
        assert_eq!(digest, Digest::ZERO);
        digest.subtract(Digest(one));
        assert_eq!(digest, Digest([0xff; 32]));
        let mut low = [0; 32];
        low[16..].fill(0xff);
        let mut digest = Digest(low);
        digest.add(Digest(one));
        assert_eq!((digest.0[15], digest.0[16], digest.0[31]), (1, 0, 0));
    }

    proptest! {
        #[test]
        fn order_does_not_matter(mut members in digests(), turn: prop::sample::Index) {
            let sum: Digest = members.iter().copied().sum();
            if !members.is_empty() {
                let turn = turn.index(members.len());
                members.rotate_left(turn);
                members.swap(0, turn);
            }
            prop_assert_eq!(members.into_iter().sum::<Digest>(), sum);
        }

        #[test]
        fn adding_and_subtracting_is_nothing(start: [u8; 32], other: [u8; 32]) {
            let mut digest = Digest(start);
            digest.add(Digest(other));
            digest.subtract(Digest(other));
            prop_assert_eq!(digest, Digest(start));
        }

        #[test]
        fn updates_lead_to_the_digest_of_the_result_however_it_is_partitioned(
            writes in vec((0u8..8, prop::option::of(vec(any::<u8>(), 0..4))), 0..60),
            partitions in 1u8..5,
        ) {
            let mut state = std::collections::BTreeMap::<u8, Value>::new();
            let mut sums = vec![Digest::ZERO; usize::from(partitions)];
            for (name, new) in writes {
                let new = new.map(Value::from);
                let sum = &mut sums[usize::from(name % partitions)];
                let name_key = key(&[name]);
                let change = (&name_key, state.get(&name), new.as_ref());
                match name % 2 {
                    0 => sum.update(change.0, change.1, change.2),
                    _ => sum.update_all([change]),
                }
                match new {
                    Some(value) => state.insert(name, value),
                    None => state.remove(&name),
                };
            }
            let scanned: Digest =
                state.iter().map(|(name, value)| Digest::of(&key(&[*name]), value)).sum();
            prop_assert_eq!(sums.into_iter().sum::<Digest>(), scanned);
        }

        #[test]
        fn different_states_differ(
            a in btree_map(0u8..4, vec(any::<u8>(), 0..3), 0..4),
            b in btree_map(0u8..4, vec(any::<u8>(), 0..3), 0..4),
        ) {
            let digest = |state: &std::collections::BTreeMap<u8, Vec<u8>>| -> Digest {
                state.iter().map(|(name, value)| Digest::of(&key(&[*name]), value)).sum()
            };
            prop_assert_eq!(a == b, digest(&a) == digest(&b));
        }
    }
}
