//! The arguments of `parsec bench`.

use std::net::SocketAddr;
use std::path::PathBuf;

use alloy_primitives::{Address, U256};
use clap::{Args, Subcommand};
use parsec_bench::draw::{BadWorkload, Skew};
use parsec_bench::load::Objectives;
use parsec_bench::record::Pacing;
use parsec_bench::workload::{FootprintFrom, Spread, WorkloadName, WorkloadSpec};

use super::ModelArgs;
use super::scale::{ClusterFilesArgs, ScaleArgs};

/// Options of `parsec bench`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What else than a run.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// A run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else there is beside a run.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Compare two runs: what differs by more than the noise
    ///
    /// Both runs' medians and ranges over their repeats, the difference, and whether it is beyond
    /// what the repeats of each run differ by among themselves. Runs whose settings differ are
    /// compared only with --force, since the settings may be what makes the difference.
    Compare(CompareArgs),
    /// Write the report of a run again: report.html and samples.csv from its run.json
    Report {
        /// The run's directory, or its run.json.
        run: PathBuf,
    },
    /// Predict what many hosts would do, by a model fitted to a measured run: not a measurement
    ///
    /// Runs the production state machines for each number of hosts in virtual time, with costs of
    /// stages fitted to the run, shows what is used up first, and how well the model says what was
    /// measured. See docs/model.md.
    Model(Box<ModelArgs>),
    /// List the workloads, and which knobs each has
    Workloads,
    /// Measure clusters of several sizes, and fit a law of scaling
    ///
    /// Each host is a process of its own: as root with a network namespace and, with --quota, a
    /// share of a core; else on loopback, which the report says. With --hosts-file, on machines of
    /// its own over SSH. Every number of hosts and share of multi-partition transactions is measured
    /// on a new cluster each time, and verified. See docs/scaling.md.
    Scale(Box<ScaleArgs>),
    /// Write configuration and certificates for a cluster on machines of its own
    Cluster(ClusterFilesArgs),
}

/// Options of `parsec bench compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The run to compare with: its directory, or its run.json.
    pub before: PathBuf,
    /// The run that is compared.
    pub after: PathBuf,
    /// Compare runs although their settings differ.
    #[arg(long)]
    pub force: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of a run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What to send.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// The cluster to start.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// When to send.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Most transactions in flight, over all connections together.
    #[arg(long, default_value_t = 2_000, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Most transactions in one submission.
    #[arg(long, default_value_t = 250, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Client connections.
    #[arg(long, default_value_t = 4, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// How long each repeat is measured, seconds.
    #[arg(long, default_value_t = 10, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// How long the load runs before each repeat, seconds. Not counted.
    #[arg(long, default_value_t = 2, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub warm_up: u32,
    /// How often it is measured.
    #[arg(long, default_value_t = 3, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Transactions to build ahead, for all repeats together. By default as many as the rate of a
    /// first try suggests; if they run out, more are built and the repeat is done again.
    #[arg(long, help_heading = "Load")]
    pub transactions: Option<usize>,
    /// Replay at most about so many transactions on one thread at the end. By default all.
    #[arg(long, help_heading = "Verdict")]
    pub verify_transactions: Option<u64>,
    /// Don't measure what one thread does with the same transactions, and what can't be avoided
    /// for each of them.
    #[arg(long, help_heading = "Verdict")]
    pub no_lines: bool,
    /// What the medians must reach, such as 'tps>10000,p99<50ms'; if they don't, the exit code is
    /// not 0.
    #[arg(long = "assert", value_name = "OBJECTIVES", help_heading = "Verdict")]
    pub objectives: Option<Objectives>,
    /// Show a dashboard on the terminal instead of a line each second.
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub dashboard: bool,
    /// The directory for run.json, samples.csv and report.html. By default
    /// bench-results/NAME-TIME.
    #[arg(long, help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// What the run is called. By default as the workload.
    #[arg(long, help_heading = "Output")]
    pub name: Option<String>,
    /// Print the summary as JSON.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Where signed transactions are kept, so that they need not be signed again.
    #[arg(long, default_value = "bench-results/cache", help_heading = "Output")]
    pub cache: PathBuf,
}

