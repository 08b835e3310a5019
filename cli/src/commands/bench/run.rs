//! A plain run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use alloy_primitives::{Address, U256};
use parsec_bench::load::{self, Cancelled, MeasureOptions};
use parsec_bench::record::{
    Lines, LoadSettings, Pace, Point, Run, RunKind, SCHEMA, WorkloadRecord,
};
use parsec_bench::workload::WorkloadSpec;
use parsec_client::{Client, ClientConfig};

use super::live::Live;
use super::session::{Outcome, Session, TRY, settled};
use super::supply::Supply;
use super::tested::{Tested, partitions};
use super::{environment, summary, write};
use crate::args::{Rate, RunArgs};
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;

/// Where results are by default.
pub(super) const RESULTS: &str = "bench-results";

/// Runs it.
///
/// # Errors
/// If a part of it fails, the result is not verified, or it misses what was asserted of it.
pub(super) async fn run(args: &RunArgs) -> Result<(), Failure> {
    let balances = check(args)?;
    // Before hours are spent on what can't be written down.
    let out = args.out.as_deref().unwrap_or_else(|| Path::new(RESULTS));
    std::fs::create_dir_all(out).context(out.display())?;
    let cancelled = on_interrupt(|| ());
    let live = Live::new(args.dashboard);
    let (started_ms, started) = (environment::now_ms(), Instant::now());
    let (tested, config) = Tested::start(&args.cluster, Genesis::file(&balances)).await?;
    let outcome = tokio::select! {
        outcome = measure(args, &tested, &config, cancelled.clone(), &live) => outcome,
        failure = tested.died() => Err(failure),
    };
    live.end();
    let stopped = tested.stop().await;
    let mut run = outcome.map_err(|failure| match cancelled.is_cancelled() {
        true => failed("interrupted: there is no result"),
        false => failure,
    })?;
    stopped?;
    (run.started_ms, run.took_seconds) = (started_ms, started.elapsed().as_secs_f64());
    let directory = args.out.clone().unwrap_or_else(|| default_directory(&run));
    write(&run, &directory)?;
    let missed = missed(args, &run);
    summary::print(&run, &missed, &directory, args.json)?;
    match (run.verified(), missed.is_empty()) {
        (false, _) => Err(failed(
            "UNVERIFIED: the run's numbers are no result; see above for what does not hold",
        )),
        (true, false) => Err(failed(format!("missed: {}", missed.join("; ")))),
        (true, true) => Ok(()),
    }
}

/// What is wrong with the options, before anything is started. Returns who has wei in a cluster
/// that is started.
fn check(args: &RunArgs) -> Result<Vec<(Address, U256)>, Failure> {
    let find = args.pace.rate == Some(Rate::Find);
    if find != args.pace.slo.is_some() {
        return Err(failed("--rate find and --slo belong together: --rate find --slo 'p99<50ms'"));
    }
    if args.in_flight < args.clients {
        let (in_flight, clients) = (args.in_flight, args.clients);
        return Err(failed(format!("{in_flight} in flight are too few for {clients} clients")));
    }
    // How many partitions a cluster that is there has, it says itself.
    if args.cluster.connect.is_some() {
        return Ok(Vec::new());
    }
    tokio::task::block_in_place(|| args.workload.check(partitions(&args.cluster)?).map_err(failed))
}

/// Cancelled by the first ctrl-C, or when it is to terminate; the second time it ends at once, after
/// `last` has removed what would be left behind.
pub(super) fn on_interrupt(last: fn()) -> Cancelled {
    let (cancel, cancelled) = load::cancellation();
    tokio::spawn(async move {
        interrupted().await;
        eprintln!("stopping in order; ctrl-C again to stop at once");
        cancel.cancel();
        interrupted().await;
        super::live::restore_terminal();
        last();
        crate::processes::scratch::abandon();
        std::process::exit(130);
    });
    cancelled
}

/// Waits for the next signal to end; for ever, if there can be none.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let signalled = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signalled(SignalKind::interrupt()) => {}
        () = signalled(SignalKind::terminate()) => {}
        () = signalled(SignalKind::hangup()) => {}
    }
}

async fn measure(
    args: &RunArgs,
    tested: &Tested,
    config: &ClientConfig,
    cancelled: Cancelled,
    live: &Live,
) -> Result<Run, Failure> {
    let (workload, partitions, outcome) = load(args, tested, config, cancelled, live).await?;
    Ok(record(args, tested, partitions, workload, outcome))
}

