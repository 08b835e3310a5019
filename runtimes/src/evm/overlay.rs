//! The state as one transaction sees it where blocks are executed one after another, on one thread.

use std::collections::BTreeMap;

use parsec_protocol::{Delta, Key, Mode, Value};

use super::keys;
use crate::{Interrupt, State};

/// What a run changes: the new value of each key, or none where it is removed.
pub type Changes = BTreeMap<Key, Option<Value>>;

/// The state before a block, what the block has changed, and what one transaction has. Nothing is
/// outside its footprint.
pub struct Overlay<'a> {
    below: &'a dyn Fn(&Key) -> Option<Value>,
    block: &'a Changes,
    own: Changes,
    params: (Key, &'a Value),
}

impl<'a> Overlay<'a> {
    /// A transaction that has changed nothing yet, in a block with these parameters
    /// ([`ChainParams`](super::ChainParams)), which stand in the place of those in the state below.
    #[must_use]
    pub fn new(
        below: &'a dyn Fn(&Key) -> Option<Value>,
        block: &'a Changes,
        params: &'a Value,
    ) -> Self {
        Self { below, block, own: Changes::new(), params: (keys::params(), params) }
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<Value> {
        if *key == self.params.0 {
            return Some(self.params.1.clone());
        }
        let changed = self.own.get(key).or_else(|| self.block.get(key));
        changed.cloned().unwrap_or_else(|| (self.below)(key))
    }

    /// What the transaction changed.
    #[must_use]
    pub fn into_changes(self) -> Changes {
        self.own
    }
}

impl State for Overlay<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        Ok(self.value(key))
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        self.own.insert(key.clone(), value);
        Ok(())
    }

    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        let sum = delta.apply(self.value(key).as_ref());
        self.put(key, sum)
    }

    fn covers(&self, _: &Key, _: Mode) -> bool {
        true
    }
}
