//! The whole state, to be taken elsewhere, in the words of anvil.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use parsec_protocol::{Key, Value};
use parsec_runtimes::evm::Changes;
use parsec_runtimes::evm::keys::{self, AccountRecord, CodeRecord};
use serde::{Deserialize, Serialize};

use super::DevChain;

/// The accounts of a state. A dump of anvil holds blocks and transactions besides, which are
/// passed over: what is taken elsewhere is the state, not the chain that led to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    accounts: BTreeMap<Address, DumpedAccount>,
    #[serde(flatten, skip_deserializing)]
    chain: NoChain,
}

/// What anvil wants to find in a dump besides the accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct NoChain {
    block: Option<()>,
    best_block_number: Option<()>,
    blocks: [(); 0],
    transactions: [(); 0],
    historical_states: Option<()>,
}

/// An account with all that it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct DumpedAccount {
    nonce: u64,
    balance: U256,
    code: Bytes,
    storage: BTreeMap<B256, B256>,
}

impl DevChain {
    /// The latest state.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let mut accounts: BTreeMap<Address, DumpedAccount> = BTreeMap::new();
        for (key, value) in self.states.iter_at(self.states.latest()) {
            if keys::is_account(key)
                && let Ok(address) = Address::try_from(key.bytes())
            {
                let (nonce, balance, code) = self.all_but_storage(&address);
                let account = accounts.entry(address).or_default();
                (account.nonce, account.balance, account.code) = (nonce, balance, code);
            } else if let Some((address, incarnation, slot)) = keys::storage_parts(key)
                && incarnation == self.code_record(&address).incarnation
            {
                let account = accounts.entry(address).or_default();
                account.storage.insert(slot, word(value));
            }
        }
        Dump { accounts, chain: NoChain::default() }
    }

    fn all_but_storage(&self, address: &Address) -> (u64, U256, Bytes) {
        let AccountRecord { balance, nonce } = self.record(address);
        let hash = self.code_record(address).hash;
        let code = hash.and_then(|hash| self.states.get(&keys::code(&hash)));
        (nonce, balance, code.map_or_else(Bytes::new, |code| Bytes::copy_from_slice(code)))
    }

    /// Sets all accounts of a dump as they are there, and leaves others as they are.
    pub fn load(&mut self, dump: &Dump) {
        let changes =
            dump.accounts.iter().flat_map(|(address, account)| self.set(address, account));
        let changes: Changes = changes.collect();
        self.change(changes);
    }

    fn set(&self, address: &Address, account: &DumpedAccount) -> Vec<(Key, Option<Value>)> {
        let record = AccountRecord { balance: account.balance, nonce: account.nonce };
        let hash = (!account.code.is_empty()).then(|| keccak256(&account.code));
        let incarnation = self.code_record(address).incarnation;
        let mut changes = vec![
            (keys::account(address), Some(record.encode())),
            (keys::code_record(address), CodeRecord { hash, incarnation }.encode()),
        ];
        changes.extend(hash.map(|hash| (keys::code(&hash), Some(account.code.0.clone().into()))));
        changes.extend(account.storage.iter().map(|(slot, word)| {
            let key = keys::storage(address, incarnation, (*slot).into());
            (key, keys::encode_word((*word).into()))
        }));
        changes
    }
}

fn word(value: &Value) -> B256 {
    keys::decode_word(Some(value)).expect("only the runtime and this chain write words").into()
}
