//! Access lists (EIP-2930) as declared footprints.
//!
//! A list names the addresses and slots that a transaction means to touch; it does not say how. So
//! each slot may be written. Of a contract in the list, the record with its balance and nonce is
//! left out unless the transaction sends it Ether: most calls don't consult it, and to hold it
//! would make one popular contract a hot key. A list that says too little is only a stray.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U256};
use parsec_protocol::{Access, Footprint, Key, Mode};

use super::keys::{self, CodeRecord};
use super::params::ChainParams;
use super::payload::{self, SignedTransaction};
use crate::Declared;
use crate::access::Source;

/// How many addresses and slots the access list of a transaction names.
pub(super) fn length(transaction: &SignedTransaction) -> usize {
    let list = transaction.access_list().map_or(&[][..], |list| &list.0[..]);
    list.iter().map(|item| 1 + item.storage_keys.len()).sum()
}

/// The footprint that the access list of a payload declares, with what every call touches.
pub(super) fn declared(sender: &[u8], payload: &[u8], source: &dyn Source) -> Declared {
    let list = List::decode(sender, payload);
    list.map_or(Declared::Nothing, |list| list.declared(source))
}

/// A transaction with an access list.
struct List {
    transaction: SignedTransaction,
    sender: Address,
    callee: Address,
}

/// Accesses, or the keys of the values that are needed to tell them.
#[derive(Default)]
struct Gathered {
    accesses: Vec<Access>,
    needs: Vec<Key>,
}

impl Gathered {
    fn access(&mut self, key: Key, mode: Mode) {
        self.accesses.push(Access { key, mode });
    }

    /// The code record of an address, which is read, and so is the code that it names.
    fn code_record(&mut self, source: &dyn Source, address: &Address) -> Option<CodeRecord> {
        let key = keys::code_record(address);
        let value = source.value(&key);
        if value.is_none() {
            self.needs.push(key.clone());
        }
        self.access(key, Mode::Read);
        // What is damaged is found out where it is executed.
        let record = CodeRecord::decode(value?.as_ref()).ok()?;
        if let Some(hash) = &record.hash {
            self.access(keys::code(hash), Mode::Read);
        }
        Some(record)
    }
}

impl List {
    /// The transaction, if it has an access list, calls someone, and delegates nobody: what
    /// delegates touches more than its list names.
    fn decode(sender: &[u8], payload: &[u8]) -> Option<Self> {
        let transaction = payload::decode(payload).ok()?;
        if transaction.authorization_list().is_some() {
            return None;
        }
        transaction.access_list().filter(|list| !list.0.is_empty())?;
        let callee = transaction.kind().into_to()?;
        Some(Self { sender: Address::try_from(sender).ok()?, callee, transaction })
    }

    fn declared(&self, source: &dyn Source) -> Declared {
        let mut gathered = Gathered::default();
        self.add_coinbase(source, &mut gathered);
        gathered.access(keys::account(&self.sender), Mode::Write);
        gathered.code_record(source, &self.sender);
        let is_contract = self.add_callee(source, &mut gathered);
        self.add_listed(source, &mut gathered);
        if !gathered.needs.is_empty() {
            return Declared::Needs(gathered.needs);
        }
        // Data to no contract: it may be one that is deployed just before, which a trial finds.
        if !is_contract && !self.transaction.input().is_empty() {
            return Declared::Nothing;
        }
        Footprint::new(gathered.accesses).map_or(Declared::Nothing, Declared::Footprint)
    }

    /// The parameters, and the coinbase if it gains.
    fn add_coinbase(&self, source: &dyn Source, gathered: &mut Gathered) {
        let key = keys::params();
        let value = source.value(&key);
        if value.is_none() {
            gathered.needs.push(key.clone());
        }
        gathered.access(key, Mode::Read);
        let params = match value.flatten() {
            Some(value) => ChainParams::decode(&value).ok(),
            None => Some(ChainParams::new(0)),
        };
        if let Some(ChainParams { coinbase, base_fee, .. }) = params
            && self.transaction.effective_gas_price(Some(base_fee)) > u128::from(base_fee)
        {
            gathered.access(keys::account(&coinbase.into()), Mode::Add);
        }
    }

    /// The called address. Returns whether it is a contract, as far as that can be told.
    fn add_callee(&self, source: &dyn Source, gathered: &mut Gathered) -> bool {
        let record = gathered.code_record(source, &self.callee);
        let is_contract = record.is_some_and(|record| record.hash.is_some());
        let account = keys::account(&self.callee);
        match (self.transaction.value().is_zero(), is_contract) {
            (false, _) => gathered.access(account, Mode::Write),
            (true, false) => gathered.access(account, Mode::Read),
            (true, true) => {}
        }
        is_contract
    }

    fn add_listed(&self, source: &dyn Source, gathered: &mut Gathered) {
        for item in self.transaction.access_list().map_or(&[][..], |list| &list.0[..]) {
            let Some(record) = gathered.code_record(source, &item.address) else { continue };
            if record.hash.is_none() && item.address != self.callee {
                gathered.access(keys::account(&item.address), Mode::Write);
            }
            for slot in &item.storage_keys {
                let slot = U256::from_be_bytes(slot.0);
                let key = keys::storage(&item.address, record.incarnation, slot);
                gathered.access(key, Mode::Write);
            }
        }
    }
}
