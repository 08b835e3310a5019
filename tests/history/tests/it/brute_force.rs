//! Small histories, right and wrong ones: the checker says what trying all orders says.

use std::collections::BTreeMap;

use parsec_history::{
    AnomalyKind, Consistency, Element, Failure, Found, Operation, Outcome, Step, check,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use crate::generator::{Plan, Serial, Shape, any_plan};

/// What is done to a history of a correct database.
#[derive(Debug, Clone)]
enum Mutation {
    /// A read finds another version of its key.
    Found(Index, Index, Index),
    /// An operation has the outcome of another one.
    Outcome(Index, Index),
    /// An operation has the time of another one.
    Time(Index, Index),
    /// A set or list that was read lacks an element.
    Lack(Index, Index, Index),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), index(), index()).prop_map(|(a, b, c)| Mutation::Found(a, b, c)),
        1 => (index(), index()).prop_map(|(a, b)| Mutation::Outcome(a, b)),
        2 => (index(), index()).prop_map(|(a, b)| Mutation::Time(a, b)),
        1 => (index(), index(), index()).prop_map(|(a, b, c)| Mutation::Lack(a, b, c)),
    ]
}

fn any_plans(shape: Shape) -> impl Strategy<Value = Vec<Plan>> {
    prop::collection::vec(any_plan(shape), 1..7)
}

fn mutate(history: &mut [Operation], versions: &BTreeMap<String, Vec<Found>>, how: &Mutation) {
    let count = history.len();
    match how {
        Mutation::Found(operation, step, version) => {
            let Some((key, found)) = read_of(history, *operation, *step) else { return };
            if let Some(versions) = versions.get(key) {
                *found = version.get(versions).clone();
            }
        }
        Mutation::Outcome(to, from) => {
            history[to.index(count)].outcome = history[from.index(count)].outcome;
        }
        Mutation::Time(to, from) => {
            let Operation { invoked, returned, .. } = history[from.index(count)];
            let operation = &mut history[to.index(count)];
            (operation.invoked, operation.returned) = (invoked, returned);
        }
        Mutation::Lack(operation, step, element) => {
            let Some((_, found)) = read_of(history, *operation, *step) else { return };
            if let Found::List(elements) | Found::Set(elements) = found
                && !elements.is_empty()
            {
                elements.remove(element.index(elements.len()));
            }
        }
    }
}

fn read_of(
    history: &mut [Operation],
    operation: Index,
    step: Index,
) -> Option<(&String, &mut Found)> {
    let operation = operation.index(history.len());
    let steps = &mut history[operation].steps;
    let step = step.index(steps.len());
    if let Step::Read { key, found } = &mut steps[step] { Some((key, found)) } else { None }
}

/// Whether some order of the transactions explains everything: by trying all of them.
struct Orders<'a> {
    history: &'a [Operation],
    consistency: Consistency,
    done: Vec<bool>,
}

impl Orders<'_> {
    fn exists(history: &[Operation], consistency: Consistency) -> bool {
        let done = history.iter().map(|operation| operation.outcome == Outcome::Aborted).collect();
        Orders { history, consistency, done }.explains(&BTreeMap::new())
    }

    fn explains(&mut self, state: &BTreeMap<String, Found>) -> bool {
        let left = |index: &usize| !self.done[*index];
        let left: Vec<usize> = (0..self.history.len()).filter(left).collect();
        if left.iter().all(|index| self.history[*index].outcome == Outcome::Unknown) {
            return true;
        }
        for next in &left {
            if left.iter().any(|other| self.must_precede(*other, *next)) {
                continue;
            }
            let Some(after) = apply(&self.history[*next], state) else { continue };
            self.done[*next] = true;
            if self.explains(&after) {
                return true;
            }
            self.done[*next] = false;
        }
        false
    }

    fn must_precede(&self, before: usize, after: usize) -> bool {
        let (one, other) = (&self.history[before], &self.history[after]);
        if one.outcome == Outcome::Unknown || before == after {
            return false;
        }
        let process = one.process == other.process
            && one.returned <= other.invoked
            && (one.invoked < other.invoked || one.invoked == other.invoked && before < after);
        match self.consistency {
            Consistency::Serializable => false,
            Consistency::StrongSessionSerializable => process,
            Consistency::StrictSerializable => process || one.returned < other.invoked,
        }
    }
}

