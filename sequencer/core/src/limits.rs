//! Limits of a lane. What they keep out is refused with [`Refused::Busy`](crate::Refused) before
//! it is ordered; what is ordered is never dropped.

use parsec_protocol::limits::{
    BATCH_BYTES_TARGET, BATCH_TRANSACTIONS_MAX, EPOCH_BATCHES_MAX, SUBMISSION_TRANSACTIONS_MAX,
};

/// Most transactions that wait to be put into a batch. Full: refused as busy.
pub const PENDING_TRANSACTIONS_MAX: usize = 65_536;
/// Most bytes of transactions that wait to be put into a batch. Full: refused as busy.
pub const PENDING_BYTES_MAX: usize = 256 * 1_024 * 1_024;
/// Most transactions that have been put into a batch and have no final receipt. Full: no more
/// batches are closed.
pub const IN_FLIGHT_TRANSACTIONS_MAX: usize = 65_536;
/// Most epochs that the slowest partition may be behind. Full: no more batches are closed. Half of
/// the snapshots that a partition keeps, so that a trial can read all of them at one epoch.
pub const EPOCHS_IN_FLIGHT_MAX: u64 = 128;
/// The attempt from which on a transaction that strays runs apart from all others, in a group of those
/// that do: what changes so fast that two more footprints were out of date will change again.
pub const APART_ATTEMPT: u8 = 3;
/// Most transactions of such a group.
pub const APART_TRANSACTIONS_MAX: usize = 256;
/// Most tokens that wait for one transaction. Full: refused as busy.
pub const TOKENS_PER_TRANSACTION_MAX: usize = 64;
/// Most transactions kept in memory because they are not in the index of ids yet, or not
/// finished. Full: no more batches are closed.
pub const RETAINED_TRANSACTIONS_MAX: usize = 1_048_576;
/// Most bytes of such transactions. Full: no more batches are closed.
pub const RETAINED_BYTES_MAX: usize = 1_024 * 1_024 * 1_024;
/// Most epochs remembered because an earlier one has an unfinished transaction. Full: no more
/// batches are closed, except with transactions that strayed.
pub const RETAINED_EPOCHS_MAX: usize = 65_536;
/// Microseconds between epochs under load, at least: an epoch costs messages and wake-ups in all
/// processes, whatever is in it. Half of this is what waiting adds to the latency of what comes while
/// something executes.
pub const EPOCH_INTERVAL_MIN_US: u64 = 4_000;
/// Microseconds between epochs under load for each host, which all get a message in each epoch, at
/// least ...
pub const EPOCH_INTERVAL_PER_HOST_US: u64 = 500;
/// ... but never more than that: it is what waiting for an epoch adds to latency.
pub const EPOCH_INTERVAL_MAX_US: u64 = 20_000;
/// How many epochs the slowest partition may be behind before they are further apart.
pub const EPOCHS_UNHURRIED: u64 = 8;

/// Most ids written to the index at a time.
pub const INDEX_IDS_PER_WRITE: usize = 16_384;

/// Most epochs kept in memory to be sent. Hosts that are further behind are sent the log.
pub const RING_EPOCHS_MAX: usize = 1_024;
/// About the most bytes of such epochs, as they are on the wire; in memory they take more.
pub const RING_BYTES_MAX: usize = 64 * 1_024 * 1_024;

const _: () = assert!(SUBMISSION_TRANSACTIONS_MAX <= PENDING_TRANSACTIONS_MAX);
const _: () = assert!(BATCH_TRANSACTIONS_MAX <= IN_FLIGHT_TRANSACTIONS_MAX);
const _: () = assert!(IN_FLIGHT_TRANSACTIONS_MAX <= RETAINED_TRANSACTIONS_MAX);
const _: () = assert!(BATCH_BYTES_TARGET < PENDING_BYTES_MAX);
const _: () = assert!(PENDING_BYTES_MAX < RETAINED_BYTES_MAX);
const _: () = assert!(EPOCH_BATCHES_MAX >= 1);
