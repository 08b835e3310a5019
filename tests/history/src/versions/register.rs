//! Registers: who writes one reads it first, so that each version names the one before it.

use std::collections::BTreeMap;

use crate::graph::{Graph, Kind, Node};
use crate::history::{Element, Found};
use crate::view::{KeyView, View};

/// One version: an element, or nothing.
#[derive(Default)]
struct Version {
    writer: Option<Node>,
    /// Those that read it, and did not read what they wrote themselves.
    readers: Vec<Node>,
    /// Those of them that wrote the next version, each with that. More than one is an anomaly.
    next: Vec<(Node, Element)>,
}

pub(super) fn add_edges(graph: &mut Graph, view: &View<'_>, number: usize, key: &KeyView<'_>) {
    let mut versions: BTreeMap<Option<Element>, Version> = BTreeMap::new();
    let mut blind = Vec::new();
    versions.entry(None).or_default();
    for touch in view.effective(key) {
        let operation = touch.operation;
        let written = touch.written.last().copied();
        if written.is_some() {
            versions.entry(written).or_default().writer = Some(operation);
        }
        match (&touch.found, written) {
            (Some(Found::Register(found)), next) => {
                let version = versions.entry(*found).or_default();
                version.readers.push(operation);
                version.next.extend(next.map(|element| (operation, element)));
            }
            (_, Some(_)) => blind.push(operation),
            (_, None) => {}
        }
    }
    for version in versions.values() {
        add_version(graph, number, version);
    }
    if let Some(last) = end_of_first_chain(&versions) {
        add_blind(graph, number, last, &blind);
    }
}

/// Those that wrote a version, read it, and replaced it come in this order.
fn add_version(graph: &mut Graph, number: usize, version: &Version) {
    if let Some(writer) = version.writer {
        version.readers.iter().for_each(|to| graph.add(writer, *to, Kind::WriteRead, number));
        version.next.iter().for_each(|(to, _)| graph.add(writer, *to, Kind::WriteWrite, number));
    }
    let Some((first, _)) = version.next.first() else { return };
    for reader in &version.readers {
        graph.add(*reader, *first, Kind::ReadWrite, number);
    }
    // Of several that replaced the same version each comes before all others; a pair is enough.
    for (other, _) in &version.next[1..] {
        graph.add(*first, *other, Kind::ReadWrite, number);
    }
}

/// The last version of which it is known how it follows from the initial one; `None` if two follow
/// from the same.
fn end_of_first_chain(versions: &BTreeMap<Option<Element>, Version>) -> Option<&Version> {
    let mut version = versions.get(&None)?;
    loop {
        match version.next[..] {
            [] => return Some(version),
            [(_, element)] => version = versions.get(&Some(element))?,
            _ => return None,
        }
    }
}

/// What follows from the initial version step by step has no room for others in between: versions
/// that were written blindly come after all of it.
fn add_blind(graph: &mut Graph, number: usize, last: &Version, blind: &[Node]) {
    if blind.is_empty() {
        return;
    }
    let point = graph.point();
    if let Some(writer) = last.writer {
        graph.add(writer, point, Kind::WriteWrite, number);
    }
    last.readers.iter().for_each(|reader| graph.add(*reader, point, Kind::ReadWrite, number));
    blind.iter().for_each(|writer| graph.through(point, *writer));
}
