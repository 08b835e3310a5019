//! Costs from a measured run, and how well the model then says what was measured.
//!
//! A run says how much processor time each stage took at each point. How many transactions, parts
//! of transactions, frames and epochs that was for is known from the model of the same point. The
//! factors are fitted to all points together ([`fit`](crate::fit)); since how many frames there are
//! depends on the costs, modelling and fitting are done in turns.

use std::collections::BTreeMap;

use parsec_bench::record::{
    ClusterRecord, Deployment, MedianRange, Point, Repeat, Role, Run, RunKind,
};
use parsec_bench::workload::{Spread, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::costs::{Cost, Costs, Stage};
use crate::fit::{Row, non_negative, sharing_last};
use crate::link::Link;
use crate::load::{Load, Unloadable};
use crate::outcome::Outcome;
use crate::world::{Admission, Broken, Capacity, Machine, Options, Simulation};

/// How often modelling and fitting are done in turns.
const ROUNDS: usize = 3;
/// Transactions of a modelled point, for each one in flight, and at least.
const TRANSACTIONS_PER_FLIGHT: usize = 10;
const TRANSACTIONS_MIN: usize = 8_000;
/// Partitions that multi-partition transactions touch, where a run does not say.
const PARTICIPANTS: u16 = 2;
/// What hosts on one machine are apart, one way, microseconds: loopback, or a pair of virtual
/// Ethernets.
const SAME_MACHINE_US: f64 = 50.0;
/// The least of a machine that is left to those that have no quota, cores.
const REST_MIN: f64 = 0.1;

/// Why a run can't be modelled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum Unfit {
    #[error("the run has no point of which processor time by stage is known: {0}")]
    NoCosts(String),
    #[error("the run's workload is not known to this program: {0}")]
    Workload(String),
    #[error(transparent)]
    Unloadable(#[from] Unloadable),
    #[error("{hosts} hosts: {error}")]
    Broken { hosts: u16, error: Broken },
}

/// What is assumed of the measured cluster that its run does not say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Assumed {
    /// How long the log's device takes to sync, microseconds.
    pub sync_us: f64,
    /// The links between machines, if it ran on several.
    pub link: Link,
}

/// One measured point.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Executor hosts.
    pub hosts: u16,
    /// The share of transactions that touch several partitions, if that was chosen.
    pub multi_partition: Option<f64>,
    /// Transactions a second, the median of the repeats.
    pub tps: f64,
    /// Median latency, the median of the repeats, milliseconds.
    pub p50_ms: f64,
    /// The same of the slowest in a hundred.
    pub p99_ms: f64,
    /// Processor time of each stage, microseconds for each transaction.
    pub micros: BTreeMap<Stage, f64>,
    /// What the sequencer sent, megabits a second, if it had a network of its own.
    pub sequencer_mbit: Option<f64>,
}

/// The model beside one measured point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Executor hosts.
    pub hosts: u16,
    /// The share of transactions that touch several partitions, if that was chosen.
    pub multi_partition: Option<f64>,
    /// Whether the costs were fitted without any point of so many hosts: a prediction indeed.
    pub held_out: bool,
    /// Transactions a second, as measured.
    pub measured_tps: f64,
    /// What the model says.
    pub model: Outcome,
    /// By how much the model says more than was measured; 0.1 is 10 %.
    pub error: f64,
    /// Median latency, as measured, milliseconds.
    pub measured_p50_ms: f64,
    /// The slowest in a hundred, as measured, milliseconds.
    pub measured_p99_ms: f64,
    /// What the sequencer sent, as measured, megabits a second, if it had a network of its own.
    pub measured_sequencer_mbit: Option<f64>,
    /// Processor time of all stages for each transaction, as measured, microseconds.
    pub measured_micros: f64,
    /// The same by the fitted costs.
    pub model_micros: f64,
}

/// Costs, and how well they fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What each stage costs.
    pub costs: Costs,
    /// The model beside each measured point.
    pub checks: Vec<Check>,
    /// What is to be known of them, one sentence each.
    pub notes: Vec<String>,
}

/// A measured point, with what is needed to model it.
struct Twin {
    measured: Measured,
    options: Options,
    load: Load,
}

/// The points of a run that can be modelled.
///
/// # Errors
/// [`Unfit::NoCosts`] if there are none.
pub fn measured(run: &Run) -> Result<Vec<Measured>, Unfit> {
    let points: Vec<_> = run.points.iter().filter_map(measured_point).collect();
    match points.is_empty() {
        true => Err(Unfit::NoCosts(
            "it has to be of a cluster whose nodes the benchmark started, each as a process of its own"
                .to_owned(),
        )),
        false => Ok(points),
    }
}

