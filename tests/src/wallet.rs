//! Someone who signs Ethereum transactions.

use std::sync::LazyLock;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, Signature, TxKind, U256};
use bytes::Bytes;
use parsec_protocol::{RuntimeId, Transaction};
use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, SignOnly};

static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// Gas of each transaction: enough to deploy a token.
const GAS: u64 = 3_000_000;

/// An account that pays nothing for its gas, and signs with consecutive nonces.
#[derive(Debug)]
pub struct Wallet {
    secret: SecretKey,
    chain_id: u64,
    nonce: u64,
}

impl Wallet {
    /// The account with that number.
    #[must_use]
    pub fn new(number: u64, chain_id: u64) -> Self {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let secret = SecretKey::from_byte_array(bytes).unwrap();
        Self { secret, chain_id, nonce: 0 }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        let public = PublicKey::from_secret_key(&SIGNER, &self.secret).serialize_uncompressed();
        Address::from_raw_public_key(&public[1..])
    }

    /// The address of the contract that its next transaction creates, if it creates one.
    #[must_use]
    pub fn next_contract(&self) -> Address {
        self.address().create(self.nonce)
    }

    /// Its next transaction: a creation if `to` is none.
    pub fn sign(&mut self, to: Option<Address>, input: Bytes) -> Transaction {
        let nonce = self.nonce;
        self.nonce += 1;
        self.sign_at(nonce, to, input)
    }

    /// A transaction with that nonce.
    #[must_use]
    pub fn sign_at(&self, nonce: u64, to: Option<Address>, input: Bytes) -> Transaction {
        let transaction = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: GAS,
            to: to.map_or(TxKind::Create, TxKind::Call),
            value: U256::ZERO,
            input: input.into(),
            ..TxEip1559::default()
        };
        let digest = Message::from_digest(transaction.signature_hash().0);
        let (parity, scalars) =
            SIGNER.sign_ecdsa_recoverable(digest, &self.secret).serialize_compact();
        let signature = Signature::from_bytes_and_parity(&scalars, i32::from(parity) & 1 == 1);
        let mut raw = Vec::new();
        transaction.into_signed(signature).eip2718_encode(&mut raw);
        Transaction::new(RuntimeId::EVM, raw)
    }
}
