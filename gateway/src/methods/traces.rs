//! `debug_trace…`: transactions and calls are executed again, and watched.

use std::sync::Arc;

use alloy_primitives::B256;
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_trace::geth::{GethDebugTracingCallOptions, GethDebugTracingOptions};
use parsec_ethereum::{
    Answer, BlockTransaction, Query, Recorded, Simulation, Task, Traced, TransactionTrace,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Family;
use super::debug::existing;
use super::request::{CallRequest, overridden};
use crate::backend::At;
use crate::chain::Head;
use crate::node::{Node, confused, environment};
use crate::rpc::{BlockId, BlockTag, INTERNAL_ERROR, Json, RpcError};

type Options = Option<Json<GethDebugTracingOptions>>;

pub(super) fn add(family: &mut Family) {
    family.read("debug_traceBlockByHash", async |node, (hash, options): (B256, Options)| {
        trace_block(node, BlockId::Hash(hash), options).await
    });
    family.read("debug_traceBlockByNumber", async |node, (tag, options): (BlockTag, Options)| {
        trace_block(node, BlockId::Tag(tag), options).await
    });
    family.read("debug_traceCall", trace_call);
    family.read("debug_traceTransaction", async |node, (hash, options): (B256, Options)| {
        let options = options.map(|options| options.0).unwrap_or_default();
        trace_transaction(&node, hash, options).await
    });
}

fn recorded(transaction: &BlockTransaction) -> Recorded {
    Recorded { sender: transaction.sender(), raw: transaction.raw.clone().into() }
}

/// The state before a block.
fn before(node: &Node, head: &Head) -> Result<At, RpcError> {
    match head.number.checked_sub(1) {
        Some(parent) => node.kept(parent).map(At::Block),
        None => Err(RpcError::server("genesis is not traceable")),
    }
}

async fn traces(
    node: &Node,
    at: At,
    simulation: Simulation,
) -> Result<Vec<TransactionTrace>, RpcError> {
    match node.execute(at, Query::Simulate(Box::new(simulation))).await? {
        Answer::Traces(traces) => Ok(traces),
        other => Err(confused(&other)),
    }
}

async fn one_trace(node: &Node, at: At, simulation: Simulation) -> Result<Box<RawValue>, RpcError> {
    let trace = traces(node, at, simulation).await?.pop();
    let missing = || RpcError::new(INTERNAL_ERROR, "there is no trace");
    trace.ok_or_else(missing)?.outcome.map_err(RpcError::server)
}

/// What a tracer says of a transaction of the chain.
pub(super) async fn trace_transaction(
    node: &Arc<Node>,
    hash: B256,
    options: GethDebugTracingOptions,
) -> Result<Box<RawValue>, RpcError> {
    let view = node.chain.view();
    let not_found = || RpcError::server("transaction not found");
    let placed = view.transaction(hash)?.ok_or_else(not_found)?;
    let head = view.header(placed.place.number)?.ok_or_else(not_found)?;
    let at = before(node, &head)?;
    let index = usize::try_from(placed.place.index).unwrap_or(usize::MAX);
    let earlier = view.transactions(head.number)?.unwrap_or_default().into_iter().take(index);
    let simulation = Simulation {
        environment: environment(&head.header),
        overrides: StateOverride::default(),
        before: earlier.map(|earlier| recorded(&earlier.transaction)).collect(),
        task: Task::Trace { what: Traced::Recorded(recorded(&placed.transaction)), options },
    };
    one_trace(node, at, simulation).await
}

/// The trace of one of a block's transactions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockTrace {
    tx_hash: B256,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn trace_block(
    node: Arc<Node>,
    id: BlockId,
    options: Options,
) -> Result<Vec<BlockTrace>, RpcError> {
    let view = node.chain.view();
    let head = existing(&node, &view, id)?;
    let at = before(&node, &head)?;
    let transactions = view.transactions(head.number)?.unwrap_or_default();
    let hashes: Vec<B256> = transactions.iter().map(|tx| tx.transaction.hash()).collect();
    if hashes.is_empty() {
        return Ok(Vec::new());
    }
    let simulation = Simulation {
        environment: environment(&head.header),
        overrides: StateOverride::default(),
        before: transactions.iter().map(|tx| recorded(&tx.transaction)).collect(),
        task: Task::TraceAll { options: options.map(|options| options.0).unwrap_or_default() },
    };
    let traces = traces(&node, at, simulation).await?;
    let with_hash = |(tx_hash, trace): (B256, TransactionTrace)| match trace.outcome {
        Ok(result) => BlockTrace { tx_hash, result: Some(result), error: None },
        Err(error) => BlockTrace { tx_hash, result: None, error: Some(error) },
    };
    Ok(hashes.into_iter().zip(traces).map(with_hash).collect())
}

async fn trace_call(
    node: Arc<Node>,
    (request, block, options): (
        CallRequest,
        Option<BlockId>,
        Option<Json<GethDebugTracingCallOptions>>,
    ),
) -> Result<Box<RawValue>, RpcError> {
    let request = request.checked(&node)?;
    let options = options.map(|options| options.0).unwrap_or_default();
    let (at, seen, earlier) = match options.tx_index {
        Some(index) => amid(&node, block, index)?,
        None => {
            let at = node.state(block)?;
            (at, node.environment(at)?, Vec::new())
        }
    };
    let simulation = Simulation {
        environment: overridden(&node, seen, options.block_overrides)?,
        overrides: options.state_overrides.unwrap_or_default(),
        before: earlier,
        task: Task::Trace {
            what: Traced::Call(Box::new(request)),
            options: options.tracing_options,
        },
    };
    one_trace(&node, at, simulation).await
}

/// The state amid a block, before the transaction with that index.
fn amid(
    node: &Node,
    block: Option<BlockId>,
    index: u64,
) -> Result<(At, parsec_ethereum::Environment, Vec<Recorded>), RpcError> {
    let view = node.chain.view();
    let head = existing(node, &view, block.unwrap_or(BlockId::LATEST))?;
    let transactions = view.transactions(head.number)?.unwrap_or_default();
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if index > transactions.len() {
        let message = format!("transaction index {index} out of range for block {}", head.hash);
        return Err(RpcError::server(message));
    }
    let earlier = transactions.iter().take(index).map(|tx| recorded(&tx.transaction)).collect();
    Ok((before(node, &head)?, environment(&head.header), earlier))
}
