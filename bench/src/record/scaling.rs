//! What measurements are held against: one thread, unavoidable costs, a law, a model.

use serde::{Deserialize, Serialize};

/// What one thread does with the same transactions, and what each of them costs at least.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Lines {
    /// Transactions a second that one thread of plain execution does: no network, no log, no
    /// scheduling, no signatures.
    pub one_thread_tps: f64,
    /// The same when it also checks signatures and recovers signers.
    pub one_thread_with_signatures_tps: f64,
    /// What can't be avoided for each transaction.
    pub costs: Vec<Cost>,
}

/// One unavoidable cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// What it is for: `signature recovery`, `execution`, `encoding`, …
    pub stage: String,
    /// Microseconds of one core for each transaction.
    pub micros: f64,
}

impl Lines {
    /// The sum of the unavoidable costs, microseconds of one core for each transaction.
    #[must_use]
    pub fn limit_micros(&self) -> f64 {
        self.costs.iter().map(|cost| cost.micros).sum()
    }

    /// Transactions a second that so many cores could do if there were no other costs; `None` if
    /// no cost is known.
    #[must_use]
    pub fn limit_tps(&self, cores: f64) -> Option<f64> {
        let micros = self.limit_micros();
        (micros > 0.0).then(|| cores * 1e6 / micros)
    }
}

/// The Universal Scalability Law, X(N) = λN / (1 + σ(N−1) + κN(N−1)), fitted to measured points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usl {
    /// The share of multi-partition transactions of the points, if the workload decides it.
    pub multi_partition: Option<f64>,
    /// λ: transactions a second of one host.
    pub lambda: f64,
    /// σ, contention: what can't be done in parallel.
    pub sigma: f64,
    /// κ, crosstalk: what each host costs each other one.
    pub kappa: f64,
    /// How much of the variation the law explains: 1 is all.
    pub r_squared: f64,
    /// The law at the measured points.
    #[serde(default)]
    pub points: Vec<UslPoint>,
}

/// The law at one measured point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UslPoint {
    /// Executor hosts.
    pub hosts: u16,
    /// Transactions a second that were measured.
    pub measured_tps: f64,
    /// Transactions a second that the law says.
    pub fitted_tps: f64,
    /// Throughput per host relative to that at the fewest hosts: 1 is ideal.
    pub efficiency: f64,
}

impl Usl {
    /// Transactions a second that the law says of so many hosts.
    #[must_use]
    pub fn at(&self, hosts: f64) -> f64 {
        let others = hosts - 1.0;
        self.lambda * hosts / (1.0 + self.sigma * others + self.kappa * hosts * others)
    }
}

/// What the model predicts for a number of hosts. Not a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelPoint {
    /// Executor hosts.
    pub hosts: u16,
    /// The share of multi-partition transactions, 0 to 1.
    pub multi_partition: f64,
    /// What is assumed besides, such as `one token` or `many tokens`.
    #[serde(default)]
    pub variant: String,
    /// Transactions a second.
    pub tps: f64,
    /// Half of them take at most this long.
    pub p50_ms: f64,
    /// 99 % of them do.
    pub p99_ms: f64,
    /// What the busiest host sends, megabits a second.
    pub mbit_per_host: f64,
    /// What is used up first.
    pub saturated: String,
    /// What was measured with as many hosts, if it was: transactions a second.
    #[serde(default)]
    pub measured_tps: Option<f64>,
}