fn measured_point(point: &Point) -> Option<Measured> {
    let completed: u64 = point.repeats.iter().map(|repeat| repeat.counts.completed).sum();
    let mut micros: BTreeMap<Stage, f64> = BTreeMap::new();
    for used in point.repeats.iter().flat_map(|repeat| &repeat.resources.cpu) {
        let stage = match used.role {
            Role::Sequencer => Stage::of_thread(true, &used.stage),
            Role::Executor => Stage::of_thread(false, &used.stage),
            Role::Client => Stage::Generator,
            // It can't be told which part of it was whose.
            Role::Both | Role::Everything => return None,
        };
        *micros.entry(stage).or_default() += used.seconds * 1e6 / completed.max(1) as f64;
    }
    let is_whole = micros.contains_key(&Stage::Execution) && micros.contains_key(&Stage::Admission);
    let median = |of: fn(&Repeat) -> f64| {
        point.spread(|repeat| Some(of(repeat))).map(|spread| spread.median)
    };
    (is_whole && completed > 0).then_some(())?;
    Some(Measured {
        hosts: point.hosts,
        multi_partition: point.multi_partition,
        tps: median(|repeat| repeat.tps)?,
        p50_ms: median(|repeat| repeat.latency.p50_ms)?,
        p99_ms: median(|repeat| repeat.latency.p99_ms)?,
        micros,
        sequencer_mbit: point.spread(sequencer_mbit).map(|spread| spread.median),
    })
}

/// What the sequencer sent, megabits a second, if that is known.
fn sequencer_mbit(repeat: &Repeat) -> Option<f64> {
    let used = repeat.resources.network.iter().find(|used| used.host == "sequencer")?;
    Some(used.sent_bytes as f64 * 8.0 / 1e6 / repeat.seconds.max(1e-9))
}

/// The workload of a run.
///
/// # Errors
/// [`Unfit::Workload`].
pub fn workload(run: &Run) -> Result<WorkloadSpec, Unfit> {
    serde_json::from_value(run.workload.spec.clone())
        .map_err(|error| Unfit::Workload(error.to_string()))
}

/// Fits costs to a run, and checks the model against it. `progress` is told what is being done.
///
/// # Errors
/// [`Unfit`].
pub fn calibrate(
    run: &Run,
    assumed: &Assumed,
    progress: &dyn Fn(&str),
) -> Result<Calibration, Unfit> {
    let spec = workload(run)?;
    let twins = measured(run)?.into_iter().map(|measured| twin(run, &spec, assumed, measured));
    let twins = twins.collect::<Result<Vec<_>, _>>()?;
    let mut costs = by_transaction(&twins);
    let mut rows = BTreeMap::new();
    for round in 1..=ROUNDS {
        progress(&format!("fitting costs to {} points, round {round}", twins.len()));
        let outcomes = simulate(&twins, &costs)?;
        rows = rows_of(&twins, &outcomes);
        costs = fitted(&rows, |_| true);
    }
    progress("checking the model against the run");
    let outcomes = simulate(&twins, &costs)?;
    let mut checks: Vec<Check> = twins
        .iter()
        .zip(outcomes)
        .map(|(twin, outcome)| check(&twin.measured, outcome, &costs, false))
        .collect();
    checks.extend(held_out(&twins, &rows)?);
    Ok(Calibration { notes: notes(run, &twins, &costs), costs, checks })
}

/// What the model says of the largest number of hosts if costs are fitted to smaller ones alone.
fn held_out(twins: &[Twin], rows: &Rows) -> Result<Vec<Check>, Unfit> {
    let mut hosts: Vec<u16> = twins.iter().map(|twin| twin.measured.hosts).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let [_, _, .., largest] = hosts[..] else { return Ok(Vec::new()) };
    let costs = fitted(rows, |hosts| hosts < largest);
    let of_largest = twins.iter().filter(|twin| twin.measured.hosts == largest);
    let checked = of_largest.map(|twin| {
        let outcome = twin.simulate(&costs)?;
        Ok(check(&twin.measured, outcome, &costs, true))
    });
    checked.collect()
}

/// How many of each unit there were for each transaction, and what it took, by stage; with the
/// number of hosts.
type Rows = BTreeMap<Stage, Vec<(u16, Row)>>;

