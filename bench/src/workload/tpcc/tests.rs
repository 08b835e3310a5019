use std::collections::BTreeSet;

use parsec_protocol::{ErrorCode, Outcome};
use parsec_runtimes::procedures::tpcc::PAGE;
use parsec_runtimes::procedures::tpcc::rows::{Entered, Order, Queue, Sequence};

use super::*;
use crate::testing::{Host, values};
use crate::workload::{AuditFailure, Commits};

fn options(mix: Mix) -> TpccOptions {
    TpccOptions {
        seed: 6,
        mix,
        warehouses: 2,
        items: 200,
        customers: 40,
        conflict: 0,
        remote: Remote::Lines,
        remote_lines: 1,
        declared: false,
    }
}

fn ran(options: TpccOptions, spread: Option<Spread>, count: usize) -> (Tpcc, Host) {
    let mut workload = Tpcc::new(options, spread).unwrap();
    let mut host = Host::new();
    host.set_up(&workload);
    let mut reverted = 0;
    for load in workload.build(count, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        match receipt.outcome {
            Outcome::Committed => {}
            Outcome::Reverted(ErrorCode::Refused) => reverted += 1,
            _ => panic!("{receipt:?}"),
        }
    }
    assert_eq!(workload.reverts(), Reverts::Exactly(reverted));
    (workload, host)
}

#[test]
fn everything_commits_or_rolls_back_as_foreseen_and_the_audit_is_exact() {
    for mix in [Mix::Full, Mix::NewOrderPayment] {
        let (workload, host) = ran(options(mix), None, 1_500);
        assert!(matches!(workload.reverts(), Reverts::Exactly(1..)));
        let audit = workload.audit();
        let found = values(&host, &audit);
        audit.check(&found, Commits::All).unwrap();
        audit.check(&found, Commits::ANY).unwrap();
        let before = Tpcc::new(options(mix), None).unwrap().audit();
        assert!(before.check(&values(&host, &before), Commits::ANY).is_err());
    }
}

#[test]
fn deliveries_deliver() {
    let (workload, host) = ran(options(Mix::Full), None, 1_500);
    let place = Place { database: 6, warehouse: 1, district: 4 };
    let queue = Queue::decode(&host.value(&place.queue()).unwrap()).unwrap();
    assert!(queue.delivered[3] > population::delivered(&workload.options), "{queue:?}");
}

#[test]
fn the_mix_is_that_of_the_specification() {
    let mut workload = Tpcc::new(options(Mix::Full), None).unwrap();
    let mut counts = BTreeMap::<&str, u32>::new();
    let mut remote = BTreeMap::<&str, u32>::new();
    for _ in 0..10_000 {
        let (kind, is_remote) = match workload.next_call().1 {
            Call::NewOrder(order) => {
                let away = |item: &OrderedItem| item.supplier != order.warehouse;
                ("new-order", order.items.iter().any(away))
            }
            Call::Payment(payment) => ("payment", payment.customer_warehouse != payment.warehouse),
            Call::OrderStatus { .. } => ("order-status", false),
            Call::Delivery { .. } => ("delivery", false),
            Call::StockLevel { .. } => ("stock-level", false),
        };
        *counts.entry(kind).or_default() += 1;
        *remote.entry(kind).or_default() += u32::from(is_remote);
    }
    let around = |count: u32, expected: u32| count.abs_diff(expected) * 10 < expected * 2;
    assert!(around(counts["new-order"], 4_500) && around(counts["payment"], 4_300), "{counts:?}");
    for kind in ["order-status", "delivery", "stock-level"] {
        assert!(around(counts[kind], 400), "{counts:?}");
    }
    // An order of ten lines on average, each remote with 1 %.
    assert!(around(remote["new-order"], 430) && around(remote["payment"], 645), "{remote:?}");
}

#[test]
fn shares_of_remote_transactions_are_as_asked_for() {
    let remote = |percent| {
        let options =
            TpccOptions { remote: Remote::Share(percent), ..options(Mix::NewOrderPayment) };
        let mut workload = Tpcc::new(options, None).unwrap();
        let is_remote = |call: &Call| match call {
            Call::NewOrder(order) => {
                order.items.iter().any(|item| item.supplier != order.warehouse)
            }
            Call::Payment(payment) => payment.customer_warehouse != payment.warehouse,
            _ => panic!("only these two"),
        };
        (0..1_000).filter(|_| is_remote(&workload.next_call().1)).count()
    };
    assert_eq!((remote(0), remote(100)), (0, 1_000));
    assert!((50..150).contains(&remote(10)));
}

#[test]
fn remote_orders_have_as_many_lines_from_the_other_warehouse_as_asked_for() {
    for remote_lines in [1, 6, 15] {
        let options = TpccOptions {
            remote: Remote::Share(100),
            remote_lines,
            ..options(Mix::NewOrderPayment)
        };
        let mut workload = Tpcc::new(options, None).unwrap();
        for _ in 0..200 {
            let Call::NewOrder(order) = workload.next_call().1 else { continue };
            let away = order.items.iter().filter(|item| item.supplier != order.warehouse);
            assert_eq!(away.count(), order.items.len().min(remote_lines.into()));
        }
    }
}

#[test]
fn spread_transactions_touch_as_many_partitions_as_they_claim() {
    let map = PartitionMap::even(2).unwrap();
    for percent in [0, 10, 100] {
        let spread = Some(Spread { partitions: 2, percent, participants: 2 });
        let options = TpccOptions { warehouses: 4, ..options(Mix::NewOrderPayment) };
        let mut workload = Tpcc::new(options, spread).unwrap();
        let mut host = Host::new();
        host.set_up(&workload);
        let mut several = 0;
        for load in workload.build(300, &|_| {}) {
            let footprint = host.footprint(&load.transaction);
            let keys = footprint.accesses().iter().map(|access| &access.key);
            let partitions: BTreeSet<_> =
                keys.filter(|key| !key.is_replicated()).map(|key| map.owner(key)).collect();
            several += u64::from(partitions.len() > 1);
        }
        // An order may have its only line from elsewhere rolled back: the row is named all the same.
        assert_eq!(workload.multi_partition(), Some(several), "{percent}");
        assert!(several.abs_diff(3 * u64::from(percent)) < 20, "{several} of {percent} %");
    }
}

