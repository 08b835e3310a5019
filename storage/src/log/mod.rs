//! The hash-chained log of batches and epochs. A recording is a piece of it.
//!
//! A log is a directory of segment files that only ever grow at the end of the last one. Each
//! record's chain value hashes all that came before it, each record says what was durable when it
//! was written, and each segment begins with a summary of the log before it, so that opening
//! reads one segment only. `FORMAT.md` in this crate specifies the bytes.
//!
//! **Invariant:** a batch precedes the epoch that orders it.
//!
//! **Invariant:** what was synced is there, or opening the log is an error. A torn end is dropped,
//! because nobody was promised what is in it; nothing else is ever dropped.
//!
//! What this can't tell apart: damage to the last record that was synced before a crash, with
//! nothing behind it, looks like a torn end. The executors' applied marks and floors notice it.

mod end;
mod epochs;
mod format;
mod reader;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

use parsec_protocol::{Batch, EpochNumber, EpochRecord, LaneId, Malformed};
use rkyv::{Archive, Deserialize, Serialize};

pub use end::{LogEnd, Unordered};
pub use epochs::Epochs;
pub use reader::{LogReader, verify, verify_on};
pub use writer::{LogOptions, LogWriter};

pub use location::LogLocation;

mod location {
    #![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

    use super::{Archive, Deserialize, Serialize};

    /// Where a record begins.
    #[derive(
        Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
    )]
    pub struct LogLocation {
        /// The number of the segment.
        pub segment: u64,
        /// The byte in its file.
        pub offset: u64,
    }
}

impl std::fmt::Display for LogLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A batch that a lane closed.
    Batch(Batch),
    /// An epoch that orders batches from further up.
    Epoch(EpochRecord),
}

/// Why a log can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum LogError {
    #[error("{} can't be read or written: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "another process writes the log {}: stop it, or give this node another directory",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error("{} holds no log: check the path", path.display())]
    Empty { path: PathBuf },
    #[error("{} is not a segment of a Parsec log: check the path", path.display())]
    NotALog { path: PathBuf },
    #[error(
        "{} is in version {found} of the log's format, which this version of Parsec does not \
         read: use the version that wrote it",
        path.display()
    )]
    Version { path: PathBuf, found: u32 },
    #[error(
        "{} belongs to another cluster: point the node at its own directory",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} is damaged at byte {offset}, record {record}: {what}. It was durable, so nothing was \
         cut off. Put back a good copy of this file from a replica or a backup; without one, \
         what follows is lost",
        segment.display()
    )]
    Damaged { segment: PathBuf, offset: u64, record: u64, what: &'static str },
    #[error(
        "the segment {} is missing from the log: put it back from a replica or a backup",
        path.display()
    )]
    MissingSegment { path: PathBuf },
    #[error("no record begins at {location}")]
    NoRecord { location: LogLocation },
    #[error("the record at {location} is whole, but does not decode: {source}")]
    Undecodable { location: LogLocation, source: Malformed },
    #[error("{epoch} is not in the log (any more)")]
    UnknownEpoch { epoch: EpochNumber },
    #[error("{epoch} can't follow {last} in the log")]
    EpochOrder { epoch: EpochNumber, last: EpochNumber },
    #[error("{epoch} names another parent than the epoch before it in the log")]
    EpochParent { epoch: EpochNumber },
    #[error("batch {sequence} of lane {} can't follow batch {last} in the log", lane.0)]
    BatchOrder { lane: LaneId, sequence: u64, last: u64 },
    #[error("{epoch} orders batch {sequence} of lane {}, which is not in the log before it", lane.0)]
    MissingBatch { epoch: EpochNumber, lane: LaneId, sequence: u64 },
    #[error("{epoch} orders another batch {sequence} of lane {} than the log holds", lane.0)]
    WrongBatch { epoch: EpochNumber, lane: LaneId, sequence: u64 },
    #[error("a record of {bytes} bytes is too large for the log")]
    TooLarge { bytes: usize },
    #[error("the log has no number left for another record: begin a new log")]
    Full,
    #[error("too many batches wait in the log for an epoch that orders them")]
    TooManyUnordered,
    #[error(
        "an earlier write to the log failed, so nobody knows what the disk holds: see the node's \
         output for the first error, repair the disk, and start the node again"
    )]
    Poisoned,
}

impl LogError {
    fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.into(), source }
    }
}
