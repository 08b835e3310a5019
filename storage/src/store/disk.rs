//! The store on disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _,
    Snapshot,
};
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use super::floor::Floor;
use super::outbox::Outbox;
use super::packed::{self, Gathered, PackedPushes, PackedReceipts};
use super::snapshots::Snapshots;
use super::{Applied, EpochCommit, Store, StoreError};
use crate::digest::Digest;
use crate::disk::StdDisk;
use crate::limits::{
    CACHE_BYTES, JOURNAL_BYTES_MAX, MARKS_MEMTABLE_BYTES, RECORDS_MEMTABLE_BYTES,
    STATE_MEMTABLE_BYTES, STATE_RUNS_MAX, STATE_TABLE_BYTES,
};

/// Version of what is stored, in the identity record.
const FORMAT_VERSION: u32 = 4;
/// Where what is owed stands, within the store's directory.
const OUTBOX: &str = "outbox";
const IDENTITY_KEY: &[u8] = b"identity";
const APPLIED_KEY: &[u8] = b"applied";

/// Where a store is and whose.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Its directory; created if absent.
    pub directory: PathBuf,
    /// Its floor file, which stands outside of the directory so that it does not share its fate.
    pub floor: PathBuf,
    /// The cluster's id.
    pub cluster: [u8; 32],
    /// The partition.
    pub partition: PartitionId,
    /// Bytes of the cache of blocks.
    pub cache_bytes: u64,
}

impl StoreOptions {
    /// The options of a partition's store at `directory`, with its floor beside it.
    #[must_use]
    pub fn new(directory: PathBuf, cluster: [u8; 32], partition: PartitionId) -> Self {
        let floor = directory.with_added_extension("floor");
        Self { directory, floor, cluster, partition, cache_bytes: CACHE_BYTES }
    }

    fn floor(&self) -> Floor {
        Floor::new(StdDisk, self.floor.clone(), self.cluster, self.partition)
    }

    fn engine_error(&self, error: fjall::Error) -> StoreError {
        match error {
            fjall::Error::Locked => StoreError::Locked { path: self.directory.clone() },
            error => engine_error(&self.directory, error),
        }
    }
}

/// A store on fjall, one database per partition.
///
/// A commit is one write batch: state, receipts and the `applied` record together, handed to the
/// operating system but not synced; what it owes is in a file of its own before. It survives a crash
/// of the process; a power cut may take what was committed since the last [`Store::sync`], in whole
/// epochs.
pub struct FjallStore {
    options: StoreOptions,
    database: Database,
    state: Keyspace,
    pub(super) receipts: Keyspace,
    outbox: Outbox,
    /// The digest of the state after each commit, by its epoch (big-endian).
    digests: Keyspace,
    pub(super) meta: Keyspace,
    snapshots: RwLock<Snapshots<Arc<Snapshot>>>,
    /// The epoch of the `applied` record that was written last. Writers hold it in turn.
    written: Mutex<EpochNumber>,
    /// The epoch of the one that is durable and in the floor. Held while syncing, and taken before
    /// `written`, which is free meanwhile: commits go on.
    durable: Mutex<EpochNumber>,
    poisoned: AtomicBool,
}

impl FjallStore {
    /// Opens a partition's store, or creates it, and checks it against its floor.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process uses it, [`StoreError::Foreign`] if it is
    /// another partition's, cluster's or version's, [`StoreError::BelowFloor`] if it lost what
    /// was durable, [`StoreError::Damaged`] if its records or its floor are damaged,
    /// [`StoreError::Engine`] or [`StoreError::File`] if it can't be read.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let floor = options.floor().read()?;
        let engine_error = |error| options.engine_error(error);
        let database = Database::builder(&options.directory)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // With more, the engine's first one only flushes, and when there is something to compact
            // while the others do, hands it back to the queue and takes it again, all the time.
            .worker_threads(1)
            .open()
            .map_err(engine_error)?;
        let keyspace = |name: &str, create: fn() -> KeyspaceCreateOptions| {
            database.keyspace(name, create).map_err(engine_error)
        };
        let meta = keyspace("meta", keyspace_of_marks)?;
        let state = keyspace("state", keyspace_of_state)?;
        let receipts = keyspace("receipts", keyspace_of_records)?;
        let digests = keyspace("digests", keyspace_of_marks)?;

