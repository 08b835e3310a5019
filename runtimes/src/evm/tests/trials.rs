//! Units of Ethereum transactions, tried over a state that has to be fetched.

use revm::bytecode::opcode::*;

use super::asm::{Code, token};
use super::*;
use crate::testing::Scout;

const POOL: Address = Address::repeat_byte(0xaa);

impl World {
    fn scout(&self) -> Scout {
        let runtimes = Runtimes::new(vec![Arc::new(self.runtime.clone())]);
        Scout::new(runtimes, self.epoch.clone(), ENTROPY)
    }

    /// Finds the footprints of a unit, and executes one transaction after another within them.
    /// Returns also in how many rounds of reads that was.
    fn run_unit(&mut self, scout: &mut Scout, unit: &[Bytes]) -> (Vec<Receipt>, usize) {
        let subject = |raw: &Bytes| scout.subject(&Transaction::new(RuntimeId::EVM, raw.clone()));
        let found = scout.find(&self.state, unit.iter().map(subject).collect());
        let rounds = found.rounds;
        let all = unit.iter().zip(found.all());
        (all.map(|(raw, footprint)| self.run_within(raw, footprint)).collect(), rounds)
    }
}

fn assert_committed(receipts: &[Receipt]) {
    assert!(receipts.iter().all(Receipt::is_committed), "{receipts:#?}");
}

/// A contract that says the address of a new one that it creates, whose code is one STOP, and
/// stores it at the slot that its number in the data names.
fn factory() -> Code {
    // MSTORE8(0, STOP)-returning creation code: PUSH1 1 PUSH1 0 RETURN.
    let creation = [PUSH1, 1, PUSH1, 0, RETURN];
    let mut word = [0; 32];
    word[..5].copy_from_slice(&creation);
    let code = Code::new().ops(&[PUSH32]).ops(&word).push(0).ops(&[MSTORE]);
    code.push(5).push(0).push(0).ops(&[CREATE]).argument(0).ops(&[SSTORE, STOP])
}

#[test]
fn a_token_is_deployed_and_used_in_one_unit() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let mut scout = world.scout();
    let address = wallet.address.create(0);
    let pay = |to: u64| words(&[U256::from(to), U256::from(3)]);
    let unit = [
        wallet.legacy(TxKind::Create, 0, token().deployer()),
        wallet.call(address, pay(11)),
        wallet.call(address, pay(12)),
    ];
    let (receipts, _) = world.run_unit(&mut scout, &unit);
    assert_committed(&receipts);
    assert!(receipts[1..].iter().all(|receipt| receipt.events.len() == 1), "the token was called");
    assert_eq!(world.word(&address, U256::from(11)), U256::from(3));
    assert_eq!(world.word(&address, U256::from(12)), U256::from(3));
}

#[test]
fn a_factory_that_is_called_again_and_again_creates_at_new_addresses() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(POOL, factory())]);
    let mut scout = world.scout();
    let call = |n: u64| [&[0; 4][..], &U256::from(n).to_be_bytes::<32>()].concat();
    let unit: Vec<_> = (0..5).map(|n| wallet.call(POOL, call(n))).collect();
    let (receipts, rounds) = world.run_unit(&mut scout, &unit);
    assert_committed(&receipts);
    assert!(rounds <= 12, "{rounds} rounds");
    for n in 0..5 {
        let child = world.word(&POOL, U256::from(n)).to_be_bytes::<32>();
        let child = Address::from_slice(&child[12..]);
        assert_eq!(child, POOL.create(n));
        assert!(world.code(&child).hash.is_some());
    }
}

#[test]
fn creations_of_one_sender_go_where_their_nonces_say() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let mut scout = world.scout();
    let sender = wallet.address;
    // Contracts and calls of them in turn, from nonces that are still to come.
    let mut unit = Vec::new();
    for n in 0..4u64 {
        unit.push(wallet.legacy(TxKind::Create, 0, token().deployer()));
        let pay = words(&[U256::from(100 + n), U256::ONE]);
        unit.push(wallet.call(sender.create(2 * n), pay));
    }
    let (receipts, _) = world.run_unit(&mut scout, &unit);
    assert_committed(&receipts);
    for n in 0..4u64 {
        let address = sender.create(2 * n);
        assert_eq!(world.word(&address, U256::from(100 + n)), U256::ONE, "{n}");
    }
}

#[test]
fn a_fresh_account_spends_what_it_is_sent_before() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let mut scout = world.scout();
    let mut fresh = Wallet::new(2);
    let unit = [
        wallet.legacy(TxKind::Call(fresh.address), 1_000_005, Bytes::new()),
        fresh.legacy(TxKind::Call(Address::repeat_byte(7)), 5, Bytes::new()),
    ];
    let (receipts, rounds) = world.run_unit(&mut scout, &unit);
    assert_committed(&receipts);
    assert_eq!(rounds, 1);
    assert_eq!(world.balance(&Address::repeat_byte(7)), U256::from(5));
}

#[test]
fn a_call_of_known_code_takes_one_round() {
    // Reads the balance of the caller, then that of the payee, and a flag that must be set.
    let code = Code::new()
        .push(7)
        .ops(&[SLOAD, ISZERO, PUSH1, 0, JUMPI])
        .ops(&[CALLER])
        .entry(3)
        .ops(&[DUP1, SLOAD, DUP1])
        .push(5)
        .ops(&[GT, PUSH1, 0, JUMPI])
        .push(5)
        .ops(&[SWAP1, SUB, SWAP1, SSTORE])
        .argument(0)
        .entry(3)
        .ops(&[DUP1, SLOAD])
        .push(5)
        .ops(&[ADD, SWAP1, SSTORE, STOP]);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(POOL, code)]);
    let mut entry = [0; 64];
    entry[..32].copy_from_slice(wallet.address.into_word().as_slice());
    entry[63] = 3;
    let balance = keys::storage(&POOL, 0, keccak256(entry).into());
    world.state.0.insert(keys::storage(&POOL, 0, U256::from(7)), Value::from_static(&[1]));
    world.state.0.insert(balance, Value::from_static(&[100]));
    let mut scout = world.scout();
    let call = |to: u8| [&[0; 4][..], Address::repeat_byte(to).into_word().as_slice()].concat();
    let cold = [wallet.call(POOL, call(1))];
    let (receipts, rounds) = world.run_unit(&mut scout, &cold);
    assert_committed(&receipts);
    assert!(rounds <= 3, "{rounds} rounds");
    let warm = [wallet.call(POOL, call(2)), wallet.call(POOL, call(3))];
    let (receipts, rounds) = world.run_unit(&mut scout, &warm);
    assert_committed(&receipts);
    assert_eq!(rounds, 1);
}
