//! Calls, as requests describe them.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;
use parsec_ethereum::QueryError;
use revm::Database;
use revm::context::TxEnv;
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::context_interface::either::Either;
use revm::context_interface::transaction::TransactionType;

use super::machine::{Machine, Terms};
use crate::evm::payload;

/// What a request says of the price of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fees {
    /// The most that is paid for a unit of gas, wei.
    max: u128,
    /// What of it is for the coinbase; none if the price is one number.
    priority: Option<u128>,
}

/// The terms on which a call is executed that nobody signed: it may come from anyone, with any
/// nonce, and where it offers no price, there is none.
///
/// # Errors
/// [`QueryError::Invalid`] if its fields contradict each other.
pub(super) fn terms(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
) -> Result<Terms, QueryError> {
    let mut tx = transaction(machine, request)?;
    tx.gas_limit = gas_limit(machine, request, &tx)?;
    let mut terms = machine.terms(tx);
    let cfg = &mut terms.cfg;
    cfg.disable_nonce_check = true;
    cfg.disable_eip3607 = true;
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    if is_free(&terms.tx) {
        cfg.disable_base_fee = true;
        terms.block.basefee = 0;
    }
    if terms.tx.max_fee_per_blob_gas == 0 {
        free_blobs(&mut terms);
    }
    Ok(terms)
}

/// Whether no price is offered.
pub(super) fn is_free(tx: &TxEnv) -> bool {
    tx.gas_price == 0 && tx.gas_priority_fee.unwrap_or_default() == 0
}

/// Lets blobs cost nothing.
pub(super) fn free_blobs(terms: &mut Terms) {
    if let Some(blobs) = terms.block.blob_excess_gas_and_price {
        terms.block.blob_excess_gas_and_price =
            Some(BlobExcessGasAndPrice { blob_gasprice: 0, ..blobs });
    }
}

/// The gas that a call has: what it asks for, or else as much as its block has and its sender can
/// pay for, and never more than is allowed.
fn gas_limit(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
    tx: &TxEnv,
) -> Result<u64, QueryError> {
    let max = machine.rules.gas_max;
    if let Some(gas) = request.gas {
        return Ok(gas.min(max));
    }
    Ok(affordable(machine, tx)?.map_or(max, |gas| gas.min(max)))
}

/// The gas that the sender can pay for, beside the value and blobs; none if gas has no price.
pub(super) fn affordable(machine: &mut Machine<'_>, tx: &TxEnv) -> Result<Option<u64>, QueryError> {
    if tx.gas_price == 0 {
        return Ok(None);
    }
    let account = machine.world().basic(tx.caller).map_err(|stop| stop.0)?;
    let balance = account.map_or(U256::ZERO, |account| account.balance);
    let left = balance.saturating_sub(tx.value).saturating_sub(blob_cost(tx));
    Ok(Some(u64::try_from(left / U256::from(tx.gas_price)).unwrap_or(u64::MAX)))
}

/// The most that the blobs of a transaction may cost, wei.
pub(super) fn blob_cost(tx: &TxEnv) -> U256 {
    const GAS_PER_BLOB: u64 = 131_072;
    let gas = U256::from(GAS_PER_BLOB).saturating_mul(U256::from(tx.blob_hashes.len()));
    gas.saturating_mul(U256::from(tx.max_fee_per_blob_gas))
}

/// What the machine is to execute, without a gas limit.
pub(super) fn transaction(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
) -> Result<TxEnv, QueryError> {
    check_chain(machine, request)?;
    let fees = fees(request)?;
    let blob_hashes = blob_hashes(request);
    let caller = request.from.unwrap_or_default();
    Ok(TxEnv {
        tx_type: kind(request, &fees, &blob_hashes).into(),
        caller,
        gas_limit: 0,
        gas_price: fees.max,
        kind: request.to.unwrap_or(TxKind::Create),
        value: request.value.unwrap_or_default(),
        data: input(request)?,
        nonce: nonce(machine, request, caller)?,
        chain_id: Some(machine.rules.cfg.chain_id),
        access_list: request.access_list.clone().unwrap_or_default(),
        gas_priority_fee: fees.priority,
        blob_hashes,
        max_fee_per_blob_gas: request.max_fee_per_blob_gas.unwrap_or_default(),
        authorization_list: request
            .authorization_list
            .iter()
            .flatten()
            .map(|signed| Either::Right(payload::authorization(signed)))
            .collect(),
    })
}

fn check_chain(machine: &Machine<'_>, request: &TransactionRequest) -> Result<(), QueryError> {
    let ours = machine.rules.cfg.chain_id;
    match request.chain_id {
        Some(id) if id != ours => {
            let reason = format!("chainId does not match node's (have={id}, want={ours})");
            Err(QueryError::Invalid(reason))
        }
        _ => Ok(()),
    }
}

fn fees(request: &TransactionRequest) -> Result<Fees, QueryError> {
    let TransactionRequest { gas_price, max_fee_per_gas, max_priority_fee_per_gas, .. } = request;
    let dynamic = max_fee_per_gas.is_some() || max_priority_fee_per_gas.is_some();
    match gas_price {
        Some(_) if dynamic => Err(QueryError::Invalid(
            "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified".to_owned(),
        )),
        Some(price) => Ok(Fees { max: *price, priority: None }),
        None => {
            let max = max_fee_per_gas.unwrap_or_default();
            let priority = dynamic.then(|| max_priority_fee_per_gas.unwrap_or_default());
            Ok(Fees { max, priority })
        }
    }
}

fn blob_hashes(request: &TransactionRequest) -> Vec<B256> {
    match (&request.blob_versioned_hashes, &request.sidecar) {
        (Some(hashes), _) => hashes.clone(),
        (None, Some(sidecar)) => sidecar.versioned_hashes().collect(),
        (None, None) => Vec::new(),
    }
}

/// The least type of transaction that has all that the request names.
fn kind(request: &TransactionRequest, fees: &Fees, blobs: &[B256]) -> TransactionType {
    if request.authorization_list.is_some() {
        TransactionType::Eip7702
    } else if !blobs.is_empty() || request.blob_versioned_hashes.is_some() {
        TransactionType::Eip4844
    } else if fees.priority.is_some() {
        TransactionType::Eip1559
    } else if request.access_list.is_some() {
        TransactionType::Eip2930
    } else {
        TransactionType::Legacy
    }
}

fn input(request: &TransactionRequest) -> Result<Bytes, QueryError> {
    match request.input.unique_input() {
        Ok(input) => Ok(input.cloned().unwrap_or_default()),
        Err(_) => Err(QueryError::Invalid(
            "both \"data\" and \"input\" are set and not equal. Please use \"input\" to pass \
             transaction call data"
                .to_owned(),
        )),
    }
}

fn nonce(
    machine: &mut Machine<'_>,
    request: &TransactionRequest,
    caller: Address,
) -> Result<u64, QueryError> {
    if let Some(nonce) = request.nonce {
        return Ok(nonce);
    }
    let account = machine.world().basic(caller).map_err(|stop| stop.0)?;
    Ok(account.map_or(0, |account| account.nonce))
}
