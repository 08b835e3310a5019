//! Access lists as declared footprints.

use alloy_consensus::TxEip2930;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::B256;
use parsec_protocol::{ErrorCode, Outcome};
use proptest::prelude::*;
use revm::bytecode::opcode::*;

use super::asm::{Code, token};
use super::*;
use crate::Declared;
use crate::testing::Scout;

const TOKEN: Address = Address::repeat_byte(0xaa);
const OTHER: Address = Address::repeat_byte(0xbb);
const FRIEND: Address = Address::repeat_byte(0x0f);

fn item(address: Address, slots: &[U256]) -> AccessListItem {
    let storage_keys = slots.iter().map(|slot| B256::from(*slot)).collect();
    AccessListItem { address, storage_keys }
}

/// A payment with the test token, with that access list.
fn payment(wallet: &Wallet, price: u128, list: Vec<AccessListItem>) -> Bytes {
    wallet.sign(TxEip2930 {
        chain_id: CHAIN,
        nonce: wallet.nonce,
        gas_price: price,
        gas_limit: 3_000_000,
        to: TxKind::Call(TOKEN),
        value: U256::ZERO,
        input: words(&[FRIEND.into_word().into(), U256::from(3)]).into(),
        access_list: AccessList(list),
    })
}

/// The slots that a payment touches.
fn slots(wallet: &Wallet) -> [U256; 2] {
    [wallet.address, FRIEND].map(|address| address.into_word().into())
}

fn world() -> (World, Wallet) {
    let params = ChainParams { coinbase: [0xc0; 20], ..ChainParams::new(CHAIN) };
    World::with(&params, &[(TOKEN, token())])
}

fn declared(world: &World, wallet: &Wallet, raw: &Bytes) -> Declared {
    world.runtime.declared(wallet.address.as_slice(), raw, &world.state)
}

