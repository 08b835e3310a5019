use std::sync::Arc;

use parsec_protocol::{ErrorCode, Footprint, LaneId, Outcome, PartitionId, RuntimeId, Transaction};
use parsec_runtimes::Runtime;
use parsec_runtimes::native::{NativeRuntime, Program, key};
use parsec_runtimes::system::{SystemRuntime, load_transactions};
use parsec_storage::log::{LogOptions, LogReader, LogWriter};
use proptest::prelude::*;

use super::*;

fn runtimes() -> Runtimes {
    Runtimes::new(vec![Arc::new(SystemRuntime), Arc::new(NativeRuntime)])
}

fn k(name: &str) -> Key {
    key(name).unwrap()
}

fn entry(transaction: &Transaction) -> Entry {
    let admitted = NativeRuntime.admit(transaction).unwrap();
    Entry {
        id: admitted.id,
        runtime: transaction.runtime,
        attempt: 0,
        home: PartitionId(0),
        sender: admitted.sender,
        payload: transaction.payload.clone(),
        footprint: admitted.footprint.unwrap_or_default(),
        expires: transaction.expires,
    }
}

/// Builds a chain of epochs of one batch each.
#[derive(Default)]
struct Ledger {
    epochs: Vec<(EpochRecord, Vec<Batch>)>,
}

impl Ledger {
    fn order(&mut self, entries: Vec<Entry>) -> (EpochRecord, Vec<Batch>) {
        let last = self.epochs.last().map(|(epoch, _)| epoch);
        let number = last.map_or(EpochNumber(1), |last| last.number.next());
        let batch = Batch {
            lane: LaneId(0),
            sequence: number.0,
            map_version: 1,
            entries: entries.into_iter().map(Arc::new).collect(),
        };
        let epoch = EpochRecord {
            number,
            timestamp_ms: 1_000 + number.0,
            block: 0,
            parent: last.map_or([0; 32], EpochRecord::digest),
            batches: vec![batch.reference(&codec::encode(&batch))],
        };
        self.epochs.push((epoch, vec![batch]));
        self.epochs.last().unwrap().clone()
    }

    fn run(&mut self, oracle: &mut Oracle, programs: Vec<Program>) -> Vec<Receipt> {
        let salt = self.epochs.len() as u128 * 1_000;
        let entries = programs.into_iter().zip(salt..);
        let entries = entries.map(|(program, salt)| entry(&program.into_transaction(salt)));
        let (epoch, batches) = self.order(entries.collect());
        oracle.apply(&epoch, &batches).unwrap()
    }
}

fn scanned(oracle: &Oracle) -> Digest {
    oracle.state().iter().map(|(key, value)| Digest::of(key, value)).sum()
}

#[test]
fn transactions_take_effect_in_order() {
    let mut ledger = Ledger::default();
    let mut oracle = Oracle::new(&runtimes());
    let (a, b) = (k("a"), k("b"));
    let receipts = ledger.run(
        &mut oracle,
        vec![
            Program::new().transfer(&a, &b, 5),
            Program::new().add(&a, 7),
            Program::new().transfer(&a, &b, 5),
            Program::new().put(&k("c"), "x"),
            Program::new().delete(&k("c")),
        ],
    );
    let outcomes: Vec<_> = receipts.iter().map(|receipt| receipt.is_committed()).collect();
    assert_eq!(outcomes, [false, true, true, true, true]);
    assert_eq!(receipts[0].outcome, Outcome::Reverted(ErrorCode::InsufficientFunds));
    let indexes: Vec<_> = receipts.iter().map(|receipt| receipt.position.index).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4]);
    assert_eq!((oracle.get(&a).unwrap()[31], oracle.get(&b).unwrap()[31]), (2, 5));
    assert_eq!(oracle.state().len(), 2);
    assert_eq!(oracle.applied(), EpochNumber(1));
    assert_eq!(oracle.state_digest(), scanned(&oracle));
    let sum: Digest = receipts.iter().map(|receipt| Digest(receipt.digest())).sum();
    assert_eq!(oracle.receipts_digest(), sum);
}

