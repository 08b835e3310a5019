//! Who is on the way to count a key up, for footprints that depend on how many come before.
//!
//! A transaction is announced when its footprint is found, and counted until a snapshot shows what
//! it did. What is lost on its way (refused as busy, say) is counted for a while. All of this is a
//! hint: who expects a wrong number may stray.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use parsec_protocol::{EpochNumber, Key, TxId};
use parsec_runtimes::access::Ahead;

use crate::limits::{ANNOUNCED_EPOCHS, ANNOUNCED_MAX, CAUTION_EPOCHS, COUNTED_EPOCHS};

/// Who is on the way. See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_key: AHashMap<Key, Queue>,
    /// What each of them counts.
    keys: AHashMap<TxId, Key>,
}

/// Those who count one key up.
#[derive(Debug, Default)]
struct Queue {
    /// In the order in which they were announced.
    all: VecDeque<(TxId, Stage)>,
    /// One of them strayed after this epoch: others will, as they had counted it.
    strayed: Option<EpochNumber>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Announced when this was the last epoch.
    Announced(EpochNumber),
    Ordered(EpochNumber),
}

impl Stage {
    /// Whether the state after that epoch does not show it yet.
    fn is_ahead(self, snapshot: EpochNumber) -> bool {
        match self {
            Self::Announced(since) => snapshot.0 <= since.0 + ANNOUNCED_EPOCHS,
            Self::Ordered(epoch) => epoch > snapshot,
        }
    }

    /// Whether nobody will ask for a snapshot before it any more.
    fn is_past(self, snapshot: EpochNumber) -> bool {
        match self {
            Self::Announced(_) => !self.is_ahead(snapshot),
            Self::Ordered(epoch) => epoch.0 + COUNTED_EPOCHS < snapshot.0,
        }
    }
}

impl Counters {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Hints, whatever a panic elsewhere left of them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction will be ordered that counts `key` up, after epoch `now`.
    pub(crate) fn announce(&self, id: TxId, key: &Key, now: EpochNumber) {
        let mut inner = self.inner();
        if inner.keys.len() >= ANNOUNCED_MAX {
            *inner = Inner::default();
        }
        if inner.keys.insert(id, key.clone()).is_none() {
            let queue = inner.by_key.entry(key.clone()).or_default();
            queue.all.push_back((id, Stage::Announced(now)));
        }
    }

    /// These transactions are ordered.
    pub(crate) fn on_ordered<'a>(&self, epoch: EpochNumber, ids: impl Iterator<Item = &'a TxId>) {
        let mut inner = self.inner();
        let Inner { by_key, keys } = &mut *inner;
        if keys.is_empty() {
            return;
        }
        for id in ids {
            let Some(queue) = keys.get(id).and_then(|key| by_key.get_mut(key)) else { continue };
            if let Some((_, stage)) = queue.all.iter_mut().find(|(other, _)| other == id) {
                *stage = Stage::Ordered(epoch);
            }
        }
    }

    /// One of these strayed, the last epoch being `now`. Until those are through that counted on
    /// it, nobody is sure to count.
    pub(crate) fn on_stray(&self, id: &TxId, now: EpochNumber) {
        let mut inner = self.inner();
        let Some(key) = inner.keys.remove(id) else { return };
        if let Some(queue) = inner.by_key.get_mut(&key) {
            queue.all.retain(|(other, _)| other != id);
            queue.strayed = Some(now);
        }
    }

    /// How many count `key` up that the state after `snapshot` does not show yet.
    pub(crate) fn count(&self, key: &Key, snapshot: EpochNumber) -> Ahead {
        let mut inner = self.inner();
        let Inner { by_key, keys } = &mut *inner;
        let Some(queue) = by_key.get_mut(key) else { return Ahead::default() };
        while let Some((id, _)) = queue.all.pop_front_if(|(_, stage)| stage.is_past(snapshot)) {
            keys.remove(&id);
        }
        let most = queue.all.iter().filter(|(_, stage)| stage.is_ahead(snapshot)).count();
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let is_sure = queue.strayed.is_none_or(|strayed| strayed.0 + CAUTION_EPOCHS < snapshot.0);
        if queue.all.is_empty() && is_sure {
            by_key.remove(key);
        }
        Ahead { least: if is_sure { most } else { 0 }, most }
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;

    use super::*;

    fn key(number: u8) -> Key {
        Key::new(Namespace::partitioned(1), &[number]).unwrap()
    }

    fn id(number: u8) -> TxId {
        TxId([number; 32])
    }

    const fn epoch(number: u64) -> EpochNumber {
        EpochNumber(number)
    }

    fn sure(count: u32) -> Ahead {
        Ahead { least: count, most: count }
    }

    #[test]
    fn who_is_on_the_way_is_counted_until_a_snapshot_shows_it() {
        let counters = Counters::default();
        for number in 0..3 {
            counters.announce(id(number), &key(1), epoch(5));
        }
        counters.announce(id(9), &key(2), epoch(5));
        counters.announce(id(0), &key(1), epoch(5));
        assert_eq!(counters.count(&key(1), epoch(5)), sure(3));
        assert_eq!(counters.count(&key(3), epoch(5)), sure(0));
        counters.on_ordered(epoch(6), [id(1), id(7), id(0)].iter());
        assert_eq!(counters.count(&key(1), epoch(5)), sure(3));
        assert_eq!(counters.count(&key(1), epoch(6)), sure(1));
        // Who asks about a state from before is told so.
        assert_eq!(counters.count(&key(1), epoch(5)), sure(3));
    }

    #[test]
    fn a_stray_does_not_count_until_it_is_announced_again_and_others_may_stray_too() {
        let counters = Counters::default();
        counters.announce(id(1), &key(1), epoch(5));
        counters.announce(id(2), &key(1), epoch(5));
        counters.on_ordered(epoch(6), [id(1)].iter());
        counters.on_stray(&id(1), epoch(7));
        assert_eq!(counters.count(&key(1), epoch(5)), Ahead { least: 0, most: 1 });
        counters.announce(id(1), &key(1), epoch(8));
        assert_eq!(counters.count(&key(1), epoch(7)), Ahead { least: 0, most: 2 });
        counters.on_ordered(epoch(9), [id(1), id(2)].iter());
        assert_eq!(counters.count(&key(1), epoch(9)), sure(0));
        counters.announce(id(3), &key(1), epoch(9 + CAUTION_EPOCHS));
        assert_eq!(counters.count(&key(1), epoch(8 + CAUTION_EPOCHS)), sure(1));
    }

    #[test]
    fn who_is_lost_is_forgotten() {
        let counters = Counters::default();
        counters.announce(id(1), &key(1), epoch(5));
        assert_eq!(counters.count(&key(1), epoch(5 + ANNOUNCED_EPOCHS)), sure(1));
        assert_eq!(counters.count(&key(1), epoch(6 + ANNOUNCED_EPOCHS)), sure(0));
        assert!(counters.inner().keys.is_empty() && counters.inner().by_key.is_empty());
        for number in 0..=ANNOUNCED_MAX {
            let mut id = id(0);
            id.0[..8].copy_from_slice(&number.to_be_bytes());
            counters.announce(id, &key(1), epoch(5));
        }
        assert_eq!(counters.inner().keys.len(), 1);
    }
}
