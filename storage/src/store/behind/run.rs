//! What commits one after the other add up to. Pure.

use ahash::AHashMap;
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use super::super::{Applied, EpochCommit, Write};
use crate::digest::Digest;

/// What a write takes in memory beside its key and values, about.
const WRITE_BYTES: usize = 256;

/// Commits that are not on disk, as one.
#[derive(Default)]
pub(super) struct Run {
    first: Option<EpochNumber>,
    executed: u64,
    multi_partition: u64,
    /// Each key once, with its value before the run and after it.
    writes: Vec<Write>,
    places: AHashMap<Key, usize>,
    /// In the order of their positions.
    receipts: Vec<Receipt>,
    /// In the order of their epochs.
    outbox: Vec<Push>,
    /// The digest of the state after each commit, in order.
    pub(super) digests: Vec<(EpochNumber, Digest)>,
    /// What is applied after the last commit.
    pub(super) applied: Applied,
    /// About what all that takes in memory.
    pub(super) bytes: usize,
}

impl Run {
    /// The first epoch of the first commit; `None` if there are no commits.
    pub(super) fn first(&self) -> Option<EpochNumber> {
        self.first
    }

    /// The last epoch of the last commit.
    pub(super) fn last(&self) -> Option<EpochNumber> {
        self.first.map(|_| self.applied.epoch)
    }

    /// Adds a commit, sorted, after which `applied` is applied.
    pub(super) fn add(&mut self, commit: EpochCommit, applied: Applied) {
        self.first.get_or_insert(commit.first);
        self.executed += commit.executed;
        self.multi_partition += commit.multi_partition;
        self.digests.push((applied.epoch, applied.state));
        self.applied = applied;
        for write in commit.writes {
            self.bytes += write.new.as_ref().map_or(0, Value::len);
            match self.places.get(&write.key) {
                Some(place) => self.writes[*place].new = write.new,
                None => {
                    self.bytes += WRITE_BYTES + write.key.encoded().len();
                    self.places.insert(write.key.clone(), self.writes.len());
                    self.writes.push(write);
                }
            }
        }
        self.bytes += commit.receipts.iter().map(Receipt::size).sum::<usize>();
        self.bytes += commit.outbox.iter().map(Push::size).sum::<usize>();
        self.receipts.extend(commit.receipts);
        let mut outbox = commit.outbox;
        if commit.first < commit.epoch {
            outbox.sort_by_key(|push| push.position.epoch);
        }
        self.outbox.extend(outbox);
    }

    /// The run as one commit.
    pub(super) fn to_commit(&self) -> EpochCommit {
        EpochCommit {
            first: self.first.unwrap_or_default(),
            epoch: self.applied.epoch,
            writes: self.writes.clone(),
            receipts: self.receipts.clone(),
            outbox: self.outbox.clone(),
            executed: self.executed,
            multi_partition: self.multi_partition,
        }
    }

    /// The value of a key after the run, if the run changed it.
    pub(super) fn get(&self, key: &Key) -> Option<&Option<Value>> {
        self.places.get(key).map(|place| &self.writes[*place].new)
    }

    /// The digest of the state after `epoch`; `None` if that was before the first commit.
    pub(super) fn digest(&self, epoch: EpochNumber) -> Option<Digest> {
        let after = self.digests.partition_point(|(other, _)| *other <= epoch);
        after.checked_sub(1).map(|last| self.digests[last].1)
    }

    /// The receipts of `from` and the epochs after it.
    pub(super) fn receipts_from(&self, from: EpochNumber) -> &[Receipt] {
        let before = self.receipts.partition_point(|receipt| receipt.position.epoch < from);
        &self.receipts[before..]
    }

    /// The receipt at a position.
    pub(super) fn receipt(&self, position: Position) -> Option<&Receipt> {
        let at = self.receipts.binary_search_by_key(&position, |receipt| receipt.position).ok()?;
        self.receipts.get(at)
    }

    /// What is owed to a partition for epochs after `after`, in order.
    pub(super) fn owed(&self, to: PartitionId, after: EpochNumber) -> impl Iterator<Item = &Push> {
        self.outbox.iter().filter(move |push| push.to == to && push.position.epoch > after)
    }

    /// Forgets what is owed to a partition for epochs through `through`.
    pub(super) fn prune(&mut self, to: PartitionId, through: EpochNumber) {
        self.outbox.retain(|push| push.to != to || push.position.epoch > through);
    }
}
