//! Units of transactions, tried over a state that has to be fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, EpochNumber, EpochRecord, Footprint, Key, Mode, Outcome, PartitionId, Receipt,
    Transaction, Value,
};
use proptest::prelude::*;

use super::*;
use crate::lua::{self, LuaCall, LuaRuntime, LuaValue};
use crate::native::{self, NativeRuntime, Op, Program, key};
use crate::testing::{Found, Scout};
use crate::{Execution, Runtime};

const ENTROPY: [u8; 32] = [9; 32];

type State = BTreeMap<Key, Value>;

fn epoch() -> EpochRecord {
    EpochRecord {
        number: EpochNumber(7),
        timestamp_ms: 1_700_000_000_123,
        block: 0,
        parent: [5; 32],
        batches: Vec::new(),
    }
}

fn runtimes() -> Runtimes {
    let native: Arc<dyn Runtime> = Arc::new(NativeRuntime);
    Runtimes::new(vec![native, Arc::new(LuaRuntime::new())])
}

fn scout() -> Scout {
    Scout::new(runtimes(), epoch(), ENTROPY)
}

fn find(scout: &mut Scout, state: &State, transactions: &[Transaction]) -> Found {
    let subjects = transactions.iter().map(|each| scout.subject(each)).collect();
    scout.find(state, subjects)
}

/// Finds footprints, and executes one transaction after another within them.
fn run(scout: &mut Scout, state: &mut State, transactions: &[Transaction]) -> Vec<Receipt> {
    let subjects: Vec<_> = transactions.iter().map(|each| scout.subject(each)).collect();
    let footprints = scout.find(state, subjects.clone()).all();
    let mut sessions = runtimes().sessions();
    let mut receipts = Vec::new();
    for (subject, footprint) in subjects.into_iter().zip(footprints) {
        let entry = Entry {
            id: subject.id,
            runtime: subject.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: subject.sender,
            payload: subject.payload,
            footprint,
            expires: None,
        };
        let accesses = entry.footprint.accesses();
        let values: Vec<_> = accesses.iter().map(|a| state.get(&a.key).cloned()).collect();
        let run = Execution::run(&mut sessions, &entry, &epoch(), &ENTROPY, 0, &values).unwrap();
        for ((access, old), change) in accesses.iter().zip(&values).zip(&run.changes) {
            match change.apply(old.as_ref()) {
                Some(value) => state.insert(access.key.clone(), value),
                None => state.remove(&access.key),
            };
        }
        receipts.push(run.receipt);
    }
    receipts
}

fn k(name: impl AsRef<str>) -> Key {
    key(name.as_ref()).unwrap()
}

fn pointer(to: &Key) -> Value {
    Value::copy_from_slice(to.encoded())
}

/// A chain of so many pointers.
fn chain(state: &mut State, name: &str, hops: usize) -> Key {
    for hop in 0..hops {
        state.insert(k(format!("{name}{hop}")), pointer(&k(format!("{name}{}", hop + 1))));
    }
    k(format!("{name}0"))
}

fn pay(contract: [u8; 32], from: u8, to: u8, amount: i64) -> Transaction {
    let account = |n: u8| LuaValue::from(&[n; 32][..]);
    let arguments = [account(from), account(to), LuaValue::Int(amount)];
    let salt = u128::from(from) << 8 | u128::from(to);
    LuaCall::invoke(contract, "transfer", arguments).into_transaction(salt)
}

fn account(contract: &[u8; 32], number: u8) -> Key {
    lua::contract_key(contract, &[&b"account_"[..], &[number; 32]].concat()).unwrap()
}

#[test]
fn chases_beside_one_another_take_the_rounds_of_one() {
    let mut state = State::new();
    let mut program = Program::new();
    for n in 0..10 {
        let start = chain(&mut state, &format!("c{n}-"), 5);
        program = program.chase(&start, 5, Some("end".into()));
    }
    let found = find(&mut scout(), &state, &[program.into_transaction(0)]);
    assert_eq!((found.rounds, found.fetched), (6, 60));
    let footprint = &found.all()[0];
    assert_eq!(footprint.accesses().len(), 60);
    assert!(footprint.covers(&k("c3-5"), Mode::Write));
}

