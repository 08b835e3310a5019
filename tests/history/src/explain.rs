//! Anomalies in words.

use crate::cycles::{Cycle, Link};
use crate::graph::Kind;
use crate::history::{Element, Found, Operation, Outcome, Step, listed};
use crate::view::View;
use crate::{Anomaly, AnomalyKind, Consistency};

/// An anomaly that needs no cycle.
pub(crate) fn direct(
    view: &View<'_>,
    kind: AnomalyKind,
    operations: &[usize],
    why: String,
) -> Anomaly {
    let mut explanation = describe_all(view, operations);
    explanation.push(why);
    let violates = Consistency::Serializable;
    Anomaly { kind, violates, operations: operations.to_vec(), explanation }
}

/// A cycle.
pub(crate) fn cycle(view: &View<'_>, cycle: &Cycle) -> Anomaly {
    let operations: Vec<usize> = cycle.links.iter().map(|link| link.operation).collect();
    let mut explanation = describe_all(view, &operations);
    let next = operations.iter().cycle().skip(1);
    for (link, next) in cycle.links.iter().zip(next) {
        explanation.push(because(view, link, *next));
    }
    explanation
        .push("each of them comes before the next one, and the last before the first".into());
    Anomaly { kind: name(view, cycle), violates: cycle.violates, operations, explanation }
}

fn name(view: &View<'_>, cycle: &Cycle) -> AnomalyKind {
    let count = |kind| cycle.links.iter().filter(|link| link.kind == kind).count();
    match (count(Kind::ReadWrite), count(Kind::WriteRead)) {
        (0, 0) => AnomalyKind::WriteCycle,
        (0, _) => AnomalyKind::InformationCycle,
        _ if is_lost_update(view, cycle) => AnomalyKind::LostUpdate,
        (1, _) => AnomalyKind::ReadSkew,
        (2, _) if cycle.links.len() == 2 => AnomalyKind::WriteSkew,
        _ => AnomalyKind::AntiDependencyCycle,
    }
}

/// Whether two transactions read the same version of a key and replaced it.
fn is_lost_update(view: &View<'_>, cycle: &Cycle) -> bool {
    let [one, other] = cycle.links[..] else { return false };
    let in_time = |link: Link| matches!(link.kind, Kind::Process | Kind::RealTime);
    if one.key != other.key || in_time(one) || in_time(other) {
        return false;
    }
    let key = &view.keys[one.key];
    let touches = [one, other].map(|link| key.touch_of(link.operation));
    let [Some(one), Some(other)] = touches else { return false };
    let wrote = !one.written.is_empty() && !other.written.is_empty();
    wrote && one.found.is_some() && one.found == other.found
}

fn describe_all(view: &View<'_>, operations: &[usize]) -> Vec<String> {
    operations.iter().map(|index| describe(*index, &view.operations[*index])).collect()
}

fn describe(index: usize, operation: &Operation) -> String {
    let Operation { process, invoked, returned, outcome, steps } = operation;
    let time = match outcome {
        Outcome::Committed => format!("{} to {}", invoked.0, returned.0),
        Outcome::Aborted => format!("{} to {}, aborted", invoked.0, returned.0),
        Outcome::Unknown => format!("from {}, its outcome unknown", invoked.0),
    };
    let steps: Vec<String> = steps.iter().map(step).collect();
    format!("T{index} (process {}, {time}): {}", process.0, steps.join("; "))
}

fn step(step: &Step) -> String {
    match step {
        Step::Read { key, found } => format!("{key} was {found}"),
        Step::Write { key, element } => format!("{key} := {element}"),
        Step::Append { key, element } => format!("{element} appended to {key}"),
        Step::Add { key, element } => format!("{element} added to {key}"),
    }
}

/// Why an operation comes before another.
fn because(view: &View<'_>, link: &Link, after: usize) -> String {
    let before = link.operation;
    let order = format!("T{before} comes before T{after}");
    let [one, other] = [before, after].map(|index| &view.operations[index]);
    let reason = match link.kind {
        Kind::Process => format!("process {} ran it before", one.process.0),
        Kind::RealTime => {
            format!("it returned at {}, before {}", one.returned.0, other.invoked.0)
        }
        _ => of_data(view, link, after),
    };
    format!("{order}: {reason}")
}

fn of_data(view: &View<'_>, link: &Link, after: usize) -> String {
    let (key, before) = (&view.keys[link.key], link.operation);
    let touch = |operation| key.touch_of(operation);
    let written = |operation| touch(operation).map_or(&[][..], |touch| &touch.written[..]);
    let found = |operation| touch(operation).and_then(|touch| touch.found.as_ref());
    let found_text = |operation| found(operation).map_or_else(String::new, Found::to_string);
    let name = key.name;
    match link.kind {
        Kind::WriteWrite => format!(
            "{} of {name}, which T{before} wrote, comes before {}, which T{after} wrote \
             (write-write)",
            listed(written(before)),
            listed(written(after))
        ),
        Kind::WriteRead => format!(
            "T{after} found {name} = {}, with {}, which T{before} wrote (write-read)",
            found_text(after),
            listed(&seen(written(before), found(after)))
        ),
        _ => format!(
            "T{before} found {name} = {}, without {}, which T{after} wrote (read-write)",
            found_text(before),
            listed(written(after))
        ),
    }
}

/// What of some elements was found; all of them, if it was found out by way of others.
fn seen(written: &[Element], found: Option<&Found>) -> Vec<Element> {
    let found = found.map_or(&[][..], Found::elements);
    written.iter().copied().filter(|element| found.contains(element)).collect()
}
