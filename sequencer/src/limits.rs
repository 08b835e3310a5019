//! Limits of the sequencer's shell. Those of the lane are in [`parsec_sequencer_core::limits`].

use std::time::Duration;

use parsec_protocol::limits::{CLIENT_FRAME_BYTES_MAX, FRAME_BYTES_TARGET};

/// Most transactions that a connection may have without a receipt, unless configured. What
/// exceeds it is refused as busy.
pub const CONNECTION_IN_FLIGHT_MAX: u32 = 8_192;
/// Most submissions of a connection in admission and discovery at a time. Full: the connection is
/// not read.
pub const CONNECTION_UNITS_MAX: usize = 8;
/// Bytes of a connection's submissions in admission and discovery at a time. Full: the connection
/// is not read.
pub const CONNECTION_ADMISSION_BYTES_MAX: usize = 2 * CLIENT_FRAME_BYTES_MAX;
/// Bytes of submissions in admission and discovery at a time, in all. Full: they wait in turn.
pub const ADMISSION_BYTES_MAX: usize = 512 * 1_024 * 1_024;
/// Most reads and status requests of a connection at a time. Full: the connection is not read.
pub const CONNECTION_REQUESTS_MAX: usize = 16;
/// Most answers (without receipts) that wait to be written to a connection. Full: the connection
/// is not read.
pub const CONNECTION_ANSWERS_MAX: usize = 64;
/// Most receipts in one frame to a client.
pub const FRAME_RECEIPTS_MAX: usize = 4_096;

/// Most inputs that wait for the driver. Full: whoever sends one waits.
pub const INPUTS_MAX: usize = 1_024;
/// Most inputs that the driver takes before it orders.
pub const INPUTS_PER_TURN_MAX: usize = 256;
/// Most records that wait to be written to the log. Full: the driver waits.
pub const LOG_COMMANDS_MAX: usize = 1_024;
/// Most epochs that wait to be cut into slices. Full: the driver waits.
pub const DISPATCHES_MAX: usize = 256;
/// Most epochs that wait to be put into the index of ids. Full: dispatching waits; the lane's own
/// limit is reached before.
pub const INDEX_EPOCHS_MAX: usize = parsec_sequencer_core::limits::RETAINED_EPOCHS_MAX;
/// How long the index waits for more ids before it writes.
pub const INDEX_DELAY: Duration = Duration::from_millis(200);
/// Ids of the index that are in memory, about, before they go to disk; how many are read from the
/// log after a crash. They take some 50 MB.
pub const INDEX_IDS_IN_MEMORY_MAX: usize = 400_000;
/// Bytes of the index's cache of blocks.
pub const INDEX_CACHE_BYTES: u64 = 16 * 1_024 * 1_024;
/// Bits that the filter of all ids has for each. Of ids that are not there, each of its parts that is
/// full takes fewer than one in fifty for one that is.
pub const INDEX_FILTER_BITS_PER_ID: usize = 12;
/// Ids that its first part is for, 6 MiB. Each other part is for as many as all before it.
pub const INDEX_FILTER_IDS_FIRST: usize = 4 * 1_024 * 1_024;
/// Its parts at most: 384 MiB, for 268 million ids. With more, ever more lookups go to the tables.
pub const INDEX_FILTER_PARTS_MAX: usize = 7;

/// Most epochs that are kept in memory for the chronicle of blocks. What is older is read from the
/// log.
pub const CHRONICLE_EPOCHS_MAX: usize = 4_096;
/// Most transactions in these epochs.
pub const CHRONICLE_RECENT_TRANSACTIONS_MAX: u64 = 32_768;
/// How long blocks are gathered before they are sealed, while nobody waits for one.
pub const SEAL_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of the cache of sealed blocks.
pub const BLOCKS_CACHE_BYTES: u64 = 16 * 1_024 * 1_024;
/// Bytes of sealed blocks that are gathered in memory before they are sorted onto the disk. There
/// may be twice that: the engine keeps those that it wrote last until it writes the next.
pub const BLOCKS_MEMTABLE_BYTES: u64 = 8 * 1_024 * 1_024;
/// How long a client that asks for a block waits for it, if there is none yet.
pub const BLOCKS_WAIT: Duration = Duration::from_secs(10);

