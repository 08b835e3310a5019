//! The store of a partition on a simulated disk: a journal of checksummed commits beside the
//! production floor file, and the production [`MemoryStore`] for what they add up to.
//!
//! It fails as the engine does in production: what was not synced may be lost, in whole commits
//! from the end; and damage in the middle of the journal makes it open *silently* short. Only the
//! floor can notice that.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};
use parsec_storage::{
    Applied, Digest, Disk, DiskFile as _, EpochCommit, Floor, MemoryStore, Store, StoreError, Write,
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::disk::{SimDisk, SimFile};

/// One entry of the journal.
#[derive(Debug, Archive, Serialize, Deserialize)]
enum Entry {
    Commit {
        first: EpochNumber,
        epoch: EpochNumber,
        writes: Vec<Written>,
        receipts: Vec<Receipt>,
        outbox: Vec<Push>,
        executed: u64,
        multi_partition: u64,
    },
    Advance(EpochNumber),
    Prune {
        to: PartitionId,
        through: EpochNumber,
    },
}

#[derive(Debug, Archive, Serialize, Deserialize)]
struct Written {
    key: Key,
    old: Option<Value>,
    new: Option<Value>,
    counted: bool,
}

impl Wire for Entry {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

impl From<EpochCommit> for Entry {
    fn from(commit: EpochCommit) -> Self {
        let EpochCommit { first, epoch, writes, receipts, outbox, executed, multi_partition } =
            commit;
        let written = |Write { key, old, new, counted }| Written { key, old, new, counted };
        let writes = writes.into_iter().map(written).collect();
        let receipts = receipts.into_iter().map(Arc::unwrap_or_clone).collect();
        Self::Commit { first, epoch, writes, receipts, outbox, executed, multi_partition }
    }
}

/// The checksummed entries of a journal: length, a hash that covers the one before, body.
mod journal {
    /// Bytes before the body of an entry.
    const HEAD: usize = 4 + 16;

    /// The hash of an entry, after that of the one before it.
    fn check(before: [u8; 16], body: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before).update(&(body.len() as u64).to_le_bytes()).update(body);
        let mut check = [0; 16];
        check.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        check
    }

    /// An entry as it is written after one with the hash `before`, which becomes its own.
    pub(super) fn write(before: &mut [u8; 16], body: &[u8]) -> Vec<u8> {
        *before = check(*before, body);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&length.to_le_bytes(), &before[..], body].concat()
    }

    /// The bodies of whole entries, where they end, and the hash of the last.
    pub(super) fn read(bytes: &[u8]) -> (Vec<&[u8]>, usize, [u8; 16]) {
        let (mut bodies, mut end, mut last) = (Vec::new(), 0, [0; 16]);
        while let Some((length, rest)) = bytes[end..].split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((found, rest)) = rest.split_first_chunk::<16>() else { break };
            let Some(body) = rest.get(..length) else { break };
            let expected = check(last, body);
            if *found != expected {
                break;
            }
            bodies.push(body);
            end += HEAD + length;
            last = expected;
        }
        (bodies, end, last)
    }
}

/// A journal of checksummed entries on a simulated disk.
#[derive(Debug)]
pub(crate) struct Journal {
    file: SimFile,
    last: [u8; 16],
}

