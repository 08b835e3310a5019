//! What transactions cost that touch several partitions, relative to those that touch one.
//!
//! ```sh
//! cargo run --release -p parsec --example multi_partition -- native
//! cargo run --release -p parsec --example multi_partition -- erc20
//! ```
//!
//! Starts a cluster of one process for each node (a sequencer, and hosts with partitions) over
//! QUIC on loopback, with data on disk; so the system tells what each role uses of the processor. A
//! *point* is a share of multi-partition transactions and a number of participants. All points are
//! measured in turn, round after round, on the same cluster, so that a machine that gets slower
//! tilts no ratio; the first round warms up and does not count.
//!
//! Afterwards each account's balance is checked, and that one thread makes the same receipts and
//! the same state of the recorded order; the exit code is not 0 if it does not.

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

mod measure;
mod points;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use parsec_cli::failure::{Failure, failed};
use parsec_cli::{commands, telemetry};

use points::Kind;

/// What transactions cost that touch several partitions, relative to those that touch one.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two transfers by a native program: four keys
    Native(Options),
    /// A signed ERC-20 transfer: the sender's record, the sender's slot, the payee's slot
    Erc20(Options),
    /// What the processes of the cluster run
    #[command(hide = true)]
    Node {
        /// The configuration file of each node.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Stop when standard input ends.
        #[arg(long)]
        stop_at_eof: bool,
    },
}

/// What is measured, and how.
#[derive(Debug, Clone, clap::Args)]
struct Options {
    /// Transactions at each point in each round.
    #[arg(long, default_value_t = 20_000)]
    transactions: usize,
    /// Rounds that count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Hosts; each is a process. Their partitions together are 4.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4))]
    hosts: u16,
    /// Accounts of each point; a multiple of 16.
    #[arg(long, default_value_t = 4_096)]
    accounts: u32,
    /// Most transactions in flight.
    #[arg(long, default_value_t = 2_000)]
    in_flight: usize,
    /// Percentages of multi-partition transactions, beside 0.
    #[arg(long, value_delimiter = ',', default_value = "10,50,100")]
    percent: Vec<u8>,
    /// Numbers of participants; those that the transactions can't have are left out.
    #[arg(long, value_delimiter = ',', default_value = "2,3,4")]
    participants: Vec<u16>,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    telemetry::start_logs();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match command {
            Command::Native(options) => measure::run(Kind::Native, &options).await,
            Command::Erc20(options) => measure::run(Kind::Erc20, &options).await,
            Command::Node { files, stop_at_eof } => {
                commands::node(&files, stop_at_eof).await.map(|()| true)
            }
        }
    });
    match result.and_then(|good| if good { Ok(()) } else { Err(disagrees()) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn disagrees() -> Failure {
    failed("the cluster does not agree with one thread")
}
