//! Why a block is refused.

use std::fmt::{Debug, Display};

use alloy_primitives::B256;
use parsec_protocol::ErrorCode;

use crate::Interrupt;
use crate::evm::keys::BadValue;

/// A block that is not what its header says, or that the rules do not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {number} ({hash}) is refused: {reason}")]
pub struct RefusedBlock {
    /// Its number; that of the block that was due, if it can't be read.
    pub number: u64,
    /// The hash of its header; of all of it, if it can't be read.
    pub hash: B256,
    /// Why.
    pub reason: Reason,
}

/// Why a block is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It is not the RLP of a block, or not the one that there is.
    #[error("it is no block: {0}")]
    Malformed(String),
    /// It is longer than blocks may be (EIP-7934).
    #[error("it has {0} bytes")]
    TooLong(usize),
    /// The header is not what follows from the block before it, or from the block's own content.
    #[error("its {field} is {found}, not {expected}")]
    #[allow(missing_docs, reason = "the message says it")]
    Header { field: &'static str, expected: String, found: String },
    /// One of its ommers may not be there.
    #[error("ommer {index}: {detail}")]
    #[allow(missing_docs, reason = "the message says it")]
    Ommer { index: usize, detail: String },
    /// One of its transactions can't be executed.
    #[error("transaction {index}: {code:?}: {detail}")]
    #[allow(missing_docs, reason = "the message says it")]
    Transaction { index: usize, code: ErrorCode, detail: String },
    /// A system contract is missing or failed, or said what it must not.
    #[error("the contract for {contract}: {detail}")]
    #[allow(missing_docs, reason = "the message says it")]
    System { contract: &'static str, detail: String },
    /// Its execution did not come to what its header says.
    #[error("its {field} is said to be {expected}, and is {found}")]
    #[allow(missing_docs, reason = "the message says it")]
    Result { field: &'static str, expected: String, found: String },
    /// The verifier is broken, or the state that it was given is.
    #[error("it can't be verified: {0}")]
    Broken(String),
}

impl From<BadValue> for Reason {
    fn from(error: BadValue) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Interrupt> for Reason {
    fn from(interrupt: Interrupt) -> Self {
        Self::Broken(format!("{interrupt:?}"))
    }
}

impl From<alloy_rlp::Error> for Reason {
    fn from(error: alloy_rlp::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Refuses a header whose field is not the only one that it can be.
pub(super) fn same_header<T: PartialEq + Display>(
    field: &'static str,
    expected: T,
    found: T,
) -> Result<(), Reason> {
    holds(field, expected == found, expected, found)
}

/// Refuses a header of which something does not hold, that would with `expected`.
pub(super) fn holds(
    field: &'static str,
    holds: bool,
    expected: impl Display,
    found: impl Display,
) -> Result<(), Reason> {
    match holds {
        true => Ok(()),
        false => {
            let (expected, found) = (expected.to_string(), found.to_string());
            Err(Reason::Header { field, expected, found })
        }
    }
}

/// Refuses a block that comes to something else than its header says.
pub(super) fn same_result<T: PartialEq + Debug>(
    field: &'static str,
    expected: T,
    found: T,
) -> Result<(), Reason> {
    match expected == found {
        true => Ok(()),
        false => {
            let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
            Err(Reason::Result { field, expected, found })
        }
    }
}
