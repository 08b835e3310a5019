//! What a contract sees of its block, and which rules hold in it.

use parsec_protocol::{ErrorCode, Outcome};
use revm::bytecode::opcode::*;

use super::asm::Code;
use super::*;
use crate::evm::{ForkAt, ForkBegin};

const CONTRACT: Address = Address::repeat_byte(0xaa);
const PAID: Address = Address::repeat_byte(0xc0);

/// What the instruction pushes.
fn seen(world: &mut World, wallet: &mut Wallet) -> Receipt {
    world.run(&wallet.call(CONTRACT, Bytes::new()))
}

fn world(params: &ChainParams, op: u8) -> (World, Wallet) {
    World::with(params, &[(CONTRACT, Code::new().ops(&[op]).give_back())])
}

#[test]
fn an_epoch_has_all_that_a_block_has() {
    let params = ChainParams {
        coinbase: PAID.into_array(),
        gas_limit: 12_345_678,
        base_fee: 1,
        ..ChainParams::new(CHAIN)
    };
    for (op, expected) in [
        (COINBASE, U256::from_be_slice(PAID.as_slice())),
        (TIMESTAMP, U256::from(1_700_000_000u64)),
        (NUMBER, U256::from(5)),
        (DIFFICULTY, U256::from_be_bytes(ENTROPY)),
        (GASLIMIT, U256::from(12_345_678)),
        (CHAINID, U256::from(CHAIN)),
        (BASEFEE, U256::from(1)),
        // Nobody pays for blobs here: the least price.
        (BLOBBASEFEE, U256::from(1)),
        (GASPRICE, U256::from(1)),
    ] {
        let (mut world, mut wallet) = world(&params, op);
        let receipt = seen(&mut world, &mut wallet);
        assert_eq!(receipt.output, words(&[expected]), "{op:#x}");
    }
}

#[test]
fn the_rules_of_an_epoch_are_those_of_its_number_and_time() {
    let begin = |fork: &str, at| ForkBegin { fork: fork.to_owned(), at };
    let params = ChainParams {
        fork: "Berlin".to_owned(),
        forks: vec![begin("London", ForkAt::Block(7)), begin("Cancun", ForkAt::Time(2_000))],
        ..ChainParams::new(CHAIN)
    };
    let halts = |op: u8, number: u64, time: u64| {
        let (mut world, mut wallet) = world(&params, op);
        (world.epoch.block, world.epoch.timestamp_ms) = (number, time * 1_000 + 999);
        match seen(&mut world, &mut wallet).outcome {
            Outcome::Committed => false,
            Outcome::Reverted(ErrorCode::Halted) => true,
            other => panic!("{other:?}"),
        }
    };
    // BASEFEE is London's, BLOBBASEFEE is Cancun's.
    assert!(halts(BASEFEE, 6, 1_999));
    assert!(!halts(BASEFEE, 7, 1_999));
    assert!(halts(BLOBBASEFEE, 7, 1_999));
    assert!(!halts(BLOBBASEFEE, 7, 2_000));
    // One session goes from fork to fork.
    let (mut world, mut wallet) = world(&params, BASEFEE);
    for (number, committed) in [(6, false), (7, true), (6, false), (8, true)] {
        world.epoch.block = number;
        world.epoch.timestamp_ms = 0;
        assert_eq!(seen(&mut world, &mut wallet).is_committed(), committed, "{number}");
    }
}

#[test]
fn legacy_transactions_are_for_one_chain_since_eip_155_only() {
    for (fork, outcome) in
        [("Tangerine", Outcome::Invalid(ErrorCode::WrongChain)), ("Spurious", Outcome::Committed)]
    {
        let params = ChainParams { fork: fork.to_owned(), ..ChainParams::new(CHAIN) };
        let (mut world, mut wallet) = world(&params, GASPRICE);
        assert_eq!(seen(&mut world, &mut wallet).outcome, outcome, "{fork}");
    }
}
