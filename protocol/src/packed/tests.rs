use proptest::collection::vec;
use proptest::prelude::*;
use rkyv::rancor::Error;
use rkyv::{Archive, Deserialize, Serialize};

use super::*;
use crate::limits::KEY_BYTES_MAX;

#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
struct Both {
    #[rkyv(with = Packed)]
    plain: Vec<Access>,
    #[rkyv(with = Packed)]
    indexed: Vec<(u16, Access)>,
}

fn access(key: &[u8], mode: Mode) -> Access {
    Access { key: Key::unchecked(key.into()), mode }
}

/// Keys that begin alike, or don't, in any order, of all lengths that matter.
fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let length = prop_oneof![3..60usize, 250..262usize, Just(KEY_BYTES_MAX)];
    let key = (0..3u8, length, vec(any::<u8>(), 0..6)).prop_map(|(fill, length, last)| {
        let mut key = vec![fill; length];
        let start = length - last.len().min(length);
        key.truncate(start);
        key.extend(last.iter().take(length - start));
        key
    });
    let mode = prop_oneof![Just(Mode::Add), Just(Mode::Read), Just(Mode::Write)];
    vec((key, mode).prop_map(|(key, mode)| access(&key, mode)), 0..8)
}

/// [`SHARED_MAX`].
const SHARED: u8 = 29;
const _: () = assert!(SHARED as usize == SHARED_MAX);

/// What accesses take in memory: themselves, and what does not lie in them.
fn in_memory(accesses: &[Access]) -> usize {
    let beyond = |access: &Access| match access.key.encoded().len() {
        0..=INLINE_BYTES => 0,
        // Two counters, and the bytes, in words.
        bytes => 16 + bytes.next_multiple_of(8),
    };
    accesses.iter().map(|access| size_of::<Access>() + beyond(access)).sum()
}

fn pack_all(accesses: &[Access]) -> Vec<u8> {
    let both = Both { plain: accesses.to_vec(), indexed: Vec::new() };
    let encoded = rkyv::to_bytes::<Error>(&both).unwrap();
    rkyv::access::<ArchivedBoth, Error>(&encoded).unwrap().plain.to_vec()
}

#[test]
fn a_key_tells_what_differs_from_the_one_before() {
    let row = |row: &[u8]| [b"\x00\x01\x00a table's rows:", row].concat();
    let [one, two, short] = [row(b"0001"), row(b"0002"), b"\x00\x02\x00x".to_vec()];
    let all = [(&one, Mode::Read), (&two, Mode::Write), (&short, Mode::Add)];
    let packed = pack_all(&all.map(|(key, mode)| access(key, mode)));
    let expected = [
        &[0b1, 22][..],
        &one,
        // It keeps three bytes, although only the last differs.
        &[19 << 2 | 0b10, 3],
        b"002",
        // And would share its first byte, if more than three were left then.
        &[1 << 2, 3],
        b"\x02\x00x",
    ];
    assert_eq!(packed, expected.concat());
}

