//! The root that Ethereum gives a state, and proofs of what is below it.
//!
//! Parsec's own states have a digest instead (see ARCHITECTURE.md): this is for blocks of other
//! chains, whose headers name the root, and for tests.

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Decodable as _;
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};
use parsec_protocol::{Key, Value};

use self::nodes::Trie;
use super::keys::{self, AccountRecord, BadValue, CodeRecord};

/// The accounts of a state by the hashes of their addresses, as they stand in Ethereum's trie.
///
/// It is told of every change of the state; a root costs what has changed since the last one.
#[derive(Debug, Clone, Default)]
pub struct StateTrie {
    leaves: BTreeMap<B256, Leaf>,
    accounts: Trie,
    /// The accounts that changed since the last root.
    changed: BTreeSet<B256>,
}

#[derive(Debug, Clone, Default)]
struct Leaf {
    record: Option<AccountRecord>,
    code: CodeRecord,
    /// By incarnation: what contracts left behind that were destroyed may become theirs again,
    /// where a change is taken back.
    storage: BTreeMap<u64, Trie>,
}

/// What stands at an address and in some of its slots, with the nodes from the root down to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProof {
    /// The account; empty if there is none.
    pub account: TrieAccount,
    /// The nodes down to it, or to where it would be.
    pub nodes: Vec<Bytes>,
    /// The slots that were asked for, in that order.
    pub slots: Vec<SlotProof>,
}

/// A word of storage with the nodes from the root of the storage down to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotProof {
    /// Where it is.
    pub slot: U256,
    /// The word; zero if there is none.
    pub word: U256,
    /// The nodes down to it, or to where it would be.
    pub nodes: Vec<Bytes>,
}

impl StateTrie {
    /// The trie of a state. Keys that are not Ethereum's are ignored.
    ///
    /// # Errors
    /// [`BadValue`] if the state is damaged.
    pub fn of<'a>(state: impl IntoIterator<Item = (&'a Key, &'a Value)>) -> Result<Self, BadValue> {
        let mut trie = Self::default();
        for (key, value) in state {
            trie.apply(key, Some(value))?;
        }
        Ok(trie)
    }

    /// Takes in the new value of a key.
    ///
    /// # Errors
    /// [`BadValue`] if it is none.
    pub fn apply(&mut self, key: &Key, value: Option<&Value>) -> Result<(), BadValue> {
        if let Some((address, incarnation, slot)) = keys::storage_parts(key) {
            let word = keys::decode_word(value)?;
            set_word(self.leaf(&address).storage.entry(incarnation).or_default(), slot, word);
        } else if let Some(address) = keys::account_address(key) {
            let record = value.map(|value| AccountRecord::decode(value)).transpose()?;
            self.leaf(&address).record = record;
        } else if let Some(address) = keys::code_record_address(key) {
            self.leaf(&address).code = CodeRecord::decode(value)?;
        }
        Ok(())
    }

    /// Sets what stands at an address: its record and the hash of its code, and words of its
    /// storage, of which the rest stays unless it is `renewed`.
    pub(super) fn set(
        &mut self,
        address: &Address,
        record: Option<AccountRecord>,
        code: Option<B256>,
        renewed: bool,
        words: impl Iterator<Item = (U256, U256)>,
    ) {
        let leaf = self.leaf(address);
        (leaf.record, leaf.code.hash) = (record, code);
        let storage = leaf.storage.entry(leaf.code.incarnation).or_default();
        if renewed {
            *storage = Trie::default();
        }
        words.for_each(|(slot, word)| set_word(storage, slot.into(), word));
    }

    fn leaf(&mut self, address: &Address) -> &mut Leaf {
        let path = keccak256(address);
        self.changed.insert(path);
        self.leaves.entry(path).or_default()
    }

    /// The root of the state.
    #[must_use]
    pub fn root(&mut self) -> B256 {
        self.settle();
        self.accounts.root()
    }

    /// Brings what changed into the trie of accounts.
    fn settle(&mut self) {
        for path in std::mem::take(&mut self.changed) {
            match self.leaves.get_mut(&path).and_then(Leaf::account) {
                Some(account) => self.accounts.insert(path, alloy_rlp::encode(account)),
                None => self.accounts.remove(path),
            }
        }
    }

    /// Proves what stands at an address and in its slots.
    #[must_use]
    pub fn prove(&mut self, address: &Address, slots: &[U256]) -> StateProof {
        self.settle();
        let path = keccak256(address);
        let nodes = self.accounts.prove(path);
        let (account, mut none) = (TrieAccount::default(), Trie::default());
        let (account, storage) = match self.leaves.get_mut(&path) {
            None => (account, &mut none),
            Some(leaf) => (leaf.account().unwrap_or(account), leaf.storage()),
        };
        let prove = |slot: &U256| {
            let path = keccak256(B256::from(*slot));
            let word = storage.get(path).and_then(|mut word| U256::decode(&mut word).ok());
            SlotProof { slot: *slot, word: word.unwrap_or_default(), nodes: storage.prove(path) }
        };
        StateProof { account, nodes, slots: slots.iter().map(prove).collect() }
    }
}