/// Which cluster is measured.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Executor hosts, each a process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub hosts: u16,
    /// Partitions on each host.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Run all of the cluster in this process, beside the load generator.
    #[arg(long)]
    pub embedded: bool,
    /// Run the sequencer in the process of the first host, so that they hand each other messages
    /// without a network; with --embedded, all nodes do.
    #[arg(long)]
    pub together: bool,
    /// Where the cluster keeps its data. By default a directory that is removed at the end.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Measure a cluster that is there: where its sequencer listens for clients.
    #[arg(long, requires = "ca",
        conflicts_with_all = ["hosts", "partitions", "workers", "embedded", "together", "data"])]
    pub connect: Option<SocketAddr>,
    /// The certificate of that cluster's CA.
    #[arg(long, requires = "connect")]
    pub ca: Option<PathBuf>,
}

/// When transactions are sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct PaceArgs {
    /// Send so many transactions a second, whatever the cluster does, and count latency from when
    /// each was to be sent; or search for the highest rate that keeps to --slo: find. By default a
    /// closed loop: as many are sent as are answered.
    #[arg(long, value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// What the rate to find must keep to, such as 'p99<50ms'.
    #[arg(long, value_name = "OBJECTIVES")]
    pub slo: Option<Objectives>,
    /// How transactions of a rate follow one another.
    #[arg(long, value_enum, default_value_t = PacingName::Poisson)]
    pub pacing: PacingName,
}

/// A rate, or that one is to be found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many transactions a second.
    PerSecond(f64),
    /// The highest one that keeps to an objective.
    Find,
}

/// How transactions of an open loop follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PacingName {
    /// As those of many clients: at random.
    Poisson,
    /// At equal distances.
    Fixed,
}

impl From<PacingName> for Pacing {
    fn from(name: PacingName) -> Self {
        match name {
            PacingName::Poisson => Self::Poisson,
            PacingName::Fixed => Self::Fixed,
        }
    }
}

/// A workload and its knobs, and how many partitions its transactions touch.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workload")]
pub struct WorkloadArgs {
    /// The workload and its other knobs.
    #[command(flatten)]
    pub knobs: KnobArgs,
    /// How many of 100 transactions touch several partitions. By default as accounts happen to lie.
    #[arg(long, value_name = "PERCENT")]
    pub multi_partition: Option<u8>,
    /// How many partitions those touch.
    #[arg(long, default_value_t = 2, requires = "multi_partition")]
    pub participants: u16,
}

/// A workload and its knobs. One that the workload does not have is refused.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workload")]
pub struct KnobArgs {
    /// What is sent; `parsec bench workloads` lists them.
    #[arg(long, default_value = "erc20")]
    pub workload: WorkloadName,
    /// The seed of everything random. 1 by default; on a cluster that is there, one that was not
    /// used yet.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Accounts, or records.
    #[arg(long)]
    pub accounts: Option<u32>,
    /// How often each is chosen: uniform, turns, one-payee, or an exponent of Zipf's law such as
    /// 0.99.
    #[arg(long)]
    pub skew: Option<Skew>,
    /// How many of 100 transactions touch one hot account.
    #[arg(long, value_name = "PERCENT")]
    pub conflict: Option<u8>,
    /// How many of 100 transactions (of YCSB: of accesses) only read.
    #[arg(long, value_name = "PERCENT")]
    pub read: Option<u8>,
    /// Where footprints come from: declared or discovered.
    #[arg(long)]
    pub footprint: Option<FootprintFrom>,
    /// Tokens, or pools.
    #[arg(long)]
    pub tokens: Option<u32>,
    /// Whether transactions are signed that need not be.
    #[arg(long)]
    pub signed: Option<bool>,
    /// Records of one transaction of YCSB.
    #[arg(long)]
    pub keys: Option<u16>,
    /// Bytes of each of the ten fields of a record of YCSB.
    #[arg(long)]
    pub field_bytes: Option<u16>,
    /// Warehouses of TPC-C.
    #[arg(long)]
    pub warehouses: Option<u32>,
    /// Items of TPC-C.
    #[arg(long)]
    pub items: Option<u32>,
    /// Customers in each district of TPC-C.
    #[arg(long)]
    pub customers: Option<u32>,
    /// How many of 100 orders and payments of TPC-C have to do with another warehouse.
    #[arg(long, value_name = "PERCENT")]
    pub remote: Option<u8>,
    /// How many lines come from the other warehouse in an order of which --remote or
    /// --multi-partition decides; one if not given.
    #[arg(long, value_name = "LINES")]
    pub remote_lines: Option<u8>,
    /// Hashes in each transaction that keeps a core busy.
    #[arg(long)]
    pub rounds: Option<u32>,
}

