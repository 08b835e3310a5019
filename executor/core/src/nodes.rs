//! The transactions that a partition has in hand: the nodes of the dependency graph.

use std::sync::Arc;

use hashbrown::HashMap;
use parsec_protocol::{Change, Entry, Mode, PartitionId, Position, Value};
use smallvec::SmallVec;

use crate::copies::CopyAccess;
use crate::keys::KeyIndex;

/// A transaction that a partition has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeIndex(pub(crate) u32);

/// A key that a transaction touches at this partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAccess {
    /// Its index in the transaction's footprint.
    pub(crate) index: u16,
    pub(crate) mode: Mode,
    pub(crate) key: KeyIndex,
    /// Whether the value is pushed to the home, if that is elsewhere.
    pub(crate) pushed: bool,
}

/// Those of one transaction: most have no more keys here, and take no allocation then.
pub(crate) type LocalAccesses = SmallVec<[LocalAccess; 12]>;

/// A transaction that a partition has in hand.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    /// How many things it waits for before it is ready to run, or to push: keys that others hold, values
    /// being fetched or pushed.
    pub(crate) missing: u32,
    pub(crate) accesses: LocalAccesses,
    /// What it has read of keys that it let go before everything was there, by index in the footprint.
    pub(crate) read: Vec<(u16, Option<Value>)>,
    pub(crate) part: Part,
}

/// Partitions that have a part in a transaction that runs elsewhere.
pub(crate) type Participants = SmallVec<[PartitionId; 4]>;

/// What the partition has to do for the transaction.
#[derive(Debug)]
pub(crate) enum Part {
    /// Run it.
    Home {
        /// Not there while a worker executes it.
        entry: Option<Arc<Entry>>,
        /// The values that other partitions push, by index in the footprint; the outer `None`
        /// until it has come.
        remote: Vec<(u16, Option<Option<Value>>)>,
        /// Values of other partitions' keys that transactions here leave to one another.
        copies: Vec<CopyAccess>,
        /// The partitions that wait for what it did to their keys.
        participants: Participants,
    },
    /// Push values to its home, and await what it did to the keys.
    Participant {
        home: PartitionId,
        /// Changes that have come.
        changes: Vec<(u16, Change)>,
        /// How many have not.
        awaited: usize,
        /// How many things it waits for with those keys whose values it does not push: it has to hold
        /// them only when it changes them.
        late: u32,
        /// Whether it holds the others, and has pushed their values.
        holds: bool,
    },
}

impl Part {
    /// Whether other partitions have a part in the transaction.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Home { remote, copies, participants, .. } => {
                !remote.is_empty() || !copies.is_empty() || !participants.is_empty()
            }
            Self::Participant { .. } => true,
        }
    }
}

/// The nodes, by index, and those that other partitions have a part in also by position.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    slots: Vec<Option<Node>>,
    free: Vec<u32>,
    /// Never iterated.
    shared: HashMap<Position, NodeIndex, ahash::RandomState>,
}

impl Nodes {
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// An index for a node that is about to be [placed](Self::place) there.
    pub(crate) fn reserve(&mut self) -> NodeIndex {
        NodeIndex(self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("bounded by NODES_MAX and one epoch")
        }))
    }

    pub(crate) fn place(&mut self, index: NodeIndex, node: Node) {
        if node.part.is_shared() {
            self.shared.insert(node.position, index);
        }
        self.slots[index.0 as usize] = Some(node);
    }

    /// # Panics
    /// If the node is gone, which would be a defect: an index is used until it is removed.
    pub(crate) fn get_mut(&mut self, index: NodeIndex) -> &mut Node {
        self.slots[index.0 as usize].as_mut().expect("a node in hand is in its slot")
    }

    /// # Panics
    /// As [`Self::get_mut`].
    pub(crate) fn get(&self, index: NodeIndex) -> &Node {
        self.slots[index.0 as usize].as_ref().expect("a node in hand is in its slot")
    }

    /// # Panics
    /// As [`Self::get_mut`].
    pub(crate) fn remove(&mut self, index: NodeIndex) -> Node {
        let node = self.slots[index.0 as usize].take().expect("a node in hand is in its slot");
        self.free.push(index.0);
        if node.part.is_shared() {
            self.shared.remove(&node.position);
        }
        node
    }

    /// The node at a position that other partitions have a part in.
    pub(crate) fn find_shared(&self, position: Position) -> Option<NodeIndex> {
        self.shared.get(&position).copied()
    }
}
