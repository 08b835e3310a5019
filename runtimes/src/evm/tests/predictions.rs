//! Predictions of footprints: whatever they say, execution comes out as the oracle has it, or
//! strays.

use parsec_protocol::Outcome;
use proptest::prelude::*;
use revm::bytecode::opcode::*;

use super::asm::{Code, token};
use super::*;
use crate::Predictor;

const CONTRACT: Address = Address::repeat_byte(0xaa);
const SELECTOR: [u8; 4] = [1, 2, 3, 4];

/// A predictor, and how it did.
struct Predicting {
    predictor: Box<dyn Predictor>,
    predicted: u32,
    strayed: u32,
}

impl Predicting {
    fn new(world: &World) -> Self {
        Self { predictor: world.runtime.predictor().unwrap(), predicted: 0, strayed: 0 }
    }

    /// Runs a transaction as a cluster would: with a predicted footprint if there is one, and one
    /// that is found by a trial if it has none or strays.
    fn run(&mut self, world: &mut World, raw: &Bytes) -> Receipt {
        let entry = world.admit(raw);
        let sender = &entry.sender[..];
        if let Some(footprint) = self.predictor.predict(sender, raw) {
            self.predicted += 1;
            let receipt = world.run_within(raw, footprint.clone());
            if receipt.outcome.is_final() {
                return receipt;
            }
            self.strayed += 1;
            self.predictor.strayed(sender, raw, &footprint);
            return world.run(raw);
        }
        let (done, recording) = world.record(&entry, true);
        if done.outcome == Outcome::Committed {
            self.predictor.learn(sender, raw, &recording.footprint);
        }
        world.run_within(raw, recording.footprint)
    }
}

/// A step of a random contract.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Adds an argument to what is stored for the caller, in the mapping at that place.
    OfCaller(u8),
    /// ... for an argument.
    OfArgument(u8, u8),
    /// ... for the caller and an argument.
    Nested(u8, u8),
    /// ... at a fixed slot.
    Fixed(u8),
    /// ... where a fixed slot says.
    Followed(u8),
    /// Stops if an argument is odd.
    StopIfOdd(u8),
    /// Asks for the Ether of the contract.
    Balance,
    /// Sends a wei to an argument.
    Send(u8),
}

