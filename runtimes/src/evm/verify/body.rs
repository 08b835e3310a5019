//! Decoding a block.

use alloy_consensus::proofs::calculate_withdrawals_root;
use alloy_consensus::{Header, Transaction as _};
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Decodable, Header as RlpHeader};
use bytes::Bytes;
use parsec_protocol::ErrorCode;
use revm::primitives::hardfork::SpecId;

use super::error::{Reason, holds, same_header};
use crate::evm::block::transactions_root;
use crate::evm::forks::Fork;
use crate::evm::payload::{self, SignedTransaction};

/// Longest block from Osaka on, bytes (EIP-7934).
const BLOCK_BYTES_MAX: usize = 10 * 1_024 * 1_024 - 2 * 1_024 * 1_024;
/// The first byte from which on RLP means a list.
const FIRST_OF_LISTS: u8 = 0xc0;

/// A decoded block.
pub(super) struct Body {
    pub(super) header: Header,
    pub(super) raw_header: Bytes,
    pub(super) hash: B256,
    pub(super) transactions: Vec<BodyTransaction>,
    pub(super) ommers: Vec<Ommer>,
    pub(super) withdrawals: Option<Vec<(Withdrawal, Bytes)>>,
    /// The hash of the list of ommers.
    ommers_hash: B256,
    /// The length of all of it, bytes.
    bytes: usize,
}

pub(super) struct BodyTransaction {
    pub(super) raw: Bytes,
    pub(super) signed: SignedTransaction,
}

pub(super) struct Ommer {
    pub(super) raw: Bytes,
    pub(super) header: Header,
}

/// The first item of some bytes, with its head, and what comes after it.
pub(super) fn item(bytes: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let mut rest = bytes;
    let head = RlpHeader::decode(&mut rest)?;
    let rest = rest.get(head.payload_length..).ok_or(alloy_rlp::Error::InputTooShort)?;
    Ok(bytes.split_at(bytes.len() - rest.len()))
}

/// The items of a list, which must be all of `bytes`.
fn items(bytes: &[u8]) -> Result<Vec<&[u8]>, Reason> {
    let mut rest = bytes;
    let mut list = RlpHeader::decode_bytes(&mut rest, true)?;
    if !rest.is_empty() {
        return Err(Reason::Malformed(format!("{} bytes follow a list", rest.len())));
    }
    let mut all = Vec::new();
    while !list.is_empty() {
        let (one, rest) = item(list)?;
        all.push(one);
        list = rest;
    }
    Ok(all)
}

/// The hash of a block's header; of all of its bytes if it has none.
pub(super) fn hash_of(raw: &[u8]) -> B256 {
    let header = items(raw).ok().and_then(|items| items.first().copied());
    keccak256(header.unwrap_or(raw))
}

/// Decodes what must be all of `bytes`, in the one way that it is encoded.
fn exactly<T: Decodable + alloy_rlp::Encodable>(what: &str, bytes: &[u8]) -> Result<T, Reason> {
    let malformed = |detail: String| Reason::Malformed(format!("{what}: {detail}"));
    let mut rest = bytes;
    let value = T::decode(&mut rest).map_err(|error| malformed(error.to_string()))?;
    match rest.is_empty() && alloy_rlp::encode(&value) == bytes {
        true => Ok(value),
        false => Err(malformed("it is encoded in another way than it should be".to_owned())),
    }
}

