//! The twin in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use parsec_protocol::plant::{self, Bug};
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use super::snapshots::Snapshots;
use super::{Applied, EpochCommit, Store, StoreError};
use crate::digest::Digest;

/// A store that forgets everything when it is dropped.
///
/// It answers exactly as [`FjallStore`](super::FjallStore) does, except that it can look up at no
/// cost what each key held before, and refuses a commit that has it wrong
/// ([`StoreError::WrongOldValue`]).
#[derive(Debug)]
pub struct MemoryStore {
    inner: RwLock<Inner>,
}

/// What the keys of one commit held before it.
type Undo = BTreeMap<Key, Option<Value>>;

#[derive(Debug)]
struct Inner {
    state: BTreeMap<Key, Value>,
    receipts: BTreeMap<Position, Receipt>,
    outbox: BTreeMap<(PartitionId, EpochNumber), Vec<Push>>,
    /// The digest of the state after each commit.
    digests: BTreeMap<EpochNumber, Digest>,
    /// A commit's snapshot is what undoes it.
    snapshots: Snapshots<Undo>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            state: BTreeMap::new(),
            receipts: BTreeMap::new(),
            outbox: BTreeMap::new(),
            digests: BTreeMap::new(),
            snapshots: Snapshots::new(Applied::default(), Undo::new()),
        };
        Self { inner: RwLock::new(inner) }
    }

    /// The store as it is when it has been opened anew: of its snapshots, only the last is there.
    #[must_use]
    pub fn reopened(self) -> Self {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut applied = *inner.snapshots.applied();
        if plant::is(Bug::AppliedTwice) {
            applied.epoch.0 = applied.epoch.0.saturating_sub(1);
        }
        inner.snapshots = Snapshots::new(applied, Undo::new());
        Self { inner: RwLock::new(inner) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Nothing here panics between two changes that belong together.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn commit(&mut self, mut commit: EpochCommit) -> Result<(), StoreError> {
        let applied = commit.prepare(self.snapshots.applied())?;
        let known = |write: &super::Write| write.old.as_ref() == self.state.get(&write.key);
        if let Some(write) = commit.writes.iter().find(|write| write.counted && !known(write)) {
            return Err(StoreError::WrongOldValue { key: write.key.clone() });
        }
        let mut undo = Undo::new();
        for write in commit.writes {
            let old = match write.new {
                Some(new) => self.state.insert(write.key.clone(), new),
                None => self.state.remove(&write.key),
            };
            undo.insert(write.key, old);
        }
        for receipt in commit.receipts {
            self.receipts.insert(receipt.position, Arc::unwrap_or_clone(receipt));
        }
        for push in commit.outbox {
            self.outbox.entry((push.to, push.position.epoch)).or_default().push(push);
        }
        self.digests.insert(commit.epoch, applied.state);
        self.snapshots.push(commit.first, applied, undo);
        Ok(())
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        let (_, later) = self.snapshots.at(epoch)?;
        let later: Vec<&Undo> = later.collect();
        let value = |key: &Key| match later.iter().find_map(|undo| undo.get(key)) {
            Some(old) => old.clone(),
            None => self.state.get(key).cloned(),
        };
        Ok(keys.iter().map(value).collect())
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        Ok(self.read().state.get(key).cloned())
    }

    fn commit(&self, commit: EpochCommit) -> Result<(), StoreError> {
        self.write().commit(commit)
    }

    fn advance(&self, epoch: EpochNumber) {
        self.write().snapshots.advance(epoch);
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        self.read().read_at(epoch, keys)
    }

    fn applied(&self) -> Applied {
        *self.read().snapshots.applied()
    }

    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError> {
        let inner = self.read();
        inner.snapshots.check_applied(epoch)?;
        let last = inner.digests.range(..=epoch).next_back();
        Ok(last.map_or(Digest::ZERO, |(_, digest)| *digest))
    }

    fn sync(&self) -> Result<EpochNumber, StoreError> {
        Ok(self.applied().epoch)
    }

    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError> {
        let mut epochs: Vec<(EpochNumber, Vec<Receipt>)> = Vec::new();
        let start = Position { epoch: from, index: 0 };
        for (count, (position, receipt)) in self.read().receipts.range(start..).enumerate() {
            match epochs.last_mut() {
                Some((epoch, receipts)) if *epoch == position.epoch => {
                    receipts.push(receipt.clone());
                }
                _ if count >= limit => break,
                _ => epochs.push((position.epoch, vec![receipt.clone()])),
            }
        }
        Ok(epochs)
    }

    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError> {
        Ok(self.read().receipts.get(&position).cloned())
    }

    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        let range = (Bound::Excluded((to, after)), Bound::Included((to, EpochNumber(u64::MAX))));
        let mut owed = Vec::new();
        for pushes in self.read().outbox.range(range).map(|(_, pushes)| pushes) {
            if owed.len() >= limit {
                break;
            }
            owed.extend_from_slice(pushes);
        }
        Ok(owed)
    }

    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        self.write().outbox.retain(|(owed_to, epoch), _| *owed_to != to || *epoch > through);
        Ok(())
    }

    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError> {
        let inner = self.read();
        let applied = *inner.snapshots.applied();
        let pairs = inner.state.iter().filter(|(key, _)| counted(key));
        let state: Digest = pairs.map(|(key, value)| Digest::of(key, value)).sum();
        let receipts = inner.receipts.values().map(|receipt| Digest(receipt.digest())).sum();
        applied.confirm(state, receipts)
    }
}
