//! Running files of Ethereum's tests on several threads, and telling what came out.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::statetest::{Summary, files};

/// Runtimes run on threads whose stacks are known to be large enough.
const STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// Runs the tests at or below some paths, and prints each that fails and why, each reason for which
/// some were skipped, and how many passed, failed and were skipped. `worker` gives each of the
/// `jobs` threads (as many as there are processors, by default) what runs a file. The exit code is
/// 0 only if none failed.
pub fn main<W: FnMut(&Path) -> Summary>(
    paths: &[PathBuf],
    jobs: Option<usize>,
    worker: impl Fn() -> W + Sync,
) -> ExitCode {
    let files = match files(paths) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("the tests can't be read: {error}");
            return ExitCode::from(2);
        }
    };
    // Panics are told as failures of their cases.
    std::panic::set_hook(Box::new(|_| {}));
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let summary = run(&files, jobs.unwrap_or_else(processors).max(1), worker);
    report(&summary);
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs files on several threads.
fn run<W: FnMut(&Path) -> Summary>(
    files: &[PathBuf],
    jobs: usize,
    worker: impl Fn() -> W + Sync,
) -> Summary {
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Summary::default());
    let shows = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let work = || {
                let mut run = worker();
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let summary = run(file);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
