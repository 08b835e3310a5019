//! A representative part of Ethereum's own tests of blocks; the binary `blocktest` runs all of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use parsec_tests::blocktest::{Runner, run_file};
use parsec_tests::statetest::{Summary, files};
use serde_json::{Value as Json, json};

/// Of all files, one in so many is run.
const ONE_IN: usize = 12;
/// A chain whose block must be refused.
const REFUSED: &str = "osaka/eip7825_transaction_gas_limit_cap/test_tx_gas_limit_cap_exceeded.json";
/// A chain of which the block is valid.
const TAKEN: &str = "frontier/opcodes/test_cover_revert.json";

/// Where the tests are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/eest-blockchain_tests");
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

#[test]
fn blocks_are_taken_and_refused_as_they_say() {
    let Some(data) = data() else { return };
    let some: Vec<_> = files(&[data]).unwrap().into_iter().step_by(ONE_IN).collect();
    let summary = run(&some);
    assert_eq!(summary.failures, []);
    assert!(summary.passed >= 100, "only {} passed", summary.passed);
}

/// What becomes of a test after a change.
fn changed(name: &str, change: impl Fn(&mut Json)) -> Option<Summary> {
    let path = data()?.join(name);
    let mut tests: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    tests.as_object_mut().unwrap().values_mut().for_each(change);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("changed.json");
    std::fs::write(&file, tests.to_string()).unwrap();
    Some(run(&[file]))
}

#[test]
fn what_does_not_come_out_as_it_says_is_a_failure() {
    let Some(same) = changed(TAKEN, |_| {}) else { return };
    assert!(same.passed > 0 && same.failures.is_empty(), "{same:?}");
    let wrong = json!(format!("0x{}", "11".repeat(32)));
    let fails = |name, says: &str, change: &dyn Fn(&mut Json)| {
        let summary = changed(name, change).unwrap();
        assert!(summary.passed == 0 && !summary.failures.is_empty(), "{says}: {summary:?}");
        for (_, why) in &summary.failures {
            assert!(why.contains(says), "{why}");
        }
    };
    fails(TAKEN, "the last block", &|test| test["lastblockhash"] = wrong.clone());
    fails(TAKEN, "should be BlockException", &|test| {
        test["blocks"][0]["expectException"] = json!("BlockException.INVALID_STATE_ROOT");
    });
    fails(TAKEN, "should not be there", &|test| test["postState"] = json!({}));
    fails(TAKEN, "state root", &|test| test["pre"] = json!({}));
    fails(REFUSED, "is refused", &|test| {
        test["blocks"][0].as_object_mut().unwrap().remove("expectException");
    });
    fails(REFUSED, "and should be", &|test| {
        test["blocks"][0]["expectException"] = json!("BlockException.INVALID_STATE_ROOT");
    });
}

#[test]
fn what_is_not_known_is_skipped_with_the_reason() {
    let change = |test: &mut Json| test["network"] = json!("Amsterdam");
    let Some(summary) = changed(TAKEN, change) else { return };
    assert_eq!((summary.passed, summary.failures.len()), (0, 0));
    assert!(summary.skipped.keys().all(|why| why.contains("Amsterdam")), "{summary:?}");
}
