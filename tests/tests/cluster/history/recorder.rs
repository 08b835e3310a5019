//! Transactions whose results say in which order they took effect, and what became of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parsec_client::Error;
use parsec_history::{Element, Found, Operation, Outcome, Process, Step, Tick, counter};
use parsec_protocol::{Key, Receipt, Transaction, Value};
use parsec_runtimes::native::{Program, Results, key};

use crate::workload::key_of;

/// Registers: hot ones, some of which stand on every partition, or share a placement.
const REGISTERS: u8 = 10;
/// Counters at a time.
const COUNTERS: usize = 2;
/// Registers that name another register: that of its element's number.
pub(super) const POINTERS: u8 = 2;

/// Something that can be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Register(u8),
    Pointer(u8),
    /// What a pointer with this element points to.
    Target(Element),
    /// A counter takes some additions, and then another one takes its place.
    Counter(usize, u64),
}

impl Place {
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Register(number) => key_of(*number),
            Self::Pointer(number) => key([b'p', *number]).unwrap(),
            Self::Target(element) => key([&b"t"[..], &element.0.to_be_bytes()].concat()).unwrap(),
            Self::Counter(number, age) => key(format!("c{number} {age}")).unwrap(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Register(number) => format!("register {number}"),
            Self::Pointer(number) => format!("pointer {number}"),
            Self::Target(element) => format!("target {element}"),
            Self::Counter(number, age) => format!("counter {number}.{age}"),
        }
    }

    /// What a value of it means.
    fn found(&self, value: Option<&Value>) -> Found {
        let last = |value: &Value| {
            let (_, tail) = value.split_last_chunk::<8>().unwrap();
            Element(u64::from_be_bytes(*tail))
        };
        match self {
            Self::Counter(..) => {
                let sum = value.map_or(0, |value| {
                    assert!(value[..16].iter().all(|byte| *byte == 0), "not a sum of additions");
                    u128::from_be_bytes(value[16..32].try_into().unwrap())
                });
                Found::Set(counter::elements(sum).unwrap())
            }
            // The last bytes of a pointer are those of the name of its target.
            _ => Found::Register(value.map(last)),
        }
    }
}

/// A transaction before it has run.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    program: Program,
    intents: Vec<Intent>,
}

#[derive(Debug, Clone)]
enum Intent {
    /// The next result is the value of that.
    Read(Place),
    Write(Place, Element),
    /// The next result is the value of what the pointer names, which then becomes the element.
    Follow(u8, Element),
}

/// A chase tells what it found, but not where: that is known when all is over.
#[derive(Debug, Clone, Copy)]
struct Followed {
    pointer: u8,
    found: Option<Element>,
    put: Element,
}

