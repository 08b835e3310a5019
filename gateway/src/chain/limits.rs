//! Limits of the index of blocks. Tests make do with less, to come upon all of them.

/// Transactions of a block are stored in chunks of about this many bytes, so that one can be read
/// without the others.
pub(super) const CHUNK_BYTES_TARGET: usize = if cfg!(test) { 512 } else { 16 * 1_024 };
/// Postings that are kept in memory before they are written. Those are found again by reading
/// the blocks when the index is opened.
pub(super) const TAIL_ENTRIES_MAX: usize = if cfg!(test) { 96 } else { 131_072 };
/// Places in one stored record of postings.
pub(super) const RECORD_PLACES_MAX: usize = if cfg!(test) { 5 } else { 4_096 };
/// Changes of the chain that one who listens may be behind.
pub const CHANGES_BEHIND_MAX: usize = 1_024;
/// Bytes of the cache of stored records.
pub(super) const CACHE_BYTES: u64 = 64 * 1_024 * 1_024;
/// Bytes of journals at which the oldest is given up by flushing what needs it.
pub(super) const JOURNAL_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
