//! Numbers, bytes and blocks as clients write them, refused where geth refuses them and in the
//! same words.

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use serde_json::Value;

/// Reads a quantity: hexadecimal with a prefix, without leading zeros.
///
/// # Errors
/// Says what is wrong with it.
pub fn quantity(text: &str) -> Result<U256, String> {
    let digits = digits(text)?;
    match digits.len() {
        0 => Err("hex string \"0x\"".into()),
        2.. if digits.starts_with('0') => Err("hex number with leading zero digits".into()),
        65.. => Err("hex number > 256 bits".into()),
        _ if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Err("invalid hex string".into())
        }
        _ => U256::from_str_radix(digits, 16).map_err(|_| "invalid hex string".into()),
    }
}

/// Reads a quantity that fits into 64 bits.
///
/// # Errors
/// Says what is wrong with it.
pub fn number(text: &str) -> Result<u64, String> {
    u64::try_from(quantity(text)?).map_err(|_| "hex number > 64 bits".into())
}

/// Reads bytes: hexadecimal with a prefix, two digits each.
///
/// # Errors
/// Says what is wrong with them.
pub fn bytes(text: &str) -> Result<Bytes, String> {
    let digits = digits(text)?;
    match digits.len() % 2 {
        0 => hex::decode(digits).map(Bytes::from).map_err(|_| "invalid hex string".into()),
        _ => Err("hex string of odd length".into()),
    }
}

fn digits(text: &str) -> Result<&str, String> {
    match text {
        "" => Err("empty hex string".into()),
        _ => text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .filter(|digits| !digits.starts_with("0x"))
            .ok_or_else(|| "hex string without 0x prefix".into()),
    }
}

fn fixed<const LENGTH: usize>(text: &str, what: &str) -> Result<[u8; LENGTH], String> {
    let bytes = bytes(text).map_err(|reason| into_type(&reason, what))?;
    let length = bytes.len();
    <[u8; LENGTH]>::try_from(&bytes[..]).map_err(|_| {
        format!("hex string has length {}, want {} for {what}", 2 * length, 2 * LENGTH)
    })
}

/// What Go says of text that is no value of a type: clients and tests look for it.
pub(super) fn into_type(reason: &str, kind: &str) -> String {
    format!("json: cannot unmarshal {reason} into Go value of type {kind}")
}

/// Reads a hash.
///
/// # Errors
/// Says what is wrong with it.
pub fn hash(text: &str) -> Result<B256, String> {
    fixed(text, "common.Hash").map(B256::new)
}

/// Reads an address.
///
/// # Errors
/// Says what is wrong with it.
pub fn address(text: &str) -> Result<Address, String> {
    fixed(text, "common.Address").map(Address::new)
}

/// Reads the key of a storage slot, which may be shorter than 32 bytes.
///
/// # Errors
/// Says what is wrong with it.
pub fn storage_key(text: &str) -> Result<U256, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!("invalid hex in storage key: {text:?}"));
    }
    match digits.len() {
        0 => Ok(U256::ZERO),
        65.. => Err(format!("storage key too long (want at most 32 bytes): {text:?}")),
        _ => U256::from_str_radix(digits, 16)
            .map_err(|_| format!("invalid hex in storage key: {text:?}")),
    }
}

/// A block by its number or by what it is to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTag {
    /// The first.
    Earliest,
    /// The last, which is also the safe and the finalized one: no block is ever undone.
    Latest,
    /// The one that is being made.
    Pending,
    /// The one with that number.
    Number(u64),
}

impl BlockTag {
    /// Reads a tag or a number.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "earliest" => Ok(Self::Earliest),
            "latest" | "safe" | "finalized" => Ok(Self::Latest),
            "pending" => Ok(Self::Pending),
            other => Self::numbered(number(other)?),
        }
    }

    /// Reads a tag or a number, which may also be a JSON number: some tools write it so, and
    /// development chains take it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => {
                let number = number.as_u64().ok_or("a block's number must be a whole number")?;
                Self::numbered(number)
            }
            _ => Err("a block's number must be a string or a number".into()),
        }
    }

    fn numbered(number: u64) -> Result<Self, String> {
        match i64::try_from(number) {
            Ok(_) => Ok(Self::Number(number)),
            Err(_) => Err("block number larger than int64".into()),
        }
    }
}

/// A block by its number, by its hash or by what it is to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockId {
    /// By number or tag.
    Tag(BlockTag),
    /// By hash.
    Hash(B256),
}

impl BlockId {
    /// The latest block.
    pub const LATEST: Self = Self::Tag(BlockTag::Latest);

