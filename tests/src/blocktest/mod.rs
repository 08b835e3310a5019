//! Ethereum's tests of blocks, through Parsec.
//!
//! The blocks of a test are taken by the verifier of `parsec-runtimes`, which executes them one
//! transaction after another. Those of a valid block are executed once more as a cluster does: each
//! with the footprint that trials find, by the serial oracle and by three partitions, which must
//! come to the same receipts and the same state. A block that must be refused has to be, and for a
//! reason of the kind that the test names.

mod branches;
mod case;
mod refusals;
mod run;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use crate::statetest::{Summary, Verdict};

pub use run::Runner;

/// Runs all tests of a file.
pub fn run_file(runner: &mut Runner, path: &Path) -> Summary {
    let mut summary = Summary::default();
    let name = path.display().to_string();
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let tests = read.and_then(|bytes| {
        serde_json::from_slice::<BTreeMap<String, Json>>(&bytes).map_err(|e| e.to_string())
    });
    let tests = match tests {
        Ok(tests) => tests,
        Err(error) => {
            summary.count(|| name, Verdict::Failed(error));
            return summary;
        }
    };
    for (test, json) in tests {
        let verdict = match json["blocks"].is_array() && json["genesisRLP"].is_string() {
            true => runner.run_test(json),
            false => Verdict::Skipped("it is no test of blocks given as RLP".to_owned()),
        };
        summary.count(|| format!("{name} {test}"), verdict);
    }
    summary
}
