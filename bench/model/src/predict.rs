//! What the model says of numbers of hosts that were not measured.

use parsec_bench::record::{ModelPoint, Run};
use parsec_bench::workload::{WorkloadName, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::calibrate::{self, Assumed, Calibration, Unfit};
use crate::costs::Costs;
use crate::link::Link;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::world::{Admission, Machine, Options, Simulation};

/// Transactions of a modelled point, for each one in flight, and at least.
const TRANSACTIONS_PER_FLIGHT: usize = 6;
const TRANSACTIONS_MIN: usize = 16_000;
/// Most accounts for which it is chosen where they lie: finding them takes long.
const SPREAD_ACCOUNTS_MAX: u32 = 40_000;

/// What is assumed of clusters that nobody has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assumptions {
    /// Numbers of hosts.
    pub hosts: Vec<u16>,
    /// Numbers of tokens, if the workload has any.
    pub tokens: Vec<u32>,
    /// Accounts; a multiple of each number of tokens.
    pub accounts: u32,
    /// Shares of transactions that touch several partitions, 0 to 1; `None` is as accounts happen
    /// to lie.
    pub shares: Vec<Option<f64>>,
    /// Cores of each host; 0.08 for 8 % of one.
    pub host_cores: f64,
    /// Cores of the sequencer.
    pub sequencer_cores: f64,
    /// Partitions on each host.
    pub partitions_per_host: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: u16,
    /// The network.
    pub link: Link,
    /// How long the log's device takes to sync, microseconds.
    pub sync_us: f64,
    /// Transactions in flight for each host.
    pub in_flight_per_host: usize,
    /// Transactions in flight at most.
    pub in_flight_max: usize,
    /// Transactions in one submission, at most.
    pub batch: usize,
    /// Whether it is also modelled that gateways admit, one for each host. That is not built.
    pub gateways: bool,
}

/// One prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// What is assumed, for people: tokens, and who admits.
    pub variant: String,
    /// Tokens, if the workload has any.
    pub tokens: Option<u32>,
    /// Who admits.
    pub admission: Admission,
    /// Transactions in flight.
    pub in_flight: usize,
    /// Throughput per host relative to the first number of hosts of the same variant.
    pub efficiency: f64,
    /// What the model says.
    pub outcome: Outcome,
}

/// All that the model says. Not a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it is: `MODEL, not measured`.
    pub kind: String,
    /// The name of the measured run.
    pub from: String,
    /// What the workload is called.
    pub workload: String,
    /// What is assumed of the measured cluster that its run does not say.
    pub assumed: Assumed,
    /// What is assumed of clusters that nobody has.
    pub assumptions: Assumptions,
    /// Costs, and how well the model says what was measured.
    pub calibration: Calibration,
    /// Predictions.
    pub predictions: Vec<Prediction>,
    /// What was left out, and why; one sentence each.
    pub left_out: Vec<String>,
}

/// Predicts, after fitting costs to a run. The same input gives the same output.
///
/// # Errors
/// [`Unfit`].
pub fn predict(
    run: &Run,
    assumed: &Assumed,
    assumptions: &Assumptions,
    progress: &dyn Fn(&str),
) -> Result<Report, Unfit> {
    let calibration = calibrate::calibrate(run, assumed, progress)?;
    let spec = calibrate::workload(run)?;
    let mut report = Report {
        kind: "MODEL, not measured".to_owned(),
        from: run.name.clone(),
        workload: run.workload.name.clone(),
        assumed: *assumed,
        assumptions: assumptions.clone(),
        calibration,
        predictions: Vec::new(),
        left_out: Vec::new(),
    };
    let tokens: Vec<Option<u32>> = match spec.workload {
        WorkloadName::Erc20 => assumptions.tokens.iter().copied().map(Some).collect(),
        _ => vec![None],
    };
    for tokens in tokens {
        for share in &assumptions.shares {
            let spec = workload(&spec, assumptions, tokens);
            report.series(&Series { spec, tokens, share: *share }, progress)?;
        }
    }
    Ok(report)
}

