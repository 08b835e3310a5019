//! Keys of the state, and the slot each one hashes to.

use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::Malformed;
use crate::limits::{KEY_BYTES_MAX, SLOTS};
use crate::short::ShortBytes;

/// What kind of thing a key names. Each runtime owns a range of namespaces.
///
/// The high bit says that keys of the namespace are *replicated*: they stand on every partition,
/// a read of one is local everywhere, and a write to one has every partition as participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub u16);

impl Namespace {
    const REPLICATED: u16 = 0x8000;

    /// A namespace whose keys live on one partition each.
    #[must_use]
    pub const fn partitioned(number: u16) -> Self {
        assert!(number & Self::REPLICATED == 0, "the high bit marks replicated namespaces");
        Self(number)
    }

    /// A namespace whose keys stand on every partition.
    #[must_use]
    pub const fn replicated(number: u16) -> Self {
        assert!(number & Self::REPLICATED == 0, "the high bit marks replicated namespaces");
        Self(number | Self::REPLICATED)
    }

    /// Whether keys of this namespace stand on every partition.
    #[must_use]
    pub const fn is_replicated(self) -> bool {
        self.0 & Self::REPLICATED != 0
    }
}

/// A slot: keys hash to slots, slots map to partitions. Below [`SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// A key of the state: a namespace and bytes, in their encoded form.
///
/// Layout: two bytes of namespace (big-endian), one byte of *affinity*, then the key's own bytes.
/// An affinity `n > 0` says that only the first `n` of those bytes choose the slot, in any
/// namespace: keys that share them share a placement. The order of keys is the order of these
/// bytes. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Key(ShortBytes);

const HEADER_BYTES: usize = 3;

impl Key {
    /// The key of `bytes` in `namespace`, placed by a hash of all of it.
    ///
    /// # Errors
    /// [`Malformed::KeyLength`] if it would exceed [`KEY_BYTES_MAX`].
    pub fn new(namespace: Namespace, bytes: &[u8]) -> Result<Self, Malformed> {
        Self::with_affinity(namespace, 0, &[bytes])
    }

    /// The key of the concatenated `parts`, placed by its first `affinity` bytes (by all of it,
    /// and its namespace, if `affinity` is zero).
    ///
    /// # Errors
    /// [`Malformed::KeyLength`] if it would exceed [`KEY_BYTES_MAX`], and
    /// [`Malformed::KeyAffinity`] if it has fewer than `affinity` bytes.
    pub fn with_affinity(
        namespace: Namespace,
        affinity: u8,
        parts: &[&[u8]],
    ) -> Result<Self, Malformed> {
        let length = HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        if length > KEY_BYTES_MAX {
            return Err(Malformed::KeyLength { bytes: length });
        }
        let [high, low] = namespace.0.to_be_bytes();
        let header = [high, low, affinity];
        let parts = std::iter::once(&header[..]).chain(parts.iter().copied());
        let key = Self(ShortBytes::concat(parts));
        key.check()?;
        Ok(key)
    }

    /// The key with this encoded form.
    ///
    /// # Errors
    /// [`Malformed::KeyLength`] or [`Malformed::KeyAffinity`] if the bytes are not a key.
    pub fn from_encoded(encoded: impl Into<ShortBytes>) -> Result<Self, Malformed> {
        let key = Self(encoded.into());
        key.check()?;
        Ok(key)
    }

    /// A key that was decoded as a part of something else; [`Key::check`] says whether it is one.
    pub(crate) fn unchecked(encoded: ShortBytes) -> Self {
        Self(encoded)
    }

    /// Checks the invariants of a key that was decoded as a part of something else.
    ///
    /// # Errors
    /// [`Malformed::KeyLength`] or [`Malformed::KeyAffinity`] if the bytes are not a key.
    pub fn check(&self) -> Result<(), Malformed> {
        let length = self.0.len();
        if !(HEADER_BYTES..=KEY_BYTES_MAX).contains(&length) {
            return Err(Malformed::KeyLength { bytes: length });
        }
        if HEADER_BYTES + usize::from(self.0[2]) > length {
            return Err(Malformed::KeyAffinity);
        }
        Ok(())
    }

    /// The encoded form, which is also the form in which the key is stored.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// The key's own bytes, without its header.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0[HEADER_BYTES..]
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    /// Whether the key stands on every partition.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.namespace().is_replicated()
    }

    /// The slot of the key: XXH3 (64 bits, seed 0) of its affinity bytes, or of all its encoded
    /// bytes if it has none, modulo [`SLOTS`]. Stable for ever: it decides where data lies.
    #[must_use]
    pub fn slot(&self) -> Slot {
        let affinity = usize::from(self.0[2]);
        let placed = match affinity {
            0 => &self.0[..],
            n => &self.0[HEADER_BYTES..HEADER_BYTES + n],
        };
        let slot = xxh3_64(placed) % u64::from(SLOTS);
        Slot(u16::try_from(slot).expect("a remainder of SLOTS, which is a u16"))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.check().is_err() {
            // Transactions are checked only at admission, and may be logged before.
            return write!(f, "not a key ({} bytes)", self.0.len());
        }
        write!(f, "{:04x}:", self.namespace().0)?;
        if self.bytes().iter().all(|byte| byte.is_ascii_graphic()) {
            return f.write_str(std::str::from_utf8(self.bytes()).unwrap_or("?"));
        }
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: Namespace = Namespace::partitioned(7);

    #[test]
    fn the_slot_of_a_key_never_changes() {
        // ORDER: these numbers decide where data lies on disk. A change of them loses data.
        assert_eq!(Key::new(NS, b"alice").unwrap().slot(), Slot(352));
        let shared = Key::with_affinity(NS, 2, &[b"w1", b"stock"]).unwrap();
        let other = Key::with_affinity(Namespace::partitioned(8), 2, &[b"w1", b"orders"]).unwrap();
        assert_eq!(shared.slot(), other.slot());
        assert_ne!(shared.slot(), Key::new(NS, b"w1stock").unwrap().slot());
    }

    #[test]
    fn keys_that_are_too_long_or_misplaced_are_refused() {
        assert!(matches!(
            Key::new(NS, &[0; KEY_BYTES_MAX]),
            Err(Malformed::KeyLength { bytes }) if bytes == KEY_BYTES_MAX + 3
        ));
        assert!(Key::new(NS, &[0; KEY_BYTES_MAX - 3]).is_ok());
        assert_eq!(Key::with_affinity(NS, 4, &[b"abc"]), Err(Malformed::KeyAffinity));
        assert!(Key::from_encoded(b"ab").is_err());
    }

    #[test]
    fn parts_come_back() {
        let key = Key::new(Namespace::replicated(3), b"code").unwrap();
        assert!(key.is_replicated());
        assert_eq!(key.namespace(), Namespace(0x8003));
        assert_eq!(key.bytes(), b"code");
        assert_eq!(Key::from_encoded(key.encoded()).unwrap(), key);
    }
}
