//! Accounts that delegate to contracts (EIP-7702).

use alloy_consensus::{TxEip1559, TxEip7702};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use parsec_protocol::{ErrorCode, Outcome};
use revm::bytecode::opcode::*;

use super::asm::Code;
use super::*;
use crate::Declared;
use crate::testing::Scout;

/// Counts its calls at slot 0.
const COUNTER: Address = Address::repeat_byte(0xaa);
/// Does nothing.
const IDLE: Address = Address::repeat_byte(0xbb);
const FRIEND: Address = Address::repeat_byte(0xf0);
const GAS: u64 = 1_000_000;

/// An authorization, signed by its authority.
pub(super) fn authorize(
    authority: &Wallet,
    chain_id: u64,
    delegate: Address,
    nonce: u64,
) -> SignedAuthorization {
    let chain_id = U256::from(chain_id);
    let authorization = Authorization { chain_id, address: delegate, nonce };
    let message = Message::from_digest(authorization.signature_hash().0);
    let signature = Secp256k1::new().sign_ecdsa_recoverable(message, &authority.key);
    let (recovery, bytes) = signature.serialize_compact();
    let parity = i32::from(recovery) == 1;
    authorization.into_signed(Signature::from_bytes_and_parity(&bytes, parity))
}

/// A transaction with these authorizations, that costs a wei per gas, with the next nonce.
fn with(wallet: &mut Wallet, to: Address, list: Vec<SignedAuthorization>) -> Bytes {
    wallet.nonce += 1;
    wallet.sign(TxEip7702 {
        chain_id: CHAIN,
        nonce: wallet.nonce - 1,
        gas_limit: GAS,
        max_fee_per_gas: 1,
        max_priority_fee_per_gas: 1,
        to,
        authorization_list: list,
        ..TxEip7702::default()
    })
}

/// A transaction that delegates authorities, each with a nonce.
pub(super) fn delegating(
    wallet: &mut Wallet,
    to: Address,
    delegations: &[(&Wallet, Address, u64)],
) -> Bytes {
    let signed = |(authority, delegate, nonce): &(&Wallet, Address, u64)| {
        authorize(authority, CHAIN, *delegate, *nonce)
    };
    with(wallet, to, delegations.iter().map(signed).collect())
}

fn world() -> (World, Wallet) {
    let counter = Code::new().push(0).ops(&[SLOAD, PUSH1, 1, ADD]).store(0);
    let idle = Code::new().ops(&[STOP]);
    World::with(&ChainParams::new(CHAIN), &[(COUNTER, counter), (IDLE, idle)])
}

fn designation(delegate: Address) -> alloy_primitives::B256 {
    keccak256([&[0xef, 1, 0], delegate.as_slice()].concat())
}

fn count(world: &World, address: Address) -> U256 {
    world.word(&address, U256::ZERO)
}

#[test]
fn an_account_delegates_is_called_and_revokes() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let address = owner.address;
    let raw = delegating(&mut wallet, address, &[(&owner, COUNTER, 0)]);
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert!(receipt.is_committed(), "{receipt:?}");
    assert_eq!(world.code(&address).hash, Some(designation(COUNTER)));
    assert_eq!(world.account(&address).unwrap().nonce, 1);
    assert_eq!((count(&world, address), count(&world, COUNTER)), (U256::ONE, U256::ZERO));
    for key in [keys::account(&address), keys::code_record(&address)] {
        assert_eq!(mode(&footprint, &key), Some(Mode::Write), "{key}");
    }
    // The contract itself stays hollow.
    assert_eq!(mode(&footprint, &keys::account(&COUNTER)), None);
    assert_eq!(mode(&footprint, &keys::code_record(&COUNTER)), Some(Mode::Read));

    // Anybody may call through it now.
    let (receipt, footprint) = world.run_with_footprint(&wallet.call(address, Bytes::new()));
    assert!(receipt.is_committed());
    assert_eq!(count(&world, address), U256::from(2));
    assert_eq!(mode(&footprint, &keys::code_record(&address)), Some(Mode::Read));
    assert_eq!(mode(&footprint, &keys::account(&address)), Some(Mode::Read));

    // Its owner still sends transactions of its own.
    let mut owner = Wallet { nonce: 1, ..owner };
    let send = TxEip1559 {
        chain_id: CHAIN,
        nonce: 1,
        gas_limit: GAS,
        to: TxKind::Call(FRIEND),
        ..TxEip1559::default()
    };
    assert!(world.run(&owner.sign(send)).is_committed());
    owner.nonce = 2;

    let raw = delegating(&mut wallet, address, &[(&owner, Address::ZERO, 2)]);
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert!(receipt.is_committed());
    assert_eq!(world.code(&address), CodeRecord::default());
    assert_eq!(world.account(&address).unwrap().nonce, 3);
    assert_eq!(mode(&footprint, &keys::code_record(&address)), Some(Mode::Write));
    // Its storage is still there, and nothing runs any more.
    assert_eq!(count(&world, address), U256::from(2));
    assert!(world.run(&wallet.call(address, Bytes::new())).is_committed());
    assert_eq!(count(&world, address), U256::from(2));
}