fn rows_of(twins: &[Twin], outcomes: &[Outcome]) -> Rows {
    let mut rows = Rows::new();
    for (twin, outcome) in twins.iter().zip(outcomes) {
        for (stage, micros) in &twin.measured.micros {
            let work = outcome.work.get(stage).copied().unwrap_or_default();
            let each = outcome.transactions.max(1) as f64;
            let [transactions, parts, events] = work.units().map(|count| count / each);
            let counts = |unit: Option<&str>, count: f64| if unit.is_some() { count } else { 0.0 };
            let (parts, events) = (counts(stage.part(), parts), counts(stage.event(), events));
            let units = [transactions, parts, events];
            let row = Row { units, cost: *micros };
            rows.entry(*stage).or_default().push((twin.measured.hosts, row));
        }
    }
    rows
}

/// Costs that explain the rows of the numbers of hosts that count. A frame costs the sequencer what it
/// costs a host: the transport is the same.
fn fitted(rows: &Rows, counts: impl Fn(u16) -> bool) -> Costs {
    let cost = |[transaction, part, event]: [f64; 3]| Cost { transaction, part, event };
    let of_stage = |stage: &Stage| {
        let rows = rows.get(stage).into_iter().flatten();
        rows.filter(|(hosts, _)| counts(*hosts)).map(|(_, row)| *row).collect::<Vec<_>>()
    };
    let fit = |stage: &Stage| (*stage, cost(non_negative(&of_stage(stage))));
    let mut costs: BTreeMap<Stage, Cost> = rows.keys().map(fit).collect();
    let (ordering, messages) =
        sharing_last(&of_stage(&Stage::Ordering), &of_stage(&Stage::Messages));
    costs.insert(Stage::Ordering, cost(ordering));
    costs.insert(Stage::Messages, cost(messages));
    Costs(costs)
}

/// Costs to begin with: everything belongs to transactions.
fn by_transaction(twins: &[Twin]) -> Costs {
    let mut sums: BTreeMap<Stage, (f64, f64)> = BTreeMap::new();
    for (stage, micros) in twins.iter().flat_map(|twin| &twin.measured.micros) {
        let sum = sums.entry(*stage).or_default();
        *sum = (sum.0 + micros, sum.1 + 1.0);
    }
    let mean = |(stage, (sum, count))| (stage, Cost::of_transaction(sum / count));
    Costs(sums.into_iter().map(mean).collect())
}

fn simulate(twins: &[Twin], costs: &Costs) -> Result<Vec<Outcome>, Unfit> {
    twins.iter().map(|twin| twin.simulate(costs)).collect()
}

impl Twin {
    fn simulate(&self, costs: &Costs) -> Result<Outcome, Unfit> {
        let simulation = Simulation::new(&self.load, costs, self.options.clone());
        let outcome = simulation.and_then(Simulation::run);
        outcome.map_err(|error| Unfit::Broken { hosts: self.measured.hosts, error })
    }
}

/// A measured point with the options of the cluster that was measured.
fn twin(
    run: &Run,
    spec: &WorkloadSpec,
    assumed: &Assumed,
    measured: Measured,
) -> Result<Twin, Unfit> {
    let options = options(run, assumed, measured.hosts);
    let spec = spread(spec, options.partitions(), measured.multi_partition);
    let count = (TRANSACTIONS_PER_FLIGHT * options.in_flight).max(TRANSACTIONS_MIN);
    let load = Load::build(&spec, count)?;
    Ok(Twin { measured, options, load })
}

/// The workload over so many partitions: with enough accounts, if it is chosen where they lie.
#[must_use]
pub fn spread(spec: &WorkloadSpec, partitions: u16, share: Option<f64>) -> WorkloadSpec {
    use parsec_bench::draw::BadWorkload;
    let participants = spec.spread.map_or(PARTICIPANTS, |spread| spread.participants);
    let percent = share.map(|share| (share * 100.0).round().clamp(0.0, 100.0));
    // With one partition there is nothing to choose.
    let spread = percent.filter(|_| partitions > 1).map(|percent| {
        let percent = (0..=100).find(|whole| f64::from(*whole) >= percent).unwrap_or(100);
        Spread { partitions, percent, participants: participants.min(partitions) }
    });
    let mut spec = WorkloadSpec { spread, ..spec.clone() };
    if let Err(BadWorkload::Classes { accounts, classes, least, .. }) = spec.open() {
        spec.accounts = Some(accounts.max(least).next_multiple_of(classes));
    }
    spec
}

