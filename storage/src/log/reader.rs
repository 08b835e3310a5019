//! Reading a log, also while it is being written.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parsec_protocol::{EpochNumber, codec};

use super::end::LogEnd;
use super::epochs::Epochs;
use super::format::{Cursor, Kind, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::{LogError, LogLocation, Record, segments};
use crate::disk::{Disk, StdDisk};

/// Bytes that are read at once, unless a record needs more.
const READ_AHEAD_BYTES: usize = 256 * 1_024;

/// Reads the records of a log or of one segment, in order, checking the chain through them.
///
/// As an iterator it ends where the log does at the moment, before a record that is not whole;
/// asked again, it goes on with what has been appended since. After an error it ends for good.
#[derive(Debug)]
pub struct LogReader<D: Disk = StdDisk> {
    disk: D,
    /// The log's directory; none if one file is read.
    directory: Option<PathBuf>,
    path: PathBuf,
    segment: u64,
    header: SegmentHeader,
    file: D::File,
    cursor: Cursor,
    /// Where the next record begins.
    offset: u64,
    /// What was read of the file from `offset` on, after `consumed` bytes from before it.
    ///
    /// **Invariant:** the file's own position is behind it.
    buffer: Vec<u8>,
    consumed: usize,
    torn_bytes: u64,
    failed: bool,
}

/// A record before it is decoded.
pub(super) struct Raw {
    pub(super) location: LogLocation,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
}

impl LogReader {
    /// Reads a log from its first segment on, or one segment's file.
    ///
    /// # Errors
    /// [`LogError::Empty`] or [`LogError::NotALog`] if there is none, [`LogError::Version`],
    /// [`LogError::Damaged`] or [`LogError::MissingSegment`] if it can't be read,
    /// [`LogError::Io`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::open_on(StdDisk, path)
    }

    /// Reads a log from a record on.
    ///
    /// # Errors
    /// [`LogError::NoRecord`] if none begins there, [`LogError::MissingSegment`] if its segment is
    /// not there, and as [`open`](Self::open).
    pub fn open_at(directory: &Path, location: LogLocation) -> Result<Self, LogError> {
        Self::open_at_on(StdDisk, directory, location)
    }

    /// Reads the epochs from `first` on, with their batches. Begins in the segment that holds it.
    ///
    /// # Errors
    /// [`LogError::UnknownEpoch`] if the log begins later, and as [`open`](Self::open).
    pub fn epochs_from(directory: &Path, first: EpochNumber) -> Result<Epochs, LogError> {
        Epochs::from_epoch(&StdDisk, directory, first)
    }
}

impl<D: Disk> LogReader<D> {
    /// As [`open`](LogReader::open), on some disk.
    ///
    /// # Errors
    /// As [`open`](LogReader::open).
    pub fn open_on(disk: D, path: &Path) -> Result<Self, LogError> {
        if !disk.is_directory(path) {
            let segment = segments::number(path).unwrap_or(1);
            return Self::enter(disk, None, path.into(), segment);
        }
        let segments = segments::list(&disk, path)?;
        let first = *segments.first().ok_or_else(|| LogError::Empty { path: path.into() })?;
        Self::enter(disk, Some(path.into()), segments::path(path, first), first)
    }

    /// As [`open_at`](LogReader::open_at), on some disk.
    ///
    /// # Errors
    /// As [`open_at`](LogReader::open_at).
    pub fn open_at_on(disk: D, directory: &Path, location: LogLocation) -> Result<Self, LogError> {
        let path = segments::path(directory, location.segment);
        if !disk.exists(&path) {
            return Err(LogError::MissingSegment { path });
        }
        let mut reader = Self::enter(disk, Some(directory.into()), path, location.segment)?;
        if location.offset != reader.offset {
            reader.jump(location)?;
        }
        Ok(reader)
    }

    /// As [`epochs_from`](LogReader::epochs_from), on some disk.
    ///
    /// # Errors
    /// As [`epochs_from`](LogReader::epochs_from).
    pub fn epochs_from_on(
        disk: &D,
        directory: &Path,
        first: EpochNumber,
    ) -> Result<Epochs<D>, LogError> {
        Epochs::from_epoch(disk, directory, first)
    }

