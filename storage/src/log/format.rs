//! The bytes of a log: segment headers, records, and the chain through them. Pure; `FORMAT.md`
//! is the specification.

use std::ops::Range;

use parsec_protocol::plant::{self, Bug};

use crate::limits::RECORD_BODY_BYTES_MAX;

/// Length of a segment's header, bytes.
pub(super) const SEGMENT_HEADER_BYTES: usize = 136;
/// Length of a record's header, bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 40;
/// Length of a chain value, bytes.
const CHAIN_BYTES: usize = 32;
/// What a record takes besides its body, bytes.
pub(super) const RECORD_FRAME_BYTES: usize = RECORD_HEADER_BYTES + CHAIN_BYTES;
/// The number of the last record there can be: whoever is behind it stands at a number, too.
pub(super) const RECORD_NUMBER_MAX: u64 = u64::MAX - 1;
/// Version of the format.
pub(super) const FORMAT_VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"PARSECLG";
const RECORD_MAGIC: [u8; 4] = *b"PREC";
const CHECKED_BYTES: usize = RECORD_HEADER_BYTES - 8;

/// The hash of everything in the log up to some record.
pub(super) type Chain = [u8; CHAIN_BYTES];

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An encoded batch.
    Batch,
    /// An encoded epoch record.
    Epoch,
    /// An encoded summary of the log before the segment.
    Summary,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Batch => 1,
            Self::Epoch => 2,
            Self::Summary => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Batch, Self::Epoch, Self::Summary].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// The first bytes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) cluster: [u8; 32],
    /// The number of the segment's first record.
    pub(super) first_record: u64,
    /// The chain before it.
    pub(super) chain: Chain,
    /// Random bytes that key the checks of record headers, so that nobody can put bytes into a
    /// transaction's payload that pass for a record.
    pub(super) salt: [u8; 16],
}

/// Why bytes are not a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    NotALog,
    Version(u32),
    Damaged,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.cluster);
        bytes.extend_from_slice(&self.first_record.to_le_bytes());
        bytes.extend_from_slice(&self.chain);
        bytes.extend_from_slice(&self.salt);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if !bytes.starts_with(&SEGMENT_MAGIC) {
            return Err(HeaderFault::NotALog);
        }
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(HeaderFault::Damaged)?;
        let (body, check) = bytes.split_at(SEGMENT_HEADER_BYTES - 32);
        if check != blake3::hash(body).as_bytes() {
            return Err(HeaderFault::Damaged);
        }
        let version = u32::from_le_bytes(array(body, 8));
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let first_record = u64::from_le_bytes(array(body, 48));
        // Records are numbered from 1.
        if first_record == 0 {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            cluster: array(body, 16),
            first_record,
            chain: array(body, 56),
            salt: array(body, 88),
        })
    }
}

/// The `N` bytes at `at`, which are known to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// The first bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: Kind,
    /// Length of the body, bytes.
    pub(super) length: usize,
    /// Records are numbered from 1, without gaps, through all segments.
    pub(super) number: u64,
    /// All records up to this number were durable when this one was written.
    pub(super) synced_through: u64,
}

impl RecordHeader {
    /// How many bytes the whole record takes.
    pub(super) fn record_bytes(&self) -> usize {
        RECORD_FRAME_BYTES + self.length
    }

    fn encode(&self, length: u32, key: &HeaderKey) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4] = self.kind.byte();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_through.to_le_bytes());
        let check = key.check(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        bytes
    }

    /// Decodes a header; `None` if it is incomplete or its check is wrong.
    pub(super) fn decode(bytes: &[u8], key: &HeaderKey) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if !bytes.starts_with(&RECORD_MAGIC)
            || bytes[CHECKED_BYTES..] != key.check(&bytes[..CHECKED_BYTES])
        {
            return None;
        }
        let length = usize::try_from(u32::from_le_bytes(array(bytes, 8))).ok()?;
        let number = u64::from_le_bytes(array(bytes, 16));
        if length > RECORD_BODY_BYTES_MAX || number > RECORD_NUMBER_MAX {
            return None;
        }
        Some(Self {
            kind: Kind::from_byte(bytes[4])?,
            length,
            number,
            synced_through: u64::from_le_bytes(array(bytes, 24)),
        })
    }
}

/// Keys the checks of record headers of one segment.
#[derive(Debug, Clone)]
pub(super) struct HeaderKey([u8; 32]);

impl HeaderKey {
    fn new(salt: &[u8; 16]) -> Self {
        Self(blake3::derive_key("parsec 2026 log record header", salt))
    }

    fn check(&self, header: &[u8]) -> [u8; 8] {
        array(blake3::keyed_hash(&self.0, header).as_bytes(), 0)
    }
}

/// A place between two records: what is needed to read or write the next one.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    key: HeaderKey,
    chain: Chain,
    /// The number of the next record.
    number: u64,
}

impl Cursor {
    /// Before the first record of a segment.
    pub(super) fn new(segment: &SegmentHeader) -> Self {
        Self {
            key: HeaderKey::new(&segment.salt),
            chain: segment.chain,
            number: segment.first_record,
        }
    }