/// The state after an operation, if it found what it would have found here.
fn apply(
    operation: &Operation,
    state: &BTreeMap<String, Found>,
) -> Option<BTreeMap<String, Found>> {
    let mut state = state.clone();
    for step in &operation.steps {
        match step {
            Step::Read { key, found } if operation.outcome == Outcome::Committed => {
                let initial = initial(found);
                if sorted(state.get(key).unwrap_or(&initial)) != sorted(found) {
                    return None;
                }
            }
            Step::Read { .. } => {}
            Step::Write { key, element } => {
                state.insert(key.clone(), Found::Register(Some(*element)));
            }
            Step::Append { key, element } => {
                add(&mut state, key, *element, Found::List(Vec::new()));
            }
            Step::Add { key, element } => add(&mut state, key, *element, Found::Set(Vec::new())),
        }
    }
    Some(state)
}

fn add(state: &mut BTreeMap<String, Found>, key: &str, element: Element, initial: Found) {
    if let Found::List(elements) | Found::Set(elements) =
        state.entry(key.to_owned()).or_insert(initial)
    {
        elements.push(element);
    }
}

fn initial(found: &Found) -> Found {
    match found {
        Found::Register(_) => Found::Register(None),
        Found::List(_) => Found::List(Vec::new()),
        Found::Set(_) => Found::Set(Vec::new()),
    }
}

fn sorted(found: &Found) -> Found {
    let mut found = found.clone();
    if let Found::Set(elements) = &mut found {
        elements.sort_unstable();
    }
    found
}

/// Whether everything that is wrong must be found: no register has more than one version of which
/// it is not known what it replaced.
fn is_complete(history: &[Operation]) -> bool {
    let mut blind: BTreeMap<&str, u32> = BTreeMap::new();
    for operation in history.iter().filter(|each| each.outcome != Outcome::Aborted) {
        let known = operation.outcome == Outcome::Committed;
        let mut touched = Vec::new();
        for step in &operation.steps {
            let key = step.key();
            match step {
                Step::Read { .. } if known => touched.push(key),
                Step::Write { .. } if !touched.contains(&key) => {
                    *blind.entry(key).or_default() += 1;
                    touched.push(key);
                }
                _ => {}
            }
        }
    }
    blind.values().all(|count| *count <= 1)
}

/// How many histories had that outcome.
#[derive(Debug, Default)]
struct Seen {
    fine: u32,
    wrong: BTreeMap<(AnomalyKind, Consistency), u32>,
    incomplete: u32,
    missed: u32,
}

fn compare(history: &[Operation], seen: &mut Seen) {
    for consistency in [
        Consistency::Serializable,
        Consistency::StrongSessionSerializable,
        Consistency::StrictSerializable,
    ] {
        let truth = Orders::exists(history, consistency);
        let answer = check(history, consistency);
        match &answer {
            Ok(_) if truth => seen.fine += 1,
            Ok(_) => {
                assert!(!is_complete(history), "{consistency} missed: {history:#?}");
                seen.missed += 1;
            }
            Err(failure) => {
                assert!(!truth, "false alarm: {failure}\n{history:#?}");
                let Failure::Anomaly(anomaly) = failure else { panic!("{failure}") };
                assert!(anomaly.violates <= consistency);
                assert!(!Orders::exists(history, anomaly.violates));
                *seen.wrong.entry((anomaly.kind, anomaly.violates)).or_default() += 1;
            }
        }
        seen.incomplete += u32::from(!is_complete(history));
    }
}

fn run(cases: u32, shape: Shape) -> Seen {
    let seen = std::cell::RefCell::new(Seen::default());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mutations = prop::collection::vec(any_mutation(), 0..4);
    let outcome =
        TestRunner::new(config).run(&(any_plans(shape), mutations), |(plans, mutations)| {
            let mut serial = Serial::default();
            let mut history = serial.history(&plans);
            for mutation in &mutations {
                mutate(&mut history, &serial.versions, mutation);
            }
            compare(&history, &mut seen.borrow_mut());
            Ok(())
        });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    seen.into_inner()
}

#[test]
fn the_answer_is_that_of_trying_all_orders() {
    let seen = run(20_000, Shape { keys: 1, processes: 3, delay: 6, blind: false });
    println!("{seen:?}");
    assert!(seen.fine > 1_000);
    // Only where outcomes were made unknown may anything be missed (`compare` asserts it), and
    // that is rare.
    assert!(seen.incomplete < seen.fine / 10);
    for kind in [
        AnomalyKind::Internal,
        AnomalyKind::AbortedRead,
        AnomalyKind::IntermediateRead,
        AnomalyKind::IncompatibleOrder,
        AnomalyKind::InformationCycle,
        AnomalyKind::LostUpdate,
        AnomalyKind::ReadSkew,
    ] {
        let count = seen.wrong.iter().filter(|((each, _), _)| *each == kind).count();
        assert!(count > 0, "no history with {kind}");
    }
}

#[test]
fn with_blind_writes_no_alarm_is_false() {
    let seen = run(10_000, Shape { keys: 2, processes: 3, delay: 6, blind: true });
    println!("{seen:?}");
    assert!(seen.incomplete > 100);
}