#[test]
fn the_longest_chase_is_followed_to_its_end() {
    let mut state = State::new();
    let mut program = Program::new();
    let mut start = chain(&mut state, "n", native::HOPS_MAX);
    for part in (0..native::HOPS_MAX).step_by(250) {
        let hops = (native::HOPS_MAX - part).min(250);
        start = if part == 0 { start } else { k(format!("n{part}")) };
        program = program.chase(&start, u8::try_from(hops).unwrap(), None);
    }
    let found = find(&mut scout(), &state, &[program.into_transaction(0)]);
    assert!(found.rounds <= native::HOPS_MAX + 2, "{} rounds", found.rounds);
    assert_eq!(found.all()[0].accesses().len(), native::HOPS_MAX + 1);
}

#[test]
fn a_contract_that_reads_one_key_after_another_takes_one_round() {
    let source = "return { sum = function(n) local sum = 0 for i = 1, n do \
                  sum = sum + state.number('k' .. i) end state.add('sums', 1) return sum end }";
    let contract = lua::contract_id(source.as_bytes());
    let mut state = State::from([(lua::source_key(&contract), source.into())]);
    let name = |n: u32| lua::contract_key(&contract, format!("k{n}").as_bytes()).unwrap();
    state.extend((1..=100).map(|n| (name(n), Value::from(vec![0; 32]))));
    let sum = |n: i64, salt| {
        let call = LuaCall::invoke(contract, "sum", [LuaValue::Int(n)]);
        call.into_transaction(salt)
    };
    let mut scout = scout();
    let cold = find(&mut scout, &state, &[sum(10, 0)]);
    assert_eq!((cold.rounds, cold.fetched), (2, 11), "the source, then all it reads");
    let warm = find(&mut scout, &state, &[sum(100, 1)]);
    assert_eq!((warm.rounds, warm.fetched), (1, 100));
    assert_eq!(warm.all()[0].accesses().len(), 102);
    // More than may be guessed at once: it still ends, in a few rounds of so many.
    let many = find(&mut scout, &state, &[sum(1_000, 2)]);
    assert_eq!((many.rounds, many.fetched), (1_000_usize.div_ceil(GUESSES_MAX), 1_000));
}

/// Each counts up, and writes where the count stands: all depend on all before them. What one would
/// do if nothing stands there is seen by the next before that is known.
#[test]
fn a_chain_of_those_that_number_what_they_write_takes_few_rounds() {
    let source = "return { mint = function(owner) \
                  local n = state.get('count') or '0' \
                  assert(state.get('owner' .. n) == nil, 'it has an owner') \
                  state.put('owner' .. n, owner) \
                  state.put('count', tostring(tonumber(n) + 1)) end }";
    let contract = lua::contract_id(source.as_bytes());
    let state = State::from([(lua::source_key(&contract), source.into())]);
    let mint = |n: u128| {
        let owner = LuaValue::from(&[1_u8; 32][..]);
        LuaCall::invoke(contract, "mint", [owner]).into_transaction(n)
    };
    let mut scout = scout();
    let unit: Vec<_> = (0..100).map(mint).collect();
    let mut subjects: Vec<_> = unit.iter().map(|each| scout.subject(each)).collect();
    subjects.iter_mut().for_each(|subject| subject.erratic = true);
    let found = scout.find(&state, subjects);
    assert!(found.rounds <= 4, "{} rounds", found.rounds);
    let footprints = found.all();
    let owner = |n: usize| lua::contract_key(&contract, format!("owner{n}").as_bytes()).unwrap();
    for (n, footprint) in footprints.iter().enumerate() {
        assert!(footprint.covers(&owner(n), Mode::Write), "{n}: {footprint:?}");
    }
    // When there is no time for more, what was found stands. The first one need not be tried again.
    scout.retrials.set(10);
    let mut subjects: Vec<_> = unit.iter().map(|each| scout.subject(each)).collect();
    subjects.iter_mut().for_each(|subject| subject.erratic = true);
    let footprints = scout.find(&state, subjects).all();
    let chained = |n: &usize| footprints[*n].covers(&owner(*n), Mode::Write);
    assert_eq!((0..unit.len()).take_while(chained).count(), 11);
}

#[test]
fn what_touches_too_much_is_refused() {
    let source = "return { f = function() for i = 1, 100000 do state.get('k' .. i) end end }";
    let contract = lua::contract_id(source.as_bytes());
    let state = State::from([(lua::source_key(&contract), source.into())]);
    let call = LuaCall::Invoke {
        contract,
        function: "f".to_owned(),
        arguments: Vec::new(),
        limit: lua::limits::WORK_MAX,
    };
    let found = find(&mut scout(), &state, &[call.into_transaction(0)]);
    assert!(found.rounds <= 17, "{} rounds", found.rounds);
    assert_eq!(found.footprints[0].as_ref().unwrap_err().code, ErrorCode::TooLarge);
}

