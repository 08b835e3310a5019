use secp256k1::{Keypair, SECP256K1};
use sha2::{Digest, Sha256};

use super::*;

struct Payer {
    pair: Keypair,
    key: [u8; 32],
}

fn payer(secret: u8) -> Payer {
    let pair = Keypair::from_seckey_byte_array(SECP256K1, [secret; 32]).unwrap();
    Payer { key: pair.x_only_public_key().0.serialize(), pair }
}

impl Payer {
    fn arguments(&self, to: &[u8; 32], value: i64, sequence: i64) -> [LuaValue; 5] {
        let message = [&to[..], &value.to_le_bytes(), &sequence.to_le_bytes()].concat();
        let signature = self.pair.sign_schnorr_no_aux_rand(&Sha256::digest(message));
        let signature = signature.to_byte_array();
        let (from, to) = (self.key[..].into(), to[..].into());
        [from, to, value.into(), sequence.into(), signature[..].into()]
    }
}

fn bank(accounts: &[([u8; 32], u64, u64)]) -> (Host, [u8; 32]) {
    let (mut host, contract) = deployed(PAY);
    host.state.extend(accounts.iter().map(|(key, balance, seq)| pay_account(key, *balance, *seq)));
    (host, contract)
}

fn balance(host: &mut Host, contract: [u8; 32], key: &[u8; 32]) -> i64 {
    ints(&invoke(host, contract, "balance", &[key[..].into()]))[0]
}

#[test]
fn a_signed_payment_moves_value_once() {
    let (alice, bob) = (payer(1), payer(2));
    let (mut host, contract) = bank(&[(alice.key, 100, 0)]);
    let payment = alice.arguments(&bob.key, 30, 0);
    assert!(invoke(&mut host, contract, "pay", &payment).is_committed());
    assert_eq!(balance(&mut host, contract, &alice.key), 70);
    assert_eq!(balance(&mut host, contract, &bob.key), 30);
    let again = invoke(&mut host, contract, "pay", &payment);
    assert_eq!(
        (again.outcome.clone(), text(&again)),
        (REFUSED, "the sequence number is too low".into())
    );
    // The payee has never paid: his account has no sequence number yet.
    let back = bob.arguments(&alice.key, 10, 0);
    assert!(invoke(&mut host, contract, "pay", &back).is_committed());
    assert_eq!(balance(&mut host, contract, &bob.key), 20);
    let (key, value) = pay_account(&bob.key, 20, 1);
    assert_eq!(host.state[&key], value);
}

#[test]
fn what_is_not_signed_as_it_is_fails() {
    let (alice, bob) = (payer(1), payer(2));
    let (mut host, contract) = bank(&[(alice.key, 100, 0)]);
    let before = host.state.clone();
    let good = alice.arguments(&bob.key, 30, 0);
    let mut more = good.clone();
    more[2] = LuaValue::Int(31);
    let mut other_payer = good.clone();
    other_payer[0] = bob.key[..].into();
    let mut later = good.clone();
    later[3] = LuaValue::Int(1);
    for forged in [more, other_payer, later] {
        let receipt = invoke(&mut host, contract, "pay", &forged);
        assert_eq!(receipt.outcome, REFUSED);
        assert!(text(&receipt).contains("the signature is not valid"), "{}", text(&receipt));
    }
    let too_much = alice.arguments(&bob.key, 101, 0);
    let receipt = invoke(&mut host, contract, "pay", &too_much);
    assert_eq!(
        (receipt.outcome.clone(), text(&receipt)),
        (REFUSED, "the balance is too low".into())
    );
    let negative = alice.arguments(&bob.key, -1, 0);
    assert_eq!(invoke(&mut host, contract, "pay", &negative).outcome, REFUSED);
    assert_eq!(host.state, before);
}

#[test]
fn a_payment_of_nothing_touches_only_the_payer() {
    let (alice, bob) = (payer(1), payer(2));
    let (mut host, contract) = bank(&[(alice.key, 100, 4)]);
    let call = LuaCall::invoke(contract, "pay", alice.arguments(&bob.key, 0, 9));
    let entry = host.admit(&call.into_transaction(0)).unwrap();
    let (payer_key, expected) = pay_account(&alice.key, 100, 10);
    let touched: Vec<_> = entry.footprint.accesses().iter().map(|a| a.key.clone()).collect();
    assert_eq!(touched, [payer_key.clone(), source_key(&contract)]);
    assert!(host.execute(&entry).is_committed());
    assert_eq!(host.state[&payer_key], expected);
}

