//! What the model has to get right whatever the costs are.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_bench::workload::{Spread, WorkloadName, WorkloadSpec};
use parsec_oracle::Oracle;
use parsec_protocol::{Key, PartitionMap, Value};
use proptest::prelude::*;

use crate::{Admission, Cost, Costs, Link, Load, Machine, Options, Outcome, Simulation, Stage};

/// No limit, and no way.
const NEAR: Link =
    Link { bits_per_second: None, latency_us: 20.0, packet_bytes: 1_432, header_bytes: 106 };

fn spec(workload: WorkloadName, accounts: u32) -> WorkloadSpec {
    WorkloadSpec { accounts: Some(accounts), ..WorkloadSpec::new(workload, 11, 0xcbdc) }
}

/// Transfers of which so many in 100 touch two of the partitions.
fn spread(partitions: u16, percent: u8, count: usize) -> Load {
    let spread = Spread { partitions, percent, participants: 2 };
    let spec = spec(WorkloadName::NativeTransfer, 400 * u32::from(partitions));
    Load::build(&WorkloadSpec { spread: Some(spread), ..spec }, count).unwrap()
}

fn options(hosts: u16) -> Options {
    Options {
        hosts,
        partitions_per_host: 1,
        workers_per_partition: 1,
        machine: Machine::apart(0.1, 4.0),
        link: NEAR,
        sync_us: 500.0,
        in_flight: 600,
        batch: 50,
        connections: 4,
        admission: Admission::Sequencer,
    }
}

/// So many microseconds for each transaction at a stage.
fn costs(of: &[(Stage, f64)]) -> Costs {
    Costs(of.iter().map(|(stage, micros)| (*stage, Cost::of_transaction(*micros))).collect())
}

fn run(load: &Load, costs: &Costs, options: Options) -> Outcome {
    Simulation::new(load, costs, options).unwrap().run().unwrap()
}

#[test]
fn without_conflicts_throughput_is_capacity_by_cost() {
    let load = spread(4, 0, 8_000);
    // Four hosts with a tenth of a core, 50 µs in all: 8,000 a second.
    let costs = costs(&[(Stage::Execution, 30.0), (Stage::Storage, 15.0), (Stage::Messages, 5.0)]);
    let outcome = run(&load, &costs, options(4));
    assert!((7_700.0..=8_300.0).contains(&outcome.tps), "{outcome:?}");
    assert_eq!(outcome.saturated(), "host CPU: scheduling, execution");
    assert_eq!(outcome.multi_partition, 0.0);
}

#[test]
fn whatever_stage_is_dear_is_what_is_used_up() {
    let load = spread(2, 20, 3_000);
    for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Generator) {
        let dear = if stage.is_of_sequencer() { 400.0 } else { 200.0 };
        let mut costs = costs(&[(Stage::Execution, 1.0), (Stage::Admission, 1.0)]);
        costs.0.insert(stage, Cost::of_transaction(dear));
        let machine = Machine::apart(0.1, 1.0);
        let options = Options { machine, in_flight: 100, batch: 5, ..options(2) };
        let outcome = run(&load, &costs, options);
        assert!(outcome.used[0].stage == Some(stage), "{stage:?}: {:?}", outcome.used);
        assert!(outcome.saturated().contains(stage.name()), "{stage:?}: {:?}", outcome.used);
    }
}

#[test]
fn what_frames_and_epochs_and_parts_cost_counts() {
    let load = spread(4, 100, 3_000);
    for stage in Stage::ALL {
        let units = [(stage.part(), 0), (stage.event(), 1)];
        for (_, unit) in units.into_iter().filter(|(name, _)| name.is_some()) {
            let mut costs = costs(&[(Stage::Execution, 1.0)]);
            let cost = match unit {
                0 => Cost { part: 500.0, ..costs.of(stage) },
                _ if stage.is_of_sequencer() => Cost { event: 20_000.0, ..costs.of(stage) },
                _ => Cost { event: 4_000.0, ..costs.of(stage) },
            };
            costs.0.insert(stage, cost);
            let outcome = run(&load, &costs, options(4));
            let most = outcome.used[0].clone();
            assert_eq!(most.stage, Some(stage), "{stage:?}, {unit}: {:?}", outcome.used);
        }
    }
}

#[test]
fn a_small_link_is_the_limit() {
    let load = spread(2, 50, 3_000);
    let costs = costs(&[(Stage::Execution, 10.0)]);
    let ample = run(&load, &costs, options(2));
    let link = Link { bits_per_second: Some(2e6), ..NEAR };
    let tight = run(&load, &costs, Options { link, ..options(2) });
    assert!(tight.saturated().contains("link"), "{:?}", tight.used);
    assert!(tight.tps < ample.tps / 2.0, "{} {}", tight.tps, ample.tps);
    let busiest = tight.wire.sequencer_sent_mbit.max(tight.wire.sequencer_received_mbit);
    assert!((1.8..=2.1).contains(&busiest), "{:?}", tight.wire);
}

#[test]
fn latency_is_no_less_than_the_way() {
    let load = spread(2, 100, 3_000);
    let link = Link { latency_us: 5_000.0, ..NEAR };
    let one = Options { in_flight: 4, batch: 1, link, ..options(2) };
    let outcome = run(&load, &Costs::default(), one);
    // To the sequencer, the sync, to the hosts, to the home, to the sequencer, to the client.
    assert!((25.5..=30.0).contains(&outcome.p50_ms), "{outcome:?}");
    assert!(outcome.saturated().starts_with("nothing"));
}

