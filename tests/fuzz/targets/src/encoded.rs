//! What holds for everything that is encoded as a whole.

use parsec_protocol::{Malformed, Wire, codec};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

/// How much longer an archive may become by being decoded and encoded again, bytes. An archive
/// holds each of its parts once, so that only padding and text that was stored out of place
/// without need can differ; anything more would let few bytes take much memory.
const GROWTH_BYTES_MAX: usize = 16;

/// A type that is encoded as a whole.
pub(crate) trait Encoded: Wire + std::fmt::Debug + Sized {
    fn encoded(&self) -> Vec<u8>;
    fn decoded(bytes: &[u8]) -> Result<Self, Malformed>;
}

impl<T> Encoded for T
where
    T: Wire + std::fmt::Debug + rkyv::Archive,
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>>
        + rkyv::Deserialize<T, HighDeserializer<Error>>,
{
    fn encoded(&self) -> Vec<u8> {
        codec::encode(self)
    }

    fn decoded(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes)
    }
}

/// Decodes `bytes`, which may be anything.
///
/// What is accepted passes its own check, can be printed, is no larger than what it came from, and
/// its encoding decodes to the same value, which has the same encoding.
pub(crate) fn decode<T: Encoded>(bytes: &[u8]) -> Option<T> {
    let value = T::decoded(bytes).ok()?;
    assert_eq!(value.check(), Ok(()));
    let again = value.encoded();
    assert!(
        again.len() <= bytes.len() + GROWTH_BYTES_MAX,
        "{} bytes from {}: {value:?}",
        again.len(),
        bytes.len()
    );
    let same = T::decoded(&again).expect("what was encoded decodes");
    assert_eq!(same.encoded(), again);
    // Not `==`: a NaN is not itself.
    assert_eq!(format!("{same:?}"), format!("{value:?}"));
    Some(value)
}
