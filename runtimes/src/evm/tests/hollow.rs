//! Contracts whose balance and nonce are left out until something consults them.

use parsec_protocol::{Delta, Outcome};
use proptest::prelude::*;
use revm::bytecode::opcode::*;

use super::asm::{Code, token};
use super::*;
use crate::{Interrupt, State};

const A: Address = Address::repeat_byte(0xaa);
const B: Address = Address::repeat_byte(0xbb);
const C: Address = Address::repeat_byte(0xcc);

/// Whether calling `code` at [`A`], with an idle contract at [`B`], touches their records.
fn touches(code: Code) -> (bool, bool) {
    let idle = Code::new().ops(&[STOP]);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(A, code), (B, idle)]);
    let (receipt, footprint) = world.run_with_footprint(&wallet.call(A, Bytes::new()));
    assert!(receipt.is_committed(), "{receipt:?}");
    let touched = |address| mode(&footprint, &keys::account(&address)).is_some();
    (touched(A), touched(B))
}

#[test]
fn a_token_is_not_a_hot_key() {
    assert_eq!(touches(token()), (false, false));
}

#[test]
fn calls_and_code_leave_accounts_hollow() {
    assert_eq!(touches(Code::new().call(B, 0)), (false, false));
    for op in [EXTCODESIZE, EXTCODEHASH] {
        assert_eq!(touches(Code::new().push_address(B).ops(&[op])), (false, false));
    }
    let delegate = Code::new().push(0).push(0).push(0).push(0).push_address(B);
    let delegate = delegate.push(9_000).ops(&[DELEGATECALL]);
    assert_eq!(touches(delegate), (false, false));
}

#[test]
fn what_consults_an_account_touches_its_record() {
    assert_eq!(touches(Code::new().ops(&[SELFBALANCE])), (true, false));
    assert_eq!(touches(Code::new().push_address(B).ops(&[BALANCE])), (false, true));
    assert_eq!(touches(Code::new().call(B, 1)), (true, true));
    assert_eq!(touches(Code::new().push_address(B).ops(&[SELFDESTRUCT])), (true, true));
    let create = Code::new().push(0).push(0).push(0).ops(&[CREATE]);
    assert_eq!(touches(create), (true, false));
}

#[test]
fn value_sent_to_a_contract_arrives() {
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(A, token())]);
    let raw = wallet.legacy(TxKind::Call(A), 5, Bytes::new());
    let (receipt, footprint) = world.run_with_footprint(&raw);
    assert!(receipt.is_committed());
    assert_eq!(mode(&footprint, &keys::account(&A)), Some(Mode::Write));
    assert_eq!(world.balance(&A), U256::from(5));
}

#[test]
fn consulting_outside_the_footprint_is_a_stray() {
    let code = Code::new().ops(&[SELFBALANCE]);
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &[(A, code)]);
    let mut entry = world.admit(&wallet.call(A, Bytes::new()));
    let whole = world.record(&entry, true).1.footprint;
    entry.footprint = without(&whole, &keys::account(&A));
    let outcome = world.attempt(&entry).receipt.outcome;
    assert_eq!(outcome, Outcome::Strayed { key: keys::account(&A), mode: Mode::Read });
}

#[test]
fn the_state_stops_the_machine_only_with_its_own_interrupt() {
    /// A state that lacks one value.
    struct Lacking<'a>(Recorder<'a, Snapshot>, Key);

    impl State for Lacking<'_> {
        fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
            match *key == self.1 {
                true => Err(Interrupt::Missing(key.clone())),
                false => self.0.get(key),
            }
        }
        fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
            self.0.put(key, value)
        }
        fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
            self.0.add(key, delta)
        }
        fn covers(&self, key: &Key, mode: Mode) -> bool {
            self.0.covers(key, mode)
        }
    }

    let caller = Code::new().call(B, 0).call(B, 1).ops(&[SELFBALANCE]).store(0);
    let contracts = [(A, caller), (B, token())];
    let (mut world, mut wallet) = World::with(&ChainParams::new(CHAIN), &contracts);
    let entry = world.admit(&wallet.call(A, Bytes::new()));
    let footprint = world.record(&entry, true).1.footprint;
    let read = footprint.accesses().iter().filter(|access| access.mode.needs_value());
    for Access { key, .. } in read {
        let mut state = Lacking(Recorder::new(&world.state), key.clone());
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &world.epoch,
            entropy: &ENTROPY,
            trial: false,
        };
        let result = world.sessions.execute(RuntimeId::EVM, &call, &mut state);
        assert_eq!(result, Err(Interrupt::Missing(key.clone())));
    }
    assert!(world.run(&entry.payload).is_committed());
}

/// A recorder that lets every account be loaded at once, so that none is hollow.
struct Full<'a>(Recorder<'a, Snapshot>);

impl State for Full<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        self.0.get(key)
    }
    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        self.0.put(key, value)
    }
    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        self.0.add(key, delta)
    }
    fn covers(&self, _: &Key, _: Mode) -> bool {
        true
    }
}

