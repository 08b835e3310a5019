//! The accounts whose keys everybody knows: those of a mnemonic (BIP-39, BIP-32 and BIP-44).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use bip39::Mnemonic;
use hmac::{Hmac, KeyInit, Mac};
use secp256k1::{All, Message, PublicKey, Scalar, Secp256k1, SecretKey};
use sha2::Sha512;

use crate::config::ConfigError;

/// The mnemonic that Ethereum's tools know.
pub const MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Where its keys stand: `m/44'/60'/0'/0/`, and then the number of the account.
pub const DERIVATION_PATH: &str = "m/44'/60'/0'/0/";

const HARDENED: u32 = 1 << 31;
const BRANCH: [u32; 4] = [44 | HARDENED, 60 | HARDENED, HARDENED, 0];

static CURVE: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Accounts with their keys.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    addresses: Vec<Address>,
    keys: BTreeMap<Address, SecretKey>,
}

/// A key of BIP-32, and what makes others of it.
struct Node {
    key: SecretKey,
    chain_code: [u8; 32],
}

impl Node {
    /// Half of a hash is the key or what is added to it, half the chain code.
    fn halves(hash: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
        let (left, right) = hash.split_at(32);
        let half = |bytes: &[u8]| {
            let mut half = [0; 32];
            half.copy_from_slice(bytes);
            half
        };
        (half(left), half(right))
    }

    fn of_seed(seed: &[u8]) -> Result<Self, secp256k1::Error> {
        let (key, chain_code) = Self::halves(&authenticate(b"Bitcoin seed", &[seed]));
        Ok(Self { key: SecretKey::from_byte_array(key)?, chain_code })
    }

    fn child(&self, index: u32) -> Result<Self, secp256k1::Error> {
        let number = index.to_be_bytes();
        let hash = match index & HARDENED {
            0 => {
                let public = PublicKey::from_secret_key(&CURVE, &self.key).serialize();
                authenticate(&self.chain_code, &[&public, &number])
            }
            _ => authenticate(&self.chain_code, &[&[0], &self.key.secret_bytes(), &number]),
        };
        let (tweak, chain_code) = Self::halves(&hash);
        let tweak = Scalar::from_be_bytes(tweak).map_err(|_| secp256k1::Error::InvalidTweak)?;
        Ok(Self { key: self.key.add_tweak(&tweak)?, chain_code })
    }
}

fn authenticate(key: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl Accounts {
    /// The first `count` accounts of a mnemonic.
    ///
    /// # Errors
    /// [`ConfigError::Mnemonic`] if it is none.
    pub fn of_mnemonic(phrase: &str, count: u32) -> Result<Self, ConfigError> {
        let bad = |reason: String| ConfigError::Mnemonic { reason };
        let mnemonic = Mnemonic::parse_normalized(phrase).map_err(|e| bad(e.to_string()))?;
        let derive = || {
            let root = Node::of_seed(&mnemonic.to_seed_normalized(""))?;
            let branch = BRANCH.iter().try_fold(root, |node, index| node.child(*index))?;
            (0..count).map(|index| Ok(branch.child(index)?.key)).collect()
        };
        let keys: Result<Vec<SecretKey>, secp256k1::Error> = derive();
        let keys = keys.map_err(|error| bad(error.to_string()))?;
        let addresses: Vec<Address> = keys.iter().map(address).collect();
        Ok(Self { keys: addresses.iter().copied().zip(keys).collect(), addresses })
    }

    /// The addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The private key of an account.
    #[must_use]
    pub fn key(&self, address: &Address) -> Option<B256> {
        Some(B256::new(self.keys.get(address)?.secret_bytes()))
    }

    /// The signature of an account under a hash, if its key is known.
    #[must_use]
    pub fn sign(&self, address: &Address, hash: B256) -> Option<Signature> {
        let key = self.keys.get(address)?;
        let signature = CURVE.sign_ecdsa_recoverable(Message::from_digest(hash.0), key);
        let (recovery, bytes) = signature.serialize_compact();
        let (r, s) = bytes.split_at(32);
        let odd = i32::from(recovery) & 1 == 1;
        Some(Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), odd))
    }
}

fn address(key: &SecretKey) -> Address {
    let public = PublicKey::from_secret_key(&CURVE, key).serialize_uncompressed();
    Address::from_slice(&keccak256(&public[1..])[12..])
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, b256};

    use super::*;

    #[test]
    fn the_known_mnemonic_has_the_known_accounts() {
        let accounts = Accounts::of_mnemonic(MNEMONIC, 10).unwrap();
        let first = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert_eq!(accounts.addresses()[0], first);
        let key = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        assert_eq!(accounts.key(&first), Some(key));
        let last = address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720");
        assert_eq!(accounts.addresses()[9], last);
        let key = b256!("2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6");
        assert_eq!(accounts.key(&last), Some(key));
    }

    #[test]
    fn a_mnemonic_with_a_wrong_word_is_none() {
        let phrase = MNEMONIC.replace("junk", "test");
        assert!(matches!(Accounts::of_mnemonic(&phrase, 1), Err(ConfigError::Mnemonic { .. })));
        assert!(matches!(Accounts::of_mnemonic("x y z", 1), Err(ConfigError::Mnemonic { .. })));
    }

    #[test]
    fn signatures_are_those_of_the_account() {
        let accounts = Accounts::of_mnemonic(MNEMONIC, 3).unwrap();
        for address in accounts.addresses() {
            for byte in 0..20 {
                let hash = keccak256([byte]);
                let signature = accounts.sign(address, hash).unwrap();
                assert_eq!(signature.recover_address_from_prehash(&hash).unwrap(), *address);
            }
        }
        assert_eq!(accounts.sign(&Address::ZERO, B256::ZERO), None);
    }
}
