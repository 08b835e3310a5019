//! What a partition owes to others, in files beside the engine's.
//!
//! Pushes are written once, in order, and mostly forgotten some seconds later, when the other side has
//! applied them: files do that without the copies and merges of an engine.
//!
//! ```text
//! ├──────────────────┼──────────────────────────────────────┼────────────────────────────────────────────┤
//! │ records, one     │ index: of each record, receiving     │ end: magic 8, format version u32,          │
//! │ after the other  │ partition u16, epoch u64, bytes u32, │ cluster 32, partition u16, first epoch u64,│
//! │                  │ check 16                             │ last epoch u64, records u32, check 32      │
//! ├──────────────────┼──────────────────────────────────────┼────────────────────────────────────────────┤
//! ```
//! Numbers are big-endian. A record's check is the beginning of its BLAKE3; the end's is BLAKE3 of the
//! index and of the end before it.
//!
//! **Invariant:** a file is whole, or not there; it is there before the commit that it belongs to.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::ops::{Bound, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::{EpochNumber, PartitionId, Push};

use super::StoreError;
use super::packed::{self, PackedPushes};
use crate::disk::{Disk as _, StdDisk};
use crate::files::{self, UNFINISHED};

const MAGIC: [u8; 8] = *b"POUTBOX\0";
const VERSION: u32 = 1;
/// What file names end with.
const EXTENSION: &str = "pushes";
const ENTRY_BYTES: usize = 2 + 8 + 4 + 16;
const END_BYTES: usize = 8 + 4 + 32 + 2 + 8 + 8 + 4 + 32;
/// What is written at a time.
const WRITE_BYTES: usize = 256 * 1_024;

/// What a partition owes, on disk.
#[derive(Debug)]
pub(super) struct Outbox {
    directory: PathBuf,
    cluster: [u8; 32],
    partition: PartitionId,
    /// By the last epoch of each.
    files: Mutex<BTreeMap<EpochNumber, OwedFile>>,
}

/// A file, and what of it is still owed.
#[derive(Debug)]
pub(super) struct OwedFile {
    path: PathBuf,
    epochs: RangeInclusive<EpochNumber>,
    /// By partition, then by epoch.
    records: Vec<Record>,
}

/// Pushes of one epoch to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    to: PartitionId,
    epoch: EpochNumber,
    at: u64,
    bytes: u32,
    check: [u8; 16],
}