        let applied = read_applied(&options, &meta)?;
        if applied.is_none() {
            check_empty(&options, [&state, &receipts, &digests])?;
        }
        let applied = applied.unwrap_or_default();
        options.floor().check(floor.as_ref(), &applied, &options.directory)?;
        claim(&options, &database, &meta)?;
        let owed = options.directory.join(OUTBOX);
        let outbox = Outbox::open(owed, options.cluster, options.partition, applied.epoch)?;

        let snapshots = Snapshots::new(applied, Arc::new(database.snapshot()));
        Ok(Self {
            options,
            database,
            state,
            receipts,
            outbox,
            digests,
            meta,
            snapshots: RwLock::new(snapshots),
            written: Mutex::new(applied.epoch),
            durable: Mutex::new(floor.map_or(EpochNumber(0), |floor| floor.epoch)),
            poisoned: AtomicBool::new(false),
        })
    }

    fn engine_error(&self, error: fjall::Error) -> StoreError {
        self.options.engine_error(error)
    }

    /// Makes the store refuse all later writes if this one failed.
    fn poison<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    fn lock<'a>(
        &self,
        epoch: &'a Mutex<EpochNumber>,
    ) -> Result<MutexGuard<'a, EpochNumber>, StoreError> {
        // A panic amid a write counts as a failed one.
        let guard = epoch.lock().map_err(|_| StoreError::Poisoned)?;
        match self.poisoned.load(Ordering::Acquire) {
            true => Err(StoreError::Poisoned),
            false => Ok(guard),
        }
    }

    fn snapshots(&self) -> RwLockReadGuard<'_, Snapshots<Arc<Snapshot>>> {
        self.snapshots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(self.snapshots().latest())
    }

    fn get_from(&self, snapshot: &Snapshot, key: &Key) -> Result<Option<Value>, StoreError> {
        let value = snapshot.get(&self.state, key.encoded());
        // Copied, because a cached value would keep its whole block alive.
        let copy = |value: Option<fjall::Slice>| value.map(|value| Value::copy_from_slice(&value));
        value.map(copy).map_err(|error| self.engine_error(error))
    }

    /// Commits what was prepared.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`], [`StoreError::Engine`] and [`StoreError::Poisoned`], as
    /// [`Store::commit`].
    pub(super) fn commit_run(&self, records: Records<'_>) -> Result<(), StoreError> {
        let mut written = self.lock(&self.written)?;
        let before = self.snapshots().applied().epoch;
        if records.first <= before {
            return Err(StoreError::OutOfOrder { epoch: records.first, applied: before });
        }
        self.write_run(&mut written, records)
    }

    /// Writes a commit and keeps a snapshot of what it leaves.
    fn write_run(&self, written: &mut EpochNumber, records: Records<'_>) -> Result<(), StoreError> {
        let started = Instant::now();
        let (first, applied, writes) = (records.first, records.applied, records.writes.len());
        let owed = match &records.outbox[..] {
            [] => None,
            owed => Some(self.poison(self.outbox.write(first..=applied.epoch, owed))?),
        };
        // ORDER: what is owed is durable before the mark says that its epochs are applied; nobody
        // would make it again.
        self.commit_batch(self.batch(records))?;
        owed.into_iter().for_each(|owed| self.outbox.add(owed));
        *written = applied.epoch;
        let snapshot = Arc::new(self.database.snapshot());
        self.snapshots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(first, applied, snapshot);
        metrics::histogram!("parsec_storage_commit_seconds").record(started.elapsed());
        metrics::counter!("parsec_storage_writes_total").increment(writes as u64);
        self.show_memory();
        Ok(())
    }

    /// Shows what the engine has in memory.
    fn show_memory(&self) {
        let labels = [metrics::Label::new("partition", self.options.partition.to_string())];
        let set = |name: &'static str, bytes: u64| {
            metrics::gauge!(name, labels.iter()).set(u32::try_from(bytes).unwrap_or(u32::MAX));
        };
        set("parsec_storage_memtable_bytes", self.memtable_bytes());
        set("parsec_storage_cache_bytes", self.database.cache_size());
    }

    /// Bytes that the engine has in memory and in no table yet, as it counts them.
    pub(super) fn memtable_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Brings the state to tables and merges them.
    #[cfg(test)]
    pub(super) fn merge_state(&self) -> Result<(), StoreError> {
        let merge = || {
            self.state.rotate_memtable_and_wait()?;
            self.state.major_compact()
        };
        merge().map_err(|error| self.engine_error(error))
    }

    /// Forgets the snapshots that only epochs before `epoch` need.
    pub(super) fn forget_snapshots_before(&self, epoch: EpochNumber) {
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).forget_before(epoch);
    }

    /// Everything of a commit but what it owes, as one batch.
    fn batch(&self, records: Records<'_>) -> OwnedWriteBatch {
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for (key, value) in records.writes {
            match value {
                Some(value) => batch.insert(&self.state, key.encoded(), &value[..]),
                None => batch.remove(&self.state, key.encoded()),
            }
        }
        for record in records.receipts {
            batch.insert(&self.receipts, packed::receipt_key(record.first), &record.value[..]);
        }
        for (epoch, state) in records.digests {
            batch.insert(&self.digests, epoch.0.to_be_bytes(), state.0);
        }
        // ORDER: the mark travels in the same batch as what it describes; a crash between them
        // would apply an epoch twice.
        batch.insert(&self.meta, APPLIED_KEY, records.applied.encode());
        batch
    }

    fn commit_batch(&self, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        self.poison(batch.commit().map_err(|error| self.engine_error(error)))
    }

    /// What is applied, after writing its mark if epochs were passed without a commit.
    fn write_mark(&self) -> Result<Applied, StoreError> {
        let mut written = self.lock(&self.written)?;
        let applied = *self.snapshots().applied();
        if applied.epoch > *written {
            let nothing = EpochCommit::new(applied.epoch);
            self.commit_batch(self.batch(PackedCommit::of(&nothing, applied).records()))?;
            *written = applied.epoch;
        }
        Ok(applied)
    }

    /// Makes everything up to `applied` durable, then raises the floor to it.
    fn persist(&self, applied: &Applied) -> Result<(), StoreError> {
        let started = Instant::now();
        let synced = self.database.persist(PersistMode::SyncData);
        self.poison(synced.map_err(|error| self.engine_error(error)))?;
        self.poison(self.options.floor().raise(applied))?;
        metrics::histogram!("parsec_storage_sync_seconds").record(started.elapsed());
        Ok(())
    }

    /// Calls `visit` with records, in order, until it says stop.
    fn scan(
        &self,
        records: fjall::Iter,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        for guard in records {
            let (key, value) = guard.into_inner().map_err(|error| self.engine_error(error))?;
            if visit(&key, &value)? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.options.directory.clone(), what }
    }
}

