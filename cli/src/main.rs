//! `parsec`: see `parsec --help`.

use std::process::ExitCode;

use clap::Parser;
use parsec_cli::args::{Arguments, Command};
use parsec_cli::{commands, telemetry};

/// Transactions, values and receipts are made by one thread and dropped by another all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::start_logs();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Demo(args) => commands::demo(args).await,
            Command::Bench(args) => commands::bench(*args).await,
            Command::Dev(args) => commands::dev(args).await,
            Command::Node { files, stop_at_eof } => commands::node(&files, stop_at_eof).await,
            Command::Gateway(args) => commands::gateway(args).await,
            Command::Status { connect, json } => commands::status(&connect, json).await,
            Command::Submit { connect, expires, salt, what } => {
                commands::submit(&connect, expires, salt, what).await
            }
            Command::Replay(args) => commands::replay(args).await,
            Command::Certs { out, nodes, names } => commands::certs(&out, nodes, &names),
            Command::Relay(args) => commands::relay(args).await,
            Command::Usage(args) => commands::usage(&args),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The runtime for messages and clients. What transactions cost has threads of its own (admission,
/// workers, committers), so that half of the cores are enough here: more would only hand tasks to
/// and fro between them. `TOKIO_WORKER_THREADS` sets another number.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads(cores.div_ceil(2));
    }
    builder.enable_all().build()
}
