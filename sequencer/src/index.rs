//! The index of ids: where each transaction was ordered, by its id.
//!
//! Ids come in no order, and an engine that is given them one by one spends more on each than most
//! transactions cost. So the last ones are in memory, and go to disk sorted, many at a time, past
//! the engine's journal and memtable. A crash takes those in memory: the log has them, from the mark
//! on.
//!
//! Almost every id that is looked up is new. A [filter](IdFilter) in memory says so of nearly all of
//! them; the tables are searched for the others.
//!
//! What goes into it, and what may be said about it, is decided by
//! [`Indexing`](parsec_sequencer_core::Indexing).

mod filter;
mod refill;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ahash::AHashMap;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use parsec_protocol::message::ClusterId;
use parsec_protocol::{EpochNumber, PartitionId, Position, TxId};
use parsec_sequencer_core::{IndexWrite, Lookup, Mark, Place};

use self::filter::IdFilter;
use self::refill::Refill;
use crate::limits::{INDEX_CACHE_BYTES, INDEX_IDS_IN_MEMORY_MAX};

const MARK_KEY: &[u8] = b"mark";
const CLUSTER_KEY: &[u8] = b"cluster";
const PLACE_BYTES: usize = 14;
const MARK_BYTES: usize = 24;

/// Why the index can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum IndexError {
    #[error("the index of ids in {path} failed: {source}")]
    Engine { path: PathBuf, source: fjall::Error },
    #[error("the index of ids in {path} is in use by another process")]
    Locked { path: PathBuf },
    #[error(
        "the index of ids in {path} has a record that is not one of its own ({what}); \
         delete the directory: it is rebuilt from the log"
    )]
    Damaged { path: PathBuf, what: &'static str },
    #[error("the index of ids in {path} is another cluster's: check the sequencer's directory")]
    Foreign { path: PathBuf },
}

fn encode_mark(mark: Mark) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&mark.through.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&mark.settled.0.to_be_bytes());
    bytes[16..].copy_from_slice(&mark.transactions.to_be_bytes());
    bytes
}

fn decode_mark(bytes: &[u8]) -> Option<Mark> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let [through, settled, transactions] = *numbers else { return None };
    Some(Mark {
        through: EpochNumber(u64::from_be_bytes(through)),
        settled: EpochNumber(u64::from_be_bytes(settled)),
        transactions: u64::from_be_bytes(transactions),
    })
}

fn encode_place(place: Place) -> [u8; PLACE_BYTES] {
    let mut bytes = [0; PLACE_BYTES];
    bytes[..8].copy_from_slice(&place.position.epoch.0.to_be_bytes());
    bytes[8..12].copy_from_slice(&place.position.index.to_be_bytes());
    bytes[12..].copy_from_slice(&place.home.0.to_be_bytes());
    bytes
}

fn decode_place(bytes: &[u8]) -> Option<Place> {
    let (epoch, rest) = bytes.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let home = PartitionId(u16::from_be_bytes(rest.try_into().ok()?));
    let epoch = EpochNumber(u64::from_be_bytes(*epoch));
    Some(Place { position: Position { epoch, index: u32::from_be_bytes(*index) }, home })
}

/// The index of ids.
pub(crate) struct IdIndex {
    path: PathBuf,
    database: Database,
    ids: Keyspace,
    meta: Keyspace,
    /// Has all ids from when the refill is done.
    filter: Arc<IdFilter>,
    refill: Refill,
    /// What is not on disk.
    recent: RwLock<Recent>,
    /// The mark's `through`, as written.
    through: AtomicU64,
}

/// What was written and is in memory only.
#[derive(Default)]
struct Recent {
    places: AHashMap<TxId, Place>,
    /// The mark behind them; `None` if there is none that the disk does not have.
    mark: Option<Mark>,
}

impl IdIndex {
    /// Opens the index of `cluster`, or creates it.
    pub(crate) fn open(path: &Path, cluster: ClusterId) -> Result<Self, IndexError> {
        Self::open_with(path, cluster, INDEX_CACHE_BYTES)
    }

