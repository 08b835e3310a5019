//! The state as the Ethereum machine sees it, over the state as the transaction sees it.

use alloy_primitives::map::{AddressMap, B256Map};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use bytes::Bytes;
use parsec_protocol::{Key, Mode, Value};
use revm::Database;
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::interpreter::instructions::GasTable;
use revm::state::AccountInfo;

use super::keys::{self, AccountRecord, BadValue, BlockHashes, CodeRecord};
use super::params::Prepared;
use crate::{Interrupt, State};

/// Most contracts whose analysed code a session keeps, and most bytes of it.
const CODE_CACHE_CONTRACTS: usize = 8_192;
const CODE_CACHE_BYTES: usize = 64 * 1_024 * 1_024;

/// Why the machine is stopped in the middle of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    /// The state can't be served.
    #[error("the state interrupts: {0:?}")]
    Interrupt(Interrupt),
    /// The balance or nonce of an account is consulted that was loaded without them.
    #[error("the account {0} is hollow")]
    Hollow(Address),
}

impl DBErrorMarker for Stop {}

impl From<Interrupt> for Stop {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupt(interrupt)
    }
}

/// Says whose value is damaged: the host stops.
fn damaged(key: &Key, error: &BadValue) -> Interrupt {
    Interrupt::Fatal(format!("the state is damaged at {key}: {error}"))
}

/// Analysed code by its hash. What is in it never changes what is read through [`State`].
#[derive(Debug, Default)]
pub(super) struct CodeCache {
    by_hash: B256Map<(Key, Bytecode)>,
    bytes: usize,
}

impl CodeCache {
    fn load(&mut self, hash: B256, state: &mut dyn State) -> Result<Bytecode, Interrupt> {
        if let Some((key, code)) = self.by_hash.get(&hash) {
            state.get(key)?;
            return Ok(code.clone());
        }
        let key = keys::code(&hash);
        let raw = state.get(&key)?.ok_or_else(|| {
            Interrupt::Fatal(format!("the state is damaged: a contract's code is absent at {key}"))
        })?;
        let code = analyse(raw);
        if self.by_hash.len() >= CODE_CACHE_CONTRACTS || self.bytes >= CODE_CACHE_BYTES {
            *self = Self::default();
        }
        self.bytes += code.len();
        self.by_hash.insert(hash, (key, code.clone()));
        Ok(code)
    }
}

pub(super) fn analyse(raw: Value) -> Bytecode {
    let raw = Bytes::from(raw);
    // Code that only looks like a delegation was possible before EIP-3541.
    Bytecode::new_raw_checked(raw.clone().into())
        .unwrap_or_else(|_| Bytecode::new_legacy(raw.into()))
}

/// An account as it was before the transaction.
#[derive(Debug, Clone)]
pub(super) struct LoadedAccount {
    pub(super) address: Address,
    /// The key of its balance and nonce.
    pub(super) key: Key,
    /// The key of its code hash and incarnation.
    pub(super) code_key: Key,
    /// Whether balance and nonce were left out, because only its code is known to be needed.
    pub(super) hollow: bool,
    /// The balance and nonce; none if there is no account.
    pub(super) record: Option<AccountRecord>,
    pub(super) code: CodeRecord,
}

/// A word of storage as it was before the transaction.
#[derive(Debug, Clone)]
pub(super) struct LoadedSlot {
    /// The index of its account among those loaded.
    pub(super) account: usize,
    pub(super) slot: U256,
    pub(super) word: U256,
    pub(super) key: Key,
}

/// What a transaction has loaded, in the order in which it did: so that neither the order of
/// writes nor that of interrupts depends on a hash map.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) accounts: Vec<LoadedAccount>,
    pub(super) slots: Vec<LoadedSlot>,
    index: AddressMap<usize>,
    /// Accounts that must not be loaded hollow: the sender, and those that were consulted in
    /// earlier runs of the same transaction.
    pub(super) full: Vec<Address>,
}

impl Trace {
    /// Prepares for the first run of a transaction.
    pub(super) fn start(&mut self, sender: Address) {
        self.full.clear();
        self.full.push(sender);
        self.clear();
    }

    /// Prepares for another run of the same transaction.
    pub(super) fn clear(&mut self) {
        self.accounts.clear();
        self.slots.clear();
        self.index.clear();
    }

    fn find(&self, address: &Address) -> Option<(usize, &LoadedAccount)> {
        let index = *self.index.get(address)?;
        Some((index, &self.accounts[index]))
    }

    pub(super) fn account(&self, address: &Address) -> Option<&LoadedAccount> {
        Some(self.find(address)?.1)
    }

    /// Whether the account was loaded without its balance and nonce.
    pub(super) fn is_hollow(&self, address: &Address) -> bool {
        self.account(address).is_some_and(|account| account.hollow)
    }

    fn insert(&mut self, account: LoadedAccount) {
        self.index.insert(account.address, self.accounts.len());
        self.accounts.push(account);
    }
}

/// The nonces that accounts are taken to have in a trial, since transactions that come before it
/// will have given them to them.
#[derive(Debug, Default)]
pub(super) struct AssumedNonces {
    /// The sender's.
    pub(super) sender: Option<u64>,
    /// Those of accounts that sign authorizations (EIP-7702), one for each authorization.
    pub(super) authorities: Vec<(Address, u64)>,
}

