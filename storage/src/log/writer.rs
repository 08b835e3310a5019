//! Writing a log.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use parsec_protocol::{BatchRef, EpochRecord, codec};

use super::end::LogEnd;
use super::format::{self, Cursor, Kind, SegmentHeader};
use super::{LogError, LogLocation, segments};
use crate::disk::{Disk, DiskFile as _, StdDisk};
use crate::files;
use crate::limits::{RECORD_BODY_BYTES_MAX, SEGMENT_BYTES};

const LOCK_FILE: &str = "lock";

/// How a log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment is closed when it has reached this many bytes.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES }
    }
}

/// Appends to a log. One at a time: the directory is locked.
///
/// Every error of the disk is final ([`LogError::Poisoned`]): nobody knows then what it holds.
/// Whoever runs the log must stop before answering anyone, and open it again.
#[derive(Debug)]
pub struct LogWriter<D: Disk = StdDisk> {
    disk: D,
    directory: PathBuf,
    cluster: [u8; 32],
    options: LogOptions,
    segment: u64,
    pub(super) file: D::File,
    /// Where the next record will be.
    offset: u64,
    cursor: Cursor,
    /// All records up to this number are durable.
    synced_through: u64,
    end: LogEnd,
    poisoned: bool,
    /// The record that is being written; kept for its memory.
    buffer: Vec<u8>,
    /// Held for its lock.
    _lock: D::Lock,
}

impl LogWriter {
    /// Opens the log in a directory for appending, or begins one. Checks the last segment, drops
    /// its torn end if it has one, and makes the rest durable. Returns what the log adds up to.
    ///
    /// [`verify`](super::verify) checks the segments before it, too.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process writes it; [`LogError::Foreign`] or
    /// [`LogError::Version`] if it is not ours to write; [`LogError::Damaged`] or
    /// [`LogError::MissingSegment`] if something that was durable is not there: nothing is changed
    /// then; [`LogError::Io`].
    pub fn open(
        directory: &Path,
        cluster: [u8; 32],
        options: LogOptions,
    ) -> Result<(Self, LogEnd), LogError> {
        Self::open_on(StdDisk, directory, cluster, options)
    }
}

impl<D: Disk> LogWriter<D> {
    /// As [`open`](LogWriter::open), on some disk.
    ///
    /// # Errors
    /// As [`open`](LogWriter::open).
    pub fn open_on(
        disk: D,
        directory: &Path,
        cluster: [u8; 32],
        options: LogOptions,
    ) -> Result<(Self, LogEnd), LogError> {
        disk.create_directory(directory).map_err(LogError::io(directory))?;
        let lock = lock(&disk, directory)?;
        segments::remove_unfinished(&disk, directory)?;
        let writer = match segments::list(&disk, directory)?.last() {
            Some(last) => Self::resume(disk, directory, cluster, options, *last, lock)?,
            None => Self::begin(disk, directory, cluster, options, lock)?,
        };
        let end = writer.end.clone();
        Ok((writer, end))
    }

    fn begin(
        disk: D,
        directory: &Path,
        cluster: [u8; 32],
        options: LogOptions,
        lock: D::Lock,
    ) -> Result<Self, LogError> {
        let header = SegmentHeader { cluster, first_record: 1, chain: [0; 32], salt: disk.salt() };
        let bytes = header.encode();
        let file = create(&disk, &segments::path(directory, 1), &bytes)?;
        Ok(Self {
            disk,
            directory: directory.into(),
            cluster,
            options,
            segment: 1,
            file,
            offset: bytes.len() as u64,
            cursor: Cursor::new(&header),
            synced_through: 0,
            end: LogEnd::default(),
            poisoned: false,
            buffer: Vec::new(),
            _lock: lock,
        })
    }

    fn resume(
        disk: D,
        directory: &Path,
        cluster: [u8; 32],
        options: LogOptions,
        segment: u64,
        lock: D::Lock,
    ) -> Result<Self, LogError> {
        let path = segments::path(directory, segment);
        let bytes = disk.read(&path).map_err(LogError::io(&path))?;
        let header = segments::decode_header(&path, &bytes)?;
        if header.cluster != cluster {
            return Err(LogError::Foreign { path });
        }
        let scan = format::scan(&header, &bytes).map_err(|damage| LogError::Damaged {
            segment: path.clone(),
            offset: damage.offset as u64,
            record: damage.record,
            what: "a later record proves that what should be here was durable",
        })?;
        let mut end = LogEnd { records: header.first_record - 1, ..LogEnd::default() };
        for record in &scan.records {
            let location = LogLocation { segment, offset: record.offset as u64 };
            end.note(record.kind, &bytes[record.body.clone()], location)?;
        }
        let file = open_to_append(&disk, &path)?;
        end.torn_bytes = (bytes.len() - scan.end) as u64;
        if end.torn_bytes > 0 {
            tracing::warn!(
                segment = %path.display(), bytes = end.torn_bytes, records = end.records,
                "the log ends in a torn write, which nobody was promised: dropped"
            );
            file.set_len(scan.end as u64).map_err(LogError::io(&path))?;
        }
        // What survived a crash of the process may not have reached the disk yet.
        let proven = scan.synced_through.saturating_sub(header.first_record - 1);
        let unproven = scan.records.get(usize::try_from(proven).unwrap_or(usize::MAX));
        if let Some(first) = unproven {
            let bytes = &bytes[first.offset..scan.end];
            rewrite(&disk, &path, first.offset, bytes).map_err(LogError::io(&path))?;
        }
        file.sync_all().map_err(LogError::io(&path))?;
        // Nor may the segment's name, if the process died right after it gave it.
        disk.sync_directory(directory).map_err(LogError::io(directory))?;
        Ok(Self {
            disk,
            directory: directory.into(),
            cluster,
            options,
            segment,
            file,
            offset: scan.end as u64,
            synced_through: end.records,
            cursor: scan.cursor,
            end,
            poisoned: false,
            buffer: Vec::new(),
            _lock: lock,
        })
    }

