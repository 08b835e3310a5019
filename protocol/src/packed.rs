//! Accesses on the wire and in the log: the keys of a transaction are sorted and begin alike, so each
//! tells only what differs from the one before it.
//!
//! An access is one byte of mode (its two low bits) and of how many bytes the key shares with the
//! beginning of the key before; one byte of how many bytes follow ([`LONG`]: two more bytes tell it,
//! little-endian); and these bytes. An access that has an index has it before that, two bytes,
//! little-endian. This is front coding, as in dictionaries (Witten, Moffat and Bell, *Managing
//! Gigabytes*).
//!
//! **What is decoded is at most ten times as large as its bytes**, whoever made them: no key shares
//! more than [`SHARED_MAX`] bytes, and each has at least [`SUFFIX_MIN`] of its own.

use std::fmt;

use rkyv::Place;
use rkyv::rancor::{Fallible, Source, fail};
use rkyv::ser::Writer;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};

use crate::footprint::{Access, Mode};
use crate::key::Key;
use crate::short::{INLINE_BYTES, ShortBytes};

/// Most bytes that a key shares with the one before: a contract's address, or all but the last of a
/// row's numbers, with room to spare.
const SHARED_MAX: usize = 29;
/// Fewest bytes that a key tells itself.
const SUFFIX_MIN: usize = 3;
/// Most bytes that it may tell: with what it shares, two bytes tell how many they are. There is no
/// such key, but that is for [`Key::check`] to say.
const SUFFIX_MAX: usize = u16::MAX as usize - SHARED_MAX;
/// The bits of the first byte that tell the mode; those above tell how much is shared.
const MODE_BITS: u8 = 0b11;
const SHARED_SHIFT: u32 = MODE_BITS.count_ones();
/// Instead of a length: two bytes follow that tell it.
const LONG: u8 = u8::MAX;

// What is in memory for a key that is too long to lie in its ShortBytes is about twice as much.
const _: () = assert!(INLINE_BYTES + 1 - SHARED_MAX > 2 * SUFFIX_MIN);

/// Why packed accesses are not what they should be.
#[derive(Debug)]
enum Unpackable {
    /// They end within an access.
    Cut,
    /// There is no such mode.
    Mode,
    /// A key shares more than it may, or than there is.
    Shared,
    /// A key has fewer bytes of its own than it must, or more than it may.
    Suffix,
}

impl fmt::Display for Unpackable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "packed accesses end within one",
            Self::Mode => "an access has a mode that there is not",
            Self::Shared => "a key shares more with the one before than it may",
            Self::Suffix => "a key has too few bytes of its own, or too many",
        })
    }
}

impl std::error::Error for Unpackable {}

fn mode_bits(mode: Mode) -> u8 {
    match mode {
        Mode::Add => 0,
        Mode::Read => 1,
        Mode::Write => 2,
    }
}

fn mode_of(bits: u8) -> Result<Mode, Unpackable> {
    match bits {
        0 => Ok(Mode::Add),
        1 => Ok(Mode::Read),
        2 => Ok(Mode::Write),
        _ => Err(Unpackable::Mode),
    }
}

/// Writes `access`, which comes after one to `previous`.
fn pack<S: Fallible + Writer + ?Sized>(
    access: &Access,
    previous: &[u8],
    to: &mut S,
) -> Result<(), S::Error> {
    let key = access.key.encoded();
    let limit = SHARED_MAX.min(key.len().saturating_sub(SUFFIX_MIN)).min(previous.len());
    let shared = alike(&key[..limit], &previous[..limit]);
    let suffix = &key[shared..];
    let shared = u8::try_from(shared).expect("at most SHARED_MAX");
    let head = mode_bits(access.mode) | shared << SHARED_SHIFT;
    match u8::try_from(suffix.len()) {
        Ok(length) if length != LONG => to.write(&[head, length])?,
        _ => {
            let length = u16::try_from(suffix.len()).expect("at most SUFFIX_MAX and SHARED_MAX");
            let [low, high] = length.to_le_bytes();
            to.write(&[head, LONG, low, high])?;
        }
    }
    to.write(suffix)
}