#[test]
fn declared_footprints_are_what_is_touched() {
    let options = TpccOptions { declared: true, ..options(Mix::NewOrderPayment) };
    let mut workload = Tpcc::new(options, None).unwrap();
    let mut host = Host::new();
    host.set_up(&workload);
    for LoadTransaction { mut transaction, .. } in workload.build(200, &|_| {}) {
        // The host stops if one strays outside of what was declared.
        host.execute(&transaction);
        let declared = transaction.footprint.take().expect("all are declared");
        assert!(declared.accesses().len() >= 6);
    }
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let (workload, host) = ran(options(Mix::Full), None, 600);
    let audit = workload.audit();
    let keys: Vec<_> = audit.keys().cloned().collect();
    let sound = values(&host, &audit);
    let place = Place { database: 6, warehouse: 1, district: 3 };
    let with = |key: Key, change: &dyn Fn(&[u8]) -> Option<Value>, commits| {
        let mut values = sound.clone();
        // A row that several districts share is asked for by each of them.
        for (value, _) in values.iter_mut().zip(&keys).filter(|(_, other)| **other == key) {
            *value = change(value.as_ref().unwrap());
        }
        match audit.check(&values, commits) {
            Err(AuditFailure::Rule { rule, .. }) => rule,
            other => panic!("{key}: {other:?}"),
        }
    };
    let flip = |at: usize| {
        move |row: &[u8]| {
            let mut row = row.to_vec();
            row[at] ^= 1;
            Some(row.into())
        }
    };
    let order = |change: fn(&mut Order)| {
        move |row: &[u8]| {
            let mut order = Order::decode(row).unwrap();
            change(&mut order);
            Some(order.encode())
        }
    };
    let any = Commits::ANY;
    let token = workload.book_token(place);
    let fails = |key: Key, change: &dyn Fn(&[u8]) -> Option<Value>, part: &str| {
        let rule = with(key, change, any);
        assert!(rule.contains(part), "{rule}, not {part}");
    };
    fails(place.warehouse_ytd(), &flip(31), "condition 1");
    fails(place.district_ytd(), &flip(31), "condition 1");
    fails(place.sequence(), &flip(3), "condition 2");
    fails(place.queue(), &flip(11), "conditions 3 and 5");
    fails(place.order(1), &|_| None, "not lost");
    fails(place.order(token), &|_| None, "condition 2");
    fails(place.order(token), &order(|order| order.id += 1), "condition 2");
    fails(place.order(token), &order(|order| order.lines.truncate(4)), "that were ordered");
    fails(place.order(token), &|row| Some(row[..row.len() - 1].to_vec().into()), "condition 4");
    fails(place.order(1), &order(|order| order.carrier = 0), "condition 7");
    let undelivered = |order: &mut Order| (order.carrier, order.delivered) = (0, 0);
    fails(place.order(2), &order(undelivered), "conditions 3 and 5");
    let stock = parsec_runtimes::procedures::tpcc::keys::stock(6, 1, 17);
    fails(stock.clone(), &|_| None, "stock");
    fails(stock.clone(), &|row| Some([&row[..6], &[0xff; 4], &row[10..]].concat().into()), "stock");
    assert!(with(stock, &flip(9), Commits::All).contains("stock"));
    let moved = |row: &[u8]| {
        let mut sequence = Sequence::decode(row).unwrap();
        let last = sequence.next - 1;
        sequence.remember(last, Entered { token, customer: 0 });
        Some(sequence.encode())
    };
    fails(place.sequence(), &moved, "conditions 2 and 3");
    let forgotten = |row: &[u8]| {
        let mut sequence = Sequence::decode(row).unwrap();
        sequence.paged += PAGE;
        Some(sequence.encode())
    };
    fails(place.sequence(), &forgotten, "conditions 2 and 3");
}

impl Tpcc {
    /// The token of the last order that was built for a district.
    fn book_token(&self, place: Place) -> u64 {
        self.book.last_token(&place)
    }
}

#[test]
fn impossible_options_are_refused() {
    let full = options(Mix::Full);
    let knob = |options, spread| match Tpcc::new(options, spread).unwrap_err() {
        BadWorkload::Value { knob, .. } => knob,
        BadWorkload::Participants { .. } => "participants",
        other => panic!("{other}"),
    };
    assert_eq!(knob(TpccOptions { warehouses: 0, ..full }, None), "warehouses");
    assert_eq!(knob(TpccOptions { items: 99, ..full }, None), "items");
    assert_eq!(knob(TpccOptions { customers: 3_001, ..full }, None), "customers");
    assert_eq!(knob(TpccOptions { conflict: 101, ..full }, None), "conflict");
    for remote_lines in [0, 16] {
        assert_eq!(knob(TpccOptions { remote_lines, ..full }, None), "remote_lines");
    }
    let alone = TpccOptions { warehouses: 1, remote: Remote::Share(1), ..full };
    assert_eq!(knob(alone, None), "warehouses");
    let three = Spread { partitions: 2, percent: 1, participants: 3 };
    assert_eq!(knob(full, Some(three)), "participants");
    let uneven = Spread { partitions: 4, percent: 1, participants: 2 };
    assert_eq!(knob(full, Some(uneven)), "warehouses");
}