/// Loads a cluster that runs, measures and verifies it. Returns what was sent, how many partitions
/// there are, and what came of it.
pub(super) async fn load(
    args: &RunArgs,
    tested: &Tested,
    config: &ClientConfig,
    cancelled: Cancelled,
    live: &Live,
) -> Result<(WorkloadRecord, u16, Outcome), Failure> {
    let client = Client::connect(config.clone()).await.context("can't connect to the cluster")?;
    let status = settled(&client).await?;
    // What was there before has its own accounts: a run that goes on needs another seed.
    let seed = status.ordered.0.max(1);
    let spec = args.workload.spec(client.welcome().chain_id, status.partitions_total, seed);
    let count = first_count(args)?;
    let open = |spec: WorkloadSpec| {
        Supply::new(spec, count, args.cache.clone(), live.bar("building and signing"))
    };
    let supply = tokio::task::block_in_place(|| open(spec))?;
    let workload = WorkloadRecord {
        name: supply.name(),
        spec: serde_json::to_value(supply.spec()).map_err(failed)?,
    };
    let seed = supply.spec().seed;
    let session = Session { args, tested, config, client: &client, cancelled, live, seed };
    let outcome = session.run(supply).await?;
    Ok((workload, status.partitions_total, outcome))
}

/// How many transactions are built before it is known how many a second there will be.
fn first_count(args: &RunArgs) -> Result<usize, Failure> {
    if let Some(count) = args.transactions {
        return Ok(count.max(1));
    }
    let Some(Rate::PerSecond(rate)) = args.pace.rate else { return Ok(TRY) };
    let pace = Pace::Open { rate, pacing: args.pace.pacing.into(), seed: 1 };
    let options = MeasureOptions {
        pace,
        in_flight: 1,
        batch: 1,
        warm_up: std::time::Duration::from_secs(u64::from(args.warm_up)),
        seconds: std::time::Duration::from_secs(u64::from(args.seconds)),
        drain: std::time::Duration::ZERO,
    };
    let needed = options.needs().map_err(failed)?.unwrap_or(0);
    let repeats = usize::try_from(args.repeat).unwrap_or(usize::MAX);
    Ok(super::supply::rounded(needed.saturating_mul(repeats).saturating_add(TRY)))
}

fn record(
    args: &RunArgs,
    tested: &Tested,
    partitions: u16,
    workload: WorkloadRecord,
    outcome: Outcome,
) -> Run {
    let Outcome { pace, repeats, search, verification } = outcome;
    let measured: Vec<&Lines> = repeats.iter().filter_map(|repeat| repeat.lines.as_ref()).collect();
    let lines = Lines::median(&measured);
    let share = args.workload.multi_partition.map(|percent| f64::from(percent) / 100.0);
    let cluster = tested.record(&args.cluster, partitions);
    let point = Point { hosts: cluster.hosts, multi_partition: share, repeats, verification };
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let name = args.name.clone().unwrap_or_else(|| args.workload.knobs.workload.to_string());
    Run {
        schema: SCHEMA,
        name,
        kind: if search.is_some() { RunKind::Find } else { RunKind::Plain },
        started_ms: 0,
        took_seconds: 0.0,
        command: environment::command(),
        machine: environment::machine(),
        versions: environment::versions(),
        workload,
        load: LoadSettings {
            pace,
            in_flight: count(args.in_flight),
            batch: count(args.batch),
            connections: count(args.clients),
            warm_up_seconds: f64::from(args.warm_up),
            seconds: f64::from(args.seconds),
            repeats: args.repeat,
        },
        caveats: caveats(tested, pace),
        cluster,
        points: vec![point],
        search,
        lines,
        usl: Vec::new(),
        model: Vec::new(),
    }
}

/// What the run does not show.
fn caveats(tested: &Tested, pace: Pace) -> Vec<String> {
    let mut caveats = Vec::new();
    if cfg!(debug_assertions) {
        caveats.push(
            "Compiled without the release profile: figures are good for trying things out only."
                .to_owned(),
        );
    }
    if pace == Pace::Closed {
        caveats.push(
            "A closed loop asks a cluster that is slow for less, so that latencies say how long the \
             load itself waits in line, not what clients would see at another rate: measure those \
             with --rate."
                .to_owned(),
        );
    }
    caveats.extend(match tested {
        Tested::Processes(_) => Some(
            "Load generator, sequencer and hosts share one machine and its cores, and speak over \
             loopback: no network is between them, and what the load generator uses the cluster \
             lacks.",
        ),
        Tested::Testbed(_) | Tested::Remote(_) => None,
        Tested::Embedded { .. } => Some(
            "Everything ran in one process: what the cluster used can't be told from what the \
             load generator used.",
        ),
        Tested::Existing => Some(
            "The cluster was there before: what its machines are, what they used, and what else \
             they did is not known.",
        ),
    }.map(str::to_owned));
    caveats
}

/// What was asserted of the run and is not so.
fn missed(args: &RunArgs, run: &Run) -> Vec<String> {
    let repeats = run.points.iter().flat_map(|point| point.repeats.clone()).collect::<Vec<_>>();
    args.objectives.as_ref().map(|objectives| objectives.missed(&repeats)).unwrap_or_default()
}

/// `bench-results/NAME-TIME`, without anything in it that has a meaning in paths.
pub(super) fn default_directory(run: &Run) -> PathBuf {
    let kept = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = run.name.chars().map(kept).collect();
    let time = parsec_bench::report::utc(run.started_ms).replace([':', ' '], "-");
    PathBuf::from(RESULTS).join(format!("{}-{time}", name.trim_start_matches('.')))
}
