//! What admitting signed ERC-20 transfers costs by itself: the limit of every system that checks
//! signatures. `cargo run --release -p parsec-bench --example admission`

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

use std::time::{Duration, Instant};

use parsec_bench::workload::{Erc20, Erc20Options, LoadTransaction, PaymentOptions, Workload};
use parsec_protocol::RuntimeId;
use parsec_runtimes::Runtimes;
use rayon::prelude::*;

const TRANSACTIONS: usize = 20_000;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Erc20Options { payments: PaymentOptions::default(), chain_id: 1 };
    let load = Erc20::new(options)?.build(TRANSACTIONS, &|_| {});
    let runtimes = Runtimes::standard(1);
    let runtime = runtimes.get(RuntimeId::EVM).ok_or("there is an EVM runtime")?;
    let admits = |load: &LoadTransaction| runtime.admit(&load.transaction).is_ok();

    let serial = || load.iter().all(admits);
    let parallel = || load.par_iter().all(admits);
    report("one thread", measure(serial)?, 1);
    report("all cores", measure(parallel)?, rayon::current_num_threads());
    Ok(())
}

/// The times of some rounds, the shortest first.
fn measure(work: impl Fn() -> bool) -> Result<Vec<Duration>, &'static str> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        if !work() {
            return Err("a transaction was not admitted");
        }
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times)
}

fn report(what: &str, times: Vec<Duration>, threads: usize) {
    let each = |time: &Duration| time.as_secs_f64() * 1e6 / TRANSACTIONS as f64;
    let median = &times[ROUNDS / 2];
    println!(
        "{what} ({threads}): median {:.1} µs of wall time each ({:.1} to {:.1}), {:.0} a second",
        each(median),
        each(&times[0]),
        each(&times[ROUNDS - 1]),
        TRANSACTIONS as f64 / median.as_secs_f64(),
    );
}
