//! Learning, over calls that are a few numbers.

use parsec_protocol::Namespace;

use super::*;

/// Calls whose payload is a function, a caller and two arguments. Keys are numbers.
enum Toy {}

struct ToyCall {
    function: u8,
    caller: u8,
    words: [u8; 3],
}

#[derive(Debug, Clone, PartialEq)]
enum ToyFormula {
    Word(usize),
    Constant(Key),
}

fn key(number: u8) -> Key {
    Key::new(Namespace::partitioned(1), &[number]).unwrap()
}

impl Calls for Toy {
    type Id = u8;
    type Call = ToyCall;
    type Formula = ToyFormula;
    type Origin = u8;

    fn call(_: &[u8], payload: &Bytes) -> Option<ToyCall> {
        let [function, caller, first, second] = *<&[u8; 4]>::try_from(&payload[..]).ok()?;
        Some(ToyCall { function, caller, words: [caller, first, second] })
    }

    fn id(call: &ToyCall) -> u8 {
        call.function
    }

    fn general(_: &ToyCall) -> Option<u8> {
        None
    }

    fn is_general(_: &Footprint) -> bool {
        false
    }

    fn origin(call: &ToyCall) -> Option<u8> {
        Some(call.caller)
    }

    fn explain(call: &ToyCall, keys: &[&Key]) -> Vec<Vec<ToyFormula>> {
        let explain = |wanted: &&Key| {
            let words = (0..3).filter(|n| key(call.words[*n]) == **wanted).map(ToyFormula::Word);
            words.chain([ToyFormula::Constant(Key::clone(wanted))]).collect()
        };
        keys.iter().map(explain).collect()
    }

    fn key(formula: &ToyFormula, call: &ToyCall) -> Option<Key> {
        match formula {
            ToyFormula::Word(n) => Some(key(call.words[*n])),
            ToyFormula::Constant(key) => Some(key.clone()),
        }
    }
}

type ToyLearner = Learner<Toy>;

fn writes(keys: &[u8]) -> Footprint {
    let write = |number: &u8| Access { key: key(*number), mode: Mode::Write };
    Footprint::new(keys.iter().map(write).collect()).unwrap()
}

fn payload(call: [u8; 4]) -> Bytes {
    Bytes::copy_from_slice(&call)
}

/// A call and what it touches, as a cluster would treat it. Whether it was predicted, and whether
/// it strayed then.
fn run(learner: &ToyLearner, call: [u8; 4], touched: &[u8]) -> (bool, bool) {
    let (payload, touched) = (payload(call), writes(touched));
    let Some(predicted) = learner.predict(&[], &payload) else {
        learner.learn(&[], &payload, &touched);
        return (false, false);
    };
    let strays = touched.accesses().iter().any(|a| !predicted.covers(&a.key, a.mode));
    if strays {
        learner.strayed(&[], &payload, &predicted);
    }
    (true, strays)
}

/// Runs so many transfers from caller to payee between changing accounts, all of which also touch
/// these keys. How many were predicted, and how many strayed.
fn transfers(learner: &ToyLearner, count: u32, also: impl Fn(u32) -> Vec<u8>) -> (u32, u32) {
    let (mut predicted, mut strayed) = (0, 0);
    for n in 0..count {
        let small = |n: u32| u8::try_from(n).unwrap();
        let (from, to) = (small(n % 50), small(n * 7 % 50 + 50));
        let touched = [&[from, to][..], &also(n)].concat();
        let (was_predicted, has_strayed) = run(learner, [1, from, to, 9], &touched);
        predicted += u32::from(was_predicted);
        strayed += u32::from(has_strayed);
    }
    (predicted, strayed)
}

#[test]
fn three_calls_teach_all_others_but_audits() {
    let learner = ToyLearner::default();
    let (predicted, strayed) = transfers(&learner, 10_003, |_| vec![200]);
    let audits = u32::try_from((0..10_000).filter(|number| is_audited(*number)).count()).unwrap();
    assert_eq!((predicted, strayed), (10_000 - audits, 0));
    assert!((10..50).contains(&audits), "{audits} audits");
}