/// What a commit, or several as one, puts on disk.
pub(super) struct Records<'a> {
    /// The first epoch.
    pub(super) first: EpochNumber,
    /// What is applied afterwards.
    pub(super) applied: Applied,
    /// Each key that was written, and what it holds now.
    pub(super) writes: Vec<(&'a Key, Option<&'a Value>)>,
    /// Receipts, in the order of their positions.
    pub(super) receipts: &'a [PackedReceipts],
    /// What is owed, by partition and then by epoch.
    pub(super) outbox: Vec<&'a PackedPushes>,
    /// The digest of the state after each epoch that has one.
    pub(super) digests: &'a [(EpochNumber, Digest)],
}

/// A commit alone, as it goes to disk.
pub(super) struct PackedCommit<'a> {
    commit: &'a EpochCommit,
    applied: Applied,
    receipts: Vec<PackedReceipts>,
    outbox: Vec<PackedPushes>,
    /// As in [`Records`].
    pub(super) digests: Vec<(EpochNumber, Digest)>,
}

impl<'a> PackedCommit<'a> {
    /// Of a commit that is sorted, after which `applied` is applied.
    pub(super) fn of(commit: &'a EpochCommit, applied: Applied) -> Self {
        let receipts = commit.receipts.iter().map(|receipt| &**receipt);
        Self {
            commit,
            applied,
            receipts: packed::pack_receipts(receipts).collect(),
            outbox: packed::pack_pushes(&commit.outbox).collect(),
            digests: vec![(applied.epoch, applied.state)],
        }
    }

    pub(super) fn records(&self) -> Records<'_> {
        let writes = self.commit.writes.iter().map(|write| (&write.key, write.new.as_ref()));
        Records {
            first: self.commit.first,
            applied: self.applied,
            writes: writes.collect(),
            receipts: &self.receipts,
            outbox: self.outbox.iter().collect(),
            digests: &self.digests,
        }
    }
}

