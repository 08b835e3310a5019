//! Accounts that sign Ethereum transactions.

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, Signature};
use secp256k1::{Message, PublicKey, SecretKey};

use crate::draw;
use crate::workload::SIGNER;

/// Someone who signs.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    secret: SecretKey,
    address: Address,
}

impl Account {
    /// The account with that number, for that purpose.
    #[must_use]
    pub fn derive(seed: u64, purpose: &str, number: u64) -> Self {
        let bytes = draw::bytes32(seed, purpose, number);
        let secret =
            SecretKey::from_byte_array(bytes).expect("all but one in 2^127 hashes are secret keys");
        Self::new(secret)
    }

    /// The account with that secret key.
    #[must_use]
    pub fn new(secret: SecretKey) -> Self {
        let public = PublicKey::from_secret_key(&SIGNER, &secret).serialize_uncompressed();
        Self { secret, address: Address::from_raw_public_key(&public[1..]) }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The signed transaction, as it is sent.
    #[must_use]
    pub fn sign(&self, transaction: TxEip1559) -> Vec<u8> {
        let digest = Message::from_digest(transaction.signature_hash().0);
        let (parity, scalars) =
            SIGNER.sign_ecdsa_recoverable(digest, &self.secret).serialize_compact();
        let signature = Signature::from_bytes_and_parity(&scalars, i32::from(parity) & 1 == 1);
        let mut raw = Vec::with_capacity(192);
        transaction.into_signed(signature).eip2718_encode(&mut raw);
        raw
    }
}
