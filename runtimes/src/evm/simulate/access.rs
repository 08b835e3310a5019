//! The access list that a call should have.

use alloy_primitives::U256;
use alloy_rpc_types_eth::{AccessListResult, TransactionRequest};
use parsec_ethereum::QueryError;
use revm::context_interface::transaction::TransactionType;
use revm_inspectors::access_list::AccessListInspector;

use super::call;
use super::machine::Machine;
use super::request;

/// How often a call is executed to see whether a longer list changes what it touches.
const ROUNDS_MAX: usize = 16;

/// The addresses and slots that a call touches, when it is given them as its access list.
///
/// # Errors
/// [`QueryError::Invalid`] if the call is, [`QueryError::Unsupported`] if it touches other things
/// whatever it is given.
pub(super) fn list(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
) -> Result<AccessListResult, QueryError> {
    let mut terms = request::terms(machine, request)?;
    if terms.tx.tx_type == u8::from(TransactionType::Legacy) {
        terms.tx.tx_type = TransactionType::Eip2930.into();
    }
    for _ in 0..ROUNDS_MAX {
        let inspector = AccessListInspector::new(terms.tx.access_list.clone());
        let (result, inspector) = machine.inspect(&terms, inspector);
        let result = result.map_err(|error| error.of_call(terms.tx.gas_limit))?.result;
        let list = inspector.into_access_list();
        if list == terms.tx.access_list {
            return Ok(AccessListResult {
                access_list: list,
                gas_used: U256::from(result.tx_gas_used()),
                error: call::error(&result),
            });
        }
        terms.tx.access_list = list;
    }
    Err(QueryError::Unsupported(format!(
        "what the call touches still changes after {ROUNDS_MAX} rounds"
    )))
}