#[test]
fn payments_to_one_account_do_not_conflict() {
    let (alice, bob) = (payer(1), payer(2));
    let (mut host, contract) = bank(&[(alice.key, 100, 0)]);
    let call = LuaCall::invoke(contract, "pay", alice.arguments(&bob.key, 1, 0));
    let entry = host.admit(&call.into_transaction(0)).unwrap();
    let (payee_key, _) = pay_account(&bob.key, 0, 0);
    let index = entry.footprint.find(&payee_key).unwrap();
    assert_eq!(entry.footprint.accesses()[index].mode, Mode::Add);
}

#[test]
fn unsigned_transfers_move_value() {
    let (a, b) = ([1; 32], [2; 32]);
    let (mut host, contract) = bank(&[(a, 10, 3), (b, 5, 8)]);
    let transfer = |value: i64| [a[..].into(), b[..].into(), LuaValue::Int(value)];
    assert!(invoke(&mut host, contract, "transfer", &transfer(4)).is_committed());
    assert_eq!(invoke(&mut host, contract, "transfer", &transfer(7)).outcome, REFUSED);
    for (key, balance, sequence) in [(a, 6, 3), (b, 9, 8)] {
        let (key, value) = pay_account(&key, balance, sequence);
        assert_eq!(host.state[&key], value);
    }
    let itself = [a[..].into(), a[..].into(), LuaValue::Int(6)];
    assert!(invoke(&mut host, contract, "transfer", &itself).is_committed());
    assert_eq!(balance(&mut host, contract, &a), 6);
}

#[test]
fn a_trial_finds_the_footprint_of_a_payment_that_can_not_be_made_yet() {
    let (mut host, contract) = bank(&[]);
    let call = LuaCall::invoke(
        contract,
        "transfer",
        [[1; 32], [2; 32]]
            .map(|k: [u8; 32]| k[..].into())
            .into_iter()
            .chain([LuaValue::Int(4)])
            .collect::<Vec<_>>(),
    );
    let entry = host.admit(&call.into_transaction(0)).unwrap();
    assert_eq!(host.execute(&entry).outcome, REFUSED);
    assert!(entry.footprint.covers(&pay_account(&[1; 32], 0, 0).0, Mode::Read));
}

/// What calls cost; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement: cargo test --release -p parsec-runtimes lua -- --ignored --nocapture"]
fn measure_transfers() {
    let (alice, bob) = (payer(1), payer(2));
    measure("transfer", &|_| vec![alice.key[..].into(), bob.key[..].into(), LuaValue::Int(1)]);
}

#[test]
#[ignore = "a measurement: cargo test --release -p parsec-runtimes lua -- --ignored --nocapture"]
fn measure_payments() {
    let (alice, bob) = (payer(1), payer(2));
    measure("pay", &|n| alice.arguments(&bob.key, 1, n).to_vec());
}

fn measure(function: &str, arguments: &dyn Fn(i64) -> Vec<LuaValue>) {
    let (mut host, contract) = bank(&[(payer(1).key, u64::from(u32::MAX), 0)]);
    let call = |n| LuaCall::invoke(contract, function, arguments(n)).into_transaction(0);
    let footprint = host.admit(&call(0)).unwrap().footprint;
    let entry = |n| {
        let call = Transaction { footprint: Some(footprint.clone()), ..call(n) };
        host.admit(&call).unwrap()
    };
    let entries: Vec<_> = (0..5_000).map(entry).collect();
    // The fastest of many batches: the others had to share the processor.
    let mut best = std::time::Duration::MAX;
    let mut work = 0;
    for batch in entries.chunks(100) {
        let begin = std::time::Instant::now();
        for entry in batch {
            let receipt = host.execute(entry);
            assert!(receipt.is_committed(), "{}", text(&receipt));
            work = receipt.work;
        }
        best = best.min(begin.elapsed() / 100);
    }
    eprintln!("{function}: {best:?} each, {work} units of work");
}

#[test]
fn the_work_of_a_payment_is_that_of_its_parts() {
    let (alice, bob) = (payer(1), payer(2));
    let (mut host, contract) = bank(&[(alice.key, 100, 0)]);
    let receipt = invoke(&mut host, contract, "pay", &alice.arguments(&bob.key, 1, 0));
    let source = u64::try_from(PAY.len()).unwrap() * limits::SOURCE_BYTE_WORK;
    let tick = u64::from(limits::TICK_INSTRUCTIONS);
    let parts = source + tick + limits::SIGNATURE_WORK + 3 * limits::REQUEST_WORK;
    // The bytes of the message, and of keys and values.
    assert_eq!(receipt.work - parts, 48 / 8 + 40 / 8 + 40 / 8 + 80 / 8 + 40 / 8);
}
