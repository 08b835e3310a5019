//! How Ethereum's tools want to see blocks, transactions, receipts and logs: their JSON.

mod block;
mod log;
mod receipt;
mod transaction;

use alloy_primitives::U64;

pub use block::{BlockJson, HeaderJson, Transactions, WithdrawalJson};
pub use log::LogJson;
pub use receipt::ReceiptJson;
pub use transaction::{Mined, TransactionJson};

/// A number as a quantity.
pub(crate) fn quantity(number: impl Into<u64>) -> U64 {
    U64::from(number.into())
}
