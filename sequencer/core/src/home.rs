//! Where a transaction runs.

use parsec_protocol::{Entry, PartitionId, PartitionMap};

/// Chooses the home of each transaction of a batch.
///
/// Homes are in the batch, hence in the log: a chooser may look at anything (loads, history)
/// without making executors disagree.
#[derive(Debug, Clone)]
pub struct HomeChooser {
    map: PartitionMap,
}

impl HomeChooser {
    /// A chooser under this map.
    #[must_use]
    pub fn new(map: PartitionMap) -> Self {
        Self { map }
    }

    /// The version of the map, for the batch.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.map.version()
    }

    /// The home of a transaction: where most of the keys are that it needs.
    #[must_use]
    pub fn choose(&self, entry: &Entry) -> PartitionId {
        self.map.choose_home(&entry.id, &entry.footprint)
    }
}
