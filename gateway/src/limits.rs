//! Limits of a gateway, which its operator can change.

use std::time::Duration;

/// What clients may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request, or of a message over WebSocket.
    pub request_bytes_max: usize,
    /// Bytes of an answer. What would be longer is an error instead.
    pub response_bytes_max: usize,
    /// Requests in a batch.
    pub batch_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
    /// Requests of a WebSocket connection that are answered at a time; later ones wait.
    pub requests_per_connection_max: usize,
    /// Subscriptions of a WebSocket connection.
    pub subscriptions_max: usize,
    /// Blocks that a search for logs may range over.
    pub log_blocks_max: u64,
    /// Log entries that a search may find.
    pub logs_max: usize,
    /// Transactions that a search for logs may look at.
    pub log_candidates_max: usize,
    /// Addresses, or topics in one position, that a filter may name.
    pub log_terms_max: usize,
    /// Filters at a time.
    pub filters_max: usize,
    /// A filter is forgotten when nobody asked for its changes that long.
    pub filter_idle_max: Duration,
    /// Executions (calls, estimates, traces) at a time; later ones wait.
    pub executions_max: usize,
    /// How long an execution waits for others.
    pub execution_wait_max: Duration,
    /// How long a client may take to send a request, or to take an answer.
    pub transfer_time_max: Duration,
    /// How long `eth_sendRawTransactionSync` waits for the receipt if it is not told.
    pub receipt_wait: Duration,
    /// How long it waits at most.
    pub receipt_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 10 * 1_024 * 1_024,
            response_bytes_max: 128 * 1_024 * 1_024,
            batch_max: 1_000,
            connections_max: 1_024,
            requests_per_connection_max: 64,
            subscriptions_max: 256,
            log_blocks_max: u64::MAX,
            logs_max: 100_000,
            log_candidates_max: 1_000_000,
            log_terms_max: 1_000,
            filters_max: 10_000,
            filter_idle_max: Duration::from_secs(300),
            executions_max: 64,
            execution_wait_max: Duration::from_secs(30),
            transfer_time_max: Duration::from_secs(60),
            receipt_wait: Duration::from_secs(20),
            receipt_wait_max: Duration::from_secs(60),
        }
    }
}

/// Requests of a batch that only read and are answered at a time.
pub(crate) const BATCH_READS_AT_A_TIME: usize = 16;
/// Answers and notifications that wait to be sent over a WebSocket.
pub(crate) const OUTGOING_MAX: usize = 256;
/// Slots that one `eth_getStorageValues` may name, as in geth.
pub(crate) const STORAGE_VALUES_MAX: usize = 1_024;
/// Blocks of one answer to `eth_feeHistory`, as in geth.
pub(crate) const FEE_HISTORY_BLOCKS_MAX: u64 = 1_024;
/// Percentiles of one answer to `eth_feeHistory`, as in geth.
pub(crate) const PERCENTILES_MAX: usize = 100;
/// Transactions on a page of a search by account.
pub(crate) const SEARCH_PAGE_MAX: usize = 1_000;
