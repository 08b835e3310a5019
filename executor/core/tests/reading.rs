//! Who has read a key is done with it: those who write it next do not wait for what else its reader
//! waits for.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;

use parsec_executor_core::{EpochContext, Output, Partition};
use parsec_protocol::{
    Access, Change, Entry, EpochNumber, EpochRecord, Footprint, Key, Mode, Namespace, Outcome,
    PartitionId, PartitionMap, Position, Push, PushKind, Receipt, Role, RuntimeId, TxId, Value,
};

const HERE: PartitionId = PartitionId(0);
const THERE: PartitionId = PartitionId(1);

fn map() -> PartitionMap {
    PartitionMap::even(2).unwrap()
}

/// The `number`th key that lies on a partition.
fn key(partition: PartitionId, number: u32) -> Key {
    let candidate = |salt: u32| {
        let bytes = [number.to_be_bytes(), salt.to_be_bytes()].concat();
        Key::new(Namespace::partitioned(1), &bytes).unwrap()
    };
    (0..).map(candidate).find(|key| map().owner(key) == partition).unwrap()
}

fn footprint(accesses: &[(&Key, Mode)]) -> Footprint {
    let access = |(key, mode): &(&Key, Mode)| Access { key: (*key).clone(), mode: *mode };
    Footprint::new(accesses.iter().map(access).collect()).unwrap()
}

fn runs_here(accesses: &[(&Key, Mode)]) -> Role {
    let entry = Entry {
        id: TxId([0; 32]),
        runtime: RuntimeId::NATIVE,
        attempt: 0,
        home: HERE,
        sender: Vec::new().into(),
        payload: Vec::new().into(),
        footprint: footprint(accesses),
        expires: None,
    };
    Role::Home { entry: Arc::new(entry), forwards: Vec::new() }
}

fn runs_there(accesses: &[(&Key, Mode)]) -> Role {
    let footprint = footprint(accesses);
    let accesses = footprint.indexed().map(|(index, access)| (index, access.clone())).collect();
    Role::Participant { home: THERE, accesses, forwarded: Vec::new() }
}

/// A partition that knows the values of some keys, and has taken in an epoch of these transactions;
/// and what it has pushed.
fn partition(keys: &[&Key], transactions: Vec<Role>) -> (Partition, Vec<Push>) {
    let mut partition = Partition::new(HERE, Arc::new(map()), EpochNumber(0));
    let accesses: Vec<_> = keys.iter().map(|key| (*key, Mode::Read)).collect();
    for (number, transactions) in [(1, vec![runs_there(&accesses)]), (2, transactions)] {
        let (number, parent) = (EpochNumber(number), [0; 32]);
        let record = EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches: Vec::new() };
        let context = Arc::new(EpochContext { record, entropy: [0; 32] });
        partition.on_epoch(context, (0..).zip(transactions).collect());
        if number == EpochNumber(1) {
            settle(&mut partition);
        }
    }
    let pushes = settle(&mut partition);
    (partition, pushes)
}

/// Fetches what has to be, and returns what was pushed.
fn settle(partition: &mut Partition) -> Vec<Push> {
    let mut pushes = Vec::new();
    while let Some(output) = partition.poll_output() {
        match output {
            Output::Fetch { index, .. } => {
                partition.on_fetched(index, Some(Value::from_static(b"value")));
            }
            Output::Push(push) => pushes.push(push),
            Output::Receipt(_) | Output::Finished(_) => {}
        }
    }
    pushes
}

fn indexes_of_ready(partition: &mut Partition) -> Vec<u32> {
    std::iter::from_fn(|| partition.take_ready().map(|task| task.index)).collect()
}

#[test]
fn a_participant_lets_go_of_what_it_has_only_read_when_it_is_pushed() {
    let (read, written) = (key(HERE, 1), key(HERE, 2));
    let keys = [&read, &written];
    let (mut partition, pushes) = partition(
        &keys,
        vec![
            runs_there(&[(&read, Mode::Read), (&written, Mode::Write)]),
            runs_here(&[(&read, Mode::Write)]),
            runs_here(&[(&written, Mode::Write)]),
        ],
    );
    let [Push { kind, .. }] = &pushes[..] else { panic!("{pushes:?}") };
    assert!(matches!(&**kind, PushKind::Reads(items) if items.len() == 2));
    assert_eq!(
        indexes_of_ready(&mut partition),
        [1],
        "the third waits for what becomes of its key"
    );
}

#[test]
fn who_waits_for_something_else_has_read_what_others_want() {
    let (hot, other, far) = (key(HERE, 1), key(HERE, 2), key(THERE, 3));
    let (mut partition, pushes) = partition(
        &[&hot, &other],
        vec![
            // The first two share the key; the second waits for a value from elsewhere, the third for what
            // becomes of the other key.
            runs_here(&[(&hot, Mode::Read)]),
            runs_here(&[(&hot, Mode::Read), (&far, Mode::Read)]),
            runs_there(&[(&other, Mode::Write)]),
            runs_there(&[(&hot, Mode::Read), (&other, Mode::Read)]),
            runs_here(&[(&hot, Mode::Write)]),
        ],
    );
    assert_eq!(pushes.len(), 1, "of the other key, to the first that runs there");
    let task = partition.take_ready().unwrap();
    assert_eq!(task.index, 0);
    let changes = vec![Change::Keep];
    let receipt = Receipt {
        id: TxId([0; 32]),
        position: Position { epoch: EpochNumber(2), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 0,
        output: Vec::new().into(),
        events: Vec::new(),
    };
    partition.on_executed(task, changes, receipt);
    assert_eq!(
        indexes_of_ready(&mut partition),
        [4],
        "nobody who only reads holds the key any more"
    );
}
