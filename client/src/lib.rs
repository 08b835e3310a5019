//! The Rust client of a Parsec cluster, over QUIC.
//!
//! ```no_run
//! use parsec_client::{Client, ClientConfig};
//! use parsec_protocol::transport::tls::Trust;
//! use parsec_protocol::{RuntimeId, Transaction};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::load("ca.pem".as_ref())?;
//! let client = Client::connect(ClientConfig::new(vec!["127.0.0.1:7100".parse()?], trust)).await?;
//! let receipt = client.submit_one(Transaction::new(RuntimeId::LUA, "payload")).await?;
//! println!("{} is at {}: {:?}", receipt.id, receipt.position, receipt.outcome);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] keeps one connection and makes it again when it breaks, to the next of its
//! addresses. What has no receipt by then is submitted again: a transaction executes at most once
//! however often it is submitted, so that this is safe. A result is one of:
//!
//! * a receipt: the transaction was executed; [`Receipt::outcome`](parsec_protocol::Receipt) says
//!   whether it took effect;
//! * [`Error::Rejected`]: it was refused before it was ordered, and has no effect;
//! * [`Error::NotSent`]: it was never handed to a server until its deadline, and has no effect;
//! * [`Error::Unknown`]: it was handed to a server, but nothing is known of it at its deadline.
//!
//! **Invariant:** no more transactions than the server's welcome allows are on the way, and no
//! more than [`ClientConfig::pending_max`] are kept; [`Client::submit`] waits for room.
//!
//! What is not there: discovery of addresses, and persistence. A client process that dies must
//! submit again what it has no receipt for, with the same payload and salt, to learn of it.

mod client;
mod driver;
mod error;
mod pending;
mod submission;

pub use client::{Client, ClientConfig};
pub use error::{Error, Rejection};
pub use submission::Submission;
