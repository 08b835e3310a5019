//! The words that Parsec's rooms speak with one another, and with clients.
//!
//! This crate owns the types that cross a room's door, a wire or the log: keys and footprints,
//! transactions, batches, epochs, slices, pushes, receipts, error codes and limits; their one
//! encoding ([`codec`]); and the QUIC [`transport`] that carries them between hosts.
//!
//! It must not know any other room: not what a runtime does with a payload, not how a partition
//! stores a value, not how the order came about.
//!
//! Every byte that arrives from outside passes [`codec::decode`]: the archive is checked by
//! bytecheck, then the value is checked against its invariants and [`limits`], before anything
//! else sees it.

pub mod codec;
pub mod epoch;
pub mod footprint;
pub mod key;
pub mod limits;
pub mod message;
mod packed;
pub mod placement;
pub mod plant;
pub mod receipt;
mod shared;
pub mod short;
pub mod slice;
pub mod transaction;
pub mod transport;
pub mod value;

pub use codec::{Malformed, Wire};
pub use epoch::{EpochNumber, EpochRecord, Position};
pub use footprint::{Access, Footprint, Mode};
pub use key::{Key, Namespace, Slot};
pub use placement::{NodeId, PartitionId, PartitionMap};
pub use receipt::{ErrorCode, Event, Outcome, Receipt, Topics};
pub use short::ShortBytes;
pub use slice::{
    Forward, Forwards, HostSlices, Push, PushItems, PushKind, Role, Slice, SliceEntry,
};
pub use transaction::{Batch, BatchRef, Entry, LaneId, RuntimeId, Transaction, TxId};
pub use value::{Change, Delta, Value};
