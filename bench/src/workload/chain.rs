//! What all signed Ethereum workloads have in common: accounts, transactions that pay nothing for
//! their gas, and footprints that are declared.

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, TxKind, U256};
use bytes::Bytes;
use parsec_protocol::{RuntimeId, Transaction, Value};
use parsec_runtimes::evm::keys::AccountRecord;

use super::{LoadTransaction, Workload};
use crate::account::Account;
use crate::draw::BadWorkload;
use crate::twin::Twin;

/// Gas of a deployment; the largest takes under two millions.
pub(super) const DEPLOY_GAS: u64 = 3_000_000;

/// A transaction that is not signed yet.
#[derive(Debug, Clone)]
pub(super) struct Unsigned {
    pub(super) nonce: u64,
    pub(super) gas: u64,
    pub(super) to: TxKind,
    pub(super) value: U256,
    pub(super) input: Bytes,
}

impl Unsigned {
    /// A call without Ether.
    pub(super) fn call(nonce: u64, gas: u64, to: Address, input: Bytes) -> Self {
        Self { nonce, gas, to: TxKind::Call(to), value: U256::ZERO, input }
    }

    /// The deployment of a contract.
    pub(super) fn create(nonce: u64, input: Bytes) -> Self {
        Self { nonce, gas: DEPLOY_GAS, to: TxKind::Create, value: U256::ZERO, input }
    }

    /// The transaction. It pays nothing for its gas, so that nobody needs Ether for that.
    pub(super) fn sign(self, chain_id: u64, by: &Account) -> Transaction {
        let Self { nonce, gas: gas_limit, to, value, input } = self;
        let input = input.into();
        let unsigned =
            TxEip1559 { chain_id, nonce, gas_limit, to, value, input, ..TxEip1559::default() };
        Transaction::new(RuntimeId::EVM, by.sign(unsigned))
    }
}

/// One who signs, and all of whose transactions have to keep their order.
pub(super) fn ordered(sender: u32, transaction: Transaction) -> LoadTransaction {
    LoadTransaction { sender: Some(sender), transaction }
}

/// What finds the footprints that are to be declared: a twin on which the workload is set up.
///
/// # Errors
/// [`BadWorkload::Twin`] if its setup fails there.
pub(super) fn declaring(workload: &dyn Workload, chain_id: u64) -> Result<Twin, BadWorkload> {
    let mut twin = Twin::new(chain_id);
    let failed = |error: crate::twin::Failure| BadWorkload::Twin { reason: error.to_string() };
    twin.set_up(workload).map_err(failed)?;
    Ok(twin)
}

/// Declares the footprints of transactions, each of the account that its sender's number tells.
///
/// # Panics
/// If a trial on the twin fails, which has all values at hand.
pub(super) fn declare(twin: &Twin, load: &mut [LoadTransaction], accounts: &[Account]) {
    let address = |sender| accounts[super::payments::index(sender)].address();
    twin.declare(load, address).expect("a trial with all values at hand ends");
}

/// The nonce in an account's record; zero if there is none.
pub(super) fn nonce(record: Option<&Value>) -> Option<u64> {
    match record {
        Some(record) => AccountRecord::decode(record).ok().map(|record| record.nonce),
        None => Some(0),
    }
}
