//! Nonces, funds, fees, and the coinbase.

use alloy_consensus::{TxEip1559, TxEip2930};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::B256;
use parsec_protocol::{ErrorCode, Outcome};
use revm::bytecode::opcode;

use super::asm::Code;
use super::*;

const COINBASE: Address = Address::repeat_byte(0xc0);
const FRIEND: Address = Address::repeat_byte(0xf0);
const TRANSFER_GAS: u64 = 21_000;

fn params() -> ChainParams {
    ChainParams { coinbase: COINBASE.into_array(), ..ChainParams::new(CHAIN) }
}

#[test]
fn a_transfer_moves_value_and_adds_its_fee_to_the_coinbase() {
    let (mut world, mut wallet) = World::with(&params(), &[]);
    let raw = wallet.legacy(TxKind::Call(FRIEND), 5, Bytes::new());
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert_eq!((receipt.outcome, receipt.work), (Outcome::Committed, TRANSFER_GAS));
    assert_eq!(receipt.id.0, keccak256(&raw).0);
    let spent = 5 + u128::from(TRANSFER_GAS);
    let sender = world.account(&wallet.address).unwrap();
    assert_eq!(sender, AccountRecord { balance: U256::from(ETHER - spent), nonce: 1 });
    assert_eq!(world.balance(&FRIEND), U256::from(5));
    assert_eq!(world.balance(&COINBASE), U256::from(TRANSFER_GAS));
    assert_eq!(mode(&footprint, &keys::account(&COINBASE)), Some(Mode::Add));
    assert_eq!(mode(&footprint, &keys::account(&FRIEND)), Some(Mode::Write));
    assert_eq!(mode(&footprint, &keys::code_record(&FRIEND)), Some(Mode::Read));
}

#[test]
fn a_transaction_for_nothing_does_not_touch_the_coinbase() {
    let (mut world, wallet) = World::with(&params(), &[]);
    let transaction = TxLegacy {
        chain_id: Some(CHAIN),
        gas_limit: TRANSFER_GAS,
        to: TxKind::Call(FRIEND),
        value: U256::ONE,
        ..TxLegacy::default()
    };
    let (receipt, footprint) = world.run_with_footprint(&wallet.sign(transaction));
    assert!(receipt.is_committed());
    assert_eq!(mode(&footprint, &keys::account(&COINBASE)), None);
    assert_eq!(world.account(&COINBASE), None);
}

#[test]
fn before_eip_161_a_reward_of_nothing_creates_the_coinbase() {
    let params = ChainParams { fork: "Homestead".to_owned(), ..params() };
    let (mut world, wallet) = World::with(&params, &[]);
    let transaction =
        TxLegacy { gas_limit: TRANSFER_GAS, to: TxKind::Call(FRIEND), ..TxLegacy::default() };
    assert!(world.run(&wallet.sign(transaction)).is_committed());
    assert_eq!(world.account(&COINBASE), Some(AccountRecord::default()));
    // The transfer of nothing creates its receiver as well.
    assert_eq!(world.account(&FRIEND), Some(AccountRecord::default()));
}

#[test]
fn a_coinbase_that_sends_gets_its_fee_back() {
    let wallet = Wallet::new(1);
    let params = ChainParams { coinbase: wallet.address.into_array(), ..params() };
    let (mut world, mut wallet) = World::with(&params, &[]);
    let raw = wallet.legacy(TxKind::Call(FRIEND), 5, Bytes::new());
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert!(receipt.is_committed());
    assert_eq!(world.balance(&wallet.address), U256::from(ETHER - 5));
    assert_eq!(mode(&footprint, &keys::account(&wallet.address)), Some(Mode::Write));
}

#[test]
fn a_coinbase_that_is_sent_ether_gets_its_fee_too() {
    for code in [None, Some(Code::new().ops(&[opcode::STOP]))] {
        let contracts: Vec<_> = code.map(|code| (COINBASE, code)).into_iter().collect();
        let (mut world, mut wallet) = World::with(&params(), &contracts);
        let raw = wallet.legacy(TxKind::Call(COINBASE), 5, Bytes::new());
        let (receipt, footprint) = world.run_with_footprint(&raw);
        assert!(receipt.is_committed());
        assert_eq!(world.balance(&COINBASE), U256::from(5 + receipt.work));
        assert_eq!(mode(&footprint, &keys::account(&COINBASE)), Some(Mode::Write));
    }
}

