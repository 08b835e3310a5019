//! What a host keeps: the state of its partitions, and the log of batches and epochs.
//!
//! - [`store`]: one partition's state, receipts and outbox, committed atomically per epoch, with
//!   snapshots. [`FjallStore`] keeps it on disk, [`WriteBehindStore`] gathers commits in memory
//!   before it, and [`MemoryStore`] is their twin for tests and for clusters that need not survive.
//! - [`log`]: the hash-chained log, which is also the format of recordings (`FORMAT.md`).
//! - [`digest`]: the state digest, by which hosts, replicas and replays are compared.
//! - [`disk`]: what the log needs of a disk, so that a simulated one can stand in for it.
//!
//! The log is the truth and is synced before anyone hears "committed". A store is a cache of
//! what the log implies: it may lose its last second in a crash, and it is rebuilt when damaged.
//! Damage is never worked around in silence: what was synced and is not there is an error.
//!
//! This crate knows neither runtimes nor the network.

pub mod digest;
pub mod disk;
mod files;
pub mod limits;
pub mod log;
pub mod store;

pub use digest::Digest;
pub use disk::{Disk, DiskFile, StdDisk};
pub use log::{LogEnd, LogError, LogLocation, LogOptions, LogReader, LogWriter, Record};
pub use store::{
    Applied, EpochCommit, FjallStore, Floor, MemoryStore, Store, StoreError, StoreOptions, Write,
    WriteBehindStore,
};
