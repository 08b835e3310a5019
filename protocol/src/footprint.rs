//! Footprints: the keys a transaction may touch, and how.

use rkyv::{Archive, Deserialize, Serialize};

use crate::codec::Malformed;
use crate::key::Key;
use crate::limits::FOOTPRINT_KEYS_MAX;
use crate::packed::Packed;

/// Accesses up to which a key is found by looking at each of them: most are told apart at a glance, and
/// nothing has to be guessed on the way.
const SCANNED_MAX: usize = 16;

/// How a transaction may touch a key. The order is by strength: `Write` allows everything.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub enum Mode {
    /// It only ever adds to the value. Additions to one key do not conflict with one another.
    Add,
    /// It reads the value. Reads do not conflict with one another.
    Read,
    /// It may read, write, remove and add to the value.
    Write,
}

impl Mode {
    /// Whether two transactions that touch a key in these modes may run in either order.
    #[must_use]
    pub fn commutes_with(self, other: Self) -> bool {
        self == other && self != Self::Write
    }

    /// The weakest mode that allows what either allows.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self == other { self } else { Self::Write }
    }

    /// Whether a transaction in this mode needs the value to run.
    #[must_use]
    pub fn needs_value(self) -> bool {
        self != Self::Add
    }

    /// Whether a transaction in this mode may change the value.
    #[must_use]
    pub fn may_change(self) -> bool {
        self != Self::Read
    }
}

/// One key of a footprint.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Access {
    /// The key.
    pub key: Key,
    /// How it may be touched.
    pub mode: Mode,
}

/// The keys that a transaction may touch: a hint that execution verifies, never a promise.
///
/// **Invariant:** sorted by key, each key once, at most [`FOOTPRINT_KEYS_MAX`] of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Footprint {
    #[rkyv(with = Packed)]
    accesses: Vec<Access>,
}

impl Footprint {
    /// The footprint of these accesses; where a key occurs more than once, its modes unite.
    ///
    /// # Errors
    /// [`Malformed::FootprintLength`] if there are more than [`FOOTPRINT_KEYS_MAX`] keys.
    pub fn new(mut accesses: Vec<Access>) -> Result<Self, Malformed> {
        accesses.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        accesses.dedup_by(|later, kept| {
            let same = later.key == kept.key;
            if same {
                kept.mode = kept.mode.union(later.mode);
            }
            same
        });
        let footprint = Self { accesses };
        footprint.check()?;
        Ok(footprint)
    }

    /// Checks the invariants of a footprint that was decoded.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        if self.accesses.len() > FOOTPRINT_KEYS_MAX {
            return Err(Malformed::FootprintLength { keys: self.accesses.len() });
        }
        self.accesses.iter().try_for_each(|access| access.key.check())?;
        if self.accesses.windows(2).any(|pair| pair[0].key >= pair[1].key) {
            return Err(Malformed::FootprintOrder);
        }
        Ok(())
    }

    /// The accesses, sorted by key.
    #[must_use]
    pub fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// The accesses, sorted by key.
    #[must_use]
    pub fn into_accesses(self) -> Vec<Access> {
        self.accesses
    }

    /// The accesses with the index by which pushes name them.
    pub fn indexed(&self) -> impl Iterator<Item = (u16, &Access)> {
        // The zip cannot cut anything off: FOOTPRINT_KEYS_MAX fits a u16.
        (0..=u16::MAX).zip(&self.accesses)
    }

    /// The index of `key` among the accesses.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<usize> {
        if self.accesses.len() <= SCANNED_MAX {
            return self.accesses.iter().position(|access| access.key == *key);
        }
        self.accesses.binary_search_by(|access| access.key.cmp(key)).ok()
    }

    /// Whether `key` may be touched in `mode`.
    #[must_use]
    pub fn covers(&self, key: &Key, mode: Mode) -> bool {
        self.find(key).is_some_and(|index| {
            let allowed = self.accesses[index].mode;
            allowed == mode || allowed == Mode::Write
        })
    }

    /// Whether it allows to write what stands on every partition: contract code, sources.
    #[must_use]
    pub fn may_deploy(&self) -> bool {
        self.accesses.iter().any(|access| access.mode.may_change() && access.key.is_replicated())
    }

    /// The footprint that allows what either allows.
    ///
    /// # Errors
    /// [`Malformed::FootprintLength`] if there are more than [`FOOTPRINT_KEYS_MAX`] keys.
    pub fn union(&self, other: &Self) -> Result<Self, Malformed> {
        Self::new(self.accesses.iter().chain(&other.accesses).cloned().collect())
    }

    /// Roughly how many bytes it takes, for limits on memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.accesses.iter().map(|access| access.key.encoded().len() + 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Namespace;

    fn access(name: &str, mode: Mode) -> Access {
        Access { key: Key::new(Namespace::partitioned(1), name.as_bytes()).unwrap(), mode }
    }

    #[test]
    fn modes_of_one_key_unite() {
        use Mode::{Add, Read, Write};
        let footprint = Footprint::new(vec![
            access("b", Add),
            access("a", Read),
            access("b", Read),
            access("c", Add),
            access("c", Add),
        ])
        .unwrap();
        let modes: Vec<_> = footprint.accesses().iter().map(|access| access.mode).collect();
        assert_eq!(modes, [Read, Write, Add]);
        assert!(footprint.covers(&access("b", Add).key, Add));
        assert!(!footprint.covers(&access("c", Add).key, Read));
        assert!(!footprint.covers(&access("d", Add).key, Add));
    }

    #[test]
    fn keys_are_found_however_many_there_are() {
        for keys in [0, 1, SCANNED_MAX, SCANNED_MAX + 1, 3 * SCANNED_MAX] {
            let all =
                (0..keys).map(|n| access(&format!("{n:04} of a table"), Mode::Read)).collect();
            let footprint = Footprint::new(all).unwrap();
            for (index, access) in footprint.accesses().iter().enumerate() {
                assert_eq!(footprint.find(&access.key), Some(index));
            }
            assert_eq!(footprint.find(&access("9999 of a table", Mode::Read).key), None);
        }
    }

    #[test]
    fn a_decoded_footprint_out_of_order_is_refused() {
        let footprint =
            Footprint { accesses: vec![access("b", Mode::Read), access("a", Mode::Read)] };
        assert_eq!(footprint.check(), Err(Malformed::FootprintOrder));
    }

    #[test]
    fn too_many_keys_are_refused() {
        let keys = (0..=FOOTPRINT_KEYS_MAX).map(|n| access(&n.to_string(), Mode::Read)).collect();
        assert_eq!(
            Footprint::new(keys),
            Err(Malformed::FootprintLength { keys: FOOTPRINT_KEYS_MAX + 1 })
        );
    }
}
