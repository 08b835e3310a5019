//! Random transactions through real clients: what the clients were told and what the cluster holds
//! is what one thread makes of the agreed order.

use std::sync::{Mutex, PoisonError};

use parsec_protocol::ErrorCode;
use parsec_tests::{House, Shape};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::load::{CLIENTS, History, Load};
use crate::workload::{Step, any_rounds};

/// What all cases together must have seen, lest they prove nothing.
#[derive(Debug, Default)]
struct Seen {
    committed: u64,
    reverted: u64,
    strayed: u64,
    expired: u64,
    refused: u64,
    duplicates: u64,
    multi_partition: u64,
    sightings: u64,
}

/// One case: a cluster, and what is submitted to it.
#[derive(Debug, Clone)]
struct Case {
    workers: usize,
    /// Most transactions in one submission.
    submission: usize,
    rounds: Vec<Vec<Step>>,
}

fn any_case() -> impl Strategy<Value = Case> {
    (1usize..4, 1usize..20, any_rounds(CLIENTS)).prop_map(|(workers, submission, rounds)| Case {
        workers,
        submission,
        rounds,
    })
}

/// Cases of each number of partitions.
fn cases() -> u32 {
    let asked = std::env::var("PARSEC_TEST_CASES").ok();
    asked.map_or(4, |text| text.parse().expect("PARSEC_TEST_CASES is a number"))
}

#[test]
fn clients_are_told_what_one_thread_would_have_told_them() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = Mutex::new(Seen::default());
    let shapes = [(1, 1), (2, 1), (2, 2), (7, 1)].map(|shape| (shape, false));
    // Linked by memory: nodes that share what they send.
    let all = shapes.into_iter().chain([((2, 2), true)]);
    for ((hosts, partitions_per_host), linked) in all {
        let config = Config {
            cases: cases(),
            max_shrink_iters: 40,
            failure_persistence: None,
            ..Config::default()
        };
        let run = |case: Case| {
            let shape = Shape::new(hosts, partitions_per_host, case.workers);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let house = House::in_memory(shape);
            let house = if linked { house.linked_by_memory() } else { house };
            runtime.block_on(check(&house, case, &mut seen));
            Ok(())
        };
        if let Err(failure) = TestRunner::new(config).run(&any_case(), run) {
            panic!(
                "{hosts} hosts with {partitions_per_host} partitions each, \
                 linked by memory: {linked}: {failure}"
            );
        }
    }
    let seen = seen.into_inner().unwrap();
    println!("{seen:?}");
    for (count, what) in [
        (seen.committed, "committed"),
        (seen.reverted, "reverted"),
        (seen.strayed, "strayed"),
        (seen.expired, "expired when they were executed"),
        (seen.refused, "refused because they were late"),
        (seen.duplicates, "submitted more than once"),
        (seen.multi_partition, "of several partitions"),
        (seen.sightings, "snapshots read"),
    ] {
        assert!(count > 0, "no transactions {what}: {seen:?}");
    }
}

async fn check(house: &House, case: Case, seen: &mut Seen) {
    let running = house.start().await;
    let mut load = Load::new(&running, case.submission, History::default()).await;
    for round in &case.rounds {
        load.run(&running, round).await;
    }
    let status = running.settled().await;
    let replayed = load.history.check(house, &status);
    running.stop().await;
    let History { told, sightings, .. } = load.history;

    seen.committed += replayed.outcomes.committed;
    seen.reverted += replayed.outcomes.reverted.values().sum::<u64>();
    seen.strayed += replayed.outcomes.strayed;
    seen.expired += replayed.outcomes.invalid.get(&ErrorCode::Expired).copied().unwrap_or(0);
    seen.refused += told.values().flatten().filter(|result| result.is_err()).count() as u64;
    seen.duplicates += told.values().filter(|results| results.len() > 1).count() as u64;
    seen.multi_partition += status.partitions.iter().map(|p| p.multi_partition).sum::<u64>();
    seen.sightings += sightings.len() as u64;
}
