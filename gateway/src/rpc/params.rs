//! The parameters of a call.

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::RpcError;
use super::quantity::{self, BlockId, BlockTag, into_type};

/// Something that a method takes as a parameter.
pub trait Param: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn read(raw: &RawValue) -> Result<Self, String>;

    /// What it is where the parameter is missing or null; nothing if it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// All parameters of a method: a tuple of [`Param`]s.
pub trait Params: Sized {
    /// Reads them.
    ///
    /// # Errors
    /// [`INVALID_PARAMS`](super::INVALID_PARAMS), in the words of geth.
    fn read(params: Option<&RawValue>) -> Result<Self, RpcError>;
}

/// The items of the array that parameters must be. None at all is an empty one.
fn items(params: Option<&RawValue>, most: usize) -> Result<Vec<&RawValue>, RpcError> {
    let text = params.map_or("null", |params| params.get().trim());
    if text == "null" {
        return Ok(Vec::new());
    }
    if !text.starts_with('[') {
        return Err(RpcError::invalid_params("non-array args"));
    }
    let items: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| RpcError::invalid_params(format!("invalid parameters: {error}")))?;
    match items.len() <= most {
        true => Ok(items),
        false => {
            let message = format!("too many arguments, want at most {most}");
            Err(RpcError::invalid_params(message))
        }
    }
}

fn item<T: Param>(items: &[&RawValue], index: usize) -> Result<T, RpcError> {
    match items.get(index).filter(|raw| raw.get() != "null") {
        Some(raw) => T::read(raw).map_err(|reason| {
            RpcError::invalid_params(format!("invalid argument {index}: {reason}"))
        }),
        None => T::absent().ok_or_else(|| {
            RpcError::invalid_params(format!("missing value for required argument {index}"))
        }),
    }
}

impl Params for () {
    fn read(params: Option<&RawValue>) -> Result<Self, RpcError> {
        items(params, 0).map(drop)
    }
}

macro_rules! tuple {
    ($count:literal: $($name:ident $index:literal),*) => {
        impl<$($name: Param),*> Params for ($($name,)*) {
            fn read(params: Option<&RawValue>) -> Result<Self, RpcError> {
                let items = items(params, $count)?;
                Ok(($(item::<$name>(&items, $index)?,)*))
            }
        }
    };
}

tuple!(1: A 0);
tuple!(2: A 0, B 1);
tuple!(3: A 0, B 1, C 2);
tuple!(4: A 0, B 1, C 2, D 3);

impl<T: Param> Param for Option<T> {
    fn read(raw: &RawValue) -> Result<Self, String> {
        T::read(raw).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A parameter that is any JSON of a type.
#[derive(Debug, Clone, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> Param for Json<T> {
    fn read(raw: &RawValue) -> Result<Self, String> {
        serde_json::from_str(raw.get()).map(Self).map_err(|error| error.to_string())
    }
}

/// A number that may also be written as a JSON number, or in decimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u64);

impl Param for Count {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let number = match value(raw)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => match text.strip_prefix("0x") {
                Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                    u64::from_str_radix(digits, 16).ok()
                }
                Some(_) => None,
                None if text.starts_with('+') => None,
                None => text.parse().ok(),
            },
            _ => None,
        };
        number.map(Self).ok_or_else(|| "expected a whole number of 64 bits".into())
    }
}

