//! Bytes that are mostly few: what keys and values are made of.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use rkyv::rancor::Fallible;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Deserialize, Place, Serialize};

/// Up to so many bytes lie in the [`ShortBytes`] itself: an account's key, or a number, with room to
/// spare, in five words.
pub const INLINE_BYTES: usize = 38;

/// Immutable bytes. Up to [`INLINE_BYTES`] lie in the value itself; if there are more, clones share
/// them.
///
/// Keys and values are decoded, copied and dropped on each step of a transaction's way. Most are so
/// short that copying them costs less than an allocation, or counting who shares one.
#[derive(Clone)]
pub struct ShortBytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; INLINE_BYTES] },
    Shared(Arc<[u8]>),
}

impl ShortBytes {
    /// No bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Inline { length: 0, bytes: [0; INLINE_BYTES] })
    }

    /// These bytes.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::inline([bytes]).unwrap_or_else(|| Self(Repr::Shared(bytes.into())))
    }

    /// The bytes of all parts, one after the other.
    #[must_use]
    pub fn concat<'a>(parts: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Self {
        let parts = parts.into_iter();
        Self::inline(parts.clone()).unwrap_or_else(|| Self(Repr::Shared(shared(parts))))
    }

    /// These bytes.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::copy_from_slice(bytes)
    }

    fn inline<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES];
        let mut length = 0;
        for part in parts {
            let end = length + part.len();
            bytes.get_mut(length..end)?.copy_from_slice(part);
            length = end;
        }
        Some(Self(Repr::Inline { length: u8::try_from(length).ok()?, bytes }))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            // The length is never greater, so that nothing is cut off.
            Repr::Inline { length, bytes } => &bytes[..usize::from(*length).min(INLINE_BYTES)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// The parts, one after the other, with one allocation.
fn shared<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Arc<[u8]> {
    let length = parts.clone().map(<[u8]>::len).sum();
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    let mut rest = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
    for part in parts {
        let (first, others) = rest.split_at_mut(part.len());
        first.copy_from_slice(part);
        rest = others;
    }
    bytes
}

impl Default for ShortBytes {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for ShortBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for ShortBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for ShortBytes {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl From<&str> for ShortBytes {
    fn from(text: &str) -> Self {
        Self::copy_from_slice(text.as_bytes())
    }
}

impl From<String> for ShortBytes {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for ShortBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copy_from_slice(&bytes)
    }
}

impl From<Bytes> for ShortBytes {
    fn from(bytes: Bytes) -> Self {
        Self::copy_from_slice(&bytes)
    }
}

/// Without copying them, if they are shared.
impl From<ShortBytes> for Bytes {
    fn from(bytes: ShortBytes) -> Self {
        match bytes.0 {
            Repr::Inline { .. } => Self::copy_from_slice(&bytes),
            Repr::Shared(bytes) => Self::from_owner(bytes),
        }
    }
}

impl FromIterator<u8> for ShortBytes {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Vec::from_iter(bytes).into()
    }
}

impl PartialEq for ShortBytes {
    /// Keys of one table begin alike, so the last bytes are looked at first.
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.as_slice(), other.as_slice());
        one.len() == other.len() && one.last_chunk::<8>() == other.last_chunk() && one == other
    }
}

impl Eq for ShortBytes {}

impl PartialEq<[u8]> for ShortBytes {
    fn eq(&self, other: &[u8]) -> bool {
        self[..] == *other
    }
}

impl PartialEq<Bytes> for ShortBytes {
    fn eq(&self, other: &Bytes) -> bool {
        self[..] == other[..]
    }
}

impl PartialEq<&[u8]> for ShortBytes {
    fn eq(&self, other: &&[u8]) -> bool {
        self[..] == **other
    }
}

impl PartialEq<&str> for ShortBytes {
    fn eq(&self, other: &&str) -> bool {
        self[..] == *other.as_bytes()
    }
}

impl<const N: usize> PartialEq<[u8; N]> for ShortBytes {
    fn eq(&self, other: &[u8; N]) -> bool {
        self[..] == other[..]
    }
}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for ShortBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl std::fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