#[test]
fn a_coinbase_that_delegates_is_paid_whether_it_is_called_or_not() {
    let owner = Wallet::new(7);
    let params = ChainParams { coinbase: owner.address.into_array(), ..params() };
    let target = Address::repeat_byte(0xaa);
    let (mut world, mut wallet) =
        World::with(&params, &[(target, Code::new().ops(&[opcode::STOP]))]);
    let raw = delegations::delegating(&mut wallet, FRIEND, &[(&owner, target, 0)]);
    let receipt = world.run(&raw);
    assert!(receipt.is_committed());
    assert_eq!(world.account(&owner.address).unwrap().nonce, 1);
    let first = U256::from(receipt.work);
    assert_eq!(world.balance(&owner.address), first);
    let (second, footprint) = world.run_with_footprint(&wallet.call(owner.address, Bytes::new()));
    assert_eq!(world.balance(&owner.address), first + U256::from(second.work));
    // It is somebody's own account, and is loaded when it is called.
    assert_eq!(mode(&footprint, &keys::account(&owner.address)), Some(Mode::Write));
    let (third, footprint) = world.run_with_footprint(&wallet.call(FRIEND, Bytes::new()));
    assert_eq!(mode(&footprint, &keys::account(&owner.address)), Some(Mode::Add));
    let all = first + U256::from(second.work) + U256::from(third.work);
    assert_eq!(world.balance(&owner.address), all);
}

#[test]
fn a_contract_that_reads_the_coinbase_sees_all_earlier_fees() {
    let reader = Address::repeat_byte(0xaa);
    let code = Code::new().push_address(COINBASE).ops(&[opcode::BALANCE]).give_back();
    let (mut world, mut wallet) = World::with(&params(), &[(reader, code)]);
    world.run(&wallet.legacy(TxKind::Call(FRIEND), 5, Bytes::new()));
    let (receipt, footprint) = world.run_with_footprint(&wallet.call(reader, Bytes::new()));
    assert_eq!(receipt.output, words(&[U256::from(TRANSFER_GAS)]));
    assert_eq!(mode(&footprint, &keys::account(&COINBASE)), Some(Mode::Write));
    assert_eq!(world.balance(&COINBASE), U256::from(TRANSFER_GAS + receipt.work));
}

#[test]
fn a_coinbase_that_is_a_contract_is_paid_without_being_loaded() {
    let code = Code::new().ops(&[opcode::STOP]);
    let (mut world, mut wallet) = World::with(&params(), &[(COINBASE, code)]);
    let (receipt, footprint) = world.run_with_footprint(&wallet.call(COINBASE, Bytes::new()));
    assert!(receipt.is_committed());
    assert_eq!(mode(&footprint, &keys::account(&COINBASE)), Some(Mode::Add));
    assert_eq!(world.balance(&COINBASE), U256::from(receipt.work));
}

#[test]
fn the_base_fee_is_burnt_and_the_tip_is_added() {
    let params = ChainParams { base_fee: 100, ..params() };
    let (mut world, wallet) = World::with(&params, &[]);
    let transaction = TxEip1559 {
        chain_id: CHAIN,
        gas_limit: 30_000,
        max_fee_per_gas: 1_000,
        max_priority_fee_per_gas: 7,
        to: TxKind::Call(FRIEND),
        value: U256::from(5),
        ..TxEip1559::default()
    };
    let receipt = world.run(&wallet.sign(transaction));
    assert_eq!((receipt.outcome, receipt.work), (Outcome::Committed, TRANSFER_GAS));
    assert_eq!(world.balance(&COINBASE), U256::from(7 * TRANSFER_GAS));
    let spent = 5 + 107 * u128::from(TRANSFER_GAS);
    assert_eq!(world.balance(&wallet.address), U256::from(ETHER - spent));
}