#[test]
fn what_is_no_packing_is_refused() {
    let unpack = unpack_all::<Access>;
    let refused = |bytes: &[u8]| unpack(bytes).unwrap_err().to_string();
    assert_eq!(unpack(&[]).unwrap(), []);
    assert_eq!(unpack(&[0, 3, 1, 2, 3]).unwrap(), [access(&[1, 2, 3], Mode::Add)]);
    for cut in [&[0][..], &[0, 3], &[0, 3, 1, 2], &[0, LONG], &[0, LONG, 4], &[0, LONG, 4, 0]] {
        assert_eq!(refused(cut), Unpackable::Cut.to_string(), "{cut:?}");
    }
    assert_eq!(refused(&[3, 3, 1, 2, 3]), Unpackable::Mode.to_string());
    assert_eq!(refused(&[1 << 2, 3, 1, 2, 3]), Unpackable::Shared.to_string(), "there is none");
    let first = [&[0, 40][..], &[7; 40]].concat();
    let shared = |bytes: u8| [&first[..], &[bytes << 2, 3, 1, 2, 3]].concat();
    assert_eq!(unpack(&shared(29)).unwrap()[1].key.encoded().len(), 32);
    assert_eq!(refused(&shared(30)), Unpackable::Shared.to_string(), "it is too much");
    assert_eq!(refused(&[0, 2, 1, 2]), Unpackable::Suffix.to_string());
    let long = |bytes: u16| [&[0, LONG][..], &bytes.to_le_bytes(), &vec![7; bytes.into()]].concat();
    assert_eq!(refused(&long(u16::MAX - 28)), Unpackable::Suffix.to_string());
    // One that no key is as long as, but can be packed again, also if it shares nothing then.
    let [longest] = &unpack(&long(u16::MAX - 29)).unwrap()[..] else { panic!("there is one") };
    assert_eq!(
        unpack(&pack_all(&[access(&[8; 3], Mode::Add), longest.clone()])).unwrap()[1],
        *longest
    );
    assert_eq!(count::<Access>(&[0; 1_000]), 0, "no room is made for what will be refused");
    let indexed = unpack_all::<(u16, Access)>;
    assert_eq!(indexed(&[2, 1, 1, 3, 9, 9, 9]).unwrap(), [(258, access(&[9; 3], Mode::Read))]);
    assert_eq!(indexed(&[2]).unwrap_err().to_string(), Unpackable::Cut.to_string());
}

#[test]
fn the_error_reaches_whoever_decodes() {
    #[derive(Archive, Serialize)]
    struct Raw {
        plain: Vec<u8>,
        indexed: Vec<u8>,
    }
    let raw = Raw { plain: vec![0, 2, 1, 2], indexed: Vec::new() };
    let encoded = rkyv::to_bytes::<Error>(&raw).unwrap();
    // What it says is lost where rancor keeps no reasons: in builds without debug assertions.
    assert!(rkyv::from_bytes::<Both, Error>(&encoded).is_err());
}

proptest! {
    #[test]
    fn what_is_packed_comes_back(plain in accesses(), index in any::<u16>()) {
        let indexed = plain.iter().map(|access| (index, access.clone())).collect();
        let both = Both { plain, indexed };
        let encoded = rkyv::to_bytes::<Error>(&both).unwrap();
        prop_assert_eq!(rkyv::from_bytes::<Both, Error>(&encoded).unwrap(), both);
    }

    /// Bytes that are likely to be accesses, and any at all.
    #[test]
    fn what_is_unpacked_is_at_most_ten_times_as_large(
        pieces in vec((0..=SHARED, 0..3u8, 0..14u8, any::<u8>()), 0..40),
        bytes in vec(any::<u8>(), 0..60),
    ) {
        let mut likely = vec![0, 30];
        likely.extend([5; 30]);
        for (shared, mode, length, fill) in pieces {
            likely.extend([shared << SHARED_SHIFT | mode, length]);
            likely.extend(vec![fill; length.into()]);
        }
        for bytes in [likely, bytes] {
            let Ok(accesses) = unpack_all::<Access>(&bytes) else { continue };
            prop_assert!(in_memory(&accesses) <= 10 * bytes.len());
            // However it was packed, it is packed anew in no more bytes.
            let again = pack_all(&accesses);
            prop_assert!(again.len() <= bytes.len());
            prop_assert_eq!(unpack_all::<Access>(&again).unwrap(), accesses);
        }
    }

    #[test]
    fn what_is_alike_is_found(one in vec(0..2u8, 0..40), other in vec(0..2u8, 0..40)) {
        let both = one.len().min(other.len());
        let (one, other) = (&one[..both], &other[..both]);
        let expected = one.iter().zip(other).take_while(|(one, other)| one == other).count();
        prop_assert_eq!(alike(one, other), expected);
    }
}