fn value(raw: &RawValue) -> Result<Value, String> {
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

fn text<T>(raw: &RawValue, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    match raw.get().starts_with('"') {
        true => serde_json::from_str::<std::borrow::Cow<'_, str>>(raw.get())
            .map_err(|error| error.to_string())
            .and_then(|text| read(&text)),
        false => Err("expected a string".into()),
    }
}

macro_rules! read_from_text {
    ($($kind:ty: $read:expr),* $(,)?) => {
        $(impl Param for $kind {
            fn read(raw: &RawValue) -> Result<Self, String> {
                text(raw, $read)
            }
        })*
    };
}

read_from_text! {
    String: |text| Ok(text.to_owned()),
    u64: |text| quantity::number(text).map_err(|why| into_type(&why, "hexutil.Uint64")),
    U256: |text| quantity::quantity(text).map_err(|why| into_type(&why, "hexutil.Big")),
    Bytes: |text| quantity::bytes(text).map_err(|why| into_type(&why, "hexutil.Bytes")),
    B256: quantity::hash,
    Address: quantity::address,
}

impl Param for BlockTag {
    fn read(raw: &RawValue) -> Result<Self, String> {
        Self::of(&value(raw)?)
    }
}

impl Param for BlockId {
    fn read(raw: &RawValue) -> Result<Self, String> {
        Self::parse(&value(raw)?)
    }
}

impl Param for bool {
    fn read(raw: &RawValue) -> Result<Self, String> {
        match raw.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false".into()),
        }
    }
}

impl<T: Param> Param for Vec<T> {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let items: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        items.into_iter().map(T::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<P: Params>(text: &str) -> Result<P, String> {
        let raw = RawValue::from_string(text.into()).unwrap();
        P::read(Some(&raw)).map_err(|error| {
            assert_eq!(error.code, super::super::INVALID_PARAMS);
            error.message
        })
    }

    #[test]
    fn parameters_may_be_missing_where_they_are_optional() {
        type Optional = (Option<u64>, Option<bool>);
        for text in ["[]", "null", "[null]", "[null,null]"] {
            assert_eq!(read::<Optional>(text), Ok((None, None)), "{text}");
        }
        assert_eq!(read::<Optional>("[null,true]"), Ok((None, Some(true))));
        assert!(Optional::read(None).is_ok());
        assert!(<()>::read(None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_geth() {
        let error = |text| read::<(u64, Option<bool>)>(text).unwrap_err();
        assert_eq!(error("[]"), "missing value for required argument 0");
        assert_eq!(error("[null,true]"), "missing value for required argument 0");
        assert_eq!(error("{}"), "non-array args");
        assert_eq!(error("\"x\""), "non-array args");
        assert_eq!(error("[\"0x1\",true,3]"), "too many arguments, want at most 2");
        assert_eq!(
            error("[\"2\"]"),
            "invalid argument 0: json: cannot unmarshal hex string without 0x prefix into Go value \
             of type hexutil.Uint64"
        );
        let tag = read::<(BlockTag,)>("[\"2\"]").unwrap_err();
        assert_eq!(tag, "invalid argument 0: hex string without 0x prefix");
        let hash = format!("[\"1{}1\"]", "0".repeat(62));
        assert_eq!(
            read::<(B256,)>(&hash).unwrap_err(),
            "invalid argument 0: json: cannot unmarshal hex string without 0x prefix into Go value \
             of type common.Hash"
        );
        let short = read::<(B256,)>("[\"0x12\"]").unwrap_err();
        assert_eq!(short, "invalid argument 0: hex string has length 2, want 64 for common.Hash");
        assert_eq!(error("[\"0x1\",1]"), "invalid argument 1: expected true or false");
        assert_eq!(error("[1]"), "invalid argument 0: expected a string");
        assert_eq!(error("[[\"0x1\"]]"), "invalid argument 0: expected a string");
        assert_eq!(read::<()>("[1]").unwrap_err(), "too many arguments, want at most 0");
    }

    #[test]
    fn nesting_does_not_overflow_the_stack() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read::<(Json<Value>,)>(&deep).is_err());
        assert!(read::<(BlockId,)>(&deep).is_err());
        assert!(read::<(Vec<u64>,)>(&deep).is_err());
    }

    #[test]
    fn counts_may_be_numbers() {
        for text in ["[4]", "[\"4\"]", "[\"0x4\"]", "[\"0x04\"]"] {
            assert_eq!(read::<(Count,)>(text), Ok((Count(4),)), "{text}");
        }
        for text in
            ["[-4]", "[\"-4\"]", "[4.5]", "[\"\"]", "[\"0x\"]", "[1e400]", "[true]", "[\"+4\"]"]
        {
            assert!(read::<(Count,)>(text).is_err(), "{text}");
        }
    }
}