#[test]
fn what_is_guessed_never_becomes_a_footprint() {
    // With a guess, the contract goes where it never goes with true values.
    let source = "return { f = function() if state.get('flag') then \
                  state.put('never', 'x') else state.put('always', 'x') end end }";
    let contract = lua::contract_id(source.as_bytes());
    let state = State::from([(lua::source_key(&contract), source.into())]);
    let call = LuaCall::invoke(contract, "f", []).into_transaction(0);
    let footprint = find(&mut scout(), &state, &[call]).all().remove(0);
    let name = |name: &str| lua::contract_key(&contract, name.as_bytes()).unwrap();
    assert!(footprint.covers(&name("always"), Mode::Write));
    assert_eq!(footprint.find(&name("never")), None);
}

#[test]
fn a_contract_is_deployed_and_called_in_one_unit() {
    let contract = lua::contract_id(lua::PAY.as_bytes());
    let mut state = State::from([lua::pay_account(&[1; 32], 100, 0)]);
    let deploy = LuaCall::deploy(lua::PAY).into_transaction(0);
    let unit = [deploy, pay(contract, 1, 2, 60), pay(contract, 2, 3, 50), pay(contract, 9, 3, 1)];
    let mut scout = scout();
    let found = find(&mut scout, &state, &unit);
    assert!(found.rounds <= 4, "{} rounds", found.rounds);
    assert_eq!(found.deployments, [lua::source_key(&contract)]);
    let receipts = run(&mut scout, &mut state, &unit);
    let outcomes: Vec<_> = receipts.into_iter().map(|receipt| receipt.outcome).collect();
    let refused = Outcome::Reverted(ErrorCode::Refused);
    // The third spends what the second brings; the fourth has nothing.
    assert_eq!(outcomes[..3], [Outcome::Committed, Outcome::Committed, Outcome::Committed]);
    assert_eq!(outcomes[3], refused);
    assert!(state.contains_key(&account(&contract, 3)));
}

#[test]
fn a_pointer_that_is_set_before_is_followed() {
    let (first, second, third) = (k("first"), k("second"), k("third"));
    let mut state = State::from([(k("p"), pointer(&first))]);
    let unit = [
        // Its footprint is told by its payload, so it is tried only for what it does to the next.
        Program::new().put(&k("p"), pointer(&second)).into_transaction(0),
        Program::new().chase(&k("p"), 1, Some(pointer(&third))).into_transaction(1),
        Program::new().chase(&k("p"), 2, Some("x".into())).into_transaction(2),
        Program::new().put(&k("elsewhere"), "y").into_transaction(3),
    ];
    let receipts = run(&mut scout(), &mut state, &unit);
    assert!(receipts.iter().all(Receipt::is_committed), "{receipts:?}");
    assert_eq!(state[&third], Value::from("x"));
}

#[test]
fn who_goes_another_way_may_come_to_depend_on_others_instead() {
    let mut state = State::from([(k("p"), pointer(&k("old")))]);
    let unit = [
        Program::new().put(&k("new"), pointer(&k("end"))).into_transaction(0),
        Program::new().put(&k("old"), pointer(&k("end"))).into_transaction(1),
        Program::new().put(&k("p"), pointer(&k("new"))).into_transaction(2),
        // Over the state it depends on the second and third, then on the first and third.
        Program::new().chase(&k("p"), 2, None).into_transaction(3),
    ];
    let receipts = run(&mut scout(), &mut state, &unit);
    assert!(receipts.iter().all(Receipt::is_committed), "{receipts:?}");
}

