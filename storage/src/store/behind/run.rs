//! What commits one after the other add up to. Pure.

use ahash::AHashMap;
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use super::super::disk::Records;
use super::super::{Applied, EpochCommit};
use crate::digest::Digest;

/// What a write takes in memory beside its key and values, about.
const WRITE_BYTES: usize = 256;

/// Commits that are not on disk, as one.
#[derive(Default)]
pub(super) struct Run {
    first: Option<EpochNumber>,
    /// What each key holds after the run.
    writes: AHashMap<Key, Option<Value>>,
    /// Those of each commit that has any, in the order of their positions. Not in one list, which
    /// would move as it grows.
    receipts: Vec<Vec<Receipt>>,
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
    /// An empty run, with room for as many keys.
    pub(super) fn successor(&self) -> Self {
        Self { writes: AHashMap::with_capacity(self.writes.len()), ..Self::default() }
    }

    /// The first epoch of the first commit; `None` if there are no commits.
    pub(super) fn first(&self) -> Option<EpochNumber> {
        self.first
    }

    /// The last epoch of the last commit.
    pub(super) fn last(&self) -> Option<EpochNumber> {
        self.first.map(|_| self.applied.epoch)
    }

    /// Adds a commit, sorted, after which `applied` is applied. Returns what the keys held before, in
    /// the order of the writes.
    pub(super) fn add(
        &mut self,
        commit: EpochCommit,
        applied: Applied,
    ) -> Vec<(Key, Option<Value>)> {
        self.first.get_or_insert(commit.first);
        self.digests.push((applied.epoch, applied.state));
        self.applied = applied;
        self.bytes += commit.receipts.iter().map(Receipt::size).sum::<usize>();
        self.bytes += commit.outbox.iter().map(Push::size).sum::<usize>();
        if !commit.receipts.is_empty() {
            self.receipts.push(commit.receipts);
        }
        let mut outbox = commit.outbox;
        if commit.first < commit.epoch {
            outbox.sort_by_key(|push| push.position.epoch);
        }
        self.outbox.extend(outbox);
        let mut undo = Vec::with_capacity(commit.writes.len());
        for write in commit.writes {
            self.write(&write.key, write.new);
            undo.push((write.key, write.old));
        }
        undo
    }

    fn write(&mut self, key: &Key, value: Option<Value>) {
        self.bytes += value.as_ref().map_or(0, Value::len);
        if let Some(known) = self.writes.get_mut(key) {
            *known = value;
            return;
        }
        self.bytes += WRITE_BYTES + key.encoded().len();
        self.writes.insert(key.clone(), value);
    }

    /// What the run puts on disk.
    pub(super) fn to_records(&self) -> Records<'_> {
        let writes = self.writes.iter().map(|(key, value)| (key, value.as_ref()));
        let mut writes: Vec<_> = writes.collect();
        // In the order in which the engine keeps them: it then finds each place beside the last one.
        writes.sort_unstable_by_key(|(key, _)| *key);
        Records {
            first: self.first.unwrap_or_default(),
            applied: self.applied,
            writes,
            receipts: self.receipts.iter().map(Vec::as_slice).collect(),
            outbox: &self.outbox,
            digests: &self.digests,
        }
    }

    /// The value of a key after the run, if the run changed it.
    pub(super) fn get(&self, key: &Key) -> Option<&Option<Value>> {
        self.writes.get(key)
    }

    /// The digest of the state after `epoch`; `None` if that was before the first commit.
    pub(super) fn digest(&self, epoch: EpochNumber) -> Option<Digest> {
        let after = self.digests.partition_point(|(other, _)| *other <= epoch);
        after.checked_sub(1).map(|last| self.digests[last].1)
    }

    /// The receipts of `from` and the epochs after it.
    pub(super) fn receipts_from(&self, from: EpochNumber) -> impl Iterator<Item = &Receipt> {
        let is_before = move |receipt: &Receipt| receipt.position.epoch < from;
        let before = self.receipts.partition_point(|of_one| of_one.last().is_some_and(is_before));
        self.receipts[before..].iter().flatten().filter(move |receipt| !is_before(receipt))
    }

    /// The receipt at a position.
    pub(super) fn receipt(&self, position: Position) -> Option<&Receipt> {
        let is_before = |receipt: &Receipt| receipt.position < position;
        let before = self.receipts.partition_point(|of_one| of_one.last().is_some_and(is_before));
        let of_one = self.receipts.get(before)?;
        let at = of_one.binary_search_by_key(&position, |receipt| receipt.position).ok()?;
        of_one.get(at)
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