    /// At the start of a segment.
    pub(super) fn enter(
        disk: D,
        directory: Option<PathBuf>,
        path: PathBuf,
        segment: u64,
    ) -> Result<Self, LogError> {
        let mut file = disk.open(&path).map_err(LogError::io(&path))?;
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        let limit = SEGMENT_HEADER_BYTES as u64;
        (&mut file).take(limit).read_to_end(&mut bytes).map_err(LogError::io(&path))?;
        let header = segments::decode_header(&path, &bytes)?;
        Ok(Self {
            disk,
            directory,
            path,
            segment,
            cursor: Cursor::new(&header),
            header,
            file,
            offset: limit,
            buffer: Vec::new(),
            consumed: 0,
            torn_bytes: 0,
            failed: false,
        })
    }

    /// Moves to a record inside of the segment.
    fn jump(&mut self, location: LogLocation) -> Result<(), LogError> {
        let no_record = || LogError::NoRecord { location };
        // The chain value of the record before it stands in front of it.
        let chain_at = location.offset.checked_sub(32).ok_or_else(no_record)?;
        self.seek(chain_at)?;
        self.fill(32 + RECORD_HEADER_BYTES)?;
        let (before, at) = self.buffer.split_at_checked(32).ok_or_else(no_record)?;
        self.cursor = Cursor::inside(&self.header, before, at).ok_or_else(no_record)?;
        self.seek(location.offset)
    }

    /// The id of the cluster whose log it is.
    #[must_use]
    pub fn cluster(&self) -> [u8; 32] {
        self.header.cluster
    }

    /// Where the next record begins, or will begin.
    #[must_use]
    pub fn location(&self) -> LogLocation {
        LogLocation { segment: self.segment, offset: self.offset }
    }

    /// How many bytes follow the last whole record, if the end has been reached.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Where the log is.
    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// The log's directory; `None` if one file is read.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The epochs of the log with their batches, from here on.
    ///
    /// An epoch whose batches lie before the point where reading began can't be assembled, unless
    /// that is the start of a segment.
    #[must_use]
    pub fn epochs(self) -> Epochs<D> {
        Epochs::new(self)
    }

    /// The next record; `None` at the end, for now.
    pub(super) fn next_raw(&mut self) -> Result<Option<Raw>, LogError> {
        loop {
            if let Some(raw) = self.try_read()? {
                return Ok(Some(raw));
            }
            let next = self.directory.as_ref().map(|at| segments::path(at, self.segment + 1));
            let Some(next) = next.filter(|next| self.disk.exists(next)) else {
                match self.end_or_damage()? {
                    true => return Ok(None),
                    false => continue,
                }
            };
            // ORDER: the next segment appears after this one is complete. What was appended
            // before it appeared is read first.
            if let Some(raw) = self.try_read()? {
                return Ok(Some(raw));
            }
            self.follow(next)?;
        }
    }

    /// Reads a record if it is whole.
    fn try_read(&mut self) -> Result<Option<Raw>, LogError> {
        self.fill(RECORD_HEADER_BYTES)?;
        let Some(header) = self.cursor.header(&self.buffer[self.consumed..]) else {
            return self.forget().map(|()| None);
        };
        self.fill(header.record_bytes())?;
        let Some((header, body)) = self.cursor.read(&self.buffer[self.consumed..]) else {
            return self.forget().map(|()| None);
        };
        let body = Bytes::copy_from_slice(body);
        let location = self.location();
        self.consumed += header.record_bytes();
        self.offset += header.record_bytes() as u64;
        self.torn_bytes = 0;
        Ok(Some(Raw { location, kind: header.kind, body }))
    }

    /// Forgets what was read ahead: a writer that opens the log again replaces a torn record.
    fn forget(&mut self) -> Result<(), LogError> {
        self.seek(self.offset)
    }

