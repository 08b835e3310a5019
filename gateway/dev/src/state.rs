//! The state in memory, in all the versions that may still be asked for.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::B256;
use parsec_protocol::{Key, Value};
use parsec_runtimes::evm::Changes;
use parsec_runtimes::evm::trie::StateTrie;

/// Why every value of an account has its encoding.
const WRITTEN_WELL: &str = "only the runtime and the chain write the state";

/// The state of a chain in several versions: one for each block, and one for each change that was
/// made without a block.
///
/// **Invariants.** Each key's values stand in the order of their versions; of those up to the
/// oldest version that is kept, only the last is.
#[derive(Debug)]
pub(crate) struct States {
    keys: BTreeMap<Key, Vec<(u64, Option<Value>)>>,
    /// The keys that each version after the oldest one changed.
    editions: VecDeque<Vec<Key>>,
    oldest: u64,
    /// The trie of the latest version.
    trie: StateTrie,
}

impl States {
    /// A state of these entries, in version 0.
    pub(crate) fn new(entries: Vec<(Key, Value)>) -> Self {
        let mut states = Self {
            keys: BTreeMap::new(),
            editions: VecDeque::new(),
            oldest: 0,
            trie: StateTrie::default(),
        };
        for (key, value) in entries {
            states.show(&key, Some(&value));
            states.keys.insert(key, vec![(0, Some(value))]);
        }
        states
    }

    /// The version that the next commit follows.
    pub(crate) fn latest(&self) -> u64 {
        self.oldest + self.editions.len() as u64
    }

    /// The first version that can be read.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The root of the latest version in the sense of Ethereum.
    pub(crate) fn root(&mut self) -> B256 {
        self.trie.root()
    }

    /// The trie of a version, which must be kept.
    pub(crate) fn trie_at(&self, version: u64) -> StateTrie {
        if version == self.latest() {
            return self.trie.clone();
        }
        StateTrie::of(self.iter_at(version)).expect(WRITTEN_WELL)
    }

    /// Tells the trie of the latest value of a key.
    fn show(&mut self, key: &Key, value: Option<&Value>) {
        self.trie.apply(key, value).expect(WRITTEN_WELL);
    }

