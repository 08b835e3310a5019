//! The Ethereum runtime: signed transactions, executed by revm.
//!
//! A payload is the raw bytes of a signed transaction, and its id is their Keccak-256 hash. The
//! state is laid out as [`keys`] says. Three things are unlike a plain Ethereum node, and none of
//! them can be seen by a contract:
//!
//! - **Hollow accounts.** A contract whose balance and nonce a call does not consult is executed
//!   without touching the record that holds them, so that one popular contract is not one hot key.
//! - **Additions.** The coinbase's reward is added to its record, which need not be read, so that
//!   transactions do not conflict by paying the same coinbase. A reward of nothing touches nothing,
//!   except before EIP-161, where it creates the coinbase.
//! - **Incarnations.** A contract that destroys itself leaves its storage behind, out of reach.
//!
//! The hash of a block depends on what became of its transactions, so that BLOCKHASH has to wait for
//! all that comes before: a transaction that uses it has [`keys::block_hashes`] in its footprint, and
//! a sequencer that seals blocks orders it behind a write of the hashes that it may ask for. Without
//! such a sequencer, BLOCKHASH fails like an instruction that does not exist for the last 256 blocks;
//! outside of them it is zero as usual.

mod access_list;
mod answer;
pub mod block;
pub mod chronicle;
pub mod fees;
pub mod forks;
pub mod import;
pub mod keys;
mod overlay;
pub mod params;
pub mod payload;
mod predict;
pub mod simulate;
pub mod trie;
pub mod verify;

mod commit;
mod machine;
mod session;
#[cfg(test)]
mod tests;
mod view;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, keccak256};
use bytes::Bytes;
use parsec_protocol::limits::{FOOTPRINT_KEYS_MAX, PAYLOAD_BYTES_MAX};
use parsec_protocol::{ErrorCode, Key, RuntimeId, Transaction, TxId, Value};

pub use fees::DynamicFee;
pub use forks::{Fork, ForkAt, ForkBegin};
pub use overlay::{Changes, Overlay};
pub use params::{BlobGas, BlockOverride, ChainParams, GenesisAccount, Permits, genesis};
pub use payload::SignedTransaction;
use session::EvmSession;

use crate::access::Source;
use crate::{Admitted, Declared, Predictor, Rejection, Runtime, Session, Snapshot};

/// Longest raw transaction that is admitted from clients, bytes.
pub const TRANSACTION_BYTES_MAX: usize = 128 * 1_024;

/// Most addresses and slots in the access list of a transaction from a client: each becomes a part
/// of its footprint.
pub const ACCESS_LIST_MAX: usize = 1_024;

// An address is up to three keys, and those that every call touches come on top.
const _: () = assert!(3 * ACCESS_LIST_MAX + 16 <= FOOTPRINT_KEYS_MAX);

/// What a word of storage, or a balance, may well be where it is not known: plenty, and true.
const PLENTY: u128 = 1 << 127 | 1;

/// Most authorizations in a transaction from a client (EIP-7702). Each is a signature to check
/// whenever the transaction is executed, and a code record that every partition writes.
pub const AUTHORIZATIONS_MAX: usize = 64;

// The authority's record, its code record and its code, and the code that it delegates to.
const _: () = assert!(3 * ACCESS_LIST_MAX + 5 * AUTHORIZATIONS_MAX + 16 <= FOOTPRINT_KEYS_MAX);

const BLOB_TRANSACTION: u8 = 3;

/// The Ethereum runtime of one chain.
#[derive(Debug, Clone)]
pub struct EvmRuntime {
    chain_id: u64,
    import: bool,
}

impl EvmRuntime {
    /// The runtime of the chain with that id.
    #[must_use]
    pub fn new(chain_id: u64) -> Self {
        Self { chain_id, import: false }
    }

    /// A runtime that also admits what only occurs in blocks of other chains: transactions with
    /// blobs (without their content), signatures from before EIP-2, any number of authorizations,
    /// and raw transactions as long as the protocol allows.
    #[must_use]
    pub fn for_import(chain_id: u64) -> Self {
        Self { import: true, ..Self::new(chain_id) }
    }

