//! Ethereum's own tests, through Parsec: state tests and transaction tests.
//!
//! Each case is admitted, its footprint is found by trials, and it is ordered after a genesis that
//! loads the state before it. The serial oracle executes that order; so does a cluster of three
//! partitions under a schedule of its own, which must give the same receipts and the same state.
//! The root of that state and the hash of the logs must be those of the case.

mod build;
mod case;
mod order;
mod run;
mod state;
mod transactions;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

pub(crate) use case::{Account, Number, accounts};
pub(crate) use order::{Chain, Draw};
pub use run::Runner;
pub(crate) use run::{UNBORN, entry};
pub(crate) use state::{accounts as loaded_accounts, differences};

/// Why a case did not pass, for people.
pub(crate) type Failure = String;

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It came out as it says. How often it strayed before.
    Passed {
        /// Times that it was ordered again with a wider footprint.
        strays: u32,
    },
    /// It did not; and why.
    Failed(Failure),
    /// It was not run; and why.
    Skipped(String),
}

/// What became of many cases.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Cases that came out as they say.
    pub passed: u64,
    /// Each case that did not: its name, and why.
    pub failures: Vec<(String, Failure)>,
    /// Why cases were not run, and how many.
    pub skipped: BTreeMap<String, u64>,
    /// Cases that strayed at least once.
    pub strayed: u64,
}

impl Summary {
    /// Counts a case.
    pub fn count(&mut self, name: impl FnOnce() -> String, verdict: Verdict) {
        match verdict {
            Verdict::Passed { strays } => {
                self.passed += 1;
                self.strayed += u64::from(strays > 0);
            }
            Verdict::Failed(why) => self.failures.push((name(), why)),
            Verdict::Skipped(why) => *self.skipped.entry(why).or_default() += 1,
        }
    }

    /// Adds another summary.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.strayed += other.strayed;
        for (why, count) in other.skipped {
            *self.skipped.entry(why).or_default() += count;
        }
    }

    /// How many cases were not run.
    #[must_use]
    pub fn skips(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// The files of tests at or below some paths, sorted.
///
/// # Errors
/// If a path can't be read.
pub fn files(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let inside = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
            let mut inside = inside.collect::<Result<Vec<_>, _>>()?;
            inside.retain(|path| path.is_dir() || path.extension().is_some_and(|e| e == "json"));
            found.extend(files(&inside)?);
        } else {
            std::fs::metadata(path)?;
            found.push(path.clone());
        }
    }
    found.sort();
    Ok(found)
}

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
        let mut count = |case: &str, verdict| {
            summary.count(|| format!("{name} {test} {case}"), verdict);
        };
        if json["transaction"].is_object() && json["post"].is_object() {
            run::run_test(runner, json, &mut count);
        } else if json["txbytes"].is_string() && json["result"].is_object() {
            transactions::run_test(&json, &mut count);
        } else {
            count("", Verdict::Skipped("it is neither a state test nor a transaction test".into()));
        }
    }
    summary
}

/// What `run` gives, or the words with which it panics.
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(words(&*panic)))
}

fn words(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without words"))
}
