//! Every limit of this crate.

use parsec_protocol::limits::{
    BATCH_BYTES_TARGET, CLIENT_FRAME_BYTES_MAX, FRAME_BYTES_TARGET, PEER_FRAME_BYTES_MAX,
};

/// How many commits' snapshots a store keeps for reads of the past.
pub const SNAPSHOTS_KEPT: usize = 256;
/// About the bytes of commits that gather in memory before they go to disk as one.
pub const RUN_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Commits that gather in memory before they go to disk as one, at most.
pub const RUN_COMMITS_MAX: usize = 4_096;
/// A record of packed receipts or pushes is closed when it reaches this many bytes.
pub const PACKED_BYTES_TARGET: usize = 256 * 1_024;
/// Bytes of a store's cache of blocks, unless its options say otherwise. What is in use is cached
/// by the executor; this is for what comes back after it was dropped there.
pub const CACHE_BYTES: u64 = 64 * 1_024 * 1_024;
/// Bytes of the state that the engine sorts in memory before they go to a table, as the engine
/// counts them, which leaves out the nodes of its lists. There may be twice that, because what was
/// written is kept until the engine's next look at what nobody reads any more; and five times that
/// if the disk is slow, when commits wait.
pub const STATE_MEMTABLE_BYTES: u64 = 16 * 1_024 * 1_024;
/// The same for receipts: large records, so that tables of fewer bytes would be written all the
/// time.
pub const RECORDS_MEMTABLE_BYTES: u64 = 8 * 1_024 * 1_024;
/// The same for what is small: digests and marks. With more, they would gather for long.
pub const MARKS_MEMTABLE_BYTES: u64 = 2 * 1_024 * 1_024;
/// Sorted runs of the state that the engine lets gather before it merges them with the rest. With
/// fewer, all is written again more often; with more, a read that finds nothing looks into more.
pub const STATE_RUNS_MAX: u8 = 8;
/// Bytes of one table of the state. What was merged once is merged again as a whole until it is this
/// times [`STATE_RUNS_MAX`].
pub const STATE_TABLE_BYTES: u64 = 16 * 1_024 * 1_024;
/// Bytes of the store's journals at which the oldest is given up by flushing what needs it.
pub const JOURNAL_BYTES_MAX: u64 = 512 * 1_024 * 1_024;

/// A segment of the log is closed when it reaches this many bytes.
pub const SEGMENT_BYTES: u64 = 64 * 1_024 * 1_024;
/// Longest body of a record of the log, bytes.
pub const RECORD_BODY_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX;
/// Most batches in the log that no epoch has ordered yet.
pub const UNORDERED_BATCHES_MAX: usize = 65_536;

const _: () = assert!(BATCH_BYTES_TARGET + CLIENT_FRAME_BYTES_MAX < RECORD_BODY_BYTES_MAX);
const _: () = assert!(RECORD_BODY_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(PACKED_BYTES_TARGET <= FRAME_BYTES_TARGET);
