//! What a spread promises: which partitions the transactions touch, and that all is well with them.

use std::collections::{BTreeMap, BTreeSet};

use parsec_protocol::{Footprint, PartitionId, PartitionMap};

use super::*;
use crate::draw::{BadWorkload, Skew};
use crate::testing::{CHAIN_ID, Host};

const PARTITIONS: u16 = 4;
const LOAD: usize = 600;

fn options(accounts: u32, skew: Skew) -> PaymentOptions {
    PaymentOptions { seed: 11, accounts, skew, conflict: 0 }
}

fn spread(percent: u8, participants: u16) -> Spread {
    Spread { partitions: PARTITIONS, percent, participants }
}

/// The partitions of the keys that stand on one each.
fn touched(footprint: &Footprint) -> BTreeSet<PartitionId> {
    let map = PartitionMap::even(PARTITIONS).unwrap();
    let keys = footprint.accesses().iter().map(|access| &access.key);
    keys.filter(|key| !key.is_replicated()).map(|key| map.owner(key)).collect()
}

fn quietly(workload: &mut dyn Workload) -> Vec<LoadTransaction> {
    workload.build(LOAD, &|_| {})
}

/// How many transactions touch how many partitions; fails if a partition is left out.
fn counts(footprints: &[Footprint]) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for footprint in footprints {
        let touched = touched(footprint);
        *counts.entry(touched.len()).or_default() += 1;
        seen.extend(touched);
    }
    assert_eq!(seen.len(), usize::from(PARTITIONS), "all partitions have a share");
    counts
}

fn check(
    footprints: &[Footprint],
    Spread { percent, participants, .. }: Spread,
    multi_partition: u64,
) {
    let counts = counts(footprints);
    let several = usize::from(participants);
    let of = |partitions| counts.get(&partitions).copied().unwrap_or(0);
    assert_eq!(of(1) + of(several), LOAD as u64, "{counts:?}");
    assert_eq!(of(several), multi_partition, "{counts:?}");
    let expected = LOAD as u64 * u64::from(percent) / 100;
    let free = if percent % 100 == 0 { 0 } else { LOAD as u64 / 15 };
    assert!(multi_partition.abs_diff(expected) <= free, "{multi_partition} of {expected}");
}

#[test]
fn native_transfers_touch_as_many_partitions_as_they_claim() {
    let host = Host::new();
    for participants in 2..=4 {
        for percent in [0, 10, 50, 100] {
            let spread = spread(percent, participants);
            let mut workload = NativeTransfer::spread(options(64, Skew::Uniform), spread).unwrap();
            let footprints: Vec<_> = quietly(&mut workload)
                .iter()
                .map(|load| host.admit(&load.transaction).1.expect("the payload tells it"))
                .collect();
            assert!(footprints.iter().all(|footprint| footprint.accesses().len() == 4));
            check(&footprints, spread, workload.multi_partition());
        }
    }
}

/// The footprints are those that a host finds when it runs the transfers.
#[test]
fn erc20_transfers_touch_as_many_partitions_as_they_claim() {
    for (participants, percent) in [(2, 0), (2, 10), (2, 100), (3, 50), (3, 100)] {
        let (mut host, spread) = (Host::new(), spread(percent, participants));
        let options = Erc20Options { payments: options(128, Skew::Uniform), chain_id: CHAIN_ID };
        let mut workload = Erc20::spread(options, spread).unwrap();
        for load in workload.setup().into_iter().flat_map(|stage| stage.transactions) {
            assert!(host.execute(&load.transaction).is_committed());
        }
        let mut footprints = Vec::new();
        for LoadTransaction { transaction, .. } in quietly(&mut workload) {
            footprints.push(host.footprint(&transaction));
            assert!(host.execute(&transaction).is_committed());
        }
        check(&footprints, spread, workload.multi_partition());
        let audit = workload.audit();
        let values: Vec<_> = audit.keys().map(|key| host.value(key)).collect();
        audit.check(&values, Commits::All).unwrap();
    }
}

#[test]
fn skewed_accounts_are_spread_as_well() {
    let host = Host::new();
    let spread = spread(50, 3);
    let options = options(400, Skew::Zipf { exponent: 0.99 });
    let mut workload = NativeTransfer::spread(options, spread).unwrap();
    let footprints: Vec<_> =
        quietly(&mut workload).iter().filter_map(|load| host.admit(&load.transaction).1).collect();
    check(&footprints, spread, workload.multi_partition());
    let mut uses = BTreeMap::<_, u64>::new();
    let keys = footprints.into_iter().flat_map(Footprint::into_accesses).map(|access| access.key);
    keys.for_each(|key| *uses.entry(key).or_default() += 1);
    let hottest = uses.values().max().copied().unwrap();
    // Evenly it would be 6 for each.
    assert!(hottest > 60, "{hottest}");
}

#[test]
fn a_seed_and_a_spread_decide_everything() {
    let make = |spread| NativeTransfer::spread(options(64, Skew::Uniform), spread).unwrap();
    let (mut one, mut same, mut other) =
        (make(spread(50, 2)), make(spread(50, 2)), make(spread(50, 3)));
    let load = quietly(&mut one);
    assert_eq!(load, quietly(&mut same));
    assert_ne!(load, quietly(&mut other));
    let mut parts = make(spread(50, 2));
    let mut built = parts.build(7, &|_| {});
    built.extend(parts.build(LOAD - 7, &|_| {}));
    assert_eq!(load, built);
}

#[test]
fn impossible_spreads_are_refused() {
    let native = |accounts, spread| {
        NativeTransfer::spread(options(accounts, Skew::Uniform), spread).unwrap_err()
    };
    assert!(matches!(native(64, spread(1, 5)), BadWorkload::Participants { most: 4, .. }));
    assert!(matches!(native(64, spread(1, 1)), BadWorkload::Participants { .. }));
    assert!(matches!(native(64, spread(101, 2)), BadWorkload::Percent { percent: 101 }));
    assert!(matches!(native(63, spread(1, 2)), BadWorkload::Classes { classes: 4, .. }));
    assert!(matches!(native(12, spread(1, 2)), BadWorkload::Classes { least: 16, .. }));
    let skewed = NativeTransfer::spread(options(64, Skew::Turns), spread(1, 2));
    assert!(matches!(skewed, Err(BadWorkload::SpreadSkew { .. })));
    let erc20 = Erc20Options { payments: options(64, Skew::Uniform), chain_id: CHAIN_ID };
    let erc20 = Erc20::spread(erc20, spread(1, 4));
    assert!(matches!(erc20, Err(BadWorkload::Participants { most: 3, .. })));
}
