//! YCSB (Cooper et al., SoCC 2010): records of ten fields that are read, updated, inserted and
//! scanned by their number.
//!
//! A record is one row: how often it was written (8 bytes), then ten fields of equal length. There
//! is no order among keys here, so a scan is of consecutive *numbers*: it names every record that
//! it may find, hence nothing can appear between.

use bytes::Bytes;
use parsec_protocol::limits::VALUE_BYTES_MAX;
use parsec_protocol::{Access, ErrorCode, Key, Mode, Namespace, Value};
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::fields::Fields;
use super::{Effects, Step, access, yes};
use crate::State;

const RECORDS: Namespace = Namespace::partitioned(0x19);

/// Fields of a record.
pub const FIELDS: usize = 10;
/// Most operations of one transaction.
pub const OPS_MAX: usize = 256;
/// Most records of one scan.
pub const SCAN_MAX: u16 = 1_000;

const VERSION_BYTES: usize = 8;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Op {
    /// Reads all fields of a record.
    Read { record: u64 },
    /// Sets one field of a record, without returning anything.
    Update { record: u64, field: u8, value: Bytes },
    /// Reads all fields of a record, then sets one of them.
    ReadModifyWrite { record: u64, field: u8, value: Bytes },
    /// Creates a record of these fields, all in one.
    Insert { record: u64, fields: Bytes },
    /// Reads so many records, from this number on.
    Scan { first: u64, count: u16 },
}

/// What a transaction returns of what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// For each record that was read, 4 bytes that tell the length (all ones if there is none),
    /// and the fields.
    Records,
    /// How many records were found (8 bytes), and XXH3 of the fields of each, seeded with that of
    /// those before it (8 bytes). Receipts are kept: a scan does not belong into one.
    Digest,
}

/// Operations on different records of a table, from the first to the last. Says no if a record
/// that is to be changed does not exist ([`ErrorCode::Refused`]), one that is to be inserted does
/// ([`ErrorCode::AlreadyExists`]), or a field has another length ([`ErrorCode::Refused`]).
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Call {
    /// The table's number.
    pub table: u64,
    /// What to return.
    pub answer: Answer,
    /// 1 to [`OPS_MAX`] of them; a scan stands alone.
    pub ops: Vec<Op>,
}

/// The key of a record.
#[must_use]
pub fn key(table: u64, record: u64) -> Key {
    let parts = [&table.to_be_bytes()[..], &record.to_be_bytes()];
    Key::with_affinity(RECORDS, 0, &parts).expect("19 bytes are no long key")
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// How often it was written since it was created.
    pub version: u64,
    /// Its fields, all in one.
    pub fields: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let version = fields.u64()?;
        let fields = fields.0;
        (!fields.is_empty() && fields.len().is_multiple_of(FIELDS))
            .then_some(Self { version, fields })
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([&self.version.to_be_bytes()[..], self.fields])
    }

    /// One of the fields; `None` if there are not as many.
    #[must_use]
    pub fn field(&self, field: u8) -> Option<&'a [u8]> {
        self.fields.chunks(self.fields.len() / FIELDS).nth(field.into())
    }

    /// The row when one field is set; `None` if it has another length.
    fn with(&self, field: u8, value: &[u8]) -> Option<Value> {
        let width = self.field(field)?.len();
        if value.len() != width {
            return None;
        }
        let (before, rest) = self.fields.split_at_checked(usize::from(field) * width)?;
        let version = self.version.wrapping_add(1).to_be_bytes();
        Some(Value::concat([&version[..], before, value, rest.get(width..)?]))
    }
}

impl Op {
    /// The one record that it names, unless it scans.
    fn record(&self) -> Option<u64> {
        match self {
            Self::Read { record }
            | Self::Update { record, .. }
            | Self::ReadModifyWrite { record, .. }
            | Self::Insert { record, .. } => Some(*record),
            Self::Scan { .. } => None,
        }
    }

    fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Scan { count, .. } if !(1..=SCAN_MAX).contains(count) => {
                Some("a scan has 1 to 1,000 records")
            }
            Self::Scan { first, count } if first.checked_add(u64::from(*count)).is_none() => {
                Some("a scan goes beyond the last number")
            }
            Self::Insert { fields, .. }
                if fields.is_empty()
                    || !fields.len().is_multiple_of(FIELDS)
                    || VERSION_BYTES + fields.len() > VALUE_BYTES_MAX =>
            {
                Some("a record has ten fields of equal length, half a MiB at most")
            }
            Self::Update { field, .. } | Self::ReadModifyWrite { field, .. }
                if usize::from(*field) >= FIELDS =>
            {
                Some("a record has ten fields")
            }
            _ => None,
        }
    }
}

