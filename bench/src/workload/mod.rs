//! Workloads: what is set up, what is sent while the clock runs, and what must be true afterwards.
//!
//! Payments between random accounts are there in the manner of each runtime, so that runtimes can
//! be compared: no account ever runs out of funds, whatever the order, so that all payments commit
//! and each account's last balance is known before the first payment is sent. The others are what
//! databases and chains are usually measured with.
//!
//! A [`WorkloadSpec`] names a workload with all of its knobs; [`cached`] opens it and builds its
//! first load, or takes what was built before from the disk.

mod audit;
mod cache;
mod erc20;
mod lua_pay;
mod name;
mod native_transfer;
mod payments;
mod spec;
mod spread;

use std::sync::LazyLock;

use parsec_protocol::{ErrorCode, Transaction};
use rkyv::{Archive, Deserialize, Serialize};
use secp256k1::{Secp256k1, SignOnly};

use crate::draw;

pub use audit::{Audit, AuditFailure, Commits};
pub use cache::{Prepared, cached};
pub use erc20::{Erc20, Erc20Options};
pub use lua_pay::{LuaPay, LuaPayOptions};
pub use name::WorkloadName;
pub use native_transfer::NativeTransfer;
pub use payments::{AMOUNT_MAX, BALANCE_START, PaymentOptions};
pub use spec::{FootprintFrom, WorkloadSpec};
pub use spread::Spread;

/// A transaction to send, and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LoadTransaction {
    /// Transactions with the same number must be ordered as they stand in their list: they are
    /// those of one sender, with consecutive nonces. The others may take any order.
    pub sender: Option<u32>,
    /// What to send.
    pub transaction: Transaction,
}

/// A part of a setup. All of its transactions have their receipts before the next stage begins.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What it does, in a few words, for people.
    pub purpose: &'static str,
    /// What to send.
    pub transactions: Vec<LoadTransaction>,
    /// What a transaction may answer instead of committing, because someone did it before.
    pub tolerated: Option<ErrorCode>,
}

/// Told how many transactions are built so far.
pub type BuildProgress<'a> = &'a (dyn Fn(usize) + Sync);

/// A workload. It is a function of its options, the seed among them.
pub trait Workload: Send {
    /// What it is called in reports, with what matters of its options.
    fn name(&self) -> String;

    /// What is sent before the clock starts, stage by stage.
    fn setup(&self) -> Vec<Stage>;

    /// Builds the next `count` transactions of the load. Two calls give together what one call
    /// for both counts would have given.
    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction>;

    /// Goes on as if the next `count` transactions were built.
    fn skip(&mut self, count: usize) {
        drop(self.build(count, &|_| {}));
    }

    /// Which of the transactions built so far revert though nothing is wrong.
    fn reverts(&self) -> Reverts {
        Reverts::Never
    }

    /// How many of the transactions built so far touch several partitions, where that was
    /// [chosen](Spread).
    fn multi_partition(&self) -> Option<u64> {
        None
    }

    /// What the state must be after what was built so far.
    fn audit(&self) -> Audit;
}

/// Which transactions of a workload revert though nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverts {
    /// None.
    Never,
    /// So many, whatever the order: it belongs to the workload.
    Exactly(u64),
    /// Any of them may with this code, depending on the order.
    Perhaps(ErrorCode),
}

/// Makes all signatures: by BIP-340 and RFC 6979 without randomness, so that they are always the
/// same.
pub(crate) static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// A salt of its own for each transaction of a seed: runs with different seeds share no ids.
fn salt(seed: u64, purpose: &str, number: u64) -> u128 {
    let mut salt = [0; 16];
    salt.copy_from_slice(&draw::bytes32(seed, purpose, number)[..16]);
    u128::from_be_bytes(salt)
}

#[cfg(test)]
mod spread_tests;
#[cfg(test)]
mod tests;
