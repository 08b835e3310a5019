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
/// What was sent later than this after its intended start is late.
pub(super) const LATE: Duration = Duration::from_millis(10);

/// An empty histogram of microseconds, with the bounds that all of them have.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_MICROS_MIN, LATENCY_MICROS_MAX, LATENCY_DIGITS)
        .expect("1 us to 120 s with 3 digits is a valid histogram")
}

/// Which transactions count: those that (were to) start at `from` or later, and before `to`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Option<Instant>,
}

impl Window {
    pub(super) fn holds(&self, time: Instant) -> bool {
        time >= self.from && self.to.is_none_or(|to| time < to)
    }
}

/// The counts of one connection.
#[derive(Debug)]
pub(super) struct Tally {
    window: Window,
    counts: Mutex<Counts>,
}

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    /// Of those that count.
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) committed: u64,
    pub(super) reverted: u64,
    pub(super) invalid: u64,
    pub(super) rejected: u64,
    pub(super) unknown: u64,
    /// Of those with a receipt: how many had strayed before.
    pub(super) strayed: u64,
    /// Submissions of transactions that had been refused before.
    pub(super) retried: u64,
    /// Those that were sent late.
    pub(super) late: u64,
    /// Those that committed within the window, whenever they started.
    pub(super) completed: u64,
    pub(super) failures: BTreeMap<ErrorCode, u64>,
    pub(super) first_failure: Option<String>,
    pub(super) last_answer: Option<Instant>,
    /// Of transactions with a receipt, microseconds.
    pub(super) latencies: Histogram<u64>,
    /// How late what was due was sent although there was room for it, microseconds.
    pub(super) pacing: Histogram<u64>,
    /// Of all transactions, whether they count or not.
    pub(super) flow: Flow,
    /// Latencies of what was answered since the last sample.
    pub(super) lately: Histogram<u64>,
}

/// What went through since the start, whether it counts or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Transactions that were sent, each once.
    pub sent: u64,
    /// Those that the cluster took.
    pub accepted: u64,
    /// Those that took effect.
    pub committed: u64,
    /// Those with another last word.
    pub failed: u64,
    /// Of those: how many nothing is known of.
    pub lost: u64,
}

impl Flow {
    /// Transactions with a last word.
    pub(super) fn done(&self) -> u64 {
        self.committed + self.failed
    }

