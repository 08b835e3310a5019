//! What Ethereum says of a state and of logs: their hashes.

use std::collections::{BTreeMap, BTreeSet};

use alloy_consensus::TrieAccount;
use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use parsec_protocol::{Event, Key, Value};
use parsec_runtimes::evm::keys::{self, AccountRecord, CodeRecord};
use parsec_runtimes::evm::{GenesisAccount, block};

use super::Failure;

/// An account with its storage.
pub(crate) struct Account {
    record: AccountRecord,
    code: Option<B256>,
    storage: BTreeMap<U256, U256>,
}

/// All accounts of a state.
pub(crate) fn accounts(
    state: &BTreeMap<Key, Value>,
) -> Result<BTreeMap<Address, Account>, Failure> {
    let known = [keys::account(&Address::ZERO), keys::code_record(&Address::ZERO)];
    let address = |key: &Key| {
        let same = known.iter().any(|known| known.namespace() == key.namespace());
        same.then(|| Address::from_slice(key.bytes()))
    };
    let addresses: BTreeSet<Address> = state.keys().filter_map(address).collect();
    let mut accounts = BTreeMap::new();
    for address in addresses {
        let code = CodeRecord::decode(state.get(&keys::code_record(&address)));
        let code = code.map_err(|error| error.to_string())?;
        let record = state.get(&keys::account(&address));
        if record.is_none() && code.hash.is_none() {
            continue;
        }
        let record = record.map(|value| AccountRecord::decode(value)).transpose();
        let record = record.map_err(|error| error.to_string())?.unwrap_or_default();
        let storage = storage(state, &address, code.incarnation)?;
        accounts.insert(address, Account { record, code: code.hash, storage });
    }
    Ok(accounts)
}

fn storage(
    state: &BTreeMap<Key, Value>,
    address: &Address,
    incarnation: u64,
) -> Result<BTreeMap<U256, U256>, Failure> {
    let first = keys::storage(address, incarnation, U256::ZERO);
    let last = keys::storage(address, incarnation, U256::MAX);
    let word = |(key, value): (&Key, &Value)| {
        let (_, _, slot) = keys::storage_parts(key).ok_or_else(|| format!("{key} is no slot"))?;
        Ok((slot.into(), keys::decode_word(Some(value)).map_err(|error| error.to_string())?))
    };
    state.range(first..=last).map(word).collect()
}

/// The root of Ethereum's trie of accounts.
pub(super) fn root(accounts: &BTreeMap<Address, Account>) -> B256 {
    let account = |(address, account): (&Address, &Account)| {
        let words = account.storage.iter().map(|(slot, word)| (B256::from(*slot), *word));
        let account = TrieAccount {
            nonce: account.record.nonce,
            balance: account.record.balance,
            storage_root: storage_root_unhashed(words),
            code_hash: account.code.unwrap_or(KECCAK256_EMPTY),
        };
        (*address, account)
    };
    state_root_unhashed(accounts.iter().map(account))
}

/// The hash of the logs of a transaction.
pub(super) fn logs_hash(events: &[Event]) -> B256 {
    keccak256(alloy_rlp::encode(events.iter().map(block::log).collect::<Vec<_>>()))
}

/// In what a state is not as it should be, for people.
pub(crate) fn differences(
    found: &BTreeMap<Address, Account>,
    expected: &BTreeMap<Address, GenesisAccount>,
) -> Vec<String> {
    let mut differences = Vec::new();
    let addresses: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    for address in addresses {
        let (found, expected) = match (found.get(address), expected.get(address)) {
            (Some(found), Some(expected)) => (found, expected),
            (Some(_), None) => {
                differences.push(format!("{address} should not be there"));
                continue;
            }
            _ => {
                differences.push(format!("{address} is missing"));
                continue;
            }
        };
        let AccountRecord { balance, nonce } = found.record;
        if (balance, nonce) != (expected.balance, expected.nonce) {
            differences.push(format!(
                "{address} has {balance} and nonce {nonce}, not {} and nonce {}",
                expected.balance, expected.nonce
            ));
        }
        let code = (!expected.code.is_empty()).then(|| keccak256(&expected.code));
        if found.code != code {
            differences.push(format!("{address} has other code"));
        }
        let slots: BTreeSet<_> = found.storage.keys().chain(expected.storage.keys()).collect();
        for slot in slots {
            let word = |storage: &BTreeMap<U256, U256>| storage.get(slot).copied();
            let (found, expected) = (word(&found.storage), word(&expected.storage));
            if found.unwrap_or_default() != expected.unwrap_or_default() {
                differences.push(format!("{address} has {found:?} at {slot}, not {expected:?}"));
            }
        }
    }
    differences
}
