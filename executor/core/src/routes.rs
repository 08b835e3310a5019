//! Which host has which partition.

use std::collections::BTreeMap;

use parsec_protocol::{NodeId, PartitionId, Push};

/// Where a push goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a partition of this host.
    Here(PartitionId),
    /// To another host.
    Peer(NodeId),
}

/// A partition that no host has: the cluster's layout is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no host has partition {0}: check the cluster's layout")]
pub struct Unheld(pub PartitionId);

/// Which host has which partition, as seen from one of them. Never changes, so that all threads of
/// a host can use it at once.
#[derive(Debug, Clone)]
pub struct Routes {
    node: NodeId,
    /// By the partition's index.
    holders: Vec<Option<NodeId>>,
}

impl Routes {
    /// The routes of `node`, in a cluster whose partitions are on `hosts`.
    #[must_use]
    pub fn new(node: NodeId, hosts: &BTreeMap<PartitionId, NodeId>) -> Self {
        let length = hosts.keys().next_back().map_or(0, |last| last.index() + 1);
        let mut holders = vec![None; length];
        for (partition, holder) in hosts {
            holders[partition.index()] = Some(*holder);
        }
        Self { node, holders }
    }

    /// This host.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The host of a partition.
    #[must_use]
    pub fn holder(&self, partition: PartitionId) -> Option<NodeId> {
        self.holders.get(partition.index()).copied().flatten()
    }

    /// The other hosts, in order.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        let mut peers: Vec<_> =
            self.holders.iter().flatten().copied().filter(|node| *node != self.node).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Takes pushes out, and hands them to `each` in groups that go the same way. Of one sender,
    /// pushes to one partition stay in their order.
    ///
    /// # Errors
    /// [`Unheld`]; the pushes that are left are lost.
    pub fn group(
        &self,
        pushes: &mut Vec<Push>,
        mut each: impl FnMut(Destination, Vec<Push>),
    ) -> Result<(), Unheld> {
        pushes.sort_by_key(|push| push.to);
        let mut rest = pushes.drain(..);
        while let Some(first) = rest.as_slice().first() {
            let to = first.to;
            let holder = self.holder(to).ok_or(Unheld(to))?;
            let count = rest.as_slice().partition_point(|push| push.to == to);
            let group = rest.by_ref().take(count).collect();
            let destination = match holder == self.node {
                true => Destination::Here(to),
                false => Destination::Peer(holder),
            };
            each(destination, group);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{EpochNumber, Position, PushItems, PushKind};

    use super::*;

    fn push(to: u16, index: u32) -> Push {
        let position = Position { epoch: EpochNumber(1), index };
        let kind = PushKind::Reads(PushItems::new()).into();
        Push { position, from: PartitionId(9), to: PartitionId(to), kind }
    }

    #[test]
    fn pushes_go_to_the_holders_of_their_partitions_in_order() {
        let hosts = [(0, 1), (1, 2), (2, 1), (3, 3)];
        let hosts = hosts.map(|(partition, node)| (PartitionId(partition), NodeId(node)));
        let routes = Routes::new(NodeId(1), &hosts.into());
        assert_eq!(routes.peers(), [NodeId(2), NodeId(3)]);
        let mut pushes = vec![push(1, 5), push(0, 1), push(1, 2), push(3, 0), push(0, 0)];
        let mut groups = Vec::new();
        routes
            .group(&mut pushes, |to, group| {
                let indexes: Vec<_> = group.iter().map(|push| push.position.index).collect();
                groups.push((to, indexes));
            })
            .unwrap();
        assert_eq!(
            groups,
            [
                (Destination::Here(PartitionId(0)), vec![1, 0]),
                (Destination::Peer(NodeId(2)), vec![5, 2]),
                (Destination::Peer(NodeId(3)), vec![0]),
            ]
        );
        assert!(pushes.is_empty());
        let nowhere = routes.group(&mut vec![push(7, 0)], |_, _| ());
        assert_eq!(nowhere, Err(Unheld(PartitionId(7))));
    }
}