    /// Refuses blobs, with or without their content: it is for consensus nodes to keep and serve
    /// them, which this chain does not have.
    fn check_kind(&self, raw: &[u8]) -> Result<(), Rejection> {
        match raw.first() {
            Some(&BLOB_TRANSACTION) if !self.import => Err(Rejection::new(
                ErrorCode::Unsupported,
                "transactions of type 3 (EIP-4844) are not accepted: this chain has no consensus \
                 layer that would carry their blobs",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses lists of authorizations that nobody needs.
    fn check_authorizations(&self, transaction: &SignedTransaction) -> Result<(), Rejection> {
        match transaction.authorization_list().map_or(1, <[_]>::len) {
            0 if !self.import => Err(Rejection::new(
                ErrorCode::Malformed,
                "a transaction of type 4 needs at least one authorization",
            )),
            length if length > AUTHORIZATIONS_MAX && !self.import => {
                let detail =
                    format!("{length} authorizations; at most {AUTHORIZATIONS_MAX} are allowed");
                Err(Rejection::new(ErrorCode::TooLarge, detail))
            }
            _ => Ok(()),
        }
    }

    /// Refuses access lists that would make a footprint too long.
    fn check_access_list(&self, transaction: &SignedTransaction) -> Result<(), Rejection> {
        match access_list::length(transaction) {
            length if length > ACCESS_LIST_MAX && !self.import => {
                let detail = format!(
                    "an access list of {length} addresses and slots; at most {ACCESS_LIST_MAX} \
                     are allowed"
                );
                Err(Rejection::new(ErrorCode::TooLarge, detail))
            }
            _ => Ok(()),
        }
    }

    fn check_chain(&self, transaction: &SignedTransaction) -> Result<(), Rejection> {
        match transaction.chain_id() {
            Some(id) if id != self.chain_id => {
                let detail = format!("it is signed for chain {id}, this is {}", self.chain_id);
                Err(Rejection::new(ErrorCode::WrongChain, detail))
            }
            None if !transaction.is_legacy() => {
                Err(Rejection::new(ErrorCode::WrongChain, "it is signed for no chain"))
            }
            _ => Ok(()),
        }
    }
}

impl Runtime for EvmRuntime {
    fn id(&self) -> RuntimeId {
        RuntimeId::EVM
    }

    fn admit(&self, transaction: &Transaction) -> Result<Admitted, Rejection> {
        let raw = &transaction.payload;
        if transaction.salt != 0 {
            let detail = "the salt of a signed transaction must be zero";
            return Err(Rejection::new(ErrorCode::Malformed, detail));
        }
        // ORDER: before the length, which blobs alone would exceed.
        self.check_kind(raw)?;
        let limit = if self.import { PAYLOAD_BYTES_MAX } else { TRANSACTION_BYTES_MAX };
        if raw.len() > limit {
            let detail = format!("{} bytes; at most {limit} are allowed", raw.len());
            return Err(Rejection::new(ErrorCode::TooLarge, detail));
        }
        let signed = payload::decode(raw)?;
        payload::check_canonical(&signed, raw)?;
        self.check_chain(&signed)?;
        self.check_access_list(&signed)?;
        self.check_authorizations(&signed)?;
        let sender = payload::signer(&signed, self.import)?;
        Ok(Admitted {
            id: TxId(keccak256(raw).0),
            sender: Bytes::copy_from_slice(sender.as_slice()),
            footprint: None,
        })
    }

    fn likely_keys(&self, sender: &[u8], payload: &Bytes) -> Vec<Key> {
        let mut keys = vec![keys::params()];
        if let Ok(sender) = Address::try_from(sender) {
            keys.extend([keys::account(&sender), keys::code_record(&sender)]);
        }
        let Ok(signed) = payload::decode(payload) else { return keys };
        for (authority, delegate) in payload::delegations(&signed) {
            keys.extend([keys::account(&authority), keys::code_record(&authority)]);
            keys.push(keys::code_record(&delegate));
        }
        if let Some(to) = signed.to() {
            keys.push(keys::code_record(&to));
            // Whoever is called with data is most likely a contract, whose record most calls leave
            // alone.
            if signed.input().is_empty() || !signed.value().is_zero() {
                keys.push(keys::account(&to));
            }
        }
        keys
    }

    fn guess(&self, _: &Key) -> Option<Value> {
        Some([[0; 16], PLENTY.to_be_bytes()].concat().into())
    }

    fn declared(&self, sender: &[u8], payload: &Bytes, source: &dyn Source) -> Declared {
        access_list::declared(sender, payload, source)
    }

    fn predictor(&self) -> Option<Box<dyn Predictor>> {
        Some(Box::new(predict::EvmPredictor::default()))
    }

    fn answer(&self, snapshot: &mut dyn Snapshot, question: &Bytes) -> Result<Bytes, Rejection> {
        answer::answer(self.chain_id, snapshot, question)
    }

    fn session(&self) -> Box<dyn Session> {
        Box::new(EvmSession::new(self.chain_id))
    }
}