#[test]
fn an_access_list_costs_and_warms() {
    let reader = Address::repeat_byte(0xaa);
    let code = Code::new().push(3).ops(&[opcode::SLOAD, opcode::STOP]);
    let (mut world, wallet) = World::with(&params(), &[(reader, code)]);
    let storage_keys = vec![B256::with_last_byte(3)];
    let transaction = TxEip2930 {
        chain_id: CHAIN,
        gas_price: 2,
        gas_limit: 50_000,
        to: TxKind::Call(reader),
        access_list: AccessList(vec![AccessListItem { address: reader, storage_keys }]),
        ..TxEip2930::default()
    };
    let (receipt, footprint) = world.run_with_footprint(&wallet.sign(transaction));
    // The list costs 2,400 and 1,900; PUSH1 3, and the warm SLOAD 100.
    assert_eq!(receipt.work, TRANSFER_GAS + 2_400 + 1_900 + 103);
    assert_eq!(world.balance(&COINBASE), U256::from(2 * receipt.work));
    let slot = keys::storage(&reader, 0, U256::from(3));
    assert_eq!(mode(&footprint, &slot), Some(Mode::Read));
}

#[test]
fn what_is_invalid_has_no_effect_at_all() {
    let params = ChainParams { base_fee: 10, ..params() };
    let (mut world, wallet) = World::with(&params, &[]);
    let good = TxLegacy {
        chain_id: Some(CHAIN),
        gas_price: 10,
        gas_limit: 30_000,
        to: TxKind::Call(FRIEND),
        ..TxLegacy::default()
    };
    assert!(world.run(&wallet.sign(good.clone())).is_committed());
    let next = TxLegacy { nonce: 1, ..good.clone() };
    let too_much = U256::from(ETHER);
    let cases = [
        (good, ErrorCode::NonceTooLow),
        (TxLegacy { nonce: 2, ..next.clone() }, ErrorCode::NonceTooHigh),
        (TxLegacy { value: too_much, ..next.clone() }, ErrorCode::InsufficientFunds),
        (TxLegacy { gas_price: u128::MAX, ..next.clone() }, ErrorCode::InsufficientFunds),
        (TxLegacy { gas_price: 9, ..next.clone() }, ErrorCode::Underpriced),
        (TxLegacy { gas_limit: 20_999, ..next.clone() }, ErrorCode::OutOfWork),
        (TxLegacy { gas_limit: 30_000_001, ..next.clone() }, ErrorCode::TooLarge),
        (TxLegacy { gas_limit: 16_777_217, ..next.clone() }, ErrorCode::TooLarge),
    ];
    let before = world.state.0.clone();
    for (transaction, code) in cases {
        let receipt = world.run(&wallet.sign(transaction));
        assert_eq!((receipt.outcome, receipt.work), (Outcome::Invalid(code), 0));
        assert!(!receipt.output.is_empty());
        assert_eq!(world.state.0, before);
    }
    assert!(world.run(&wallet.sign(next)).is_committed());
}

#[test]
fn a_trial_overlooks_nonce_and_funds() {
    let (mut world, _) = World::with(&params(), &[]);
    let mut poor = Wallet::new(2);
    poor.nonce = 5;
    let raw = poor.legacy(TxKind::Call(FRIEND), 1_000, Bytes::new());
    let entry = world.admit(&raw);
    assert_eq!(world.record(&entry, true).0.outcome, Outcome::Committed);
    let outcome = world.record(&entry, false).0.outcome;
    assert_eq!(outcome, Outcome::Invalid(ErrorCode::NonceTooHigh));
}

#[test]
fn a_trial_creates_at_the_address_of_the_nonce_that_will_be() {
    let (mut world, mut wallet) = World::with(&params(), &[]);
    wallet.nonce = 3;
    let created = wallet.address.create(3);
    let raw = wallet.legacy(TxKind::Create, 0, asm::token().deployer());
    let entry = world.admit(&raw);
    let (done, recording) = world.record(&entry, true);
    assert_eq!(done.output, created.as_slice());
    assert_eq!(mode(&recording.footprint, &keys::code_record(&created)), Some(Mode::Write));
}