#[test]
fn a_genesis_loads() {
    let entries = (0..3_000u32).map(|n| (k(&n.to_string()), Value::from(n.to_string())));
    let state: BTreeMap<_, _> = entries.collect();
    let loads = load_transactions(state.clone()).unwrap().into_iter().map(|load| Entry {
        id: load.id,
        runtime: RuntimeId::SYSTEM,
        payload: load.payload,
        footprint: load.footprint,
        ..entry(&Program::new().into_transaction(0))
    });
    let (epoch, batches) = Ledger::default().order(loads.collect());
    let mut oracle = Oracle::new(&runtimes());
    let receipts = oracle.apply(&epoch, &batches).unwrap();
    assert!(receipts.iter().all(Receipt::is_committed));
    assert_eq!(oracle.differences(&state), []);
    assert_eq!(oracle.state_digest(), Oracle::with_state(&runtimes(), state).state_digest());
}

#[test]
fn strays_and_late_transactions_have_no_effect_but_receipts() {
    let mut ledger = Ledger::default();
    let mut oracle = Oracle::new(&runtimes());
    let program = Program::new().put(&k("a"), "x");
    let astray =
        Entry { footprint: Footprint::default(), ..entry(&program.clone().into_transaction(1)) };
    let late = Entry { expires: Some(EpochNumber(0)), ..entry(&program.into_transaction(2)) };
    let (epoch, batches) = ledger.order(vec![astray, late]);
    let receipts = oracle.apply(&epoch, &batches).unwrap();
    assert!(matches!(receipts[0].outcome, Outcome::Strayed { .. }));
    assert_eq!(receipts[1].outcome, Outcome::Invalid(ErrorCode::Expired));
    assert_eq!((oracle.state().len(), oracle.state_digest()), (0, Digest::ZERO));
    assert_ne!(oracle.receipts_digest(), Digest::ZERO);
}

#[test]
fn a_log_that_is_no_order_is_refused() {
    let mut ledger = Ledger::default();
    let mut oracle = Oracle::new(&runtimes());
    ledger.run(&mut oracle, vec![Program::new()]);
    let (epoch, batches) = ledger.order(vec![entry(&Program::new().into_transaction(9))]);

    let gap = EpochRecord { number: EpochNumber(3), ..epoch.clone() };
    assert!(matches!(oracle.apply(&gap, &batches), Err(OracleError::OutOfOrder { .. })));
    let fork = EpochRecord { parent: [1; 32], ..epoch.clone() };
    assert!(matches!(oracle.apply(&fork, &batches), Err(OracleError::WrongParent { .. })));
    let past = EpochRecord { timestamp_ms: 1, ..epoch.clone() };
    assert!(matches!(oracle.apply(&past, &batches), Err(OracleError::TimeReversed { .. })));
    let wrong = |index| {
        move |result| match result {
            Err(OracleError::WrongBatch { index: found, .. }) => found == index,
            _ => false,
        }
    };
    assert!(wrong(0)(oracle.apply(&epoch, &[])));
    assert!(wrong(1)(oracle.apply(&epoch, &[batches.clone(), batches.clone()].concat())));
    let mut changed = batches.clone();
    changed[0].entries.clear();
    assert!(wrong(0)(oracle.apply(&epoch, &changed)));
    assert!(oracle.apply(&epoch, &batches).is_ok());
}

#[test]
fn a_second_last_word_is_noticed() {
    let mut ledger = Ledger::default();
    let mut oracle = Oracle::new(&runtimes()).watching_ids();
    let put = entry(&Program::new().put(&k("a"), "x").into_transaction(1));
    let astray = Entry { footprint: Footprint::default(), ..put.clone() };
    for entries in [vec![astray.clone()], vec![astray, put.clone()]] {
        let (epoch, batches) = ledger.order(entries);
        oracle.apply(&epoch, &batches).unwrap();
    }
    let (epoch, batches) = ledger.order(vec![put]);
    let first = Position { epoch: EpochNumber(2), index: 1 };
    assert!(matches!(
        oracle.apply(&epoch, &batches),
        Err(OracleError::ExecutedTwice { first: found, .. }) if found == first
    ));
}