#[test]
fn a_rare_way_does_not_widen_the_usual_one() {
    let learner = ToyLearner::default();
    transfers(&learner, 100, |_| vec![200]);
    // One in a hundred goes another way, through a key that is hot.
    let (predicted, strayed) = transfers(&learner, 20_000, |n| match n % 100 {
        50 => vec![200, 201],
        _ => vec![200],
    });
    assert!(predicted > 19_900, "{predicted} predicted");
    // Each of them, unless it was audited, and no other.
    assert!((190..=200).contains(&strayed), "{strayed} strayed");
    let usual = learner.predict(&[], &payload([1, 1, 60, 9])).unwrap();
    assert_eq!(usual.find(&key(201)), None);
}

#[test]
fn what_half_of_the_calls_touch_is_predicted() {
    let learner = ToyLearner::default();
    let (predicted, strayed) = transfers(&learner, 20_000, |n| match n % 2 {
        0 => vec![200],
        _ => Vec::new(),
    });
    assert!(predicted > 19_900, "{predicted} predicted");
    assert_eq!(strayed, 0);
}

#[test]
fn a_changed_contract_is_learnt_anew() {
    let learner = ToyLearner::default();
    transfers(&learner, 1_000, |_| vec![200]);
    let (predicted, strayed) = transfers(&learner, 10_000, |_| vec![201, 202]);
    assert!(predicted > 9_900, "{predicted} predicted");
    assert!(strayed < 100, "{strayed} strayed");
}

#[test]
fn what_follows_no_formula_rests() {
    let learner = ToyLearner::default();
    let (predicted, strayed) = transfers(&learner, 500, |n| vec![100 + (n * 13 % 100) as u8]);
    assert!(predicted < 50, "{predicted} predicted");
    assert!(strayed <= predicted);
    assert!(learner.is_erratic(&[], &payload([1, 1, 60, 9])));
    assert!(!learner.is_erratic(&[], &payload([2, 1, 60, 9])));
}

#[test]
fn what_rested_is_learnt_again() {
    let learner = ToyLearner::default();
    transfers(&learner, 100, |n| vec![100 + (n * 13 % 100) as u8]);
    let (predicted, _) = transfers(&learner, RESTING_TRIALS + 100, |_| vec![200]);
    assert!(predicted > 50, "{predicted} predicted");
    assert!(!learner.is_erratic(&[], &payload([1, 1, 60, 9])));
}

#[test]
fn a_caller_alone_is_predicted_alone() {
    let learner = ToyLearner::default();
    for to in 10..20 {
        run(&learner, [1, 5, to, 0], &[5, to, 200]);
    }
    assert!(learner.predict(&[], &payload([1, 5, 99, 0])).is_some());
    assert_eq!(learner.predict(&[], &payload([1, 6, 99, 0])), None);
    run(&learner, [1, 6, 99, 0], &[6, 99, 200]);
    let predicted = learner.predict(&[], &payload([1, 7, 98, 0]));
    assert_eq!(predicted, Some(writes(&[7, 98, 200])));
}

#[test]
fn transfers_to_oneself_confuse_nobody() {
    let learner = ToyLearner::default();
    run(&learner, [1, 5, 5, 0], &[5]);
    for (from, to) in [(1, 2), (3, 3), (4, 6), (7, 1), (2, 9)] {
        run(&learner, [1, from, to, 0], &[from, to]);
    }
    assert_eq!(learner.predict(&[], &payload([1, 8, 9, 0])), Some(writes(&[8, 9])));
}

#[test]
fn strays_of_others_are_not_blamed_on_a_prediction() {
    let learner = ToyLearner::default();
    transfers(&learner, 100, |_| vec![200]);
    // Footprints that a client declared, or that a trial found before it was learnt.
    for n in 0..100 {
        learner.strayed(&[], &payload([1, n, 60, 9]), &writes(&[n]));
    }
    assert!(learner.predict(&[], &payload([1, 1, 60, 9])).is_some());
}

#[test]
fn long_footprints_are_not_learnt() {
    let learner = ToyLearner::default();
    let many: Vec<u8> = (100..140).collect();
    let (predicted, _) = transfers(&learner, 100, |_| many.clone());
    assert_eq!(predicted, 0);
}
