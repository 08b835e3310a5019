//! Which host holds which partition.

use parsec_protocol::{NodeId, PartitionId, PartitionMap};

/// Why the hosts that were configured can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum LayoutError {
    #[error("no host holds {partition}")]
    Unheld { partition: PartitionId },
    #[error("both {first} and {second} are configured to hold {partition}; only one may")]
    HeldTwice { partition: PartitionId, first: NodeId, second: NodeId },
    #[error("{host} is configured to hold {partition}, but there are {partitions} partitions")]
    Unknown { host: NodeId, partition: PartitionId, partitions: u16 },
}

/// A host and the partitions that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The host.
    pub host: NodeId,
    /// Its partitions.
    pub partitions: Vec<PartitionId>,
}

/// The hosts of the partitions.
///
/// **Invariant:** every partition has exactly one host, and hosts are in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    hosts: Vec<Held>,
    /// The place of each partition's host in `hosts`.
    holders: Vec<usize>,
}

impl Layout {
    /// The layout in which these hosts hold the partitions of `map`. A host may be named more than
    /// once.
    ///
    /// # Errors
    /// A [`LayoutError`] unless each partition of the map has one host.
    pub fn new(
        configured: &[(NodeId, Vec<PartitionId>)],
        map: &PartitionMap,
    ) -> Result<Self, LayoutError> {
        let partitions = map.len();
        let mut holders: Vec<Option<NodeId>> = vec![None; usize::from(partitions)];
        for (host, held) in configured {
            for &partition in held {
                let slot = holders.get_mut(partition.index());
                let slot =
                    slot.ok_or(LayoutError::Unknown { host: *host, partition, partitions })?;
                if let Some(first) = slot.replace(*host) {
                    return Err(LayoutError::HeldTwice { partition, first, second: *host });
                }
            }
        }
        let holders: Result<Vec<NodeId>, _> = map
            .partitions()
            .zip(holders)
            .map(|(partition, host)| host.ok_or(LayoutError::Unheld { partition }))
            .collect();
        Ok(Self::of(&holders?, map))
    }

    fn of(holders: &[NodeId], map: &PartitionMap) -> Self {
        let mut ids = holders.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut hosts: Vec<_> =
            ids.iter().map(|host| Held { host: *host, partitions: Vec::new() }).collect();
        let mut places = Vec::with_capacity(holders.len());
        for (partition, holder) in map.partitions().zip(holders) {
            let place = ids.partition_point(|host| host < holder);
            hosts[place].partitions.push(partition);
            places.push(place);
        }
        Self { hosts, holders: places }
    }

    /// The hosts that hold partitions, in order, each with its partitions.
    #[must_use]
    pub fn hosts(&self) -> &[Held] {
        &self.hosts
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.holders.len()
    }

    /// The host that holds a partition.
    #[must_use]
    pub fn holder(&self, partition: PartitionId) -> Option<NodeId> {
        self.holders.get(partition.index()).map(|place| self.hosts[*place].host)
    }

    /// The place of a host among [`hosts`](Self::hosts).
    #[must_use]
    pub fn place(&self, host: NodeId) -> Option<usize> {
        self.hosts.binary_search_by_key(&host, |held| held.host).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_needs_one_host() {
        let map = PartitionMap::even(2).unwrap();
        let layout = |held: &[(u16, &[u16])]| {
            let held: Vec<_> = held
                .iter()
                .map(|(node, held)| {
                    (NodeId(*node), held.iter().copied().map(PartitionId).collect())
                })
                .collect();
            Layout::new(&held, &map)
        };
        let both = layout(&[(2, &[0]), (1, &[1])]).unwrap();
        let hosts: Vec<_> = both.hosts().iter().map(|held| held.host).collect();
        assert_eq!(hosts, [NodeId(1), NodeId(2)]);
        assert_eq!(both.holder(PartitionId(0)), Some(NodeId(2)));
        assert_eq!((both.place(NodeId(2)), both.place(NodeId(3))), (Some(1), None));
        assert_eq!(layout(&[(1, &[0]), (1, &[1])]).unwrap().hosts().len(), 1);
        assert_eq!(layout(&[(1, &[0])]), Err(LayoutError::Unheld { partition: PartitionId(1) }));
        assert!(matches!(layout(&[(1, &[0, 1]), (2, &[1])]), Err(LayoutError::HeldTwice { .. })));
        assert!(matches!(layout(&[(1, &[0, 1, 2])]), Err(LayoutError::Unknown { .. })));
    }
}
