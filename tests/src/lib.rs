//! What crosses rooms: the harness of the tests of the whole cluster.
//!
//! A [`House`] is a cluster of real sequencer and executors over real QUIC, in a directory of its
//! own. What its clients were told, what it answers to reads, and what it holds is compared with a
//! [`Replayed`] log: the serial oracle's word on the order that the cluster agreed on.
//!
//! Whatever goes wrong panics, since only tests call this. **Invariant:** nothing here waits for
//! ever; what takes longer than [`PATIENCE`] fails the test.

#![allow(clippy::unwrap_used, reason = "what goes wrong in a harness fails the test")]

pub mod blocktest;
pub mod conformance;
mod faults;
mod house;
mod replayed;
mod serial;
pub mod statetest;
mod wallet;

use std::time::Duration;

pub use faults::HeldStores;
pub use house::{House, Running, Shape, copy_log};
pub use replayed::{Replayed, Sighting, sum_of};
pub use serial::Serial;
pub use wallet::Wallet;

/// How long any one step of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(90);
