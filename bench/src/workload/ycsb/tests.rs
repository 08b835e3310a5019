use std::collections::BTreeMap;

use parsec_protocol::{Outcome, Value};

use super::*;
use crate::testing::{Host, values};
use crate::workload::{AuditFailure, Commits};

fn options(letter: Letter) -> YcsbOptions {
    let skew = Skew::Zipf { exponent: 0.99 };
    let records = PaymentOptions { seed: 4, accounts: 60, skew, conflict: 0 };
    YcsbOptions { letter, records, read: letter.read(), field_bytes: 10, declared: false }
}

const ALL: [Letter; 7] =
    [Letter::A, Letter::B, Letter::C, Letter::D, Letter::E, Letter::F, Letter::Many(10)];

fn ran(letter: Letter, count: usize) -> (Ycsb, Host) {
    let mut workload = Ycsb::new(options(letter), None).unwrap();
    let mut host = Host::new();
    host.set_up(&workload);
    for load in workload.build(count, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        assert_eq!(receipt.outcome, Outcome::Committed, "{letter}: {receipt:?}");
    }
    (workload, host)
}

#[test]
fn all_of_every_letter_commits_and_the_audit_is_exact() {
    for letter in ALL {
        let (workload, host) = ran(letter, 300);
        let audit = workload.audit();
        audit.check(&values(&host, &audit), Commits::All).unwrap();
        audit.check(&values(&host, &audit), Commits::ANY).unwrap();
        let before = Ycsb::new(options(letter), None).unwrap().audit();
        let missed = before.check(&values(&host, &before), Commits::ANY);
        let writes = matches!(letter, Letter::A | Letter::B | Letter::F | Letter::Many(_));
        assert_eq!(missed.is_err(), writes, "{letter}: writes that were not built");
    }
}

#[test]
fn mixes_are_those_of_the_letters() {
    for letter in ALL {
        let mut workload = Ycsb::new(options(letter), None).unwrap();
        let mut counts = BTreeMap::<&str, usize>::new();
        for planned in (0..2_000).flat_map(|_| workload.next_plan().1) {
            *counts
                .entry(match planned {
                    Planned::Read { .. } => "read",
                    Planned::Write { .. } => "write",
                    Planned::Insert { .. } => "insert",
                    Planned::Scan { .. } => "scan",
                })
                .or_default() += 1;
        }
        let all: usize = counts.values().sum();
        let reads = counts.get("read").or_else(|| counts.get("scan")).copied().unwrap_or(0);
        assert!((reads * 100 / all).abs_diff(letter.read().into()) <= 3, "{letter}: {counts:?}");
        assert_eq!(counts.contains_key("insert"), letter.inserts(), "{letter}");
        assert_eq!(counts.contains_key("scan"), letter == Letter::E, "{letter}");
    }
}

#[test]
fn late_records_are_read_most() {
    let mut workload = Ycsb::new(options(Letter::D), None).unwrap();
    let mut young = 0;
    for _ in 0..1_000 {
        if let Planned::Read { place } = workload.next_plan().1[0] {
            let latest = workload.options.records.accounts + workload.inserted;
            assert!(place < latest);
            young += u32::from(place + 10 >= latest);
        }
    }
    assert!(young > 500, "{young}");
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let (workload, host) = ran(Letter::Many(10), 200);
    let audit = workload.audit();
    let sound = values(&host, &audit);
    let fails = |change: &dyn Fn(&mut Vec<Option<Value>>), commits| {
        let mut values = sound.clone();
        change(&mut values);
        match audit.check(&values, commits) {
            Err(AuditFailure::Rule { rule, .. }) => rule,
            other => panic!("{other:?}"),
        }
    };
    let flip = |at: usize| {
        move |values: &mut Vec<Option<Value>>| {
            let mut row = values[0].take().unwrap().to_vec();
            row[at] ^= 1;
            values[0] = Some(row.into());
        }
    };
    let any = Commits::ANY;
    assert_eq!(fails(&|values| values[5] = None, any), "records don't vanish");
    assert_eq!(
        fails(&|values| values.swap(0, 59), Commits::All),
        "writes are neither lost nor made twice"
    );
    assert_eq!(fails(&|values| values[0] = Some("x".into()), any), "records keep their form");
    assert_eq!(fails(&flip(0), any), "writes are neither lost nor made twice");
    assert_eq!(fails(&flip(7), Commits::All), "writes are neither lost nor made twice");
    for at in [8, 15, 17, 30, 107] {
        assert_eq!(fails(&flip(at), any), "a field is what a write put there");
    }
}

#[test]
fn a_lost_update_is_found_though_the_counter_is_right() {
    let (workload, host) = ran(Letter::A, 400);
    let audit = workload.audit();
    let mut values = values(&host, &audit);
    // The field is as it was at first, as if the write to it had been overwritten by another's row.
    let row = values[0].take().unwrap();
    let version = Record::decode(&row).unwrap().version;
    assert!(version > 10, "a hot record");
    let fields = workload.options.first_fields(0);
    values[0] = Some(Record { version, fields: &fields }.encode());
    audit.check(&values, Commits::ANY).unwrap();
    let failure = audit.check(&values, Commits::All).unwrap_err();
    assert!(failure.to_string().contains("never written"), "{failure}");
}

#[test]
fn impossible_options_are_refused() {
    let refused = |options| Ycsb::new(options, None).unwrap_err();
    let a = options(Letter::A);
    let knob = |error| match error {
        BadWorkload::Value { knob, .. } => knob,
        other => panic!("{other}"),
    };
    assert_eq!(knob(refused(YcsbOptions { field_bytes: 7, ..a })), "field_bytes");
    assert_eq!(knob(refused(YcsbOptions { field_bytes: 1_001, ..a })), "field_bytes");
    assert_eq!(knob(refused(YcsbOptions { letter: Letter::Many(0), ..a })), "keys");
    assert_eq!(knob(refused(YcsbOptions { letter: Letter::Many(257), ..a })), "keys");
    assert_eq!(knob(refused(YcsbOptions { letter: Letter::Many(61), ..a })), "accounts");
}
