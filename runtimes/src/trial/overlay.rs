//! What transactions tried earlier would do, over the values that were fetched.

use ahash::AHashMap;
use parsec_protocol::{Change, Key, Value};

use super::{Memory, Tried};
use crate::access::{Ahead, Source, combine};

/// Values that were fetched.
pub(super) type Values = AHashMap<Key, Option<Value>>;

/// The changes of transactions in their order.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    changes: AHashMap<Key, Written>,
}

#[derive(Debug)]
struct Written {
    change: Change,
    /// Whether one of those that wrote it writes replicated keys, too: it brings code into being,
    /// which changes where others go.
    by_deployer: bool,
}

impl Overlay {
    /// Adds what a transaction did, if it took effect.
    pub(super) fn push(&mut self, tried: &Tried) {
        if !tried.committed {
            return;
        }
        let by_deployer = deploys(tried);
        for (key, change) in &tried.changes {
            let empty = || Written { change: Change::Keep, by_deployer: false };
            let written = self.changes.entry(key.clone()).or_insert_with(empty);
            written.by_deployer |= by_deployer;
            written.change = match change {
                Change::Add(delta) => combine(&written.change, *delta),
                change => change.clone(),
            };
        }
    }

    /// Whether what is here may send a trial another way than the values below did.
    ///
    /// Not every balance may: or else all transactions of a hot account would be tried one after
    /// another. What does is code, whatever a deployment wrote, and anything at all for a trial
    /// that ended badly, or one of a kind that is known to follow values.
    pub(super) fn may_divert(&self, tried: &Tried, erratic: bool) -> bool {
        let anything = erratic || !tried.committed;
        let reads = tried.footprint.accesses().iter().filter(|access| access.mode.needs_value());
        let mut written = reads.filter_map(|access| Some((access, self.changes.get(&access.key)?)));
        written
            .any(|(access, written)| anything || written.by_deployer || access.key.is_replicated())
    }
}

/// Whether a transaction writes what stands on every partition.
pub(super) fn deploys(tried: &Tried) -> bool {
    tried.committed && tried.changes.iter().any(|(key, _)| key.is_replicated())
}

/// Everything that a trial may see: what was fetched, what is remembered of replicated keys, and
/// what those before it did.
pub(super) struct Layers<'a> {
    pub(super) values: &'a Values,
    pub(super) memory: &'a dyn Memory,
    pub(super) overlay: Option<&'a Overlay>,
}

impl Layers<'_> {
    fn below(&self, key: &Key) -> Option<Option<Value>> {
        match self.values.get(key) {
            Some(value) => Some(value.clone()),
            None => self.memory.replicated(key).map(Some),
        }
    }
}

impl Source for Layers<'_> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        let written = self.overlay.and_then(|overlay| overlay.changes.get(key));
        match written.map(|written| &written.change) {
            None => self.below(key),
            Some(change @ (Change::Put(_) | Change::Delete)) => Some(change.apply(None)),
            Some(change) => Some(change.apply(self.below(key)?.as_ref())),
        }
    }

    fn ahead(&self, key: &Key) -> Ahead {
        self.memory.ahead(key)
    }
}