/// What clients saw.
pub(super) struct Recorder {
    started: Instant,
    elements: AtomicU64,
    additions: [AtomicU64; COUNTERS],
    operations: Mutex<Vec<(Operation, Vec<Followed>)>>,
    interruptions: AtomicU64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let additions = [const { AtomicU64::new(0) }; COUNTERS];
        let elements = AtomicU64::new(1);
        Self {
            started: Instant::now(),
            elements,
            additions,
            operations: Mutex::default(),
            interruptions: AtomicU64::new(0),
        }
    }

    /// How many operations are over.
    pub(super) fn operations(&self) -> usize {
        self.operations.lock().unwrap().len()
    }

    /// How often a crash came before the results of what was submitted.
    pub(super) fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

    pub(super) fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_nanos()).unwrap())
    }

    fn element(&self) -> Element {
        Element(self.elements.fetch_add(1, Ordering::Relaxed))
    }

    /// A counter of the present.
    fn counter(&self, random: u64) -> Place {
        let number = usize::try_from(random).unwrap() % COUNTERS;
        let additions = self.additions[number].load(Ordering::Relaxed);
        Place::Counter(number, additions / counter::ADDITIONS_MAX)
    }

    /// A transaction of some kind.
    pub(super) fn draft(&self, mut random: impl FnMut() -> u64) -> Draft {
        let kind = random() % 16;
        let mut below = |limit: u8| u8::try_from(random() % u64::from(limit)).unwrap();
        let [one, other, third] = [(); 3].map(|()| Place::Register(below(REGISTERS)));
        let pointer = below(POINTERS);
        let draft = Draft { program: Program::new(), intents: Vec::new() };
        match kind {
            0..4 => draft.update(self, &one),
            4..6 => draft.update(self, &one).update(self, &other),
            6..8 => draft.read(&one).read(&other).read(&self.counter(random())),
            8..10 => draft.add(self, random()),
            10 => draft.read(&one).add(self, random()).add(self, random()),
            11 => draft.read(&self.counter(random())).update(self, &one),
            12 => draft.update(self, &one).update(self, &third).refused(&other),
            13 => draft.point(self, pointer),
            _ => draft.follow(self, pointer),
        }
    }

    /// A transaction by which a pointer points somewhere.
    pub(super) fn pointing(&self, pointer: u8) -> Draft {
        Draft { program: Program::new(), intents: Vec::new() }.point(self, pointer)
    }

    /// What can be read at a time.
    pub(super) fn places(&self) -> Vec<Place> {
        let registers = (0..REGISTERS).map(Place::Register);
        let pointers = (0..POINTERS).map(Place::Pointer);
        registers.chain(pointers).chain((0..2).map(|number| self.counter(number))).collect()
    }

    /// A transaction has its result.
    pub(super) fn record(
        &self,
        process: usize,
        invoked: Tick,
        draft: &Draft,
        result: &Result<Receipt, Error>,
    ) {
        let returned = self.now();
        let (outcome, results) = match result {
            Ok(receipt) if receipt.is_committed() => {
                (Outcome::Committed, Results::decode(&receipt.output).unwrap().values)
            }
            Ok(_) | Err(Error::Rejected(_) | Error::NotSent { .. }) => {
                (Outcome::Aborted, Vec::new())
            }
            Err(_) => (Outcome::Unknown, Vec::new()),
        };
        let (steps, followed) = draft.steps(outcome, results);
        self.push(process, (invoked, returned), outcome, steps, followed);
    }

    /// A snapshot was read.
    pub(super) fn record_snapshot(
        &self,
        process: usize,
        invoked: Tick,
        places: &[Place],
        values: &[Option<Value>],
    ) {
        let read = |(place, value): (&Place, &Option<Value>)| Step::Read {
            key: place.name(),
            found: place.found(value.as_ref()),
        };
        let steps = places.iter().zip(values).map(read).collect();
        self.push(process, (invoked, self.now()), Outcome::Committed, steps, Vec::new());
    }

    fn push(
        &self,
        process: usize,
        (invoked, returned): (Tick, Tick),
        outcome: Outcome,
        steps: Vec<Step>,
        followed: Vec<Followed>,
    ) {
        let operation =
            Operation { process: Process(process as u64), invoked, returned, outcome, steps };
        self.operations.lock().unwrap().push((operation, followed));
    }

    /// All that was seen.
    pub(super) fn history(self) -> Vec<Operation> {
        let operations = self.operations.into_inner().unwrap();
        let targets = targets(&operations);
        let complete = |(mut operation, followed): (Operation, Vec<Followed>)| {
            for Followed { pointer, found, put } in followed {
                let target = targets.get(&put).copied();
                let at = Place::Target(target.expect("what was found where there is nothing"));
                let pointer = Place::Pointer(pointer).name();
                let (key, found) = (at.name(), Found::Register(found));
                let steps = [
                    Step::Read { key: pointer, found: Found::Register(target) },
                    Step::Read { key: key.clone(), found },
                    Step::Write { key, element: put },
                ];
                operation.steps.extend(steps);
            }
            operation
        };
        operations.into_iter().map(complete).collect()
    }
}

