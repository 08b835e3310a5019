//! Each rule is fed what breaks it.

use bytes::Bytes;
use std::sync::Arc;

use parsec_protocol::codec;
use parsec_protocol::transaction::{Entry, LaneId};
use parsec_runtimes::native::{NativeRuntime, Program, key};
use parsec_storage::Write;

use super::*;

/// Two epochs of one transaction each, over two partitions: both read and put one key.
struct Rig {
    history: History,
    records: Vec<(EpochRecord, Batch)>,
    ids: Vec<TxId>,
    key: Key,
    home: PartitionId,
}

fn transaction(key: &Key, number: u8) -> Transaction {
    Program::new().get(key).put(key, vec![number]).into_transaction(u128::from(number))
}

impl Rig {
    fn new() -> Self {
        let map = Arc::new(PartitionMap::even(2).unwrap());
        let runtimes = Runtimes::new(vec![Arc::new(NativeRuntime)]);
        let key = key("key").unwrap();
        let home = map.owner(&key);
        let mut history = History::new(&runtimes, map.clone());
        let mut records: Vec<(EpochRecord, Batch)> = Vec::new();
        let mut ids = Vec::new();
        for number in 1..=2 {
            let transaction = transaction(&key, number);
            let id = transaction.content_id();
            history.on_submit(u64::from(number), 0, id, &transaction);
            ids.push(id);
            let sequence = u64::from(number);
            let entries = vec![entry(&transaction, home)];
            let batch = Batch {
                lane: LaneId(0),
                sequence,
                map_version: 1,
                entries: entries.into_iter().map(Arc::new).collect(),
            };
            let record = EpochRecord {
                number: EpochNumber(sequence),
                timestamp_ms: 1,
                block: 0,
                parent: records.last().map_or([0; 32], |(last, _)| last.digest()),
                batches: vec![batch.reference(&codec::encode(&batch))],
            };
            records.push((record, batch));
        }
        Self { history, records, ids, key, home }
    }

    fn order(&mut self, index: usize) {
        let (record, batch) = &self.records[index];
        self.history.on_ordered(record, std::slice::from_ref(batch));
    }

    fn ordered() -> Self {
        let mut rig = Self::new();
        rig.order(0);
        rig.order(1);
        assert_eq!(rig.history.violation(), None);
        rig
    }

    fn receipt(&self, index: usize) -> Receipt {
        self.history.epochs[index].receipts[0].clone()
    }

    /// What the home commits at the first epoch.
    fn commit(&self) -> EpochCommit {
        let (key, new) = (self.key.clone(), Some(Value::from(vec![1])));
        EpochCommit {
            writes: vec![Write { key, old: None, new, counted: true }],
            receipts: vec![self.receipt(0).into()],
            executed: 1,
            ..EpochCommit::new(EpochNumber(1))
        }
    }

    fn broken(&self) -> Option<&'static str> {
        self.history.violation().map(|violation| violation.rule)
    }

    fn commits(mut self, change: impl FnOnce(&mut EpochCommit)) -> Option<&'static str> {
        let mut commit = self.commit();
        change(&mut commit);
        let home = self.home;
        self.history.on_commit(home, &commit);
        self.broken()
    }
}

fn entry(transaction: &Transaction, home: PartitionId) -> Entry {
    let program: Program = codec::decode(&transaction.payload).unwrap();
    Entry {
        id: transaction.content_id(),
        runtime: transaction.runtime,
        attempt: 0,
        home,
        sender: Bytes::new(),
        payload: transaction.payload.clone(),
        footprint: program.footprint().unwrap().unwrap(),
        expires: None,
    }
}

const COMMITS: Option<&str> = Some("partitions commit what the oracle does");

#[test]
fn what_is_right_breaks_no_rule() {
    let mut rig = Rig::ordered();
    let (commit, home, receipt) = (rig.commit(), rig.home, rig.receipt(0));
    rig.history.on_commit(home, &commit);
    rig.order(0);
    for epoch in 0..=2 {
        let applied = rig.history.applied(home, EpochNumber(epoch));
        rig.history.on_found(home, &applied);
    }
    let (first, second) = (rig.ids[0], rig.ids[1]);
    rig.history.on_ending(5, &first, Ending::Receipt(receipt.clone()));
    rig.history.on_ending(6, &first, Ending::Receipt(receipt));
    let receipt = rig.receipt(1);
    rig.history.on_ending(7, &second, Ending::Receipt(receipt));
    let (key, value) = (rig.key.clone(), Some(Value::from(vec![2])));
    rig.history.on_read(EpochNumber(2), EpochNumber(2), &[key], &[value]);
    rig.history.check_all_ended();
    assert_eq!(rig.history.violation(), None);
}

#[test]
fn an_epoch_that_is_another_one_later() {
    let mut rig = Rig::ordered();
    rig.records[0].0.timestamp_ms = 2;
    rig.order(0);
    assert_eq!(rig.broken(), Some("one epoch for each number"));
}

#[test]
fn an_order_with_a_gap_or_of_another_batch() {
    let mut rig = Rig::new();
    rig.order(0);
    rig.records[1].0.parent = [9; 32];
    rig.order(1);
    assert_eq!(rig.broken(), Some("the order can be executed"));
    let mut rig = Rig::new();
    Arc::make_mut(&mut rig.records[0].1.entries[0]).attempt = 1;
    rig.order(0);
    assert_eq!(rig.broken(), Some("the order can be executed"));
}