impl Body {
    pub(super) fn decode(raw: &[u8]) -> Result<Self, Reason> {
        let parts = items(raw)?;
        let (header, transactions, ommers, withdrawals) = match parts[..] {
            [header, transactions, ommers] => (header, transactions, ommers, None),
            [header, transactions, ommers, last] => (header, transactions, ommers, Some(last)),
            _ => return Err(Reason::Malformed(format!("a list of {} parts", parts.len()))),
        };
        let ommer = |raw: &[u8]| {
            Ok(Ommer { raw: Bytes::copy_from_slice(raw), header: exactly("an ommer", raw)? })
        };
        let withdrawal =
            |raw: &[u8]| Ok((exactly("a withdrawal", raw)?, Bytes::copy_from_slice(raw)));
        let withdrawals = withdrawals.map(|list| {
            items(list)?.into_iter().map(withdrawal).collect::<Result<Vec<_>, Reason>>()
        });
        let transactions = items(transactions)?.into_iter().enumerate();
        Ok(Self {
            header: exactly("the header", header)?,
            raw_header: Bytes::copy_from_slice(header),
            hash: keccak256(header),
            transactions: transactions
                .map(|(index, item)| BodyTransaction::decode(index, item))
                .collect::<Result<_, _>>()?,
            ommers: items(ommers)?.into_iter().map(ommer).collect::<Result<_, Reason>>()?,
            withdrawals: withdrawals.transpose()?,
            ommers_hash: keccak256(ommers),
            bytes: raw.len(),
        })
    }

    /// Makes sure that the header is that of this block.
    pub(super) fn check(&self, fork: &Fork) -> Result<(), Reason> {
        let since = |first| fork.spec.is_enabled_in(first);
        let header = &self.header;
        if since(SpecId::OSAKA) && self.bytes > BLOCK_BYTES_MAX {
            return Err(Reason::TooLong(self.bytes));
        }
        let raw: Vec<Bytes> = self.transactions.iter().map(|tx| tx.raw.clone()).collect();
        same_header("transactions root", transactions_root(&raw), header.transactions_root)?;
        same_header("ommers hash", self.ommers_hash, header.ommers_hash)?;
        let has = self.withdrawals.is_some();
        if has != since(SpecId::SHANGHAI) {
            let detail = format!("withdrawals: {has}, in {}", fork.name());
            return Err(Reason::Malformed(detail));
        }
        if let Some(withdrawals) = &self.withdrawals {
            let all: Vec<Withdrawal> = withdrawals.iter().map(|(one, _)| *one).collect();
            let root = header.withdrawals_root.unwrap_or_default();
            same_header("withdrawals root", calculate_withdrawals_root(&all), root)?;
        }
        self.check_blobs(fork)
    }

    fn check_blobs(&self, fork: &Fork) -> Result<(), Reason> {
        let (Some(blobs), Some(said)) = (fork.blobs, self.header.blob_gas_used) else {
            return Ok(());
        };
        let hashes = |tx: &BodyTransaction| tx.signed.blob_versioned_hashes().map_or(0, <[_]>::len);
        let count: usize = self.transactions.iter().map(hashes).sum();
        let used = u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(DATA_GAS_PER_BLOB);
        let most = blobs.max_blob_gas_per_block();
        holds("blob gas used", used <= most, format!("at most {most}"), used)?;
        same_header("blob gas used", used, said)
    }
}

impl BodyTransaction {
    /// Decodes a transaction: a typed one is a string in the list, a legacy one a list of its own.
    fn decode(index: usize, item: &[u8]) -> Result<Self, Reason> {
        let mut rest = item;
        let raw = match item.first() {
            Some(FIRST_OF_LISTS..) => item,
            _ => RlpHeader::decode_bytes(&mut rest, false)?,
        };
        let refused = |code: ErrorCode, detail| Reason::Transaction { index, code, detail };
        let signed = payload::decode(raw)
            .and_then(|signed| payload::check_canonical(&signed, raw).map(|()| signed))
            .map_err(|rejection| refused(rejection.code, rejection.detail))?;
        let is_list = raw.first().is_some_and(|first| *first >= FIRST_OF_LISTS);
        if is_list != (raw.len() == item.len()) {
            let detail = "a legacy transaction in a string".to_owned();
            return Err(refused(ErrorCode::Malformed, detail));
        }
        Ok(Self { raw: Bytes::copy_from_slice(raw), signed })
    }
}
