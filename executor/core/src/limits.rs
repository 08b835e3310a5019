//! Every limit of the executor's core.

/// Keys whose values a partition keeps in memory; keys in use are kept beyond it.
pub const CACHE_KEYS_MAX: usize = 1 << 20;
/// Bytes of keys and values that a partition keeps in memory; keys in use are kept beyond it.
pub const CACHE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How many cached keys are looked at to find one to drop, for each key that comes in.
pub const EVICTION_STEPS: usize = 16;
/// Transactions that may wait or run at one partition before it takes in no further epoch. What is
/// full then is the stream from the sequencer, which stops ordering.
pub const NODES_MAX: usize = 65_536;
/// Slices that may be there before the epoch that orders them.
pub const UNORDERED_SLICES_MAX: usize = 4_096;
/// Pushes that a partition keeps for transactions that it has not entered into its graph yet. A
/// well-behaved peer runs ahead by no more than the sequencer's window. What exceeds it is asked
/// for again when there is room.
pub const EARLY_PUSHES_MAX: usize = 1 << 20;
/// How many transactions are ready before no more are entered into the graph: few enough that they
/// are executed while their keys are in a cache.
pub const READY_AHEAD: usize = 64;
/// With fewer transactions ready, more are entered: enough for the workers of a partition. Many are
/// entered at a time, so that the processor has the code for it at hand.
pub const READY_LOW: usize = 8;
/// Keys of the next transactions that are looked up together, about: as many as the processor can wait
/// for at a time, and as stay in its first cache until they are used.
pub const KEYS_TOGETHER: usize = 64;

const _: () = assert!(READY_LOW < READY_AHEAD);
/// Stored receipts, or pushes, that are read at a time to be sent again.
pub const RESEND_ITEMS: usize = 4_096;