#[test]
fn a_transaction_that_nobody_submitted_or_that_was_refused() {
    let mut rig = Rig::new();
    let first = rig.ids[0];
    rig.history.operations.remove(&first);
    rig.order(0);
    assert_eq!(rig.broken(), Some("only submissions are ordered"));

    let mut rig = Rig::new();
    rig.history.on_ending(1, &first, Ending::Refused(ErrorCode::Expired));
    rig.order(0);
    assert_eq!(rig.broken(), Some("what is refused is not ordered"));
    let mut rig = Rig::ordered();
    rig.history.on_ending(1, &first, Ending::Refused(ErrorCode::Expired));
    assert_eq!(rig.broken(), Some("what is refused is not ordered"));
}

#[test]
fn an_order_against_real_time() {
    let mut rig = Rig::new();
    rig.order(0);
    let (first, second, receipt) = (rig.ids[0], rig.ids[1], rig.receipt(0));
    rig.history.on_ending(3, &first, Ending::Receipt(receipt));
    // The second is submitted after the first has ended, and ordered before that.
    rig.history.operations.remove(&second);
    rig.history.on_submit(4, 1, second, &transaction(&rig.key, 2));
    rig.history.heard = Some(Position { epoch: EpochNumber(7), index: 0 });
    rig.history.operations.get_mut(&second).unwrap().after = rig.history.heard;
    rig.order(1);
    assert_eq!(rig.broken(), Some("the order respects real time"));
}

#[test]
fn a_commit_that_differs_from_the_oracle() {
    assert_eq!(Rig::ordered().commits(|_| ()), None);
    assert_eq!(Rig::ordered().commits(|commit| commit.writes.clear()), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.writes[0].new = None), COMMITS);
    let stale = Some(Value::from(vec![9]));
    assert_eq!(Rig::ordered().commits(|commit| commit.writes[0].old = stale), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.writes[0].counted = false), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.receipts.clear()), COMMITS);
    let add_work = |commit: &mut EpochCommit| Arc::make_mut(&mut commit.receipts[0]).work += 1;
    assert_eq!(Rig::ordered().commits(add_work), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.executed = 2), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.multi_partition = 1), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.epoch = EpochNumber(2)), COMMITS);
    assert_eq!(Rig::ordered().commits(|commit| commit.epoch = EpochNumber(3)), COMMITS);
}

#[test]
fn a_store_that_holds_something_else() {
    let mut rig = Rig::ordered();
    let mut applied = rig.history.applied(rig.home, EpochNumber(2));
    applied.epoch = EpochNumber(1);
    rig.history.on_found(rig.home, &applied);
    assert_eq!(rig.broken(), Some("stores hold what the oracle does"));

    let mut rig = Rig::ordered();
    applied.epoch = EpochNumber(3);
    rig.history.on_found(rig.home, &applied);
    assert_eq!(rig.broken(), Some("no partition is ahead of the order"));

    let mut rig = Rig::ordered();
    rig.history.check_values(rig.home, |_| Some(Value::from(vec![1])));
    assert_eq!(rig.broken(), Some("stores hold what the oracle does"));
}

#[test]
fn a_client_that_hears_something_else() {
    let hear = |change: fn(&mut Receipt)| {
        let mut rig = Rig::ordered();
        let (first, mut receipt) = (rig.ids[0], rig.receipt(0));
        change(&mut receipt);
        rig.history.on_ending(9, &first, Ending::Receipt(receipt));
        rig.broken()
    };
    assert_eq!(hear(|_| ()), None);
    let rule = Some("clients hear what the oracle says");
    assert_eq!(hear(|receipt| receipt.position.epoch = EpochNumber(2)), rule);
    assert_eq!(hear(|receipt| receipt.position.epoch = EpochNumber(3)), rule);
    assert_eq!(hear(|receipt| receipt.output = vec![1].into()), rule);
}

#[test]
fn a_transaction_that_ends_twice_or_not_at_all() {
    let mut rig = Rig::ordered();
    let (first, receipt) = (rig.ids[0], rig.receipt(0));
    rig.history.on_ending(9, &first, Ending::Receipt(receipt));
    rig.history.on_ending(9, &first, Ending::Refused(ErrorCode::Expired));
    assert_eq!(rig.broken(), Some("one ending for each transaction"));

    let mut rig = Rig::ordered();
    rig.history.check_all_ended();
    assert_eq!(rig.broken(), Some("everything ends once faults do"));
    let mut rig = Rig::ordered();
    let receipt = rig.receipt(0);
    rig.history.on_ending(9, &TxId([1; 32]), Ending::Receipt(receipt));
    assert_eq!(rig.broken(), Some("answers are to questions"));
}

#[test]
fn a_read_that_is_stale_or_wrong() {
    let read = |least: u64, epoch: u64, value: u8| {
        let mut rig = Rig::ordered();
        let keys = [rig.key.clone()];
        let values = [Some(Value::from(vec![value]))];
        rig.history.on_read(EpochNumber(least), EpochNumber(epoch), &keys, &values);
        rig.broken()
    };
    assert_eq!(read(1, 1, 1), None);
    assert_eq!(read(2, 2, 2), None);
    assert_eq!(read(2, 1, 1), Some("reads are not stale"));
    assert_eq!(read(2, 3, 2), Some("reads are not stale"));
    assert_eq!(read(2, 2, 1), Some("reads show what the oracle holds"));
}
