//! `run.json`: everything that is known of a run, so that it can be read, compared and repeated.
//!
//! The format is versioned by [`SCHEMA`] and documented field by field in `docs/bench.md`. Fields
//! are only ever added; what a run does not know is `null` or an empty list, never zero.

mod derived;
mod histogram;
mod resources;
mod scaling;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use derived::MedianRange;
pub use histogram::{BadHistogram, HistogramText, Latency};
pub use resources::{CpuUse, Limits, LogUse, MemorySample, MemoryUse, NetworkUse, Resources, Role};
pub use scaling::{Cost, Lines, ModelPoint, Usl, UslPoint};

/// The version of the format that this program writes. It reads this one only.
pub const SCHEMA: u32 = 1;

/// A run: what was run on what, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What the run is called.
    pub name: String,
    /// What kind of run it is.
    pub kind: RunKind,
    /// When it began: milliseconds since 1970.
    pub started_ms: u64,
    /// How long all of it took, set-up and verification included, seconds.
    pub took_seconds: f64,
    /// The command line that does it again.
    pub command: Vec<String>,
    /// The machine on which the load generator ran.
    pub machine: Machine,
    /// What was measured.
    pub versions: Versions,
    /// What was sent.
    pub workload: WorkloadRecord,
    /// How it was sent.
    pub load: LoadSettings,
    /// What it was sent to.
    pub cluster: ClusterRecord,
    /// What came of it: one in a plain run; in a scaling run one for each number of hosts and
    /// share of multi-partition transactions.
    pub points: Vec<Point>,
    /// The search for the highest rate, if that was asked for.
    pub search: Option<Search>,
    /// What one thread does with the same transactions, and what must be done for each of them.
    pub lines: Option<Lines>,
    /// The Universal Scalability Law fitted to the points, one for each share of multi-partition
    /// transactions.
    #[serde(default)]
    pub usl: Vec<Usl>,
    /// What the model predicts. These are not measurements.
    #[serde(default)]
    pub model: Vec<ModelPoint>,
    /// What this run can't be compared with, or does not show, one sentence each.
    #[serde(default)]
    pub caveats: Vec<String>,
}

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// One cluster, one load.
    Plain,
    /// The highest rate that keeps to an objective.
    Find,
    /// The same load on clusters of different sizes.
    Scale,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// Main memory, bytes.
    pub memory_bytes: u64,
    /// The operating system's kernel and its version.
    pub kernel: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Versions {
    /// The version of `parsec`.
    pub parsec: String,
    /// The commit that was checked out where the run was made, if that is known.
    pub commit: Option<String>,
    /// Whether files differed from that commit.
    pub modified: Option<bool>,
    /// How it was compiled: `release` or `dev`. Only `release` is worth comparing.
    pub profile: String,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// What it is called in reports, with what matters of its options.
    pub name: String,
    /// The whole specification, the seed among it: what `workload::WorkloadSpec` reads.
    pub spec: serde_json::Value,
}

/// How transactions were sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSettings {
    /// When they were sent.
    pub pace: Pace,
    /// Most transactions in flight, over all connections together.
    pub in_flight: usize,
    /// Most transactions in one submission.
    pub batch: usize,
    /// Connections over which they were sent.
    pub connections: usize,
    /// How long a load ran before measuring began, seconds.
    pub warm_up_seconds: f64,
    /// How long was measured in each repeat, seconds.
    pub seconds: f64,
    /// How often it was measured.
    pub repeats: u32,
}

/// When transactions are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Pace {
    /// As soon as one before it is answered. A cluster that is slow is asked less.
    Closed,
    /// At a rate, whatever the cluster does. Latency counts from when each was to be sent.
    Open {
        /// Transactions a second.
        rate: f64,
        /// How they follow one another.
        pacing: Pacing,
        /// The seed of what is random about it.
        seed: u64,
    },
}

/// How transactions of an open loop follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// As those of many clients who know nothing of each other: exponential distances.
    Poisson,
    /// At equal distances.
    Fixed,
}

