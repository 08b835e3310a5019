//! A fixed number of seeds, small enough for every change: fresh ones are run by
//! `cargo run --release -p parsec-tests --bin simulate`.

use parsec_protocol::plant::Bug;
use parsec_simulator::plants::PLANTS;
use parsec_simulator::{TraceLevel, run};

/// Runs seeds that must pass.
fn pass(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let report = run(seed, None, TraceLevel::Off);
        if let Some(violation) = report.violation {
            let again = run(seed, None, TraceLevel::Last(200));
            again.trace.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {}: {}", violation.rule, violation.detail);
        }
        assert!(
            report.tally.transactions > 0 && report.tally.epochs > 0,
            "seed {seed} did nothing"
        );
    }
}

#[test]
fn fixed_seeds_pass() {
    pass(1_000..1_060);
}

#[test]
fn more_fixed_seeds_pass() {
    pass(2_000..2_060);
}

#[test]
fn seeds_that_once_failed_pass() {
    let lines = include_str!("../seeds.txt").lines().map(str::trim);
    let seeds = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    pass(seeds.map(|seed| seed.parse().unwrap()));
}

#[test]
fn a_seed_always_runs_the_same() {
    for seed in [3, 14, 159, 265, 358, 979] {
        let hash = || run(seed, None, TraceLevel::Last(1)).hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
    let hash = |seed| run(seed, None, TraceLevel::Last(1)).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn planted_bugs_are_found() {
    parsec_simulator::quiet_panics();
    for plant in PLANTS.iter().filter(|plant| plant.seeds <= 50) {
        let found = (5_000..5_000 + plant.seeds)
            .any(|seed| run(seed, Some(plant.bug), TraceLevel::Off).violation.is_some());
        assert!(found, "{} was not found in {} seeds", plant.name, plant.seeds);
    }
}

#[test]
fn a_failing_seed_reproduces_with_its_trace() {
    parsec_simulator::quiet_panics();
    let planted = Some(Bug::SkippedEdge);
    let fails = |seed: &u64| run(*seed, planted, TraceLevel::Off).violation.is_some();
    let seed = (0..50).find(fails).expect("a skipped edge is found");
    let (first, second) =
        (run(seed, planted, TraceLevel::Last(100)), run(seed, planted, TraceLevel::Last(100)));
    assert_eq!(first.violation, second.violation);
    assert_eq!(first.trace, second.trace);
    assert!(first.trace.len() > 20, "{:?}", first.trace);
}