impl Journal {
    /// Opens a journal, or begins it. Returns the entries that are whole, up to the first that is
    /// not; what follows is left in the file until [`Journal::truncate`].
    pub(crate) fn read(disk: &SimDisk, path: &Path) -> std::io::Result<Vec<Vec<u8>>> {
        if !disk.exists(path) {
            disk.create(path)?;
        }
        let bytes = disk.read(path)?;
        Ok(journal::read(&bytes).0.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// Drops what is not whole at the end of a journal, and opens it for writing.
    pub(crate) fn truncate(disk: &SimDisk, path: &Path) -> std::io::Result<Self> {
        let bytes = disk.read(path)?;
        let (_, end, last) = journal::read(&bytes);
        let file = disk.append(path)?;
        if end < bytes.len() {
            file.set_len(end as u64)?;
            file.sync_all()?;
        }
        disk.sync_directory(path.parent().unwrap_or(path))?;
        Ok(Self { file, last })
    }

    /// Appends an entry. Not durable before the next sync.
    pub(crate) fn append(&mut self, body: &[u8]) -> std::io::Result<()> {
        let bytes = journal::write(&mut self.last, body);
        self.file.write_all(&bytes)
    }

    /// Makes all entries durable.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

/// The store of a partition on a simulated disk.
#[derive(Debug)]
pub(crate) struct SimStore {
    path: PathBuf,
    memory: MemoryStore,
    floor: Floor<SimDisk>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    /// The epoch of the last entry that was written.
    written: EpochNumber,
    /// The epoch in the floor.
    durable: EpochNumber,
    poisoned: bool,
}

/// Where the journal of a partition is.
pub(crate) fn journal_path(partition: PartitionId) -> PathBuf {
    PathBuf::from(format!("/store/{partition}.journal"))
}

/// Where the floor of a partition is.
pub(crate) fn floor_path(partition: PartitionId) -> PathBuf {
    PathBuf::from(format!("/store/{partition}.floor"))
}

impl SimStore {
    /// Opens the store of a partition, or begins it, and checks it against its floor.
    pub(crate) fn open(
        disk: &SimDisk,
        cluster: [u8; 32],
        partition: PartitionId,
    ) -> Result<Self, StoreError> {
        let path = journal_path(partition);
        let file_error = |source| file_error(&path, source);
        disk.create_directory(Path::new("/store")).map_err(file_error)?;
        let floor = Floor::new(disk.clone(), floor_path(partition), cluster, partition);
        let mark = floor.read()?;
        let memory = MemoryStore::new();
        for body in Journal::read(disk, &path).map_err(file_error)? {
            replay(&memory, codec::decode(&body).map_err(StoreError::Undecodable)?)?;
        }
        let applied = memory.applied();
        floor.check(mark.as_ref(), &applied, &path)?;
        let journal = Journal::truncate(disk, &path).map_err(file_error)?;
        let state = State {
            journal,
            written: applied.epoch,
            durable: mark.map_or(EpochNumber(0), |mark| mark.epoch),
            poisoned: false,
        };
        Ok(Self { path, memory: memory.reopened(), floor, state: Mutex::new(state) })
    }

    /// The epoch through which nothing can be lost.
    pub(crate) fn durable(&self) -> EpochNumber {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).durable
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        // There is one thread, and a run ends with its first panic.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.poisoned { Err(StoreError::Poisoned) } else { Ok(state) }
    }

    fn append(&self, state: &mut State, entry: &Entry) -> Result<(), StoreError> {
        let appended = state.journal.append(&codec::encode(entry));
        self.poison(state, appended)
    }

    fn poison(&self, state: &mut State, result: std::io::Result<()>) -> Result<(), StoreError> {
        state.poisoned |= result.is_err();
        result.map_err(|source| file_error(&self.path, source))
    }
}

fn file_error(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::File { path: path.into(), source: Arc::new(source) }
}

fn replay(memory: &MemoryStore, entry: Entry) -> Result<(), StoreError> {
    match entry {
        Entry::Commit { first, epoch, writes, receipts, outbox, executed, multi_partition } => {
            let write = |Written { key, old, new, counted }| Write { key, old, new, counted };
            let writes = writes.into_iter().map(write).collect();
            memory.commit(EpochCommit {
                first,
                epoch,
                writes,
                receipts: receipts.into_iter().map(Arc::new).collect(),
                outbox,
                executed,
                multi_partition,
            })
        }
        Entry::Advance(epoch) => {
            memory.advance(epoch);
            Ok(())
        }
        Entry::Prune { to, through } => memory.prune_outbox(to, through),
    }
}

impl Store for SimStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.memory.get(key)
    }

    fn commit(&self, commit: EpochCommit) -> Result<(), StoreError> {
        let mut state = self.state()?;
        self.memory.commit(commit.clone())?;
        state.written = commit.epoch;
        self.append(&mut state, &Entry::from(commit))
    }

    fn advance(&self, epoch: EpochNumber) {
        self.memory.advance(epoch);
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        self.memory.read_at(epoch, keys)
    }

    fn applied(&self) -> Applied {
        self.memory.applied()
    }

    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError> {
        self.memory.state_digest(epoch)
    }

