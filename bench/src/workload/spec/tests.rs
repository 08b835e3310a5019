//! What is promised of every workload by its name, whatever the knobs.

use parsec_protocol::Outcome;

use super::*;
use crate::testing::{CHAIN_ID, Host, values};
use crate::workload::{Commits, LoadTransaction, Reverts};

/// A workload small enough to be run many times.
fn small(workload: WorkloadName) -> WorkloadSpec {
    let mut spec = WorkloadSpec::new(workload, 9, CHAIN_ID);
    let has = |knob| workload.knobs().contains(&knob);
    spec.accounts = has("accounts").then_some(48);
    spec.warehouses = has("warehouses").then_some(2);
    spec.items = has("items").then_some(200);
    spec.customers = has("customers").then_some(40);
    spec.rounds = has("rounds").then_some(10);
    spec
}

fn built(spec: &WorkloadSpec) -> Vec<LoadTransaction> {
    let mut workload = spec.open().unwrap_or_else(|error| panic!("{spec}: {error}"));
    let setup = workload.setup().into_iter().flat_map(|stage| stage.transactions);
    let mut all: Vec<_> = setup.collect();
    all.extend(workload.build(120, &|_| {}));
    all
}

/// The spec with another value of a knob than it has by itself.
fn turned(spec: &WorkloadSpec, knob: &str) -> WorkloadSpec {
    let mut spec = spec.clone();
    let spread = Spread { partitions: 2, percent: 50, participants: 2 };
    match knob {
        "accounts" => spec.accounts = Some(64),
        "skew" => spec.skew = Some(Skew::Zipf { exponent: 0.5 }),
        "conflict" => spec.conflict = Some(30),
        "spread" => spec.spread = Some(spread),
        "read" => spec.read = Some(33),
        "footprint" if spec.workload == WorkloadName::Tpcc => {
            spec.footprint = Some(FootprintFrom::Discovered);
        }
        "footprint" if spec.workload == WorkloadName::Nft => {
            spec.footprint = Some(FootprintFrom::Discovered);
        }
        "footprint" => spec.footprint = Some(FootprintFrom::Declared),
        "tokens" => spec.tokens = Some(4),
        "signed" => spec.signed = Some(true),
        "keys" => spec.keys = Some(4),
        "field_bytes" => spec.field_bytes = Some(12),
        "warehouses" => spec.warehouses = Some(4),
        "items" => spec.items = Some(300),
        "customers" => spec.customers = Some(50),
        "remote" => spec.remote = Some(100),
        "remote_lines" => {
            spec.remote = spec.workload.knobs().contains(&"remote").then_some(100);
            spec.remote_lines = Some(3);
        }
        "rounds" => spec.rounds = Some(11),
        other => panic!("no test turns {other}"),
    }
    spec
}

fn run(spec: &WorkloadSpec) {
    let mut workload = spec.open().unwrap_or_else(|error| panic!("{spec}: {error}"));
    let mut host = Host::new();
    host.set_up(&*workload);
    let mut reverted = 0;
    for load in workload.build(120, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        match (receipt.outcome.clone(), workload.reverts()) {
            (Outcome::Committed, _) => {}
            (Outcome::Reverted(_), Reverts::Exactly(_)) => reverted += 1,
            (Outcome::Reverted(code), Reverts::Perhaps(tolerated)) if code == tolerated => {
                reverted += 1;
            }
            _ => panic!("{spec}: {receipt:?}"),
        }
    }
    let commits = match workload.reverts() {
        Reverts::Exactly(expected) => {
            assert_eq!(reverted, expected, "{spec}");
            Commits::All
        }
        _ if reverted == 0 => Commits::All,
        _ => Commits::Between { least: 120 - reverted, most: 120 - reverted },
    };
    let audit = workload.audit();
    audit.check(&values(&host, &audit), commits).unwrap_or_else(|error| panic!("{spec}: {error}"));
}

#[test]
fn every_workload_runs_and_passes_its_audit_with_every_knob() {
    for name in WorkloadName::ALL {
        run(&small(name));
        for knob in name.knobs() {
            run(&turned(&small(name), knob));
        }
    }
}

