//! What finding footprints costs and how often it goes wrong: predicted from earlier calls, tried
//! with all values at hand, and tried where values have to be fetched.
//! `cargo run --release -p parsec-bench --example prediction`
//!
//! All on one thread, over a state in memory. Each workload runs in order as a cluster would run
//! it: with what is predicted, or else what a trial finds; a stray is tried again. The first
//! transactions are the warm-up; shares are of those after it. Times are those of the processor,
//! not of the wall, so that other work on the machine matters little: medians of some passes over
//! the same transactions. Rounds are reads of the state for one transaction alone, with
//! contract code remembered from earlier ones, which is how a sequencer in use finds things.

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

mod calls;
mod world;

use calls::{Case, cases};
use parsec_protocol::Footprint;
use parsec_runtimes::Predictors;
use world::{Outing, World};

/// As in `parsec` itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions of a workload.
const TRANSACTIONS: usize = 10_000;
/// Transactions after which predictions are counted.
const WARM_UP: usize = 100;
/// Passes over the same transactions to measure a time.
const PASSES: usize = 5;
/// Transactions whose rounds are counted.
const ROUNDS_SAMPLE: usize = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{:<24}{:>11}{:>9}{:>12}{:>10}{:>7}   {:>14}{:>18}",
        "workload",
        "predicted",
        "stray",
        "predict µs",
        "trial µs",
        "ratio",
        "rounds",
        "µs of trials"
    );
    for case in cases(TRANSACTIONS)? {
        report(case)?;
    }
    println!(
        "\nrounds and µs of trials: stopping at the first missing key → going on with guesses"
    );
    Ok(())
}

/// How often something was predicted, and how often wrongly.
#[derive(Default)]
struct Shares {
    predicted: u32,
    strayed: u32,
}

fn report(case: Case) -> Result<(), Box<dyn std::error::Error>> {
    let Case { name, mut world, load } = case;
    let load: Vec<Outing> = load.iter().map(|each| world.admit(each)).collect::<Result<_, _>>()?;
    let predictors = world.runtimes.predictors();
    let (stops, goes_on) = rounds(&mut world, &load)?;
    let shares = run(&mut world, &predictors, &load)?;
    let after = (load.len() - WARM_UP) as f64;
    let predict = median(&load, |outing| {
        predictors.predict(outing.runtime, &outing.sender, &outing.payload).is_some()
    });
    let trial = median(&load, |outing| world.try_at_hand(outing).is_ok());
    println!(
        "{:<24}{:>10.2}%{:>8.2}%{:>12}{:>10.2}{:>7}   {:>6.1} → {:<5.1}{:>9.1} → {:<6.1}",
        name,
        f64::from(shares.predicted) * 100.0 / after,
        f64::from(shares.strayed) * 100.0 / after,
        if shares.predicted > 0 { format!("{predict:.2}") } else { "-".to_owned() },
        trial,
        if shares.predicted > 0 { format!("{:.1}", trial / predict) } else { "-".to_owned() },
        stops.rounds,
        goes_on.rounds,
        stops.micros,
        goes_on.micros,
    );
    Ok(())
}

/// Runs a load in order as a cluster would.
fn run(world: &mut World, predictors: &Predictors, load: &[Outing]) -> Result<Shares, String> {
    let mut shares = Shares::default();
    for (number, outing) in load.iter().enumerate() {
        let counts = u32::from(number >= WARM_UP);
        let Outing { runtime, sender, payload, .. } = outing;
        if let Some(footprint) = predictors.predict(*runtime, sender, payload) {
            shares.predicted += counts;
            if world.execute(outing, footprint.clone())? {
                continue;
            }
            shares.strayed += counts;
            predictors.strayed(*runtime, sender, payload, &footprint);
            let found = world.try_at_hand(outing)?;
            world.execute(outing, found)?;
            continue;
        }
        let found = world.try_at_hand(outing)?;
        predictors.learn(*runtime, sender, payload, &found);
        if !world.execute(outing, found)? {
            return Err("a transaction strays though nothing comes between".to_owned());
        }
    }
    Ok(shares)
}

/// Rounds of reads, and time of trials, for one transaction.
struct Rounds {
    rounds: f64,
    micros: f64,
}

/// A way to find a footprint, and how many rounds of reads it takes.
type Find = fn(&mut World, &Outing) -> Result<(Footprint, usize), String>;

/// Finds footprints of transactions one by one where values have to be fetched: by trials that
/// stop at the first missing key, and by ones that go on.
fn rounds(world: &mut World, load: &[Outing]) -> Result<(Rounds, Rounds), String> {
    let sample: Vec<_> = load.iter().step_by(load.len().div_ceil(ROUNDS_SAMPLE)).collect();
    // What is remembered afterwards is remembered before.
    world.find_going_on(sample[0])?;
    let count = sample.len() as f64;
    let mut pass = |find: Find| {
        let started = processor_micros();
        let found = sample.iter().map(|outing| find(world, outing)).collect::<Result<Vec<_>, _>>();
        let micros = (processor_micros() - started) / count;
        let (footprints, rounds): (Vec<_>, Vec<usize>) = found?.into_iter().unzip();
        let rounds = rounds.iter().sum::<usize>() as f64 / count;
        Ok::<_, String>((footprints, Rounds { rounds, micros }))
    };
    let (expected, stops) = pass(|world, outing| world.find_stopping(outing))?;
    let (found, goes_on) = pass(|world, outing| world.find_going_on(outing))?;
    match found == expected {
        true => Ok((stops, goes_on)),
        false => Err("two ways to find a footprint disagree".to_owned()),
    }
}

/// The microseconds that `work` takes for one transaction: the median of some passes over all.
fn median(load: &[Outing], work: impl Fn(&Outing) -> bool) -> f64 {
    let pass = |_| {
        let started = processor_micros();
        let done = load.iter().filter(|outing| work(outing)).count();
        std::hint::black_box(done);
        (processor_micros() - started) / load.len() as f64
    };
    let mut passes: Vec<f64> = (0..PASSES).map(pass).collect();
    passes.sort_by(f64::total_cmp);
    passes[PASSES / 2]
}

/// The time that this thread has had a processor.
fn processor_micros() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
