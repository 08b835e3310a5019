//! What every workload promises, checked on one host without network or disk.

use std::collections::{BTreeMap, BTreeSet};

use parsec_protocol::{Outcome, Value};
use proptest::prelude::*;

use super::audit::big_endian;
use super::*;
use crate::draw::Skew;
use crate::testing::{CHAIN_ID, Host, values};

fn options(seed: u64, accounts: u32) -> PaymentOptions {
    PaymentOptions { seed, accounts, skew: Skew::Zipf { exponent: 0.99 }, conflict: 0 }
}

fn native(seed: u64) -> Box<dyn Workload> {
    Box::new(NativeTransfer::new(options(seed, 20)).unwrap())
}

fn erc20(seed: u64) -> Box<dyn Workload> {
    let options = Erc20Options { payments: options(seed, 20), chain_id: CHAIN_ID };
    Box::new(Erc20::new(options).unwrap())
}

fn lua(seed: u64, signed: bool, declared: bool) -> Box<dyn Workload> {
    let options = LuaPayOptions { payments: options(seed, 20), signed, declared };
    Box::new(LuaPay::new(options).unwrap())
}

type Make = fn(u64) -> Box<dyn Workload>;
const ALL: [(&str, Make); 5] = [
    ("native", native),
    ("erc20", erc20),
    ("lua", |seed| lua(seed, false, false)),
    ("lua declared", |seed| lua(seed, false, true)),
    ("lua signed and declared", |seed| lua(seed, true, true)),
];

fn quietly(workload: &mut dyn Workload, count: usize) -> Vec<LoadTransaction> {
    workload.build(count, &|_| {})
}

#[test]
fn a_seed_decides_everything() {
    for (name, make) in ALL {
        let (mut one, mut same, mut other) = (make(1), make(1), make(2));
        let load = quietly(&mut *one, 300);
        assert_eq!(load, quietly(&mut *same, 300), "{name}");
        let payloads = |load: &[LoadTransaction]| -> BTreeSet<_> {
            load.iter().map(|load| load.transaction.payload.clone()).collect()
        };
        let shared = payloads(&load).intersection(&payloads(&quietly(&mut *other, 300))).count();
        assert_eq!(shared, 0, "{name}: runs with different seeds would meet");
        let setup = |workload: &dyn Workload| -> Vec<_> {
            workload.setup().into_iter().flat_map(|stage| stage.transactions).collect()
        };
        assert_eq!(setup(&*one), setup(&*same), "{name}");
    }
}

#[test]
fn a_load_can_be_built_in_parts() {
    for (name, make) in ALL {
        let (mut whole, mut parts) = (make(3), make(3));
        let mut built = quietly(&mut *parts, 10);
        built.extend(quietly(&mut *parts, 0));
        built.extend(quietly(&mut *parts, 40));
        assert_eq!(quietly(&mut *whole, 50), built, "{name}");
    }
}

#[test]
fn building_tells_how_far_it_is() {
    let told = std::sync::Mutex::new(Vec::new());
    native(1).build(10_000, &|done| told.lock().unwrap().push(done));
    assert_eq!(*told.lock().unwrap(), [0, 4_096, 8_192, 10_000]);
}

#[test]
fn all_transactions_are_admitted_under_ids_of_their_own() {
    for (name, make) in ALL {
        let mut workload = make(4);
        let mut all: Vec<_> =
            workload.setup().into_iter().flat_map(|stage| stage.transactions).collect();
        all.extend(quietly(&mut *workload, 200));
        let host = Host::new();
        let ids: BTreeSet<_> = all.iter().map(|load| host.admit(&load.transaction).0.id).collect();
        assert_eq!(ids.len(), all.len(), "{name}");
    }
}

#[test]
fn native_transfers_declare_their_two_keys() {
    let host = Host::new();
    for load in quietly(&mut *native(5), 50) {
        let footprint = host.admit(&load.transaction).1.expect("the payload tells it");
        assert_eq!(footprint.accesses().len(), 2);
    }
}