impl Outbox {
    /// Opens what is owed by `partition`, or creates it. What belongs to epochs after `applied` was
    /// never committed, and is removed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a file is not what was written, [`StoreError::Foreign`] if it is
    /// another partition's, cluster's or version's, [`StoreError::File`] if the disk refuses.
    pub(super) fn open(
        directory: PathBuf,
        cluster: [u8; 32],
        partition: PartitionId,
        applied: EpochNumber,
    ) -> Result<Self, StoreError> {
        let outbox = Self { directory, cluster, partition, files: Mutex::default() };
        let on_disk = |source| file_error(&outbox.directory, source);
        StdDisk.create_directory(&outbox.directory).map_err(on_disk)?;
        for path in StdDisk.list(&outbox.directory).map_err(on_disk)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => outbox.take_in(path, applied)?,
                Some(UNFINISHED) => remove(&path)?,
                _ => {}
            }
        }
        Ok(outbox)
    }

    /// Takes in a file that was there when the store was opened.
    fn take_in(&self, path: PathBuf, applied: EpochNumber) -> Result<(), StoreError> {
        let file = self.read(path)?;
        if *file.epochs.start() > applied {
            return remove(&file.path);
        }
        if *file.epochs.end() > applied {
            return Err(damaged(&file.path, "it has epochs that its store has not applied"));
        }
        self.add(file);
        Ok(())
    }

    /// Writes what is owed for `epochs`, by partition and then by epoch, durably. It counts once it is
    /// [added](Self::add).
    ///
    /// # Errors
    /// [`StoreError::File`] if the disk refuses.
    pub(super) fn write(
        &self,
        epochs: RangeInclusive<EpochNumber>,
        owed: &[&PackedPushes],
    ) -> Result<OwedFile, StoreError> {
        let name = format!("{:020}.{EXTENSION}", epochs.end().0);
        let path = self.directory.join(name);
        let mut records = Vec::new();
        let written = files::replace_with(&StdDisk, &path, |file| {
            let mut file = BufWriter::with_capacity(WRITE_BYTES, file);
            let mut at = 0;
            for packed in owed {
                let record = Record::of(packed, at)?;
                file.write_all(&packed.value)?;
                at += u64::from(record.bytes);
                records.push(record);
            }
            file.write_all(&self.closing(&epochs, &records))?;
            file.flush()
        });
        written.map_err(|source| file_error(&path, source))?;
        Ok(OwedFile { path, epochs, records })
    }

    /// Counts what was written as owed.
    pub(super) fn add(&self, file: OwedFile) {
        self.lock().insert(*file.epochs.end(), file);
    }

    /// What is owed to `to` for epochs after `after`: by epoch, in the order it was committed. Whole
    /// epochs, until there are at least `limit` pushes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::Undecodable`] if a record is not what was written,
    /// [`StoreError::File`] if it can't be read.
    pub(super) fn owed(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        let files = self.lock();
        let mut owed: Vec<Push> = Vec::new();
        let later = files.range((Bound::Excluded(after), Bound::Unbounded));
        for file in later.map(|(_, file)| file) {
            let wanted = file.records.iter().filter(|record| record.to == to);
            for record in wanted.filter(|record| record.epoch > after) {
                let last = owed.last().map(|push| push.position.epoch);
                if owed.len() >= limit && last != Some(record.epoch) {
                    return Ok(owed);
                }
                owed.extend(file.pushes(record)?);
            }
        }
        Ok(owed)
    }

    /// Forgets what was owed to `to` for epochs through `through`. A file of which nothing is owed any
    /// more is removed; else, what was forgotten is owed again when the store is next opened.
    ///
    /// # Errors
    /// [`StoreError::File`] if the disk refuses.
    pub(super) fn prune(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        let mut files = self.lock();
        for file in files.values_mut() {
            file.records.retain(|record| record.to != to || record.epoch > through);
        }
        let done: Vec<_> = files.extract_if(.., |_, file| file.records.is_empty()).collect();
        drop(files);
        done.iter().try_for_each(|(_, file)| remove(&file.path))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EpochNumber, OwedFile>> {
        // Nothing here panics between two changes that belong together.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index and end of a file.
    fn closing(&self, epochs: &RangeInclusive<EpochNumber>, records: &[Record]) -> Vec<u8> {
        let mut closing = Vec::with_capacity(records.len() * ENTRY_BYTES + END_BYTES);
        for record in records {
            closing.extend_from_slice(&record.to.0.to_be_bytes());
            closing.extend_from_slice(&record.epoch.0.to_be_bytes());
            closing.extend_from_slice(&record.bytes.to_be_bytes());
            closing.extend_from_slice(&record.check);
        }
        closing.extend_from_slice(&self.identity());
        closing.extend_from_slice(&epochs.start().0.to_be_bytes());
        closing.extend_from_slice(&epochs.end().0.to_be_bytes());
        // A run is written long before it has so many records.
        closing.extend_from_slice(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_be_bytes());
        let check = blake3::hash(&closing);
        closing.extend_from_slice(check.as_bytes());
        closing
    }

    fn identity(&self) -> [u8; 46] {
        let mut identity = [0; 46];
        identity[..8].copy_from_slice(&MAGIC);
        identity[8..12].copy_from_slice(&VERSION.to_be_bytes());
        identity[12..44].copy_from_slice(&self.cluster);
        identity[44..].copy_from_slice(&self.partition.0.to_be_bytes());
        identity
    }

    /// Reads index and end of a file.
    fn read(&self, path: PathBuf) -> Result<OwedFile, StoreError> {
        let on_disk = |source| file_error(&path, source);
        let mut file = StdDisk.open(&path).map_err(on_disk)?;
        let length = file.seek(SeekFrom::End(0)).map_err(on_disk)?;
        let mut read = |bytes: u64| -> Result<Vec<u8>, StoreError> {
            let start = length.checked_sub(bytes);
            let start = start.ok_or_else(|| damaged(&path, "it is too short"))?;
            file.seek(SeekFrom::Start(start)).map_err(on_disk)?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail).map_err(on_disk)?;
            Ok(tail)
        };
        let end = read(END_BYTES as u64)?;
        let (identity, rest) = end.split_at(46);
        let (Some(first), Some(last), Some(count)) =
            (number(rest, 0), number(rest, 8), rest.get(16..20).and_then(|c| c.first_chunk()))
        else {
            return Err(damaged(&path, "its end is malformed"));
        };
        let count = u64::from(u32::from_be_bytes(*count));
        let closing = read(END_BYTES as u64 + count * ENTRY_BYTES as u64)?;
        let (body, check) = closing.split_at(closing.len() - 32);
        if blake3::hash(body).as_bytes() != check {
            return Err(damaged(&path, "the checksum of its index is wrong"));
        }
        if identity != self.identity() {
            let found = "it is another partition's, cluster's or version's".into();
            return Err(StoreError::Foreign { path, found });
        }
        let records = records(&closing[..closing.len() - END_BYTES]);
        let values = records.last().map_or(0, |last| last.at + u64::from(last.bytes));
        if values + closing.len() as u64 != length {
            return Err(damaged(&path, "its length is wrong"));
        }
        Ok(OwedFile { path, epochs: EpochNumber(first)..=EpochNumber(last), records })
    }
}