/// What the cluster of a run was like with so many hosts.
fn options(run: &Run, assumed: &Assumed, hosts: u16) -> Options {
    let ClusterRecord { partitions_per_host, workers_per_partition, .. } = run.cluster;
    let most = run.points.iter().map(|point| point.hosts).max().unwrap_or(hosts).max(1);
    let load = &run.load;
    // A scaling run has so many in flight for each host, and says how many that were at most.
    let (in_flight, batch) = match run.kind {
        RunKind::Scale => {
            let in_flight = load.in_flight * usize::from(hosts) / usize::from(most);
            (in_flight, load.batch.min(in_flight / load.connections.max(1) / 4))
        }
        _ => (load.in_flight, load.batch),
    };
    Options {
        hosts,
        partitions_per_host: partitions_per_host.max(1),
        workers_per_partition: workers_per_partition.max(1),
        machine: machine(run, hosts),
        link: link(&run.cluster, assumed),
        sync_us: assumed.sync_us,
        in_flight: in_flight.max(load.connections),
        batch: batch.max(1),
        connections: load.connections.max(1),
        admission: Admission::Sequencer,
    }
}

/// Who had how much of the processors. What ran on one machine without a quota shared what the
/// quotas left.
fn machine(run: &Run, hosts: u16) -> Machine {
    let cluster = &run.cluster;
    let cores = f64::from(run.machine.cores.max(1));
    if matches!(cluster.how, Deployment::Remote) {
        return Machine::apart(cores, cores);
    }
    let own = |quota: Option<f64>| quota.map_or(Capacity::Shared, Capacity::Own);
    let given =
        cluster.quota.unwrap_or(0.0) * f64::from(hosts) + cluster.sequencer_quota.unwrap_or(0.0);
    Machine {
        host: own(cluster.quota),
        sequencer: own(cluster.sequencer_quota),
        client: Capacity::Shared,
        shared_cores: (cores - given - others(run, hosts)).max(REST_MIN),
    }
}

/// How many cores other processes used while so many hosts were measured, as far as that is known.
fn others(run: &Run, hosts: u16) -> f64 {
    let points = run.points.iter().filter(|point| point.hosts == hosts);
    let used = points
        .flat_map(|point| &point.repeats)
        .filter_map(|repeat| repeat.resources.limits.others_cores);
    MedianRange::of(used).map_or(0.0, |others| others.median)
}

fn link(cluster: &ClusterRecord, assumed: &Assumed) -> Link {
    let delay_us = cluster.delay_ms.unwrap_or(0.0) * 1e3;
    match cluster.how {
        Deployment::Remote | Deployment::Existing => assumed.link,
        _ => Link { bits_per_second: None, latency_us: SAME_MACHINE_US + delay_us, ..assumed.link },
    }
}

fn check(measured: &Measured, model: Outcome, costs: &Costs, held_out: bool) -> Check {
    let micros = model.work.iter().map(|(stage, work)| costs.of(*stage).micros(*work));
    let each = model.transactions.max(1) as f64;
    Check {
        hosts: measured.hosts,
        multi_partition: measured.multi_partition,
        held_out,
        measured_tps: measured.tps,
        error: model.tps / measured.tps.max(1e-9) - 1.0,
        measured_p50_ms: measured.p50_ms,
        measured_p99_ms: measured.p99_ms,
        measured_sequencer_mbit: measured.sequencer_mbit,
        measured_micros: measured.micros.values().sum(),
        model_micros: micros.sum::<f64>() / each,
        model,
    }
}

/// What is to be known of the costs.
fn notes(run: &Run, twins: &[Twin], costs: &Costs) -> Vec<String> {
    let mut notes = Vec::new();
    if twins.len() < run.points.len() {
        let left = run.points.len() - twins.len();
        notes.push(format!(
            "{left} of the {} measured points say nothing of processor time by stage, and are left \
             out.",
            run.points.len()
        ));
    }
    let alone = |stage: &Stage| {
        let cost = costs.of(*stage);
        let has_others = stage.part().is_some() || stage.event().is_some();
        has_others && cost.part == 0.0 && cost.event == 0.0
    };
    let inseparable: Vec<_> =
        Stage::ALL.iter().filter(|stage| alone(stage)).map(|stage| stage.name()).collect();
    if !inseparable.is_empty() {
        notes.push(format!(
            "In the measured points, what frames, epochs and other partitions cost can't be told \
             from what transactions cost in these stages, so that all of it counts for \
             transactions and the model may be too good for many hosts: {}.",
            inseparable.join("; ")
        ));
    }
    if twins.len() == 1 {
        notes.push(
            "All costs are from one measured point: the check against it is no proof. Measure \
             several numbers of hosts."
                .to_owned(),
        );
    }
    if run.versions.profile != "release" {
        notes.push(format!(
            "The run was measured with the profile {}: its costs are good for trying the model \
             out only.",
            run.versions.profile
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
