use std::collections::BTreeMap;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{Delta, Receipt, TxId};
use proptest::prelude::*;

use super::*;
use crate::testing::Host;

fn host() -> Host {
    Host::new(NativeRuntime)
}

fn k(name: &str) -> Key {
    key(name).unwrap()
}

fn balance(amount: i128) -> Value {
    Value::copy_from_slice(&Delta::from(amount).0)
}

fn run(host: &mut Host, program: Program) -> Receipt {
    host.submit(&program.into_transaction(0)).unwrap()
}

fn values(receipt: &Receipt) -> Vec<Option<Value>> {
    assert_eq!(receipt.outcome, Outcome::Committed);
    Results::decode(&receipt.output).unwrap().values
}

#[test]
fn reads_see_what_came_before_them() {
    let mut host = host();
    let (a, b) = (k("a"), k("b"));
    let program = Program::new()
        .get(&a)
        .put(&a, "1")
        .get(&a)
        .delete(&a)
        .get(&a)
        .add(&b, 5)
        .add(&b, -2)
        .get(&b)
        .put(&b, "x")
        .add(&b, 0)
        .get(&b);
    let expected = [None, Some("1".into()), None, Some(balance(3)), Some("x".into())];
    assert_eq!(values(&run(&mut host, program)), expected);
    assert_eq!(host.state, BTreeMap::from([(b, Value::from("x"))]));
}

#[test]
fn a_transfer_moves_what_there_is() {
    let mut host = host();
    let (a, b) = (k("a"), k("b"));
    host.state.insert(a.clone(), [&balance(10)[..], b"owner"].concat().into());
    assert!(run(&mut host, Program::new().transfer(&a, &b, 7)).is_committed());
    assert_eq!(host.state[&a], Value::from([&balance(3)[..], b"owner"].concat()));
    assert_eq!(host.state[&b], balance(7));
    assert!(run(&mut host, Program::new().transfer(&b, &b, 7)).is_committed());
    assert_eq!(host.state[&b], balance(7));
    let receipt = run(&mut host, Program::new().transfer(&b, &a, 8));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::InsufficientFunds));
}

#[test]
fn balances_outside_a_u128_overflow() {
    let mut host = host();
    let (a, b) = (k("a"), k("b"));
    host.state.insert(a.clone(), balance(-1));
    let receipt = run(&mut host, Program::new().transfer(&a, &b, 1));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Overflow));
    let mut most = vec![0; 16];
    most.extend([0xff; 16]);
    host.state.insert(a.clone(), most.into());
    host.state.insert(b.clone(), balance(1));
    let receipt = run(&mut host, Program::new().transfer(&b, &a, 1));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Overflow));
    assert_eq!(host.state[&b], balance(1));
}

#[test]
fn a_program_that_says_no_changes_nothing() {
    let mut host = host();
    let (a, b) = (k("a"), k("b"));
    host.state.insert(a.clone(), "old".into());
    let program =
        || Program::new().put(&a, "new").add(&b, 1).delete(&k("c")).require(&a, Some("new".into()));
    let before = host.state.clone();
    let receipt = run(&mut host, program().require(&b, None));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Refused));
    assert_eq!(receipt.output, "operation 4");
    assert_eq!(host.state, before);
    assert!(run(&mut host, program().require(&b, Some(balance(1)))).is_committed());
    assert_eq!(host.state[&a], "new");
}

#[test]
fn the_payload_tells_the_footprint() {
    let program = Program::new()
        .get(&k("read"))
        .require(&k("read"), None)
        .add(&k("added"), 1)
        .add(&k("added"), 2)
        .add(&k("both"), 1)
        .get(&k("both"))
        .delete(&k("deleted"))
        .transfer(&k("from"), &k("to"), 0);
    let admitted = NativeRuntime.admit(&program.into_transaction(3)).unwrap();
    let access = |(name, mode)| Access { key: k(name), mode };
    let expected = [
        ("read", Mode::Read),
        ("added", Mode::Add),
        ("both", Mode::Write),
        ("deleted", Mode::Write),
        ("from", Mode::Write),
        ("to", Mode::Write),
    ];
    let expected = Footprint::new(expected.map(access).to_vec()).unwrap();
    assert_eq!(admitted.footprint, Some(expected));
}

#[test]
fn additions_do_not_read() {
    let mut host = host();
    let program = Program::new().add(&k("a"), 4).into_transaction(0);
    let entry = host.admit(&program).unwrap();
    assert_eq!(entry.footprint.accesses()[0].mode, Mode::Add);
    assert!(host.execute(&entry).is_committed());
    assert_eq!(host.state[&k("a")], balance(4));
}

