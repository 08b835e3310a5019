//! What measures Parsec: workloads, and a load generator that runs them against a cluster.
//!
//! A [`workload`] gives the transactions that set it up, a stream of load transactions that are
//! built (and signed) before the clock starts, and an [`Audit`](workload::Audit) that says what
//! the state must be afterwards. The [`load`] generator keeps a number of transactions in flight
//! over a [`parsec_client::Client`] and reports rates and latencies.
//!
//! Everything is a function of a seed: the same seed gives the same keys, accounts, amounts and
//! signatures, byte for byte. A second run with the same seed against the same cluster is no
//! second run: each transaction has executed already, and its first receipt comes back.
//!
//! It must not know anything that a client does not know: a cluster is measured through its door.

#![allow(
    clippy::float_arithmetic,
    reason = "rates, quantiles and skew are for people; nothing here is replicated"
)]

pub mod account;
pub mod contracts;
pub mod draw;
pub mod load;
pub mod record;
pub mod report;
pub mod usl;
pub mod workload;

#[cfg(test)]
mod testing;
mod twin;