/// What a load was sent to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// How its parts ran.
    pub how: Deployment,
    /// Executor hosts; in a scaling run those of the largest point.
    pub hosts: u16,
    /// Partitions on each host.
    pub partitions_per_host: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: u16,
    /// Whether the sequencer ran in the process of the first host, or, in an embedded cluster, all
    /// nodes handed each other messages without a network.
    #[serde(default)]
    pub together: bool,
    /// How much of one core each host may use, 0.08 for 8 %; `null` if there was no limit.
    pub quota: Option<f64>,
    /// How much of one core the sequencer may use.
    pub sequencer_quota: Option<f64>,
    /// What every message between machines was delayed by, one way, milliseconds.
    pub delay_ms: Option<f64>,
    /// Which share of the packets was lost, 0.001 for 0.1 %.
    pub loss: Option<f64>,
    /// What else is to be known, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How the parts of a cluster ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deployment {
    /// All in one process, the load generator too.
    Embedded,
    /// Each a process on this machine.
    #[default]
    Processes,
    /// Each a process in a network namespace of its own.
    Namespaces,
    /// On machines of their own.
    Remote,
    /// A cluster that was there: who knows.
    Existing,
}

/// What was measured with one number of hosts and one share of multi-partition transactions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Executor hosts.
    pub hosts: u16,
    /// The share of transactions that touch several partitions, if the workload decides it: 0 to 1.
    pub multi_partition: Option<f64>,
    /// Each time that it was measured, in order.
    pub repeats: Vec<Repeat>,
    /// Whether it is known to be right.
    pub verification: Verification,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    /// How long was measured, seconds.
    pub seconds: f64,
    /// Transactions that committed while it was measured, a second.
    pub tps: f64,
    /// What became of the transactions.
    pub counts: Counts,
    /// How often each error code was given, by its name.
    #[serde(default)]
    pub failures: std::collections::BTreeMap<String, u64>,
    /// What was said of the first transaction that did not commit.
    pub first_failure: Option<String>,
    /// From the (intended) start of a transaction to its receipt.
    pub latency: Latency,
    /// Second by second, from the start of the warm-up to the last answer.
    pub samples: Vec<Sample>,
    /// Whether the rate stayed level.
    pub steady: Steady,
    /// Whether the load generator was the limit.
    pub generator: Generator,
    /// What was used meanwhile.
    #[serde(default)]
    pub resources: Resources,
    /// What one thread did with the same workload right after it, if that was measured.
    #[serde(default)]
    pub lines: Option<Lines>,
}

/// What became of the transactions whose (intended) start fell into the measured time.
///
/// `offered = sent + unsent`, and `sent = committed + reverted + invalid + rejected + lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Those that were to be sent.
    pub offered: u64,
    /// Those that were sent.
    pub sent: u64,
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
    pub lost: u64,
    /// Those that were not sent when everything ended.
    pub unsent: u64,
    /// Of those with a receipt: how many had strayed outside their footprint before.
    pub strayed: u64,
    /// How often one was sent again because the cluster was too busy for it.
    pub retried: u64,
    /// Of an open loop: those that were sent more than 10 ms after their intended start, or not at
    /// all. Their latency includes the wait.
    pub late: u64,
    /// Transactions that committed while it was measured, whenever they had started: what the
    /// rate is made of.
    pub completed: u64,
}

impl Counts {
    /// Adds the counts of another measurement.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.committed += other.committed;
        self.reverted += other.reverted;
        self.invalid += other.invalid;
        self.rejected += other.rejected;
        self.lost += other.lost;
        self.unsent += other.unsent;
        self.strayed += other.strayed;
        self.retried += other.retried;
        self.late += other.late;
        self.completed += other.completed;
    }
}

/// One second of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended: seconds after measuring began; negative ones are of the warm-up.
    pub end: f64,
    /// How long it was, seconds.
    pub seconds: f64,
    /// What was going on when it ended.
    pub phase: Phase,
    /// Transactions that were to be sent.
    pub offered: u64,
    /// Transactions that were sent for the first time.
    pub sent: u64,
    /// Transactions that the cluster took.
    pub accepted: u64,
    /// Transactions that committed.
    pub committed: u64,
    /// Transactions with another last word.
    pub failed: u64,
    /// Transactions in flight at its end.
    pub in_flight: u64,
    /// Latency of what was answered, milliseconds; `null` if nothing was.
    pub p50_ms: Option<f64>,
    /// The same, of the slowest in a hundred.
    pub p99_ms: Option<f64>,
    /// The same, of the slowest.
    pub max_ms: Option<f64>,
}

/// What is going on in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It runs but does not count yet.
    WarmUp,
    /// It counts.
    Measuring,
    /// Nothing new is sent; what is in flight is waited for.
    Draining,
}