#[test]
fn a_chase_follows_keys_and_its_footprint_is_discovered() {
    let mut host = host();
    let names = ["a", "b", "c"].map(k);
    for pair in names.windows(2) {
        host.state.insert(pair[0].clone(), Value::copy_from_slice(pair[1].encoded()));
    }
    let transaction = Program::new().chase(&names[0], 2, Some("end".into())).into_transaction(0);
    assert_eq!(NativeRuntime.admit(&transaction).unwrap().footprint, None);
    assert_eq!(NativeRuntime.likely_keys(&[], &transaction.payload), [names[0].clone()]);
    let entry = host.admit(&transaction).unwrap();
    let modes: Vec<_> = entry.footprint.accesses().iter().map(|access| access.mode).collect();
    assert_eq!(modes, [Mode::Read, Mode::Read, Mode::Write]);
    assert_eq!(values(&host.execute(&entry)), [None]);
    assert_eq!(host.state[&names[2]], "end");
    let receipt = run(&mut host, Program::new().chase(&names[0], 3, None));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Refused));
}

#[test]
fn a_chase_into_foreign_namespaces_is_refused() {
    let mut host = host();
    let foreign = Key::new(Namespace::partitioned(0x20), b"account").unwrap();
    host.state.insert(k("a"), Value::copy_from_slice(foreign.encoded()));
    let receipt = run(&mut host, Program::new().chase(&k("a"), 1, Some("x".into())));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Refused));
}

#[test]
fn a_chase_whose_chain_has_moved_strays_and_then_arrives() {
    let mut host = host();
    let [a, b, c] = ["a", "b", "c"].map(k);
    host.state.insert(a.clone(), Value::copy_from_slice(b.encoded()));
    let transaction = Program::new().chase(&a, 1, Some("end".into())).into_transaction(0);
    let entry = host.admit(&transaction).unwrap();
    host.state.insert(a, Value::copy_from_slice(c.encoded()));
    let strayed = Outcome::Strayed { key: c.clone(), mode: Mode::Read };
    assert_eq!(host.execute(&entry).outcome, strayed);
    assert!(!host.state.contains_key(&b));
    assert_eq!(host.submit(&transaction).unwrap().outcome, Outcome::Committed);
    assert_eq!(host.state[&c], "end");
}

#[test]
fn a_trial_looks_past_what_earlier_transactions_may_change() {
    let mut host = host();
    let [a, b, c] = ["a", "b", "c"].map(k);
    host.state.insert(a.clone(), Value::copy_from_slice(b.encoded()));
    let program = Program::new().transfer(&c, &b, 9).require(&c, Some("x".into()));
    let entry = host.admit(&program.chase(&a, 1, None).into_transaction(0)).unwrap();
    assert_eq!(entry.footprint.accesses().len(), 3);
    let receipt = host.execute(&entry);
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::InsufficientFunds));
}

#[test]
fn what_exceeds_a_limit_is_refused() {
    let code = |program: Program| {
        NativeRuntime.admit(&program.into_transaction(0)).map_err(|rejection| rejection.code)
    };
    let many = Program { ops: vec![Op::Work { rounds: 1 }; OPS_MAX] };
    assert!(code(many.clone()).is_ok());
    assert_eq!(code(many.work(1)), Err(ErrorCode::Malformed));
    assert!(code(Program::new().work(65_536)).is_ok());
    assert_eq!(code(Program::new().work(65_536).work(1)), Err(ErrorCode::TooLarge));
    let hops = Program { ops: vec![Op::Chase { start: k("a"), hops: 255, put: None }; 4] };
    assert!(code(hops.clone()).is_ok());
    assert_eq!(code(hops.chase(&k("b"), 5, None)), Err(ErrorCode::TooLarge));
    let foreign = Key::new(Namespace::partitioned(TABLE_LAST + 1), b"a").unwrap();
    assert_eq!(code(Program::new().get(&foreign)), Err(ErrorCode::NotPermitted));
    let shared = Key::new(Namespace::replicated(TABLE_LAST), b"a").unwrap();
    assert!(code(Program::new().get(&shared)).is_ok());
    let long = vec![0; VALUE_BYTES_MAX + 1];
    assert_eq!(code(Program::new().put(&k("a"), long)), Err(ErrorCode::Malformed));
}

#[test]
fn results_that_no_receipt_can_hold_revert() {
    let mut host = host();
    host.state.insert(k("a"), vec![1; OUTPUT_BYTES_MAX].into());
    let receipt = run(&mut host, Program::new().get(&k("a")).put(&k("b"), "x"));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::TooLarge));
    assert!(!host.state.contains_key(&k("b")));
}

