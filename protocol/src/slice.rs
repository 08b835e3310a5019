//! Slices, the part of a batch that concerns one partition; and pushes, what partitions hand each
//! other while they execute it.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

mod forward;

use std::sync::Arc;

use rkyv::with::Unshare;
use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

use self::forward::Forwarding;
pub use self::forward::{Forward, Forwards};
use crate::codec::{Malformed, Wire};
use crate::epoch::Position;
use crate::footprint::Access;
use crate::packed::Packed;
use crate::placement::{PartitionId, PartitionMap};
use crate::shared::Boxed;
use crate::transaction::{Batch, Entry, LaneId};
use crate::value::{Change, Value};

/// What a partition has to do for one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Role {
    /// It runs the transaction.
    Home {
        /// The transaction.
        #[rkyv(with = Boxed)]
        entry: Arc<Entry>,
        /// Values of other partitions' keys that transactions here leave to one another.
        forwards: Forwards,
    },
    /// It owns keys of the transaction, which runs elsewhere.
    Participant {
        /// Where it runs.
        home: PartitionId,
        /// The keys that concern this partition, each with its index in the whole footprint.
        #[rkyv(with = Packed)]
        accesses: Vec<(u16, Access)>,
        /// The indexes of those among them whose values the home has by itself.
        forwarded: Vec<u16>,
    },
}

/// One transaction of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SliceEntry {
    /// The transaction's index in its batch.
    pub index: u32,
    /// What the partition has to do.
    pub role: Role,
}

/// The part of a batch that concerns one partition.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Slice {
    /// The partition.
    pub partition: PartitionId,
    /// Its transactions, in order.
    pub entries: Vec<SliceEntry>,
}

impl Slice {
    /// Roughly how many bytes it takes, for limits on memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = |role: &Role| match role {
            Role::Home { entry, forwards } => entry.size() + size_of_val(&forwards[..]),
            Role::Participant { accesses, .. } => {
                accesses.iter().map(|(_, access)| 40 + access.key.encoded().len()).sum()
            }
        };
        self.entries.iter().map(|entry| size(&entry.role)).sum()
    }
}

/// The slices of a batch for the partitions of one host. A host gets one for every batch, even if
/// it is empty: it could not tell an empty one from a lost one.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HostSlices {
    /// The lane of the batch.
    pub lane: LaneId,
    /// The batch's number in the lane.
    pub sequence: u64,
    /// The batch's digest.
    pub digest: [u8; 32],
    /// The slices of those partitions of the host that have any transactions.
    pub slices: Vec<Slice>,
}

impl Wire for HostSlices {
    fn check(&self) -> Result<(), Malformed> {
        let entries = self.slices.iter().flat_map(|slice| &slice.entries);
        entries.map(|entry| &entry.role).try_for_each(|role| match role {
            Role::Home { entry, .. } => entry.check(),
            Role::Participant { accesses, .. } => {
                accesses.iter().try_for_each(|(_, access)| access.key.check())?;
                // They are of one footprint. A transaction that had a key twice would wait for itself.
                let are_sorted = accesses.windows(2).all(|pair| {
                    let [(before, one), (after, other)] = pair else { return true };
                    before < after && one.key < other.key
                });
                are_sorted.then_some(()).ok_or(Malformed::FootprintOrder)
            }
        })
    }
}

/// Whether `partition` has a part in touching the key of `access` when the transaction's home is
/// `home`: it owns the key, or the key is replicated and either written (by all) or read (at home).
#[must_use]
pub fn concerns(
    partition: PartitionId,
    home: PartitionId,
    access: &Access,
    map: &PartitionMap,
) -> bool {
    if access.key.is_replicated() {
        access.mode.may_change() || partition == home
    } else {
        map.owner(&access.key) == partition
    }
}

/// Whether the home waits for `access` to be read by another partition.
#[must_use]
pub fn is_remote_read(home: PartitionId, access: &Access, map: &PartitionMap) -> bool {
    access.mode.needs_value() && !access.key.is_replicated() && map.owner(&access.key) != home
}

