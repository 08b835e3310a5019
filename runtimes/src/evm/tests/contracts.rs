//! Contracts: their creation, storage, failure and destruction.

use parsec_protocol::{ErrorCode, Outcome};
use revm::bytecode::opcode::*;

use super::asm::{Code, token};
use super::*;
use crate::evm::{BlobGas, BlockOverride};

fn create(world: &mut World, wallet: &mut Wallet, code: Code) -> Address {
    let expected = wallet.address.create(wallet.nonce);
    let receipt = world.run(&wallet.legacy(TxKind::Create, 0, code.deployer()));
    assert!(receipt.is_committed(), "{receipt:?}");
    assert_eq!(receipt.output, expected.as_slice());
    expected
}

#[test]
fn a_contract_is_created_and_called() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let address = create(&mut world, &mut wallet, token());
    let code = world.code(&address);
    assert_eq!(code.hash, Some(keccak256(token().build())));
    assert_eq!(world.account(&address), Some(AccountRecord { balance: U256::ZERO, nonce: 1 }));

    let friend = U256::from(99);
    let receipt = world.run(&wallet.call(address, words(&[friend, U256::from(7)])));
    assert!(receipt.is_committed());
    assert_eq!(world.word(&address, friend), U256::from(7));
    let own = U256::from_be_slice(wallet.address.as_slice());
    assert_eq!(world.word(&address, own), U256::ZERO.wrapping_sub(U256::from(7)));
    assert_eq!(receipt.events.len(), 1);
    assert_eq!(receipt.events[0].source, address.as_slice());
    assert_eq!(receipt.events[0].topics[..], [U256::ONE.to_be_bytes::<32>()]);
}

#[test]
fn code_that_exists_is_read_and_not_written_again() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let first = create(&mut world, &mut wallet, token());
    let raw = wallet.legacy(TxKind::Create, 0, token().deployer());
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert!(receipt.is_committed());
    let code = keys::code(&world.code(&first).hash.unwrap());
    assert_eq!(mode(&footprint, &code), Some(Mode::Read));
}

#[test]
fn a_word_set_to_what_it_was_is_not_written() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[]);
    let address = create(&mut world, &mut wallet, token());
    let friend = U256::from(99);
    let (receipt, footprint) =
        world.run_with_footprint(&wallet.call(address, words(&[friend, U256::ZERO])));
    assert!(receipt.is_committed());
    assert_eq!(mode(&footprint, &keys::storage(&address, 0, friend)), Some(Mode::Read));
}

#[test]
fn a_revert_undoes_all_but_gas_and_nonce() {
    let address = Address::repeat_byte(0xaa);
    let code = Code::new().push(9).store(1).push(0xbad).push(0).ops(&[MSTORE]);
    let code = code.push(2).push(30).ops(&[REVERT]);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, code)]);
    let receipt = world.run(&wallet.legacy(TxKind::Call(address), 5, Bytes::new()));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Refused));
    assert_eq!(receipt.output[..], [0x0b, 0xad]);
    assert_eq!(world.word(&address, U256::ONE), U256::ZERO);
    assert_eq!(world.balance(&address), U256::ZERO);
    let paid = U256::from(receipt.work);
    let sender = AccountRecord { balance: U256::from(ETHER) - paid, nonce: 1 };
    assert_eq!(world.account(&wallet.address), Some(sender));
    assert_eq!(world.balance(&Address::ZERO), paid);
}

#[test]
fn what_halts_takes_all_gas_and_says_why() {
    let cases = [
        (Code::new().ops(&[JUMPDEST, PUSH1, 0, JUMP]), ErrorCode::OutOfWork),
        (Code::new().ops(&[INVALID]), ErrorCode::Halted),
        (Code::new().ops(&[POP]), ErrorCode::Halted),
    ];
    for (code, expected) in cases {
        let address = Address::repeat_byte(0xaa);
        let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, code)]);
        let receipt = world.run(&wallet.call(address, Bytes::new()));
        assert_eq!(receipt.outcome, Outcome::Reverted(expected));
        assert_eq!(receipt.work, 1_000_000);
        assert!(!receipt.output.is_empty() && receipt.events.is_empty());
    }
}

#[test]
fn memory_has_a_limit_whatever_the_gas() {
    let address = Address::repeat_byte(0xaa);
    let code = Code::new().push(1).push(80_000_000).ops(&[MSTORE]);
    let params =
        ChainParams { fork: "London".to_owned(), gas_limit: 1 << 40, ..ChainParams::new(CHAIN) };
    let (mut world, wallet) = World::with(&params, &[(address, code)]);
    let transaction = TxLegacy {
        chain_id: Some(CHAIN),
        gas_limit: 1 << 40,
        to: TxKind::Call(address),
        ..TxLegacy::default()
    };
    let receipt = world.run(&wallet.sign(transaction));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::OutOfMemory));
}

#[test]
fn the_epoch_is_the_block() {
    let address = Address::repeat_byte(0xaa);
    let code = Code::new().ops(&[NUMBER]).store(0).ops(&[TIMESTAMP]).store(1);
    let code = code.ops(&[DIFFICULTY]).store(2).ops(&[CHAINID]).store(3).ops(&[GASLIMIT]).store(4);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, code)]);
    assert!(world.run(&wallet.call(address, Bytes::new())).is_committed());
    let word = |slot: u64| world.word(&address, U256::from(slot));
    assert_eq!(word(0), U256::from(5));
    assert_eq!(word(1), U256::from(1_700_000_000u64));
    assert_eq!(word(2), U256::from_be_bytes(ENTROPY));
    assert_eq!(word(3), U256::from(CHAIN));
    assert_eq!(word(4), U256::from(crate::evm::params::DEFAULT_GAS_LIMIT));
}