#[test]
fn every_knob_makes_a_difference() {
    for name in WorkloadName::ALL {
        let plain = built(&small(name));
        assert_eq!(plain, built(&small(name)), "{name}: the same seed gives the same bytes");
        let other = WorkloadSpec { seed: 10, ..small(name) };
        let shared = built(&other).into_iter().filter(|one| plain.contains(one)).count();
        let contract = usize::from(name == WorkloadName::LuaPay);
        assert_eq!(shared, contract, "{name}: runs with different seeds would meet");
        for knob in name.knobs() {
            let turned = turned(&small(name), knob);
            if turned.footprint == Some(FootprintFrom::Discovered) {
                // It is so by itself.
                assert_eq!(plain, built(&turned));
            } else {
                assert_ne!(plain, built(&turned), "{name} ignores {knob}");
            }
        }
    }
}

#[test]
fn a_knob_that_a_workload_does_not_have_is_refused() {
    let every: std::collections::BTreeSet<_> =
        WorkloadName::ALL.iter().flat_map(|name| name.knobs()).copied().collect();
    let given: Vec<_> = small(WorkloadName::Nothing).given();
    assert_eq!(every.len(), given.len(), "each knob belongs to some workload");
    for workload in WorkloadName::ALL {
        for knob in every.iter().copied().filter(|knob| !workload.knobs().contains(knob)) {
            let refused = turned(&small(workload), knob).open().err();
            assert_eq!(refused, Some(BadWorkload::Knob { workload, knob }));
        }
    }
}

#[test]
fn impossible_values_are_refused() {
    use WorkloadName::{Erc20, LuaPay, NativeTransfer, Nft, Smallbank, Tpcc, TpccNp, YcsbA};
    let refused = |change: fn(&mut WorkloadSpec), workload| {
        let mut spec = small(workload);
        change(&mut spec);
        spec.open().err().unwrap_or_else(|| panic!("{spec} is possible"))
    };
    let share = refused(|spec| spec.conflict = Some(101), Erc20);
    assert_eq!(share, BadWorkload::Share { knob: "conflict", percent: 101 });
    let share = refused(|spec| spec.read = Some(101), YcsbA);
    assert_eq!(share, BadWorkload::Share { knob: "read", percent: 101 });
    let both = |spec: &mut WorkloadSpec| {
        *spec = turned(&turned(spec, "spread"), "conflict");
    };
    assert!(matches!(refused(both, LuaPay), BadWorkload::Together { other: "conflict", .. }));
    let both = |spec: &mut WorkloadSpec| *spec = turned(&turned(spec, "tokens"), "conflict");
    assert!(matches!(refused(both, Erc20), BadWorkload::Together { .. }));
    let declared = |spec: &mut WorkloadSpec| spec.footprint = Some(FootprintFrom::Declared);
    let discovered = |spec: &mut WorkloadSpec| spec.footprint = Some(FootprintFrom::Discovered);
    for (change, workload) in [
        (declared as fn(&mut _), Nft),
        (declared, Tpcc),
        (discovered, Smallbank),
        (discovered, YcsbA),
        (discovered, NativeTransfer),
    ] {
        assert!(matches!(refused(change, workload), BadWorkload::Footprint { .. }), "{workload}");
    }
    let seven = refused(|spec| spec.tokens = Some(7), Erc20);
    assert!(matches!(seven, BadWorkload::Value { knob: "tokens", value: 7, .. }));
    let lines = refused(|spec| spec.remote_lines = Some(2), TpccNp);
    assert!(matches!(lines, BadWorkload::Alone { knob: "remote_lines", .. }));
}

#[test]
fn specs_are_written_and_read_again() {
    for name in WorkloadName::ALL {
        assert_eq!(name.as_str().parse(), Ok(name));
        for spec in name.knobs().iter().map(|knob| turned(&small(name), knob)) {
            let json = serde_json::to_string(&spec).unwrap();
            assert!(json.contains(name.as_str()), "{json}");
            assert_eq!(serde_json::from_str::<WorkloadSpec>(&json).unwrap(), spec);
        }
    }
    assert!("erc21".parse::<WorkloadName>().unwrap_err().to_string().contains("erc20"));
    assert!(
        serde_json::from_str::<WorkloadSpec>(
            r#"{"workload":"erc20","seed":1,"chain_id":1,"acounts":5}"#
        )
        .is_err()
    );
    let shown = turned(&small(WorkloadName::Erc20), "skew").to_string();
    assert_eq!(shown, "erc20 (accounts 48, skew zipf 0.5, seed 9)");
    assert!("zipf".parse::<Skew>().unwrap_err().to_string().contains("uniform"));
}