#[test]
fn an_authorization_may_be_for_any_chain_but_not_for_another() {
    for (chain_id, works) in [(CHAIN, true), (0, true), (CHAIN + 1, false)] {
        let (mut world, mut wallet) = world();
        let owner = Wallet::new(2);
        let list = vec![authorize(&owner, chain_id, COUNTER, 0)];
        assert!(world.run(&with(&mut wallet, owner.address, list)).is_committed());
        assert_eq!(world.code(&owner.address).hash.is_some(), works, "{chain_id}");
        assert_eq!(count(&world, owner.address), U256::from(u8::from(works)));
        assert_eq!(world.account(&owner.address).is_some(), works, "{chain_id}");
    }
}

#[test]
fn an_authorization_that_is_none_is_left_out_and_the_others_count() {
    let (mut world, mut wallet) = world();
    let (good, late, contract) = (Wallet::new(2), Wallet::new(3), Wallet::new(4));
    let code = Code::new().ops(&[STOP]).build();
    let hash = keccak256(&code);
    let record = CodeRecord { hash: Some(hash), incarnation: 0 };
    world.state.0.insert(keys::code_record(&contract.address), record.encode().unwrap());
    world.state.0.insert(keys::code(&hash), code.0.into());
    let signed = authorize(&good, CHAIN, COUNTER, 0);
    let (inner, signature) = (signed.inner().clone(), signed.signature().unwrap());
    let nobody = SignedAuthorization::new_unchecked(inner.clone(), 0, U256::ZERO, signature.s());
    let no_parity =
        SignedAuthorization::new_unchecked(inner.clone(), 9, signature.r(), signature.s());
    let high = SignedAuthorization::new_unchecked(inner, 0, signature.r(), U256::MAX);
    let list = vec![
        nobody,
        no_parity,
        high,
        authorize(&late, CHAIN, COUNTER, 5),
        authorize(&contract, CHAIN, COUNTER, 0),
        authorize(&good, CHAIN, COUNTER, u64::MAX),
        signed,
    ];
    let raw = with(&mut wallet, FRIEND, list);
    let mut entry = world.admit(&raw);
    // The trial takes it that somebody's nonce will be what was signed; execution knows better.
    entry.footprint = world.record(&entry, true).1.footprint;
    assert!(world.attempt(&entry).receipt.is_committed());
    assert!(world.run(&raw).is_committed());
    assert_eq!(world.code(&good.address).hash, Some(designation(COUNTER)));
    assert_eq!(world.code(&late.address), CodeRecord::default());
    assert_eq!(world.account(&late.address), None);
    assert_eq!(world.code(&contract.address), record);
}

#[test]
fn a_sender_delegates_itself() {
    let (mut world, mut wallet) = world();
    let (address, owner) = (wallet.address, wallet.clone());
    // Its nonce has grown by the transaction itself.
    let raw = delegating(&mut wallet, address, &[(&owner, COUNTER, 1)]);
    assert!(world.run(&raw).is_committed());
    assert_eq!(world.account(&address).unwrap().nonce, 2);
    assert_eq!(count(&world, address), U256::ONE);
    wallet.nonce = 2;
    assert!(world.run(&wallet.call(address, Bytes::new())).is_committed());
    assert_eq!(count(&world, address), U256::from(2));
}

#[test]
fn a_delegation_is_followed_once() {
    let (mut world, mut wallet) = world();
    let (first, second) = (Wallet::new(2), Wallet::new(3));
    let both = [(&first, second.address, 0), (&second, COUNTER, 0)];
    assert!(world.run(&delegating(&mut wallet, FRIEND, &both)).is_committed());
    // What the second has is no code that could run.
    let receipt = world.run(&wallet.call(first.address, Bytes::new()));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Halted));
    assert!(world.run(&wallet.call(second.address, Bytes::new())).is_committed());
    assert_eq!(count(&world, second.address), U256::ONE);
}

