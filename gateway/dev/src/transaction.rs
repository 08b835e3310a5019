//! Transactions as the pool holds them, and what can be said against them without executing them.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256, keccak256};
use bytes::Bytes;
use parsec_ethereum::PoolTransaction;
use parsec_gateway::Refused;
use parsec_protocol::ErrorCode;
use parsec_runtimes::evm::{SignedTransaction, payload};
use revm::primitives::hardfork::SpecId;

/// Least gas that a transaction takes.
const TRANSACTION_GAS: u64 = 21_000;
const CREATE_GAS: u64 = 32_000;
/// Gas of a zero byte of data; another byte counts as four (sixteen gas).
const TOKEN_GAS: u64 = 4;
/// Least gas for each zero byte of data, from Prague on (EIP-7623).
const FLOOR_TOKEN_GAS: u64 = 10;
const INIT_CODE_WORD_GAS: u64 = 2;
const LISTED_ADDRESS_GAS: u64 = 2_400;
const LISTED_SLOT_GAS: u64 = 1_900;
const AUTHORIZATION_GAS: u64 = 25_000;

/// A transaction whose sender is known.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its raw bytes, as a block holds them: without the content of blobs.
    pub(crate) raw: Bytes,
    pub(crate) hash: B256,
    pub(crate) sender: Address,
    pub(crate) nonce: u64,
    pub(crate) gas_limit: u64,
    pub(crate) max_fee: u128,
    pub(crate) max_tip: Option<u128>,
    pub(crate) value: U256,
    pub(crate) max_blob_fee: Option<u128>,
    pub(crate) blob_gas: u64,
    pub(crate) chain_id: Option<u64>,
    /// What it takes in any case.
    intrinsic: Intrinsic,
}

/// What a transaction takes whatever it does, by its parts.
#[derive(Debug, Clone, Copy)]
struct Intrinsic {
    base: u64,
    tokens: u64,
    init_code_words: u64,
}

/// A refusal.
pub(crate) fn refused(code: ErrorCode, detail: impl Into<String>) -> Refused {
    Refused { code, detail: detail.into(), known: None }
}

impl Submission {
    /// Reads a transaction that its sender signed. The costly part is to find out who that is.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn signed(raw: &Bytes) -> Result<Self, Refused> {
        let transaction = read(raw)?;
        let sender = payload::signer(&transaction, false)
            .map_err(|error| refused(error.code, format!("invalid sender: {}", error.detail)))?;
        Ok(Self::new(raw, &transaction, sender))
    }

    /// Reads a transaction that `sender` is taken to have sent, whatever its signature is.
    ///
    /// # Errors
    /// [`Refused`] says what is wrong with it.
    pub fn impersonated(raw: &Bytes, sender: Address) -> Result<Self, Refused> {
        Ok(Self::new(raw, &read(raw)?, sender))
    }

    fn new(raw: &Bytes, transaction: &SignedTransaction, sender: Address) -> Self {
        Self {
            raw: raw.clone(),
            hash: keccak256(raw),
            sender,
            nonce: transaction.nonce(),
            gas_limit: transaction.gas_limit(),
            max_fee: transaction.max_fee_per_gas(),
            max_tip: transaction.max_priority_fee_per_gas(),
            value: transaction.value(),
            max_blob_fee: transaction.max_fee_per_blob_gas(),
            blob_gas: transaction.blob_gas_used().unwrap_or(0),
            chain_id: transaction.chain_id(),
            intrinsic: intrinsic(transaction),
        }
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> Address {
        self.sender
    }

    /// Its type.
    pub(crate) fn kind(&self) -> u8 {
        parsec_runtimes::evm::block::kind(&self.raw).into()
    }

    pub(crate) fn pooled(&self) -> PoolTransaction {
        PoolTransaction {
            hash: self.hash,
            sender: self.sender,
            nonce: self.nonce,
            raw: self.raw.clone(),
        }
    }

    /// What its sender must own for it: the most that it may cost.
    pub(crate) fn cost(&self) -> Option<U256> {
        let gas = U256::from(self.gas_limit) * U256::from(self.max_fee);
        let blobs = U256::from(self.blob_gas) * U256::from(self.max_blob_fee.unwrap_or(0));
        gas.checked_add(blobs)?.checked_add(self.value)
    }

    /// The least gas limit with which it can be executed by the rules of a fork.
    pub(crate) fn least_gas(&self, fork: SpecId) -> u64 {
        let Intrinsic { base, tokens, init_code_words } = self.intrinsic;
        let init_code = match fork.is_enabled_in(SpecId::SHANGHAI) {
            true => init_code_words.saturating_mul(INIT_CODE_WORD_GAS),
            false => 0,
        };
        let plain = base.saturating_add(tokens.saturating_mul(TOKEN_GAS)).saturating_add(init_code);
        match fork.is_enabled_in(SpecId::PRAGUE) {
            true => plain.max(TRANSACTION_GAS + tokens.saturating_mul(FLOOR_TOKEN_GAS)),
            false => plain,
        }
    }
}

fn read(raw: &Bytes) -> Result<SignedTransaction, Refused> {
    payload::decode(raw)
        .map_err(|error| refused(error.code, format!("Failed to decode transaction: {error}")))
}

fn intrinsic(transaction: &SignedTransaction) -> Intrinsic {
    let input = transaction.input();
    let zeros = input.iter().filter(|byte| **byte == 0).count() as u64;
    let tokens = zeros + 4 * (input.len() as u64 - zeros);
    let creates = transaction.kind().is_create();
    let list = transaction.access_list();
    let (addresses, slots) = list.map_or((0, 0), |list| {
        (list.len() as u64, list.iter().map(|item| item.storage_keys.len() as u64).sum())
    });
    let authorizations = transaction.authorization_list().map_or(0, |list| list.len() as u64);
    Intrinsic {
        base: TRANSACTION_GAS
            + if creates { CREATE_GAS } else { 0 }
            + LISTED_ADDRESS_GAS * addresses
            + LISTED_SLOT_GAS * slots
            + AUTHORIZATION_GAS * authorizations,
        tokens,
        init_code_words: if creates { (input.len() as u64).div_ceil(32) } else { 0 },
    }
}
