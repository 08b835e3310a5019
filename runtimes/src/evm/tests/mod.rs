//! The Ethereum runtime over a state that is a map.

mod access_lists;
mod admission;
pub(super) mod asm;
mod contracts;
mod delegations;
mod development;
mod environment;
mod fees;
mod hollow;
mod mainnet;
mod predictions;
mod trials;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, TxKind, U256, keccak256};
use bytes::Bytes;
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, Change, EpochNumber, EpochRecord, Footprint, Key, Mode, PartitionId, Receipt,
    RuntimeId, Transaction, Value,
};
use secp256k1::{Message, Secp256k1, SecretKey};

use super::keys::{self, AccountRecord, CodeRecord};
use super::payload::SignedTransaction;
use super::{ChainParams, EvmRuntime, GenesisAccount, genesis};
use crate::access::Source;
use crate::{Call, Done, Execution, Recorder, Recording, Runtime, Runtimes, Sessions};

const CHAIN: u64 = 1_234;
const ETHER: u128 = 1_000_000_000_000_000_000;
const ENTROPY: [u8; 32] = [7; 32];

/// A state of which every value is at hand.
pub(super) struct Snapshot(BTreeMap<Key, Value>);

impl Snapshot {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.0.get(key)
    }

    fn apply(&mut self, key: &Key, change: &Change) {
        match change.apply(self.0.get(key)) {
            Some(value) => self.0.insert(key.clone(), value),
            None => self.0.remove(key),
        };
    }
}

impl Source for Snapshot {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// A state, and a runtime that executes over it.
pub(super) struct World {
    pub(super) state: Snapshot,
    runtime: EvmRuntime,
    sessions: Sessions,
    epoch: EpochRecord,
}

impl World {
    pub(super) fn new(runtime: EvmRuntime, genesis: Vec<(Key, Value)>) -> Self {
        let sessions = Runtimes::new(vec![Arc::new(runtime.clone())]).sessions();
        let epoch = EpochRecord {
            number: EpochNumber(1),
            timestamp_ms: 1_700_000_000_999,
            block: 5,
            parent: [0; 32],
            batches: Vec::new(),
        };
        Self { state: Snapshot(genesis.into_iter().collect()), runtime, sessions, epoch }
    }

    /// A world with a wallet that owns an Ether, and contracts that own none.
    fn with(params: &ChainParams, contracts: &[(Address, asm::Code)]) -> (Self, Wallet) {
        let wallet = Wallet::new(1);
        let owner = GenesisAccount { balance: U256::from(ETHER), ..GenesisAccount::default() };
        let mut accounts = BTreeMap::from([(wallet.address, owner)]);
        for (address, code) in contracts {
            let code = code.clone().build();
            accounts.insert(*address, GenesisAccount { code, ..GenesisAccount::default() });
        }
        (Self::new(EvmRuntime::new(CHAIN), genesis(params, &accounts)), wallet)
    }

    /// Admits a raw transaction as the sequencer would.
    fn admit(&self, raw: &Bytes) -> Entry {
        let transaction = Transaction::new(RuntimeId::EVM, raw.clone());
        let admitted = self.runtime.admit(&transaction).unwrap();
        Entry {
            id: admitted.id,
            runtime: RuntimeId::EVM,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender,
            payload: raw.clone(),
            footprint: Footprint::default(),
            expires: None,
        }
    }

    /// Runs a transaction without effect, to see what it touches and does.
    fn record(&mut self, entry: &Entry, trial: bool) -> (Done, Recording) {
        let mut recorder = Recorder::new(&self.state);
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch: &self.epoch,
            entropy: &ENTROPY,
            trial,
        };
        let done = self.sessions.execute(RuntimeId::EVM, &call, &mut recorder).unwrap();
        (done, recorder.finish().unwrap())
    }

    /// Executes an entry over the values of its footprint, without effect.
    fn attempt(&mut self, entry: &Entry) -> Execution {
        let accesses = entry.footprint.accesses().iter();
        let values: Vec<_> = accesses
            .map(|access| match access.mode.needs_value() {
                true => self.state.get(&access.key).cloned(),
                false => None,
            })
            .collect();
        Execution::run(&mut self.sessions, entry, &self.epoch, &ENTROPY, 0, &values).unwrap()
    }

