//! The chronicle: the Ethereum blocks that epochs are, sealed once what became of their
//! transactions is known everywhere.
//!
//! All of it can be had again from the log and the partitions. It follows what every partition
//! has applied, and holds up nobody: while it is behind, only those wait who ask for blocks.

mod blocks;
mod press;
mod seal;
mod source;
mod summary;

pub(crate) use blocks::{Blocks, Piece};
pub(crate) use press::{Job, press_all};
pub(crate) use seal::Sealer;
pub(crate) use source::Recent;
pub(crate) use summary::Summarizer;

pub use blocks::BlocksError;