    /// Appends a batch, given its reference and its encoding. Not durable before the next
    /// [`sync`](Self::sync). Returns where it is.
    ///
    /// # Errors
    /// [`LogError::BatchOrder`], [`LogError::TooManyUnordered`], [`LogError::TooLarge`] and
    /// [`LogError::Full`] if the batch can't come next: nothing is written then.
    /// [`LogError::Io`], and [`LogError::Poisoned`] after that.
    pub fn append_batch(
        &mut self,
        batch: &BatchRef,
        encoded: &[u8],
    ) -> Result<LogLocation, LogError> {
        self.end.check_batch(batch)?;
        let location = self.append(Kind::Batch, encoded)?;
        self.end.note_batch(batch.clone(), location);
        Ok(location)
    }

    /// Appends an epoch, whose batches are in the log. Not durable before the next
    /// [`sync`](Self::sync). Returns where it is.
    ///
    /// # Errors
    /// [`LogError::EpochOrder`], [`LogError::EpochParent`], [`LogError::MissingBatch`],
    /// [`LogError::WrongBatch`], [`LogError::TooLarge`] and [`LogError::Full`] if the epoch can't
    /// come next: nothing is written then. [`LogError::Io`], and [`LogError::Poisoned`] after that.
    pub fn append_epoch(&mut self, epoch: &EpochRecord) -> Result<LogLocation, LogError> {
        self.end.check_epoch(epoch)?;
        let location = self.append(Kind::Epoch, &codec::encode(epoch))?;
        self.end.note_epoch(epoch.clone());
        Ok(location)
    }

    fn append(&mut self, kind: Kind, body: &[u8]) -> Result<LogLocation, LogError> {
        if body.len() > RECORD_BODY_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: body.len() });
        }
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        // One number is kept for the summary that a new segment begins with.
        if self.cursor.number() >= format::RECORD_NUMBER_MAX {
            return Err(LogError::Full);
        }
        if self.offset >= self.options.segment_bytes {
            self.roll()?;
        }
        self.buffer.clear();
        self.cursor.write(kind, body, self.synced_through, &mut self.buffer);
        let written = self.file.write_all(&self.buffer);
        self.poison(written)?;
        let location = LogLocation { segment: self.segment, offset: self.offset };
        self.offset += self.buffer.len() as u64;
        self.end.records += 1;
        metrics::counter!("parsec_log_bytes_total").increment(self.buffer.len() as u64);
        metrics::counter!("parsec_log_records_total").increment(1);
        Ok(location)
    }

    /// Makes everything durable that was appended. Returns the number of the last record.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk refuses, and [`LogError::Poisoned`] after that.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned);
        }
        if self.synced_through < self.end.records {
            let started = Instant::now();
            let synced = self.file.sync_data();
            self.poison(synced)?;
            self.synced_through = self.end.records;
            metrics::histogram!("parsec_log_sync_seconds").record(started.elapsed());
        }
        Ok(self.synced_through)
    }

    /// What the log adds up to, with what is not synced yet.
    #[must_use]
    pub fn end(&self) -> &LogEnd {
        &self.end
    }

    /// Where the log is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Closes the segment and begins the next, with a summary of all before it.
    fn roll(&mut self) -> Result<(), LogError> {
        // ORDER: the old segment is durable before the new one exists. Damage anywhere but in the
        // last segment is therefore never a torn write.
        self.sync()?;
        let header = SegmentHeader {
            cluster: self.cluster,
            first_record: self.cursor.number(),
            chain: self.cursor.chain(),
            salt: self.disk.salt(),
        };
        let mut cursor = Cursor::new(&header);
        let mut bytes = header.encode();
        cursor.write(Kind::Summary, &self.end.summarize(), self.synced_through, &mut bytes);
        let created =
            create(&self.disk, &segments::path(&self.directory, self.segment + 1), &bytes);
        self.poisoned |= created.is_err();
        self.file = created?;
        self.segment += 1;
        self.offset = bytes.len() as u64;
        self.cursor = cursor;
        self.end.records += 1;
        self.synced_through = self.end.records;
        Ok(())
    }

    fn poison(&mut self, result: std::io::Result<()>) -> Result<(), LogError> {
        self.poisoned |= result.is_err();
        result.map_err(LogError::io(&segments::path(&self.directory, self.segment)))
    }
}

/// Locks a log's directory against other writers.
fn lock<D: Disk>(disk: &D, directory: &Path) -> Result<D::Lock, LogError> {
    let path = directory.join(LOCK_FILE);
    let lock = disk.lock(&path).map_err(LogError::io(&path))?;
    lock.ok_or_else(|| LogError::Locked { path: directory.into() })
}

/// Creates a segment with its first bytes, durably.
fn create<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<D::File, LogError> {
    files::replace(disk, path, bytes).map_err(LogError::io(path))?;
    open_to_append(disk, path)
}

/// Writes again what a file holds, so that the next sync makes it durable in any case.
///
/// After a failed sync the system may keep what it could not write in its cache and take it for
/// written: it is read, but a power cut takes it, and no later sync writes it (Rebello et al., "Can
/// Applications Recover from fsync Failures?", USENIX ATC 2020).
fn rewrite<D: Disk>(disk: &D, path: &Path, at: usize, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = disk.update(path)?;
    file.seek(SeekFrom::Start(at as u64))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn open_to_append<D: Disk>(disk: &D, path: &Path) -> Result<D::File, LogError> {
    disk.append(path).map_err(LogError::io(path))
}