/// The target that each element was written to.
fn targets(operations: &[(Operation, Vec<Followed>)]) -> BTreeMap<Element, Element> {
    let mut targets = BTreeMap::new();
    for (operation, _) in operations {
        for step in &operation.steps {
            if let Step::Write { key, element } = step
                && let Some(target) = key.strip_prefix("target ")
            {
                targets.insert(*element, Element(target.parse().unwrap()));
            }
        }
    }
    // Who replaced an element at a target may be recorded before who wrote it.
    let followed = || operations.iter().flat_map(|(_, followed)| followed);
    loop {
        let before = targets.len();
        for Followed { found, put, .. } in followed() {
            if let Some(target) = found.and_then(|found| targets.get(&found).copied()) {
                targets.insert(*put, target);
            }
        }
        if targets.len() == before {
            return targets;
        }
    }
}

impl Draft {
    pub(super) fn transaction(&self, salt: u128) -> Transaction {
        self.program.clone().into_transaction(salt)
    }

    fn read(mut self, place: &Place) -> Self {
        self.program = self.program.get(&place.key());
        self.intents.push(Intent::Read(place.clone()));
        self
    }

    fn put(mut self, place: Place, element: Element, value: Vec<u8>) -> Self {
        self.program = self.program.put(&place.key(), value);
        self.intents.push(Intent::Write(place, element));
        self
    }

    fn update(self, recorder: &Recorder, place: &Place) -> Self {
        let element = recorder.element();
        self.read(place).put(place.clone(), element, element.0.to_be_bytes().to_vec())
    }

    fn add(mut self, recorder: &Recorder, random: u64) -> Self {
        let number = usize::try_from(random).unwrap() % COUNTERS;
        let addition = recorder.additions[number].fetch_add(1, Ordering::Relaxed);
        let (age, element) = (addition / counter::ADDITIONS_MAX, addition % counter::ADDITIONS_MAX);
        let (place, element) = (Place::Counter(number, age), Element(element));
        self.program = self.program.add(&place.key(), counter::amount(element).unwrap());
        self.intents.push(Intent::Write(place, element));
        self
    }

    /// ... and then it is refused, after all that it did.
    fn refused(mut self, place: &Place) -> Self {
        self.program = self.program.require(&place.key(), Some(Value::from_static(b"never")));
        self
    }

    /// A pointer points to something new, at which there is a first element.
    fn point(self, recorder: &Recorder, pointer: u8) -> Self {
        let (name, first) = (recorder.element(), recorder.element());
        let (pointer, target) = (Place::Pointer(pointer), Place::Target(name));
        let encoded = target.key().encoded().to_vec();
        let draft = self.read(&pointer).put(pointer, name, encoded);
        // Nobody else knows of it, but an element is read before it is replaced.
        draft.read(&target).put(target, first, first.0.to_be_bytes().to_vec())
    }

    fn follow(mut self, recorder: &Recorder, pointer: u8) -> Self {
        let element = recorder.element();
        let put = Some(Value::copy_from_slice(&element.0.to_be_bytes()));
        self.program = self.program.chase(&Place::Pointer(pointer).key(), 1, put);
        self.intents.push(Intent::Follow(pointer, element));
        self
    }

    /// What it did, given the results of its reads. What nothing is known of is left out.
    fn steps(&self, outcome: Outcome, results: Vec<Option<Value>>) -> (Vec<Step>, Vec<Followed>) {
        let mut results = results.into_iter();
        let (mut steps, mut followed) = (Vec::new(), Vec::new());
        for intent in &self.intents {
            match intent {
                Intent::Write(place @ Place::Counter(..), element) => {
                    steps.push(Step::Add { key: place.name(), element: *element });
                }
                Intent::Write(place, element) => {
                    steps.push(Step::Write { key: place.name(), element: *element });
                }
                _ if outcome != Outcome::Committed => {}
                Intent::Read(place) => {
                    let value = results.next().expect("a result for each read");
                    let found = place.found(value.as_ref());
                    steps.push(Step::Read { key: place.name(), found });
                }
                Intent::Follow(pointer, put) => {
                    let value = results.next().expect("a result for each chase");
                    let Found::Register(found) = Place::Register(0).found(value.as_ref()) else {
                        unreachable!("a register holds an element")
                    };
                    followed.push(Followed { pointer: *pointer, found, put: *put });
                }
            }
        }
        (steps, followed)
    }
}
