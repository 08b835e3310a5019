//! The store of a partition in production: commits gather in memory, and go to disk in runs.
//!
//! An engine on disk takes microseconds for each key that it is given, which is more than most
//! transactions take to execute. So a key that changes in every epoch goes to disk once a run, not
//! once an epoch. What the disk does not have is not lost in a crash: the log has it, and the epochs
//! after the last run are executed again.

mod run;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use super::disk::{FjallStore, StoreOptions};
use super::packed::{self, Gathered};
use super::{Applied, EpochCommit, Ranks, Store, StoreError, rank};
use crate::digest::Digest;
use crate::limits::{RUN_BYTES_MAX, RUN_COMMITS_MAX, SNAPSHOTS_KEPT};
use run::Run;

/// A [`FjallStore`] behind commits that are in memory only.
///
/// A commit is visible at once, and on disk with the next run: at a [`Store::sync`], or when
/// [`RUN_BYTES_MAX`] or [`RUN_COMMITS_MAX`] are reached. A crash takes what came after the last
/// run, in whole epochs.
pub struct WriteBehindStore {
    back: FjallStore,
    front: RwLock<Front>,
    /// Held by who commits.
    committing: Mutex<()>,
    /// Held by who brings a run to disk, or changes what is there. Taken after `committing`.
    writing: Mutex<()>,
    /// A run could not be written.
    poisoned: AtomicBool,
}

/// What a commit changed, to read the state before it.
struct Past {
    /// The first epoch of the commit ...
    first: EpochNumber,
    /// ... and the last.
    epoch: EpochNumber,
    /// What its keys held before.
    undo: Vec<(Key, Option<Value>)>,
    /// By which these keys are found.
    ranks: Ranks,
}

/// What is in memory.
struct Front {
    /// What is not on disk, and on its way there.
    flushing: Option<Arc<Run>>,
    /// What came later.
    open: Run,
    applied: Applied,
    /// The commits whose epochs can be read, on disk or not, in order.
    pasts: VecDeque<Past>,
    /// The epochs at which the store on disk has a snapshot, in order. The last one is how far
    /// it is without `flushing`. **Invariant:** never empty.
    ends: VecDeque<EpochNumber>,
    /// The state of no earlier epoch can be read.
    oldest: EpochNumber,
}