#[test]
fn deployments_are_filled_in_for_those_who_came_too_early() {
    let contract = lua::contract_id(lua::PAY.as_bytes());
    let scout = scout();
    let (trials, setting) = (Trials::new(runtimes()), Setting { epoch: epoch(), entropy: ENTROPY });
    struct Nothing;
    impl Memory for Nothing {
        fn replicated(&self, _: &Key) -> Option<Value> {
            None
        }
        fn last_known(&self, _: &Key) -> Option<Value> {
            None
        }
    }
    let mut unit = Unit::new(vec![scout.subject(&pay(contract, 1, 2, 0))]);
    let attempt = |unit: &mut Unit| {
        let mut wanted = BTreeSet::new();
        let attempt = unit.attempt(0, &trials, &setting, &Nothing);
        unit.take(0, attempt, &mut wanted);
        wanted
    };
    let source = lua::source_key(&contract);
    assert_eq!(attempt(&mut unit), BTreeSet::from([source.clone()]));
    unit.learn(source.clone(), None);
    assert!(attempt(&mut unit).is_empty() && unit.open().is_empty(), "there is no contract");
    assert!(!unit.fill(|_| None));
    assert!(unit.fill(|key| (*key == source).then(|| lua::PAY.into())));
    assert_eq!(unit.open(), [0]);
    assert_eq!(attempt(&mut unit), BTreeSet::from([account(&contract, 1)]));
}

#[test]
fn a_panic_over_guesses_is_no_panic_over_values() {
    struct Touchy;
    impl Runtime for Touchy {
        fn id(&self) -> RuntimeId {
            RuntimeId::NATIVE
        }
        fn admit(&self, _: &Transaction) -> Result<crate::Admitted, crate::Rejection> {
            unreachable!("not asked to")
        }
        fn guess(&self, _: &Key) -> Option<Value> {
            Some("guess".into())
        }
        fn session(&self) -> Box<dyn crate::Session> {
            Box::new(Self)
        }
    }
    impl crate::Session for Touchy {
        fn execute(
            &mut self,
            _: &Call<'_>,
            state: &mut dyn crate::State,
        ) -> Result<crate::Done, Interrupt> {
            let value = state.get(&k("a"))?;
            assert_ne!(value, Some("guess".into()), "touchy");
            state.put(&k("b"), value)?;
            let (outcome, output) = (Outcome::Committed, Bytes::new());
            Ok(crate::Done { outcome, work: 1, output, events: Vec::new() })
        }
    }
    let runtimes = Runtimes::new(vec![Arc::new(Touchy)]);
    let mut scout = Scout::new(runtimes, epoch(), ENTROPY);
    let subject = Subject {
        id: TxId([1; 32]),
        runtime: RuntimeId::NATIVE,
        sender: Bytes::new(),
        payload: Bytes::new(),
        known: None,
        declares: false,
        erratic: false,
    };
    let found = scout.find(&State::from([(k("a"), "1".into())]), vec![subject]);
    let write = |name| Access { key: k(name), mode: Mode::Write };
    let read = Access { key: k("a"), mode: Mode::Read };
    assert_eq!(found.all(), [Footprint::new(vec![read, write("b")]).unwrap()]);
}

fn any_name() -> impl Strategy<Value = Key> {
    (0u8..6).prop_map(|n| k(format!("k{n}")))
}

/// Operations that never say no, except where a chase finds no pointer.
fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => any_name().prop_map(|key| Op::Get { key }),
        3 => (any_name(), any_name()).prop_map(|(key, to)| Op::Put { key, value: pointer(&to) }),
        1 => any_name().prop_map(|key| Op::Delete { key }),
        3 => (any_name(), 1u8..4, prop::option::of(any_name())).prop_map(|(start, hops, to)| {
            Op::Chase { start, hops, put: to.as_ref().map(pointer) }
        }),
    ]
}

fn any_program() -> impl Strategy<Value = Program> {
    prop::collection::vec(any_op(), 1..5).prop_map(|ops| Program { ops })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Where nobody else interferes, what was found in order is what is touched: nobody strays,
    /// unless somebody's chase finds nothing, so that what it was tried to do never happens.
    #[test]
    fn a_unit_alone_does_not_stray(
        programs in prop::collection::vec(any_program(), 1..8),
        pointers in prop::collection::vec((any_name(), any_name()), 0..8),
    ) {
        let mut state: State = pointers.iter().map(|(from, to)| (from.clone(), pointer(to))).collect();
        let unit: Vec<_> = (0u128..).zip(programs).map(|(salt, p)| p.into_transaction(salt)).collect();
        for receipt in run(&mut scout(), &mut state, &unit) {
            match receipt.outcome {
                Outcome::Committed => {}
                Outcome::Reverted(_) => break,
                outcome => return Err(TestCaseError::fail(format!("{outcome:?}"))),
            }
        }
    }
}
