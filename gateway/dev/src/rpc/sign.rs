//! Signing with the keys of the known accounts.

use alloy_dyn_abi::TypedData;
use alloy_primitives::{Address, B256, Bytes, eip191_hash_message};
use parsec_gateway::rpc::{Param, RpcError};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Family;
use super::request::no_signer;
use crate::backend::DevBackend;

/// Typed data (EIP-712), as an object or as the text of one.
struct Typed(TypedData);

impl Param for Typed {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let read = match value {
            Value::String(text) => serde_json::from_str(&text),
            value => serde_json::from_value(value),
        };
        read.map(Self).map_err(|error| error.to_string())
    }
}

/// What is to be signed: bytes, or text that is not hexadecimal.
struct Content(Vec<u8>);

impl Param for Content {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let text: String = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let bytes = text.parse::<Bytes>().ok().filter(|_| text.starts_with("0x"));
        Ok(Self(bytes.map_or_else(|| text.into_bytes(), Vec::from)))
    }
}

pub(super) fn add(family: &mut Family) {
    family.act(
        &["eth_sign"],
        async |backend: DevBackend, (address, content): (Address, Content)| {
            sign(&backend, &address, eip191_hash_message(content.0))
        },
    );
    family.act(
        &["personal_sign"],
        async |backend: DevBackend, (content, address, _): (Content, Address, Option<String>)| {
            sign(&backend, &address, eip191_hash_message(content.0))
        },
    );
    family.act(
        &["eth_signTypedData", "eth_signTypedData_v3", "eth_signTypedData_v4"],
        async |backend: DevBackend, (address, data): (Address, Typed)| {
            let hash = data.0.eip712_signing_hash();
            let hash = hash.map_err(|error| RpcError::invalid_params(error.to_string()))?;
            sign(&backend, &address, hash)
        },
    );
}

fn sign(backend: &DevBackend, address: &Address, hash: B256) -> Result<Bytes, RpcError> {
    let signature = backend.accounts().sign(address, hash).ok_or_else(no_signer)?;
    Ok(signature.as_bytes().into())
}
