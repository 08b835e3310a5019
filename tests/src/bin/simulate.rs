//! Runs the deterministic simulator: whole clusters, each from one seed.
//!
//! `simulate --seeds 1000` runs fresh seeds, `simulate --seed 42` one again, with a trace.
//! `simulate --plants` plants each known bug until it is found. The exit code is 0 only if
//! everything passed; the last line says how many passed and failed, and how many seeds an hour
//! that is.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use parsec_simulator::plants::{PLANTS, Plant, find};
use parsec_simulator::{Report, TraceLevel, run};

/// Events that are shown of a failing run.
const TRACE_EVENTS: usize = 400;
/// Failing runs that are shown in full; more are only counted.
const SHOWN_MAX: usize = 3;

/// Runs the deterministic simulator.
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; drawn from the clock if not given.
    #[arg(long)]
    from: Option<u64>,
    /// Run this one seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Plant this bug.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Plant each bug until it is found, then run as many seeds without any.
    #[arg(long, conflicts_with_all = ["seed", "plant"])]
    plants: bool,
    /// List the bugs that can be planted.
    #[arg(long)]
    list_plants: bool,
    /// Show all events of every run.
    #[arg(long)]
    trace: bool,
    /// How many runs at a time; as many as there are processors by default.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    parsec_simulator::quiet_panics();
    if args.list_plants {
        for Plant { name, what, seeds, .. } in PLANTS {
            println!("{name:<24} {what} (found within {seeds} seeds)");
        }
        return ExitCode::SUCCESS;
    }
    let planted = match args.plant.as_deref().map(|name| (name, find(name))) {
        Some((name, None)) => {
            eprintln!("there is no bug {name:?}; --list-plants shows them all");
            return ExitCode::from(2);
        }
        Some((_, found)) => found,
        None => None,
    };
    let passed = match args.plants {
        true => run_plants(&args),
        false => run_seeds(&args, planted),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn first_seed(args: &Args) -> u64 {
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    args.seed.or(args.from).unwrap_or_else(|| clock().as_secs() * 1_000_000)
}

fn level_of(args: &Args) -> TraceLevel {
    match args.trace {
        true => TraceLevel::Last(usize::MAX),
        false => TraceLevel::Off,
    }
}

/// Runs seeds, and shows those that fail. Whether all passed.
fn run_seeds(args: &Args, planted: Option<&'static Plant>) -> bool {
    let count = if args.seed.is_some() { 1 } else { args.seeds };
    let seeds = Seeds::new(first_seed(args), count, args.threads);
    let level = level_of(args);
    let shown = Mutex::new(0);
    let failed = AtomicU64::new(0);
    seeds.run(&failed, planted, level, |report| {
        if args.trace {
            report.trace.iter().for_each(|line| println!("{line}"));
        }
        if report.violation.is_some() {
            let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *shown < SHOWN_MAX {
                show(&report, planted, args.trace);
            }
            *shown += 1;
        }
        true
    });
    let failed = failed.into_inner();
    let planted = planted.map_or(String::new(), |plant| format!(" with {} planted", plant.name));
    let passed = seeds.done() - failed;
    let hourly = hourly(seeds.done(), seeds.started.elapsed());
    println!("{passed} passed, {failed} failed{planted}; {hourly} seeds an hour");
    failed == 0
}

/// Shows a run that failed: what was wrong, what led to it, and how to see it again.
fn show(report: &Report, planted: Option<&'static Plant>, is_traced: bool) {
    let seed = report.seed;
    let bug = planted.map(|plant| plant.bug);
    let again = run(seed, bug, TraceLevel::Last(TRACE_EVENTS));
    if !is_traced {
        println!("\nthe last events of seed {seed}, in seconds of virtual time:");
        again.trace.iter().for_each(|line| println!("  {}", cut(line)));
    }
    if let Some(violation) = &report.violation {
        println!("seed {seed} FAILED: {}\n  {}", violation.rule, cut(&violation.detail));
    }
    if again.violation != report.violation {
        println!("  AND IT DOES NOT REPRODUCE: {:?}", again.violation);
    }
    let plant = planted.map_or(String::new(), |plant| format!(" --plant {}", plant.name));
    println!(
        "  again: cargo run --release -p parsec-tests --bin simulate -- --seed {seed}{plant}\n"
    );
}

fn cut(text: &str) -> String {
    const LENGTH: usize = 2_000;
    match text.chars().count() > LENGTH {
        true => text.chars().take(LENGTH).chain("...".chars()).collect(),
        false => text.to_owned(),
    }
}

fn hourly(seeds: u64, elapsed: Duration) -> u128 {
    u128::from(seeds) * 3_600_000 / elapsed.as_millis().max(1)
}

/// Plants each bug until it is found. Whether all were, and nothing is without one.
fn run_plants(args: &Args) -> bool {
    let from = first_seed(args);
    let mut all = true;
    println!("{:<24} {:>9} {:>6}  found by", "planted bug", "seeds", "of");
    for plant in PLANTS {
        let seeds = Seeds::new(from, plant.seeds, args.threads);
        let failed = AtomicU64::new(0);
        let found = Mutex::new(None::<Report>);
        seeds.run(&failed, Some(plant), TraceLevel::Off, |report| {
            let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let is_found = report.violation.is_some();
            if is_found && found.as_ref().is_none_or(|first| report.seed < first.seed) {
                *found = Some(report);
            }
            !is_found
        });
        let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (name, limit) = (plant.name, plant.seeds);
        match found.and_then(|report| Some((report.seed, report.violation?))) {
            Some((seed, violation)) => {
                let nth = seed - from + 1;
                println!("{name:<24} {nth:>9} {limit:>6}  {} (seed {seed})", violation.rule);
            }
            None => {
                all = false;
                println!("{name:<24} {:>9} {limit:>6}  NOT FOUND", "-");
            }
        }
    }
    let most = PLANTS.iter().map(|plant| plant.seeds).max().unwrap_or(0);
    let plain = Args { seeds: most, from: Some(from), seed: None, ..Args::parse() };
    println!("nothing planted:");
    run_seeds(&plain, None) && all
}

/// Seeds that are run by several threads.
struct Seeds {
    from: u64,
    count: u64,
    threads: usize,
    next: AtomicU64,
    done: AtomicU64,
    started: Instant,
}

impl Seeds {
    fn new(from: u64, count: u64, threads: Option<usize>) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            from,
            count,
            threads: threads.unwrap_or_else(processors).max(1),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Runs all seeds, until `take` says of a report that it is enough.
    fn run(
        &self,
        failed: &AtomicU64,
        planted: Option<&'static Plant>,
        level: TraceLevel,
        take: impl Fn(Report) -> bool + Sync,
    ) {
        let bug = planted.map(|plant| plant.bug);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let index = self.next.fetch_add(1, Ordering::Relaxed);
                        if index >= self.count {
                            return;
                        }
                        let report = run(self.from + index, bug, level);
                        let has_failed = report.violation.is_some();
                        failed.fetch_add(u64::from(has_failed), Ordering::Relaxed);
                        self.done.fetch_add(1, Ordering::Relaxed);
                        if !take(report) {
                            self.next.store(self.count, Ordering::Relaxed);
                        }
                        self.show_progress(failed.load(Ordering::Relaxed));
                    }
                });
            }
        });
        if std::io::stderr().is_terminal() {
            eprint!("\r{:70}\r", "");
        }
    }

    fn show_progress(&self, failed: u64) {
        let (done, count) = (self.done(), self.count);
        let hourly = hourly(done, self.started.elapsed());
        let line = format!("{done} of {count} seeds, {failed} failed, {hourly} an hour");
        let mut stderr = std::io::stderr();
        // A progress line that can't be written is not missed.
        if stderr.is_terminal() {
            write!(stderr, "\r{line:<70}").ok();
            stderr.flush().ok();
        } else if done.is_multiple_of(500) {
            writeln!(stderr, "{line}").ok();
        }
    }
}
