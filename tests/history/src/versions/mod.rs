//! Edges that follow from data: the order of a key's versions, and who wrote and read each.

mod list;
mod register;
mod set;

use crate::Failure;
use crate::graph::Graph;
use crate::history::Kind;
use crate::view::{KeyView, View};

/// Adds the edges of the key with that number.
///
/// # Errors
/// If there is no order of its versions.
pub(crate) fn add_edges(
    graph: &mut Graph,
    view: &View<'_>,
    number: usize,
    key: &KeyView<'_>,
) -> Result<(), Failure> {
    match key.kind {
        Kind::Register => register::add_edges(graph, view, number, key),
        Kind::Set => set::add_edges(graph, view, number, key),
        Kind::List => list::add_edges(graph, view, number, key)?,
    }
    Ok(())
}