impl WriteBehindStore {
    /// Opens a partition's store, or creates it, and checks it against its floor.
    ///
    /// # Errors
    /// Those of [`FjallStore::open`].
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Self::new(FjallStore::open(options)?))
    }

    fn new(back: FjallStore) -> Self {
        let applied = back.applied();
        let front = Front {
            flushing: None,
            open: Run::default(),
            applied,
            pasts: VecDeque::new(),
            ends: VecDeque::from([applied.epoch]),
            oldest: applied.epoch,
        };
        Self {
            back,
            front: RwLock::new(front),
            committing: Mutex::new(()),
            writing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Front> {
        // Nothing here panics between two changes that belong together.
        self.front.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Front> {
        self.front.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn<'a>(&self, mutex: &'a Mutex<()>) -> Result<MutexGuard<'a, ()>, StoreError> {
        // A panic amid a write counts as a failed one.
        let guard = mutex.lock().map_err(|_| StoreError::Poisoned)?;
        match self.poisoned.load(Ordering::Acquire) {
            true => Err(StoreError::Poisoned),
            false => Ok(guard),
        }
    }

    /// Brings everything in memory to disk, unsynced. Readers and committers go on meanwhile.
    fn flush(&self) -> Result<(), StoreError> {
        let _turn = self.turn(&self.writing)?;
        let (run, applied) = {
            let mut front = self.write();
            let next = front.open.successor();
            let run = Arc::new(std::mem::replace(&mut front.open, next));
            front.flushing = Some(run.clone());
            (run, front.applied.epoch)
        };
        let written = match run.last() {
            Some(_) => self.back.commit_run(run.to_records()),
            None => Ok(()),
        };
        if written.is_err() {
            self.poisoned.store(true, Ordering::Release);
            return written;
        }
        let oldest = {
            let mut front = self.write();
            front.ends.extend(run.last());
            front.flushing = None;
            front.forget_ends();
            front.ends[0]
        };
        self.back.advance(applied);
        self.back.forget_snapshots_before(oldest);
        Ok(())
    }
}

impl Front {
    /// The runs that are not on disk, the later one first.
    fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        [Some(&self.open), self.flushing.as_deref()].into_iter().flatten()
    }

    /// The first epoch that is not on disk.
    fn first(&self) -> Option<EpochNumber> {
        self.runs().rev().find_map(Run::first)
    }

    /// Takes a commit, checked, after which `applied` is applied.
    fn take(&mut self, commit: EpochCommit, ranks: Ranks, applied: Applied) {
        let (first, epoch) = (commit.first, commit.epoch);
        let undo = self.open.add(commit, &ranks, applied);
        self.pasts.push_back(Past { first, epoch, undo, ranks });
        while self.pasts.len() > SNAPSHOTS_KEPT {
            self.oldest = self.pasts.pop_front().map_or(self.oldest, |past| past.epoch);
        }
        // Epochs may have been passed meanwhile.
        self.applied = Applied { epoch: self.applied.epoch.max(applied.epoch), ..applied };
    }

    /// Forgets the snapshots on disk that no readable epoch needs.
    fn forget_ends(&mut self) {
        while self.ends.len() > 1 && self.ends[0] < self.oldest {
            self.ends.pop_front();
        }
    }

    fn check_applied(&self, epoch: EpochNumber) -> Result<(), StoreError> {
        match epoch > self.applied.epoch {
            true => Err(StoreError::NotYet { epoch, applied: self.applied.epoch }),
            false => Ok(()),
        }
    }

    /// The value of a key after `epoch`, or after which epoch the store on disk has it.
    fn find(&self, epoch: EpochNumber, key: &Key) -> Result<Option<Value>, EpochNumber> {
        let end = self.ends.iter().copied().find(|end| *end >= epoch);
        let later = self.pasts.partition_point(|past| past.epoch <= epoch);
        let mut pasts = self.pasts.range(later..);
        let undone = pasts
            .by_ref()
            .take_while(|past| end.is_none_or(|end| past.epoch <= end))
            .find_map(|past| past.find(key));
        if let Some(old) = undone {
            return Ok(old.clone());
        }
        match end {
            Some(end) => Err(end),
            None => self.latest(key).ok_or(self.ends[self.ends.len() - 1]),
        }
    }

    /// The value of a key, if it is not on disk.
    fn latest(&self, key: &Key) -> Option<Option<Value>> {
        self.runs().find_map(|run| run.get(key)).cloned()
    }

    /// Makes sure that the state after `epoch` can be read.
    fn check_readable(&self, epoch: EpochNumber) -> Result<(), StoreError> {
        self.check_applied(epoch)?;
        if epoch < self.oldest {
            return Err(StoreError::SnapshotGone { epoch, oldest: self.oldest });
        }
        let next = self.pasts.partition_point(|past| past.epoch <= epoch);
        match self.pasts.get(next).filter(|next| next.first <= epoch) {
            // The epoch lies within several that were committed as one.
            Some(within) => Err(StoreError::SnapshotGone { epoch, oldest: within.epoch }),
            None => Ok(()),
        }
    }
}

impl Past {
    fn find(&self, key: &Key) -> Option<&Option<Value>> {
        let mut alike = self.ranks.places(rank(key)).map(|place| &self.undo[place as usize]);
        alike.find_map(|(other, old)| (other == key).then_some(old))
    }
}

