//! Calls, and the least gas that they need.

use alloy_primitives::{TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;
use parsec_ethereum::query::CallFailure;
use parsec_ethereum::{CallResult, QueryError};
use revm::Database;
use revm::context::TxEnv;
use revm::context::result::{ExecutionResult, ResultGas};
use revm::context_interface::Cfg;
use revm::context_interface::result::HaltReason;

use super::machine::{Machine, Terms};
use super::request;
use super::words::{self, Failure};

/// The gas of a transaction that does nothing.
const TRANSACTION_GAS: u64 = 21_000;

/// The gas that a call with value gets on top.
const STIPEND: u64 = 2_300;

/// The gas that an estimate spends on being exact. After that, it may be too high by one part in
/// [`ESTIMATE_PARTS`].
const ESTIMATE_GAS: u64 = 100_000_000;
const ESTIMATE_PARTS: u64 = 64;

/// What a call does.
pub(super) fn call(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
) -> Result<CallResult, QueryError> {
    let terms = request::terms(machine, request)?;
    let result = machine.execute(&terms).map_err(|error| error.of_call(terms.tx.gas_limit))?;
    Ok(outcome(result.result))
}

/// What an execution did, as a call.
pub(super) fn outcome(result: ExecutionResult) -> CallResult {
    let gas_used = result.tx_gas_used();
    let failure = failure(&result);
    CallResult { output: result.into_output().unwrap_or_default(), gas_used, failure }
}

fn failure(result: &ExecutionResult) -> Option<CallFailure> {
    match result {
        ExecutionResult::Success { .. } => None,
        ExecutionResult::Revert { .. } => Some(CallFailure::Reverted),
        ExecutionResult::Halt { reason, .. } => Some(CallFailure::Halted(words::halted(reason))),
    }
}

/// Why an execution did not succeed, in words.
pub(super) fn error(result: &ExecutionResult) -> Option<String> {
    match result {
        ExecutionResult::Success { .. } => None,
        ExecutionResult::Revert { .. } => Some("execution reverted".to_owned()),
        ExecutionResult::Halt { reason, .. } => Some(words::halted(reason)),
    }
}

/// The least gas limit with which a call succeeds.
pub(super) fn estimate(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
) -> Result<u64, QueryError> {
    let mut terms = request::terms(machine, request)?;
    let most = most_gas(machine, request, &terms.tx)?;
    if is_transfer(machine, &terms.tx)? && attempt(machine, &mut terms, TRANSACTION_GAS)?.is_some()
    {
        return Ok(TRANSACTION_GAS);
    }
    let first = run(machine, &mut terms, most)?;
    let Some(first) = first else {
        return Err(exceeds(most));
    };
    let gas = match first {
        ExecutionResult::Success { gas, .. } => gas,
        ExecutionResult::Revert { output, .. } => return Err(QueryError::Reverted(output)),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => return Err(exceeds(most)),
        ExecutionResult::Halt { reason, .. } => {
            return Err(QueryError::Halted(words::halted(&reason)));
        }
    };
    search(machine, &mut terms, &gas, most)
}

fn exceeds(gas: u64) -> QueryError {
    QueryError::Invalid(format!("gas required exceeds allowance ({gas})"))
}

/// The most gas that a transaction like the call might have.
fn most_gas(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
    tx: &TxEnv,
) -> Result<u64, QueryError> {
    let max = machine.rules.gas_max;
    let mut most = request.gas.filter(|gas| *gas >= TRANSACTION_GAS).map_or(max, |g| g.min(max));
    most = most.min(machine.rules.cfg.tx_gas_limit_cap());
    let Some(affordable) = request::affordable(machine, tx)? else {
        return Ok(most);
    };
    let balance = machine.world().basic(tx.caller).map_err(|stop| stop.0)?;
    let balance = balance.map_or(U256::ZERO, |account| account.balance);
    if !tx.value.is_zero() && tx.value >= balance {
        return Err(QueryError::Invalid("insufficient funds for transfer".to_owned()));
    }
    Ok(most.min(affordable))
}

/// Whether the call only moves value to somebody without code.
fn is_transfer(machine: &mut Machine<'_>, tx: &TxEnv) -> Result<bool, QueryError> {
    let TxKind::Call(to) = tx.kind else {
        return Ok(false);
    };
    let account = machine.world().basic(to).map_err(|stop| stop.0)?;
    let has_code = account.is_some_and(|account| !account.is_empty_code_hash());
    Ok(tx.data.is_empty() && !has_code)
}

/// Finds the least gas limit between what an execution used and what it had.
fn search(
    machine: &mut Machine<'_>,
    terms: &mut Terms,
    gas: &ResultGas,
    most: u64,
) -> Result<u64, QueryError> {
    // What was spent before refunds bounds what is needed from below, but for contracts that look
    // at the gas they have.
    let spent = gas.total_gas_spent().max(gas.floor_gas());
    let mut spare = ESTIMATE_GAS;
    if spent < most && attempt(machine, terms, spent)?.is_some() {
        return Ok(spent);
    }
    let (mut low, mut high) = (spent, most.max(spent));
    // What the callee of the last call may have needed to be left with.
    let likely = spent.saturating_add(STIPEND).saturating_mul(64) / 63;
    if likely < high {
        match attempt(machine, terms, likely)? {
            Some(_) => high = likely,
            None => low = likely,
        }
    }
    while low + 1 < high && (spare > 0 || high - low > high / ESTIMATE_PARTS) {
        // Most need not much more than they use.
        let middle = (low + (high - low) / 2).min(low.saturating_mul(2));
        spare = spare.saturating_sub(middle);
        match attempt(machine, terms, middle)? {
            Some(_) => high = middle,
            None => low = middle,
        }
    }
    Ok(high)
}

/// Whether the call succeeds with that gas limit.
fn attempt(
    machine: &mut Machine<'_>,
    terms: &mut Terms,
    gas: u64,
) -> Result<Option<()>, QueryError> {
    Ok(run(machine, terms, gas)?.filter(ExecutionResult::is_success).map(drop))
}

/// Executes the call with that gas limit; none if that is too low to begin.
fn run(
    machine: &mut Machine<'_>,
    terms: &mut Terms,
    gas: u64,
) -> Result<Option<ExecutionResult>, QueryError> {
    terms.tx.gas_limit = gas;
    match machine.execute(terms) {
        Ok(result) => Ok(Some(result.result)),
        Err(failure) if failure.wants_gas() => Ok(None),
        Err(Failure::Invalid(_, reason)) => {
            Err(QueryError::Invalid(format!("failed with {gas} gas: {reason}")))
        }
        Err(Failure::Query(error)) => Err(error),
    }
}