    fn sync(&self) -> Result<EpochNumber, StoreError> {
        let mut state = self.state()?;
        let applied = self.memory.applied();
        if applied.epoch > state.written {
            self.append(&mut state, &Entry::Advance(applied.epoch))?;
            state.written = applied.epoch;
        }
        if applied.epoch > state.durable {
            let synced = state.journal.sync();
            self.poison(&mut state, synced)?;
            let raised = self.floor.raise(&applied);
            state.poisoned |= raised.is_err();
            raised?;
            state.durable = applied.epoch;
        }
        Ok(applied.epoch)
    }

    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError> {
        self.memory.receipts(from, limit)
    }

    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError> {
        self.memory.receipt(position)
    }

    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        self.memory.outbox(to, after, limit)
    }

    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        let mut state = self.state()?;
        self.memory.prune_outbox(to, through)?;
        self.append(&mut state, &Entry::Prune { to, through })
    }

    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError> {
        self.memory.verify(counted)
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;

    use super::*;
    use crate::disk::DiskFault;
    use crate::random::Random;

    const P: PartitionId = PartitionId(3);

    fn open(disk: &SimDisk) -> Result<SimStore, StoreError> {
        SimStore::open(disk, [7; 32], P)
    }

    fn commit(epoch: u64) -> EpochCommit {
        let key = Key::new(Namespace::partitioned(0x10), &epoch.to_le_bytes()).unwrap();
        let write = Write { key, old: None, new: Some(Value::from(vec![7; 40])), counted: true };
        EpochCommit { writes: vec![write], ..EpochCommit::new(EpochNumber(epoch)) }
    }

    #[test]
    fn a_power_cut_takes_whole_commits_and_nothing_that_was_synced() {
        let mut kept = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let disk = SimDisk::new(Random::new(seed, 0));
            let store = open(&disk).unwrap();
            (1..=6).for_each(|epoch| store.commit(commit(epoch)).unwrap());
            store.advance(EpochNumber(7));
            assert_eq!(store.sync().unwrap(), EpochNumber(7));
            (8..=12).for_each(|epoch| store.commit(commit(epoch)).unwrap());
            disk.restart(true);
            let applied = open(&disk).unwrap().applied();
            assert!((7..=12).contains(&applied.epoch.0), "{applied}");
            kept.insert(applied.epoch);
        }
        assert!(kept.len() > 3, "{kept:?}");
    }

    #[test]
    fn damage_to_what_was_synced_is_below_the_floor() {
        let mut found = [0; 2];
        for seed in 0..60 {
            let disk = SimDisk::new(Random::new(seed, 0));
            let store = open(&disk).unwrap();
            (1..=6).for_each(|epoch| store.commit(commit(epoch)).unwrap());
            store.sync().unwrap();
            disk.restart(true);
            let path = if seed % 3 == 0 { floor_path(P) } else { journal_path(P) };
            disk.damage(&path, 0..usize::MAX).unwrap();
            match open(&disk) {
                Err(StoreError::BelowFloor { .. }) => found[0] += 1,
                Err(StoreError::Damaged { .. }) => found[1] += 1,
                other => panic!("{:?}", other.map(|store| store.applied())),
            }
            disk.wipe(Path::new("/store"));
            assert_eq!(open(&disk).unwrap().applied().epoch, EpochNumber(0));
        }
        assert_eq!(found, [40, 20]);
    }

    #[test]
    fn a_crash_between_any_two_operations_of_a_sync_condemns_nothing() {
        for later in 0..12 {
            let disk = SimDisk::new(Random::new(later, 0));
            let store = open(&disk).unwrap();
            store.commit(commit(1)).unwrap();
            store.sync().unwrap();
            store.commit(commit(2)).unwrap();
            disk.arm(DiskFault::Crash, later);
            let synced = store.sync();
            disk.restart(true);
            let applied = open(&disk).unwrap().applied().epoch.0;
            assert!(applied == 2 || (applied == 1 && synced.is_err()), "{applied}");
        }
    }

    #[test]
    fn a_failed_write_is_final() {
        let disk = SimDisk::new(Random::new(1, 0));
        let store = open(&disk).unwrap();
        disk.arm(DiskFault::Full, 0);
        assert!(matches!(store.commit(commit(1)), Err(StoreError::File { .. })));
        disk.heal();
        assert!(matches!(store.sync(), Err(StoreError::Poisoned)));
        assert!(matches!(store.commit(commit(2)), Err(StoreError::Poisoned)));
    }
}
