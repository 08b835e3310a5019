//! Snapshots: taking the chain back, exactly.

use alloy_primitives::{Address, B256};

use super::{DevChain, NextBlock, Output};
use crate::clock::{Clock, StoppedClock};
use crate::pool::Pool;

/// The number of a snapshot, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId(pub u64);

/// All that a snapshot takes back. What people are (impersonated), and when blocks are made, is
/// not a part of it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    block: u64,
    pub(super) version: u64,
    clock: StoppedClock,
    pool: Pool,
    next: NextBlock,
    coinbase: Address,
    gas_limit: u64,
}

impl DevChain {
    /// Remembers how everything is now.
    pub fn snapshot(&mut self, now: u64) -> SnapshotId {
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let snapshot = Snapshot {
            block: self.latest(),
            version: self.states.latest(),
            clock: self.clock.stop(now),
            pool: self.pool.clone(),
            next: self.next.clone(),
            coinbase: self.coinbase,
            gas_limit: self.gas_limit,
        };
        self.snapshots.insert(id, snapshot);
        SnapshotId(id)
    }

    /// Takes everything back to a snapshot, which is used up by that, as are all later ones.
    /// Returns whether there is such a snapshot.
    pub fn revert(&mut self, now: u64, id: SnapshotId) -> bool {
        let Some(snapshot) = self.snapshots.remove(&id.0) else { return false };
        self.snapshots.split_off(&id.0);
        self.rewind(snapshot.block, snapshot.version);
        let version = self.states.latest();
        if let Some(last) = self.marks.last_mut() {
            last.version = version;
        }
        self.clock = Clock::resume(now, &snapshot.clock);
        self.pool = snapshot.pool;
        self.next = snapshot.next;
        self.coinbase = snapshot.coinbase;
        self.gas_limit = snapshot.gas_limit;
        self.revision += 1;
        true
    }

    /// Makes a block the latest, in a version of the state that is kept.
    pub(super) fn rewind(&mut self, block: u64, version: u64) {
        self.states.rewind(version);
        if block < self.latest() {
            self.marks.truncate(usize::try_from(block).unwrap_or(usize::MAX - 1) + 1);
            self.outputs.push(Output::Rewound(block));
        }
    }

    /// The snapshots that there are, with the block that each was taken at, and its hash.
    #[must_use]
    pub fn snapshots(&self) -> Vec<(SnapshotId, u64, B256)> {
        let entry = |(id, snapshot): (&u64, &Snapshot)| {
            Some((SnapshotId(*id), snapshot.block, self.block_hash(snapshot.block)?))
        };
        self.snapshots.iter().filter_map(entry).collect()
    }

    /// The version of the state that the oldest snapshot needs.
    pub(super) fn oldest_snapshot(&self) -> Option<u64> {
        Some(self.snapshots.first_key_value()?.1.version)
    }
}
