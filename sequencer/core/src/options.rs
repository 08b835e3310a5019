//! What can be set about a lane.

use parsec_protocol::Key;
use parsec_protocol::limits::{BATCH_BYTES_TARGET, BATCH_TRANSACTIONS_MAX};

use crate::limits;

/// How much a lane takes, and how fast it goes.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Most transactions that wait to be put into a batch.
    pub pending_transactions_max: usize,
    /// Most bytes of transactions that wait to be put into a batch.
    pub pending_bytes_max: usize,
    /// Most transactions that were put into a batch and have no final receipt.
    pub in_flight_transactions_max: usize,
    /// Most epochs that the slowest partition may be behind; at least 2.
    pub epochs_in_flight_max: u64,
    /// A batch is closed when it has this many transactions.
    pub batch_transactions_max: usize,
    /// A batch is closed when it has this many bytes.
    pub batch_bytes_target: usize,
    /// Most transactions kept because they are unfinished or not in the index of ids.
    pub retained_transactions_max: usize,
    /// Most bytes of those.
    pub retained_bytes_max: usize,
    /// Most epochs remembered because an earlier one is unfinished.
    pub retained_epochs_max: usize,
    /// Microseconds between epochs, at least, unless nothing is executing. More if partitions are
    /// behind ([`limits::EPOCHS_UNHURRIED`]).
    pub epoch_interval_min_us: u64,
    /// A key whose value sums up what all epochs so far came to (the hashes of Ethereum's blocks,
    /// which depend on receipts). A transaction that may touch it is put into a batch only when
    /// nothing executes, behind one that writes the summary; those behind it wait, too.
    pub summary_key: Option<Key>,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            pending_transactions_max: limits::PENDING_TRANSACTIONS_MAX,
            pending_bytes_max: limits::PENDING_BYTES_MAX,
            in_flight_transactions_max: limits::IN_FLIGHT_TRANSACTIONS_MAX,
            epochs_in_flight_max: limits::EPOCHS_IN_FLIGHT_MAX,
            batch_transactions_max: BATCH_TRANSACTIONS_MAX,
            batch_bytes_target: BATCH_BYTES_TARGET,
            retained_transactions_max: limits::RETAINED_TRANSACTIONS_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
            retained_epochs_max: limits::RETAINED_EPOCHS_MAX,
            epoch_interval_min_us: limits::EPOCH_INTERVAL_MIN_US,
            summary_key: None,
        }
    }
}

impl LaneOptions {
    /// The usual ones of a cluster with so many hosts. An epoch costs a message to each of them,
    /// whatever is in it, so those of larger clusters are further apart.
    #[must_use]
    pub fn for_hosts(hosts: usize) -> Self {
        let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
        let interval = limits::EPOCH_INTERVAL_PER_HOST_US.saturating_mul(hosts);
        let epoch_interval_min_us =
            interval.clamp(limits::EPOCH_INTERVAL_MIN_US, limits::EPOCH_INTERVAL_MAX_US);
        Self { epoch_interval_min_us, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_further_apart_the_more_hosts_there_are_up_to_a_limit() {
        let interval = |hosts| LaneOptions::for_hosts(hosts).epoch_interval_min_us;
        assert_eq!(
            [0, 1, 2, 16, 40, 1_024].map(interval),
            [4_000, 4_000, 4_000, 8_000, 20_000, 20_000]
        );
    }
}
