//! The development chain: what `parsec dev` runs.
//!
//! This crate owns Parsec's serial execution for people who write contracts: [`DevChain`], a chain
//! on one thread, whose blocks are made at once, and whose state and time can be changed and taken
//! back; and what such chains offer beside Ethereum's own methods.
//!
//! It must not know how transactions are executed (`parsec-runtimes` does), nor how Ethereum's
//! methods are answered (`parsec-gateway` does).

pub mod accounts;
mod backend;
pub mod chain;
mod clock;
pub mod config;
pub mod pool;
pub mod rpc;
mod state;
pub mod transaction;

pub use accounts::Accounts;
pub use backend::{DevBackend, StartError};
pub use chain::{DevChain, ImportError};
pub use config::{DevConfig, Mining};
pub use transaction::Submission;
