//! The executor of one host: runs the transactions of its partitions.
//!
//! This crate owns the threads that drive the state machines of `parsec-executor-core`, the
//! exchange with other executors, the epoch-atomic commit, and answers to queries. It must not
//! know who ordered the transactions, or how: it takes epochs as they come.
//!
//! ```text
//!            Order            Exchange                     Query
//!   sequencer ──▶ Intake   peers ──▶ inbox of a partition  ──▶ snapshot reads, receipts, digests
//!                   │ epochs          │
//!                   ▼                 ▼
//!     [shard]  inbox ──▶ Partition (a monitor) ◀──▶ workers: execute, hand back, take the next
//!                             │ finished epochs, in order
//!                             ▼
//!     [committer]        Store::commit ──▶ applied ──▶ Progress to the sequencer
//!     [syncer]           Store::sync   ──▶ durable ──▶ Watermarks to the peers
//! ```
//!
//! **Invariants**
//! - An error of a runtime or a store that is no outcome stops the executor before it answers
//!   anyone ([`Executor::stopped`]); there is no third way.
//! - What is sent on a link that breaks is lost, and sent again when the link is up, from the
//!   positions that the other side tells.

mod commit;
mod config;
mod host;
mod links;
mod outgoing;
mod queries;
mod shard;
mod worker;

pub use config::{ExecutorConfig, Stop};
pub use host::Executor;
