//! A whole cluster, over real QUIC, against the serial oracle.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod against_oracle;
mod assembly;
mod benchmarks;
mod blocks;
mod deployments;
mod history;
mod hostile;
mod load;
mod mainnet;
mod one_token;
mod renewed;
mod replayed;
mod restart;
mod stranger;
mod strays;
mod upgrades;
mod workload;
