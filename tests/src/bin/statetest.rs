//! Runs Ethereum's state tests and transaction tests through Parsec.
//!
//! `statetest PATH...` runs the tests in these files and directories. It prints each case that
//! fails and why, each reason for which cases were skipped, and how many passed, failed and were
//! skipped. The exit code is 0 only if none failed.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use parsec_tests::statetest::{Runner, Summary, files, run_file};

/// Runtimes run on threads whose stacks are known to be large enough.
const STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// Runs Ethereum's state tests and transaction tests through Parsec.
#[derive(Debug, Parser)]
struct Args {
    /// Files of tests, or directories of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How many threads run tests; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let files = match files(&args.paths) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("the tests can't be read: {error}");
            return ExitCode::from(2);
        }
    };
    // Panics are told as failures of their cases.
    std::panic::set_hook(Box::new(|_| {}));
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let summary = run(&files, args.jobs.unwrap_or_else(processors).max(1));
    report(&summary);
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs files on several threads.
fn run(files: &[PathBuf], jobs: usize) -> Summary {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Summary::default());
    let shows = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let work = || {
                let mut runner = Runner::new();
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let summary = run_file(&mut runner, file);
                    let mut total =
                        total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.add(summary);
                    if shows {
                        progress(next.load(Ordering::Relaxed).min(files.len()), files, &total);
                    }
                }
            };
            let spawned =
                std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
            spawned.expect("the system has threads for as many jobs as were asked for");
        }
    });
    if shows {
        eprintln!();
    }
    let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    total.failures.sort();
    total
}

fn progress(begun: usize, files: &[PathBuf], total: &Summary) {
    let (passed, failed) = (total.passed, total.failures.len());
    let mut stderr = std::io::stderr().lock();
    let line = write!(stderr, "\r{begun}/{} files, {passed} passed, {failed} failed", files.len());
    // Nobody misses what a terminal does not take.
    drop(line.and_then(|()| stderr.flush()));
}

fn report(summary: &Summary) {
    for (name, why) in &summary.failures {
        println!("FAILED {name}: {why}");
    }
    for (why, count) in &summary.skipped {
        println!("skipped {count}: {why}");
    }
    if summary.strayed > 0 {
        println!("{} cases strayed, and were ordered again with more keys", summary.strayed);
    }
    let (passed, failed, skipped) = (summary.passed, summary.failures.len(), summary.skips());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
}