impl Leaf {
    /// The account, if there is one.
    fn account(&mut self) -> Option<TrieAccount> {
        if self.record.is_none() && self.code.hash.is_none() {
            return None;
        }
        let record = self.record.unwrap_or_default();
        let storage = self.storage.get_mut(&self.code.incarnation);
        Some(TrieAccount {
            nonce: record.nonce,
            balance: record.balance,
            storage_root: storage.map_or(EMPTY_ROOT_HASH, Trie::root),
            code_hash: self.code.hash.unwrap_or(KECCAK256_EMPTY),
        })
    }

    fn storage(&mut self) -> &mut Trie {
        self.storage.entry(self.code.incarnation).or_default()
    }
}

fn set_word(storage: &mut Trie, slot: B256, word: U256) {
    let path = keccak256(slot);
    match word.is_zero() {
        true => storage.remove(path),
        false => storage.insert(path, alloy_rlp::encode(word)),
    }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
    use alloy_trie::Nibbles;
    use alloy_trie::proof::verify_proof;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    const CODE: B256 = B256::repeat_byte(0xcc);

    #[derive(Debug, Clone)]
    enum Change {
        Record(u8, Option<(u64, u64)>),
        Code(u8, bool, u8),
        Word(u8, u8, u8, u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0u8..6, any::<Option<(u64, u64)>>()).prop_map(|(a, r)| Change::Record(a, r)),
            (0u8..6, any::<bool>(), 0u8..3).prop_map(|(a, c, i)| Change::Code(a, c, i)),
            (0u8..6, 0u8..3, 0u8..5, 0u8..3).prop_map(|(a, i, s, w)| Change::Word(a, i, s, w)),
        ]
    }

    fn address(name: u8) -> Address {
        Address::repeat_byte(name)
    }

    fn entry(change: &Change) -> (Key, Option<Value>) {
        match *change {
            Change::Record(name, record) => {
                let record = record
                    .map(|(balance, nonce)| AccountRecord { balance: U256::from(balance), nonce });
                (keys::account(&address(name)), record.map(|record| record.encode()))
            }
            Change::Code(name, has_code, incarnation) => {
                let record =
                    CodeRecord { hash: has_code.then_some(CODE), incarnation: incarnation.into() };
                (keys::code_record(&address(name)), record.encode())
            }
            Change::Word(name, incarnation, slot, word) => {
                let key = keys::storage(&address(name), incarnation.into(), U256::from(slot));
                (key, keys::encode_word(U256::from(word)))
            }
        }
    }

    /// The root by another way: from the whole state, by addresses.
    fn root(state: &BTreeMap<Key, Value>) -> B256 {
        let accounts = (0..6).filter_map(|name| {
            let address = address(name);
            let record = state.get(&keys::account(&address));
            let code = CodeRecord::decode(state.get(&keys::code_record(&address))).unwrap();
            if record.is_none() && code.hash.is_none() {
                return None;
            }
            let record = record.map(|value| AccountRecord::decode(value).unwrap());
            let words = (0..5).filter_map(|slot| {
                let value =
                    state.get(&keys::storage(&address, code.incarnation, U256::from(slot)))?;
                Some((B256::from(U256::from(slot)), keys::decode_word(Some(value)).unwrap()))
            });
            let record = record.unwrap_or_default();
            let account = TrieAccount {
                nonce: record.nonce,
                balance: record.balance,
                storage_root: storage_root_unhashed(words),
                code_hash: code.hash.unwrap_or(KECCAK256_EMPTY),
            };
            Some((address, account))
        });
        state_root_unhashed(accounts)
    }

    proptest! {
        #[test]
        fn the_root_is_that_of_the_whole_state_after_any_changes(
            changes in vec(change(), 0..40),
        ) {
            let mut state = BTreeMap::new();
            let mut trie = StateTrie::default();
            for change in &changes {
                let (key, value) = entry(change);
                trie.apply(&key, value.as_ref()).unwrap();
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(&key),
                };
                prop_assert_eq!(trie.root(), root(&state));
            }
        }

        #[test]
        fn proofs_verify_against_the_root(
            balances in btree_map(0u8..200, 1u64.., 1..60),
            words in btree_map(0u64..300, 1u64.., 0..60),
            asked in 0u8..255,
            slot in 0u64..300,
        ) {
            let mut trie = StateTrie::default();
            for (name, balance) in &balances {
                let record = AccountRecord { balance: U256::from(*balance), nonce: 0 };
                trie.apply(&keys::account(&address(*name)), Some(&record.encode())).unwrap();
            }
            for (slot, word) in &words {
                let key = keys::storage(&address(asked), 0, U256::from(*slot));
                trie.apply(&key, keys::encode_word(U256::from(*word)).as_ref()).unwrap();
            }
            let root = trie.root();
            let proof = trie.prove(&address(asked), &[U256::from(slot)]);
            let exists = balances.contains_key(&asked);
            let expected = exists.then(|| alloy_rlp::encode(proof.account));
            let path = Nibbles::unpack(keccak256(address(asked)));
            prop_assert!(verify_proof(root, path, expected, &proof.nodes).is_ok());
            let found = &proof.slots[0];
            prop_assert_eq!(found.word, U256::from(words.get(&slot).copied().unwrap_or(0)));
            if exists && !words.is_empty() {
                let word = (!found.word.is_zero()).then(|| alloy_rlp::encode(found.word));
                let path = Nibbles::unpack(keccak256(B256::from(found.slot)));
                let checked = verify_proof(proof.account.storage_root, path, word, &found.nodes);
                prop_assert!(checked.is_ok());
            }
        }
    }
}
