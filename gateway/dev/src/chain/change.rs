//! Changing the latest state without a block.

use std::collections::BTreeMap;

use alloy_primitives::{Address, Bytes, U256, keccak256};
use parsec_runtimes::evm::Changes;
use parsec_runtimes::evm::keys::{self, CodeRecord};

use super::{DevChain, sessions};

impl DevChain {
    /// Makes changes the latest state, which is that after the latest block.
    pub(super) fn change(&mut self, changes: Changes) {
        let version = self.states.commit(changes);
        if let Some(last) = self.marks.last_mut() {
            last.version = version;
        }
        self.revision += 1;
    }

    /// Sets what an account owns, wei.
    pub fn set_balance(&mut self, address: &Address, balance: U256) {
        let record = keys::AccountRecord { balance, ..self.record(address) };
        self.change(Changes::from([(keys::account(address), Some(record.encode()))]));
    }

    /// Sets how many transactions an account has sent.
    pub fn set_nonce(&mut self, address: &Address, nonce: u64) {
        let record = keys::AccountRecord { nonce, ..self.record(address) };
        self.change(Changes::from([(keys::account(address), Some(record.encode()))]));
        self.pool.remove_of(address, Some(nonce));
    }

    /// Sets the code of an account.
    pub fn set_code(&mut self, address: &Address, code: &Bytes) {
        let old = self.code_record(address);
        let hash = (!code.is_empty()).then(|| keccak256(code));
        let record = CodeRecord { hash, ..old };
        let mut changes = Changes::from([(keys::code_record(address), record.encode())]);
        changes.extend(hash.map(|hash| (keys::code(&hash), Some(code.0.clone().into()))));
        if self.states.get(&keys::account(address)).is_none() {
            let empty = keys::AccountRecord::default();
            changes.insert(keys::account(address), Some(empty.encode()));
        }
        self.change(changes);
    }

    /// Sets a word of an account's storage.
    pub fn set_storage(&mut self, address: &Address, slot: U256, word: U256) {
        self.set_storage_words(address, &BTreeMap::from([(slot, word)]));
    }

    /// Sets words of an account's storage.
    pub fn set_storage_words(&mut self, address: &Address, words: &BTreeMap<U256, U256>) {
        let incarnation = self.code_record(address).incarnation;
        let change = |(slot, word): (&U256, &U256)| {
            (keys::storage(address, incarnation, *slot), keys::encode_word(*word))
        };
        self.change(words.iter().map(change).collect());
    }

    /// Sets the chain id that transactions must be signed for from now on.
    pub fn set_chain_id(&mut self, chain_id: u64) {
        self.config.chain_id = chain_id;
        self.sessions = sessions(chain_id);
        self.change_params();
    }

    /// Sets the gas limit from the next block on.
    pub fn set_gas_limit(&mut self, gas_limit: u64) {
        self.gas_limit = gas_limit;
        self.change_params();
    }

    fn change_params(&mut self) {
        let params = self.params(None).encode();
        self.change(Changes::from([(keys::params(), Some(params))]));
    }
}
