//! Errors as JSON-RPC has them, in the codes and words of Ethereum's nodes.

use alloy_primitives::hex;
use parsec_ethereum::{QueryError, revert_reason};
use serde::Serialize;
use serde_json::Value;

use crate::backend::Refused;
use crate::chain::ChainError;

/// The JSON can't be read.
pub const PARSE_ERROR: i32 = -32700;
/// The JSON is no request.
pub const INVALID_REQUEST: i32 = -32600;
/// There is no such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The parameters are not those of the method.
pub const INVALID_PARAMS: i32 = -32602;
/// Something failed that is not the caller's fault.
pub const INTERNAL_ERROR: i32 = -32603;
/// What Ethereum's nodes say of everything that went wrong and has no other code.
pub const SERVER_ERROR: i32 = -32000;
/// The answer would be longer than is allowed.
pub const RESPONSE_TOO_LARGE: i32 = -32003;
/// The caller, or all callers together, ask for too much.
pub const LIMIT_EXCEEDED: i32 = -32005;
/// A call reverted; the data says why.
pub const REVERTED: i32 = 3;

/// An error as JSON-RPC has it.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// What kind of error it is, for programs.
    pub code: i32,
    /// What went wrong, for people, and for programs that look for Ethereum's usual words.
    pub message: String,
    /// More, where there is more: the data of a revert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl RpcError {
    /// An error with a code and a message.
    #[must_use]
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// An error with the code that Ethereum's nodes use where they have no other.
    #[must_use]
    pub fn server(message: impl Into<String>) -> Self {
        Self::new(SERVER_ERROR, message)
    }

    /// Parameters are wrong.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// A limit is exceeded.
    #[must_use]
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(LIMIT_EXCEEDED, message)
    }

    /// There is no such method.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        let shown: String = method.chars().take(64).collect();
        let message = format!("the method {shown} does not exist/is not available");
        Self::new(METHOD_NOT_FOUND, message)
    }

    /// A call reverted with that data.
    #[must_use]
    pub fn reverted(data: &[u8]) -> Self {
        let message = match revert_reason(data) {
            Some(reason) => format!("execution reverted: {reason}"),
            None => "execution reverted".into(),
        };
        Self { code: REVERTED, message, data: Some(Value::String(hex::encode_prefixed(data))) }
    }

    /// A call was halted, for a reason in the words of Ethereum's nodes. It returned nothing, and
    /// says so as a revert does: test suites look there.
    #[must_use]
    pub fn halted(reason: impl Into<String>) -> Self {
        Self::server(reason).with_data("0x")
    }

    /// With more data.
    #[must_use]
    pub fn with_data(self, data: impl Into<Value>) -> Self {
        Self { data: Some(data.into()), ..self }
    }
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        // Says nothing about directories to whoever asks.
        tracing::error!(%error, "the index of blocks can't be read");
        Self::new(INTERNAL_ERROR, "the index of blocks can't be read")
    }
}

impl From<QueryError> for RpcError {
    fn from(error: QueryError) -> Self {
        match &error {
            QueryError::Reverted(data) => Self::reverted(data),
            QueryError::Halted(reason) => Self::halted(reason),
            QueryError::Refused { code, message } => Self::new(*code, message),
            _ => Self::server(error.to_string()),
        }
    }
}

impl From<Refused> for RpcError {
    fn from(refused: Refused) -> Self {
        Self::server(refused.detail)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;

    /// The selectors of what Solidity reverts with.
    const ERROR_SELECTOR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
    const PANIC_SELECTOR: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

    fn word(number: u64) -> Vec<u8> {
        U256::from(number).to_be_bytes::<32>().to_vec()
    }

    #[test]
    fn reasons_are_read() {
        let text = [word(32), word(5), b"sorry".to_vec(), vec![0; 27]].concat();
        let data = [&ERROR_SELECTOR[..], &text].concat();
        let error = RpcError::reverted(&data);
        assert_eq!(error.message, "execution reverted: sorry");
        assert_eq!(error.data, Some(Value::String(hex::encode_prefixed(&data))));
        let panic = |code| RpcError::reverted(&[&PANIC_SELECTOR[..], &word(code)].concat()).message;
        assert_eq!(panic(0x11), "execution reverted: arithmetic underflow or overflow");
        assert_eq!(panic(0x77), "execution reverted: unknown panic code: 0x77");
    }

    #[test]
    fn what_was_halted_says_that_it_returned_nothing() {
        let error = RpcError::from(QueryError::Halted("out of gas".into()));
        assert_eq!((error.code, &*error.message), (SERVER_ERROR, "out of gas"));
        assert_eq!(error.data, Some("0x".into()));
    }

    #[test]
    fn what_is_no_reason_is_none() {
        for content in [
            vec![],
            word(32),
            [word(32), word(6), b"sorry".to_vec()].concat(),
            [word(u64::MAX), word(5)].concat(),
            vec![0xff; 64],
        ] {
            let data = [&ERROR_SELECTOR[..], &content].concat();
            assert_eq!(RpcError::reverted(&data).message, "execution reverted");
        }
        assert_eq!(RpcError::reverted(&[1, 2, 3]).message, "execution reverted");
    }
}