    /// Reads a tag, number or hash, or an object with one of them (EIP-1898).
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, String> {
        match value {
            // The length of a hash, and of no number.
            Value::String(text) if text.len() == 66 => hash(text).map(Self::Hash),
            Value::String(_) | Value::Number(_) => BlockTag::of(value).map(Self::Tag),
            Value::Object(fields) => {
                let field = |name| fields.get(name).filter(|value| !value.is_null());
                match (field("blockHash"), field("blockNumber")) {
                    (Some(Value::String(text)), None) => hash(text).map(Self::Hash),
                    (None, Some(number)) => BlockTag::of(number).map(Self::Tag),
                    (Some(_), Some(_)) => Err("cannot specify both BlockHash and BlockNumber, \
                                               choose one or the other"
                        .into()),
                    (None, None) => {
                        Err("at least one of blockHash and blockNumber is needed".into())
                    }
                    _ => Err("a block's hash or number must be a string".into()),
                }
            }
            _ => Err("a block must be a string, a number or an object".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_those_that_geth_takes() {
        for (text, expected) in
            [("0x0", 0), ("0x1", 1), ("0XfF", 255), ("0xffffffffffffffff", u64::MAX)]
        {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("", "empty hex string"),
            ("1", "hex string without 0x prefix"),
            ("-0x1", "hex string without 0x prefix"),
            ("0x", "hex string \"0x\""),
            ("0x01", "hex number with leading zero digits"),
            ("0x-1", "invalid hex string"),
            ("0x+1", "invalid hex string"),
            ("0x1_0", "invalid hex string"),
            ("0x 1", "invalid hex string"),
            ("0xé", "invalid hex string"),
            ("0x10000000000000000", "hex number > 64 bits"),
        ] {
            assert_eq!(number(text), Err(expected.into()), "{text}");
        }
        assert_eq!(quantity(&format!("0x{}", "f".repeat(64))), Ok(U256::MAX));
        assert_eq!(quantity(&format!("0x{}", "f".repeat(65))), Err("hex number > 256 bits".into()));
    }

    #[test]
    fn blocks_are_named_in_many_ways() {
        let ones = format!("0x{}", "1".repeat(64));
        let by_hash = BlockId::Hash(B256::repeat_byte(0x11));
        assert_eq!(BlockId::parse(&json!(ones)), Ok(by_hash));
        assert_eq!(
            BlockId::parse(&json!({"blockHash": ones, "requireCanonical": true})),
            Ok(by_hash)
        );
        let seven = BlockId::Tag(BlockTag::Number(7));
        assert_eq!(BlockId::parse(&json!("0x7")), Ok(seven));
        assert_eq!(BlockId::parse(&json!({"blockNumber": "0x7", "blockHash": null})), Ok(seven));
        assert_eq!(BlockId::parse(&json!(7)), Ok(seven));
        assert_eq!(BlockId::parse(&json!({"blockNumber": 7})), Ok(seven));
        assert_eq!(BlockId::parse(&json!("finalized")), Ok(BlockId::LATEST));
        for value in [
            json!(-7),
            json!(7.5),
            json!(u64::MAX),
            json!("7"),
            json!(""),
            json!("0x07"),
            json!("newest"),
            json!(null),
            json!([]),
            json!({}),
            json!({"blockNumber": "0x7", "blockHash": ones}),
            json!({"blockNumber": -7}),
            json!({"blockHash": 7}),
            json!("0x8000000000000000"),
            json!(format!("0x{}", "g".repeat(64))),
            json!(true),
        ] {
            assert!(BlockId::parse(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn storage_keys_may_be_short() {
        assert_eq!(storage_key("0x0"), Ok(U256::ZERO));
        assert_eq!(storage_key("0x00ff"), Ok(U256::from(255)));
        assert_eq!(storage_key("ff"), Ok(U256::from(255)));
        assert_eq!(storage_key("0xasdf"), Err("invalid hex in storage key: \"0xasdf\"".into()));
        assert!(storage_key(&"0".repeat(65)).is_err());
        assert!(storage_key("0x+1").is_err());
    }

    #[test]
    fn bytes_come_in_pairs_of_digits() {
        assert_eq!(bytes("0x"), Ok(Bytes::new()));
        assert_eq!(bytes("0x0aFf"), Ok(Bytes::from_static(&[10, 255])));
        for text in ["", "0aff", "0xabc", "0xzz", "0x0x12", "0x€"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(hash("0x12").is_err());
        assert!(address(&format!("0x{}", "1".repeat(39))).is_err());
    }
}
