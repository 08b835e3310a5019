//! What an executor is told at its start, and why it stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::{NodeId, PartitionId, PartitionMap};
use parsec_runtimes::Runtimes;
use parsec_storage::Store;

/// What an executor is told at its start.
pub struct ExecutorConfig {
    /// This host.
    pub node: NodeId,
    /// The host that orders.
    pub sequencer: NodeId,
    /// Which partition holds which key.
    pub map: Arc<PartitionMap>,
    /// Which host has which partition.
    pub hosts: BTreeMap<PartitionId, NodeId>,
    /// The stores of this host's partitions.
    pub stores: Vec<(PartitionId, Arc<dyn Store>)>,
    /// How many threads execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// How often stores are synced: a power cut costs a re-execution of that much.
    pub sync_interval: Duration,
    /// What executes transactions.
    pub runtimes: Runtimes,
}

/// Why an executor stopped of itself. The log has all that is needed to start it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stop(pub String);