/// A piece of a random contract.
#[derive(Debug, Clone)]
enum Piece {
    Count(u64),
    Balance(Address),
    OwnBalance,
    CodeHash(Address),
    Call(Address, u64),
    Create(u64),
    Destroy(Address),
    Revert,
}

fn piece() -> impl Strategy<Value = Piece> {
    let address = prop_oneof![Just(A), Just(B), Just(C), Just(Address::repeat_byte(0xdd))];
    prop_oneof![
        4 => (0u64..3).prop_map(Piece::Count),
        2 => address.clone().prop_map(Piece::Balance),
        1 => Just(Piece::OwnBalance),
        2 => address.clone().prop_map(Piece::CodeHash),
        6 => (address.clone(), 0u64..3).prop_map(|(to, value)| Piece::Call(to, value)),
        1 => (0u64..2).prop_map(Piece::Create),
        1 => address.prop_map(Piece::Destroy),
        1 => Just(Piece::Revert),
    ]
}

fn assemble(pieces: &[Piece]) -> Code {
    pieces.iter().fold(Code::new(), |code, piece| match piece {
        Piece::Count(slot) => code.push(*slot).ops(&[SLOAD, PUSH1, 1, ADD]).store(*slot),
        Piece::Balance(address) => code.push_address(*address).ops(&[BALANCE]).store(4),
        Piece::OwnBalance => code.ops(&[SELFBALANCE]).store(5),
        Piece::CodeHash(address) => code.push_address(*address).ops(&[EXTCODEHASH]).store(6),
        Piece::Call(to, value) => code.call(*to, *value).store(7),
        Piece::Create(value) => code.push(0).push(0).push(*value).ops(&[CREATE]).store(8),
        Piece::Destroy(heir) => code.push_address(*heir).ops(&[SELFDESTRUCT]),
        Piece::Revert => code.push(0).push(0).ops(&[REVERT]),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hollow_accounts_change_nothing(
        codes in prop::collection::vec(prop::collection::vec(piece(), 1..6), 3),
        fork in prop::sample::select(vec!["Frontier", "Tangerine", "Spurious", "Istanbul",
            "Berlin", "Shanghai", "Cancun", "Osaka", "Osaka"]),
        coinbase in prop::sample::select(vec![A, C, Address::repeat_byte(0xdd)]),
        value in 0u128..3,
        delegate in prop::option::of(prop::sample::select(vec![A, B, Address::repeat_byte(0xdd)])),
    ) {
        let params = ChainParams {
            fork: fork.to_owned(),
            coinbase: coinbase.into_array(),
            ..ChainParams::new(CHAIN)
        };
        let contracts: Vec<_> =
            [A, B, C].into_iter().zip(codes.iter().map(|pieces| assemble(pieces))).collect();
        let (mut world, mut wallet) = World::with(&params, &contracts);
        // Before Prague it is code like any other, which nobody could have deployed.
        if let Some(delegate) = delegate.filter(|_| fork == "Osaka") {
            let code = [&[0xef, 1, 0], delegate.as_slice()].concat();
            let record = CodeRecord { hash: Some(keccak256(&code)), incarnation: 0 };
            let address = Address::repeat_byte(0xdd);
            world.state.0.insert(keys::code_record(&address), record.encode().unwrap());
            world.state.0.insert(keys::code(&keccak256(&code)), code.into());
            let record = AccountRecord { balance: U256::from(2), nonce: 1 };
            world.state.0.insert(keys::account(&address), record.encode());
        }
        for _ in 0..2 {
            wallet.nonce = world.account(&wallet.address).unwrap().nonce;
            let mut entry = world.admit(&wallet.legacy(TxKind::Call(A), value, Bytes::new()));
            let (done, recording) = world.record(&entry, false);
            let mut full = Full(Recorder::new(&world.state));
            let call = Call {
                id: &entry.id,
                sender: &entry.sender,
                payload: &entry.payload,
                epoch: &world.epoch,
                entropy: &ENTROPY,
                trial: false,
            };
            let plain = world.sessions.execute(RuntimeId::EVM, &call, &mut full).unwrap();
            prop_assert_eq!(&done, &plain);
            let plain = full.0.finish().unwrap();
            let after = |changes: &[(Key, Change)]| -> Vec<(Key, Option<Value>)> {
                let value = |(key, change): &(Key, Change)| {
                    (key.clone(), change.apply(world.state.get(key)))
                };
                changes.iter().map(value).collect()
            };
            prop_assert_eq!(after(&recording.changes), after(&plain.changes));

            entry.footprint = recording.footprint;
            let execution = world.attempt(&entry);
            prop_assert_eq!(execution.receipt.outcome, done.outcome);
            for (access, change) in entry.footprint.accesses().iter().zip(&execution.changes) {
                world.state.apply(&access.key, change);
            }
        }
    }
}