    fn open_with(path: &Path, cluster: ClusterId, cache_bytes: u64) -> Result<Self, IndexError> {
        let failed = |source| match source {
            fjall::Error::Locked => IndexError::Locked { path: path.to_owned() },
            source => IndexError::Engine { path: path.to_owned(), source },
        };
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let keyspace = |name: &str| database.keyspace(name, keyspace_options).map_err(failed);
        let (ids, meta) = (keyspace("ids")?, keyspace("meta")?);
        let (recent, through) = (RwLock::default(), AtomicU64::new(0));
        let filter = Arc::new(IdFilter::new());
        let refill = Refill::begin(&ids, &filter).map_err(failed)?;
        let path = path.to_owned();
        let index = Self { path, database, ids, meta, filter, refill, recent, through };
        index.claim(cluster)?;
        index.through.store(index.mark()?.through.0, Ordering::Release);
        Ok(index)
    }

    fn claim(&self, cluster: ClusterId) -> Result<(), IndexError> {
        match self.meta.get(CLUSTER_KEY).map_err(|error| self.failed(error))? {
            Some(known) if *known == cluster.0 => Ok(()),
            Some(_) => Err(IndexError::Foreign { path: self.path.clone() }),
            None => self.meta.insert(CLUSTER_KEY, cluster.0).map_err(|error| self.failed(error)),
        }
    }

    fn failed(&self, source: fjall::Error) -> IndexError {
        IndexError::Engine { path: self.path.clone(), source }
    }

    fn damaged(&self, what: &'static str) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), what }
    }

    /// How far the index is.
    pub(crate) fn mark(&self) -> Result<Mark, IndexError> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner).mark;
        recent.map_or_else(|| self.mark_on_disk(), Ok)
    }

    fn mark_on_disk(&self) -> Result<Mark, IndexError> {
        match self.meta.get(MARK_KEY).map_err(|error| self.failed(error))? {
            Some(bytes) => decode_mark(&bytes).ok_or_else(|| self.damaged("its mark")),
            None => Ok(Mark::default()),
        }
    }

    /// The epoch through which every id is in the index.
    ///
    /// ORDER: ask this before [`IdIndex::find`], so that an id that is not found was not ordered
    /// through it.
    pub(crate) fn through(&self) -> EpochNumber {
        EpochNumber(self.through.load(Ordering::Acquire))
    }

    /// Where a transaction was ordered last, as far as the index goes.
    pub(crate) fn find(&self, id: &TxId) -> Result<Option<Place>, IndexError> {
        if self.refill.is_done() && !self.filter.may_contain(id) {
            return Ok(None);
        }
        // ORDER: memory first. What leaves it is on disk by then.
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = recent.places.get(id) {
            return Ok(Some(*place));
        }
        drop(recent);
        self.find_on_disk(id)
    }

    fn find_on_disk(&self, id: &TxId) -> Result<Option<Place>, IndexError> {
        match self.ids.get(id.0).map_err(|error| self.failed(error))? {
            Some(bytes) => {
                let place = decode_place(&bytes).ok_or_else(|| self.damaged("an id's place"))?;
                Ok(Some(place))
            }
            None => Ok(None),
        }
    }

    /// What the index says of a transaction, for the lane.
    pub(crate) fn lookup(&self, id: &TxId) -> Result<Lookup, IndexError> {
        let through = self.through();
        Ok(Lookup { found: self.find(id)?, void: false, through })
    }

    /// Takes in what was gathered. Called by one thread at a time.
    pub(crate) fn write(&self, write: &IndexWrite) -> Result<(), IndexError> {
        // ORDER: before `through` says that they are in the index.
        write.places.iter().for_each(|(id, _)| self.filter.add(id));
        let is_full = {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.places.extend(write.places.iter().copied());
            recent.mark = Some(write.mark);
            recent.places.len() >= INDEX_IDS_IN_MEMORY_MAX
        };
        self.through.store(write.mark.through.0, Ordering::Release);
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Brings to disk what is in memory, the mark last: a crash between leaves ids that will be
    /// written again.
    fn flush(&self) -> Result<(), IndexError> {
        let (mut places, mark) = {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            let Some(mark) = recent.mark else { return Ok(()) };
            let places: Vec<_> = recent.places.iter().map(|(id, place)| (*id, *place)).collect();
            (places, mark)
        };
        places.sort_unstable_by_key(|(id, _)| *id);
        let ingest = || {
            let mut ingestion = self.ids.start_ingestion()?;
            for (id, place) in &places {
                ingestion.write(id.0, encode_place(*place))?;
            }
            ingestion.finish()?;
            self.meta.insert(MARK_KEY, encode_mark(mark))
        };
        ingest().map_err(|error| self.failed(error))?;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.places.clear();
        recent.mark = None;
        Ok(())
    }

    /// Makes durable what was written, before the process ends in order.
    pub(crate) fn persist(&self) -> Result<(), IndexError> {
        self.flush()?;
        self.database.persist(fjall::PersistMode::SyncData).map_err(|error| self.failed(error))
    }
}

