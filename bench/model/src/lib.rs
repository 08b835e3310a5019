//! A model of a cluster of many hosts. Nothing that comes out of it is a measurement.
//!
//! It runs the production state machines (lane, ledger, followers, host protocol, dependency graph)
//! for any number of hosts in one thread and in virtual time, with real transactions of a real
//! workload, whose footprints decide what waits for what and what crosses the network. Executions
//! are real, too, so that the state and the receipts are those that a cluster would have. What is
//! modelled is time:
//!
//! - each stage of the way of a transaction costs processor time, which [`calibrate`] takes from a
//!   measured run ([`costs`]);
//! - a node has so much of a processor, for which its stages queue ([`processor`]);
//! - messages have the size of their real encoding, and pass links of limited bandwidth and a fixed
//!   latency ([`link`]).
//!
//! [`predict`] asks it about numbers of hosts that nobody has, and checks it against those that
//! were measured.
//!
//! It must not know how a run was measured, or who prints what it predicts.

#![allow(
    clippy::float_arithmetic,
    reason = "costs and rates are for people; nothing here is replicated"
)]

mod agenda;
pub mod calibrate;
pub mod costs;
pub mod fit;
pub mod link;
pub mod load;
pub mod outcome;
pub mod predict;
pub mod processor;
mod world;

pub use costs::{Cost, Costs, Stage, Work};
pub use link::Link;
pub use load::{Load, Unloadable};
pub use outcome::{Outcome, Used};
pub use world::{Admission, Broken, Capacity, Machine, Options, Ordered, Simulation};

#[cfg(test)]
mod tests;
