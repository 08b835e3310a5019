//! The queue of one key: who may touch its value now, and who waits.

use std::collections::VecDeque;

use parsec_protocol::Mode;
use parsec_protocol::plant::{self, Bug};
use smallvec::SmallVec;

use crate::nodes::NodeIndex;

/// The transactions that hold or await one key, in groups that may run in any order within.
///
/// The first group holds the key; each later one waits for all of the one before it. A
/// transaction joins the last group if it commutes with it, and else begins a new one: so it
/// waits for exactly those before it that it conflicts with, and those that they wait for.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    holding: Option<Holding>,
    /// Boxed, because most keys are never waited for and there are many keys.
    #[expect(clippy::box_collection, reason = "a quarter of the size in every key's state")]
    waiting: Option<Box<VecDeque<Group>>>,
}

#[derive(Debug)]
struct Holding {
    mode: Mode,
    /// How many of the group have not released the key. Who they are does not matter.
    count: u32,
}

/// Those of a group.
pub(crate) type Members = SmallVec<[NodeIndex; 4]>;

#[derive(Debug)]
struct Group {
    mode: Mode,
    members: Members,
}

impl Queue {
    /// Enters `node`; whether it holds the key at once.
    pub(crate) fn enter(&mut self, node: NodeIndex, mode: Mode) -> bool {
        let Some(holding) = &mut self.holding else {
            self.holding = Some(Holding { mode, count: 1 });
            return true;
        };
        match self.waiting.as_mut().and_then(|waiting| waiting.back_mut()) {
            None if mode.commutes_with(holding.mode) || is_edge_skipped(holding.mode) => {
                holding.count += 1;
                return true;
            }
            Some(last) if mode.commutes_with(last.mode) => last.members.push(node),
            _ => {
                let group = Group { mode, members: SmallVec::from_elem(node, 1) };
                self.waiting.get_or_insert_default().push_back(group);
            }
        }
        false
    }

    /// One of those that hold the key lets it go. Returns those that hold it from now on, and did
    /// not before, if there are any.
    ///
    /// # Panics
    /// If nobody holds the key, which would be a defect of the scheduler.
    pub(crate) fn leave(&mut self) -> Option<Members> {
        let holding = self.holding.as_mut().expect("only a holder leaves");
        holding.count -= 1;
        if holding.count > 0 {
            return None;
        }
        self.holding = None;
        let next = self.waiting.as_mut()?.pop_front()?;
        let count = u32::try_from(next.members.len()).expect("bounded by NODES_MAX");
        self.holding = Some(Holding { mode: next.mode, count });
        Some(next.members)
    }

    /// Whether nobody holds or awaits the key.
    pub(crate) fn is_empty(&self) -> bool {
        self.holding.is_none()
    }
}

/// Whether a planted bug lets others pass those that hold a key in `mode`.
fn is_edge_skipped(mode: Mode) -> bool {
    (mode == Mode::Write && plant::is(Bug::SkippedEdge))
        || (mode == Mode::Read && plant::is(Bug::ReadersHoldNobody))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(queue: &mut Queue, nodes: &[(u32, Mode)]) -> Vec<bool> {
        nodes.iter().map(|(node, mode)| queue.enter(NodeIndex(*node), *mode)).collect()
    }

    fn leave(queue: &mut Queue) -> Vec<u32> {
        queue.leave().iter().flatten().map(|node| node.0).collect()
    }

    #[test]
    fn readers_share_and_a_writer_waits_for_all_of_them() {
        use Mode::{Read, Write};
        let mut queue = Queue::default();
        let granted = enter(&mut queue, &[(1, Read), (2, Read), (3, Write), (4, Read), (5, Read)]);
        assert_eq!(granted, [true, true, false, false, false]);
        assert_eq!(leave(&mut queue), [0; 0]);
        assert_eq!(leave(&mut queue), [3]);
        assert_eq!(leave(&mut queue), [4, 5]);
        assert_eq!(leave(&mut queue), [0; 0]);
        assert_eq!(leave(&mut queue), [0; 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn additions_share_but_not_with_readers() {
        use Mode::{Add, Read};
        let mut queue = Queue::default();
        assert_eq!(enter(&mut queue, &[(1, Add), (2, Add), (3, Read)]), [true, true, false]);
        // A later addition must not overtake the reader: it would be seen.
        assert_eq!(enter(&mut queue, &[(4, Add)]), [false]);
        leave(&mut queue);
        assert_eq!(leave(&mut queue), [3]);
        assert_eq!(leave(&mut queue), [4]);
    }
}
