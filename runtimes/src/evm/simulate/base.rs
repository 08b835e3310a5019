//! The state that a simulation starts from, as revm reads it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use alloy_primitives::map::B256Map;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use parsec_ethereum::QueryError;
use parsec_protocol::{Key, Value};
use revm::DatabaseRef;
use revm::bytecode::Bytecode;
use revm::database::CacheDB;
use revm::database_interface::DBErrorMarker;
use revm::state::AccountInfo;

use super::Reader;
use crate::evm::keys::{self, AccountRecord, BadValue, CodeRecord};
use crate::evm::trie::StateTrie;
use crate::evm::view::analyse;

/// A state, with what was done to it in the course of a simulation.
pub(super) type World<'a> = CacheDB<Base<'a>>;

/// Why the machine stopped: the state can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(super) struct Stop(#[from] pub(super) QueryError);

impl DBErrorMarker for Stop {}

/// A state that is read only, and each value of it once.
pub(super) struct Base<'a>(RefCell<Memory<'a>>);

struct Memory<'a> {
    reader: &'a mut dyn Reader,
    values: BTreeMap<Key, Option<Value>>,
    code: B256Map<Bytecode>,
    hashes: BTreeMap<u64, B256>,
}

/// What stands at an address.
pub(super) struct Found {
    /// The balance and nonce; none if there is no account.
    pub(super) record: Option<AccountRecord>,
    pub(super) code: CodeRecord,
}

impl<'a> Base<'a> {
    pub(super) fn new(reader: &'a mut dyn Reader) -> Self {
        let (values, code, hashes) = Default::default();
        Self(RefCell::new(Memory { reader, values, code, hashes }))
    }

    /// Asks for values that will be needed together.
    pub(super) fn prefetch(&self, keys: &[Key]) {
        let memory = &mut *self.0.borrow_mut();
        let keys: Vec<Key> =
            keys.iter().filter(|key| !memory.values.contains_key(*key)).cloned().collect();
        memory.reader.prefetch(&keys);
    }

    /// Lets a block have that hash, whatever the chain says.
    pub(super) fn set_hash(&self, number: u64, hash: B256) {
        self.0.borrow_mut().hashes.insert(number, hash);
    }

    /// The hash of a block; zero if there is none.
    pub(super) fn hash(&self, number: u64) -> Result<B256, QueryError> {
        self.0.borrow_mut().hash(number)
    }

    /// The trie of the state, where its root is one in the sense of Ethereum.
    pub(super) fn trie(&self) -> Option<StateTrie> {
        self.0.borrow_mut().reader.trie()
    }

    pub(super) fn value(&self, key: &Key) -> Result<Option<Value>, QueryError> {
        self.0.borrow_mut().value(key)
    }

    pub(super) fn account(&self, address: &Address) -> Result<Found, QueryError> {
        self.0.borrow_mut().account(address)
    }

    pub(super) fn word(&self, address: &Address, slot: U256) -> Result<U256, QueryError> {
        let memory = &mut *self.0.borrow_mut();
        let key = keys::storage(address, memory.code_record(address)?.incarnation, slot);
        let value = memory.value(&key)?;
        keys::decode_word(value.as_ref()).map_err(|error| damaged(&key, &error))
    }

    /// The code with that hash.
    pub(super) fn code(&self, hash: &B256) -> Result<Bytecode, QueryError> {
        self.0.borrow_mut().code(hash)
    }
}

impl Memory<'_> {
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError> {
        if let Some(value) = self.values.get(key) {
            return Ok(value.clone());
        }
        let value = self.reader.value(key)?;
        self.values.insert(key.clone(), value.clone());
        Ok(value)
    }

    fn code_record(&mut self, address: &Address) -> Result<CodeRecord, QueryError> {
        let key = keys::code_record(address);
        let value = self.value(&key)?;
        CodeRecord::decode(value.as_ref()).map_err(|error| damaged(&key, &error))
    }

    fn account(&mut self, address: &Address) -> Result<Found, QueryError> {
        let code = self.code_record(address)?;
        let key = keys::account(address);
        let record = self
            .value(&key)?
            .map(|value| AccountRecord::decode(&value))
            .transpose()
            .map_err(|error| damaged(&key, &error))?
            .or_else(|| code.hash.map(|_| AccountRecord::default()));
        Ok(Found { record, code })
    }

    fn code(&mut self, hash: &B256) -> Result<Bytecode, QueryError> {
        if let Some(code) = self.code.get(hash) {
            return Ok(code.clone());
        }
        let key = keys::code(hash);
        let raw = self.value(&key)?.ok_or_else(|| {
            QueryError::Unavailable(format!("the state is damaged: no code stands at {key}"))
        })?;
        let code = analyse(raw);
        self.code.insert(*hash, code.clone());
        Ok(code)
    }

    fn hash(&mut self, number: u64) -> Result<B256, QueryError> {
        if let Some(hash) = self.hashes.get(&number) {
            return Ok(*hash);
        }
        let hash = self.reader.block_hash(number)?.unwrap_or_default();
        self.hashes.insert(number, hash);
        Ok(hash)
    }
}

fn damaged(key: &Key, error: &BadValue) -> QueryError {
    QueryError::Unavailable(format!("the state is damaged at {key}: {error}"))
}

impl DatabaseRef for Base<'_> {
    type Error = Stop;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Stop> {
        let Found { record, code } = self.account(&address)?;
        let Some(AccountRecord { balance, nonce }) = record else {
            return Ok(None);
        };
        let bytecode = code.hash.map(|hash| self.code(&hash)).transpose()?;
        Ok(Some(AccountInfo {
            balance,
            nonce,
            code_hash: code.hash.unwrap_or(KECCAK256_EMPTY),
            code: Some(bytecode.unwrap_or_default()),
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, Stop> {
        Ok(self.code(&hash)?)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Stop> {
        Ok(self.word(&address, slot)?)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Stop> {
        Ok(self.hash(number)?)
    }
}
