//! Sending transactions.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{B256, Bytes};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::Family;
use super::transactions::receipt;
use crate::node::Node;
use crate::rpc::{Count, INTERNAL_ERROR, RpcError};
use crate::shape::ReceiptJson;

/// The transaction was not executed in time (EIP-7966).
const NOT_IN_TIME: i32 = 4;

pub(super) fn add(family: &mut Family) {
    family.act("eth_sendRawTransaction", async |node: Arc<Node>, (raw,): (Bytes,)| {
        send(&node, raw).await
    });
    // Not in turn: it would hold up others until its receipt is there.
    family.read("eth_sendRawTransactionSync", send_and_wait);
}

async fn send(node: &Node, raw: Bytes) -> Result<B256, RpcError> {
    let missing = || Err(RpcError::new(INTERNAL_ERROR, "no answer to a transaction"));
    send_all(node, vec![raw]).await.pop().unwrap_or_else(missing)
}

/// Sends transactions, all at once and in this order.
pub(crate) async fn send_all(node: &Node, raw: Vec<Bytes>) -> Vec<Result<B256, RpcError>> {
    let raw = raw.into_iter().map(|raw| raw.0).collect();
    let sent = node.backend.submit(raw).await;
    sent.into_iter().map(|sent| sent.map_err(RpcError::from)).collect()
}

async fn send_and_wait(
    node: Arc<Node>,
    (raw, timeout): (Bytes, Option<Count>),
) -> Result<ReceiptJson, RpcError> {
    let most = node.limits.receipt_wait_max;
    let wait = timeout.map_or(node.limits.receipt_wait, |timeout| Duration::from_millis(timeout.0));
    // ORDER: listens before it sends, not to miss the block.
    let mut changes = node.chain.subscribe();
    let hash = send(&node, raw).await?;
    let executed = async {
        loop {
            if let Some(receipt) = receipt(&node, hash)? {
                return Ok(receipt);
            }
            if let Err(RecvError::Closed) = changes.recv().await {
                return Err(RpcError::new(INTERNAL_ERROR, "the chain has ended"));
            }
        }
    };
    tokio::time::timeout(wait.min(most), executed).await.unwrap_or_else(|_| {
        let message = "the transaction was added to the pool but was not executed in time";
        Err(RpcError::new(NOT_IN_TIME, message).with_data(json!(hash)))
    })
}