/// Returns the hash of the block that the data names.
fn hasher() -> Code {
    Code::new().ops(&[PUSH1, 0, CALLDATALOAD, BLOCKHASH]).give_back()
}

#[test]
fn a_block_hash_is_given_unknown_or_too_old() {
    let address = Address::repeat_byte(0xaa);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, hasher())]);
    let receipt = world.run(&wallet.call(address, words(&[U256::from(4)])));
    assert_eq!(receipt.outcome, Outcome::Reverted(ErrorCode::Unsupported));
    assert_eq!(&receipt.output[..], b"BLOCKHASH: the hash of block 4 is not known");
    for zero in [U256::from(5), U256::from(6), U256::MAX] {
        assert_eq!(world.run(&wallet.call(address, words(&[zero]))).output, words(&[U256::ZERO]));
    }

    let block = BlockOverride {
        number: 1_000,
        prevrandao: Some([1; 32]),
        blobs: Some(BlobGas { excess: 0, update_fraction: 1 }),
        hashes: vec![(999, [9; 32])],
        ..BlockOverride::default()
    };
    let params = ChainParams { block: Some(block), ..ChainParams::new(CHAIN) };
    let (mut world, mut wallet) = World::with(&params, &[(address, hasher())]);
    let mut output = |number: u64| world.run(&wallet.call(address, words(&[U256::from(number)])));
    assert_eq!(output(999).output[..], [9; 32]);
    assert_eq!(output(743).output, words(&[U256::ZERO]));
    assert_eq!(output(744).outcome, Outcome::Reverted(ErrorCode::Unsupported));
}

/// Creates what the data says, always at the same address for the same data.
fn factory() -> Code {
    Code::new()
        .ops(&[CALLDATASIZE, PUSH1, 0, PUSH1, 0, CALLDATACOPY])
        .ops(&[PUSH1, 0, CALLDATASIZE, PUSH1, 0, PUSH1, 0, CREATE2])
        .give_back()
}

/// Destroys itself if there is no data; else returns its word and replaces it by the data's.
fn mortal() -> Code {
    Code::new()
        .ops(&[CALLDATASIZE, PUSH1, 6, JUMPI, CALLER, SELFDESTRUCT, JUMPDEST])
        .ops(&[PUSH1, 0, SLOAD, PUSH1, 0, MSTORE, PUSH1, 0, CALLDATALOAD, PUSH1, 0, SSTORE])
        .ops(&[PUSH1, 32, PUSH1, 0, RETURN])
}

fn shanghai() -> ChainParams {
    ChainParams { fork: "Shanghai".to_owned(), ..ChainParams::new(CHAIN) }
}

#[test]
fn what_is_destroyed_and_created_again_has_lost_its_storage() {
    let factory_address = Address::repeat_byte(0xfa);
    let (mut world, mut wallet) = World::with(&shanghai(), &[(factory_address, factory())]);
    let made = world.run(&wallet.call(factory_address, mortal().deployer()));
    let address = Address::from_slice(&made.output[12..]);
    assert!(world.code(&address).hash.is_some(), "{made:?}");

    world.run(&wallet.call(address, words(&[U256::from(8)])));
    assert_eq!(world.word(&address, U256::ZERO), U256::from(8));
    let balance = world.balance(&wallet.address);
    let gone = world.run(&wallet.legacy(TxKind::Call(address), 50, Bytes::new()));
    assert!(gone.is_committed(), "{gone:?}");
    assert_eq!(world.code(&address), CodeRecord { hash: None, incarnation: 1 });
    assert_eq!(world.account(&address), None);
    // The value came back to the caller.
    assert_eq!(world.balance(&wallet.address), balance - U256::from(gone.work));

    assert!(world.run(&wallet.call(factory_address, mortal().deployer())).is_committed());
    assert_eq!(world.code(&address).incarnation, 1);
    let receipt = world.run(&wallet.call(address, words(&[U256::from(3)])));
    assert_eq!(receipt.output, words(&[U256::ZERO]));
    assert_eq!(world.word(&address, U256::ZERO), U256::from(3));
    let old = keys::storage(&address, 0, U256::ZERO);
    assert!(world.state.get(&old).is_some(), "the old word is out of reach, not removed");
}

#[test]
fn from_cancun_on_what_existed_before_is_not_destroyed() {
    let address = Address::repeat_byte(0xaa);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, mortal())]);
    let before = world.code(&address);
    let balance = world.balance(&wallet.address);
    let receipt = world.run(&wallet.legacy(TxKind::Call(address), 50, Bytes::new()));
    assert!(receipt.is_committed());
    assert_eq!(world.code(&address), before);
    assert_eq!(world.balance(&wallet.address), balance - U256::from(receipt.work));
}

#[test]
fn a_key_missing_from_the_footprint_is_a_stray_without_effect() {
    let address = Address::repeat_byte(0xaa);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(address, token())]);
    let slot = U256::from(99);
    let mut entry = world.admit(&wallet.call(address, words(&[slot, U256::from(7)])));
    let whole = world.record(&entry, true).1.footprint;
    for access in whole.accesses() {
        entry.footprint = without(&whole, &access.key);
        let execution = world.attempt(&entry);
        let Outcome::Strayed { key, .. } = execution.receipt.outcome else {
            panic!("{} was not missed: {:?}", access.key, execution.receipt);
        };
        assert_eq!(key, access.key);
        assert!(execution.changes.iter().all(|change| *change == Change::Keep));
    }
    entry.footprint = whole;
    assert!(world.attempt(&entry).receipt.is_committed());
}
