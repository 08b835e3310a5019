use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use parsec_protocol::{
    EpochNumber, ErrorCode, Event, Key, Namespace, Outcome, PartitionId, Position, Push, PushKind,
    Receipt, TxId, Value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::disk::PackedCommit;
use super::*;
use crate::limits::{
    MARKS_MEMTABLE_BYTES, PACKED_BYTES_TARGET, RECORDS_MEMTABLE_BYTES, STATE_MEMTABLE_BYTES,
};

const CLUSTER: [u8; 32] = [9; 32];
const US: PartitionId = PartitionId(1);

fn key(number: u8) -> Key {
    // Odd ones are copies of replicated keys that another partition counts.
    let namespace = match number % 2 {
        0 => Namespace::partitioned(1),
        _ => Namespace::replicated(1),
    };
    Key::new(namespace, &[number]).unwrap()
}

fn counted(key: &Key) -> bool {
    !key.is_replicated()
}

fn position(epoch: u64, index: u32) -> Position {
    Position { epoch: EpochNumber(epoch), index }
}

fn receipt(position: Position, output_bytes: usize) -> Receipt {
    let source = Value::from_static(b"contract");
    Receipt {
        id: TxId([3; 32]),
        position,
        attempt: 0,
        outcome: match position.index % 2 {
            0 => Outcome::Committed,
            _ => Outcome::Reverted(ErrorCode::Refused),
        },
        work: u64::from(position.index),
        output: vec![7; output_bytes].into(),
        events: vec![Event { source, topics: vec![[1; 32]].into(), data: Value::new() }],
    }
}

fn push(position: Position, to: u16, bytes: usize) -> Push {
    let kind = PushKind::Reads(vec![(0, Some(vec![5; bytes].into())), (1, None)].into()).into();
    Push { position, from: US, to: PartitionId(to), kind }
}

fn options(directory: &Path) -> StoreOptions {
    let cache_bytes = 1 << 20;
    StoreOptions { cache_bytes, ..StoreOptions::new(directory.join("store"), CLUSTER, US) }
}

fn write(number: u8, old: Option<&'static [u8]>, new: Option<&'static [u8]>) -> Write {
    let value = |bytes: Option<&'static [u8]>| bytes.map(Value::from_static);
    Write { key: key(number), old: value(old), new: value(new), counted: counted(&key(number)) }
}

/// A commit that writes one key that was absent.
fn simple(epoch: u64) -> EpochCommit {
    let number = u8::try_from(epoch * 2 % 256).unwrap();
    EpochCommit {
        writes: vec![write(number, None, Some(b"value"))],
        receipts: vec![receipt(position(epoch, 0), 10).into()],
        executed: 1,
        ..EpochCommit::new(EpochNumber(epoch))
    }
}

#[derive(Debug, Clone)]
enum Op {
    Commit { skip: u64, run: u64, writes: Vec<(u8, Option<Vec<u8>>)>, sizes: Vec<(usize, usize)> },
    Advance(u64),
    Prune { to: u16, back: u64 },
    Sync,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop::option::weighted(0.7, vec(any::<u8>(), 0..6));
    let writes = vec((0u8..12, value), 0..6);
    let size = prop_oneof![8 => 0usize..40, 1 => Just(PACKED_BYTES_TARGET)];
    let sizes = vec((size, 0usize..3), 0..5);
    prop_oneof![
        8 => (0u64..3, 0u64..3, writes, sizes)
            .prop_map(|(skip, run, writes, sizes)| Op::Commit { skip, run, writes, sizes }),
        1 => (0u64..4).prop_map(Op::Advance),
        1 => (0u16..3, 0u64..6).prop_map(|(to, back)| Op::Prune { to, back }),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
    ]
}

/// A store on disk, its twin in memory, and a naive model of what they should hold.
struct Twins {
    _directory: tempfile::TempDir,
    options: StoreOptions,
    open: fn(StoreOptions) -> Box<dyn Store>,
    disk: Option<Box<dyn Store>>,
    memory: MemoryStore,
    state: BTreeMap<Key, Value>,
    /// The state after each epoch that can be read.
    history: BTreeMap<EpochNumber, BTreeMap<Key, Value>>,
    /// Through which epoch partitions have what they were owed.
    pruned: BTreeMap<PartitionId, EpochNumber>,
    /// Whether everything that is applied was synced just now.
    synced: bool,
}

impl Twins {
    fn new(open: fn(StoreOptions) -> Box<dyn Store>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let disk = Some(open(options.clone()));
        Self {
            _directory: directory,
            options,
            open,
            disk,
            pruned: BTreeMap::new(),
            synced: true,
            memory: MemoryStore::new(),
            state: BTreeMap::new(),
            history: BTreeMap::from([(EpochNumber(0), BTreeMap::new())]),
        }
    }

    fn disk(&self) -> &dyn Store {
        self.disk.as_deref().unwrap()
    }

    fn apply(&mut self, op: Op) {
        let applied = self.memory.applied().epoch;
        self.synced = matches!(op, Op::Sync | Op::Reopen);
        match op {
            Op::Commit { skip, run, writes, sizes } => {
                self.commit(applied.0 + 1 + skip, run, writes, &sizes);
            }
            Op::Advance(by) => {
                let to = EpochNumber(applied.0 + by);
                self.disk().advance(to);
                self.memory.advance(to);
                for epoch in applied.0..=to.0 {
                    self.history.insert(EpochNumber(epoch), self.state.clone());
                }
            }
            Op::Prune { to, back } => {
                let (to, through) = (PartitionId(to), EpochNumber(applied.0.saturating_sub(back)));
                self.disk().prune_outbox(to, through).unwrap();
                self.memory.prune_outbox(to, through).unwrap();
                let pruned = self.pruned.entry(to).or_default();
                *pruned = through.max(*pruned);
            }
            Op::Sync => {
                assert_eq!(self.disk().sync().unwrap(), applied);
                assert_eq!(self.memory.sync().unwrap(), applied);
            }
            Op::Reopen => {
                // Without the sync, epochs that were only advanced over would be forgotten.
                self.disk().sync().unwrap();
                self.disk = None;
                self.disk = Some((self.open)(self.options.clone()));
                let kept = self.disk().applied().epoch;
                assert!(matches!(
                    kept.0.checked_sub(1).map(|e| self.disk().read_at(EpochNumber(e), &[])),
                    None | Some(Err(StoreError::SnapshotGone { .. }))
                ));
                self.history = BTreeMap::from([(kept, self.state.clone())]);
            }
        }
    }

    fn commit(
        &mut self,
        first: u64,
        run: u64,
        writes: Vec<(u8, Option<Vec<u8>>)>,
        sizes: &[(usize, usize)],
    ) {
        let before = self.memory.applied().epoch;
        for skipped in before.0..first {
            self.history.insert(EpochNumber(skipped), self.state.clone());
        }
        let writes: BTreeMap<_, _> = writes.into_iter().collect();
        let mut commit = EpochCommit {
            first: EpochNumber(first),
            executed: sizes.len() as u64,
            multi_partition: 1,
            ..EpochCommit::new(EpochNumber(first + run))
        };
        for (number, new) in writes.into_iter().rev() {
            let (key, new) = (key(number), new.map(Value::from));
            let old = match &new {
                Some(value) => self.state.insert(key.clone(), value.clone()),
                None => self.state.remove(&key),
            };
            let counted = counted(&key);
            commit.writes.push(Write { key, old, new, counted });
        }
        for (index, (bytes, pushes)) in (0..).zip(sizes) {
            let position = position(first + u64::from(index) % (run + 1), index);
            commit.receipts.push(receipt(position, *bytes).into());
            for to in (0u16..3).take(*pushes) {
                commit.outbox.push(push(position, to, *bytes));
            }
        }
        self.disk().commit(commit.clone()).unwrap();
        self.memory.commit(commit).unwrap();
        self.history.insert(EpochNumber(first + run), self.state.clone());
    }

    fn compare(&self, epoch: Index, limit: usize) -> Result<(), TestCaseError> {
        let (disk, memory) = (self.disk(), &self.memory);
        let applied = disk.applied();
        prop_assert_eq!(applied, memory.applied());
        // Verifying brings everything to disk: what is not there yet is to be looked at, too.
        if self.synced {
            prop_assert_eq!(disk.verify(&counted).unwrap(), applied);
        }
        prop_assert_eq!(memory.verify(&counted).unwrap(), applied);
        let keys: Vec<Key> = (0..12).map(key).collect();
        for key in &keys {
            prop_assert_eq!(disk.get(key).unwrap(), self.state.get(key).cloned());
            prop_assert_eq!(memory.get(key).unwrap(), self.state.get(key).cloned());
        }
        for (epoch, state) in &self.history {
            let expected: Vec<_> = keys.iter().map(|key| state.get(key).cloned()).collect();
            prop_assert_eq!(&disk.read_at(*epoch, &keys).unwrap(), &expected, "{}", epoch);
            prop_assert_eq!(&memory.read_at(*epoch, &keys).unwrap(), &expected, "{}", epoch);
            let pairs = state.iter().filter(|(key, _)| counted(key));
            let digest: Digest = pairs.map(|(key, value)| Digest::of(key, value)).sum();
            prop_assert_eq!(disk.state_digest(*epoch).unwrap(), digest, "{}", epoch);
        }
        let next = applied.epoch.next();
        // Digests stay when snapshots are gone.
        for epoch in (0..=applied.epoch.0).map(EpochNumber) {
            let digest = memory.state_digest(epoch).unwrap();
            prop_assert_eq!(disk.state_digest(epoch).unwrap(), digest, "{}", epoch);
        }
        assert!(matches!(disk.state_digest(next), Err(StoreError::NotYet { .. })));
        for early in [disk.read_at(next, &[]), memory.read_at(next, &[])] {
            assert!(matches!(early, Err(StoreError::NotYet { .. })));
        }

        let from = EpochNumber(epoch.index(usize::try_from(next.0).unwrap()) as u64);
        let receipts = disk.receipts(from, limit).unwrap();
        prop_assert_eq!(&receipts, &memory.receipts(from, limit).unwrap());
        for receipt in receipts.iter().flat_map(|(_, receipts)| receipts) {
            let found = disk.receipt(receipt.position).unwrap();
            prop_assert_eq!(found.as_ref(), Some(receipt));
            let beside = Position { index: receipt.position.index + 1, ..receipt.position };
            prop_assert_eq!(disk.receipt(beside).unwrap(), memory.receipt(beside).unwrap());
        }
        for to in (0..3).map(PartitionId) {
            let after = from.max(self.pruned.get(&to).copied().unwrap_or_default());
            let owed = disk.outbox(to, after, limit).unwrap();
            prop_assert_eq!(owed, memory.outbox(to, after, limit).unwrap());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_twins_agree_with_each_other_and_with_a_naive_model(
        ops in vec((op(), any::<Index>(), 0usize..20), 1..25),
    ) {
        compare_all(|options| Box::new(FjallStore::open(options).unwrap()), ops)?;
    }

    #[test]
    fn commits_that_gather_in_memory_are_seen_as_if_they_were_on_disk(
        ops in vec((op(), any::<Index>(), 0usize..20), 1..25),
    ) {
        compare_all(|options| Box::new(WriteBehindStore::open(options).unwrap()), ops)?;
    }
}

fn compare_all(
    open: fn(StoreOptions) -> Box<dyn Store>,
    ops: Vec<(Op, Index, usize)>,
) -> Result<(), TestCaseError> {
    let mut twins = Twins::new(open);
    for (op, epoch, limit) in ops {
        twins.apply(op);
        twins.compare(epoch, limit)?;
    }
    Ok(())
}

#[test]
fn a_crash_takes_commits_back_to_the_end_of_a_run() {
    let directory = tempfile::tempdir().unwrap();
    let store = WriteBehindStore::open(options(directory.path())).unwrap();
    (1..=3).for_each(|epoch| store.commit(simple(epoch)).unwrap());
    assert_eq!(store.sync().unwrap(), EpochNumber(3));
    let synced = store.applied();
    (4..=6).for_each(|epoch| store.commit(simple(epoch)).unwrap());
    assert_eq!(store.applied().epoch, EpochNumber(6));
    drop(store);
    let store = WriteBehindStore::open(options(directory.path())).unwrap();
    assert_eq!(store.applied(), synced);
    assert_eq!(store.verify(&counted).unwrap(), synced);
    assert_eq!(store.get(&key(8)).unwrap(), None);
    // The same epochs are executed again.
    (4..=6).for_each(|epoch| store.commit(simple(epoch)).unwrap());
    assert!(store.get(&key(8)).unwrap().is_some());
}

#[test]
fn a_run_comes_to_disk_when_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let store = WriteBehindStore::open(options(directory.path())).unwrap();
    let large = |epoch| {
        let receipts = vec![receipt(position(epoch, 0), crate::limits::RUN_BYTES_MAX / 2).into()];
        EpochCommit { receipts, ..EpochCommit::new(EpochNumber(epoch)) }
    };
    (1..=3).for_each(|epoch| store.commit(large(epoch)).unwrap());
    drop(store);
    let store = FjallStore::open(options(directory.path())).unwrap();
    assert_eq!(store.applied().epoch, EpochNumber(2));
}

#[test]
fn the_middle_of_a_run_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(options(directory.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    let behind = WriteBehindStore::open(options(other.path())).unwrap();
    let memory = MemoryStore::new();
    for store in [&disk as &dyn Store, &behind, &memory] {
        store.commit(EpochCommit { first: EpochNumber(1), ..simple(3) }).unwrap();
        let gone = store.read_at(EpochNumber(2), &[key(6)]);
        assert!(matches!(gone, Err(StoreError::SnapshotGone { oldest: EpochNumber(3), .. })));
        assert_eq!(store.read_at(EpochNumber(0), &[key(6)]).unwrap(), [None]);
        assert!(store.read_at(EpochNumber(3), &[key(6)]).unwrap()[0].is_some());
    }
}

#[test]
fn an_unsound_commit_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(options(directory.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    let behind = WriteBehindStore::open(options(other.path())).unwrap();
    let memory = MemoryStore::new();
    for store in [&disk as &dyn Store, &behind, &memory] {
        store.commit(simple(5)).unwrap();
        let before = store.applied();
        let again = store.commit(simple(5));
        assert!(matches!(again, Err(StoreError::OutOfOrder { applied: EpochNumber(5), .. })));

        let receipts = vec![receipt(position(7, 0), 1).into()];
        let late = store.commit(EpochCommit { receipts, ..simple(6) });
        assert!(matches!(late, Err(StoreError::Misplaced { .. })));
        let receipts = [1, 2].map(|bytes| receipt(position(6, 0), bytes).into()).into();
        let doubled = store.commit(EpochCommit { receipts, ..simple(6) });
        assert!(matches!(doubled, Err(StoreError::Misplaced { .. })));
        let early =
            store.commit(EpochCommit { outbox: vec![push(position(5, 0), 2, 1)], ..simple(6) });
        assert!(matches!(early, Err(StoreError::Misplaced { .. })));

        let writes = vec![write(2, None, Some(b"a")), write(2, None, Some(b"b"))];
        let twice = store.commit(EpochCommit { writes, ..simple(6) });
        assert!(matches!(twice, Err(StoreError::WrittenTwice { .. })));

        assert_eq!(store.applied(), before);
        store.commit(simple(6)).unwrap();
    }
}

#[test]
fn a_wrong_old_value_is_noticed_at_once_or_by_verification() {
    let wrong = EpochCommit {
        writes: vec![write(2, Some(b"never"), Some(b"new"))],
        ..EpochCommit::new(EpochNumber(1))
    };
    let memory = MemoryStore::new();
    assert!(matches!(memory.commit(wrong.clone()), Err(StoreError::WrongOldValue { .. })));

    let directory = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(options(directory.path())).unwrap();
    disk.commit(wrong).unwrap();
    let verified = disk.verify(&counted);
    assert!(matches!(verified, Err(StoreError::DigestMismatch { what: "its values", .. })));
}

#[test]
fn large_receipts_and_pushes_are_split_and_found() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(options(directory.path())).unwrap();
    let receipts: Vec<_> =
        (0..10).map(|index| receipt(position(1, index * 3), PACKED_BYTES_TARGET / 2)).collect();
    let outbox: Vec<_> =
        (0..10).map(|index| push(position(1, index * 3), 4, PACKED_BYTES_TARGET / 2)).collect();
    let commit = EpochCommit {
        receipts: receipts.iter().rev().cloned().map(Arc::new).collect(),
        outbox: outbox.clone(),
        ..EpochCommit::new(EpochNumber(1))
    };
    disk.commit(commit).unwrap();
    assert!(disk.receipts.len().unwrap() >= 4);
    assert_eq!(disk.receipts(EpochNumber(0), 1).unwrap(), [(EpochNumber(1), receipts.clone())]);
    assert_eq!(disk.outbox(PartitionId(4), EpochNumber(0), 1).unwrap(), outbox);
    for receipt in receipts {
        assert_eq!(disk.receipt(receipt.position).unwrap(), Some(receipt.clone()));
        let beside = Position { index: receipt.position.index + 1, ..receipt.position };
        assert_eq!(disk.receipt(beside).unwrap(), None);
    }
    disk.prune_outbox(PartitionId(4), EpochNumber(1)).unwrap();
    assert_eq!(disk.outbox(PartitionId(4), EpochNumber(0), 1).unwrap(), []);
}

#[test]
fn epochs_that_were_passed_survive_once_synced() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FjallStore::open(options(directory.path())).unwrap();
    disk.commit(simple(1)).unwrap();
    disk.advance(EpochNumber(8));
    assert_eq!(disk.sync().unwrap(), EpochNumber(8));
    let applied = disk.applied();
    drop(disk);
    let disk = FjallStore::open(options(directory.path())).unwrap();
    assert_eq!(disk.applied(), applied);
    assert_eq!(applied.epoch, EpochNumber(8));
}

#[test]
fn a_store_can_be_opened_once_only_and_by_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let ours = options(directory.path());
    let store = FjallStore::open(ours.clone()).unwrap();
    assert!(matches!(FjallStore::open(ours.clone()), Err(StoreError::Locked { .. })));
    drop(store);

    let elsewhere = directory.path().join("other floor");
    let foreign = |cluster, partition| {
        let floor = elsewhere.clone();
        let options = StoreOptions { floor, cluster, partition, ..ours.clone() };
        match FjallStore::open(options) {
            Err(StoreError::Foreign { found, .. }) => found,
            other => panic!("opened a foreign store: {:?}", other.err()),
        }
    };
    assert!(foreign([8; 32], US).contains("another cluster"));
    assert!(foreign(CLUSTER, PartitionId(2)).contains("holds p1, not p2"));
    FjallStore::open(ours).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn an_old_copy_is_below_the_floor() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let backup = directory.path().join("backup");
    {
        let store = FjallStore::open(options.clone()).unwrap();
        store.commit(simple(1)).unwrap();
        store.sync().unwrap();
    }
    copy_tree(&options.directory, &backup);
    {
        let store = FjallStore::open(options.clone()).unwrap();
        store.commit(simple(2)).unwrap();
        store.sync().unwrap();
    }
    fs::remove_dir_all(&options.directory).unwrap();
    copy_tree(&backup, &options.directory);
    match FjallStore::open(options.clone()) {
        Err(StoreError::BelowFloor { found, floor, .. }) => {
            assert_eq!((found.epoch, floor.epoch), (EpochNumber(1), EpochNumber(2)));
        }
        other => panic!("opened an old copy: {:?}", other.err()),
    }
    // So is one that is gone altogether.
    fs::remove_dir_all(&options.directory).unwrap();
    assert!(matches!(FjallStore::open(options.clone()), Err(StoreError::BelowFloor { .. })));
    // What the error advises to do works.
    fs::remove_dir_all(&options.directory).unwrap();
    fs::remove_file(&options.floor).unwrap();
    assert_eq!(FjallStore::open(options).unwrap().applied(), Applied::default());
}

#[test]
fn another_history_of_the_same_length_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ours = options(directory.path());
    let store = FjallStore::open(ours.clone()).unwrap();
    store.commit(simple(1)).unwrap();
    store.sync().unwrap();
    drop(store);

    let mut theirs = ours.clone();
    theirs.directory = directory.path().join("theirs");
    theirs.floor = directory.path().join("their floor");
    let store = FjallStore::open(theirs.clone()).unwrap();
    store.commit(EpochCommit { writes: vec![write(4, None, Some(b"x"))], ..simple(1) }).unwrap();
    store.sync().unwrap();
    drop(store);

    theirs.floor = ours.floor;
    assert!(matches!(FjallStore::open(theirs), Err(StoreError::BelowFloor { .. })));
}