impl Store for WriteBehindStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        let found = self.read().latest(key);
        // Without the lock: runs that come to disk meanwhile do not have the key, or it changed
        // after this call began.
        found.map_or_else(|| self.back.get(key), Ok)
    }

    fn commit(&self, mut commit: EpochCommit) -> Result<(), StoreError> {
        let turn = self.turn(&self.committing)?;
        let before = self.applied();
        let ranks = commit.check(&before)?;
        let applied = commit.after(&before);
        let is_full = {
            let mut front = self.write();
            front.take(commit, ranks, applied);
            front.open.bytes >= RUN_BYTES_MAX || front.open.digests.len() >= RUN_COMMITS_MAX
        };
        if is_full {
            // ORDER: no other commit comes in before, so that memory stays bounded.
            self.flush()?;
        }
        drop(turn);
        Ok(())
    }

    fn advance(&self, epoch: EpochNumber) {
        let mut front = self.write();
        front.applied.epoch = front.applied.epoch.max(epoch);
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        let found: Vec<_> = {
            let front = self.read();
            front.check_readable(epoch)?;
            keys.iter().map(|key| front.find(epoch, key)).collect()
        };
        // All that are on disk are read at the same epoch: which one depends on `epoch` only.
        let Some(end) = found.iter().find_map(|value| value.as_ref().err()).copied() else {
            return Ok(found.into_iter().map(Result::unwrap_or_default).collect());
        };
        let missing = keys.iter().zip(&found).filter(|(_, found)| found.is_err());
        let missing: Vec<Key> = missing.map(|(key, _)| key.clone()).collect();
        let mut stored = self.back.read_at(end, &missing)?.into_iter();
        let value = |found: Result<Option<Value>, EpochNumber>| {
            found.unwrap_or_else(|_| stored.next().flatten())
        };
        Ok(found.into_iter().map(value).collect())
    }

    fn applied(&self) -> Applied {
        self.read().applied
    }

    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError> {
        let front = self.read();
        front.check_applied(epoch)?;
        match front.runs().find_map(|run| run.digest(epoch)) {
            Some(digest) => Ok(digest),
            None => self.back.state_digest(epoch.min(self.back.applied().epoch)),
        }
    }

    fn sync(&self) -> Result<EpochNumber, StoreError> {
        self.flush()?;
        self.back.sync()
    }

    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError> {
        // Held throughout: what is in memory must not come to disk between the two looks.
        let front = self.read();
        let first = front.first();
        let mut epochs = match first.is_some_and(|first| first <= from) {
            true => Vec::new(),
            false => self.back.receipts(from, limit)?,
        };
        // A run that is being written may be there already.
        epochs.retain(|(epoch, _)| first.is_none_or(|first| *epoch < first));
        let mut gathered = Gathered::new(epochs, limit);
        for record in front.runs().rev().flat_map(|run| run.receipts_from(from)) {
            let added = gathered.add(record.first.epoch, &record.value);
            if !added.map_err(StoreError::Undecodable)? {
                break;
            }
        }
        Ok(gathered.epochs)
    }

    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError> {
        let front = self.read();
        if front.first().is_some_and(|first| first <= position.epoch) {
            let found = front.runs().find_map(|run| run.receipt(position).transpose());
            return found.transpose().map_err(StoreError::Undecodable);
        }
        // Commits need not wait for the disk: what is there stays there.
        drop(front);
        self.back.receipt(position)
    }

    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        let front = self.read();
        let first = front.first();
        let mut owed = match first.is_some_and(|first| first <= after) {
            true => Vec::new(),
            false => self.back.outbox(to, after, limit)?,
        };
        owed.retain(|push| first.is_none_or(|first| push.position.epoch < first));
        for record in front.runs().rev().flat_map(|run| run.owed(to, after)) {
            let begins = owed.last().is_none_or(|last| last.position.epoch != record.epoch);
            if begins && owed.len() >= limit {
                break;
            }
            owed.extend(packed::unpack_pushes(&record.value).map_err(StoreError::Undecodable)?);
        }
        Ok(owed)
    }

    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        let _turn = self.turn(&self.writing)?;
        self.write().open.prune(to, through);
        self.back.prune_outbox(to, through)
    }

    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError> {
        let _turn = self.turn(&self.committing)?;
        self.flush()?;
        self.back.verify(counted)
    }
}
