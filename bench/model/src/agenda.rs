//! What is still to happen, by virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds of virtual time since the beginning.
pub(crate) type Nanos = u64;

/// Nanoseconds of a microsecond.
pub(crate) const MICROSECOND: Nanos = 1_000;
/// Nanoseconds of a millisecond.
pub(crate) const MILLISECOND: Nanos = 1_000_000;
/// Nanoseconds of a second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// What is still to happen. What is due at the same time happens in the order it was planned in.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    entries: BinaryHeap<Reverse<Entry<E>>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Nanos,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { entries: BinaryHeap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Nanos, event: E) {
        self.planned += 1;
        self.entries.push(Reverse(Entry { at, number: self.planned, event }));
    }

    /// The next event and its time.
    pub(crate) fn next(&mut self) -> Option<(Nanos, E)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut agenda = Agenda::new();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            agenda.plan(at, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(order, [(3, 'b'), (3, 'd'), (5, 'a'), (5, 'c')]);
    }
}
