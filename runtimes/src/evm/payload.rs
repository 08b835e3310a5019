//! Signed Ethereum transactions: decoding them, and finding out who signed.

use std::sync::LazyLock;

use alloy_consensus::crypto::SECP256K1N_HALF;
use alloy_consensus::transaction::RlpEcdsaDecodableTx;
use alloy_consensus::{EthereumTxEnvelope, Transaction as _, TxEip4844, TxLegacy};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_eips::eip7702::{RecoveredAuthority, RecoveredAuthorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Signature, keccak256};
use parsec_protocol::ErrorCode;
use revm::context::TxEnv;
use revm::context_interface::either::Either;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, Secp256k1, VerifyOnly};

use crate::Rejection;

/// A signed transaction of any type, without the blobs themselves.
pub type SignedTransaction = EthereumTxEnvelope<TxEip4844>;

/// The last type of transaction that Ethereum has.
const TYPE_MAX: u8 = 4;
/// The first byte from which on RLP means a string, and a list.
const FIRST_OF_STRINGS: u8 = 0x80;
const FIRST_OF_LISTS: u8 = 0xc0;

static VERIFIER: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Decodes raw bytes: a type and its RLP (EIP-2718), or the RLP of a legacy transaction.
///
/// # Errors
/// [`ErrorCode::Unsupported`] for a type that Ethereum does not have,
/// [`ErrorCode::BadSignature`] for a `v` that is none, else [`ErrorCode::Malformed`].
pub fn decode(raw: &[u8]) -> Result<SignedTransaction, Rejection> {
    match raw.first() {
        Some(FIRST_OF_LISTS..) => decode_legacy(raw),
        Some(1..=TYPE_MAX) => SignedTransaction::decode_2718_exact(raw)
            .map_err(|error| Rejection::new(ErrorCode::Malformed, error.to_string())),
        Some(kind @ ..FIRST_OF_STRINGS) => {
            Err(Rejection::new(ErrorCode::Unsupported, format!("transactions of type {kind}")))
        }
        _ => Err(Rejection::new(ErrorCode::Malformed, "neither a type nor a list")),
    }
}

/// Makes sure that `raw` is the one encoding of a transaction. Two would be two ids.
pub(super) fn check_canonical(
    transaction: &SignedTransaction,
    raw: &[u8],
) -> Result<(), Rejection> {
    match transaction.encode_2718_len() == raw.len() {
        true => Ok(()),
        false => Err(Rejection::new(ErrorCode::Malformed, "the encoding is not canonical")),
    }
}

fn decode_legacy(mut raw: &[u8]) -> Result<SignedTransaction, Rejection> {
    let signed = TxLegacy::rlp_decode_signed(&mut raw).map_err(|error| match error {
        alloy_rlp::Error::Custom("invalid parity value") => {
            Rejection::new(ErrorCode::BadSignature, "the signature's v is none that exists")
        }
        error => Rejection::new(ErrorCode::Malformed, error.to_string()),
    })?;
    match raw.len() {
        // Not `into`, which would compute the hash.
        0 => Ok(SignedTransaction::Legacy(signed)),
        more => Err(Rejection::new(ErrorCode::Malformed, format!("{more} bytes follow it"))),
    }
}

/// Who signed a transaction. With `any_s`, a signature may be the malleable twin of another, as
/// was allowed before Homestead (EIP-2).
///
/// # Errors
/// [`ErrorCode::BadSignature`] if nobody did.
pub fn signer(transaction: &SignedTransaction, any_s: bool) -> Result<Address, Rejection> {
    recover(transaction.signature(), transaction.signature_hash(), any_s)
        .map_err(|reason| Rejection::new(ErrorCode::BadSignature, reason))
}

fn recover(signature: &Signature, hash: B256, any_s: bool) -> Result<Address, &'static str> {
    if !any_s && signature.s() > SECP256K1N_HALF {
        return Err("the signature's s is in the upper half");
    }
    let mut compact = [0; 64];
    compact[..32].copy_from_slice(&signature.r().to_be_bytes::<32>());
    compact[32..].copy_from_slice(&signature.s().to_be_bytes::<32>());
    let recovery = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let signature = RecoverableSignature::from_compact(&compact, recovery)
        .map_err(|_| "the signature's r or s is out of range")?;
    let public = VERIFIER
        .recover_ecdsa(Message::from_digest(hash.0), &signature)
        .map_err(|_| "the signature is nobody's")?;
    Ok(Address::from_slice(&keccak256(&public.serialize_uncompressed()[1..])[12..]))
}

/// What the machine is to execute.
pub(super) fn environment(transaction: SignedTransaction, caller: Address) -> TxEnv {
    let env = TxEnv {
        tx_type: transaction.tx_type().into(),
        caller,
        gas_limit: transaction.gas_limit(),
        gas_price: transaction.max_fee_per_gas(),
        kind: transaction.kind(),
        value: transaction.value(),
        data: transaction.input().clone(),
        nonce: transaction.nonce(),
        chain_id: transaction.chain_id(),
        access_list: Default::default(),
        gas_priority_fee: transaction.max_priority_fee_per_gas(),
        blob_hashes: transaction.blob_versioned_hashes().unwrap_or_default().to_vec(),
        max_fee_per_blob_gas: transaction.max_fee_per_blob_gas().unwrap_or_default(),
        authorization_list: transaction
            .authorization_list()
            .unwrap_or_default()
            .iter()
            .map(|signed| Either::Right(authorization(signed)))
            .collect(),
    };
    let access_list = match transaction {
        SignedTransaction::Legacy(_) => return env,
        SignedTransaction::Eip2930(tx) => tx.strip_signature().access_list,
        SignedTransaction::Eip1559(tx) => tx.strip_signature().access_list,
        SignedTransaction::Eip4844(tx) => tx.strip_signature().access_list,
        SignedTransaction::Eip7702(tx) => tx.strip_signature().access_list,
    };
    TxEnv { access_list, ..env }
}

pub(super) fn authorization(signed: &SignedAuthorization) -> RecoveredAuthorization {
    let authority =
        authority(signed).map_or(RecoveredAuthority::Invalid, RecoveredAuthority::Valid);
    RecoveredAuthorization::new_unchecked(signed.inner().clone(), authority)
}

/// Who signed an authorization, if anybody did.
fn authority(signed: &SignedAuthorization) -> Option<Address> {
    recover(&signed.signature().ok()?, signed.signature_hash(), false).ok()
}

/// The accounts that a transaction delegates, each with the contract that it delegates to.
pub(super) fn delegations(
    transaction: &SignedTransaction,
) -> impl Iterator<Item = (Address, Address)> {
    let list = transaction.authorization_list().unwrap_or_default();
    list.iter().filter_map(|signed| Some((authority(signed)?, *signed.address())))
}
