//! Edges that do not depend on data: who came before whom in time.
//!
//! One edge for each pair of operations of which one returned before the other was invoked would be
//! quadratic. Time is a chain of points instead: an operation that returns enters the next one, and
//! one that is invoked follows the last one. Both are linear in the number of operations.

use std::collections::BTreeMap;
use std::fmt;

use crate::graph::{Graph, Kind, Node};
use crate::history::{Outcome, Process};
use crate::view::View;

/// What a history is to be: each of these implies those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// There is one order of all transactions that explains what they read.
    Serializable,
    /// Such an order exists in which each process's transactions stand as it ran them: who returned
    /// no later than another was invoked comes before it. For histories
    /// whose processes have no clock in common.
    StrongSessionSerializable,
    /// Such an order exists in which who returned before another was invoked comes before it,
    /// whichever processes ran them.
    StrictSerializable,
}

impl Consistency {
    pub(crate) const ALL: [Self; 3] =
        [Self::Serializable, Self::StrongSessionSerializable, Self::StrictSerializable];

    /// Whether one operation must come before another whatever they read and wrote.
    pub(crate) fn orders(self, view: &View<'_>, before: usize, after: usize) -> bool {
        let (one, other) = (&view.operations[before], &view.operations[after]);
        if one.outcome != Outcome::Committed || self == Self::Serializable {
            return false;
        }
        let key = |index: usize| (view.operations[index].invoked, index);
        let in_process = one.process == other.process
            && one.returned <= other.invoked
            && key(before) < key(after);
        in_process || self == Self::StrictSerializable && one.returned < other.invoked
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serializable => "serializable",
            Self::StrongSessionSerializable => "serializable in the order of each process",
            Self::StrictSerializable => "strictly serializable: it contradicts real time",
        })
    }
}

/// Adds the edges that `consistency` asks for.
pub(crate) fn add_edges(graph: &mut Graph, view: &View<'_>, consistency: Consistency) {
    if consistency >= Consistency::StrongSessionSerializable {
        let mut processes: BTreeMap<Process, Vec<usize>> = BTreeMap::new();
        for index in effective(view) {
            processes.entry(view.operations[index].process).or_default().push(index);
        }
        for operations in processes.into_values() {
            add_chain(graph, Kind::Process, in_process(view, &operations));
        }
    }
    if consistency == Consistency::StrictSerializable {
        add_chain(graph, Kind::RealTime, in_real_time(view));
    }
}

fn effective(view: &View<'_>) -> impl Iterator<Item = usize> {
    (0..view.operations.len()).filter(|index| view.took_effect(*index))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoked(usize),
    Returned(usize),
}

/// What happens in one process. Who returns at a tick comes before who is invoked at it, but an
/// operation that takes no time is invoked and returns in its turn.
fn in_process(view: &View<'_>, operations: &[usize]) -> Vec<Event> {
    let mut events = Vec::new();
    for index in operations.iter().copied() {
        let operation = &view.operations[index];
        let (invoked, returned) = (operation.invoked, operation.returned);
        events.push((invoked, 1, index, Event::Invoked(index)));
        if operation.outcome == Outcome::Committed {
            let turn = if invoked == returned { (1, index) } else { (0, index) };
            events.push((returned, turn.0, turn.1, Event::Returned(index)));
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(.., event)| event).collect()
}

/// What happens at all. Who is invoked at a tick does not come after who returns at it.
fn in_real_time(view: &View<'_>) -> Vec<Event> {
    let mut events = Vec::new();
    for index in effective(view) {
        let operation = &view.operations[index];
        events.push((operation.invoked, Event::Invoked(index)));
        if operation.outcome == Outcome::Committed {
            events.push((operation.returned, Event::Returned(index)));
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event)| event).collect()
}

/// Adds an edge from each operation that returns to all that are invoked later.
fn add_chain(graph: &mut Graph, kind: Kind, events: Vec<Event>) {
    let mut last: Option<Node> = None;
    let mut returned = Vec::new();
    for event in events {
        let operation = match event {
            Event::Invoked(operation) => operation,
            Event::Returned(operation) => {
                returned.push(operation);
                continue;
            }
        };
        if !returned.is_empty() {
            let point = graph.point();
            last.into_iter().for_each(|last| graph.through(last, point));
            returned.drain(..).for_each(|operation| graph.add(operation, point, kind, 0));
            last = Some(point);
        }
        last.into_iter().for_each(|point| graph.through(point, operation));
    }
}