    /// Adds what went through elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.committed += other.committed;
        self.failed += other.failed;
        self.lost += other.lost;
    }
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            accepted: 0,
            committed: 0,
            reverted: 0,
            invalid: 0,
            rejected: 0,
            unknown: 0,
            strayed: 0,
            retried: 0,
            late: 0,
            completed: 0,
            failures: BTreeMap::new(),
            first_failure: None,
            last_answer: None,
            latencies: latencies(),
            pacing: latencies(),
            flow: Flow::default(),
            lately: latencies(),
        }
    }

    /// Of those that count: transactions with a last word.
    pub(super) fn done(&self) -> u64 {
        self.committed + self.reverted + self.invalid + self.rejected + self.unknown
    }

    /// Counts the last word on a transaction.
    fn record(&mut self, answer: &Answer, latency: Duration, counts: bool, in_window: bool) {
        self.last_answer = Some(Instant::now());
        let committed =
            matches!(answer, Answer::Receipt(receipt) if receipt.outcome == Outcome::Committed);
        self.flow.committed += u64::from(committed);
        self.flow.failed += u64::from(!committed);
        self.flow.lost += u64::from(matches!(answer, Answer::Unknown { .. }));
        self.completed += u64::from(committed && in_window);
        if matches!(answer, Answer::Receipt(_)) {
            self.lately.saturating_record(micros(latency));
        }
        if counts {
            self.count(answer, latency);
        }
    }

    fn count(&mut self, answer: &Answer, latency: Duration) {
        match answer {
            Answer::Accepted => {}
            Answer::Receipt(receipt) => {
                self.strayed += u64::from(receipt.attempt > 0);
                self.latencies.saturating_record(micros(latency));
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
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.committed += other.committed;
        self.reverted += other.reverted;
        self.invalid += other.invalid;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
        self.strayed += other.strayed;
        self.retried += other.retried;
        self.late += other.late;
        self.completed += other.completed;
        for (code, count) in &other.failures {
            *self.failures.entry(*code).or_default() += count;
        }
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
        self.last_answer = self.last_answer.max(other.last_answer);
        self.flow.add(&other.flow);
        for (all, more) in [
            (&mut self.latencies, &other.latencies),
            (&mut self.pacing, &other.pacing),
            (&mut self.lately, &other.lately),
        ] {
            all.add(more).expect("all histograms have the same bounds");
        }
    }
}

impl Tally {
    pub(super) fn new(window: Window) -> Self {
        Self { window, counts: Mutex::new(Counts::new()) }
    }

    /// The counts. What a panicking holder left behind is still whole numbers.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction is sent for the first time. `due` is when it was to be, if that was said, and
    /// `free_since` since when there was room for it, if there was none before.
    pub(super) fn send(&self, since: Instant, due: Option<Instant>, free_since: Option<Instant>) {
        let mut counts = self.counts();
        counts.flow.sent += 1;
        if !self.window.holds(since) {
            return;
        }
        counts.sent += 1;
        let Some(due) = due else { return };
        counts.late += u64::from(due.elapsed() > LATE);
        let could = free_since.map_or(due, |free| free.max(due));
        counts.pacing.saturating_record(micros(could.elapsed()));
    }

    /// The cluster has taken a transaction that (was to) start at `since`.
    pub(super) fn accept(&self, since: Instant) {
        let mut counts = self.counts();
        counts.flow.accepted += 1;
        counts.accepted += u64::from(self.window.holds(since));
    }

    /// The last word on a transaction that (was to) start at `since`.
    pub(super) fn record(&self, answer: &Answer, since: Instant) {
        let (now, counts) = (Instant::now(), self.window.holds(since));
        self.counts().record(answer, now - since, counts, self.window.holds(now));
    }

    /// Transactions that won't be answered any more, by when they started.
    pub(super) fn lose(&self, transactions: impl IntoIterator<Item = Instant>, reason: &str) {
        let answer = Answer::Unknown { reason: reason.to_owned() };
        transactions.into_iter().for_each(|since| self.record(&answer, since));
    }

    /// Everything that was sent and has no last word won't be answered any more.
    pub(super) fn lose_rest(&self, reason: &str) {
        let mut counts = self.counts();
        let lost = counts.sent.saturating_sub(counts.done());
        counts.unknown += lost;
        let lost_at_all = counts.flow.sent.saturating_sub(counts.flow.done());
        counts.flow.failed += lost_at_all;
        counts.flow.lost += lost_at_all;
        if lost > 0 {
            counts.fail(None, || format!("unknown: {reason}"));
        }
    }

    /// Transactions are sent again, by when they started.
    pub(super) fn retry(&self, transactions: impl Iterator<Item = Instant>) {
        let again = count(transactions.filter(|since| self.window.holds(*since)).count());
        self.counts().retried += again;
    }

    /// What went through so far, and the latencies since this was called last.
    pub(super) fn sample(&self) -> (Flow, Histogram<u64>) {
        let mut counts = self.counts();
        (counts.flow, std::mem::replace(&mut counts.lately, latencies()))
    }

    pub(super) fn flow(&self) -> Flow {
        self.counts().flow
    }

    pub(super) fn snapshot(&self) -> Counts {
        self.counts().clone()
    }
}

/// Microseconds, as a histogram takes them.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(LATENCY_MICROS_MIN)
}

/// A number of things in memory, for counting.
pub(super) fn count(things: usize) -> u64 {
    u64::try_from(things).expect("memory is addressed with at most 64 bits")
}
