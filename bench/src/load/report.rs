//! What is said of a load when it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::ErrorCode;
use serde::Serialize;
use tokio::time::Instant;

use super::tally::{Counts, Tally};

/// How a load went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// What was run.
    pub name: String,
    /// Transactions that were to be sent.
    pub total: u64,
    /// Those that the cluster took: it had checked them and would order them.
    pub accepted: u64,
    /// Those that took effect.
    pub committed: u64,
    /// Those that ran and gave up.
    pub reverted: u64,
    /// Those that could not run.
    pub invalid: u64,
    /// Those that were refused, and not taken later.
    pub rejected: u64,
    /// Those of which nothing is known: no answer came.
    pub unknown: u64,
    /// Those that were not sent, since time was up or the load was cancelled.
    pub unsent: u64,
    /// Of those with a receipt: how many had strayed outside their footprint before.
    pub strayed: u64,
    /// How often one was sent again because the cluster was too busy for it.
    pub retried: u64,
    /// How often each code was given, by its name.
    pub failures: BTreeMap<String, u64>,
    /// What was said of the first one that did not commit.
    pub first_failure: Option<String>,
    /// Whether the load was ended early.
    pub cancelled: bool,
    /// From the start to the last answer.
    pub seconds: f64,
    /// Committed transactions a second.
    pub tps: f64,
    /// Mean latency of transactions with a receipt, milliseconds.
    pub mean_ms: f64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 90 % of them did.
    pub p90_ms: f64,
    /// 99 % of them did.
    pub p99_ms: f64,
    /// 99.9 % of them did.
    pub p999_ms: f64,
    /// All of them did.
    pub max_ms: f64,
}

impl LoadReport {
    pub(super) fn new(
        name: String,
        total: u64,
        cancelled: bool,
        tallies: &[Arc<Tally>],
        started: Instant,
    ) -> Self {
        let mut counts = Counts::new();
        tallies.iter().for_each(|tally| counts.merge(&tally.snapshot()));
        let elapsed = counts.last_answer.map_or(Duration::ZERO, |last| last - started);
        let named = |(code, count): (&ErrorCode, &u64)| (format!("{code:?}"), *count);
        let at = |quantile| milliseconds(counts.latencies.value_at_quantile(quantile));
        Self {
            name,
            total,
            committed: counts.committed,
            reverted: counts.reverted,
            invalid: counts.invalid,
            rejected: counts.rejected,
            unknown: counts.unknown,
            accepted: counts.accepted,
            unsent: total.saturating_sub(counts.done()),
            strayed: counts.strayed,
            retried: counts.retried,
            failures: counts.failures.iter().map(named).collect(),
            first_failure: counts.first_failure,
            cancelled,
            seconds: elapsed.as_secs_f64(),
            tps: rate(counts.committed, elapsed),
            mean_ms: counts.latencies.mean() / 1_000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(counts.latencies.max()),
        }
    }

    /// How many transactions had this code.
    pub(super) fn failed_with(&self, code: Option<ErrorCode>) -> u64 {
        let name = code.map(|code| format!("{code:?}"));
        name.and_then(|name| self.failures.get(&name)).copied().unwrap_or(0)
    }
}

/// Things a second; none in no time.
pub(super) fn rate(things: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { things as f64 / time.as_secs_f64() }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}