/// Ids are looked up to learn that they are not there, so filters have to be good, on all levels.
///
/// Tables that were merged have their filters and indexes in parts of some 4 KiB. A filter in one
/// piece has up to 2 MB, of which the cache holds sixteen: with more ids than they are for, each
/// lookup would read one anew. New tables have theirs in one piece, and in memory at all times.
fn keyspace_options() -> KeyspaceCreateOptions {
    let bloom = || FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(12.0));
    let merged = || PartitioningPolicy::new([false, true]);
    KeyspaceCreateOptions::default()
        .expect_point_read_hits(false)
        .filter_policy(FilterPolicy::new([bloom()]))
        .filter_block_partitioning_policy(merged())
        .index_block_partitioning_policy(merged())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 32]);

    fn place(epoch: u64, index: u32, home: u16) -> Place {
        let position = Position { epoch: EpochNumber(epoch), index };
        Place { position, home: PartitionId(home) }
    }

    fn write(through: u64, places: &[(u8, Place)]) -> IndexWrite {
        let places = places.iter().map(|(id, place)| (TxId([*id; 32]), *place)).collect();
        let through = EpochNumber(through);
        IndexWrite { places, mark: Mark { through, settled: EpochNumber(1), transactions: 7 } }
    }

    /// Ids that are spread over all that there can be.
    fn id(number: u64) -> TxId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        TxId(id)
    }

    #[test]
    fn ids_and_mark_come_back_together() {
        let directory = tempfile::tempdir().unwrap();
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        let nothing = Lookup { found: None, void: false, through: EpochNumber(0) };
        assert_eq!(index.lookup(&TxId([1; 32])).unwrap(), nothing);
        assert_eq!(index.mark().unwrap(), Mark::default());
        index.write(&write(2, &[(1, place(1, 10, 1)), (2, place(2, 11, 2))])).unwrap();
        // A transaction that strayed is found where it was ordered last.
        let last = write(3, &[(2, place(3, 258, 515))]);
        index.write(&last).unwrap();
        let check = |index: &IdIndex| {
            let find = |id| index.find(&TxId([id; 32])).unwrap();
            assert_eq!((find(1), find(2)), (Some(place(1, 10, 1)), Some(place(3, 258, 515))));
            assert_eq!(find(4), None);
            assert_eq!((index.through(), index.mark().unwrap()), (EpochNumber(3), last.mark));
        };
        check(&index);
        index.persist().unwrap();
        check(&index);
        drop(index);
        check(&IdIndex::open(directory.path(), CLUSTER).unwrap());
    }

    #[test]
    fn a_crash_takes_what_was_in_memory_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        index.write(&write(1, &[(1, place(1, 0, 0)), (2, place(1, 1, 0))])).unwrap();
        index.flush().unwrap();
        // Later places are found before the earlier ones on disk, whichever is where.
        index.write(&write(2, &[(2, place(2, 0, 1)), (3, place(2, 1, 1))])).unwrap();
        assert_eq!(index.find(&TxId([2; 32])).unwrap(), Some(place(2, 0, 1)));
        drop(index);
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        assert_eq!(
            (index.through(), index.mark().unwrap().through),
            (EpochNumber(1), EpochNumber(1))
        );
        assert_eq!(index.find(&TxId([2; 32])).unwrap(), Some(place(1, 1, 0)));
        assert_eq!(index.find(&TxId([3; 32])).unwrap(), None);
        index.write(&write(2, &[(2, place(2, 0, 1))])).unwrap();
        index.flush().unwrap();
        assert_eq!(index.find(&TxId([2; 32])).unwrap(), Some(place(2, 0, 1)));
    }

    #[test]
    fn what_is_too_much_for_memory_goes_to_disk_and_all_of_it_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        let all = INDEX_IDS_IN_MEMORY_MAX as u64 * 5 / 2;
        let step = INDEX_IDS_IN_MEMORY_MAX as u64 / 4;
        for epoch in 0..all / step {
            let numbers = epoch * step..(epoch + 1) * step;
            let places = numbers.map(|number| (id(number), place(number, 1, 2))).collect();
            let mark = Mark { through: EpochNumber(epoch + 1), ..Mark::default() };
            index.write(&IndexWrite { places, mark }).unwrap();
        }
        assert!(index.recent.read().unwrap().places.len() < INDEX_IDS_IN_MEMORY_MAX);
        assert_eq!(index.mark_on_disk().unwrap().through, EpochNumber(8));
        for number in (0..all).step_by(997) {
            assert_eq!(index.find(&id(number)).unwrap(), Some(place(number, 1, 2)), "{number}");
        }
        assert_eq!(index.find(&id(all)).unwrap(), None);
    }

    #[test]
    fn after_a_start_all_ids_are_found_before_and_after_the_filter_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let all = 200_000;
        let places = || (0..all).map(|number| (id(number), place(number, 1, 2)));
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        assert!(index.refill.is_done(), "there is nothing to read");
        let mark = Mark { through: EpochNumber(1), ..Mark::default() };
        index.write(&IndexWrite { places: places().collect(), mark }).unwrap();
        index.persist().unwrap();
        drop(index);

        // Closed while its ids are read, it can be opened again at once.
        drop(IdIndex::open(directory.path(), CLUSTER).unwrap());
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        let check = || {
            for (id, place) in places().step_by(1_000) {
                assert_eq!(index.find(&id).unwrap(), Some(place));
            }
            assert_eq!(index.find(&id(all)).unwrap(), None);
        };
        check();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !index.refill.is_done() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(index.refill.is_done());
        check();
        assert!(places().all(|(id, _)| index.filter.may_contain(&id)));
        assert!(!(all..all + 3).all(|number| index.filter.may_contain(&id(number))));
    }

    /// Bytes that this thread has read from files so far.
    #[cfg(target_os = "linux")]
    fn bytes_read() -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        line.parse().unwrap()
    }

    /// With filters in one piece these lookups read 750,000 bytes each, because the cache is too small
    /// for such filters, as it is for those of many ids.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_lookup_of_an_id_that_is_not_there_reads_little_however_many_there_are() {
        const CACHE_BYTES: u64 = 64 * 1_024;
        let directory = tempfile::tempdir().unwrap();
        let index = IdIndex::open_with(directory.path(), CLUSTER, CACHE_BYTES).unwrap();
        let all = 500_000;
        for first in (0..all).step_by(50_000) {
            let places = (first..first + 50_000).map(|number| (id(number), place(number, 1, 2)));
            let mark = Mark { through: EpochNumber(first + 1), ..Mark::default() };
            index.write(&IndexWrite { places: places.collect(), mark }).unwrap();
            index.flush().unwrap();
        }
        index.ids.major_compact().unwrap();
        let bytes_of_each = |find: &dyn Fn(&TxId) -> Result<Option<Place>, IndexError>| {
            let lookups = 1_000;
            let before = bytes_read();
            for number in all..all + lookups {
                assert_eq!(find(&id(number)).unwrap(), None);
            }
            (bytes_read() - before) / lookups
        };
        let on_disk = bytes_of_each(&|id| index.find_on_disk(id));
        assert!((1..=16 * 1_024).contains(&on_disk), "a lookup on disk reads {on_disk} bytes");
        let filtered = bytes_of_each(&|id| index.find(id));
        assert!(filtered <= on_disk / 10, "a lookup reads {filtered} bytes");
        assert_eq!(index.find(&id(7)).unwrap(), Some(place(7, 1, 2)));
    }

    #[test]
    fn another_clusters_index_and_one_in_use_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let index = IdIndex::open(directory.path(), CLUSTER).unwrap();
        let again = IdIndex::open(directory.path(), CLUSTER);
        assert!(matches!(again, Err(IndexError::Locked { .. })));
        drop(index);
        let other = IdIndex::open(directory.path(), ClusterId([4; 32]));
        assert!(matches!(other, Err(IndexError::Foreign { .. })));
    }
}