/// Whether a scan goes on.
#[derive(PartialEq)]
enum Scan {
    Continue,
    Stop,
}

/// For random reads of keys that often don't exist: new accounts, empty slots.
///
/// Tables that were merged have their filters and indexes in parts of some 4 KiB. In one piece they
/// have hundreds of KiB, and with more of them than the cache holds, each read of a key that is not
/// cached would read one anew.
fn keyspace_of_state() -> KeyspaceCreateOptions {
    let bloom = |policy| FilterPolicyEntry::Bloom(policy);
    let merged = || PartitioningPolicy::new([false, true]);
    KeyspaceCreateOptions::default()
        .max_memtable_size(STATE_MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(
            Leveled::default()
                .with_l0_threshold(STATE_RUNS_MAX)
                .with_table_target_size(STATE_TABLE_BYTES),
        ))
        .expect_point_read_hits(false)
        .filter_policy(FilterPolicy::new([
            bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
            bloom(BloomConstructionPolicy::BitsPerKey(10.0)),
        ]))
        .filter_block_partitioning_policy(merged())
        .index_block_partitioning_policy(merged())
}

/// For few large records that are written in order, read in order, and there when looked for.
fn keyspace_of_records() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(RECORDS_MEMTABLE_BYTES)
        .expect_point_read_hits(true)
}

/// For few small records.
fn keyspace_of_marks() -> KeyspaceCreateOptions {
    keyspace_of_records().max_memtable_size(MARKS_MEMTABLE_BYTES)
}

/// The `applied` record, if there is one, after a check that the store is ours.
fn read_applied(options: &StoreOptions, meta: &Keyspace) -> Result<Option<Applied>, StoreError> {
    let read = |key: &[u8]| meta.get(key).map_err(|error| options.engine_error(error));
    let damaged = |what| StoreError::Damaged { path: options.directory.clone(), what };
    let applied = read(APPLIED_KEY)?;
    match read(IDENTITY_KEY)? {
        Some(found) => check_identity(options, &found)?,
        None if applied.is_some() => return Err(damaged("its identity is missing")),
        None => {}
    }
    applied
        .map(|bytes| Applied::decode(&bytes).ok_or_else(|| damaged("its mark is malformed")))
        .transpose()
}

/// The identity record: version, cluster, partition; numbers big-endian.
fn identity_record(options: &StoreOptions) -> Vec<u8> {
    let version = FORMAT_VERSION.to_be_bytes();
    let partition = options.partition.0.to_be_bytes();
    [&version[..], &options.cluster, &partition].concat()
}

fn check_identity(options: &StoreOptions, found: &[u8]) -> Result<(), StoreError> {
    let ours = identity_record(options);
    if found == ours {
        return Ok(());
    }
    let found = match (found.get(..4), found.get(4..36), found.get(36..)) {
        (Some(version), ..) if version != &ours[..4] => {
            format!("its format is {version:?}, this version of Parsec reads {:?}", &ours[..4])
        }
        (_, Some(cluster), _) if cluster != options.cluster => {
            "it belongs to another cluster".into()
        }
        (.., Some(&[high, low])) => {
            let theirs = PartitionId(u16::from_be_bytes([high, low]));
            format!("it holds {theirs}, not {}", options.partition)
        }
        _ => "its identity is malformed".into(),
    };
    Err(StoreError::Foreign { path: options.directory.clone(), found })
}

/// A store without a mark must have nothing else either.
fn check_empty(options: &StoreOptions, keyspaces: [&Keyspace; 3]) -> Result<(), StoreError> {
    for keyspace in keyspaces {
        if !keyspace.is_empty().map_err(|error| options.engine_error(error))? {
            let what = "it has content, but its mark is missing";
            return Err(StoreError::Damaged { path: options.directory.clone(), what });
        }
    }
    Ok(())
}

/// Writes the identity into a store that has none.
fn claim(options: &StoreOptions, database: &Database, meta: &Keyspace) -> Result<(), StoreError> {
    let engine_error = |error| options.engine_error(error);
    if meta.get(IDENTITY_KEY).map_err(engine_error)?.is_some() {
        return Ok(());
    }
    meta.insert(IDENTITY_KEY, identity_record(options)).map_err(engine_error)?;
    database.persist(PersistMode::SyncAll).map_err(engine_error)
}