/// The same workload on growing clusters.
struct Series {
    spec: WorkloadSpec,
    tokens: Option<u32>,
    share: Option<f64>,
}

fn workload(spec: &WorkloadSpec, assumptions: &Assumptions, tokens: Option<u32>) -> WorkloadSpec {
    // Only workloads with accounts have that many.
    let accounts = spec.workload.knobs().contains(&"accounts").then_some(assumptions.accounts);
    WorkloadSpec { accounts, tokens: tokens.filter(|tokens| *tokens > 1), ..spec.clone() }
}

impl Report {
    fn series(&mut self, series: &Series, progress: &dyn Fn(&str)) -> Result<(), Unfit> {
        let assumptions = self.assumptions.clone();
        let is_same = series.share.is_none();
        let most = assumptions.hosts.iter().map(|hosts| assumptions.in_flight(*hosts)).max();
        // As accounts happen to lie, the load is the same for all numbers of hosts.
        let count = transactions(most.unwrap_or(1));
        let shared = match is_same {
            true => {
                let spec = WorkloadSpec { spread: None, ..series.spec.clone() };
                Some(Load::build(&spec, count)?)
            }
            false => None,
        };
        for hosts in &assumptions.hosts {
            let own = match (&shared, assumptions.placed(series, *hosts)) {
                (Some(_), _) => None,
                (None, Ok(spec)) => {
                    Some(Load::build(&spec, transactions(assumptions.in_flight(*hosts)))?)
                }
                (None, Err(reason)) => {
                    self.left_out.push(reason);
                    continue;
                }
            };
            let Some(load) = shared.as_ref().or(own.as_ref()) else { continue };
            let mut admissions = vec![Admission::Sequencer];
            admissions.extend(assumptions.gateways.then_some(Admission::Gateways(*hosts)));
            for admission in admissions {
                let options = assumptions.options(*hosts, admission);
                progress(&format!("modelling {hosts} hosts, {}", variant(series, admission)));
                let count = transactions(options.in_flight);
                let load = load.first(count);
                let outcome = simulate(&load, &self.calibration.costs, options.clone())?;
                self.add(series, admission, options.in_flight, outcome);
            }
        }
        Ok(())
    }

    fn add(&mut self, series: &Series, admission: Admission, in_flight: usize, outcome: Outcome) {
        let variant = variant(series, admission);
        let each = |outcome: &Outcome| outcome.tps / f64::from(outcome.hosts.max(1));
        let first = self.predictions.iter().find(|earlier| earlier.variant == variant);
        let base = first.map_or_else(|| each(&outcome), |first| each(&first.outcome));
        let efficiency = each(&outcome) / base.max(1e-9);
        let tokens = series.tokens;
        let prediction = Prediction { variant, tokens, admission, in_flight, efficiency, outcome };
        self.predictions.push(prediction);
    }

    /// The points for the report of a run: first those that were measured, too.
    #[must_use]
    pub fn points(&self) -> Vec<ModelPoint> {
        let checks = self.calibration.checks.iter().map(|check| {
            let variant = match check.held_out {
                true => "as measured, fitted without this number of hosts",
                false => "as measured",
            };
            point(&check.model, variant, check.multi_partition, Some(check.measured_tps))
        });
        let predictions = self
            .predictions
            .iter()
            .map(|prediction| point(&prediction.outcome, &prediction.variant, None, None));
        checks.chain(predictions).collect()
    }

