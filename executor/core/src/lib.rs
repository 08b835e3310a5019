//! The pure heart of an executor: state machines without clocks, sockets, threads or disks.
//!
//! - [`Host`] is the protocol between hosts: what is told to whom, and sent again after a loss.
//! - [`Intake`] puts together, for one host, the slices and epoch records that arrive.
//! - [`Partition`] schedules the transactions of one partition by a dependency graph over keys,
//!   exchanges values and writes with other partitions, and finishes epochs.
//!
//! Events go in through `on_…` methods; work comes out through [`Partition::take_ready`], effects
//! through [`Partition::poll_output`], which is called until it returns `None` after every event.
//!
//! This crate must not know how a transaction is executed, how a partition is stored, or who
//! ordered the transactions and how.

mod copies;
mod epochs;
mod exchange;
pub mod frames;
mod host;
mod intake;
mod keys;
pub mod limits;
mod nodes;
mod partition;
mod pending;
mod queue;
mod routes;
mod traffic;

pub use epochs::{EpochWrite, FinishedEpoch};
pub use host::{Host, HostError, HostOutput, Refused, Request};
pub use intake::{EpochContext, Intake, IntakeError, ReadyEpoch};
pub use keys::KeyIndex;
pub use partition::{Output, Partition, Task};
pub use routes::{Destination, Routes, Unheld};
pub use traffic::Traffic;
