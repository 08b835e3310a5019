//! Values of keys of other partitions, while transactions that run here leave them to one another
//! ([`Forward`](parsec_protocol::Forward)).
//!
//! A copy has a queue, as a key has: those that leave the value to one another enter it in the agreed
//! order, so that readers share it, and who may change it is alone with it. It comes into being with
//! the first of them, for whom the owner pushes the value, and goes when the last is done.

use hashbrown::HashMap;
use parsec_protocol::{Change, Key, Mode, Value};

use crate::nodes::NodeIndex;
use crate::queue::{Members, Queue};

/// The place of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyIndex(u32);

/// What a transaction has to do with a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyAccess {
    /// The index of the access in the transaction's footprint.
    pub(crate) index: u16,
    pub(crate) mode: Mode,
    pub(crate) copy: CopyIndex,
    /// Whether it takes its value from the copy. If not, the value is pushed to it, and it fills the
    /// copy.
    pub(crate) is_left: bool,
}

#[derive(Debug, Default)]
struct Copy {
    /// The value, once it has come.
    value: Option<Option<Value>>,
    queue: Queue,
    /// Those that wait for it to come.
    waiting: Vec<NodeIndex>,
    /// Whether more may enter.
    is_open: bool,
}

/// The copies.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    slots: Vec<Copy>,
    free: Vec<u32>,
    /// Those that more may enter. Never iterated.
    open: HashMap<Key, CopyIndex, ahash::RandomState>,
}

impl Copies {
    /// A new copy, which `node` fills and holds.
    pub(crate) fn begin(&mut self, key: &Key, node: NodeIndex, mode: Mode) -> CopyIndex {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Copy::default());
            u32::try_from(self.slots.len() - 1).expect("bounded by the accesses of nodes")
        });
        let index = CopyIndex(slot);
        let copy = self.get_mut(index);
        copy.is_open = true;
        copy.queue.enter(node, mode);
        if let Some(before) = self.open.insert(key.clone(), index) {
            self.close(before);
        }
        index
    }

    /// Enters `node`, with which the chain ends unless it `goes_on`. The copy, and how many things it
    /// makes the node wait for; `None` if there is none to enter.
    pub(crate) fn enter(
        &mut self,
        key: &Key,
        node: NodeIndex,
        mode: Mode,
        goes_on: bool,
    ) -> Option<(CopyIndex, u32)> {
        let index = match goes_on {
            true => *self.open.get(key)?,
            false => self.open.remove(key)?,
        };
        let copy = self.get_mut(index);
        copy.is_open = goes_on;
        let mut missing = u32::from(!copy.queue.enter(node, mode));
        if copy.value.is_none() {
            copy.waiting.push(node);
            missing += 1;
        }
        Some((index, missing))
    }

    /// The value has come. Those that waited for it.
    pub(crate) fn fill(&mut self, index: CopyIndex, value: Option<Value>) -> Vec<NodeIndex> {
        let copy = self.get_mut(index);
        copy.value = Some(value);
        std::mem::take(&mut copy.waiting)
    }

    /// The value, for one that holds the copy and has awaited it.
    pub(crate) fn value(&self, index: CopyIndex) -> Option<Value> {
        self.slots[index.0 as usize].value.clone().flatten()
    }

    /// What one that holds the copy did to the key.
    pub(crate) fn change(&mut self, index: CopyIndex, change: &Change) {
        let copy = self.get_mut(index);
        if *change != Change::Keep {
            let before = copy.value.take().flatten();
            copy.value = Some(change.clone().apply(before.as_ref()));
        }
    }

    /// One that held the copy is done. Those that hold it now.
    pub(crate) fn leave(&mut self, index: CopyIndex) -> Option<Members> {
        let next = self.get_mut(index).queue.leave();
        self.drop_if_done(index);
        next
    }

    /// Nobody more enters it.
    fn close(&mut self, index: CopyIndex) {
        self.get_mut(index).is_open = false;
        self.drop_if_done(index);
    }

    fn drop_if_done(&mut self, index: CopyIndex) {
        let copy = self.get_mut(index);
        if !copy.is_open && copy.queue.is_empty() {
            *copy = Copy::default();
            self.free.push(index.0);
        }
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn get_mut(&mut self, index: CopyIndex) -> &mut Copy {
        &mut self.slots[index.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;

    use super::*;

    fn key() -> Key {
        Key::new(Namespace::partitioned(1), b"key").unwrap()
    }

    #[test]
    fn a_copy_lives_from_its_first_to_its_last() {
        let mut copies = Copies::default();
        let node = NodeIndex;
        let copy = copies.begin(&key(), node(1), Mode::Write);
        assert_eq!(copies.enter(&key(), node(2), Mode::Read, true), Some((copy, 2)));
        assert_eq!(copies.fill(copy, Some(Value::from_static(b"a"))), [node(2)]);
        assert_eq!(copies.enter(&key(), node(3), Mode::Read, true), Some((copy, 1)));
        copies.change(copy, &Change::Keep);
        assert_eq!(copies.value(copy), Some(Value::from_static(b"a")));
        copies.change(copy, &Change::Put(Value::from_static(b"b")));
        assert_eq!(copies.leave(copy).unwrap().to_vec(), [node(2), node(3)]);
        assert_eq!(copies.value(copy), Some(Value::from_static(b"b")));
        assert!(copies.leave(copy).is_none() && copies.leave(copy).is_none());
        // Nobody is in it, and it waits for its last.
        assert_eq!(copies.len(), 1);
        assert_eq!(copies.enter(&key(), node(4), Mode::Write, false), Some((copy, 0)));
        assert_eq!(copies.value(copy), Some(Value::from_static(b"b")));
        copies.leave(copy);
        assert_eq!(copies.len(), 0);
        assert_eq!(copies.enter(&key(), node(5), Mode::Read, false), None);
    }

    #[test]
    fn a_copy_whose_last_never_comes_goes_with_the_next_of_its_key() {
        let mut copies = Copies::default();
        let first = copies.begin(&key(), NodeIndex(1), Mode::Read);
        copies.fill(first, None);
        copies.leave(first);
        let second = copies.begin(&key(), NodeIndex(2), Mode::Read);
        assert_eq!(copies.len(), 1);
        assert_eq!(copies.enter(&key(), NodeIndex(3), Mode::Read, false), Some((second, 1)));
    }
}
