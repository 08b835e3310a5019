//! Values of replicated keys (contract code, sources), kept for finding footprints.
//!
//! A value here may be stale: then a footprint is found that is too narrow, the transaction
//! strays, and what it touches is dropped from here. That a key is absent is not kept: it would
//! make every call of a contract that was deployed a moment ago stray.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use parsec_protocol::{Key, Value};

use crate::limits::CACHE_BYTES_MAX;

/// A bounded cache in two generations: what the older one holds and was not used since the newer
/// one began is dropped when the newer one is full.
#[derive(Debug)]
pub(crate) struct ReplicatedCache {
    generations: Mutex<Generations>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Generations {
    newer: AHashMap<Key, Value>,
    newer_bytes: usize,
    older: AHashMap<Key, Value>,
}

impl Default for ReplicatedCache {
    fn default() -> Self {
        Self::new(CACHE_BYTES_MAX)
    }
}

impl ReplicatedCache {
    fn new(bytes_max: usize) -> Self {
        Self { generations: Mutex::default(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // A cache may forget anything, so a panic elsewhere does not matter.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a replicated key, if it is kept.
    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        if !key.is_replicated() {
            return None;
        }
        let mut generations = self.lock();
        if let Some(value) = generations.newer.get(key) {
            return Some(value.clone());
        }
        let value = generations.older.remove(key)?;
        generations.insert(key.clone(), value.clone(), self.bytes_max);
        Some(value)
    }

    /// Keeps the value of a key, if the key is replicated and not absent.
    pub(crate) fn keep(&self, key: &Key, value: Option<&Value>) {
        if let Some(value) = value.filter(|_| key.is_replicated()) {
            self.lock().insert(key.clone(), value.clone(), self.bytes_max);
        }
    }

    /// Drops keys whose values may have changed.
    pub(crate) fn forget<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut keys = keys.into_iter().filter(|key| key.is_replicated()).peekable();
        if keys.peek().is_none() {
            return;
        }
        let mut generations = self.lock();
        for key in keys {
            generations.older.remove(key);
            if let Some(value) = generations.newer.remove(key) {
                generations.newer_bytes -= size(key, &value);
            }
        }
    }
}

impl Generations {
    fn insert(&mut self, key: Key, value: Value, bytes_max: usize) {
        let bytes = size(&key, &value);
        if self.newer_bytes + bytes > bytes_max / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.older.remove(&key);
        self.newer_bytes += bytes;
        if let Some(old) = self.newer.insert(key.clone(), value) {
            self.newer_bytes -= size(&key, &old);
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

    #[test]
    fn only_replicated_values_that_exist_are_kept() {
        let cache = ReplicatedCache::new(10_000);
        let partitioned = Key::new(Namespace::partitioned(1), b"a").unwrap();
        cache.keep(&partitioned, Some(&Value::from_static(b"x")));
        cache.keep(&key(1), None);
        cache.keep(&key(2), Some(&Value::from_static(b"y")));
        assert_eq!(cache.get(&partitioned), None);
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.get(&key(2)), Some(Value::from_static(b"y")));
        cache.forget([&key(2)]);
        assert_eq!(cache.get(&key(2)), None);
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let cache = ReplicatedCache::new(10_000);
        let value = Value::from(vec![7; 1_000]);
        for number in 0..100 {
            cache.keep(&key(number), Some(&value));
            assert!(cache.get(&key(0)).is_some(), "used all the time, gone after {number}");
        }
        let kept = (0..100).filter(|number| cache.get(&key(*number)).is_some()).count();
        assert!((2..=9).contains(&kept), "{kept} kept");
    }
}