impl Call {
    pub(super) fn fault(&self) -> Option<&'static str> {
        if !(1..=OPS_MAX).contains(&self.ops.len()) {
            return Some("a call has 1 to 256 operations");
        }
        let mut named: Vec<_> = self.ops.iter().filter_map(Op::record).collect();
        named.sort_unstable();
        if named.windows(2).any(|pair| pair[0] == pair[1]) {
            return Some("a record is named twice");
        }
        self.ops.iter().find_map(|op| match op {
            Op::Scan { .. } if self.ops.len() > 1 => Some("a scan stands alone"),
            _ => op.fault(),
        })
    }

    pub(super) fn accesses(&self) -> Vec<Access> {
        let mut accesses = Vec::with_capacity(self.ops.len());
        let mut name = |record, mode| accesses.push(access(key(self.table, record), mode));
        for op in &self.ops {
            match op {
                Op::Read { record } => name(*record, Mode::Read),
                Op::Update { record, .. }
                | Op::ReadModifyWrite { record, .. }
                | Op::Insert { record, .. } => name(*record, Mode::Write),
                Op::Scan { first, count } => {
                    scanned(*first, *count).for_each(|record| name(record, Mode::Read));
                }
            }
        }
        accesses
    }

    pub(super) fn run(&self, state: &mut dyn State) -> Step {
        let mut writes = Vec::new();
        let mut reads = Reads::new(self.answer);
        for op in &self.ops {
            match op {
                Op::Read { record } => reads.take(state.get(&key(self.table, *record))?),
                Op::Scan { first, count } => {
                    for record in scanned(*first, *count) {
                        reads.take(state.get(&key(self.table, record))?);
                    }
                }
                Op::Update { record, field, value }
                | Op::ReadModifyWrite { record, field, value } => {
                    let key = key(self.table, *record);
                    let row = state.get(&key)?;
                    let found = row.as_deref().and_then(Record::decode);
                    let changed = found.and_then(|found| found.with(*field, value));
                    writes.push((key, yes!(changed.ok_or(ErrorCode::Refused))));
                    if matches!(op, Op::ReadModifyWrite { .. }) {
                        reads.take(row);
                    }
                }
                Op::Insert { record, fields } => {
                    let key = key(self.table, *record);
                    if state.get(&key)?.is_some() {
                        return Ok(Err(ErrorCode::AlreadyExists));
                    }
                    writes.push((key, Record { version: 0, fields }.encode()));
                }
            }
        }
        Ok(Ok(Effects { writes, output: reads.finish(), ..Effects::default() }))
    }
}

fn scanned(first: u64, count: u16) -> impl Iterator<Item = u64> {
    first..first.saturating_add(u64::from(count))
}

/// What was read so far.
enum Reads {
    Records(Vec<u8>),
    Digest { any: bool, found: u64, digest: u64 },
}

impl Reads {
    fn new(answer: Answer) -> Self {
        match answer {
            Answer::Records => Self::Records(Vec::new()),
            Answer::Digest => Self::Digest { any: false, found: 0, digest: 0 },
        }
    }

    fn take(&mut self, row: Option<Value>) {
        let fields = row.as_ref().map(|row| row.get(VERSION_BYTES..).unwrap_or(&[]));
        match self {
            Self::Records(output) => {
                let length = fields.map_or(u32::MAX, |fields| {
                    u32::try_from(fields.len()).expect("values are at most half a MiB")
                });
                output.extend_from_slice(&length.to_be_bytes());
                output.extend_from_slice(fields.unwrap_or(&[]));
            }
            Self::Digest { any, found, digest } => {
                *any = true;
                if let Some(fields) = fields {
                    *found += 1;
                    *digest = xxh3_64_with_seed(fields, *digest);
                }
            }
        }
    }

    /// The output; empty if nothing was read.
    fn finish(self) -> Vec<u8> {
        match self {
            Self::Records(output) => output,
            Self::Digest { any: false, .. } => Vec::new(),
            Self::Digest { found, digest, .. } => {
                [found.to_be_bytes(), digest.to_be_bytes()].concat()
            }
        }
    }
}