/// Whether a rate stayed level while it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Steady {
    /// Whether the halves differ by no more than the tolerance, and the trend is no more than twice
    /// that; `null` if it was measured for too few seconds to tell.
    pub steady: Option<bool>,
    /// Committed a second in the first half.
    pub first_half_tps: f64,
    /// Committed a second in the second half.
    pub second_half_tps: f64,
    /// What a straight line through the seconds rises by from start to end, relative to the mean.
    pub trend: f64,
    /// Standard deviation of the seconds, relative to the mean.
    pub variation: f64,
    /// What is tolerated, relative to the mean.
    pub tolerance: f64,
}

/// Whether the load generator was the limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Whether it was. The cluster could have done more then, or sooner.
    pub limited: bool,
    /// Why it is said to be, or what is to be known if it is not; one sentence each.
    pub reasons: Vec<String>,
    /// How late its own timers were, of a hundred the worst, milliseconds.
    pub timer_p99_ms: f64,
    /// How late what was to be sent by an open loop was sent, although there was room for it, of a
    /// hundred the worst, milliseconds.
    pub pacing_p99_ms: Option<f64>,
    /// Cores that its process used, if it had a process of its own.
    pub cores_used: Option<f64>,
}

/// Whether a measurement is known to be right.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verification {
    /// Whether everything that could be checked is right, and enough was checked.
    pub verified: bool,
    /// What was checked, in the order in which it was.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub kind: CheckKind,
    /// What came of it.
    pub result: CheckResult,
    /// What was compared with what, and what was found, for people.
    pub detail: String,
    /// How many transactions it covers, if that is known.
    pub transactions: Option<u64>,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// The invariants of the workload, in the state.
    Audit,
    /// Digests of the partitions, against those of one thread that executed the same order.
    Oracle,
    /// Digests of the partitions, against each other.
    Digests,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// It is right.
    Passed,
    /// It is wrong.
    Failed,
    /// It could not be checked, or nobody asked for it.
    Skipped,
}

/// The search for the highest rate that keeps to an objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// The objective.
    pub objective: String,
    /// What was tried, in order.
    pub probes: Vec<Probe>,
    /// The highest rate that kept to it, if any did.
    pub found: Option<f64>,
}

/// One rate that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Transactions that were to be sent, a second.
    pub rate: f64,
    /// Transactions that committed, a second.
    pub tps: f64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 99 % of them did.
    pub p99_ms: f64,
    /// Whether it kept to the objective.
    pub kept: bool,
    /// Why it did not, or what else is to be said.
    pub reason: String,
}

/// Why a run can't be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum BadRun {
    #[error("can't read {path}: {reason}")]
    Unread { path: String, reason: String },
    #[error("{path} is no run: {reason}")]
    NotARun { path: String, reason: String },
    #[error("{path} has schema {found}; this program reads schema {SCHEMA}")]
    Schema { path: String, found: u64 },
}

impl Run {
    /// Reads a run from its file, or from the `run.json` in its directory.
    ///
    /// # Errors
    /// [`BadRun`].
    pub fn read(path: &Path) -> Result<Self, BadRun> {
        let file = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
        let name = file.display().to_string();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| BadRun::Unread { path: name.clone(), reason: error.to_string() })?;
        let bad = |error: serde_json::Error| BadRun::NotARun {
            path: name.clone(),
            reason: error.to_string(),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(bad)?;
        let found = value.get("schema").and_then(serde_json::Value::as_u64);
        match found {
            None => Err(BadRun::NotARun { path: name, reason: "it has no schema".into() }),
            Some(found) if found != u64::from(SCHEMA) => Err(BadRun::Schema { path: name, found }),
            Some(_) => serde_json::from_value(value).map_err(bad),
        }
    }

    /// Whether all points are verified, and there are any.
    #[must_use]
    pub fn verified(&self) -> bool {
        !self.points.is_empty() && self.points.iter().all(|point| point.verification.verified)
    }
}

impl Point {
    /// What all repeats have of something: median and range.
    #[must_use]
    pub fn spread(&self, of: impl Fn(&Repeat) -> Option<f64>) -> Option<MedianRange> {
        MedianRange::of(self.repeats.iter().filter_map(of))
    }
}

#[cfg(test)]
pub(crate) mod tests;
