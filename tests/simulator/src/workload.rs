//! Transactions, drawn so that they conflict, stray, and are refused.

use bytes::Bytes;
use parsec_protocol::{Access, Delta, Footprint, Key, Mode, Namespace, Transaction, Value};
use parsec_runtimes::native::{self, Program};

use crate::options::Load;
use crate::random::Random;

/// What a program does with one key or two.
#[derive(Debug, Clone, Copy)]
enum Step {
    Get,
    Put,
    ReadAndPut,
    Delete,
    Count,
    ReadCount,
    Pay,
    Fund,
    Require,
    Chase,
    Point,
    GetReplicated,
    PutReplicated,
}

/// Draws transactions.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    load: Load,
    steps: Vec<(u64, Step)>,
}

/// The keys of a kind, which are few so that transactions meet.
fn key(kind: u8, number: u64) -> Key {
    native::key([&[kind][..], &number.to_be_bytes()].concat()).expect("it is short")
}

fn replicated(number: u64) -> Key {
    let namespace = Namespace::replicated(native::TABLE_FIRST);
    Key::new(namespace, &number.to_be_bytes()).expect("it is short")
}

impl Workload {
    pub(crate) fn new(load: Load) -> Self {
        let steps = vec![
            (100, Step::Get),
            (100, Step::Put),
            (150, Step::ReadAndPut),
            (40, Step::Delete),
            (150, Step::Count),
            (50, Step::ReadCount),
            (150, Step::Pay),
            (40, Step::Fund),
            (30, Step::Require),
            (load.chases, Step::Chase),
            (load.points, Step::Point),
            (load.replicated, Step::GetReplicated),
            (load.replicated / 4, Step::PutReplicated),
        ];
        Self { load, steps }
    }

    /// A number of a key: half of the draws are of the first quarter.
    fn number(&self, random: &mut Random) -> u64 {
        let keys = if random.chance(500) { self.load.keys / 4 + 1 } else { self.load.keys };
        random.below(keys)
    }

    /// A value that no other transaction writes, told apart by `unique`.
    fn value(&self, random: &mut Random, unique: u128) -> Value {
        let mut value = unique.to_be_bytes().to_vec();
        let length = random.magnitude(16, self.load.value_bytes.max(16));
        value.resize(usize::try_from(length).unwrap_or(16), 0x5a);
        value.into()
    }

    /// A transaction that no other equals: `unique` is part of its id.
    pub(crate) fn draw(&self, random: &mut Random, unique: u128) -> Transaction {
        let mut program = Program::new();
        let mut accesses = Vec::new();
        for _ in 0..random.magnitude(1, 6) {
            let step = *random.weighted(&self.steps);
            program = self.step(program, step, random, unique, &mut accesses);
        }
        let mut transaction = program.into_transaction(unique);
        if random.chance(self.load.narrow) {
            transaction.footprint = narrow(random, accesses);
        }
        transaction
    }

    fn step(
        &self,
        program: Program,
        step: Step,
        random: &mut Random,
        unique: u128,
        accesses: &mut Vec<Access>,
    ) -> Program {
        let mut touch = |key: &Key, mode| accesses.push(Access { key: key.clone(), mode });
        let number = self.number(random);
        let plain = key(b'k', number);
        match step {
            Step::Get => {
                touch(&plain, Mode::Read);
                program.get(&plain)
            }
            Step::Put => {
                touch(&plain, Mode::Write);
                program.put(&plain, self.value(random, unique))
            }
            Step::ReadAndPut => {
                touch(&plain, Mode::Write);
                program.get(&plain).put(&plain, self.value(random, unique))
            }
            Step::Delete => {
                touch(&plain, Mode::Write);
                program.delete(&plain)
            }
            Step::Count => {
                let counter = key(b'c', number % 8);
                touch(&counter, Mode::Add);
                program.add(&counter, i128::from(random.between(1, 9)) - 3)
            }
            Step::ReadCount => {
                let counter = key(b'c', number % 8);
                touch(&counter, Mode::Read);
                program.get(&counter)
            }
            Step::Pay => {
                let (from, to) = (key(b'a', number), key(b'a', self.number(random)));
                touch(&from, Mode::Write);
                touch(&to, Mode::Write);
                program.transfer(&from, &to, u128::from(random.between(1, 60)))
            }
            Step::Fund => {
                let account = key(b'a', number);
                touch(&account, Mode::Write);
                program.put(&account, Value::copy_from_slice(&Delta::from(500).0))
            }
            Step::Require => {
                touch(&plain, Mode::Read);
                program.require(&plain, None)
            }
            Step::Chase => {
                let start = key(b'p', number);
                touch(&start, Mode::Read);
                let hops = u8::try_from(random.between(1, 3)).unwrap_or(1);
                let put = random.chance(500).then(|| self.value(random, unique));
                program.chase(&start, hops, put.filter(|_| hops > 1))
            }
            Step::Point => {
                let (from, to) = (key(b'p', number), key(b'p', self.number(random)));
                touch(&from, Mode::Write);
                program.put(&from, Bytes::copy_from_slice(to.encoded()))
            }
            Step::GetReplicated => {
                let key = replicated(number % 4);
                touch(&key, Mode::Read);
                program.get(&key)
            }
            Step::PutReplicated => {
                let key = replicated(number % 4);
                touch(&key, Mode::Write);
                program.put(&key, self.value(random, unique))
            }
        }
    }

    /// Some keys that a client may read.
    pub(crate) fn keys(&self, random: &mut Random) -> Vec<Key> {
        let one = |random: &mut Random| match random.below(5) {
            0 => key(b'c', random.below(8)),
            1 => key(b'a', self.number(random)),
            2 => key(b'p', self.number(random)),
            3 => replicated(random.below(4)),
            _ => key(b'k', self.number(random)),
        };
        (0..random.between(1, 12)).map(|_| one(random)).collect()
    }
}

/// A footprint that lacks one of the accesses, or allows too little of it.
fn narrow(random: &mut Random, mut accesses: Vec<Access>) -> Option<Footprint> {
    let at = random.index(accesses.len());
    match random.chance(500) {
        true => drop(accesses.swap_remove(at)),
        false => accesses[at].mode = Mode::Read,
    }
    Footprint::new(accesses).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn transactions_differ_and_are_admitted() {
        use parsec_runtimes::Runtime as _;
        let mut ids = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let workload = Workload::new(Options::draw(seed).load);
            let mut random = Random::new(seed, 9);
            for number in 0..50 {
                let transaction = workload.draw(&mut random, (u128::from(seed) << 64) | number);
                transaction.check().unwrap();
                ids.insert(native::NativeRuntime.admit(&transaction).unwrap().id);
            }
        }
        assert_eq!(ids.len(), 1_000);
    }
}