#[test]
fn erc20_nonces_are_dense_for_each_sender() {
    use alloy_consensus::{Transaction as _, TxEnvelope};
    use alloy_eips::Decodable2718;
    use alloy_primitives::Address;

    let settings = Erc20Options { payments: options(6, 20), chain_id: CHAIN_ID };
    let mut workload = Erc20::new(settings).unwrap();
    let addresses: Vec<_> = workload.addresses().collect();
    let host = Host::new();
    let mut next = BTreeMap::<u32, u64>::new();
    for load in quietly(&mut workload, 500) {
        let sender = load.sender.expect("nonces give an order");
        let raw = &load.transaction.payload;
        let signed = TxEnvelope::decode_2718(&mut &raw[..]).unwrap();
        assert_eq!(signed.nonce(), *next.entry(sender).or_default());
        *next.entry(sender).or_default() += 1;
        assert_eq!(signed.chain_id(), Some(CHAIN_ID));
        assert_eq!(signed.to(), Some(workload.token()));
        let recovered = Address::from_slice(&host.admit(&load.transaction).0.sender);
        assert_eq!(recovered, addresses[sender as usize]);
    }
    assert!(next.values().any(|sent| *sent > 30), "a skewed load has a busy sender: {next:?}");
}

#[test]
fn every_payment_commits_and_balances_are_as_foreseen() {
    for (name, make) in ALL {
        let mut host = Host::new();
        let mut workload = make(7);
        host.set_up(&*workload);
        let before = workload.audit();
        before.check(&values(&host, &before), Commits::All).unwrap();
        for load in quietly(&mut *workload, 300) {
            let receipt = host.execute(&load.transaction);
            assert_eq!(receipt.outcome, Outcome::Committed, "{name}: {receipt:?}");
            assert!(name != "erc20" || receipt.work < 40_000, "gas of a transfer: {receipt:?}");
        }
        let audit = workload.audit();
        let values = values(&host, &audit);
        audit.check(&values, Commits::All).unwrap();
        audit.check(&values, Commits::ANY).unwrap();
        assert!(
            matches!(before.check(&values, Commits::All), Err(AuditFailure::Balance { .. })),
            "{name}: 300 payments moved nothing"
        );
    }
}

#[test]
fn a_setup_that_is_sent_again_changes_nothing_that_matters() {
    // The cluster answers the first receipts again; only what a *different* transaction did
    // before, such as deploying the same contract, is the workload's to tolerate.
    for (name, make) in ALL {
        let mut host = Host::new();
        let (first, second) = (make(8), make(9));
        host.set_up(&*first);
        host.set_up(&*second);
        for workload in [&first, &second] {
            let audit = workload.audit();
            audit
                .check(&values(&host, &audit), Commits::All)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

#[test]
fn an_audit_finds_what_is_wrong() {
    let mut host = Host::new();
    let workload = native(10);
    host.set_up(&*workload);
    let audit = workload.audit();
    let sound = values(&host, &audit);

    let mut values = sound.clone();
    values.swap(0, 1);
    audit.check(&values, Commits::All).unwrap();
    values[0] = Some(Value::from(vec![0; 32]));
    assert!(matches!(audit.check(&values, Commits::ANY), Err(AuditFailure::Total { .. })));
    let key = audit.keys().next().unwrap().clone();
    assert_eq!(
        audit.check(&values, Commits::All),
        Err(AuditFailure::Balance { key, expected: u128::from(BALANCE_START), found: 0 })
    );
    values[0] = Some(Value::from(vec![0xff; 32]));
    assert!(matches!(audit.check(&values, Commits::ANY), Err(AuditFailure::NotABalance { .. })));
    assert!(matches!(audit.check(&values[1..], Commits::ANY), Err(AuditFailure::Length { .. })));
}

proptest! {
    #[test]
    fn big_endian_numbers_are_read_whatever_their_padding(number: u128, padding in 0usize..20) {
        let mut bytes = vec![0; padding];
        bytes.extend_from_slice(&number.to_be_bytes());
        prop_assert_eq!(big_endian(&bytes), Some(number));
        bytes.insert(0, 1);
        if number != 0 || padding > 0 {
            prop_assert_eq!(big_endian(&bytes), None);
        }
    }
}
