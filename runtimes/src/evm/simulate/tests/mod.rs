//! Answers over a state that is a map.

mod geth;

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use parsec_ethereum::QueryError;
use parsec_protocol::{Key, Value};

use super::Reader;
use crate::evm::{ChainParams, GenesisAccount, genesis};

/// A state of which every value is at hand, that counts how often each is asked for.
pub(super) struct Map {
    values: BTreeMap<Key, Value>,
    asked: BTreeMap<Key, usize>,
    hashes: BTreeMap<u64, B256>,
}

impl Map {
    pub(super) fn new(params: &ChainParams, accounts: &BTreeMap<Address, GenesisAccount>) -> Self {
        let values = genesis(params, accounts).into_iter().collect();
        Self { values, asked: BTreeMap::new(), hashes: BTreeMap::new() }
    }
}

impl Reader for Map {
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError> {
        *self.asked.entry(key.clone()).or_default() += 1;
        Ok(self.values.get(key).cloned())
    }

    fn block_hash(&mut self, number: u64) -> Result<Option<B256>, QueryError> {
        Ok(self.hashes.get(&number).copied())
    }
}
