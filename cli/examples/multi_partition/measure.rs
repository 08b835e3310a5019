//! Rounds of measurements, and their verification.

use parsec_bench::load::{self, Cancelled, LoadOptions};
use parsec_cli::DEFAULT_CHAIN_ID;
use parsec_cli::failure::{Context, Failure, failed};
use parsec_cli::processes::{ClusterUsage, Processes, ProcessesOptions};
use parsec_client::{Client, ClientConfig};
use parsec_oracle::Oracle;
use parsec_protocol::message::ClusterStatus;
use parsec_runtimes::Runtimes;
use parsec_storage::{Digest, LogReader};

use crate::Options;
use crate::points::{Kind, PARTITIONS, Point};
use crate::report;

/// Transactions in one submission.
const SUBMISSION: usize = 250;
/// Connections over which transactions are sent.
const CONNECTIONS: usize = 4;

/// One point in one round.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    /// Transactions, which all committed.
    pub(crate) transactions: u64,
    /// Those that touched several partitions, by the cluster's own count.
    pub(crate) multi_partition: u64,
    /// Those that strayed outside their footprint at first.
    pub(crate) strayed: u64,
    /// Committed in a second.
    pub(crate) per_second: f64,
    /// Half of them took at most this long, milliseconds.
    pub(crate) p50_ms: f64,
    /// What all processes used meanwhile.
    pub(crate) usage: ClusterUsage,
}

/// The cluster, and who loads it.
struct Bench {
    processes: Processes,
    config: ClientConfig,
    client: Client,
    load: LoadOptions,
}

/// Measures all points and prints what came of it; whether the cluster agrees with one thread.
pub(crate) async fn run(kind: Kind, options: &Options) -> Result<bool, Failure> {
    let processes = Processes::start(&ProcessesOptions::new(options.hosts, PARTITIONS))?;
    let config = processes.reach().await?;
    let client = Client::connect(config.clone()).await.context("can't connect")?;
    let load =
        LoadOptions { in_flight: options.in_flight, batch: SUBMISSION, ..LoadOptions::default() };
    let bench = Bench { processes, config, client, load };

    let mut points = Point::all(kind, options)?;
    for point in &points {
        bench.set_up(point).await?;
    }
    for round in 0..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for index in order(points.len(), round) {
            let measurement = bench.measure(&mut points[index], options.transactions).await?;
            // The first round warms caches, files and the prediction of footprints.
            if round > 0 {
                points[index].measured.push(measurement);
            }
        }
    }
    report::print(kind, options, &points);
    bench.verify(&points).await
}

/// Forth and back, so that no point always follows the same one.
fn order(points: usize, round: usize) -> Vec<usize> {
    let forth = 0..points;
    if round.is_multiple_of(2) { forth.rev().collect() } else { forth.collect() }
}

impl Bench {
    async fn set_up(&self, point: &Point) -> Result<(), Failure> {
        let clients = load::connect(&self.config, 1).await.map_err(failed)?;
        let stages = point.workload().setup();
        load::set_up(&clients[0], stages, &self.load, &Cancelled::never(), |_, _| {})
            .await
            .context(point.spread)
    }

    /// Sends the next transactions of a point.
    async fn measure(&self, point: &mut Point, count: usize) -> Result<Measurement, Failure> {
        let (built, multi_partition) = tokio::task::block_in_place(|| point.build(count));
        let clients = load::connect(&self.config, CONNECTIONS).await.map_err(failed)?;
        let before = (self.settled().await?, self.processes.usage()?);
        let never = Cancelled::never();
        let run = load::run("point", &clients, built, &self.load, &never, &|_| {}).await;
        let report = run.map_err(failed)?;
        let after = (self.settled().await?, self.processes.usage()?);
        let measurement = Measurement {
            transactions: report.committed,
            multi_partition: multi_partition_of(&after.0) - multi_partition_of(&before.0),
            strayed: report.strayed,
            per_second: report.tps,
            p50_ms: report.p50_ms,
            usage: after.1.since(&before.1),
        };
        if report.committed != report.total {
            let reason = report.first_failure.unwrap_or_default();
            return Err(failed(format!("{}: not all committed: {reason}", point.spread)));
        }
        // A stray runs twice, and may be at home elsewhere the second time.
        let counted = measurement.multi_partition;
        if !(multi_partition..=multi_partition + report.strayed).contains(&counted) {
            let spread = point.spread;
            let wrong = format!("{counted} touched several partitions, not {multi_partition}");
            return Err(failed(format!("{spread}: {wrong}")));
        }
        Ok(measurement)
    }

    /// How the cluster is when all that was ordered is done.
    async fn settled(&self) -> Result<ClusterStatus, Failure> {
        load::settled(&self.client).await.context("status")
    }

    /// Checks all balances, and what one thread makes of the recorded order.
    async fn verify(&self, points: &[Point]) -> Result<bool, Failure> {
        for point in points {
            let audit = point.workload().audit();
            audit.run(&self.client, true).await.context(point.spread)?;
        }
        let status = self.settled().await?;
        let log = self.processes.log();
        let replay = move || {
            let reader = LogReader::open(&log).context("can't read the log")?;
            let mut oracle = Oracle::new(&Runtimes::standard(DEFAULT_CHAIN_ID));
            oracle.replay(reader, |_| {}).context("replay")
        };
        let replay = tokio::task::spawn_blocking(replay).await.map_err(failed)??;
        let sum = |digest: fn(&parsec_protocol::message::PartitionDigest) -> [u8; 32]| -> Digest {
            status.partitions.iter().map(|partition| Digest(digest(partition))).sum()
        };
        let receipts_agree = sum(|partition| partition.receipts) == replay.receipts;
        let states_agree = sum(|partition| partition.state) == replay.state;
        println!(
            "\nbalances are as foreseen; replayed {} transactions on one thread: receipts {}, state {}",
            replay.transactions,
            if receipts_agree { "agree" } else { "DIFFER" },
            if states_agree { "agrees" } else { "DIFFERS" },
        );
        Ok(receipts_agree && states_agree)
    }
}

fn multi_partition_of(status: &ClusterStatus) -> u64 {
    status.partitions.iter().map(|partition| partition.multi_partition).sum()
}
