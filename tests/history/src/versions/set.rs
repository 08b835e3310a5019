//! Sets: what is found at any time contains what was found before.
//!
//! The different sets that transactions found, or left behind, are *levels*, each a part of the
//! next one. An element belongs to the first level that has it. Additions of one level commute:
//! no order of them is known, and none is needed.

use std::collections::BTreeMap;

use crate::graph::{Graph, Kind, Node};
use crate::history::{Element, Found};
use crate::view::{KeyView, Touch, View};

/// The elements of a level, in order, after their number: small levels come before large ones.
type Level = (usize, Vec<Element>);

pub(super) fn add_edges(graph: &mut Graph, view: &View<'_>, number: usize, key: &KeyView<'_>) {
    // Each with the first that found it or left it.
    let mut levels: BTreeMap<Level, &Touch> = BTreeMap::new();
    for touch in view.effective(key) {
        for level in [before(touch), after(touch)].into_iter().flatten() {
            levels.entry(level).or_insert(touch);
        }
    }
    let mut larger = levels.iter();
    larger.next();
    let clash = levels.iter().zip(larger).find(|((small, _), (large, _))| !contains(large, small));
    if let Some(((one, its), (other, others))) = clash {
        add_clash(graph, number, key, [(one, its), (other, others)]);
    } else if !levels.is_empty() {
        let levels = levels.into_keys().zip(0..).collect();
        Levels::new(graph, levels).add_edges(graph, view, number, key);
    }
}

/// What a transaction found, without what it added itself.
fn before(touch: &Touch) -> Option<Level> {
    let elements = touch.found.as_ref().map(Found::elements)?;
    Some((elements.len(), elements.to_vec()))
}

/// What a transaction left, if it looked and then added something.
fn after(touch: &Touch) -> Option<Level> {
    let found = touch.found.as_ref().filter(|_| !touch.written.is_empty())?;
    let mut elements = [found.elements(), &touch.written].concat();
    elements.sort_unstable();
    Some((elements.len(), elements))
}

fn contains(large: &Level, small: &Level) -> bool {
    small.1.iter().all(|element| large.1.binary_search(element).is_ok())
}

/// Each of two saw an element that the other one did not see, and comes before who wrote what it
/// did not see: a cycle.
fn add_clash(graph: &mut Graph, number: usize, key: &KeyView<'_>, seen: [(&Level, &Touch); 2]) {
    let [one, other] = seen;
    for ((has, reader), (lacks, late)) in [(one, other), (other, one)] {
        let only = has.1.iter().find(|element| lacks.1.binary_search(element).is_err());
        if let Some(writer) = only.and_then(|element| key.writer(*element)) {
            graph.add(writer.operation, reader.operation, Kind::WriteRead, number);
            graph.add(late.operation, writer.operation, Kind::ReadWrite, number);
        }
    }
}

/// The levels, each with two points: who added an element of the level comes before those that
/// found the level or a larger one, and after those that found a smaller one.
struct Levels {
    indexes: BTreeMap<Level, usize>,
    /// The level of each element.
    of_element: BTreeMap<Element, usize>,
    /// From those that added to a level to those that found it.
    found: Vec<Node>,
    /// From those that found the level below to those that added to a level; the last one leads to
    /// what nobody found.
    missed: Vec<Node>,
}

impl Levels {
    fn new(graph: &mut Graph, indexes: BTreeMap<Level, usize>) -> Self {
        let mut of_element = BTreeMap::new();
        for ((_, elements), index) in &indexes {
            for element in elements {
                of_element.entry(*element).or_insert(*index);
            }
        }
        let mut points = |count| {
            let points: Vec<Node> = (0..count).map(|_| graph.point()).collect();
            points.windows(2).for_each(|pair| graph.through(pair[0], pair[1]));
            points
        };
        let (found, missed) = (points(indexes.len()), points(indexes.len() + 1));
        Self { indexes, of_element, found, missed }
    }

    fn add_edges(&self, graph: &mut Graph, view: &View<'_>, number: usize, key: &KeyView<'_>) {
        for touch in view.effective(key) {
            let operation = touch.operation;
            let index = |level| self.indexes.get(&level).copied();
            if let Some(level) = before(touch).and_then(index) {
                graph.through(self.found[level], operation);
                // What it added itself is the next level, and the only one between the two.
                let own = after(touch).and_then(index).unwrap_or(level);
                graph.add(operation, self.missed[own + 1], Kind::ReadWrite, number);
            }
            for element in &touch.written {
                match self.of_element.get(element) {
                    Some(level) => {
                        graph.add(operation, self.found[*level], Kind::WriteRead, number);
                        graph.through(self.missed[*level], operation);
                    }
                    None => graph.through(self.missed[self.indexes.len()], operation),
                }
            }
        }
    }
}