    /// Before a record inside of a segment: `before` are the bytes in front of it, which end with
    /// the chain value of the record before it; `at` is its own header.
    pub(super) fn inside(segment: &SegmentHeader, before: &[u8], at: &[u8]) -> Option<Self> {
        let key = HeaderKey::new(&segment.salt);
        let chain = *before.last_chunk()?;
        let number = RecordHeader::decode(at, &key)?.number;
        Some(Self { key, chain, number })
    }

    /// The number of the next record.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The hash of everything so far.
    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    pub(super) fn header(&self, bytes: &[u8]) -> Option<RecordHeader> {
        RecordHeader::decode(bytes, &self.key).filter(|header| header.number == self.number)
    }

    /// Appends the next record to `out`.
    ///
    /// The body must not exceed [`RECORD_BODY_BYTES_MAX`].
    pub(super) fn write(&mut self, kind: Kind, body: &[u8], synced: u64, out: &mut Vec<u8>) {
        assert!(body.len() <= RECORD_BODY_BYTES_MAX, "bodies are measured before they get here");
        let length = u32::try_from(body.len()).expect("RECORD_BODY_BYTES_MAX is a u32");
        let header =
            RecordHeader { kind, length: body.len(), number: self.number, synced_through: synced };
        let header = header.encode(length, &self.key);
        self.advance(&header, body);
        out.extend_from_slice(&header);
        out.extend_from_slice(body);
        out.extend_from_slice(&self.chain);
    }

    /// Reads the next record from the start of `bytes`, and moves behind it.
    ///
    /// `None` if it is not whole: cut off, damaged, or not this record at all.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Option<(RecordHeader, &'a [u8])> {
        let header = self.header(bytes)?;
        let body = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + header.length)?;
        let chain = bytes.get(RECORD_HEADER_BYTES + header.length..header.record_bytes())?;
        let mut next = self.clone();
        next.advance(&bytes[..RECORD_HEADER_BYTES], body);
        if next.chain != chain && !plant::is(Bug::TornEndTakenAsWhole) {
            return None;
        }
        *self = next;
        Some((header, body))
    }

    fn advance(&mut self, header: &[u8], body: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain).update(header).update(body);
        self.chain = hasher.finalize().into();
        self.number += 1;
    }

    /// Looks for proof that the record which should stand at the start of `bytes` was durable
    /// once: a later record's header that says so. Returns where.
    ///
    /// Without such proof, what is there may be the torn end of a write that nobody was promised.
    pub(super) fn proof_of_damage(&self, bytes: &[u8]) -> Option<usize> {
        let starts = (0..bytes.len().saturating_sub(RECORD_HEADER_BYTES - 1))
            .filter(|at| bytes[*at] == RECORD_MAGIC[0] && bytes[*at..].starts_with(&RECORD_MAGIC));
        let mut headers = starts.filter_map(|at| {
            RecordHeader::decode(&bytes[at..], &self.key).map(|header| (at, header))
        });
        headers
            .find(|(_, header)| header.number > self.number && header.synced_through >= self.number)
            .map(|(at, _)| at)
    }
}

/// One record of a scanned segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) kind: Kind,
    /// Where the record begins.
    pub(super) offset: usize,
    /// Where its body lies.
    pub(super) body: Range<usize>,
}

/// A segment that was read to its end.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) records: Vec<Scanned>,
    /// Behind the last whole record.
    pub(super) cursor: Cursor,
    /// Where that is; what follows is torn.
    pub(super) end: usize,
    /// All records up to this number were durable, as the last record says.
    pub(super) synced_through: u64,
}

/// A record that is damaged although it was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) record: u64,
    /// Where the later record stands that proves it.
    pub(super) proof: usize,
}