/// Finds the footprints of a unit before any is executed, and executes them in order.
fn run_unit(world: &mut World, unit: &[Bytes]) {
    let runtimes = Runtimes::new(vec![Arc::new(world.runtime.clone())]);
    let mut scout = Scout::new(runtimes, world.epoch.clone(), ENTROPY);
    let subject = |raw: &Bytes| scout.subject(&Transaction::new(RuntimeId::EVM, raw.clone()));
    let found = scout.find(&world.state, unit.iter().map(subject).collect());
    for (raw, footprint) in unit.iter().zip(found.all()) {
        let receipt = world.run_within(raw, footprint);
        assert!(receipt.is_committed(), "{receipt:?}");
    }
}

#[test]
fn transactions_of_one_authority_are_found_before_any_is_executed() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let unit = [
        delegating(&mut wallet, owner.address, &[(&owner, COUNTER, 0)]),
        delegating(&mut wallet, owner.address, &[(&owner, IDLE, 1)]),
        delegating(&mut wallet, owner.address, &[(&owner, COUNTER, 2)]),
    ];
    run_unit(&mut world, &unit);
    assert_eq!(count(&world, owner.address), U256::from(2));
    assert_eq!(world.account(&owner.address).unwrap().nonce, 3);
}

#[test]
fn a_trial_takes_it_that_the_nonce_of_an_authority_will_be_right() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let early = delegating(&mut wallet, owner.address, &[(&owner, COUNTER, 1)]);
    let entry = world.admit(&early);
    let footprint = world.record(&entry, true).1.footprint;
    assert_eq!(mode(&footprint, &keys::code_record(&owner.address)), Some(Mode::Write));
    assert_eq!(mode(&footprint, &keys::storage(&owner.address, 0, U256::ZERO)), Some(Mode::Write));
    // What was signed for a nonce that is past stays without effect.
    let record = AccountRecord { balance: U256::ZERO, nonce: 2 };
    world.state.0.insert(keys::account(&owner.address), record.encode());
    let footprint = world.record(&entry, true).1.footprint;
    assert_eq!(mode(&footprint, &keys::code_record(&owner.address)), Some(Mode::Read));
}

#[test]
fn a_unit_delegates_and_calls_through() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let unit = [
        delegating(&mut wallet, FRIEND, &[(&owner, COUNTER, 0)]),
        wallet.call(owner.address, Bytes::new()),
        delegating(&mut wallet, owner.address, &[(&owner, Address::ZERO, 1)]),
        wallet.call(owner.address, Bytes::new()),
    ];
    run_unit(&mut world, &unit);
    assert_eq!(count(&world, owner.address), U256::ONE);
    assert_eq!(world.code(&owner.address), CodeRecord::default());
}

#[test]
fn what_delegates_is_tried_always() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let raw = delegating(&mut wallet, COUNTER, &[(&owner, IDLE, 0)]);
    let sender = wallet.address;
    let predictor = world.runtime.predictor().unwrap();
    for _ in 0..20 {
        let call = wallet.call(COUNTER, Bytes::new());
        let footprint = world.record(&world.admit(&call), true).1.footprint;
        predictor.learn(sender.as_slice(), &call, &footprint);
        predictor.learn(sender.as_slice(), &raw, &footprint);
    }
    assert!(predictor.predict(sender.as_slice(), &wallet.call(COUNTER, Bytes::new())).is_some());
    assert_eq!(predictor.predict(sender.as_slice(), &raw), None);

    let item = AccessListItem { address: COUNTER, storage_keys: Vec::new() };
    let listed = wallet.sign(TxEip7702 {
        chain_id: CHAIN,
        gas_limit: GAS,
        to: COUNTER,
        access_list: AccessList(vec![item]),
        authorization_list: vec![authorize(&owner, CHAIN, IDLE, 0)],
        ..TxEip7702::default()
    });
    let declared = world.runtime.declared(sender.as_slice(), &listed, &world.state);
    assert_eq!(declared, Declared::Nothing);
}

#[test]
fn the_keys_of_a_delegation_are_foreseen() {
    let (mut world, mut wallet) = world();
    let owner = Wallet::new(2);
    let raw = delegating(&mut wallet, FRIEND, &[(&owner, COUNTER, 0)]);
    let likely = world.runtime.likely_keys(wallet.address.as_slice(), &raw);
    let (_, footprint) = world.run_with_footprint(&raw);
    let is_record = |key: &Key| !keys::is_code(key);
    let read = footprint.accesses().iter().filter(|a| a.mode.needs_value() && is_record(&a.key));
    for access in read {
        assert!(likely.contains(&access.key), "{}", access.key);
    }
}
