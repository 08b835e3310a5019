//! The log's format once more, written after `storage/FORMAT.md` alone: what the real reader says
//! of any bytes is compared with this.

use std::ops::Range;

const MAGIC: &[u8; 8] = b"PARSECLG";
/// Version of the format, which follows, little-endian.
const VERSION: [u8; 4] = [2, 0, 0, 0];
const HEADER_BYTES: usize = 136;
const RECORD_MAGIC: &[u8; 4] = b"PREC";
const RECORD_HEADER_BYTES: usize = 40;
const BODY_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// What a record holds.
pub(crate) const BATCH: u8 = 1;
pub(crate) const EPOCH: u8 = 2;
pub(crate) const SUMMARY: u8 = 3;

/// What a segment's header says.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) cluster: [u8; 32],
    pub(crate) first_record: u64,
    pub(crate) chain: [u8; 32],
    pub(crate) salt: [u8; 16],
}

/// Writes a segment.
pub(crate) struct Writer {
    key: [u8; 32],
    chain: [u8; 32],
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(header: &Header) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&header.cluster);
        bytes.extend_from_slice(&header.first_record.to_le_bytes());
        bytes.extend_from_slice(&header.chain);
        bytes.extend_from_slice(&header.salt);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        let key = record_key(&header.salt);
        Self { key, chain: header.chain, number: header.first_record, bytes }
    }

    pub(crate) fn write(&mut self, kind: u8, body: &[u8], synced_through: u64) {
        let mut header = RECORD_MAGIC.to_vec();
        header.extend_from_slice(&[kind, 0, 0, 0]);
        header.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.number.to_le_bytes());
        header.extend_from_slice(&synced_through.to_le_bytes());
        let check = check(&self.key, &header);
        header.extend_from_slice(&check);
        self.chain = chain(&self.chain, &header, body);
        self.number = self.number.wrapping_add(1);
        for part in [&header[..], body, &self.chain] {
            self.bytes.extend_from_slice(part);
        }
    }
}

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) header: Header,
    /// The kind of each whole record, and where its body lies.
    pub(crate) records: Vec<(u8, Range<usize>)>,
    /// Where the last whole record ends.
    pub(crate) end: usize,
    /// Whether what follows was durable once.
    pub(crate) damaged: bool,
}

/// Reads a segment; `None` if it does not begin with a header.
pub(crate) fn read(bytes: &[u8]) -> Option<Reading> {
    let header = header(bytes)?;
    let key = record_key(&header.salt);
    let (mut hash, mut number) = (header.chain, header.first_record);
    let (mut records, mut end) = (Vec::new(), HEADER_BYTES);
    while let Some((kind, length)) = record(&bytes[end..], &key, |n, _| n == number) {
        let body = end + RECORD_HEADER_BYTES..end + RECORD_HEADER_BYTES + length;
        let Some(found) = bytes.get(body.end..body.end + 32) else { break };
        let next = chain(&hash, &bytes[end..body.start], &bytes[body.clone()]);
        if found != next {
            break;
        }
        end = body.end + 32;
        records.push((kind, body));
        hash = next;
        number += 1;
    }
    let proves = |later: u64, synced: u64| later > number && synced >= number;
    let damaged = (end..bytes.len()).any(|at| record(&bytes[at..], &key, proves).is_some());
    Some(Reading { header, records, end, damaged })
}

fn header(bytes: &[u8]) -> Option<Header> {
    let (body, check) = bytes.get(..HEADER_BYTES)?.split_at(HEADER_BYTES - 32);
    let is_ours = body.starts_with(MAGIC) && body[8..12] == VERSION;
    let header = Header {
        cluster: body[16..48].try_into().unwrap(),
        first_record: u64::from_le_bytes(body[48..56].try_into().unwrap()),
        chain: body[56..88].try_into().unwrap(),
        salt: body[88..104].try_into().unwrap(),
    };
    // Records are numbered from 1.
    let counts = header.first_record > 0;
    (is_ours && counts && check == blake3::hash(body).as_bytes()).then_some(header)
}

/// The kind and the length of the record that begins here, if its header is right and `fits` its
/// number and what it says was synced.
fn record(bytes: &[u8], key: &[u8; 32], fits: impl Fn(u64, u64) -> bool) -> Option<(u8, usize)> {
    let (header, found) = bytes.get(..RECORD_HEADER_BYTES)?.split_at(RECORD_HEADER_BYTES - 8);
    let length = u32::from_le_bytes(header[8..12].try_into().unwrap());
    let length = usize::try_from(length).unwrap();
    let number = u64::from_le_bytes(header[16..24].try_into().unwrap());
    let synced = u64::from_le_bytes(header[24..32].try_into().unwrap());
    let right = header.starts_with(RECORD_MAGIC)
        && found == check(key, header)
        && (BATCH..=SUMMARY).contains(&header[4])
        && length <= BODY_BYTES_MAX
        // The last number there is has no next one.
        && number < u64::MAX;
    (right && fits(number, synced)).then_some((header[4], length))
}

fn record_key(salt: &[u8; 16]) -> [u8; 32] {
    blake3::derive_key("parsec 2026 log record header", salt)
}

fn check(key: &[u8; 32], header: &[u8]) -> [u8; 8] {
    blake3::keyed_hash(key, header).as_bytes()[..8].try_into().unwrap()
}

fn chain(before: &[u8; 32], header: &[u8], body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(before).update(header).update(body).finalize().as_bytes()
}
