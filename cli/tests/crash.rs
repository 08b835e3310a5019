//! `parsec demo` is killed again and again, and goes on each time: nothing that was acknowledged is
//! missing, nothing happened twice, and one thread agrees with the result.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value as Json;
use support::{Process, eventually, finish, parsec, run, succeeded};

const ID_BYTES: u64 = 32;

fn start(directory: &Path) -> Process {
    let arguments = [
        "demo",
        "--data=data",
        "--workloads=erc20,native",
        "--transactions=1500",
        "--accounts=60",
        "--in-flight=600",
        "--json",
    ];
    let mut command = parsec(directory, &arguments);
    Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// How many transactions have been acknowledged so far, over all runs.
fn acknowledged(directory: &Path) -> u64 {
    let file = directory.join("data/acknowledged");
    file.metadata().map_or(0, |metadata| metadata.len() / ID_BYTES)
}

/// A moment that is never the same.
fn jitter() -> Duration {
    Duration::from_micros(RandomState::new().hash_one("moment") % 40_000)
}

/// Starts the demo and kills it a moment after it has acknowledged `more` transactions.
fn start_and_kill(directory: &Path, more: u64) {
    let before = acknowledged(directory);
    let mut process = start(directory);
    eventually("enough acknowledged transactions", || {
        process.assert_runs();
        (acknowledged(directory) >= before + more).then_some(())
    });
    std::thread::sleep(jitter());
    process.kill();
}

#[test]
fn a_demo_that_is_killed_goes_on_and_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // While accounts are set up, in the middle of a load, while it starts again, and near an end.
    for more in [20, 700, 0, 2_000] {
        start_and_kill(directory, more);
    }
    let earlier = acknowledged(directory);
    assert!(earlier >= 2_720);
    let report = succeeded(finish(start(directory)));
    let report: Json = serde_json::from_str(&report).unwrap();
    assert_eq!(report["verified"], true, "{report:#}");
    assert_eq!(report["acknowledged_missing"], 0, "{report:#}");
    assert_eq!(report["acknowledged_earlier"], earlier, "{report:#}");
    assert_eq!(report["state_digest"], report["replay"]["state_digest"], "{report:#}");

    // The same log, on another number of partitions.
    let replay = run(directory, &["replay", "data/sequencer/log", "--partitions=3", "--json"]);
    let replay: Json = serde_json::from_str(&succeeded(replay)).unwrap();
    assert_eq!(replay["agrees"], true, "{replay:#}");
    assert_eq!(replay["parallel"]["state_digest"], report["state_digest"], "{replay:#}");
    assert_eq!(replay["parallel"]["receipts_digest"], report["receipts_digest"], "{replay:#}");
}