fn engine_error(path: &Path, error: fjall::Error) -> StoreError {
    StoreError::Engine { path: path.into(), source: Arc::new(error) }
}

impl Store for FjallStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.get_from(&self.latest(), key)
    }

    fn commit(&self, mut commit: EpochCommit) -> Result<(), StoreError> {
        let mut written = self.lock(&self.written)?;
        let before = *self.snapshots().applied();
        let applied = commit.prepare(&before)?;
        self.write_run(&mut written, PackedCommit::of(&commit, applied).records())
    }

    fn advance(&self, epoch: EpochNumber) {
        self.snapshots.write().unwrap_or_else(PoisonError::into_inner).advance(epoch);
    }

    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError> {
        let snapshot = {
            let snapshots = self.snapshots();
            let (snapshot, _) = snapshots.at(epoch)?;
            Arc::clone(snapshot)
        };
        keys.iter().map(|key| self.get_from(&snapshot, key)).collect()
    }

    fn applied(&self) -> Applied {
        *self.snapshots().applied()
    }

    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError> {
        let snapshot = {
            let snapshots = self.snapshots();
            snapshots.check_applied(epoch)?;
            Arc::clone(snapshots.latest())
        };
        let Some(last) = snapshot.range(&self.digests, ..=epoch.0.to_be_bytes()).next_back() else {
            return Ok(Digest::ZERO);
        };
        let digest = last.value().map_err(|error| self.engine_error(error))?;
        let digest = <[u8; 32]>::try_from(&digest[..]);
        digest.map(Digest).map_err(|_| self.damaged("the digest of an epoch is malformed"))
    }

    fn sync(&self) -> Result<EpochNumber, StoreError> {
        let mut durable = self.lock(&self.durable)?;
        let applied = self.write_mark()?;
        if applied.epoch > *durable {
            self.persist(&applied)?;
            *durable = applied.epoch;
        }
        Ok(applied.epoch)
    }

    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError> {
        let start = packed::receipt_key(Position { epoch: from, index: 0 });
        let mut gathered = Gathered::new(Vec::new(), limit);
        let records = self.latest().range(&self.receipts, start..);
        self.scan(records, |key, value| {
            let epoch = packed::receipt_epoch(key)
                .ok_or_else(|| self.damaged("a key of its receipts is malformed"))?;
            let added = gathered.add(epoch, value).map_err(StoreError::Undecodable)?;
            Ok(if added { Scan::Continue } else { Scan::Stop })
        })?;
        Ok(gathered.epochs)
    }

    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError> {
        let start = packed::receipt_key(Position { epoch: position.epoch, index: 0 });
        let end = packed::receipt_key(position);
        let mut records = self.latest().range(&self.receipts, start..=end);
        let Some(last) = records.next_back() else { return Ok(None) };
        let value = last.value().map_err(|error| self.engine_error(error))?;
        packed::find_receipt(&value, position).map_err(StoreError::Undecodable)
    }

    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError> {
        self.outbox.owed(to, after, limit)
    }

    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError> {
        let _turn = self.lock(&self.written)?;
        self.poison(self.outbox.prune(to, through))
    }

    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError> {
        let (applied, snapshot) = {
            let snapshots = self.snapshots();
            (*snapshots.applied(), Arc::clone(snapshots.latest()))
        };
        let pairs = |keyspace| {
            let pairs = snapshot.iter(keyspace);
            pairs.map(|pair| pair.into_inner().map_err(|error| self.engine_error(error)))
        };
        let mut state = Digest::ZERO;
        for pair in pairs(&self.state) {
            let (key, value) = pair?;
            let key =
                Key::from_encoded(Value::copy_from_slice(&key)).map_err(StoreError::Undecodable)?;
            if counted(&key) {
                state.add(Digest::of(&key, &value));
            }
        }
        let mut receipts = Digest::ZERO;
        for pair in pairs(&self.receipts) {
            let (_, value) = pair?;
            for receipt in packed::unpack_receipts(&value).map_err(StoreError::Undecodable)? {
                receipts.add(Digest(receipt.digest()));
            }
        }
        applied.confirm(state, receipts)
    }
}
