//! What the pool has to know of a transaction.

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256, U256, keccak256};
use bytes::Bytes;
use parsec_ethereum::PoolTransaction;

use crate::Transaction;

/// How many transactions a thread decodes before it is somebody else's turn.
const DECODED_AT_ONCE: usize = 32;

/// A signed transaction, as far as the pool has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) hash: B256,
    pub(super) sender: Address,
    pub(super) nonce: u64,
    /// The most that it may cost its sender, wei.
    pub(super) cost: U256,
    /// The most that it offers for a unit of gas, and of that above the base fee, wei.
    pub(super) fee: u128,
    pub(super) tip: u128,
    pub(super) raw: Bytes,
}

impl Signed {
    /// Decodes raw bytes and finds out who signed; `None` if they are no signed transaction.
    fn decode(raw: Bytes) -> Option<Self> {
        let transaction = Transaction::decode_2718_exact(&raw).ok()?;
        let sender = transaction.recover_signer().ok()?;
        let gas = U256::from(transaction.gas_limit());
        let fee = transaction.max_fee_per_gas();
        Some(Self {
            hash: keccak256(&raw),
            sender,
            nonce: transaction.nonce(),
            cost: gas.saturating_mul(U256::from(fee)).saturating_add(transaction.value()),
            fee,
            tip: transaction.max_priority_fee_per_gas().unwrap_or(fee),
            raw,
        })
    }

    /// Decodes transactions on threads that may be kept busy.
    pub(super) async fn decode_all(raw: &[Bytes]) -> Vec<Option<Self>> {
        let decode = |part: &[Bytes]| {
            let part = part.to_vec();
            tokio::task::spawn_blocking(move || part.into_iter().map(Self::decode).collect())
        };
        let parts: Vec<_> = raw.chunks(DECODED_AT_ONCE).map(decode).collect();
        let mut all = Vec::with_capacity(raw.len());
        for part in parts {
            match part.await {
                Ok(decoded) => {
                    let decoded: Vec<_> = decoded;
                    all.extend(decoded);
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        all
    }

    /// The transaction, as it is shown.
    pub(super) fn shown(&self) -> PoolTransaction {
        let Self { hash, sender, nonce, ref raw, .. } = *self;
        PoolTransaction { hash, sender, nonce, raw: raw.clone() }
    }

    /// Whether it offers so much more than another that it may take its place: a tenth, as with
    /// geth.
    pub(super) fn outbids(&self, other: &Self) -> bool {
        let more = |new: u128, old: u128| new >= old.saturating_add(old.div_ceil(10)).max(1);
        more(self.fee, other.fee) && more(self.tip, other.tip)
    }
}