/// Cuts a batch into one slice for each partition, in the order of partitions.
///
/// Homes are those of the batch if it was closed under this map, and chosen anew if not.
#[must_use]
pub fn cut(batch: &Batch, map: &PartitionMap) -> Vec<Slice> {
    let mut slices: Vec<_> =
        map.partitions().map(|partition| Slice { partition, entries: Vec::new() }).collect();
    let known = batch.map_version == map.version();
    let mut forwarding = Forwarding::default();
    for (index, entry) in (0u32..).zip(&batch.entries) {
        let home = match known && entry.home.0 < map.len() {
            true => entry.home,
            false => map.choose_home(&entry.id, &entry.footprint),
        };
        let forwards = forwarding.next(entry, home, map, &mut slices);
        for Participant { partition, accesses, forwarded } in
            participants(entry, home, map, &forwards)
        {
            let role = Role::Participant { home, accesses, forwarded };
            slices[partition.index()].entries.push(SliceEntry { index, role });
        }
        let entry = match entry.home == home {
            true => entry.clone(),
            false => Arc::new(Entry { home, ..Entry::clone(entry) }),
        };
        let role = Role::Home { entry, forwards };
        slices[home.index()].entries.push(SliceEntry { index, role });
    }
    slices
}

/// A partition other than the home that has a part in a transaction.
struct Participant {
    partition: PartitionId,
    accesses: Vec<(u16, Access)>,
    forwarded: Vec<u16>,
}

/// The partitions other than the home that have a part in a transaction to which values are `left`.
/// Who only reads what is left has no part in it.
fn participants(
    entry: &Entry,
    home: PartitionId,
    map: &PartitionMap,
    left: &[(u16, Forward)],
) -> Vec<Participant> {
    let mut parts: Vec<Participant> = Vec::new();
    let mut left = left.iter().map(|(index, _)| *index).peekable();
    let mut add = |partition: PartitionId, index: u16, access: &Access, is_left: bool| {
        if partition == home {
            return;
        }
        let place = parts.iter().position(|known| known.partition == partition);
        let place = place.unwrap_or_else(|| {
            parts.push(Participant { partition, accesses: Vec::new(), forwarded: Vec::new() });
            parts.len() - 1
        });
        parts[place].accesses.push((index, access.clone()));
        if is_left {
            parts[place].forwarded.push(index);
        }
    };
    for (index, access) in entry.footprint.indexed() {
        let is_left = left.next_if_eq(&index).is_some();
        if !access.key.is_replicated() {
            if access.mode.may_change() || !is_left {
                add(map.owner(&access.key), index, access, is_left);
            }
        } else if access.mode.may_change() {
            map.partitions().for_each(|partition| add(partition, index, access, false));
        }
    }
    parts
}

/// What one partition hands another for one transaction. Idempotent: an item that was received
/// before is ignored, by its transaction and index.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Push {
    /// The transaction.
    pub position: Position,
    /// Who pushes.
    pub from: PartitionId,
    /// To whom.
    pub to: PartitionId,
    /// What. Shared: it is sent, and kept until it need not be sent again.
    #[rkyv(with = Unshare)]
    pub kind: Arc<PushKind>,
}

/// The content of a [`Push`]. Indexes are those of the transaction's footprint.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PushKind {
    /// Values of keys that the sender owns, for the home.
    Reads(PushItems<Option<Value>>),
    /// What the transaction did to the keys that the receiver owns: one item for every access
    /// that may change a key, [`Change::Keep`] if it did not.
    Writes(PushItems<Change>),
}

/// Items of a push, with the indexes of their accesses. Most pushes have one.
pub type PushItems<T> = SmallVec<[(u16, T); 1]>;

impl Push {
    /// Roughly how many bytes it takes, for closing frames.
    #[must_use]
    pub fn size(&self) -> usize {
        let items = match &*self.kind {
            PushKind::Reads(items) => items
                .iter()
                .map(|(_, value)| 8 + value.as_ref().map_or(0, |value| value.len()))
                .sum(),
            PushKind::Writes(items) => items
                .iter()
                .map(|(_, change)| match change {
                    Change::Put(value) => 8 + value.len(),
                    _ => 40,
                })
                .sum::<usize>(),
        };
        32 + items
    }
}
