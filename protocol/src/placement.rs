//! Which partition holds which slot, and which node holds which partition.

use rkyv::{Archive, Deserialize, Serialize};

use crate::codec::Malformed;
use crate::footprint::Footprint;
use crate::key::Key;
use crate::limits::{PARTITIONS_MAX, SLOTS};
use crate::transaction::TxId;

/// A partition of the state.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for PartitionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// A node: one process of the cluster, whatever its roles.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct NodeId(pub u16);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Maps slots to partitions. Versioned, so that it can change at an epoch boundary.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PartitionMap {
    version: u64,
    partitions: u16,
    slots: Vec<u16>,
}

impl PartitionMap {
    /// The first map of a cluster: slots dealt out to `partitions` in turn.
    ///
    /// # Errors
    /// [`Malformed::PartitionMap`] unless `partitions` is 1 to [`PARTITIONS_MAX`].
    pub fn even(partitions: u16) -> Result<Self, Malformed> {
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Malformed::PartitionMap);
        }
        Ok(Self {
            version: 1,
            partitions,
            slots: (0..SLOTS).map(|slot| slot % partitions).collect(),
        })
    }

    /// The version, which grows by one with each change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many partitions there are.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.partitions
    }

    /// Never: a map has at least one partition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitions).map(PartitionId)
    }

    /// The partition that the slot of `key` lies on. For a replicated key, which stands on all,
    /// it is the one that counts it in the state digest.
    #[must_use]
    pub fn owner(&self, key: &Key) -> PartitionId {
        match self.partitions {
            1 => PartitionId(0),
            _ => PartitionId(self.slots[usize::from(key.slot().0)]),
        }
    }

    /// Chooses where a transaction runs: the partition that owns most of the keys it needs,
    /// written ones counting twice. The id decides between equals, so that they spread.
    #[must_use]
    pub fn choose_home(&self, id: &TxId, footprint: &Footprint) -> PartitionId {
        let mut weights: Vec<(PartitionId, u32)> = Vec::with_capacity(4);
        for access in footprint.accesses() {
            if access.key.is_replicated() || !access.mode.needs_value() {
                continue;
            }
            let owner = self.owner(&access.key);
            let weight = 1 + u32::from(access.mode.may_change());
            match weights.iter_mut().find(|(partition, _)| *partition == owner) {
                Some((_, sum)) => *sum += weight,
                None => weights.push((owner, weight)),
            }
        }
        let draw = u16::from_be_bytes([id.0[0], id.0[1]]);
        let Some(best) = weights.iter().map(|(_, weight)| *weight).max() else {
            return PartitionId(draw % self.partitions);
        };
        weights.retain(|(_, weight)| *weight == best);
        weights[usize::from(draw) % weights.len()].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footprint::{Access, Mode};
    use crate::key::Namespace;

    #[test]
    fn a_map_without_partitions_is_refused() {
        assert!(PartitionMap::even(0).is_err());
        assert!(PartitionMap::even(PARTITIONS_MAX + 1).is_err());
        assert_eq!(PartitionMap::even(3).unwrap().partitions().count(), 3);
    }

    #[test]
    fn the_home_is_where_most_written_keys_are() {
        let map = PartitionMap::even(4).unwrap();
        let key = |n: u32| Key::new(Namespace::partitioned(1), &n.to_be_bytes()).unwrap();
        let at = |p: u16| (0..).map(key).find(|key| map.owner(key) == PartitionId(p)).unwrap();
        let footprint = Footprint::new(vec![
            Access { key: at(1), mode: Mode::Read },
            Access { key: at(2), mode: Mode::Write },
            Access { key: at(3), mode: Mode::Add },
        ])
        .unwrap();
        assert_eq!(map.choose_home(&TxId([9; 32]), &footprint), PartitionId(2));
    }
}
