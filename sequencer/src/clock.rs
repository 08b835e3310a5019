//! The clock of the node: the only place of this crate that reads it for the order.

use std::time::{SystemTime, UNIX_EPOCH};

use parsec_sequencer_core::Tick;

/// Now. The ledger never lets timestamps go back, whatever this says.
pub(crate) fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