    /// What is assumed, one sentence each.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        let Assumptions { host_cores, sequencer_cores, link, sync_us, .. } = &self.assumptions;
        let bits = link
            .bits_per_second
            .map_or_else(|| "unlimited".to_owned(), |bits| format!("{} Gbit/s", bits / 1e9));
        let mut caveats = vec![
            format!(
                "MODEL: predictions are computed, not measured. Costs of stages are fitted to the \
                 run {}; each host is assumed to have {host_cores} cores, the sequencer \
                 {sequencer_cores}, links {bits} and {} ms one way, the log's device {} ms for a \
                 sync.",
                self.from,
                link.latency_us / 1e3,
                sync_us / 1e3
            ),
            "MODEL: not modelled are the transport's acknowledgements, losses, reads from disks \
             that are not cached, and footprints that were predicted wrongly."
                .to_owned(),
        ];
        if self.assumptions.gateways {
            caveats.push(
                "MODEL: admission at gateways is not built. It is there to show what would be the \
                 limit then."
                    .to_owned(),
            );
        }
        let others = self.calibration.notes.iter().chain(&self.left_out);
        caveats.extend(others.map(|note| format!("MODEL: {note}")));
        caveats
    }
}

fn transactions(in_flight: usize) -> usize {
    (TRANSACTIONS_PER_FLIGHT * in_flight).max(TRANSACTIONS_MIN)
}

fn simulate(load: &Load, costs: &Costs, options: Options) -> Result<Outcome, Unfit> {
    let hosts = options.hosts;
    let outcome = Simulation::new(load, costs, options).and_then(Simulation::run);
    outcome.map_err(|error| Unfit::Broken { hosts, error })
}

fn variant(series: &Series, admission: Admission) -> String {
    let mut parts = Vec::new();
    parts.extend(series.tokens.map(|tokens| match tokens {
        1 => "one token".to_owned(),
        many => format!("{many} tokens"),
    }));
    parts.push(match series.share {
        Some(share) => format!("{:.0} % multi-partition", share * 100.0),
        None => "accounts as they lie".to_owned(),
    });
    parts.push(match admission {
        Admission::Sequencer => "as built".to_owned(),
        Admission::Gateways(_) => "admission at gateways (not built)".to_owned(),
    });
    parts.join(", ")
}

fn point(
    outcome: &Outcome,
    variant: &str,
    share: Option<f64>,
    measured_tps: Option<f64>,
) -> ModelPoint {
    ModelPoint {
        hosts: outcome.hosts,
        multi_partition: share.unwrap_or(outcome.multi_partition),
        variant: variant.to_owned(),
        tps: outcome.tps,
        p50_ms: outcome.p50_ms,
        p99_ms: outcome.p99_ms,
        mbit_per_host: outcome.wire.host_sent_mbit,
        saturated: outcome.saturated(),
        measured_tps,
    }
}

impl Assumptions {
    /// Transactions in flight with so many hosts.
    #[must_use]
    pub fn in_flight(&self, hosts: u16) -> usize {
        (self.in_flight_per_host * usize::from(hosts)).clamp(64, self.in_flight_max.max(64))
    }

    fn options(&self, hosts: u16, admission: Admission) -> Options {
        let in_flight = self.in_flight(hosts);
        // A gateway has a connection of its own.
        let connections = match admission {
            Admission::Sequencer => 4,
            Admission::Gateways(count) => usize::from(count).max(4),
        };
        Options {
            hosts,
            partitions_per_host: self.partitions_per_host,
            workers_per_partition: self.workers_per_partition,
            machine: Machine::apart(self.host_cores, self.sequencer_cores),
            link: self.link,
            sync_us: self.sync_us,
            in_flight: in_flight.max(connections),
            batch: self.batch.min(in_flight / connections / 4).max(1),
            connections,
            admission,
        }
    }

    /// The workload with accounts that lie where the share wants them, or why there is none.
    fn placed(&self, series: &Series, hosts: u16) -> Result<WorkloadSpec, String> {
        let partitions = hosts.saturating_mul(self.partitions_per_host);
        let spec = calibrate::spread(&series.spec, partitions, series.share);
        let share = series.share.unwrap_or(0.0) * 100.0;
        let left = |why: &str| format!("{hosts} hosts, {share:.0} % multi-partition: {why}.");
        if spec.accounts.is_some_and(|accounts| accounts > SPREAD_ACCOUNTS_MAX.max(self.accounts)) {
            return Err(left("finding accounts that lie so would take too long"));
        }
        spec.open().map_err(|error| left(&error.to_string()))?;
        Ok(spec)
    }
}
