//! The executor of one host: runs the transactions of its partitions.
//!
//! This crate owns the threads that drive the state machines of `parsec-executor-core`, the
//! exchange with other executors, the epoch-atomic commit, and answers to queries. It must not
//! know who ordered the transactions, or how: it takes epochs as they come.
//!
//! ```text
//!            Order, Exchange ──▶ [driver] Host: what to tell whom       Query
//!   sequencer, peers ◀── sender ◀── │ epochs, pushes                    ──▶ snapshot reads, receipts
//!                            ▲      ▼
//!     [shard]  inbox ──▶ Partition (a monitor) ◀──▶ workers: execute, hand back, take the next
//!                             │ finished epochs, in order      └──▶ pushes, receipts ──▶ sender
//!                             ▼
//!     [committer]        Store::commit ──▶ applied ──▶ driver ──▶ Progress to the sequencer
//!     [syncer]           Store::sync   ──▶ durable ──▶ driver ──▶ Watermarks to the peers
//! ```
//!
//! What is told to whom is decided in `parsec-executor-core`; the driver carries it.
//!
//! **Invariants**
//! - An error of a runtime or a store that is no outcome stops the executor before it answers
//!   anyone ([`Executor::stopped`]); there is no third way.
//! - What is sent on a link that breaks is lost, and sent again when the link is up, from the
//!   positions that the other side tells.

mod commit;
mod config;
mod driver;
mod host;
mod monitor;
mod outgoing;
mod queries;
mod send;
mod shard;
mod sync;
mod worker;

pub use commit::to_commit;
pub use config::{ExecutorConfig, Stop};
pub use host::Executor;
pub use parsec_executor_core::Traffic;
