//! Lists: the longest read is the order of the versions, and every other read a beginning of it.

use std::collections::BTreeSet;

use crate::explain;
use crate::graph::{Graph, Kind};
use crate::history::{Element, Found};
use crate::view::{KeyView, Touch, View};
use crate::{Anomaly, AnomalyKind};

pub(super) fn add_edges(
    graph: &mut Graph,
    view: &View<'_>,
    number: usize,
    key: &KeyView<'_>,
) -> Result<(), Anomaly> {
    let order = order_of(view, key)?;
    let known: BTreeSet<_> = order.iter().collect();
    let writers: Vec<_> =
        order.iter().filter_map(|element| key.writer(*element)).map(|w| w.operation).collect();
    for pair in writers.windows(2) {
        graph.add(pair[0], pair[1], Kind::WriteWrite, number);
    }
    // Those that read the last known version come before those that nobody saw, and so does its
    // writer.
    let end = graph.point();
    if let Some(writer) = writers.last() {
        graph.add(*writer, end, Kind::WriteWrite, number);
    }
    for touch in view.effective(key) {
        if let Some(found) = elements(touch) {
            let reader = touch.operation;
            let last = found.len().checked_sub(1).map(|last| writers[last]);
            last.into_iter().for_each(|last| graph.add(last, reader, Kind::WriteRead, number));
            let next = writers.get(found.len()).copied().unwrap_or(end);
            graph.add(reader, next, Kind::ReadWrite, number);
        }
        if touch.written.iter().any(|element| !known.contains(element)) {
            graph.through(end, touch.operation);
        }
    }
    Ok(())
}

fn elements(touch: &Touch) -> Option<&[Element]> {
    touch.found.as_ref().map(Found::elements)
}

/// All that is known of the list: the longest read, and what one who read all of that appended.
fn order_of(view: &View<'_>, key: &KeyView<'_>) -> Result<Vec<Element>, Anomaly> {
    let reads = || view.effective(key).filter_map(|touch| Some((touch, elements(touch)?)));
    // Of several that are as long, the first one.
    let longest =
        reads().reduce(|best, next| if next.1.len() > best.1.len() { next } else { best });
    let Some((longest_reader, longest)) = longest else { return Ok(Vec::new()) };
    for (touch, found) in reads() {
        if !longest.starts_with(found) {
            return Err(incompatible(view, key, touch, longest_reader));
        }
    }
    let mut order = longest.to_vec();
    let writes_on = |(touch, found): &(&Touch, &[Element])| {
        found.len() == longest.len() && !touch.written.is_empty()
    };
    let next = reads().find(writes_on);
    order.extend(next.iter().flat_map(|(touch, _)| &touch.written));
    Ok(order)
}

fn incompatible(view: &View<'_>, key: &KeyView<'_>, one: &Touch, other: &Touch) -> Anomaly {
    let both = [one.operation, other.operation];
    let why = format!("what T{} and T{} read of {} begins differently", both[0], both[1], key.name);
    explain::direct(view, AnomalyKind::IncompatibleOrder, &both, why)
}