    /// Moves into the next segment, which must go on where this one ends.
    fn follow(&mut self, path: PathBuf) -> Result<(), LogError> {
        if !self.rest()?.is_empty() {
            return Err(self.damaged("it ends in the middle of a record, but another follows it"));
        }
        let next = Self::enter(self.disk.clone(), self.directory.clone(), path, self.segment + 1)?;
        if next.header.cluster != self.header.cluster {
            return Err(LogError::Foreign { path: next.path });
        }
        if next.header.chain != self.cursor.chain()
            || next.header.first_record != self.cursor.number()
        {
            return Err(self.damaged("it ends too early, or the next segment is another log's"));
        }
        *self = next;
        Ok(())
    }

    /// Whether this is the end of the log; not so if more has been appended by now.
    fn end_or_damage(&mut self) -> Result<bool, LogError> {
        let rest = self.rest()?;
        if self.cursor.clone().read(&rest).is_some() {
            return Ok(false);
        }
        if self.cursor.proof_of_damage(&rest).is_some() {
            return Err(self.damaged("a later record proves that what should be here was durable"));
        }
        self.torn_bytes = rest.len() as u64;
        Ok(true)
    }

    /// What the file holds from the next record on.
    fn rest(&mut self) -> Result<Vec<u8>, LogError> {
        self.forget()?;
        let mut rest = Vec::new();
        self.file.read_to_end(&mut rest).map_err(LogError::io(&self.path))?;
        self.forget()?;
        Ok(rest)
    }

    fn seek(&mut self, offset: u64) -> Result<(), LogError> {
        self.buffer.clear();
        self.consumed = 0;
        self.offset = offset;
        self.file.seek(SeekFrom::Start(offset)).map_err(LogError::io(&self.path))?;
        Ok(())
    }

    /// Reads ahead so that `needed` bytes are in the buffer, if the file has them.
    fn fill(&mut self, needed: usize) -> Result<(), LogError> {
        if self.buffer.len() - self.consumed >= needed {
            return Ok(());
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let missing = needed.max(READ_AHEAD_BYTES) - self.buffer.len();
        (&mut self.file)
            .take(missing as u64)
            .read_to_end(&mut self.buffer)
            .map_err(LogError::io(&self.path))?;
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> LogError {
        LogError::Damaged {
            segment: self.path.clone(),
            offset: self.offset,
            record: self.cursor.number(),
            what,
        }
    }

    fn next_record(&mut self) -> Result<Option<(LogLocation, Record)>, LogError> {
        while let Some(Raw { location, kind, body }) = self.next_raw()? {
            let undecodable = |source| LogError::Undecodable { location, source };
            let record = match kind {
                Kind::Batch => Record::Batch(codec::decode(&body).map_err(undecodable)?),
                Kind::Epoch => Record::Epoch(codec::decode(&body).map_err(undecodable)?),
                Kind::Summary => continue,
            };
            return Ok(Some((location, record)));
        }
        Ok(None)
    }
}

impl<D: Disk> Iterator for LogReader<D> {
    type Item = Result<(LogLocation, Record), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_record();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Checks a whole log, or one segment's file, and returns what it adds up to.
///
/// # Errors
/// As [`LogReader::open`]; [`LogError::Damaged`] and [`LogError::Undecodable`] for what is wrong
/// with a record; [`LogError::EpochOrder`], [`LogError::EpochParent`], [`LogError::BatchOrder`],
/// [`LogError::MissingBatch`] and [`LogError::WrongBatch`] if the records don't fit together.
pub fn verify(path: &Path) -> Result<LogEnd, LogError> {
    verify_on(StdDisk, path)
}

/// As [`verify`], on some disk.
///
/// # Errors
/// As [`verify`].
pub fn verify_on<D: Disk>(disk: D, path: &Path) -> Result<LogEnd, LogError> {
    let mut reader = LogReader::open_on(disk, path)?;
    let mut end = LogEnd { records: reader.header.first_record - 1, ..LogEnd::default() };
    while let Some(raw) = reader.next_raw()? {
        end.note(raw.kind, &raw.body, raw.location)?;
    }
    end.torn_bytes = reader.torn_bytes;
    Ok(end)
}
