//! Random native transactions that get in each other's way.

use parsec_protocol::{Access, EpochNumber, Footprint, Key, Mode, Namespace, Transaction, Value};
use parsec_runtimes::native::{Op, Program, TABLE_FIRST, key};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// The keys that hold numbers and values.
const PLAIN: u8 = 10;
/// The keys that hold pointers, after the plain ones. Programs may use them for anything.
const POINTERS: u8 = 4;

/// The key with that number: most are spread over the partitions, two stand on every partition,
/// two share a placement.
pub(crate) fn key_of(number: u8) -> Key {
    match number {
        6 | 7 => Key::new(Namespace::replicated(TABLE_FIRST), &[number]).unwrap(),
        8 | 9 => {
            let table = Namespace::partitioned(TABLE_FIRST + 1);
            Key::with_affinity(table, 4, &[b"near", &[number]]).unwrap()
        }
        _ => key([b'k', number]).unwrap(),
    }
}

/// All keys.
pub(crate) fn all_keys() -> Vec<Key> {
    (0..PLAIN + POINTERS).map(key_of).collect()
}

/// The value of a pointer to the key with that number.
fn pointer_to(number: u8) -> Value {
    Value::copy_from_slice(key_of(number).encoded())
}

/// What a client says of the keys that its transaction touches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Declared {
    /// Nothing.
    Nothing,
    /// Too few of them.
    TooFew,
    /// More than it touches.
    TooMany,
}

/// One transaction of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) program: Program,
    pub(crate) declared: Declared,
    /// The last epoch in which it may run, as from the last one that is known.
    pub(crate) expires_in: Option<i8>,
    /// Which client submits it.
    pub(crate) client: usize,
    /// Which client submits the very same transaction, too.
    pub(crate) again: Option<usize>,
}

impl Step {
    /// The transaction, for a client that last heard of epoch `now`.
    pub(crate) fn transaction(&self, salt: u128, now: EpochNumber) -> Transaction {
        let expires = self.expires_in.map(|n| EpochNumber(now.0.saturating_add_signed(n.into())));
        let footprint = self.footprint();
        Transaction { expires, footprint, ..self.program.clone().into_transaction(salt) }
    }

    fn footprint(&self) -> Option<Footprint> {
        let known = self.program.footprint().unwrap().unwrap_or_default();
        match self.declared {
            Declared::Nothing => None,
            Declared::TooFew => {
                let mut accesses = known.accesses().to_vec();
                accesses.pop();
                Some(Footprint::new(accesses).unwrap())
            }
            Declared::TooMany => {
                let all = all_keys().into_iter().map(|key| Access { key, mode: Mode::Write });
                Some(known.union(&Footprint::new(all.collect()).unwrap()).unwrap())
            }
        }
    }
}

/// Keys of which one is hot.
fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        2 => Just(0),
        7 => 0..PLAIN,
        1 => PLAIN..PLAIN + POINTERS,
    ]
    .prop_map(key_of)
}

fn any_pointer() -> impl Strategy<Value = Key> {
    (PLAIN..PLAIN + POINTERS).prop_map(key_of)
}

fn any_value() -> impl Strategy<Value = Value> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::from)
}

fn any_op() -> impl Strategy<Value = Op> {
    let target = (0..PLAIN + POINTERS).prop_map(pointer_to);
    prop_oneof![
        2 => any_key().prop_map(|key| Op::Get { key }),
        2 => (any_key(), any_value()).prop_map(|(key, value)| Op::Put { key, value }),
        1 => any_key().prop_map(|key| Op::Delete { key }),
        4 => (any_key(), -20i128..50).prop_map(|(key, amount)| Op::Add { key, amount }),
        4 => (any_key(), any_key(), 0u128..60)
            .prop_map(|(from, to, amount)| Op::Transfer { from, to, amount }),
        1 => (any_key(), prop::option::of(any_value()))
            .prop_map(|(key, equals)| Op::Require { key, equals }),
        3 => (any_pointer(), target).prop_map(|(key, value)| Op::Put { key, value }),
        3 => (any_pointer(), 1u8..4, prop::option::of(any_value()))
            .prop_map(|(start, hops, put)| Op::Chase { start, hops, put }),
        1 => (0u32..2_000).prop_map(|rounds| Op::Work { rounds }),
    ]
}

/// Any transaction of so many clients.
fn any_step(clients: usize) -> impl Strategy<Value = Step> {
    let declared = prop_oneof![
        10 => Just(Declared::Nothing),
        1 => Just(Declared::TooFew),
        1 => Just(Declared::TooMany),
    ];
    let expires_in = prop_oneof![9 => Just(None), 1 => (-1i8..4).prop_map(Some)];
    let again = prop_oneof![5 => Just(None), 1 => (0..clients).prop_map(Some)];
    let ops = prop::collection::vec(any_op(), 1..5);
    (ops, declared, expires_in, 0..clients, again).prop_map(
        |(ops, declared, expires_in, client, again)| Step {
            program: Program { ops },
            declared,
            expires_in,
            client,
            again,
        },
    )
}

/// What makes most of the others possible: balances, and pointers that point somewhere.
fn first_round() -> Vec<Step> {
    let plain = (0..PLAIN).map(|n| Op::Add { key: key_of(n), amount: 200 });
    let pointer = |n| Op::Put { key: key_of(n), value: pointer_to((n + 1) % (PLAIN + POINTERS)) };
    let pointers = (PLAIN..PLAIN + POINTERS).map(pointer);
    let step = |op| Step {
        program: Program { ops: vec![op] },
        declared: Declared::Nothing,
        expires_in: None,
        client: 0,
        again: None,
    };
    plain.chain(pointers).map(step).collect()
}

/// Rounds of transactions: each begins when the one before it has all its receipts.
pub(crate) fn any_rounds(clients: usize) -> impl Strategy<Value = Vec<Vec<Step>>> {
    let round = prop::collection::vec(any_step(clients), 1..60);
    prop::collection::vec(round, 1..5).prop_map(|mut rounds| {
        rounds.insert(0, first_round());
        rounds
    })
}

/// Rounds of so many transactions, the same ones each time.
pub(crate) fn sample(rounds: usize, transactions: usize, clients: usize) -> Vec<Vec<Step>> {
    let strategy = prop::collection::vec(
        prop::collection::vec(any_step(clients), transactions),
        rounds.saturating_sub(1),
    );
    let tree = strategy.new_tree(&mut TestRunner::deterministic()).unwrap();
    std::iter::once(first_round()).chain(tree.current()).collect()
}
