//! The Ethereum JSON-RPC gateway.
//!
//! This crate owns how Ethereum's tools see Parsec: the methods of JSON-RPC over HTTP and
//! WebSocket, their shapes and errors, filters and subscriptions, and the index of blocks,
//! transactions, receipts and logs that answers them.
//!
//! It must not know how transactions are ordered or executed: whoever does stands behind
//! [`Backend`].

pub mod backend;
pub mod chain;
mod dispatch;
mod filters;
mod limits;
mod methods;
mod node;
pub mod rpc;
mod sealed;
mod server;
pub mod shape;
mod subscriptions;

use alloy_consensus::{EthereumTxEnvelope, TxEip4844};

pub use backend::{Answering, At, Backend, Refused};
pub use chain::{Chain, ChainError};
pub use limits::Limits;
pub use rpc::{Methods, RpcError};
pub use server::{Auth, AuthError, Gateway, GatewayConfig};

/// A signed transaction of any type, without the blobs themselves.
pub type Transaction = EthereumTxEnvelope<TxEip4844>;