impl OwedFile {
    fn pushes(&self, record: &Record) -> Result<Vec<Push>, StoreError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = StdDisk.open(&self.path)?;
            file.seek(SeekFrom::Start(record.at))?;
            let mut value = Vec::new();
            file.take(record.bytes.into()).read_to_end(&mut value)?;
            Ok(value)
        };
        let value = read().map_err(|source| file_error(&self.path, source))?;
        if check(&value) != record.check {
            return Err(damaged(&self.path, "the checksum of a record is wrong"));
        }
        packed::unpack_pushes(&value).map_err(StoreError::Undecodable)
    }
}

impl Record {
    /// That of what is to be at `at`.
    fn of(packed: &PackedPushes, at: u64) -> io::Result<Self> {
        let PackedPushes { to, epoch, ref value } = *packed;
        let bytes = u32::try_from(value.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        Ok(Self { to, epoch, at, bytes, check: check(value) })
    }
}

/// The records of an index, whose length is right.
fn records(index: &[u8]) -> Vec<Record> {
    let mut next = 0;
    let entries = index.as_chunks::<ENTRY_BYTES>().0.iter();
    let record = |entry: &[u8; ENTRY_BYTES]| {
        let (to, rest) = entry.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (at, bytes) = (next, u32::from_be_bytes(*bytes));
        next += u64::from(bytes);
        let to = PartitionId(u16::from_be_bytes(*to));
        let epoch = EpochNumber(u64::from_be_bytes(*epoch));
        Some(Record { to, epoch, at, bytes, check: *rest.as_array()? })
    };
    entries.map_while(record).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|number| u64::from_be_bytes(*number))
}

fn check(value: &[u8]) -> [u8; 16] {
    let mut check = [0; 16];
    check.copy_from_slice(&blake3::hash(value).as_bytes()[..16]);
    check
}

