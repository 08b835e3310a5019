//! The checker on histories whose answer is known.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod anomalies;
mod brute_force;
mod generated;
mod generator;
mod large;
mod malformed;
mod unknown;

use parsec_history::{
    AnomalyKind, Consistency, Element, Failure, Found, Operation, Outcome, Process, Step, Tick,
    check,
};

/// A transaction that committed, between two ticks.
fn committed(process: u64, ticks: (u64, u64), steps: Vec<Step>) -> Operation {
    Operation {
        process: Process(process),
        invoked: Tick(ticks.0),
        returned: Tick(ticks.1),
        outcome: Outcome::Committed,
        steps,
    }
}

/// Transactions that committed, all at the same time, each in a process of its own.
fn at_once<const COUNT: usize>(transactions: [Vec<Step>; COUNT]) -> Vec<Operation> {
    let process = |(steps, number)| committed(number, (0, 10), steps);
    transactions.into_iter().zip(0..).map(process).collect()
}

fn read(key: &str, element: Option<u64>) -> Step {
    Step::Read { key: key.into(), found: Found::Register(element.map(Element)) }
}

fn read_list(key: &str, elements: &[u64]) -> Step {
    let elements = elements.iter().copied().map(Element).collect();
    Step::Read { key: key.into(), found: Found::List(elements) }
}

fn read_set(key: &str, elements: &[u64]) -> Step {
    let elements = elements.iter().copied().map(Element).collect();
    Step::Read { key: key.into(), found: Found::Set(elements) }
}

fn write(key: &str, element: u64) -> Step {
    Step::Write { key: key.into(), element: Element(element) }
}

fn append(key: &str, element: u64) -> Step {
    Step::Append { key: key.into(), element: Element(element) }
}

fn add(key: &str, element: u64) -> Step {
    Step::Add { key: key.into(), element: Element(element) }
}

/// What is wrong with a history.
#[track_caller]
fn anomaly(history: &[Operation]) -> (AnomalyKind, Consistency, Vec<usize>) {
    match check(history, Consistency::StrictSerializable) {
        Err(Failure::Anomaly(anomaly)) => (anomaly.kind, anomaly.violates, anomaly.operations),
        other => panic!("{other:?}"),
    }
}

/// Checks that a history is not serializable, whatever the order in time, because of that.
#[track_caller]
fn assert_anomaly<const COUNT: usize>(
    history: &[Operation],
    kind: AnomalyKind,
    operations: [usize; COUNT],
) {
    let mut found = anomaly(history);
    found.2.sort_unstable();
    assert_eq!(found, (kind, Consistency::Serializable, operations.to_vec()));
    assert!(check(history, Consistency::Serializable).is_err());
}

#[track_caller]
fn assert_fine(history: &[Operation]) {
    if let Err(failure) = check(history, Consistency::StrictSerializable) {
        panic!("{failure}");
    }
}