impl WorkloadArgs {
    /// The workload for a cluster with that chain id and so many partitions. `seed` is the one to
    /// use if none was given.
    #[must_use]
    pub fn spec(&self, chain_id: u64, partitions: u16, seed: u64) -> WorkloadSpec {
        let spread = |percent| Spread { partitions, percent, participants: self.participants };
        let knobs = &self.knobs;
        WorkloadSpec {
            accounts: knobs.accounts,
            skew: knobs.skew,
            conflict: knobs.conflict,
            spread: self.multi_partition.map(spread),
            read: knobs.read,
            footprint: knobs.footprint,
            tokens: knobs.tokens,
            signed: knobs.signed,
            keys: knobs.keys,
            field_bytes: knobs.field_bytes,
            warehouses: knobs.warehouses,
            items: knobs.items,
            customers: knobs.customers,
            remote: knobs.remote,
            remote_lines: knobs.remote_lines,
            rounds: knobs.rounds,
            ..WorkloadSpec::new(knobs.workload, knobs.seed.unwrap_or(seed), chain_id)
        }
    }

    /// Whether these knobs go together, as far as that can be told without a cluster. Returns what
    /// the state of a new cluster must begin with: accounts with their wei.
    ///
    /// # Errors
    /// As [`WorkloadSpec::open`].
    pub fn check(&self, partitions: u16) -> Result<Vec<(Address, U256)>, BadWorkload> {
        Ok(self.spec(crate::DEFAULT_CHAIN_ID, partitions, 1).open()?.genesis())
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "find" {
        return Ok(Rate::Find);
    }
    let (number, factor) = match text.strip_suffix('k') {
        Some(number) => (number, 1_000.0),
        None => (text, 1.0),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    #[allow(clippy::float_arithmetic, reason = "a rate of load; nothing that is executed")]
    let rate = number.parse::<f64>().ok().filter(|_| digits).map(|rate| rate * factor);
    match rate.filter(|rate| (0.1..=10_000_000.0).contains(rate)) {
        Some(rate) => Ok(Rate::PerSecond(rate)),
        None => {
            Err("a rate is a number of transactions a second, such as 5000 or 5k, or find".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command};
    use super::*;

    fn parse(line: &str) -> Result<Box<BenchArgs>, String> {
        let words = line.split_whitespace();
        match Arguments::try_parse_from(["parsec", "bench"].into_iter().chain(words)) {
            Ok(Arguments { command: Command::Bench(args) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_run_has_defaults_and_commands_are_apart_from_it() {
        let run = parse("").unwrap().run;
        assert_eq!((run.workload.knobs.workload, run.repeat), (WorkloadName::Erc20, 3));
        assert!(matches!(parse("compare a b").unwrap().command, Some(BenchCommand::Compare(_))));
        assert!(parse("--rate 5 compare a b").is_err());
        assert_eq!(parse("--rate find --slo p99<50ms").unwrap().run.pace.rate, Some(Rate::Find));
        assert_eq!(parse("--rate 5k").unwrap().run.pace.rate, Some(Rate::PerSecond(5_000.0)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_run() {
        assert!(parse("--assert tps=3").unwrap_err().contains("compares nothing"));
        assert!(parse("--assert speed>3").unwrap_err().contains("no metric"));
        for bad in ["--rate 0", "--rate -5", "--rate inf", "--rate x", "--workload x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["--connect 127.0.0.1:1", "--connect 127.0.0.1:1 --ca x --hosts 3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("--participants 3").is_err());
        let knob = parse("--workload native-transfer --warehouses 3").unwrap();
        assert!(knob.run.workload.check(4).is_err());
        let plain = parse("--workload native-transfer").unwrap();
        assert_eq!(plain.run.workload.check(4).unwrap(), []);
        assert_eq!(parse("--workload ether").unwrap().run.workload.check(4).unwrap().len(), 1);
    }
}
