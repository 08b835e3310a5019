//! What measurements are held against: one thread, unavoidable costs, a law, a model.

use serde::{Deserialize, Serialize};

use super::{MedianRange, Point, Run};

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
    /// The medians of several measurements of the same workload; nothing if there are none.
    #[must_use]
    pub fn median(measured: &[&Self]) -> Option<Self> {
        let median = |of: &dyn Fn(&Self) -> Option<f64>| {
            let values = measured.iter().filter_map(|lines| of(lines));
            MedianRange::of(values).map(|spread| spread.median)
        };
        let cost = |cost: &Cost| {
            let of_stage = |lines: &Self| {
                let same = lines.costs.iter().find(|other| other.stage == cost.stage);
                same.map(|other| other.micros)
            };
            Some(Cost { stage: cost.stage.clone(), micros: median(&of_stage)? })
        };
        Some(Self {
            one_thread_tps: median(&|lines| Some(lines.one_thread_tps))?,
            one_thread_with_signatures_tps: median(&|lines| {
                Some(lines.one_thread_with_signatures_tps)
            })?,
            costs: measured.first()?.costs.iter().filter_map(cost).collect(),
        })
    }

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

impl Run {
    /// Throughput of each host of a point, relative to that at the fewest hosts with the same share
    /// of multi-partition transactions: 1 is ideal. By the medians of the repeats.
    #[must_use]
    pub fn efficiency(&self, point: &Point) -> Option<f64> {
        let of_share =
            self.points.iter().filter(|other| other.multi_partition == point.multi_partition);
        let base = of_share.min_by_key(|other| other.hosts)?;
        let each = |point: &Point| {
            let tps = point.spread(|repeat| Some(repeat.tps))?.median;
            (point.hosts > 0).then(|| tps / f64::from(point.hosts))
        };
        let base = each(base).filter(|base| *base > 0.0)?;
        Some(each(point)? / base)
    }
}

impl Point {
    /// Who was at its limit in more than half of the repeats; `None` if that is not known.
    #[must_use]
    pub fn used_up(&self) -> Option<Vec<&str>> {
        let known =
            self.repeats.iter().filter_map(|repeat| repeat.resources.limits.used_up.as_ref());
        let all: Vec<&Vec<String>> = known.collect();
        if all.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = all.iter().copied().flatten().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &str| all.iter().filter(|each| each.iter().any(|one| one == name)).count();
        names.retain(|name| 2 * of(name) > all.len());
        Some(names)
    }
}
