//! What a procedure has done so far: nothing of it reaches the state before its end.

use std::collections::BTreeMap;

use parsec_protocol::{Change, Delta, Key, Value};

use crate::access::combine;
use crate::{Interrupt, State};

/// The state under the changes of one procedure.
///
/// **Invariant:** the state is only read until [`Draft::finish`], so that a procedure that says no
/// half-way, or has to begin again, has changed nothing.
pub(crate) struct Draft<'a> {
    state: &'a mut dyn State,
    changes: BTreeMap<Key, Change>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a mut dyn State) -> Self {
        Self { state, changes: BTreeMap::new() }
    }

    /// The value of `key` after the changes so far.
    pub(crate) fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        match self.changes.get(key) {
            None => self.state.get(key),
            Some(change @ Change::Add(_)) => Ok(change.apply(self.state.get(key)?.as_ref())),
            Some(change) => Ok(change.apply(None)),
        }
    }

    pub(crate) fn put(&mut self, key: Key, value: Option<Value>) {
        self.changes.insert(key, value.map_or(Change::Delete, Change::Put));
    }

    pub(crate) fn add(&mut self, key: Key, delta: Delta) {
        let change = self.changes.entry(key).or_insert(Change::Keep);
        *change = combine(change, delta);
    }

    /// Undoes all changes so far.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
    }

    /// Writes the changes to the state.
    pub(crate) fn finish(self) -> Result<(), Interrupt> {
        for (key, change) in self.changes {
            match change {
                Change::Keep => {}
                Change::Put(value) => self.state.put(&key, Some(value))?,
                Change::Delete => self.state.put(&key, None)?,
                Change::Add(delta) => self.state.add(&key, delta)?,
            }
        }
        Ok(())
    }
}