#[test]
fn damage_in_the_middle_of_the_engine_s_journal_is_never_overlooked() {
    let directory = tempfile::tempdir().unwrap();
    let original = options(directory.path());
    {
        let store = FjallStore::open(original.clone()).unwrap();
        for epoch in 1..=60 {
            store.commit(simple(epoch)).unwrap();
        }
        store.sync().unwrap();
    }
    let journal = fs::read_dir(&original.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .find(|name| name.to_string_lossy().ends_with(".jnl"))
        .unwrap();
    let content = fs::read(original.directory.join(&journal)).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(end > 8 * 512, "the journal holds the commits");

    let copy = options(&directory.path().join("copy"));
    for damaged in 0..8 {
        copy_tree(&original.directory, &copy.directory);
        fs::copy(&original.floor, &copy.floor).unwrap();
        let mut content = content[..=end].to_vec();
        let sector = (end / 8) * damaged / 512 * 512;
        content[sector..sector + 512].fill(0);
        fs::write(copy.directory.join(&journal), content).unwrap();
        match FjallStore::open(copy.clone()).map(|store| store.applied()) {
            Err(StoreError::BelowFloor { .. } | StoreError::Engine { .. }) => {}
            other => panic!("sector at {sector}: {other:?}"),
        }
        fs::remove_dir_all(directory.path().join("copy")).unwrap();
    }
}

#[test]
fn a_store_that_failed_to_write_once_never_writes_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    let floors = directory.path().join("floors");
    fs::create_dir(&floors).unwrap();
    options.floor = floors.join("floor");
    let store = FjallStore::open(options.clone()).unwrap();
    store.commit(simple(1)).unwrap();
    fs::remove_dir(&floors).unwrap();
    assert!(matches!(store.sync(), Err(StoreError::File { .. })));

    fs::create_dir(&floors).unwrap();
    assert!(matches!(store.sync(), Err(StoreError::Poisoned)));
    assert!(matches!(store.commit(simple(2)), Err(StoreError::Poisoned)));
    let pruned = store.prune_outbox(PartitionId(0), EpochNumber(1));
    assert!(matches!(pruned, Err(StoreError::Poisoned)));
    assert_eq!(store.get(&key(2)).unwrap(), Some(Value::from_static(b"value")));
    drop(store);
    FjallStore::open(options).unwrap().commit(simple(2)).unwrap();
}