#[test]
fn ids_follow_from_the_content_and_the_salt() {
    let id = |salt| NativeRuntime.admit(&Program::new().work(1).into_transaction(salt)).unwrap().id;
    assert_eq!(id(1), id(1));
    assert_ne!(id(1), id(2));
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = || (0u8..4).prop_map(|n| key([n]).unwrap());
    let value = || {
        prop_oneof![
            (0u8..4).prop_map(|n| Value::copy_from_slice(key_bytes(n).encoded())),
            (0i128..20).prop_map(balance),
        ]
    };
    prop_oneof![
        key().prop_map(|key| Op::Get { key }),
        (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        key().prop_map(|key| Op::Delete { key }),
        (key(), 0i128..20).prop_map(|(key, amount)| Op::Add { key, amount }),
        (key(), key(), 0u128..20).prop_map(|(from, to, amount)| Op::Transfer { from, to, amount }),
        (key(), proptest::option::of(value()))
            .prop_map(|(key, equals)| Op::Require { key, equals }),
        (key(), 0u8..3, proptest::option::of(value())).prop_map(|(start, hops, put)| Op::Chase {
            start,
            hops,
            put
        }),
        (0u32..3).prop_map(|rounds| Op::Work { rounds }),
    ]
}

fn key_bytes(n: u8) -> Key {
    key([n]).unwrap()
}

/// Operations one by one on a map, the plain way. The state is the old one if it says no.
fn model(state: &BTreeMap<Key, Value>, ops: &[Op]) -> Option<BTreeMap<Key, Value>> {
    let mut new = state.clone();
    let account = |state: &BTreeMap<Key, Value>, key: &Key| -> Option<u128> {
        let mut padded = state.get(key).map_or(Vec::new(), |value| value.to_vec());
        padded.resize(padded.len().max(32), 0);
        let high: [u8; 16] = padded[..16].try_into().ok()?;
        let low: [u8; 16] = padded[16..32].try_into().ok()?;
        (high == [0; 16]).then_some(u128::from_be_bytes(low))
    };
    for op in ops {
        match op {
            Op::Get { .. } | Op::Work { .. } => {}
            Op::Put { key, value } => drop(new.insert(key.clone(), value.clone())),
            Op::Delete { key } => drop(new.remove(key)),
            Op::Add { key, amount } => {
                if let Some(sum) = Delta::from(*amount).apply(new.get(key)) {
                    new.insert(key.clone(), sum);
                }
            }
            Op::Transfer { from, to, amount } => {
                let left = account(&new, from)?.checked_sub(*amount)?;
                new.insert(from.clone(), balance(i128::try_from(left).unwrap()));
                let sum = account(&new, to)? + amount;
                new.insert(to.clone(), balance(i128::try_from(sum).unwrap()));
            }
            Op::Require { key, equals } => (new.get(key) == equals.as_ref()).then_some(())?,
            Op::Chase { start, hops, put } => {
                let mut key = start.clone();
                for _ in 0..*hops {
                    let next = new.get(&key).and_then(|v| Key::from_encoded(v.clone()).ok());
                    key = next.filter(is_of_a_table)?;
                }
                put.iter().for_each(|value| drop(new.insert(key.clone(), value.clone())));
            }
        }
    }
    Some(new)
}

proptest! {
    #[test]
    fn programs_do_what_the_model_does(
        programs in prop::collection::vec(prop::collection::vec(any_op(), 0..8), 1..6),
    ) {
        let mut host = host();
        for ops in programs {
            let expected = model(&host.state, &ops);
            let old = host.state.clone();
            let receipt = run(&mut host, Program { ops });
            prop_assert_eq!(receipt.is_committed(), expected.is_some());
            prop_assert_eq!(&host.state, &expected.unwrap_or(old));
        }
    }

    #[test]
    fn no_payload_breaks_the_runtime(payload: Vec<u8>) {
        let mut host = host();
        let transaction = Transaction::new(RuntimeId::NATIVE, payload.clone());
        prop_assert!(NativeRuntime.admit(&transaction).is_err());
        let entry = Entry {
            id: TxId([0; 32]),
            runtime: RuntimeId::NATIVE,
            attempt: 0,
            home: parsec_protocol::PartitionId(0),
            sender: Bytes::new(),
            payload: payload.into(),
            footprint: Footprint::default(),
            expires: None,
        };
        prop_assert_eq!(host.execute(&entry).outcome, Outcome::Invalid(ErrorCode::Malformed));
    }
}