fn remove(path: &Path) -> Result<(), StoreError> {
    StdDisk.remove(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::File { path: path.into(), source: Arc::new(source) }
}

fn damaged(path: &Path, what: &'static str) -> StoreError {
    StoreError::Damaged { path: path.into(), what }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use parsec_protocol::{Position, PushKind};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use tempfile::TempDir;

    use super::*;
    use crate::limits::PACKED_BYTES_TARGET;

    const CLUSTER: [u8; 32] = [9; 32];
    const US: PartitionId = PartitionId(1);

    fn push(epoch: u64, index: u32, to: u16, bytes: usize) -> Push {
        let kind = PushKind::Reads(vec![(0, Some(vec![5; bytes].into())), (1, None)].into()).into();
        let position = Position { epoch: EpochNumber(epoch), index };
        Push { position, from: US, to: PartitionId(to), kind }
    }

    fn open(directory: &TempDir, applied: u64) -> Result<Outbox, StoreError> {
        Outbox::open(directory.path().into(), CLUSTER, US, EpochNumber(applied))
    }

    fn write(outbox: &Outbox, first: u64, last: u64, pushes: &[Push]) {
        let epochs = EpochNumber(first)..=EpochNumber(last);
        let packed: Vec<_> = packed::pack_pushes(pushes).collect();
        let packed: Vec<_> = packed.iter().collect();
        outbox.add(outbox.write(epochs, &packed).unwrap());
    }

    fn owed(outbox: &Outbox, to: u16, after: u64) -> Result<Vec<Push>, StoreError> {
        outbox.owed(PartitionId(to), EpochNumber(after), usize::MAX)
    }

    /// An outbox with two files, and what is in them.
    fn filled(directory: &TempDir) -> (Outbox, Vec<Push>) {
        let outbox = open(directory, 0).unwrap();
        let first = [push(1, 0, 2, 10), push(2, 0, 3, 50), push(2, 1, 2, 60)];
        let second = [push(4, 0, 2, 10), push(5, 0, 3, PACKED_BYTES_TARGET), push(5, 1, 3, 9)];
        write(&outbox, 1, 2, &first);
        write(&outbox, 3, 5, &second);
        (outbox, [first, second].concat())
    }

    fn files(directory: &TempDir) -> Vec<PathBuf> {
        let mut files: Vec<_> = StdDisk.list(directory.path()).unwrap();
        files.sort();
        files
    }

    #[test]
    fn what_was_never_committed_is_not_owed_after_opening_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (_, pushes) = filled(&directory);
        fs::write(directory.path().join("6.pushes.tmp"), "half of a file").unwrap();
        let anew = open(&directory, 2).unwrap();
        assert_eq!(owed(&anew, 2, 0).unwrap(), [pushes[0].clone(), pushes[2].clone()]);
        assert_eq!(owed(&anew, 3, 0).unwrap(), [pushes[1].clone()]);
        assert_eq!(files(&directory).len(), 1);
        // Executed again, the epochs owe the same.
        write(&anew, 3, 5, &pushes[3..]);
        let all = open(&directory, 7).unwrap();
        assert_eq!(
            owed(&all, 3, 0).unwrap(),
            [&pushes[1], &pushes[4], &pushes[5]].map(Push::clone)
        );
        assert_eq!(owed(&all, 3, 2).unwrap(), pushes[4..]);
        assert!(matches!(open(&directory, 4), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn epochs_come_whole_and_no_more_than_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (outbox, pushes) = filled(&directory);
        let some = |limit| outbox.owed(PartitionId(3), EpochNumber(0), limit).unwrap();
        assert_eq!(some(1), pushes[1..2]);
        assert_eq!(some(2), [&pushes[1], &pushes[4], &pushes[5]].map(Push::clone));
        // Another host may say that it has whatever epoch it likes.
        assert_eq!(owed(&outbox, 3, u64::MAX).unwrap(), []);
    }

    #[test]
    fn a_file_goes_when_nothing_of_it_is_owed() {
        let directory = tempfile::tempdir().unwrap();
        let (outbox, pushes) = filled(&directory);
        let prune = |to, through| outbox.prune(PartitionId(to), EpochNumber(through)).unwrap();
        prune(2, 4);
        assert_eq!(owed(&outbox, 2, 0).unwrap(), []);
        assert_eq!(files(&directory).len(), 2);
        prune(3, 2);
        assert_eq!(files(&directory).len(), 1);
        assert_eq!(owed(&outbox, 3, 0).unwrap(), pushes[4..]);
        prune(3, 9);
        assert!(files(&directory).is_empty());
    }

    #[test]
    fn a_file_of_another_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (_, _) = filled(&directory);
        for (cluster, partition) in [([8; 32], US), (CLUSTER, PartitionId(2))] {
            let path = directory.path().into();
            let foreign = Outbox::open(path, cluster, partition, EpochNumber(5));
            assert!(matches!(foreign, Err(StoreError::Foreign { .. })), "{foreign:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn damage_is_told(at in any::<Index>(), cut in any::<bool>(), bits in 1u8..) {
            let directory = tempfile::tempdir().unwrap();
            filled(&directory);
            let path = &files(&directory)[0];
            let mut bytes = fs::read(path).unwrap();
            let at = at.index(bytes.len());
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= bits,
            }
            fs::write(path, bytes).unwrap();
            let found = open(&directory, 5)
                .and_then(|outbox| Ok([owed(&outbox, 2, 0)?, owed(&outbox, 3, 0)?]));
            prop_assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
        }

        #[test]
        fn any_bytes_are_a_file_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("1.pushes"), bytes).unwrap();
            prop_assert!(open(&directory, 5).is_err());
        }
    }
}