/// Reads the records of a segment, all of whose bytes are given, up to its torn end if it has one.
pub(super) fn scan(header: &SegmentHeader, bytes: &[u8]) -> Result<Scan, Damage> {
    let mut cursor = Cursor::new(header);
    let mut records = Vec::new();
    let mut end = SEGMENT_HEADER_BYTES;
    let mut synced_through = 0;
    while let Some((record, _)) = cursor.read(&bytes[end..]) {
        let start = end + RECORD_HEADER_BYTES;
        let body = start..start + record.length;
        records.push(Scanned { kind: record.kind, offset: end, body });
        end += record.record_bytes();
        synced_through = record.synced_through;
    }
    match cursor.proof_of_damage(&bytes[end..]) {
        Some(at) => Err(Damage { offset: end, record: cursor.number(), proof: end + at }),
        None => Ok(Scan { records, cursor, end, synced_through }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader { cluster: [1; 32], first_record: 5, chain: [2; 32], salt: [3; 16] }
    }

    /// A segment of records with these bodies; record `synced` and those before it were synced
    /// before the next one was written. Returns where each record ends, the header first.
    fn segment(bodies: &[Vec<u8>], synced: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header().encode();
        let mut cursor = Cursor::new(&header());
        let mut ends = vec![bytes.len()];
        for (index, body) in bodies.iter().enumerate() {
            let through = if index < synced { 4 } else { 4 + synced as u64 };
            cursor.write(Kind::Batch, body, through, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn the_format_never_changes() {
        let (bytes, _) = segment(&[b"one".to_vec(), b"two".to_vec()], 1);
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES + 2 * (RECORD_FRAME_BYTES + 3));
        assert_eq!(&bytes[..12], b"PARSECLG\x02\0\0\0");
        assert_eq!(&bytes[SEGMENT_HEADER_BYTES..][..12], b"PREC\x01\0\0\0\x03\0\0\0");
        let hash = blake3::hash(&bytes).to_hex();
        assert_eq!(
            hash.as_str(),
            "81d2f3da7d0ccf95fb51e796f942fa7f5793d0648a61dab57671b084f9f2147f"
        );
    }

    #[test]
    fn every_damage_to_a_segment_header_is_noticed() {
        let good = header().encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 { HeaderFault::NotALog } else { HeaderFault::Damaged };
            assert_eq!(SegmentHeader::decode(&bad), Err(expected), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(SegmentHeader::decode(&good[..length]).is_err());
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 1;
        let check = blake3::hash(&bytes[..SEGMENT_HEADER_BYTES - 32]);
        bytes[SEGMENT_HEADER_BYTES - 32..].copy_from_slice(check.as_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(1)));
    }

    #[test]
    fn a_length_beyond_the_limit_is_no_header() {
        let key = HeaderKey::new(&[3; 16]);
        let good = RecordHeader { kind: Kind::Epoch, length: 9, number: 1, synced_through: 0 };
        assert_eq!(RecordHeader::decode(&good.encode(9, &key), &key), Some(good));
        assert_eq!(RecordHeader::decode(&good.encode(u32::MAX, &key), &key), None);
    }

    #[test]
    fn a_payload_that_looks_like_a_record_proves_nothing() {
        // Somebody who knows the format, but not the salt, forges a later record that claims
        // everything is synced, and the write that carries it is torn.
        let forged = RecordHeader { kind: Kind::Batch, length: 0, number: 9, synced_through: 8 };
        let payload = forged.encode(0, &HeaderKey::new(&[0; 16])).to_vec();
        let (bytes, ends) = segment(&[b"synced".to_vec(), payload], 1);
        let scan = scan(&header(), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((scan.end, scan.records.len()), (ends[1], 1));
    }

    #[test]
    fn records_are_numbered_from_one_and_the_last_number_is_none() {
        let numbered = |first_record| SegmentHeader { first_record, ..header() };
        assert_eq!(SegmentHeader::decode(&numbered(0).encode()), Err(HeaderFault::Damaged));
        let key = HeaderKey::new(&[3; 16]);
        for (number, is_one) in [(u64::MAX, false), (u64::MAX - 1, true)] {
            let header = RecordHeader { kind: Kind::Epoch, length: 9, number, synced_through: 0 };
            assert_eq!(RecordHeader::decode(&header.encode(9, &key), &key).is_some(), is_one);
        }
    }

    proptest! {
        #[test]
        fn a_segment_cut_at_any_byte_keeps_its_whole_records(
            bodies in vec(vec(any::<u8>(), 0..40), 1..6),
            synced in any::<prop::sample::Index>(),
        ) {
            let synced = synced.index(bodies.len() + 1);
            let (bytes, ends) = segment(&bodies, synced);
            for cut in SEGMENT_HEADER_BYTES..=bytes.len() {
                let scan = scan(&header(), &bytes[..cut]).unwrap();
                let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
                prop_assert_eq!(scan.end, ends[whole]);
                let found: Vec<_> =
                    scan.records.iter().map(|record| bytes[record.body.clone()].to_vec()).collect();
                prop_assert_eq!(&found[..], &bodies[..whole]);
                prop_assert_eq!(scan.cursor.number(), 5 + whole as u64);
            }
        }

        #[test]
        fn a_flip_anywhere_is_damage_if_a_later_record_proves_it(
            bodies in vec(vec(any::<u8>(), 0..12), 1..5),
            synced in any::<prop::sample::Index>(),
        ) {
            let synced = synced.index(bodies.len());
            let (good, ends) = segment(&bodies, synced);
            for bit in SEGMENT_HEADER_BYTES * 8..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let hit = ends.iter().position(|end| *end > bit / 8).unwrap() - 1;
                match scan(&header(), &bad) {
                    // The records from `synced` on were written after those before it were synced.
                    Err(damage) => {
                        prop_assert!(hit < synced);
                        prop_assert_eq!((damage.offset, damage.record), (ends[hit], 5 + hit as u64));
                    }
                    Ok(scan) => {
                        prop_assert!(hit >= synced, "record {} of {} synced", hit, synced);
                        prop_assert_eq!(scan.end, ends[hit]);
                    }
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_records(bytes in vec(any::<u8>(), 0..200)) {
            let mut segment = header().encode();
            segment.extend_from_slice(&bytes);
            let scan = scan(&header(), &segment).unwrap();
            prop_assert_eq!(scan.end, SEGMENT_HEADER_BYTES);
        }
    }
}