    /// The latest value of a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&Value> {
        self.keys.get(key)?.last()?.1.as_ref()
    }

    /// The value of a key in a version, which must be kept.
    pub(crate) fn get_at(&self, key: &Key, version: u64) -> Option<&Value> {
        let values = self.keys.get(key)?;
        let after = values.partition_point(|(since, _)| *since <= version);
        values[..after].last()?.1.as_ref()
    }

    /// The value of every key in a version, which must be kept, in the order of keys.
    pub(crate) fn iter_at(&self, version: u64) -> impl Iterator<Item = (&Key, &Value)> {
        self.keys.keys().filter_map(move |key| Some((key, self.get_at(key, version)?)))
    }

    /// Makes changes, as a new version.
    pub(crate) fn commit(&mut self, changes: Changes) -> u64 {
        let version = self.latest() + 1;
        let mut keys = Vec::with_capacity(changes.len());
        for (key, new) in changes {
            if self.get(&key) == new.as_ref() {
                continue;
            }
            self.show(&key, new.as_ref());
            self.keys.entry(key.clone()).or_default().push((version, new));
            keys.push(key);
        }
        self.editions.push_back(keys);
        version
    }

    /// Goes back to a version, which must be kept, and forgets all later ones.
    pub(crate) fn rewind(&mut self, version: u64) {
        assert!(version >= self.oldest, "version {version} is not kept");
        while self.latest() > version {
            let Some(edition) = self.editions.pop_back() else { return };
            for key in edition {
                if let Some(values) = self.keys.get_mut(&key) {
                    values.pop_if(|(since, _)| *since > version);
                    let value = values.last().and_then(|(_, value)| value.clone());
                    if values.is_empty() {
                        self.keys.remove(&key);
                    }
                    self.show(&key, value.as_ref());
                }
            }
        }
    }

    /// Forgets the versions before `version`, which must not be later than the latest.
    pub(crate) fn forget_before(&mut self, version: u64) {
        assert!(version <= self.latest(), "version {version} is yet to come");
        while self.oldest < version {
            let Some(edition) = self.editions.pop_front() else { return };
            self.oldest += 1;
            for key in edition {
                let Some(values) = self.keys.get_mut(&key) else { continue };
                let after = values.partition_point(|(since, _)| *since <= self.oldest);
                values.drain(..after.saturating_sub(1));
                if matches!(values[..], [(_, None)]) {
                    self.keys.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, U256};
    use parsec_runtimes::evm::keys::{self, AccountRecord};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn key(name: u8) -> Key {
        keys::account(&Address::repeat_byte(name))
    }

    fn value(balance: u8) -> Value {
        AccountRecord { balance: U256::from(balance), nonce: 0 }.encode()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Commit(BTreeMap<u8, Option<u8>>),
        Rewind(prop::sample::Index),
        Forget(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => btree_map(0u8..6, prop::option::of(0u8..3), 0..4).prop_map(Step::Commit),
            1 => any::<prop::sample::Index>().prop_map(Step::Rewind),
            1 => any::<prop::sample::Index>().prop_map(Step::Forget),
        ];
        vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn every_kept_version_is_what_it_was(steps in steps()) {
            let start = BTreeMap::from([(key(0), value(7))]);
            let mut states = States::new(start.clone().into_iter().collect());
            let mut model = BTreeMap::from([(0, start)]);
            for step in steps {
                let (oldest, latest) = (states.oldest(), states.latest());
                let kept = usize::try_from(latest - oldest + 1).unwrap();
                match step {
                    Step::Commit(changes) => {
                        let changes: Changes = changes
                            .into_iter()
                            .map(|(name, new)| (key(name), new.map(value)))
                            .collect();
                        let mut next = model[&latest].clone();
                        for (key, new) in &changes {
                            match new {
                                Some(value) => next.insert(key.clone(), value.clone()),
                                None => next.remove(key),
                            };
                        }
                        let version = states.commit(changes);
                        prop_assert_eq!(version, latest + 1);
                        model.insert(version, next);
                    }
                    Step::Rewind(index) => {
                        let version = oldest + index.index(kept) as u64;
                        states.rewind(version);
                        model.retain(|known, _| *known <= version);
                    }
                    Step::Forget(index) => {
                        let version = oldest + index.index(kept) as u64;
                        states.forget_before(version);
                        model.retain(|known, _| *known >= version);
                    }
                }
                for (version, state) in &model {
                    for name in 0..6 {
                        let key = key(name);
                        prop_assert_eq!(states.get_at(&key, *version), state.get(&key));
                    }
                }
                let (_, last) = model.last_key_value().unwrap();
                prop_assert!(states.iter_at(states.latest()).eq(last.iter()));
                prop_assert_eq!(states.root(), StateTrie::of(last).unwrap().root());
                for (version, state) in &model {
                    let mut trie = states.trie_at(*version);
                    prop_assert_eq!(trie.root(), StateTrie::of(state).unwrap().root());
                }
            }
        }

        #[test]
        fn nothing_is_kept_of_what_was_forgotten(rounds in 1u8..50) {
            let mut states = States::new(Vec::new());
            for round in 0..rounds {
                states.commit(BTreeMap::from([(key(1), Some(value(round)))]));
                states.commit(BTreeMap::from([(key(2), Some(value(round)))]));
                states.commit(BTreeMap::from([(key(2), None)]));
            }
            states.forget_before(states.latest());
            prop_assert_eq!(states.keys.len(), 1);
            prop_assert_eq!(states.keys[&key(1)].len(), 1);
        }
    }
}
