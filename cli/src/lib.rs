//! The one binary, `parsec`: wires the rooms together.
//!
//! This crate owns the command line, the configuration and genesis files, and the embedded
//! cluster that `parsec demo` and the tests of the whole run, and clusters of real processes. It must not know how any room does
//! its work.

pub mod args;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod failure;
pub mod genesis;
pub mod node;
pub mod processes;
pub mod telemetry;

/// The chain id of clusters that name no other: the one of PArSEC.
pub const DEFAULT_CHAIN_ID: u64 = 0xcbdc;