impl Step {
    /// Adds the instructions for it. `at` is where they begin.
    fn append(self, code: Code) -> Code {
        let add = |code: Code| code.ops(&[DUP1, SLOAD]).argument(1).ops(&[ADD, SWAP1, SSTORE]);
        match self {
            Self::OfCaller(place) => add(code.ops(&[CALLER]).entry(place.into())),
            Self::OfArgument(place, n) => add(code.argument(n.into()).entry(place.into())),
            Self::Nested(place, n) => {
                // The inner slot is hashed with the outer one as its place.
                let outer = code.ops(&[CALLER]).entry(place.into());
                let inner = outer.push(32).ops(&[MSTORE]).argument(n.into()).push(0);
                add(inner.ops(&[MSTORE]).push(64).push(0).ops(&[KECCAK256]))
            }
            Self::Fixed(slot) => add(code.push(slot.into())),
            Self::Followed(slot) => add(code.push(slot.into()).ops(&[SLOAD])),
            Self::StopIfOdd(n) => {
                // Jumps over a STOP if it is even.
                let tested = code.argument(n.into()).push(1).ops(&[AND, ISZERO]);
                let target = u8::try_from(tested.clone().build().len() + 4).unwrap();
                tested.ops(&[PUSH1, target, JUMPI, STOP, JUMPDEST])
            }
            Self::Balance => code.ops(&[SELFBALANCE, POP]),
            Self::Send(n) => {
                let zeros = code.push(0).push(0).push(0).push(0).push(1);
                zeros.argument(n.into()).push(30_000).ops(&[CALL, POP])
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..18).prop_map(Step::OfCaller),
        (0u8..18, 0u8..3).prop_map(|(place, n)| Step::OfArgument(place, n)),
        (0u8..3, 0u8..3).prop_map(|(place, n)| Step::Nested(place, n)),
        (0u8..4).prop_map(Step::Fixed),
        (0u8..4).prop_map(Step::Followed),
        (0u8..3).prop_map(Step::StopIfOdd),
        Just(Step::Balance),
        (0u8..3).prop_map(Step::Send),
    ]
}

/// A call: who, and three words, the first and third of which are often addresses.
#[derive(Debug, Clone)]
struct Called {
    caller: u8,
    words: [u8; 3],
}

fn any_call() -> impl Strategy<Value = Called> {
    (1u8..5, [0u8..6, 0u8..6, 0u8..6]).prop_map(|(caller, words)| Called { caller, words })
}

fn input(call: &Called) -> Bytes {
    let [first, second, third] = call.words;
    let address = |n: u8| U256::from_be_bytes(Address::repeat_byte(0x10 + n).into_word().0);
    let arguments = words(&[address(first), U256::from(second), address(third)]);
    [&SELECTOR[..], &arguments].concat().into()
}

fn new_world(code: Code) -> (World, Vec<Wallet>) {
    let wallets: Vec<_> = (1..5).map(Wallet::new).collect();
    let rich = GenesisAccount { balance: U256::from(ETHER), ..GenesisAccount::default() };
    let mut accounts: BTreeMap<_, _> = wallets.iter().map(|w| (w.address, rich.clone())).collect();
    accounts.insert(CONTRACT, GenesisAccount { code: code.build(), ..rich });
    let genesis = genesis(&ChainParams::new(CHAIN), &accounts);
    (World::new(EvmRuntime::new(CHAIN), genesis), wallets)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random contracts and calls: with predictions, everything comes out as without.
    #[test]
    fn a_prediction_is_right_or_a_stray(
        steps in prop::collection::vec(any_step(), 1..6),
        calls in prop::collection::vec(any_call(), 1..40),
    ) {
        let code = steps.iter().fold(Code::new(), |code, step| step.append(code));
        prop_assume!(code.clone().build().len() < 250);
        let (mut world, mut wallets) = new_world(code.clone());
        let (mut oracle, _) = new_world(code);
        let mut predicting = Predicting::new(&world);
        for call in &calls {
            let wallet = &mut wallets[usize::from(call.caller - 1)];
            let raw = wallet.call(CONTRACT, input(call));
            prop_assert_eq!(predicting.run(&mut world, &raw), oracle.run(&raw));
            prop_assert_eq!(&world.state.0, &oracle.state.0);
        }
    }

    /// Footprints that have nothing to do with the call but for some of its keys: it strays, or
    /// comes out as the oracle has it.
    #[test]
    fn a_wrong_footprint_never_makes_another_outcome(
        steps in prop::collection::vec(any_step(), 1..6),
        call in any_call(),
        kept in prop::collection::vec((any::<bool>(), any::<bool>()), 16),
        others in prop::collection::vec(0u8..8, 0..4),
    ) {
        let code = steps.iter().fold(Code::new(), |code, step| step.append(code));
        prop_assume!(code.clone().build().len() < 250);
        let (mut world, mut wallets) = new_world(code.clone());
        let (mut oracle, _) = new_world(code);
        let raw = wallets[usize::from(call.caller - 1)].call(CONTRACT, input(&call));
        let right = world.record(&world.admit(&raw), true).1.footprint;
        let narrowed = right.accesses().iter().zip(kept.iter().cycle());
        let mut accesses: Vec<Access> = narrowed
            .filter(|(_, (keep, _))| *keep)
            .map(|(access, (_, write))| Access {
                mode: if *write { Mode::Write } else { access.mode },
                ..access.clone()
            })
            .collect();
        accesses.extend(others.iter().map(|n| {
            let address = Address::repeat_byte(0x10 + n);
            let key = if n % 2 == 0 { keys::account(&address) } else { keys::account(&CONTRACT) };
            Access { key, mode: Mode::Write }
        }));
        let before = world.state.0.clone();
        let receipt = world.run_within(&raw, Footprint::new(accesses).unwrap());
        match receipt.outcome {
            Outcome::Strayed { .. } => prop_assert_eq!(&world.state.0, &before),
            _ => {
                prop_assert_eq!(receipt, oracle.run(&raw));
                prop_assert_eq!(&world.state.0, &oracle.state.0);
            }
        }
    }
}

#[test]
fn transfers_of_ether_are_predicted_to_anyone_but_contracts() {
    let (mut world, mut wallets) = new_world(Code::new().ops(&[CALLER]).entry(0).store(3));
    let mut predicting = Predicting::new(&world);
    for n in 0..100u8 {
        let wallet = &mut wallets[usize::from(n % 4)];
        let to = Address::repeat_byte(0x40 + n % 64);
        let receipt = predicting.run(&mut world, &wallet.legacy(TxKind::Call(to), 5, Bytes::new()));
        assert!(receipt.is_committed());
    }
    // Three are learnt from, and one is an audit.
    assert_eq!((predicting.predicted, predicting.strayed), (96, 0));
    // One stray for a contract; then it has an entry point of its own, and is learnt.
    for n in 0..10 {
        let wallet = &mut wallets[n % 4];
        predicting.run(&mut world, &wallet.legacy(TxKind::Call(CONTRACT), 5, Bytes::new()));
    }
    assert_eq!((predicting.predicted, predicting.strayed), (96 + 1 + 6, 1));
    let to = Address::repeat_byte(0x99);
    predicting.run(&mut world, &wallets[0].legacy(TxKind::Call(to), 5, Bytes::new()));
    assert_eq!((predicting.predicted, predicting.strayed), (104, 1), "others are not affected");
}

#[test]
fn whoever_calls_alone_is_predicted_alone() {
    let (mut world, mut wallets) = new_world(token());
    let mut predicting = Predicting::new(&world);
    let pay = |to: u8| words(&[U256::from(0x4000) + U256::from(to), U256::ONE]);
    for n in 0..20 {
        let raw = wallets[0].call(CONTRACT, pay(n));
        predicting.run(&mut world, &raw);
    }
    let alone = predicting.predicted;
    let raw = wallets[1].call(CONTRACT, pay(0));
    predicting.run(&mut world, &raw);
    assert_eq!(predicting.predicted, alone, "it has seen one caller only");
    assert_eq!(predicting.strayed, 0);
}