/// The database of one run of the machine.
pub(super) struct View<'a> {
    pub(super) state: &'a mut (dyn State + 'a),
    pub(super) trace: &'a mut Trace,
    pub(super) code: &'a mut CodeCache,
    pub(super) params: &'a Prepared,
    pub(super) gas: &'a GasTable,
    pub(super) assumed: &'a AssumedNonces,
    pub(super) is_trial: bool,
    /// The coinbase's reward, where it is left to be added to an account that was not loaded.
    pub(super) reward: Option<U256>,
    /// The block whose hash was asked for and is not known.
    pub(super) unknown_block: Option<u64>,
}

impl View<'_> {
    /// Makes sure that the balance and nonce of an account may be consulted.
    pub(super) fn consult(&self, address: &Address) -> Result<(), Stop> {
        if self.trace.is_hollow(address) { Err(Stop::Hollow(*address)) } else { Ok(()) }
    }

    /// Loads an account. A contract is loaded hollow if its record is not in reach already: a
    /// call that never consults it must not touch it, or one popular contract would be one hot
    /// partition. An account that only delegates (EIP-7702) is somebody's own, and loaded fully.
    fn load(&mut self, address: Address) -> Result<(LoadedAccount, Option<Bytecode>), Interrupt> {
        let code_key = keys::code_record(&address);
        let value = self.state.get(&code_key)?;
        let code = CodeRecord::decode(value.as_ref()).map_err(|e| damaged(&code_key, &e))?;
        let bytecode = code.hash.map(|hash| self.code.load(hash, self.state)).transpose()?;
        let contract = bytecode.as_ref().is_some_and(|code| !code.is_eip7702());
        let key = keys::account(&address);
        if contract && !self.trace.full.contains(&address) && !self.state.covers(&key, Mode::Read) {
            let record = Some(AccountRecord::default());
            let hollow = LoadedAccount { address, key, code_key, hollow: true, record, code };
            return Ok((hollow, bytecode));
        }
        let value = self.state.get(&key)?;
        let record = value
            .map(|value| AccountRecord::decode(&value))
            .transpose()
            .map_err(|e| damaged(&key, &e))?
            .or_else(|| code.hash.map(|_| AccountRecord::default()));
        Ok((LoadedAccount { address, key, code_key, hollow: false, record, code }, bytecode))
    }

    /// The hash of an earlier block, as the parameters say, or the state. In a trial, that may be
    /// behind the order: then any hash will do.
    pub(super) fn known_hash(&mut self, number: u64) -> Result<Option<B256>, Interrupt> {
        if self.params.has_given_block() {
            return Ok(self.params.block_hash(number));
        }
        let key = keys::block_hashes();
        let Some(value) = self.state.get(&key)? else {
            return Ok(self.is_trial.then_some(B256::ZERO));
        };
        let known = BlockHashes::decode(&value).map_err(|error| damaged(&key, &error))?;
        Ok(known.get(number).or_else(|| self.is_trial.then_some(B256::ZERO)))
    }

    /// The nonce that an account is taken to have, if not its own.
    fn assumed_nonce(&self, account: &LoadedAccount) -> Option<u64> {
        if self.trace.full.first() == Some(&account.address) {
            return self.assumed.sender;
        }
        // What is hollow is a contract, which nobody can delegate.
        if account.hollow || self.assumed.authorities.is_empty() {
            return None;
        }
        // What is signed for an earlier nonce will never be valid.
        let own = account.record.unwrap_or_default().nonce;
        let signed = self.assumed.authorities.iter();
        let signed =
            signed.filter(|(authority, nonce)| *authority == account.address && *nonce >= own);
        signed.map(|(_, nonce)| *nonce).min().filter(|least| *least > own)
    }

    /// Whether an account exists that is not part of the run. Used for the coinbase alone.
    pub(super) fn exists(&mut self, address: Address) -> Result<bool, Interrupt> {
        Ok(self.load(address)?.0.record.is_some())
    }
}

impl Database for View<'_> {
    type Error = Stop;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Stop> {
        let (account, bytecode) = self.load(address)?;
        let assumed = self.assumed_nonce(&account);
        let exists = account.record.is_some() || assumed.is_some();
        let AccountRecord { balance, nonce } = account.record.unwrap_or_default();
        let info = AccountInfo {
            balance,
            nonce: assumed.unwrap_or(nonce),
            code_hash: account.code.hash.unwrap_or(KECCAK256_EMPTY),
            code: Some(bytecode.unwrap_or_default()),
            ..AccountInfo::default()
        };
        self.trace.insert(account);
        Ok(exists.then_some(info))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Stop> {
        Ok(self.code.load(hash, self.state)?)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Stop> {
        let Some((account, loaded)) = self.trace.find(&address) else {
            let reason = format!("storage of {address} is read before its account");
            return Err(Interrupt::Fatal(reason).into());
        };
        let key = keys::storage(&address, loaded.code.incarnation, slot);
        let value = self.state.get(&key)?;
        let word = keys::decode_word(value.as_ref()).map_err(|e| damaged(&key, &e))?;
        self.trace.slots.push(LoadedSlot { account, slot, word, key });
        Ok(word)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Stop> {
        self.known_hash(number)?.ok_or_else(|| {
            Interrupt::Fatal(format!("the unknown hash of block {number} is read")).into()
        })
    }
}
