//! Signed Ethereum transactions.

use std::sync::LazyLock;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use parsec_runtimes::evm::SignedTransaction;
use secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

const CHAIN_ID: u64 = 0xcbdc;

fn signature(hash: B256) -> Signature {
    let secret = SecretKey::from_byte_array([7; 32]).unwrap();
    let digest = Message::from_digest(hash.0);
    let (parity, scalars) = SIGNER.sign_ecdsa_recoverable(digest, &secret).serialize_compact();
    Signature::from_bytes_and_parity(&scalars, i32::from(parity) & 1 == 1)
}

fn signed<T>(transaction: T) -> Vec<u8>
where
    T: SignableTransaction<Signature>,
    SignedTransaction: From<alloy_consensus::Signed<T>>,
{
    let signature = signature(transaction.signature_hash());
    SignedTransaction::from(transaction.into_signed(signature)).encoded_2718()
}

fn access_list() -> AccessList {
    let address = Address::repeat_byte(0xcc);
    let storage_keys = vec![B256::repeat_byte(1), B256::repeat_byte(2)];
    AccessList(vec![AccessListItem { address, storage_keys }])
}

/// A legacy transaction.
pub(crate) fn legacy(to: TxKind, input: &Bytes, chain_id: Option<u64>) -> Vec<u8> {
    let (nonce, gas_price, gas_limit) = (1, 7, 100_000);
    let (input, value) = (input.clone(), U256::from(9));
    signed(TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input })
}

/// A transaction of type 2, as wallets send them.
pub(crate) fn usual(to: TxKind, input: &Bytes, nonce: u64) -> Vec<u8> {
    signed(TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        to,
        input: input.clone(),
        ..TxEip1559::default()
    })
}

/// A transaction of each type.
pub(crate) fn all(to: TxKind, input: &Bytes) -> Vec<(&'static str, Vec<u8>)> {
    let callee = to.to().copied().unwrap_or_default();
    let listed = TxEip2930 {
        chain_id: CHAIN_ID,
        to,
        input: input.clone(),
        access_list: access_list(),
        ..TxEip2930::default()
    };
    let blobs = TxEip4844 {
        chain_id: CHAIN_ID,
        to: callee,
        access_list: access_list(),
        blob_versioned_hashes: vec![B256::repeat_byte(1)],
        ..TxEip4844::default()
    };
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: callee, nonce: 3 };
    let authorized = signature(authorization.signature_hash());
    let delegating = TxEip7702 {
        chain_id: CHAIN_ID,
        to: callee,
        authorization_list: vec![authorization.into_signed(authorized)],
        ..TxEip7702::default()
    };
    vec![
        ("legacy", legacy(to, input, Some(CHAIN_ID))),
        ("legacy-of-any-chain", legacy(to, input, None)),
        ("type-1", signed(listed)),
        ("type-2", usual(to, input, 3)),
        ("type-3", signed(blobs)),
        ("type-4", signed(delegating)),
    ]
}

/// A transaction of type 2 whose signature is nobody's: predictions don't look at it.
pub(crate) fn unsigned(to: TxKind, input: Bytes) -> Vec<u8> {
    let transaction = TxEip1559 { chain_id: CHAIN_ID, to, input, ..TxEip1559::default() };
    let signature = Signature::new(U256::from(1), U256::from(1), false);
    SignedTransaction::from(transaction.into_signed(signature)).encoded_2718()
}
