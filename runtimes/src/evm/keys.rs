//! The keys under which the Ethereum state stands, and the encodings of their values.
//!
//! | namespace | key | value |
//! |---|---|---|
//! | `20` partitioned | address | balance (32 bytes), then the nonce (8 bytes) unless it is zero |
//! | `21` partitioned | address, incarnation (8), slot (32) | the word without leading zero bytes |
//! | `22` replicated | address | code hash (32), incarnation (8) |
//! | `23` replicated | code hash | code |
//! | `24` replicated | none | [`ChainParams`](super::params::ChainParams) |
//! | `25` replicated | none | [`BlockHashes`] |
//!
//! Numbers are big-endian. What equals its default is absent: a word of zero, a code record
//! without code in incarnation 0. The balance comes first so that an addition to an account record
//! adds to it. The *incarnation* of an address grows when a contract at it destroys itself, which
//! leaves the slots of the old incarnation behind unreachable instead of having to name them all.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use parsec_protocol::{Key, Namespace, Value};

const ACCOUNT: Namespace = Namespace::partitioned(0x20);
const STORAGE: Namespace = Namespace::partitioned(0x21);
const CODE_RECORD: Namespace = Namespace::replicated(0x22);
const CODE: Namespace = Namespace::replicated(0x23);
const PARAMS: Namespace = Namespace::replicated(0x24);
const BLOCK_HASHES: Namespace = Namespace::replicated(0x25);

/// How many of the last blocks have a hash that transactions may ask for.
pub const BLOCK_HASHES_MAX: usize = 256;

const BALANCE_BYTES: usize = 32;
const RECORD_BYTES: usize = 40;

/// The key of the balance and nonce of `address`.
#[must_use]
pub fn account(address: &Address) -> Key {
    key(ACCOUNT, &[address.as_slice()])
}

/// The key of the code hash and incarnation of `address`.
#[must_use]
pub fn code_record(address: &Address) -> Key {
    key(CODE_RECORD, &[address.as_slice()])
}

/// The key of the code whose Keccak-256 hash is `hash`.
#[must_use]
pub fn code(hash: &B256) -> Key {
    key(CODE, &[hash.as_slice()])
}

/// The key of one word of the storage of `address`.
#[must_use]
pub fn storage(address: &Address, incarnation: u64, slot: U256) -> Key {
    let slot: [u8; 32] = slot.to_be_bytes();
    key(STORAGE, &[address.as_slice(), &incarnation.to_be_bytes(), &slot])
}

/// The address, incarnation and slot that a storage key names; `None` for any other key.
#[must_use]
pub fn storage_parts(key: &Key) -> Option<(Address, u64, B256)> {
    if key.namespace() != STORAGE {
        return None;
    }
    let (address, rest) = key.bytes().split_first_chunk::<20>()?;
    let (incarnation, slot) = rest.split_first_chunk::<8>()?;
    Some((Address::from(address), u64::from_be_bytes(*incarnation), B256::try_from(slot).ok()?))
}

/// The address whose balance and nonce a key is that of; `None` for any other key.
#[must_use]
pub fn account_address(key: &Key) -> Option<Address> {
    if key.namespace() == ACCOUNT { Address::try_from(key.bytes()).ok() } else { None }
}

/// The address whose code hash and incarnation a key is that of; `None` for any other key.
#[must_use]
pub fn code_record_address(key: &Key) -> Option<Address> {
    if key.namespace() == CODE_RECORD { Address::try_from(key.bytes()).ok() } else { None }
}

/// Whether it is the key of the code of contracts.
#[must_use]
pub fn is_code(key: &Key) -> bool {
    key.namespace() == CODE
}

/// Whether it is the key of a word of storage.
#[must_use]
pub fn is_storage(key: &Key) -> bool {
    key.namespace() == STORAGE
}

/// Whether it is the key of the balance and nonce of an account.
#[must_use]
pub fn is_account(key: &Key) -> bool {
    key.namespace() == ACCOUNT
}

/// The key of the chain's parameters.
#[must_use]
pub fn params() -> Key {
    key(PARAMS, &[])
}

