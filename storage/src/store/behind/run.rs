//! What commits one after the other add up to. Pure.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parsec_protocol::{EpochNumber, Key, Malformed, PartitionId, Position, Receipt, Value};

use super::super::disk::Records;
use super::super::packed::{self, PackedPushes, PackedReceipts};
use super::super::{Applied, EpochCommit, Ranks, rank};
use crate::digest::Digest;

/// What a write takes in memory beside its key and values, about.
const WRITE_BYTES: usize = 256;

/// Commits that are not on disk, as one.
#[derive(Default)]
pub(super) struct Run {
    first: Option<EpochNumber>,
    /// What each key holds after the run. Found by its [`rank`].
    writes: HashTable<(Key, Option<Value>)>,
    /// In the order of their positions. Packed as they will be on disk: so they are looked at while they
    /// are in the processor's cache, and take less memory meanwhile.
    receipts: Vec<PackedReceipts>,
    /// In the order of their epochs, packed as well.
    outbox: Vec<PackedPushes>,
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
        Self { writes: HashTable::with_capacity(self.writes.len()), ..Self::default() }
    }

    /// The first epoch of the first commit; `None` if there are no commits.
    pub(super) fn first(&self) -> Option<EpochNumber> {
        self.first
    }

    /// The last epoch of the last commit.
    pub(super) fn last(&self) -> Option<EpochNumber> {
        self.first.map(|_| self.applied.epoch)
    }

    /// Adds a commit, checked, after which `applied` is applied. `ranks` are those of its writes. Returns
    /// what the keys held before, in the order of the writes.
    pub(super) fn add(
        &mut self,
        commit: EpochCommit,
        ranks: &Ranks,
        applied: Applied,
    ) -> Vec<(Key, Option<Value>)> {
        self.first.get_or_insert(commit.first);
        self.digests.push((applied.epoch, applied.state));
        self.applied = applied;
        let (receipts, owed) = (self.receipts.len(), self.outbox.len());
        self.receipts
            .extend(packed::pack_receipts(commit.receipts.iter().map(|receipt| &**receipt)));
        self.outbox.extend(packed::pack_pushes(&commit.outbox));
        self.outbox[owed..].sort_by_key(|record| record.epoch);
        self.bytes +=
            self.receipts[receipts..].iter().map(|record| record.value.len()).sum::<usize>();
        self.bytes += self.outbox[owed..].iter().map(|record| record.value.len()).sum::<usize>();
        let mut undo = Vec::with_capacity(commit.writes.len());
        for (write, rank) in commit.writes.into_iter().zip(&ranks.ranks) {
            self.write(*rank, &write.key, write.new);
            undo.push((write.key, write.old));
        }
        undo
    }

    fn write(&mut self, rank_of_key: u64, key: &Key, value: Option<Value>) {
        self.bytes += value.as_ref().map_or(0, Value::len);
        let entry =
            self.writes.entry(rank_of_key, |(known, _)| known == key, |(known, _)| rank(known));
        match entry {
            Entry::Occupied(mut known) => known.get_mut().1 = value,
            Entry::Vacant(place) => {
                self.bytes += WRITE_BYTES + key.encoded().len();
                place.insert((key.clone(), value));
            }
        }
    }

    /// What the run puts on disk.
    pub(super) fn to_records(&self) -> Records<'_> {
        let writes = self.writes.iter().map(|(key, value)| (key, value.as_ref()));
        let mut writes: Vec<_> = writes.collect();
        // In the order in which the engine keeps them: it then finds each place beside the last one.
        writes.sort_unstable_by_key(|(key, _)| *key);
        let mut outbox: Vec<_> = self.outbox.iter().collect();
        outbox.sort_by_key(|record| (record.to, record.epoch));
        Records {
            first: self.first.unwrap_or_default(),
            applied: self.applied,
            writes,
            receipts: &self.receipts,
            outbox,
            digests: &self.digests,
        }
    }

    /// The value of a key after the run, if the run changed it.
    pub(super) fn get(&self, key: &Key) -> Option<&Option<Value>> {
        self.writes.find(rank(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    /// The digest of the state after `epoch`; `None` if that was before the first commit.
    pub(super) fn digest(&self, epoch: EpochNumber) -> Option<Digest> {
        let after = self.digests.partition_point(|(other, _)| *other <= epoch);
        after.checked_sub(1).map(|last| self.digests[last].1)
    }

    /// The records of receipts of `from` and the epochs after it.
    pub(super) fn receipts_from(&self, from: EpochNumber) -> &[PackedReceipts] {
        let before = self.receipts.partition_point(|record| record.first.epoch < from);
        &self.receipts[before..]
    }

    /// The receipt at a position.
    pub(super) fn receipt(&self, position: Position) -> Result<Option<Receipt>, Malformed> {
        let after = self.receipts.partition_point(|record| record.first <= position);
        match after.checked_sub(1) {
            Some(last) => packed::find_receipt(&self.receipts[last].value, position),
            None => Ok(None),
        }
    }

    /// The records of what is owed to a partition for epochs after `after`, in order.
    pub(super) fn owed(
        &self,
        to: PartitionId,
        after: EpochNumber,
    ) -> impl Iterator<Item = &PackedPushes> {
        self.outbox.iter().filter(move |record| record.to == to && record.epoch > after)
    }

    /// Forgets what is owed to a partition for epochs through `through`.
    pub(super) fn prune(&mut self, to: PartitionId, through: EpochNumber) {
        self.outbox.retain(|record| record.to != to || record.epoch > through);
    }
}