#[test]
fn a_store_without_its_mark_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let store = FjallStore::open(options.clone()).unwrap();
    store.commit(simple(1)).unwrap();
    store.meta.remove("applied").unwrap();
    drop(store);
    assert!(matches!(FjallStore::open(options), Err(StoreError::Damaged { .. })));
}

/// Commits that each bring half a mebibyte of state, half of receipts, and many digests.
fn heavy(run: u64) -> (EpochCommit, Applied, Vec<(EpochNumber, Digest)>) {
    let epochs = run * 1_000 + 1..=(run + 1) * 1_000;
    let (first, last) = (EpochNumber(*epochs.start()), EpochNumber(*epochs.end()));
    let written = |at: u64| Write {
        key: Key::new(Namespace::partitioned(1), &(run * 256 + at).to_be_bytes()).unwrap(),
        old: None,
        new: Some(vec![1; 2_048].into()),
        counted: true,
    };
    let commit = EpochCommit {
        first,
        writes: (0..256).map(written).collect(),
        receipts: vec![receipt(position(last.0, 0), 512 * 1_024).into()],
        ..EpochCommit::new(last)
    };
    let digests = epochs.map(|epoch| (EpochNumber(epoch), Digest::ZERO)).collect();
    (commit, Applied { epoch: last, ..Applied::default() }, digests)
}