/// The key of the hashes of the last blocks, as far as somebody wanted to know them.
#[must_use]
pub fn block_hashes() -> Key {
    key(BLOCK_HASHES, &[])
}

fn key(namespace: Namespace, parts: &[&[u8]]) -> Key {
    Key::with_affinity(namespace, 0, parts).expect("60 bytes at most, well under KEY_BYTES_MAX")
}

/// A value that is not in its encoding: the state is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} of {bytes} bytes")]
pub struct BadValue {
    what: &'static str,
    bytes: usize,
}

/// The balance and nonce of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountRecord {
    /// What it owns, wei.
    pub balance: U256,
    /// How many transactions it sent, or contracts it created.
    pub nonce: u64,
}

impl AccountRecord {
    /// The value that says so.
    #[must_use]
    pub fn encode(&self) -> Value {
        let balance: [u8; BALANCE_BYTES] = self.balance.to_be_bytes();
        match self.nonce {
            0 => Value::copy_from_slice(&balance),
            nonce => [&balance[..], &nonce.to_be_bytes()].concat().into(),
        }
    }

    /// What the value says.
    ///
    /// # Errors
    /// [`BadValue`] if it is no account record.
    pub fn decode(value: &[u8]) -> Result<Self, BadValue> {
        let bad = BadValue { what: "account record", bytes: value.len() };
        let (balance, nonce) = value.split_at_checked(BALANCE_BYTES).ok_or_else(|| bad.clone())?;
        let nonce = match nonce {
            [] => 0,
            nonce => u64::from_be_bytes(nonce.try_into().map_err(|_| bad)?),
        };
        Ok(Self { balance: U256::from_be_slice(balance), nonce })
    }
}

/// The code hash and incarnation of an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodeRecord {
    /// The Keccak-256 hash of its code, if it has some.
    pub hash: Option<B256>,
    /// How many contracts have destroyed themselves at this address.
    pub incarnation: u64,
}

impl CodeRecord {
    /// The value that says so; none if there is nothing to say.
    #[must_use]
    pub fn encode(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        let hash = self.hash.unwrap_or(KECCAK256_EMPTY);
        Some([hash.as_slice(), &self.incarnation.to_be_bytes()].concat().into())
    }

    /// What the value says, or its absence.
    ///
    /// # Errors
    /// [`BadValue`] if it is no code record.
    pub fn decode(value: Option<&Value>) -> Result<Self, BadValue> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let bytes: &[u8; RECORD_BYTES] = value[..]
            .try_into()
            .map_err(|_| BadValue { what: "code record", bytes: value.len() })?;
        let (hash, incarnation) = bytes.split_at(B256::len_bytes());
        let hash = B256::from_slice(hash);
        let mut number = [0; 8];
        number.copy_from_slice(incarnation);
        Ok(Self {
            hash: (hash != KECCAK256_EMPTY).then_some(hash),
            incarnation: u64::from_be_bytes(number),
        })
    }
}

/// The hashes of the last blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockHashes {
    /// The number of the last of them.
    pub last: u64,
    /// The hashes, ascending by number, without gaps; at most [`BLOCK_HASHES_MAX`].
    pub hashes: Vec<B256>,
}

impl BlockHashes {
    /// The hash of a block; none if it is not among these.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<B256> {
        let back = usize::try_from(self.last.checked_sub(number)?).ok()?;
        self.hashes.iter().nth_back(back).copied()
    }

    /// The value that says so: the number, then the hashes.
    #[must_use]
    pub fn encode(&self) -> Value {
        let hashes = self.hashes.iter().flat_map(|hash| hash.0);
        self.last.to_be_bytes().into_iter().chain(hashes).collect()
    }

    /// What the value says.
    ///
    /// # Errors
    /// [`BadValue`] if it is no list of hashes.
    pub fn decode(value: &[u8]) -> Result<Self, BadValue> {
        let bad = || BadValue { what: "list of block hashes", bytes: value.len() };
        let (last, hashes) = value.split_first_chunk().ok_or_else(bad)?;
        let (hashes, []) = hashes.as_chunks::<32>() else { return Err(bad()) };
        if hashes.len() > BLOCK_HASHES_MAX {
            return Err(bad());
        }
        let hashes = hashes.iter().copied().map(B256::new).collect();
        Ok(Self { last: u64::from_be_bytes(*last), hashes })
    }
}