/// Most summaries that wait to be made; the lane asks for one at a time.
pub const SUMMARIES_MAX: usize = 16;
/// Most questions to runtimes that are answered at a time. Full: they wait in turn.
pub const QUESTIONS_MAX: usize = 16;

/// Epochs read ahead from the log for a host that is far behind.
pub const CATCH_UP_EPOCHS: usize = 16;

/// Most queries to executors without an answer. Full: who asks waits.
pub const QUERIES_MAX: usize = 1_024;
/// How long a query to an executor may take. Later: it failed.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most receipts of known transactions that are asked for at a time, for one submission.
pub const RECEIPTS_AT_A_TIME: usize = 64;
/// Most keys in one query to an executor.
pub const QUERY_KEYS_MAX: usize = 1_024;
/// How long to wait before asking again for the receipt of a known transaction, and before
/// finding a footprint again for a transaction that strayed.
pub const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Most submissions whose footprints are being found at a time. Full: they wait in turn.
pub const DISCOVERIES_MAX: usize = 256;
/// Most rounds of trial and read to find a footprint: enough for the longest chase of a native
/// program. More: refused as too large.
pub const DISCOVERY_ROUNDS_MAX: usize = parsec_runtimes::native::HOPS_MAX + 16;
/// Most time that the trials of one transaction may take together. More: refused as too large.
pub const TRIAL_TIME_MAX: Duration = Duration::from_secs(5);
/// Most times that the transactions of a submission are tried in order because earlier ones may
/// send later ones another way. More: what was found is taken.
pub const ORDERLY_ROUNDS_MAX: usize = 8;
/// How long they are tried in order at most, altogether: a group of strays holds up everybody
/// meanwhile. Longer: what was found is taken.
pub const ORDERLY_TIME_MAX: Duration = Duration::from_secs(1);
/// Most bytes of values read to find the footprints of one submission. More: refused as too large.
pub const DISCOVERY_BYTES_MAX: usize = 128 * 1_024 * 1_024;
/// Most transactions that strayed whose footprints are found together.
pub const REDISCOVERY_UNIT_MAX: usize = 256;
/// Most such groups at a time.
pub const REDISCOVERIES_MAX: usize = 32;
/// Bytes of replicated values (contract code) kept for finding footprints. Full: what was not
/// used for longest goes.
pub const CACHE_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Bytes of other values kept to guess with. Full: what was not used for longest goes.
pub const RECENT_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Longest such value, bytes.
pub const RECENT_VALUE_BYTES_MAX: usize = 256;
/// Bytes kept of what deployments on their way will write. Full: what was not used for longest
/// goes.
pub const EXPECTED_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Epochs for which a deployment is expected to take effect.
pub const EXPECTED_EPOCHS: u64 = 1_024;
/// Most transactions that are known to be on their way to count a key up. Full: all are forgotten.
pub const ANNOUNCED_MAX: usize = 65_536;
/// Epochs for which one is expected to be ordered.
pub const ANNOUNCED_EPOCHS: u64 = 1_024;
/// Epochs for which it is remembered then: snapshots of questions that came earlier are older.
pub const COUNTED_EPOCHS: u64 = 256;
/// Epochs after a stray in which it is taken into account that others of its kind stray, too.
pub const CAUTION_EPOCHS: u64 = 64;
/// Most attempts in which a stray declares its footprint anew. After that, it is tried.
pub const DECLARED_ATTEMPTS_MAX: u8 = 4;

/// Stack of the threads that admit and try transactions, bytes.
pub const WORKER_STACK_BYTES: usize = 16 * 1_024 * 1_024;
/// Transactions that a thread admits at least before another one helps.
pub const ADMISSIONS_MIN: usize = 32;
/// Transactions that a thread tries at least before another one helps: each takes much longer.
pub const TRIALS_MIN: usize = 2;

const _: () = assert!(CLIENT_FRAME_BYTES_MAX <= CONNECTION_ADMISSION_BYTES_MAX);
const _: () = assert!(CONNECTION_ADMISSION_BYTES_MAX <= ADMISSION_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_TARGET < CLIENT_FRAME_BYTES_MAX);
