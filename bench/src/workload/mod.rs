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
mod chain;
mod compute;
mod erc20;
mod ether;
mod lua_pay;
mod name;
mod native_transfer;
mod nft;
mod payments;
mod smallbank;
mod spec;
mod spread;
mod swap;
mod tpcc;
mod ycsb;

use std::sync::LazyLock;

use alloy_primitives::{Address, U256};
use parsec_protocol::{ErrorCode, Key, Transaction, Value};
use parsec_runtimes::native::Program;
use parsec_runtimes::procedures::Invocation;
use rayon::prelude::*;
use rkyv::{Archive, Deserialize, Serialize};
use secp256k1::{Secp256k1, SignOnly};

use crate::draw;

pub use audit::{Audit, AuditFailure, Commits};
pub use cache::{Prepared, cached};
pub use compute::{Compute, ComputeOptions};
pub use erc20::{Erc20, Erc20Options};
pub use ether::{Ether, EtherOptions};
pub use lua_pay::{LuaPay, LuaPayOptions};
pub use name::WorkloadName;
pub use native_transfer::NativeTransfer;
pub use nft::{Nft, NftOptions};
pub use payments::{AMOUNT_MAX, BALANCE_START, PaymentOptions};
pub use smallbank::{SmallBank, SmallBankOptions};
pub use spec::{FootprintFrom, WorkloadSpec};
pub use spread::Spread;
pub use swap::{Swap, SwapOptions};
pub use tpcc::{Mix, Remote, Tpcc, TpccOptions};
pub use ycsb::{Letter, Ycsb, YcsbOptions};

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

    /// The accounts that have to own so many wei before the setup: only a genesis gives Ether.
    fn genesis(&self) -> Vec<(Address, U256)> {
        Vec::new()
    }

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

/// Transactions that are built between two reports of progress.
const BUILD_CHUNK: usize = 4_096;

/// Draws `count` times what comes next, one after the other, and makes the transactions of it on
/// all cores.
fn build<T: Send>(
    count: usize,
    progress: BuildProgress<'_>,
    mut next: impl FnMut() -> T,
    transaction: impl Fn(T) -> LoadTransaction + Sync,
) -> Vec<LoadTransaction> {
    let mut built = Vec::with_capacity(count);
    progress(0);
    while built.len() < count {
        let chunk = BUILD_CHUNK.min(count - built.len());
        let drawn: Vec<T> = (0..chunk).map(|_| next()).collect();
        built.par_extend(drawn.into_par_iter().map(&transaction));
        progress(built.len());
    }
    built
}

/// The transaction of a call of a procedure, with its footprint if the client is to declare it.
///
/// # Panics
/// If the arguments don't tell the footprint that is to be declared.
fn procedure(invocation: Invocation, salt: u128, declared: bool) -> LoadTransaction {
    let footprint = declared.then(|| {
        let footprint = invocation.footprint().expect("calls name few keys");
        footprint.expect("only what arguments tell is declared")
    });
    let transaction = Transaction { footprint, ..invocation.into_transaction(salt) };
    LoadTransaction { sender: None, transaction }
}

/// A stage that puts rows, as few transactions as are convenient.
fn put_rows(
    seed: u64,
    purpose: &'static str,
    rows: impl IntoIterator<Item = (Key, Value)>,
) -> Stage {
    let mut transactions = Vec::new();
    let (mut program, mut bytes) = (Program::new(), 0);
    let mut close = |program: Program| {
        let number = u64::try_from(transactions.len()).expect("a vector's length is a u64");
        let transaction = program.into_transaction(salt(seed, purpose, number));
        transactions.push(LoadTransaction { sender: None, transaction });
    };
    for (key, value) in rows {
        bytes += key.encoded().len() + value.len();
        program = program.put(&key, value);
        if program.ops.len() == PUT_ROWS_MAX || bytes > PUT_BYTES_TARGET {
            close(std::mem::take(&mut program));
            bytes = 0;
        }
    }
    if !program.ops.is_empty() {
        close(program);
    }
    Stage { purpose, transactions, tolerated: None }
}

/// Rows that one setup transaction puts at most.
const PUT_ROWS_MAX: usize = 256;
/// A setup transaction is closed when its rows reach this many bytes.
const PUT_BYTES_TARGET: usize = 64 * 1_024;

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
