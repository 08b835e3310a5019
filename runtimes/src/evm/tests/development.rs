//! What only a development chain does.

use parsec_protocol::limits::VALUE_BYTES_MAX;
use parsec_protocol::{ErrorCode, Outcome};
use revm::bytecode::opcode::*;

use super::asm::Code;
use super::*;
use crate::evm::Permits;

const CONTRACT: Address = Address::repeat_byte(0xaa);

fn world(permits: Permits) -> (World, Wallet) {
    let wallet = Wallet::new(1);
    let owner = || GenesisAccount { balance: U256::from(ETHER), ..GenesisAccount::default() };
    let code = Code::new().ops(&[STOP]).build();
    let accounts =
        BTreeMap::from([(wallet.address, owner()), (CONTRACT, GenesisAccount { code, ..owner() })]);
    let params = ChainParams { permits, ..ChainParams::new(CHAIN) };
    (World::new(EvmRuntime::new(CHAIN), genesis(&params, &accounts)), wallet)
}

/// What permits code of any length, or nothing.
fn lengths(long_code: bool) -> Permits {
    Permits { code_bytes_max: long_code.then_some(u64::MAX), ..Permits::default() }
}

/// Executes what the sender, whoever it is, did not sign.
fn impersonate(world: &mut World, sender: Address, raw: &Bytes) -> Receipt {
    let mut entry = world.admit(raw);
    entry.sender = Bytes::copy_from_slice(sender.as_slice());
    let footprint = world.record(&entry, true).1.footprint;
    let entry = Entry { footprint, ..entry };
    let execution = world.attempt(&entry);
    for (access, change) in entry.footprint.accesses().iter().zip(&execution.changes) {
        world.state.apply(&access.key, change);
    }
    execution.receipt
}

#[test]
fn contracts_can_be_impersonated() {
    let friend = Address::repeat_byte(0xf0);
    let permitted = Permits { contracts_send: true, ..Permits::default() };
    for (permits, outcome) in [
        (Permits::default(), Outcome::Invalid(ErrorCode::NotPermitted)),
        (permitted, Outcome::Committed),
    ] {
        let (mut world, mut wallet) = world(permits);
        let raw = wallet.legacy(TxKind::Call(friend), 7, Bytes::new());
        let receipt = impersonate(&mut world, CONTRACT, &raw);
        assert_eq!(receipt.outcome, outcome);
        let paid = if receipt.is_committed() { 7 + u128::from(receipt.work) } else { 0 };
        assert_eq!(world.balance(&CONTRACT), U256::from(ETHER - paid));
        assert_eq!(world.account(&CONTRACT).unwrap().nonce, u64::from(receipt.is_committed()));
    }
}

/// Creation code for code of that many zeros.
fn zeros(size: u64) -> Bytes {
    Code::new().push(size).push(0).ops(&[RETURN]).build().0
}

#[test]
fn code_may_be_long_if_the_option_says_so() {
    // EIP-170 allows 24,576 bytes.
    for (long_code, size, outcome) in [
        (false, 24_577, Outcome::Reverted(ErrorCode::Halted)),
        (true, 24_577, Outcome::Committed),
        (true, 70_000, Outcome::Committed),
    ] {
        let (mut world, mut wallet) = world(lengths(long_code));
        let address = wallet.address.create(0);
        let mut raw = wallet.legacy(TxKind::Create, 0, zeros(size));
        let mut transaction = crate::evm::payload::decode(&raw).unwrap();
        if let SignedTransaction::Legacy(signed) = &mut transaction {
            let legacy = TxLegacy { gas_limit: 16_000_000, ..signed.tx().clone() };
            raw = wallet.sign(legacy);
        }
        let receipt = world.run(&raw);
        assert_eq!(receipt.outcome, outcome, "{size}");
        assert_eq!(world.code(&address).hash.is_some(), receipt.is_committed());
    }
}

#[test]
fn long_initcode_is_allowed_with_long_code_only() {
    // EIP-3860 allows 49,152 bytes.
    let code = [&zeros(1)[..], &[0; 60_000]].concat();
    for (long_code, outcome) in
        [(false, Outcome::Invalid(ErrorCode::TooLarge)), (true, Outcome::Committed)]
    {
        let (mut world, mut wallet) = world(lengths(long_code));
        let receipt = world.run(&wallet.legacy(TxKind::Create, 0, code.clone()));
        assert_eq!(receipt.outcome, outcome);
    }
}

#[test]
fn code_is_never_longer_than_a_value() {
    let (mut world, mut wallet) = world(lengths(true));
    let params = ChainParams {
        fork: "Prague".to_owned(),
        gas_limit: 1 << 40,
        permits: lengths(true),
        ..ChainParams::new(CHAIN)
    };
    world.state.0.insert(keys::params(), params.encode());
    for (size, committed) in [(VALUE_BYTES_MAX, true), (VALUE_BYTES_MAX + 1, false)] {
        let transaction = TxLegacy {
            chain_id: Some(CHAIN),
            nonce: wallet.nonce,
            gas_limit: 1 << 30,
            input: zeros(size as u64).into(),
            ..TxLegacy::default()
        };
        wallet.nonce += 1;
        assert_eq!(world.run(&wallet.sign(transaction)).is_committed(), committed, "{size}");
    }
}