/// How many bytes at the beginning are the same; both have the same length.
fn alike(one: &[u8], other: &[u8]) -> usize {
    let ((words, _), (others, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    for (index, (word, other)) in words.iter().zip(others).enumerate() {
        let differs = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
        if differs != 0 {
            return index * 8 + (differs.trailing_zeros() / 8) as usize;
        }
    }
    let whole = words.len() * 8;
    whole + one[whole..].iter().zip(&other[whole..]).take_while(|(one, other)| one == other).count()
}

/// Takes an access' first byte, and how many bytes the key has of its own.
fn header(bytes: &mut &[u8]) -> Result<(u8, usize), Unpackable> {
    let [head, length] = *take(bytes)?;
    let length = match length {
        LONG => usize::from(u16::from_le_bytes(*take(bytes)?)),
        length => usize::from(length),
    };
    match length {
        SUFFIX_MIN..=SUFFIX_MAX => Ok((head, length)),
        _ => Err(Unpackable::Suffix),
    }
}

/// Takes what lies first in `bytes`, after an access to `previous`.
fn unpack(bytes: &mut &[u8], previous: Option<&Access>) -> Result<Access, Unpackable> {
    let (head, length) = header(bytes)?;
    let (suffix, rest) = bytes.split_at_checked(length).ok_or(Unpackable::Cut)?;
    *bytes = rest;
    let shared = usize::from(head >> SHARED_SHIFT);
    let previous = previous.map_or(&[][..], |access| access.key.encoded());
    let prefix = previous.get(..shared).filter(|_| shared <= SHARED_MAX);
    let prefix = prefix.ok_or(Unpackable::Shared)?;
    let key = Key::unchecked(ShortBytes::concat([prefix, suffix]));
    Ok(Access { key, mode: mode_of(head & MODE_BITS)? })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Unpackable> {
    let (first, rest) = bytes.split_first_chunk().ok_or(Unpackable::Cut)?;
    *bytes = rest;
    Ok(first)
}

/// What may be packed: an access, or one with its index in a whole footprint.
trait Item: Sized {
    /// Bytes of the index.
    const INDEX_BYTES: usize;

    fn access(&self) -> &Access;
    fn pack_index<S: Fallible + Writer + ?Sized>(&self, to: &mut S) -> Result<(), S::Error>;
    fn unpack(bytes: &mut &[u8], previous: Option<&Access>) -> Result<Self, Unpackable>;
}

impl Item for Access {
    const INDEX_BYTES: usize = 0;

    fn access(&self) -> &Access {
        self
    }

    fn pack_index<S: Fallible + Writer + ?Sized>(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }

    fn unpack(bytes: &mut &[u8], previous: Option<&Access>) -> Result<Self, Unpackable> {
        unpack(bytes, previous)
    }
}

impl Item for (u16, Access) {
    const INDEX_BYTES: usize = size_of::<u16>();

    fn access(&self) -> &Access {
        &self.1
    }

    fn pack_index<S: Fallible + Writer + ?Sized>(&self, to: &mut S) -> Result<(), S::Error> {
        to.write(&self.0.to_le_bytes())
    }

    fn unpack(bytes: &mut &[u8], previous: Option<&Access>) -> Result<Self, Unpackable> {
        let index = u16::from_le_bytes(*take(bytes)?);
        Ok((index, unpack(bytes, previous)?))
    }
}

fn unpack_all<T: Item>(mut bytes: &[u8]) -> Result<Vec<T>, Unpackable> {
    let mut items: Vec<T> = Vec::with_capacity(count::<T>(bytes));
    while !bytes.is_empty() {
        let item = T::unpack(&mut bytes, items.last().map(Item::access))?;
        items.push(item);
    }
    Ok(items)
}

/// How many whole items there are, as far as they are as they should be.
fn count<T: Item>(mut bytes: &[u8]) -> usize {
    let mut skip = || {
        bytes = bytes.get(T::INDEX_BYTES..)?;
        let (_, length) = header(&mut bytes).ok()?;
        bytes = bytes.get(length..)?;
        Some(())
    };
    std::iter::from_fn(&mut skip).count()
}

/// A field of accesses that is packed. Neither keys nor their order are checked when it is decoded:
/// its owner does so.
pub(crate) struct Packed;

/// Where a packed field is, and how many bytes it has.
pub(crate) struct PackedResolver {
    length: usize,
    bytes: VecResolver,
}

impl<T> ArchiveWith<Vec<T>> for Packed {
    type Archived = ArchivedVec<u8>;
    type Resolver = PackedResolver;

    fn resolve_with(_: &Vec<T>, resolver: PackedResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_len(resolver.length, resolver.bytes, out);
    }
}

impl<T: Item, S: Fallible + Writer + ?Sized> SerializeWith<Vec<T>, S> for Packed {
    fn serialize_with(field: &Vec<T>, serializer: &mut S) -> Result<PackedResolver, S::Error> {
        let start = serializer.pos();
        let mut previous = &[][..];
        for item in field {
            item.pack_index(serializer)?;
            pack(item.access(), previous, serializer)?;
            previous = item.access().key.encoded();
        }
        let length = serializer.pos() - start;
        Ok(PackedResolver { length, bytes: VecResolver::from_pos(start) })
    }
}

impl<T: Item, D: Fallible<Error: Source> + ?Sized> DeserializeWith<ArchivedVec<u8>, Vec<T>, D>
    for Packed
{
    fn deserialize_with(field: &ArchivedVec<u8>, _: &mut D) -> Result<Vec<T>, D::Error> {
        match unpack_all(field) {
            Ok(items) => Ok(items),
            Err(error) => fail!(error),
        }
    }
}

#[cfg(test)]
mod tests;