/// The value of a word of storage; none if it is zero.
#[must_use]
pub fn encode_word(word: U256) -> Option<Value> {
    (!word.is_zero()).then(|| Value::from(word.to_be_bytes_trimmed_vec()))
}

/// The word of storage that a value says, or its absence.
///
/// # Errors
/// [`BadValue`] if it is no word.
pub fn decode_word(value: Option<&Value>) -> Result<U256, BadValue> {
    let value = value.map_or(&[][..], |value| &value[..]);
    U256::try_from_be_slice(value).ok_or(BadValue { what: "storage word", bytes: value.len() })
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Delta;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn account_records_come_back(balance: [u8; 32], nonce: u64) {
            let record = AccountRecord { balance: U256::from_be_bytes(balance), nonce };
            prop_assert_eq!(AccountRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn an_addition_to_an_account_record_adds_to_the_balance(a: u64, b: u64, nonce: u64) {
            let record = AccountRecord { balance: U256::from(a), nonce };
            let sum = Delta::from(i128::from(b)).apply(Some(&record.encode())).unwrap();
            let expected = AccountRecord { balance: U256::from(a) + U256::from(b), nonce };
            prop_assert_eq!(AccountRecord::decode(&sum), Ok(expected));
        }

        #[test]
        fn code_records_come_back(hash: Option<[u8; 32]>, incarnation: u64) {
            let record = CodeRecord { hash: hash.map(B256::new), incarnation };
            prop_assert_eq!(CodeRecord::decode(record.encode().as_ref()), Ok(record));
        }

        #[test]
        fn words_come_back(word: [u8; 32]) {
            let word = U256::from_be_bytes(word);
            prop_assert_eq!(decode_word(encode_word(word).as_ref()), Ok(word));
        }
    }

    #[test]
    fn block_hashes_come_back_and_are_found() {
        let hashes: Vec<_> = (1..=3).map(B256::repeat_byte).collect();
        let known = BlockHashes { last: 9, hashes };
        assert_eq!(BlockHashes::decode(&known.encode()), Ok(known.clone()));
        let found = [6, 7, 8, 9, 10].map(|number| known.get(number));
        let [one, two, three] = [1, 2, 3].map(B256::repeat_byte).map(Some);
        assert_eq!(found, [None, one, two, three, None]);
        assert_eq!(BlockHashes::default().get(0), None);
        for bytes in [0, 7, 9, 39, 8 + 32 * 257] {
            assert!(BlockHashes::decode(&vec![0; bytes]).is_err(), "{bytes}");
        }
    }

    #[test]
    fn defaults_are_absent_and_encodings_canonical() {
        assert_eq!(CodeRecord::default().encode(), None);
        assert_eq!(encode_word(U256::ZERO), None);
        assert_eq!(encode_word(U256::from(0x0102)).unwrap()[..], [1, 2]);
        assert_eq!(AccountRecord::default().encode().len(), 32);
        let mined = AccountRecord { balance: U256::from(7), nonce: 0 };
        assert_eq!(Delta::from(7).apply(None), Some(mined.encode()));
    }

    #[test]
    fn damaged_values_are_refused() {
        assert!(AccountRecord::decode(&[0; 31]).is_err());
        assert!(AccountRecord::decode(&[0; 39]).is_err());
        assert!(CodeRecord::decode(Some(&Value::from_static(&[0; 41]))).is_err());
        assert!(decode_word(Some(&Value::from_static(&[1; 33]))).is_err());
    }

    #[test]
    fn only_code_and_parameters_are_replicated() {
        let address = Address::repeat_byte(1);
        assert!(!account(&address).is_replicated());
        assert!(!storage(&address, 0, U256::ZERO).is_replicated());
        assert!(code_record(&address).is_replicated());
        assert!(code(&B256::ZERO).is_replicated());
        assert!(params().is_replicated());
        assert!(block_hashes().is_replicated());
    }
}