// The archive is that of a vector of bytes.
impl Archive for ShortBytes {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_slice(self, resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for ShortBytes {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(self, serializer)
    }
}

impl<D: Fallible + ?Sized> Deserialize<ShortBytes, D> for ArchivedVec<u8> {
    fn deserialize(&self, _: &mut D) -> Result<ShortBytes, D::Error> {
        Ok(ShortBytes::copy_from_slice(self))
    }
}

/// A field of [`Bytes`] that is decoded with one allocation of just its size; rkyv's own way takes up
/// to three.
pub(crate) struct Exact;

impl ArchiveWith<Bytes> for Exact {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve_with(field: &Bytes, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_slice(field, resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> SerializeWith<Bytes, S> for Exact {
    fn serialize_with(field: &Bytes, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(field, serializer)
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedVec<u8>, Bytes, D> for Exact {
    fn deserialize_with(field: &ArchivedVec<u8>, _: &mut D) -> Result<Bytes, D::Error> {
        Ok(Bytes::copy_from_slice(field))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_takes_five_words_with_or_without_an_option() {
        assert_eq!(size_of::<ShortBytes>(), 40);
        assert_eq!(size_of::<Option<ShortBytes>>(), 40);
    }

    #[test]
    fn what_ends_alike_may_begin_differently() {
        for length in [8, INLINE_BYTES, 2 * INLINE_BYTES] {
            let bytes = vec![7; length];
            let mut other = bytes.clone();
            assert_eq!(ShortBytes::from(bytes.clone()), ShortBytes::from(other.clone()));
            other[0] = 8;
            assert_ne!(ShortBytes::from(bytes.clone()), ShortBytes::from(other));
            assert_ne!(ShortBytes::from(bytes.clone()), ShortBytes::from(bytes[1..].to_vec()));
        }
    }

    #[test]
    fn clones_share_what_is_long() {
        let long = ShortBytes::from(vec![7; INLINE_BYTES + 1]);
        assert_eq!(long.as_ptr(), long.clone().as_ptr());
        assert_eq!(Bytes::from(long.clone()).as_ptr(), long.as_ptr());
        assert_ne!(ShortBytes::copy_from_slice(&long).as_ptr(), long.as_ptr(), "it is a copy");
        let short = ShortBytes::from(vec![7; INLINE_BYTES]);
        assert_ne!(short.as_ptr(), short.clone().as_ptr());
    }

    proptest! {
        #[test]
        fn it_is_the_bytes(
            parts in vec(vec(any::<u8>(), 0..30), 0..4),
            other in vec(any::<u8>(), 0..60),
        ) {
            let joined = parts.concat();
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let [bytes, other_bytes] = [&joined, &other].map(|it| ShortBytes::copy_from_slice(it));
            prop_assert_eq!(&ShortBytes::concat(slices), &bytes);
            prop_assert_eq!(&bytes[..], &joined[..]);
            prop_assert_eq!(&Bytes::from(bytes.clone())[..], &joined[..]);
            prop_assert_eq!(bytes.cmp(&other_bytes), joined.cmp(&other));
            prop_assert_eq!(bytes == other_bytes, joined == other);
            let hash = |of: &dyn Fn(&mut std::hash::DefaultHasher)| {
                let mut hasher = std::hash::DefaultHasher::new();
                of(&mut hasher);
                hasher.finish()
            };
            prop_assert_eq!(hash(&|h| bytes.hash(h)), hash(&|h| joined[..].hash(h)));
            let encoded = rkyv::to_bytes::<rkyv::rancor::Error>(&bytes).unwrap();
            let expected = rkyv::to_bytes::<rkyv::rancor::Error>(&joined).unwrap();
            prop_assert_eq!(&encoded[..], &expected[..]);
            let decoded = rkyv::from_bytes::<ShortBytes, rkyv::rancor::Error>(&encoded).unwrap();
            prop_assert_eq!(decoded, bytes);
        }
    }
}
