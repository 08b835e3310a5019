//! Values that are remembered for finding footprints.
//!
//! Three things are kept, each bounded:
//!
//! - values of **replicated** keys (contract code, sources). A value here may be stale: then a
//!   footprint is found that is too narrow, the transaction strays, and what it touches is dropped
//!   from here. That a key is absent is not kept: it would make every call of a contract that was
//!   deployed a moment ago stray.
//! - what partitioned keys had **not long ago**: good enough to guess with, and for no more.
//! - what deployments on their way are **expected** to write, for those who call a contract before
//!   it stands in a snapshot. A value here counts where a snapshot has none.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use parsec_protocol::{EpochNumber, Key, Value};
use parsec_runtimes::trial::Memory;

use crate::limits::{
    CACHE_BYTES_MAX, EXPECTED_BYTES_MAX, EXPECTED_EPOCHS, RECENT_BYTES_MAX, RECENT_VALUE_BYTES_MAX,
};

/// Values that are remembered. See the module's documentation.
#[derive(Debug)]
pub(crate) struct ReplicatedCache {
    replicated: Mutex<Generations<Value>>,
    recent: Mutex<Generations<Value>>,
    expected: Mutex<Generations<(Value, EpochNumber)>>,
}

/// A bounded cache in two generations: what the older one holds and was not used since the newer
/// one began is dropped when the newer one is full.
#[derive(Debug)]
struct Generations<T> {
    newer: AHashMap<Key, (T, usize)>,
    newer_bytes: usize,
    older: AHashMap<Key, (T, usize)>,
    bytes_max: usize,
}

impl Default for ReplicatedCache {
    fn default() -> Self {
        Self::new(CACHE_BYTES_MAX)
    }
}

fn lock<T>(generations: &Mutex<Generations<T>>) -> MutexGuard<'_, Generations<T>> {
    // A cache may forget anything, so a panic elsewhere does not matter.
    generations.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReplicatedCache {
    fn new(bytes_max: usize) -> Self {
        Self {
            replicated: Mutex::new(Generations::new(bytes_max)),
            recent: Mutex::new(Generations::new(RECENT_BYTES_MAX)),
            expected: Mutex::new(Generations::new(EXPECTED_BYTES_MAX)),
        }
    }

    /// The value of a replicated key, if it is kept.
    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        key.is_replicated().then(|| lock(&self.replicated).get(key))?
    }

    /// Keeps values that were read: those of replicated keys, and small ones to guess with.
    pub(crate) fn keep<'a>(&self, read: impl Iterator<Item = (&'a Key, &'a Value)> + Clone) {
        let mut replicated = read.clone().filter(|(key, _)| key.is_replicated()).peekable();
        if replicated.peek().is_some() {
            let mut generations = lock(&self.replicated);
            for (key, value) in replicated {
                generations.insert(key.clone(), value.clone(), size(key, value));
            }
        }
        let mut recent = lock(&self.recent);
        for (key, value) in read.filter(|(key, _)| !key.is_replicated()) {
            if value.len() <= RECENT_VALUE_BYTES_MAX {
                recent.insert(key.clone(), value.clone(), size(key, value));
            }
        }
    }

    /// Drops keys whose values change in the order.
    pub(crate) fn forget<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut keys = keys.into_iter().filter(|key| key.is_replicated()).peekable();
        if keys.peek().is_none() {
            return;
        }
        let mut generations = lock(&self.replicated);
        keys.for_each(|key| generations.remove(key));
    }

    /// Drops all that is remembered of keys that may have led a transaction astray.
    pub(crate) fn distrust<'a>(&self, keys: impl IntoIterator<Item = &'a Key> + Clone) {
        self.forget(keys.clone());
        let (mut recent, mut expected) = (lock(&self.recent), lock(&self.expected));
        for key in keys {
            recent.remove(key);
            expected.remove(key);
        }
    }

    /// Remembers what a deployment will write, which comes after epoch `now` or not at all.
    pub(crate) fn expect(&self, key: &Key, value: &Value, now: EpochNumber) {
        lock(&self.expected).insert(key.clone(), (value.clone(), now), size(key, value));
    }

    /// Whether no deployment is remembered.
    pub(crate) fn expects_nothing(&self) -> bool {
        let expected = lock(&self.expected);
        expected.newer.is_empty() && expected.older.is_empty()
    }

    /// What a key that is absent in the snapshot after `epoch` is expected to have.
    pub(crate) fn expected(&self, key: &Key, epoch: EpochNumber) -> Option<Value> {
        let (value, since) = lock(&self.expected).get(key)?;
        (epoch.0 <= since.0 + EXPECTED_EPOCHS).then_some(value)
    }
}

