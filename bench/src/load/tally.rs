//! What is counted while a load runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use parsec_protocol::{ErrorCode, Outcome};
use tokio::time::Instant;

use super::target::Answer;

/// The shortest latency that is told apart, microseconds.
const LATENCY_MICROS_MIN: u64 = 1;
/// The longest one; longer ones count as this.
const LATENCY_MICROS_MAX: u64 = 120_000_000;
/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// The counts of one connection.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Counts>);

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) reverted: u64,
    pub(super) invalid: u64,
    pub(super) rejected: u64,
    pub(super) unknown: u64,
    /// Of those with a receipt: how many had strayed before.
    pub(super) strayed: u64,
    /// Submissions of transactions that had been refused before.
    pub(super) retried: u64,
    pub(super) failures: BTreeMap<ErrorCode, u64>,
    pub(super) first_failure: Option<String>,
    pub(super) last_answer: Option<Instant>,
    /// Of transactions with a receipt, microseconds.
    pub(super) latencies: Histogram<u64>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let latencies =
            Histogram::new_with_bounds(LATENCY_MICROS_MIN, LATENCY_MICROS_MAX, LATENCY_DIGITS)
                .expect("1 us to 120 s with 3 digits is a valid histogram");
        Self {
            committed: 0,
            reverted: 0,
            invalid: 0,
            rejected: 0,
            unknown: 0,
            strayed: 0,
            retried: 0,
            failures: BTreeMap::new(),
            first_failure: None,
            last_answer: None,
            latencies,
        }
    }

    /// Transactions with a last word.
    pub(super) fn done(&self) -> u64 {
        self.committed + self.reverted + self.invalid + self.rejected + self.unknown
    }

    fn record(&mut self, answer: &Answer, latency: Duration) {
        self.last_answer = Some(Instant::now());
        match answer {
            Answer::Receipt(receipt) => {
                self.strayed += u64::from(receipt.attempt > 0);
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(micros.max(LATENCY_MICROS_MIN));
                let detail = || String::from_utf8_lossy(&receipt.output).into_owned();
                match receipt.outcome {
                    Outcome::Committed => self.committed += 1,
                    Outcome::Reverted(code) => {
                        self.reverted += 1;
                        self.fail(Some(code), || format!("reverted: {code}: {}", detail()));
                    }
                    Outcome::Invalid(code) => {
                        self.invalid += 1;
                        self.fail(Some(code), || format!("invalid: {code}: {}", detail()));
                    }
                    Outcome::Strayed { .. } => {
                        self.unknown += 1;
                        self.fail(None, || "a stray was answered, which is no last word".into());
                    }
                }
            }
            Answer::Rejected { code, detail, .. } => {
                self.rejected += 1;
                self.fail(Some(*code), || format!("rejected: {code}: {detail}"));
            }
            Answer::Unknown { reason } => {
                self.unknown += 1;
                self.fail(None, || format!("unknown: {reason}"));
            }
        }
    }

    fn fail(&mut self, code: Option<ErrorCode>, describe: impl FnOnce() -> String) {
        if let Some(code) = code {
            *self.failures.entry(code).or_default() += 1;
        }
        self.first_failure.get_or_insert_with(describe);
    }

    /// These counts and those of another connection together.
    pub(super) fn merge(&mut self, other: &Self) {
        self.committed += other.committed;
        self.reverted += other.reverted;
        self.invalid += other.invalid;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.strayed += other.strayed;
        self.retried += other.retried;
        for (code, count) in &other.failures {
            *self.failures.entry(*code).or_default() += count;
        }
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
        self.last_answer = self.last_answer.max(other.last_answer);
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Counts::new()))
    }

    /// The counts. What a panicking holder left behind is still whole numbers.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, answer: &Answer, latency: Duration) {
        self.counts().record(answer, latency);
    }

    /// Transactions that won't be answered any more.
    pub(super) fn lose(&self, transactions: usize, reason: &str) {
        if transactions > 0 {
            let mut counts = self.counts();
            counts.unknown += count(transactions);
            counts.fail(None, || format!("unknown: {reason}"));
        }
    }

    pub(super) fn retry(&self, transactions: usize) {
        self.counts().retried += count(transactions);
    }

    pub(super) fn done(&self) -> u64 {
        self.counts().done()
    }

    pub(super) fn snapshot(&self) -> Counts {
        self.counts().clone()
    }
}

/// A number of things in memory, for counting.
pub(super) fn count(things: usize) -> u64 {
    u64::try_from(things).expect("memory is addressed with at most 64 bits")
}