fn footprint(world: &World, wallet: &Wallet, raw: &Bytes) -> Footprint {
    match declared(world, wallet, raw) {
        Declared::Footprint(footprint) => footprint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_complete_list_needs_no_trial() {
    for price in [0, 1] {
        let (mut world, wallet) = world();
        let raw = payment(&wallet, price, vec![item(TOKEN, &slots(&wallet))]);
        let found = footprint(&world, &wallet, &raw);
        // One popular contract is no hot key, and one coinbase is not read.
        assert_eq!(mode(&found, &keys::account(&TOKEN)), None);
        let coinbase = keys::account(&Address::repeat_byte(0xc0));
        assert_eq!(mode(&found, &coinbase), (price > 0).then_some(Mode::Add));
        let tried = world.record(&world.admit(&raw), true).1.footprint;
        assert_eq!(tried.union(&found).unwrap(), found, "it covers all that a trial touches");
        assert!(world.run_within(&raw, found).is_committed());
        assert_eq!(world.word(&TOKEN, slots(&wallet)[1]), U256::from(3));
    }
}

#[test]
fn an_incomplete_list_is_a_stray_that_a_trial_mends() {
    let (mut world, wallet) = world();
    let raw = payment(&wallet, 1, vec![item(TOKEN, &slots(&wallet)[..1])]);
    let found = footprint(&world, &wallet, &raw);
    let strayed = world.run_within(&raw, found);
    assert!(matches!(strayed.outcome, Outcome::Strayed { .. }), "{strayed:?}");
    assert_eq!(world.word(&TOKEN, slots(&wallet)[0]), U256::ZERO, "it has no effect");
    assert!(world.run(&raw).is_committed());
}

#[test]
fn the_code_that_is_not_at_hand_is_asked_for() {
    let (world, wallet) = world();
    let raw = payment(&wallet, 1, vec![item(TOKEN, &slots(&wallet)), item(OTHER, &[])]);
    struct Nothing;
    impl Source for Nothing {
        fn value(&self, _: &Key) -> Option<Option<Value>> {
            None
        }
    }
    let needs = match world.runtime.declared(wallet.address.as_slice(), &raw, &Nothing) {
        Declared::Needs(needs) => needs,
        other => panic!("{other:?}"),
    };
    assert!(needs.iter().all(Key::is_replicated), "{needs:?}");
    for address in [wallet.address, TOKEN, OTHER] {
        assert!(needs.contains(&keys::code_record(&address)));
    }
    // A unit fetches them, and tries nothing.
    let runtimes = Runtimes::new(vec![Arc::new(world.runtime.clone())]);
    let mut scout = Scout::new(runtimes, world.epoch.clone(), ENTROPY);
    let mut subject = scout.subject(&Transaction::new(RuntimeId::EVM, raw.clone()));
    subject.declares = true;
    let found = scout.find(&world.state, vec![subject]);
    assert_eq!(found.rounds, 1);
    assert_eq!(found.all()[0], footprint(&world, &wallet, &raw));
}

#[test]
fn what_is_not_known_to_be_a_contract_is_tried() {
    let (world, wallet) = world();
    let undeployed = wallet.sign(TxEip2930 {
        chain_id: CHAIN,
        to: TxKind::Call(OTHER),
        input: words(&[U256::ONE]).into(),
        access_list: AccessList(vec![item(OTHER, &[U256::ONE])]),
        ..TxEip2930::default()
    });
    assert_eq!(declared(&world, &wallet, &undeployed), Declared::Nothing);
    let creation = wallet.sign(TxEip2930 {
        chain_id: CHAIN,
        to: TxKind::Create,
        access_list: AccessList(vec![item(OTHER, &[U256::ONE])]),
        ..TxEip2930::default()
    });
    assert_eq!(declared(&world, &wallet, &creation), Declared::Nothing);
    let unlisted = payment(&wallet, 1, Vec::new());
    assert_eq!(declared(&world, &wallet, &unlisted), Declared::Nothing);
}

#[test]
fn a_giant_list_is_refused() {
    let (world, wallet) = world();
    let slots: Vec<U256> = (0..crate::evm::ACCESS_LIST_MAX).map(U256::from).collect();
    let admit = |raw: Bytes| world.runtime.admit(&Transaction::new(RuntimeId::EVM, raw));
    // The address counts, too.
    let giant = admit(payment(&wallet, 1, vec![item(TOKEN, &slots)])).unwrap_err();
    assert_eq!(giant.code, ErrorCode::TooLarge);
    assert!(giant.detail.contains("1025 addresses and slots"), "{}", giant.detail);
    let large = payment(&wallet, 1, vec![item(TOKEN, &slots[1..])]);
    assert!(admit(large.clone()).is_ok());
    assert_eq!(footprint(&world, &wallet, &large).accesses().len(), 1_023 + 6);
}

#[test]
fn ether_that_is_sent_along_is_declared() {
    let bank = Code::new().ops(&[SELFBALANCE]).push(1).ops(&[SSTORE, STOP]);
    let (mut world, wallet) = World::with(&ChainParams::new(CHAIN), &[(TOKEN, bank)]);
    let raw = wallet.sign(TxEip2930 {
        chain_id: CHAIN,
        gas_price: 1,
        gas_limit: 100_000,
        to: TxKind::Call(TOKEN),
        value: U256::from(9),
        access_list: AccessList(vec![item(TOKEN, &[U256::ONE])]),
        ..TxEip2930::default()
    });
    let found = footprint(&world, &wallet, &raw);
    assert_eq!(mode(&found, &keys::account(&TOKEN)), Some(Mode::Write));
    assert!(world.run_within(&raw, found).is_committed());
    assert_eq!(world.word(&TOKEN, U256::ONE), U256::from(9));
}

/// Addresses and slots that a payment touches, and others.
fn any_list() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    prop::collection::vec((0u8..5, prop::collection::vec(0u8..4, 0..5)), 1..5)
}

proptest! {
    /// Whatever the list says, the transaction comes out as it does with the footprint that a
    /// trial finds, to the gas; or it strays and has no effect.
    #[test]
    fn a_list_never_changes_an_outcome(list in any_list(), price in 0u128..2) {
        let (mut expected, wallet) = world();
        let slots = slots(&wallet);
        let addresses = [TOKEN, OTHER, FRIEND, wallet.address, Address::ZERO];
        let numbers = [slots[0], slots[1], U256::ZERO, U256::from(77)];
        let items = list.iter().map(|(address, slots)| {
            let slots: Vec<U256> = slots.iter().map(|n| numbers[usize::from(*n)]).collect();
            item(addresses[usize::from(*address)], &slots)
        });
        let raw = payment(&wallet, price, items.collect());
        let (mut world, _) = world();
        let found = footprint(&world, &wallet, &raw);
        let receipt = world.run_within(&raw, found);
        match receipt.outcome {
            Outcome::Strayed { .. } => prop_assert_eq!(&world.state.0, &expected.state.0),
            _ => {
                prop_assert_eq!(receipt, expected.run(&raw));
                prop_assert_eq!(&world.state.0, &expected.state.0);
            }
        }
    }
}