#[test]
fn dearer_is_slower_and_more_hosts_are_not() {
    let load = spread(8, 30, 4_000);
    let tps = |hosts: u16, micros: f64| {
        let costs = costs(&[(Stage::Execution, micros), (Stage::Storage, 10.0)]);
        let options = Options { hosts, partitions_per_host: 8 / hosts, ..options(1) };
        run(&load, &costs, options).tps
    };
    assert!(tps(2, 40.0) > 1.2 * tps(2, 80.0));
    assert!(tps(8, 40.0) > 3.0 * tps(2, 40.0));
}

#[test]
fn gateways_take_the_load_of_admission_off_the_sequencer() {
    let load = Load::build(&spec(WorkloadName::Erc20, 300), 4_000).unwrap();
    let costs = costs(&[(Stage::Admission, 1_000.0), (Stage::Execution, 2.0)]);
    let machine = Machine::apart(0.5, 1.0);
    let built = run(&load, &costs, Options { machine, ..options(2) });
    assert_eq!(built.saturated(), "sequencer CPU: admission");
    let admission = Admission::Gateways(4);
    let gateways = run(&load, &costs, Options { machine, admission, ..options(2) });
    assert_eq!(gateways.saturated(), "gateway CPU: admission");
    assert!((3.5..4.2).contains(&(gateways.tps / built.tps)), "{} {}", gateways.tps, built.tps);
    assert_eq!(
        gateways.committed, gateways.answered,
        "each sender's transactions keep their order"
    );
}

#[test]
fn the_same_input_gives_the_same_outcome() {
    let load = spread(4, 40, 2_500);
    let costs = costs(&[(Stage::Execution, 33.0), (Stage::Ordering, 7.0)]);
    assert_eq!(run(&load, &costs, options(4)), run(&load, &costs, options(4)));
}

/// Holds what was ordered against the serial oracle.
fn hold_against_serial_order(load: &Load, costs: &Costs, options: Options) {
    let simulation = Simulation::new(load, costs, options).unwrap();
    let (outcome, ordered) = simulation.run_through().unwrap();
    assert_eq!(outcome.answered, load.len() as u64);
    let before: BTreeMap<Key, Value> = (*load.state).clone();
    let mut oracle = Oracle::with_state(&load.runtimes, before.clone()).watching_ids();
    let mut receipts = Vec::new();
    for (record, batches) in &ordered.epochs {
        receipts.extend(oracle.apply(record, batches).unwrap().into_iter().map(Arc::new));
    }
    // Clients hear of a transaction that strayed when it did not.
    receipts.retain(|receipt| receipt.outcome.is_final());
    assert_eq!(ordered.receipts, receipts);
    let mut after = before;
    for (key, value) in ordered.changed {
        match value {
            Some(value) => after.insert(key, value),
            None => after.remove(&key),
        };
    }
    assert_eq!(oracle.differences(&after), Vec::<Key>::new());
}

#[test]
fn what_is_committed_is_what_the_serial_order_commits() {
    let costs = costs(&[(Stage::Execution, 20.0), (Stage::Ordering, 3.0), (Stage::Log, 2.0)]);
    let hot = Load::build(&spec(WorkloadName::Erc20, 12), 3_000).unwrap();
    hold_against_serial_order(&hot, &costs, options(5));
    let admission = Admission::Gateways(3);
    hold_against_serial_order(&hot, &costs, Options { admission, ..options(3) });
    // Each mint writes a slot that depends on those before it.
    let swaps = Load::build(&spec(WorkloadName::Swap, 40), 2_500).unwrap();
    hold_against_serial_order(&swaps, &costs, options(4));
}

#[test]
fn tokens_are_spread_over_all_partitions() {
    let load = Load::build(&spec(WorkloadName::Erc20, 600), 4_000).unwrap();
    let map = PartitionMap::even(8).unwrap();
    let mut owners: Vec<_> = load
        .items
        .iter()
        .flat_map(|item| item.candidate.footprint.accesses())
        .filter(|access| !access.key.is_replicated())
        .map(|access| map.owner(&access.key))
        .collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 8, "one popular token is not one hot partition");
    let costs = costs(&[(Stage::Execution, 50.0)]);
    let outcome = run(&load, &costs, options(8));
    assert!(outcome.multi_partition > 0.9, "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_settings_the_order_is_serial(
        hosts in 1..6_u16,
        partitions_per_host in 1..3_u16,
        workers_per_partition in 1..4_u16,
        cores in 0.02..3.0_f64,
        latency_us in 1.0..3_000.0_f64,
        execution in 0.0..200.0_f64,
        events in 0.0..50.0_f64,
        accounts in 8..60_u32,
    ) {
        let load = Load::build(&spec(WorkloadName::NativeTransfer, accounts), 700).unwrap();
        let mut costs = costs(&[(Stage::Execution, execution)]);
        for stage in Stage::ALL {
            let cost = costs.of(stage);
            costs.0.insert(stage, Cost { event: events, ..cost });
        }
        let options = Options {
            hosts,
            partitions_per_host,
            workers_per_partition,
            machine: Machine::apart(cores, 1.0),
            link: Link { latency_us, ..NEAR },
            in_flight: 150,
            batch: 20,
            ..options(hosts)
        };
        hold_against_serial_order(&load, &costs, options);
    }
}
