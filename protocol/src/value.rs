//! Values of keys, and the changes that transactions make to them.

use rkyv::{Archive, Deserialize, Serialize};

use crate::short::ShortBytes;

/// The value of a key. Cloning is cheap.
pub type Value = ShortBytes;

/// What an addition adds: a 256-bit number, big-endian, modulo 2^256 (so that a negative amount
/// is its two's complement).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Delta(pub [u8; 32]);

impl Delta {
    /// The addition of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// Both additions as one.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(add_modular(&self.0, &other.0))
    }

    /// The value after this addition.
    ///
    /// An addition is to the number in the first 32 bytes of a value, big-endian; the bytes after
    /// them stay. An absent value counts as zero, a shorter one as if zero bytes followed it.
    /// Adding [`Delta::ZERO`] to an absent value leaves it absent.
    #[must_use]
    pub fn apply(self, value: Option<&Value>) -> Option<Value> {
        if self == Self::ZERO {
            return value.cloned();
        }
        let old = value.map_or(&[][..], |value| &value[..]);
        let mut number = [0; 32];
        let head = old.len().min(32);
        number[..head].copy_from_slice(&old[..head]);
        let mut new = add_modular(&number, &self.0).to_vec();
        new.extend_from_slice(old.get(32..).unwrap_or(&[]));
        Some(new.into())
    }
}

impl From<i128> for Delta {
    fn from(amount: i128) -> Self {
        let mut bytes = [if amount < 0 { 0xff } else { 0 }; 32];
        bytes[16..].copy_from_slice(&amount.to_be_bytes());
        Self(bytes)
    }
}

/// `a + b` modulo 2^256, all big-endian.
fn add_modular(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut sum = [0; 32];
    let mut carry = false;
    for half in [16..32, 0..16] {
        let number = |bytes: &[u8; 32]| {
            let mut be = [0; 16];
            be.copy_from_slice(&bytes[half.clone()]);
            u128::from_be_bytes(be)
        };
        let (partial, first) = number(a).overflowing_add(number(b));
        let (total, second) = partial.overflowing_add(u128::from(carry));
        carry = first || second;
        sum[half].copy_from_slice(&total.to_be_bytes());
    }
    sum
}

/// What a transaction did to one key of its footprint.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It set the value.
    Put(Value),
    /// It removed the value.
    Delete,
    /// It added to the number that the value begins with.
    Add(Delta),
}

impl Change {
    /// The value after this change.
    #[must_use]
    pub fn apply(&self, value: Option<&Value>) -> Option<Value> {
        match self {
            Self::Keep => value.cloned(),
            Self::Put(new) => Some(new.clone()),
            Self::Delete => None,
            Self::Add(delta) => delta.apply(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_addition_carries_and_keeps_the_tail() {
        let mut value = vec![0; 40];
        value[16..32].fill(0xff);
        value[39] = 9;
        let sum = Delta::from(1).apply(Some(&value.into())).unwrap();
        assert_eq!(sum[15], 1);
        assert!(sum[16..32].iter().all(|byte| *byte == 0));
        assert_eq!((sum.len(), sum[39]), (40, 9));
    }

    #[test]
    fn an_addition_of_zero_creates_nothing() {
        assert_eq!(Delta::ZERO.apply(None), None);
        assert_eq!(Delta::from(0), Delta::ZERO);
        assert_eq!(Delta::from(5).apply(None).unwrap()[31], 5);
    }

    proptest! {
        #[test]
        fn additions_commute_and_combine(a: i128, b: i128, start: Option<i128>) {
            let start = start.map(|n| Value::copy_from_slice(&Delta::from(n).0));
            let (a, b) = (Delta::from(a), Delta::from(b));
            let ab = b.apply(a.apply(start.as_ref()).as_ref());
            prop_assert_eq!(&ab, &a.apply(b.apply(start.as_ref()).as_ref()));
            if a.plus(b) != Delta::ZERO {
                prop_assert_eq!(ab, a.plus(b).apply(start.as_ref()));
            }
        }

        #[test]
        fn small_sums_are_right(
            a in -1_000_000_000i128..1_000_000_000,
            b in -1_000_000_000i128..1_000_000_000,
        ) {
            prop_assert_eq!(Delta::from(a).plus(Delta::from(b)), Delta::from(a + b));
        }
    }
}