#[test]
fn what_the_engine_keeps_in_memory_is_bounded() {
    const RUNS: u64 = 80;
    let bound = STATE_MEMTABLE_BYTES + RECORDS_MEMTABLE_BYTES + 2 * MARKS_MEMTABLE_BYTES;
    assert!(RUNS * 1_024 * 1_024 > 2 * bound, "too little is written to tell");
    let directory = tempfile::tempdir().unwrap();
    let store = FjallStore::open(options(directory.path())).unwrap();
    for (commit, applied, digests) in (0..RUNS).map(heavy) {
        let mut packed = PackedCommit::of(&commit, applied);
        packed.digests = digests;
        store.commit_run(packed.records()).unwrap();
    }
    // Threads of the engine's own write the tables.
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.memtable_bytes() > bound && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let kept = store.memtable_bytes();
    assert!(kept <= bound, "{kept} bytes of at most {bound}");
}

/// Bytes that this thread has read from files so far.
#[cfg(target_os = "linux")]
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    line.parse().unwrap()
}

/// With filters and indexes in one piece these reads take 270,000 bytes each, because the cache is too
/// small for such pieces, as it is for those of much state.
#[test]
#[cfg(target_os = "linux")]
fn a_read_of_the_state_reads_little_from_disk_however_much_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let small = StoreOptions { cache_bytes: 64 * 1_024, ..options(directory.path()) };
    let store = FjallStore::open(small).unwrap();
    let key = |number: u64| {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        Key::new(Namespace::partitioned(1), &spread).unwrap()
    };
    let all = 200_000;
    let value = Value::from_static(b"a value");
    for first in (0..all).step_by(10_000) {
        let written =
            |number| Write { key: key(number), old: None, new: Some(value.clone()), counted: true };
        let writes = (first..first + 10_000).map(written).collect();
        store.commit(EpochCommit { writes, ..EpochCommit::new(EpochNumber(first + 1)) }).unwrap();
    }
    store.merge_state().unwrap();
    // Reads are of a snapshot; only this one's has the merged tables.
    store.commit(simple(all)).unwrap();
    for (numbers, expected) in [(0..1_000, Some(value)), (all..all + 1_000, None)] {
        let before = bytes_read();
        for number in numbers {
            assert_eq!(store.get(&key(number)).unwrap(), expected);
        }
        let each = (bytes_read() - before) / 1_000;
        assert!((1..=16 * 1_024).contains(&each), "a read takes {each} bytes ({expected:?})");
    }
}

#[test]
fn applied_survives_its_encoding() {
    let applied = Applied {
        epoch: EpochNumber(7),
        state: Digest([1; 32]),
        receipts: Digest([2; 32]),
        executed: 3,
        multi_partition: 4,
    };
    let bytes = applied.encode();
    assert_eq!(Applied::decode(&bytes), Some(applied));
    assert_eq!(Applied::decode(&bytes[1..]), None);
    assert_eq!(Applied::decode(&[&bytes[..], &[0]].concat()), None);
}

#[test]
fn keys_of_the_same_rank_are_told_apart() {
    let keys = [2, 4, 6, 4].map(key);
    let ranks = Ranks { ranks: vec![5, 9, 9, 9], sorted: vec![(5, 0), (9, 1), (9, 2), (9, 3)] };
    assert_eq!(ranks.places(9).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ranks.places(5).collect::<Vec<_>>(), [0]);
    assert_eq!(ranks.places(7).count(), 0);
    assert_eq!(ranks.first_repeated(|place| &keys[place as usize]), Some(3));
    assert_eq!(Ranks::of(keys[..3].iter()).first_repeated(|place| &keys[place as usize]), None);
}
