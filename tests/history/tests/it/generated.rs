//! Long histories of a correct database, as they are and with one thing changed.
//!
//! A change is *observable* if what is changed contradicts what other operations saw, or when they
//! ran. Each test below changes something where it is, and says why.

use parsec_history::{Consistency, Element, Found, Operation, Outcome, Step, Tick, check};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::assert_fine;
use crate::generator::{Serial, Shape, any_plan};

const SHAPE: Shape = Shape { keys: 3, processes: 5, delay: 20, blind: false };

fn any_history() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(any_plan(SHAPE), 1..150)
        .prop_map(|plans| Serial::default().history(&plans))
}

fn is_wrong(history: &[Operation]) -> bool {
    check(history, Consistency::StrictSerializable).is_err()
}

/// A step of a transaction that committed, and where it is.
#[derive(Clone, Copy)]
struct At<'a> {
    operation: usize,
    step: usize,
    what: &'a Step,
}

fn committed(history: &[Operation]) -> impl Iterator<Item = At<'_>> {
    let operations = history.iter().enumerate();
    let operations = operations.filter(|(_, each)| each.outcome == Outcome::Committed);
    operations.flat_map(|(operation, each)| {
        each.steps.iter().enumerate().map(move |(step, what)| At { operation, step, what })
    })
}

/// Reads of a transaction that had not touched the key before, and what they found.
fn first_reads(history: &[Operation]) -> impl Iterator<Item = (At<'_>, &Found)> {
    committed(history).filter_map(|at| {
        let Step::Read { key, found } = at.what else { return None };
        let before = &history[at.operation].steps[..at.step];
        before.iter().all(|step| step.key() != key).then_some((at, found))
    })
}

fn written(step: &Step) -> Option<Element> {
    match step {
        Step::Read { .. } => None,
        Step::Write { element, .. } | Step::Append { element, .. } | Step::Add { element, .. } => {
            Some(*element)
        }
    }
}

fn elements(found: &Found) -> &[Element] {
    match found {
        Found::Register(element) => element.as_slice(),
        Found::List(elements) | Found::Set(elements) => elements,
    }
}

/// Pairs of a write and a first read of the same key by another transaction.
fn writes_and_reads(history: &[Operation]) -> impl Iterator<Item = (At<'_>, At<'_>, &Found)> {
    let writes = committed(history).filter(|at| written(at.what).is_some());
    writes.flat_map(move |write| {
        let same = move |(read, _): &(At<'_>, &Found)| {
            read.operation != write.operation && read.what.key() == write.what.key()
        };
        first_reads(history).filter(same).map(move |(read, found)| (write, read, found))
    })
}

fn set_found(history: &mut [Operation], operation: usize, step: usize, new: Found) {
    if let Step::Read { found, .. } = &mut history[operation].steps[step] {
        *found = new;
    }
}

/// What was there before a write, given what its transaction or anybody found later.
fn without(history: &[Operation], write: At<'_>, found: &Found) -> Option<Found> {
    let element = written(write.what)?;
    let before = |elements: &[Element]| {
        let place = elements.iter().position(|each| *each == element);
        place.map(|place| elements[..place].to_vec())
    };
    match found {
        Found::List(elements) => before(elements).map(Found::List),
        Found::Set(elements) => before(elements).map(Found::Set),
        Found::Register(_) => {
            let first = first_reads(history).find(|(read, _)| {
                read.operation == write.operation && read.what.key() == write.what.key()
            });
            first.map(|(_, found)| found.clone())
        }
    }
}

const CONFIG: fn() -> ProptestConfig =
    || ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };

proptest! {
    #![proptest_config(CONFIG())]

    #[test]
    fn there_is_no_false_alarm(history in any_history()) {
        assert_fine(&history);
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter(mut history in any_history().prop_shuffle()) {
        // It tells which of two operations of a process came first if both took no time.
        for operation in &mut history {
            operation.returned = operation.returned.max(Tick(operation.invoked.0 + 1));
        }
        assert_fine(&history);
    }

    /// Whoever wrote had returned before the read began; yet it finds what was there before the
    /// write.
    #[test]
    fn a_stale_read_is_found(mut history in any_history(), which in any::<Index>()) {
        let stale = |(write, read, found): (At<'_>, At<'_>, &Found)| {
            let late = history[write.operation].returned < history[read.operation].invoked;
            let old = without(&history, write, found)?;
            late.then_some((read.operation, read.step, old))
        };
        let candidates: Vec<_> = writes_and_reads(&history).filter_map(stale).collect();
        prop_assume!(!candidates.is_empty());
        let (operation, step, old) = which.get(&candidates).clone();
        set_found(&mut history, operation, step, old);
        prop_assert!(is_wrong(&history));
    }

    /// An element is in no read any more; one of them began after the element had been written.
    #[test]
    fn a_lost_element_is_found(mut history in any_history(), which in any::<Index>()) {
        let late = |(write, read, found): (At<'_>, At<'_>, &Found)| {
            let late = history[write.operation].returned < history[read.operation].invoked;
            let grows = !matches!(found, Found::Register(_));
            let lost = (write.operation, write.what.key().to_owned(), written(write.what)?);
            (late && grows).then_some(lost)
        };
        let candidates: Vec<_> = writes_and_reads(&history).filter_map(late).collect();
        prop_assume!(!candidates.is_empty());
        let (writer, lost, element) = which.get(&candidates).clone();
        for (index, operation) in history.iter_mut().enumerate() {
            for step in &mut operation.steps {
                if let Step::Read { key, found: Found::List(elements) | Found::Set(elements) } = step
                    && index != writer
                    && *key == lost
                {
                    elements.retain(|each| *each != element);
                }
            }
        }
        prop_assert!(is_wrong(&history));
    }

    /// A transaction found what another one wrote that was only invoked later.
    #[test]
    fn a_read_of_the_future_is_found(mut history in any_history(), which in any::<Index>()) {
        let sees = |(write, read, found): (At<'_>, At<'_>, &Found)| {
            let seen = elements(found).contains(&written(write.what)?);
            seen.then_some(read.operation)
        };
        let candidates: Vec<_> = writes_and_reads(&history).filter_map(sees).collect();
        prop_assume!(!candidates.is_empty());
        let operation = &mut history[*which.get(&candidates)];
        (operation.invoked, operation.returned) = (Tick(0), Tick(0));
        prop_assert!(is_wrong(&history));
    }

    /// Two elements change places in one read, and another read has both.
    #[test]
    fn elements_in_another_order_are_found(mut history in any_history(), which in any::<Index>()) {
        let mut candidates = Vec::new();
        for (read, found) in first_reads(&history) {
            let Found::List(order) = found else { continue };
            for place in 1..order.len() {
                let elsewhere = first_reads(&history).any(|(other, found)| {
                    other.operation != read.operation
                        && other.what.key() == read.what.key()
                        && elements(found).len() > place
                });
                let mut order = order.clone();
                order.swap(place - 1, place);
                if elsewhere {
                    candidates.push((read.operation, read.step, Found::List(order)));
                }
            }
        }
        prop_assume!(!candidates.is_empty());
        let (operation, step, order) = which.get(&candidates).clone();
        set_found(&mut history, operation, step, order);
        prop_assert!(is_wrong(&history));
    }

    /// Two transactions replace the same version of a register.
    #[test]
    fn a_lost_update_is_found(mut history in any_history(), which in any::<Index>()) {
        let follows = |(write, read, found): (At<'_>, At<'_>, &Found)| {
            let register = matches!(write.what, Step::Write { .. });
            let seen = elements(found).contains(&written(write.what)?);
            let own = &history[read.operation].steps;
            let writes = own.iter().any(|s| s.key() == read.what.key() && written(s).is_some());
            let before = without(&history, write, found)?;
            (register && seen && writes).then_some((read.operation, read.step, before))
        };
        let candidates: Vec<_> = writes_and_reads(&history).filter_map(follows).collect();
        prop_assume!(!candidates.is_empty());
        let (operation, step, before) = which.get(&candidates).clone();
        set_found(&mut history, operation, step, before);
        prop_assert!(is_wrong(&history));
    }

    /// A transaction that others saw says that it has aborted.
    #[test]
    fn an_effect_of_an_aborted_transaction_is_found(
        mut history in any_history(),
        which in any::<Index>(),
    ) {
        let sees = |(write, _, found): (At<'_>, At<'_>, &Found)| {
            let seen = elements(found).contains(&written(write.what)?);
            seen.then_some(write.operation)
        };
        let candidates: Vec<_> = writes_and_reads(&history).filter_map(sees).collect();
        prop_assume!(!candidates.is_empty());
        history[*which.get(&candidates)].outcome = Outcome::Aborted;
        prop_assert!(is_wrong(&history));
    }
}
