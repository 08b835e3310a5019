//! One token that everybody uses: whether the partition of its address has more to do than others.
//!
//! ```sh
//! cargo run --release -p parsec --example one_token -- --transfers 1000000
//! ```
//!
//! A cluster in this process, over QUIC on loopback, with data on disk; signed transfers of one
//! ERC-20 token between accounts of which each combination of partitions has as many. The first
//! half are transfers whose keys all lie on one partition, a different one for each: there must be
//! no traffic between partitions at all. Each of the other half touches three partitions: the
//! partition of the token's address must have its share of the traffic, and not more. The exit
//! code is not 0 if it is otherwise.

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use parsec_bench::load::{self, Cancelled, LoadOptions};
use parsec_bench::workload::{Erc20, Erc20Options, PaymentOptions, Spread, Workload};
use parsec_cli::DEFAULT_CHAIN_ID;
use parsec_cli::cluster::{Cluster, ClusterOptions};
use parsec_cli::failure::{Context, Failure, failed};
use parsec_client::Client;
use parsec_executor::Traffic;
use parsec_protocol::{PartitionId, PartitionMap};
use parsec_runtimes::evm::keys;

const PARTITIONS: u16 = 4;
/// Transfers that are signed, and then sent, at a time.
const PART: usize = 50_000;
/// Transfers before the count begins, from which the cluster learns the footprints.
const WARM_UP: usize = 2_000;
const CONNECTIONS: usize = 4;

/// Whether the partition of a token's address has more to do than its share.
#[derive(Debug, Parser)]
struct Options {
    /// Transfers.
    #[arg(long, default_value_t = 20_000)]
    transfers: usize,
    /// Accounts; a multiple of 16.
    #[arg(long, default_value_t = 4_096)]
    accounts: u32,
    /// Most that a count of the partition of the token's address may be above the mean, percent.
    #[arg(long, default_value_t = 5.0)]
    tolerance: f64,
}

type Traffics = BTreeMap<PartitionId, Traffic>;

/// A column of the table: what it is called, and the count.
type Count = (&'static str, fn(&Traffic) -> u64);

const COUNTS: [Count; 4] = [
    ("homed", |traffic| traffic.homed),
    ("participations", |traffic| traffic.participations),
    ("pushes sent", |traffic| traffic.pushes_sent),
    ("pushes received", |traffic| traffic.pushes_received),
];

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Failure> {
    let directory = tempfile::tempdir().context("can't make a directory")?;
    let cluster = Cluster::start(&ClusterOptions::new(directory.path().to_owned())).await?;
    let measured = tokio::select! {
        measured = measure(&cluster, options) => measured,
        failure = cluster.failed() => Err(failure),
    };
    cluster.stop().await?;
    measured
}

async fn measure(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let within = Spread { partitions: PARTITIONS, percent: 0, participants: 2 };
    let across = Spread { partitions: PARTITIONS, percent: 100, participants: 3 };
    let half = options.transfers / 2;
    let (_, alone) = transfers(cluster, options, 1, within, half).await?;
    print("on one partition each", half, None, &alone);
    let (token, shared) = transfers(cluster, options, 2, across, options.transfers - half).await?;
    print("on three partitions each", options.transfers - half, Some(token), &shared);

    let silent = |traffic: &Traffic| Traffic { homed: 0, ..*traffic } == Traffic::default();
    if !alone.values().all(silent) {
        return Err(failed("partitions exchanged something for transfers within one"));
    }
    for (name, count) in COUNTS {
        let excess = excess(&shared, token, count);
        if excess > options.tolerance {
            let what = format!("{name} of the token's partition: {excess:.1} % above the mean");
            return Err(failed(what));
        }
    }
    Ok(())
}

/// Sends transfers of one token. Returns the partition of its address, and what each partition has
/// had to do for them.
async fn transfers(
    cluster: &Cluster,
    options: &Options,
    seed: u64,
    spread: Spread,
    count: usize,
) -> Result<(PartitionId, Traffics), Failure> {
    let payments = PaymentOptions { seed, accounts: options.accounts, ..PaymentOptions::default() };
    let erc20 = Erc20Options { payments, chain_id: DEFAULT_CHAIN_ID };
    let mut workload = Erc20::spread(erc20, spread).map_err(failed)?;
    let map = PartitionMap::even(PARTITIONS).map_err(failed)?;
    let token = map.owner(&keys::account(&workload.token()));

    let clients = load::connect(cluster.client_config(), CONNECTIONS).await.map_err(failed)?;
    let (setup, never) = (workload.setup(), Cancelled::never());
    let how = LoadOptions::default();
    load::set_up(&clients[0], setup, &how, &never, |_, _| {}).await.map_err(failed)?;
    send(&clients, &mut workload, WARM_UP).await?;
    let before = cluster.traffic();
    let mut left = count;
    while left > 0 {
        let part = left.min(PART);
        send(&clients, &mut workload, part).await?;
        left -= part;
        eprint!("\r{} of {count}", count - left);
    }
    eprintln!();
    workload.audit().run(&clients[0], true).await.map_err(failed)?;
    let after = cluster.traffic();
    let since =
        after.iter().map(|(partition, traffic)| (*partition, traffic.since(before[partition])));
    Ok((token, since.collect()))
}

async fn send(clients: &[Client], workload: &mut Erc20, count: usize) -> Result<(), Failure> {
    let built = tokio::task::block_in_place(|| workload.build(count, &|_| {}));
    let never = Cancelled::never();
    let how = LoadOptions::default();
    let report = load::run("transfers", clients, built, &how, &never, &|_| {}).await;
    let report = report.map_err(failed)?;
    load::settled(&clients[0]).await.map_err(failed)?;
    match report.committed == report.total {
        true => Ok(()),
        false => Err(failed(report.first_failure.unwrap_or_default())),
    }
}

/// How much more than the mean of all partitions one of them has, percent.
fn excess(traffics: &Traffics, partition: PartitionId, count: fn(&Traffic) -> u64) -> f64 {
    let all: u64 = traffics.values().map(count).sum();
    let mean = all as f64 / traffics.len() as f64;
    100.0 * (count(&traffics[&partition]) as f64 / mean - 1.0)
}

fn print(what: &str, transfers: usize, token: Option<PartitionId>, traffics: &Traffics) {
    println!("\n{transfers} transfers, {what}\n");
    print!("| partition |");
    COUNTS.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|--:|--:|--:|--:|");
    for (partition, traffic) in traffics {
        let mark = if token == Some(*partition) { ", of the token's address" } else { "" };
        print!("| {partition}{mark} |");
        COUNTS.iter().for_each(|(_, count)| print!(" {} |", count(traffic)));
        println!();
    }
    if let Some(token) = token {
        print!("| above the mean |");
        COUNTS.iter().for_each(|(_, count)| print!(" {:+.2} % |", excess(traffics, token, *count)));
        println!();
    }
}
