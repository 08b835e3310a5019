//! A representative part of Ethereum's own tests; the binary `statetest` runs all of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use parsec_tests::statetest::{Runner, Summary, files, run_file};
use serde_json::{Value as Json, json};

/// Of each directory, one file in so many is run.
const ONE_IN: usize = 12;
/// A test with a few variants, of which the transaction is given raw and by its fields.
const SAMPLE: &str = "eest-state_tests/prague/eip7702_set_code_tx/test_delegation_clearing.json";

/// Where the tests are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    match path.exists() {
        true => Some(path),
        false => {
            eprintln!("skipped: no tests of Ethereum's on this machine");
            None
        }
    }
}

fn run(files: &[PathBuf]) -> Summary {
    let mut runner = Runner::new();
    let mut total = Summary::default();
    files.iter().for_each(|file| total.add(run_file(&mut runner, file)));
    total
}

fn part(directory: &str, one_in: usize, least: u64) {
    let Some(data) = data() else { return };
    let all = files(&[data.join(directory)]).unwrap();
    let some: Vec<_> = all.into_iter().step_by(one_in).collect();
    let summary = run(&some);
    assert_eq!(summary.failures, [], "{directory}");
    assert!(summary.passed >= least, "only {} of {directory} passed", summary.passed);
}

#[test]
fn newer_state_tests_come_out_as_they_say() {
    part("eest-state_tests", ONE_IN, 200);
    part("ethereum-tests-GeneralStateTests", ONE_IN, 50);
}

#[test]
fn delegations_come_out_as_they_say() {
    part("eest-state_tests/prague/eip7702_set_code_tx", 2, 50);
}

#[test]
fn older_state_tests_come_out_as_they_say() {
    part("legacy-Cancun-GeneralStateTests", 2 * ONE_IN, 200);
    part("legacy-Constantinople-GeneralStateTests", 2 * ONE_IN, 50);
}

#[test]
fn raw_transactions_are_valid_where_they_should_be() {
    part("ethereum-tests-TransactionTests", 1, 1_300);
}

/// What becomes of the sample after a change.
fn changed(change: impl Fn(&mut Json)) -> Option<Summary> {
    let path = data()?.join(SAMPLE);
    let mut tests: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    tests.as_object_mut().unwrap().values_mut().for_each(change);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("changed.json");
    std::fs::write(&file, tests.to_string()).unwrap();
    Some(run(&[file]))
}

/// Changes every case of a test.
fn cases(change: impl Fn(&mut Json)) -> impl Fn(&mut Json) {
    move |test| {
        let forks = test["post"].as_object_mut().unwrap().values_mut();
        forks.flat_map(|cases| cases.as_array_mut().unwrap()).for_each(&change);
    }
}

#[test]
fn what_does_not_come_out_as_it_says_is_a_failure() {
    let Some(same) = changed(|_| {}) else { return };
    assert!(same.passed > 0 && same.failures.is_empty(), "{same:?}");
    let wrong = json!(format!("0x{}", "11".repeat(32)));
    for (field, value, says) in [
        ("hash", wrong.clone(), "state root"),
        ("logs", wrong, "logs"),
        ("expectException", json!("Some.EXCEPTION"), "should be"),
        ("txbytes", json!("0xc0"), "refused"),
    ] {
        let summary = changed(cases(|case| case[field] = value.clone())).unwrap();
        assert_eq!((summary.passed, summary.failures.len() as u64), (0, same.passed), "{says}");
        for (_, why) in &summary.failures {
            assert!(why.contains(says), "{why}");
        }
    }
    let summary = changed(|test| test["env"] = json!({})).unwrap();
    assert!(summary.passed == 0 && !summary.failures.is_empty());
}

#[test]
fn a_transaction_is_built_from_its_fields_where_it_is_not_given_raw() {
    let Some(same) = changed(|_| {}) else { return };
    let without_raw = |case: &mut Json| drop(case.as_object_mut().unwrap().remove("txbytes"));
    let signed = changed(cases(without_raw)).unwrap();
    assert_eq!((signed.passed, signed.failures), (same.passed, vec![]));
    let unsigned = changed(|test| {
        cases(without_raw)(test);
        test["transaction"].as_object_mut().unwrap().remove("secretKey");
    });
    let unsigned = unsigned.unwrap();
    assert_eq!((unsigned.passed, unsigned.failures), (same.passed, vec![]));
}

#[test]
fn what_is_not_known_is_skipped_with_the_reason() {
    let amsterdam = |test: &mut Json| {
        let post = test["post"].as_object_mut().unwrap();
        let cases = post.values().next().unwrap().clone();
        *post = [("Amsterdam".to_owned(), cases)].into_iter().collect();
    };
    let unreadable = |test: &mut Json| {
        amsterdam(test);
        test["transaction"]["data"] = json!({});
    };
    for change in [&amsterdam as &dyn Fn(&mut Json), &unreadable] {
        let Some(summary) = changed(change) else { return };
        assert_eq!((summary.passed, summary.failures.len()), (0, 0));
        assert!(summary.skips() > 0);
        assert!(summary.skipped.keys().all(|why| why.contains("Amsterdam")), "{summary:?}");
    }
}