#[test]
fn a_runtime_that_nobody_has_stops_the_host() {
    let unknown = Entry { runtime: RuntimeId(9), ..entry(&Program::new().into_transaction(1)) };
    let (epoch, batches) = Ledger::default().order(vec![unknown]);
    let result = Oracle::new(&runtimes()).apply(&epoch, &batches);
    assert!(matches!(result, Err(OracleError::Stopped { .. })));
}

#[test]
fn a_recording_replays_to_the_same_digests() {
    let mut ledger = Ledger::default();
    let mut oracle = Oracle::new(&runtimes());
    let (a, b) = (k("a"), k("b"));
    for _ in 0..5 {
        let programs = vec![
            Program::new().add(&a, 3).add(&b, 1),
            Program::new().transfer(&a, &b, 2).get(&a),
            Program::new().require(&a, None),
        ];
        ledger.run(&mut oracle, programs);
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = LogWriter::open(directory.path(), [3; 32], LogOptions::default()).unwrap();
    for (epoch, batches) in &ledger.epochs {
        log.append_batch(&epoch.batches[0], &codec::encode(&batches[0])).unwrap();
        log.append_epoch(epoch).unwrap();
    }
    log.sync().unwrap();
    let mut replayed = Oracle::new(&runtimes()).watching_ids();
    let mut heard = Vec::new();
    let reader = LogReader::open(directory.path()).unwrap();
    let summary = replayed.replay(reader, |so_far| heard.push(so_far.epochs)).unwrap();
    assert_eq!(heard, [1, 2, 3, 4, 5]);
    assert_eq!((summary.epochs, summary.transactions), (5, 15));
    assert_eq!(summary.state, oracle.state_digest());
    assert_eq!(summary.receipts, oracle.receipts_digest());
    assert_eq!(summary.outcomes.committed, 10);
    assert_eq!(summary.outcomes.reverted, BTreeMap::from([(ErrorCode::Refused, 5)]));
    assert_eq!(summary.outcomes.total(), summary.transactions);
    assert_eq!(replayed.differences(oracle.state()), []);
}

#[test]
fn differences_are_named() {
    let oracle = Oracle::with_state(
        &runtimes(),
        BTreeMap::from([(k("a"), "1".into()), (k("b"), "2".into()), (k("c"), "3".into())]),
    );
    let other = BTreeMap::from([(k("a"), "1".into()), (k("b"), "x".into()), (k("d"), "4".into())]);
    assert_eq!(oracle.differences(&other), [k("b"), k("c"), k("d")]);
}

fn any_program() -> impl Strategy<Value = Program> {
    let key = || (0u8..3).prop_map(|n| key([n]).unwrap());
    let step = prop_oneof![
        (key(), 0u8..4).prop_map(|(key, n)| Program::new().put(&key, vec![n])),
        key().prop_map(|key| Program::new().delete(&key)),
        (key(), -3i128..9).prop_map(|(key, n)| Program::new().add(&key, n)),
        (key(), key(), 0u128..5).prop_map(|(a, b, n)| Program::new().transfer(&a, &b, n)),
    ];
    prop::collection::vec(step, 1..4)
        .prop_map(|steps| Program { ops: steps.into_iter().flat_map(|step| step.ops).collect() })
}

proptest! {
    #[test]
    fn the_digest_is_that_of_the_state(
        epochs in prop::collection::vec(prop::collection::vec(any_program(), 0..5), 1..5),
    ) {
        let mut ledger = Ledger::default();
        let mut oracle = Oracle::new(&runtimes()).watching_ids();
        for programs in epochs {
            ledger.run(&mut oracle, programs);
            prop_assert_eq!(oracle.state_digest(), scanned(&oracle));
        }
    }
}
