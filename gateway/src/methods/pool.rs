//! The pool: transactions that are in no block yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U64};
use parsec_ethereum::PoolTransaction;
use serde::Serialize;

use super::Family;
use super::transactions::pooled;
use crate::node::{Node, decoded};
use crate::rpc::RpcError;
use crate::shape::TransactionJson;

type BySender<T> = BTreeMap<String, BTreeMap<u64, T>>;
type InPool = BTreeMap<Address, BTreeMap<u64, PoolTransaction>>;

pub(super) fn add(family: &mut Family) {
    family.read("eth_pendingTransactions", pending_transactions);
    family.read("txpool_content", async |node: Arc<Node>, ()| {
        let pool = node.backend.pool().await?;
        Ok(Both { pending: show(&pool.pending, pooled)?, queued: show(&pool.queued, pooled)? })
    });
    family.read("txpool_contentFrom", content_from);
    family.read("txpool_inspect", async |node: Arc<Node>, ()| {
        let pool = node.backend.pool().await?;
        Ok(Both { pending: show(&pool.pending, inspect)?, queued: show(&pool.queued, inspect)? })
    });
    family.read("txpool_status", async |node: Arc<Node>, ()| {
        let pool = node.backend.pool().await?;
        let count = |part: &InPool| U64::from(part.values().map(BTreeMap::len).sum::<usize>());
        Ok(Both { pending: count(&pool.pending), queued: count(&pool.queued) })
    });
}

/// The two parts of the pool.
#[derive(Serialize)]
struct Both<T> {
    pending: T,
    queued: T,
}

fn show<T>(
    part: &InPool,
    show: impl Fn(&PoolTransaction) -> Result<T, RpcError>,
) -> Result<BySender<T>, RpcError> {
    let by_nonce = |transactions: &BTreeMap<u64, PoolTransaction>| {
        let shown = transactions.iter().map(|(nonce, tx)| Ok((*nonce, show(tx)?)));
        shown.collect::<Result<_, RpcError>>()
    };
    part.iter().map(|(sender, all)| Ok((sender.to_checksum(None), by_nonce(all)?))).collect()
}

/// One line for people, as geth has it.
fn inspect(pooled: &PoolTransaction) -> Result<String, RpcError> {
    let tx = decoded(&pooled.raw, pooled.hash)?;
    let to = tx.to().map_or_else(|| "contract creation".into(), |to| to.to_checksum(None));
    let price = tx.max_fee_per_gas();
    Ok(format!("{to}: {} wei + {} gas × {price} wei", tx.value(), tx.gas_limit()))
}

async fn content_from(
    node: Arc<Node>,
    (sender,): (Address,),
) -> Result<Both<BTreeMap<u64, TransactionJson>>, RpcError> {
    let pool = node.backend.pool().await?;
    let of = |part: &InPool| -> Result<BTreeMap<u64, TransactionJson>, RpcError> {
        let all = part.get(&sender).into_iter().flatten();
        all.map(|(nonce, tx)| Ok((*nonce, pooled(tx)?))).collect()
    };
    Ok(Both { pending: of(&pool.pending)?, queued: of(&pool.queued)? })
}

async fn pending_transactions(node: Arc<Node>, (): ()) -> Result<Vec<TransactionJson>, RpcError> {
    let pool = node.backend.pool().await?;
    pool.pending.values().flat_map(BTreeMap::values).map(pooled).collect()
}
