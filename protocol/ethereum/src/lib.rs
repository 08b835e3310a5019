//! What the Ethereum gateway and the Ethereum runtime say to one another.
//!
//! This crate owns the words that both need and neither may define for the other: blocks with what
//! became of their transactions ([`Block`]), and questions about the state that are answered by
//! executing something without ordering it ([`Query`]). They cross a wire between hosts.
//!
//! It must not know how a question is answered, nor how JSON-RPC asks it.

pub mod block;
pub mod pool;
pub mod query;
pub mod revert;

pub use block::{Block, BlockTransaction};
pub use pool::{Pool, PoolTransaction};
pub use query::{
    Account, Answer, CallResult, Environment, Proof, Query, QueryError, Recorded, Simulation, Task,
    Traced, TransactionTrace,
};
pub use revert::revert_reason;