impl Memory for ReplicatedCache {
    fn replicated(&self, key: &Key) -> Option<Value> {
        self.get(key)
    }

    fn last_known(&self, key: &Key) -> Option<Value> {
        lock(&self.recent).get(key)
    }
}

impl<T: Clone> Generations<T> {
    fn new(bytes_max: usize) -> Self {
        Self { newer: AHashMap::new(), newer_bytes: 0, older: AHashMap::new(), bytes_max }
    }

    fn get(&mut self, key: &Key) -> Option<T> {
        if let Some((value, _)) = self.newer.get(key) {
            return Some(value.clone());
        }
        let (value, bytes) = self.older.remove(key)?;
        self.insert(key.clone(), value.clone(), bytes);
        Some(value)
    }

    fn insert(&mut self, key: Key, value: T, bytes: usize) {
        if self.newer_bytes + bytes > self.bytes_max / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.older.remove(&key);
        self.newer_bytes += bytes;
        if let Some((_, old)) = self.newer.insert(key, (value, bytes)) {
            self.newer_bytes -= old;
        }
    }

    fn remove(&mut self, key: &Key) {
        self.older.remove(key);
        if let Some((_, bytes)) = self.newer.remove(key) {
            self.newer_bytes -= bytes;
        }
    }
}

fn size(key: &Key, value: &Value) -> usize {
    128 + key.encoded().len() + value.len()
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Namespace;

    use super::*;

    fn key(number: u8) -> Key {
        Key::new(Namespace::replicated(1), &[number]).unwrap()
    }

    fn keep(cache: &ReplicatedCache, key: &Key, value: &Value) {
        cache.keep([(key, value)].into_iter());
    }

    #[test]
    fn only_replicated_values_are_kept_to_be_used() {
        let cache = ReplicatedCache::new(10_000);
        let partitioned = Key::new(Namespace::partitioned(1), b"a").unwrap();
        keep(&cache, &partitioned, &Value::from_static(b"x"));
        keep(&cache, &key(2), &Value::from_static(b"y"));
        assert_eq!(cache.get(&partitioned), None);
        assert_eq!(cache.last_known(&partitioned), Some(Value::from_static(b"x")));
        assert_eq!(cache.get(&key(2)), Some(Value::from_static(b"y")));
        cache.forget([&key(2), &partitioned]);
        assert_eq!(cache.get(&key(2)), None);
        assert_eq!(cache.last_known(&partitioned), Some(Value::from_static(b"x")));
        cache.distrust([&partitioned]);
        assert_eq!(cache.last_known(&partitioned), None);
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = ReplicatedCache::new(10_000);
        let value = Value::from(vec![7; 1_000]);
        for number in 0..100 {
            keep(&cache, &key(number), &value);
            assert!(cache.get(&key(0)).is_some(), "used all the time, gone after {number}");
        }
        let kept = (0..100).filter(|number| cache.get(&key(*number)).is_some()).count();
        assert!((2..=9).contains(&kept), "{kept} kept");
    }

    #[test]
    fn deployments_are_expected_for_a_while() {
        let cache = ReplicatedCache::default();
        assert!(cache.expects_nothing());
        cache.expect(&key(1), &Value::from_static(b"code"), EpochNumber(5));
        assert!(!cache.expects_nothing());
        let at = |epoch| cache.expected(&key(1), EpochNumber(epoch));
        assert_eq!(at(3), Some(Value::from_static(b"code")));
        assert_eq!(at(5 + EXPECTED_EPOCHS), Some(Value::from_static(b"code")));
        assert_eq!(at(6 + EXPECTED_EPOCHS), None);
        // That it is ordered is no reason to forget it; that somebody strayed is.
        cache.forget([&key(1)]);
        assert_eq!(at(5), Some(Value::from_static(b"code")));
        cache.distrust([&key(1)]);
        assert_eq!(at(5), None);
    }
}