    /// Discovers the footprint of a raw transaction, executes it within, and takes the changes.
    pub(super) fn run(&mut self, raw: &Bytes) -> Receipt {
        self.run_with_footprint(raw).0
    }

    /// Executes a raw transaction within a footprint, and takes the changes.
    fn run_within(&mut self, raw: &Bytes, footprint: Footprint) -> Receipt {
        let entry = Entry { footprint, ..self.admit(raw) };
        let execution = self.attempt(&entry);
        for (access, change) in entry.footprint.accesses().iter().zip(&execution.changes) {
            self.state.apply(&access.key, change);
        }
        execution.receipt
    }

    fn run_with_footprint(&mut self, raw: &Bytes) -> (Receipt, Footprint) {
        let entry = self.admit(raw);
        let footprint = self.record(&entry, true).1.footprint;
        (self.run_within(raw, footprint.clone()), footprint)
    }

    pub(super) fn account(&self, address: &Address) -> Option<AccountRecord> {
        let value = self.state.get(&keys::account(address))?;
        Some(AccountRecord::decode(value).unwrap())
    }

    fn balance(&self, address: &Address) -> U256 {
        self.account(address).unwrap_or_default().balance
    }

    pub(super) fn code(&self, address: &Address) -> CodeRecord {
        CodeRecord::decode(self.state.get(&keys::code_record(address))).unwrap()
    }

    /// A word of the storage of the contract that is there now.
    pub(super) fn word(&self, address: &Address, slot: U256) -> U256 {
        let key = keys::storage(address, self.code(address).incarnation, slot);
        keys::decode_word(self.state.get(&key)).unwrap()
    }
}

/// How a footprint may touch a key, if at all.
fn mode(footprint: &Footprint, key: &Key) -> Option<Mode> {
    footprint.find(key).map(|index| footprint.accesses()[index].mode)
}

/// A footprint without one of its keys.
fn without(footprint: &Footprint, key: &Key) -> Footprint {
    let accesses = footprint.accesses().iter().filter(|access| access.key != *key);
    Footprint::new(accesses.cloned().collect::<Vec<Access>>()).unwrap()
}

/// A key that signs transactions, and the nonce of the next.
#[derive(Debug, Clone)]
pub(super) struct Wallet {
    key: SecretKey,
    pub(super) address: Address,
    nonce: u64,
}

impl Wallet {
    pub(super) fn new(number: u8) -> Self {
        let key = SecretKey::from_byte_array([number; 32]).unwrap();
        let public = key.public_key(&Secp256k1::new()).serialize_uncompressed();
        let address = Address::from_slice(&keccak256(&public[1..])[12..]);
        Self { key, address, nonce: 0 }
    }

    fn sign<T: SignableTransaction<Signature>>(&self, transaction: T) -> Bytes
    where
        SignedTransaction: From<alloy_consensus::Signed<T>>,
    {
        let message = Message::from_digest(transaction.signature_hash().0);
        let signature = Secp256k1::new().sign_ecdsa_recoverable(message, &self.key);
        let (recovery, bytes) = signature.serialize_compact();
        let signature = Signature::from_bytes_and_parity(&bytes, i32::from(recovery) == 1);
        SignedTransaction::from(transaction.into_signed(signature)).encoded_2718().into()
    }

    /// A legacy transaction that costs a wei per gas, with the next nonce.
    pub(super) fn legacy(&mut self, to: TxKind, value: u128, input: impl Into<Bytes>) -> Bytes {
        let transaction = TxLegacy {
            chain_id: Some(CHAIN),
            nonce: self.nonce,
            gas_price: 1,
            gas_limit: 1_000_000,
            to,
            value: U256::from(value),
            input: input.into().into(),
        };
        self.nonce += 1;
        self.sign(transaction)
    }

    fn call(&mut self, to: Address, input: impl Into<Bytes>) -> Bytes {
        self.legacy(TxKind::Call(to), 0, input)
    }
}

/// The words as call data.
fn words(words: &[U256]) -> Bytes {
    words.iter().flat_map(|word| word.to_be_bytes::<32>()).collect::<Vec<u8>>().into()
}
