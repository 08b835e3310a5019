//! Executing something without any effect: calls, estimates, access lists, whole blocks.

use std::sync::Arc;

use alloy_primitives::{Bytes, U64};
use alloy_rpc_types_eth::simulate::SimulatePayload;
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{AccessListResult, BlockOverrides, TransactionRequest};
use parsec_ethereum::query::CallFailure;
use parsec_ethereum::{Answer, CallResult, Environment, Query, Simulation, Task};
use serde_json::Value;

use super::Family;
use super::request::{CallRequest, overridden};
use crate::backend::At;
use crate::node::{Node, confused};
use crate::rpc::{BlockId, Json, RpcError};

/// How much later than its parent a block is that `eth_simulateV1` makes, seconds.
const SIMULATED_BLOCK_SECONDS: u64 = 12;

pub(super) fn add(family: &mut Family) {
    family.read("eth_call", call);
    family.read("eth_createAccessList", create_access_list);
    family.read("eth_estimateGas", estimate_gas);
    family.read("eth_simulateV1", simulate);
}

type CallParams =
    (CallRequest, Option<BlockId>, Option<Json<StateOverride>>, Option<Json<BlockOverrides>>);

/// A call with all that is said of its circumstances.
struct Circumstances {
    at: At,
    request: TransactionRequest,
    environment: Environment,
    overrides: StateOverride,
}

impl Circumstances {
    fn of(
        node: &Node,
        environment: impl FnOnce(At) -> Result<Environment, RpcError>,
        (request, block, state, overrides): CallParams,
    ) -> Result<Self, RpcError> {
        let request = request.checked(node)?;
        let at = node.state(block)?;
        let environment =
            overridden(node, environment(at)?, overrides.map(|overrides| overrides.0))?;
        let overrides = state.map(|state| state.0).unwrap_or_default();
        Ok(Self { at, request, environment, overrides })
    }

    async fn execute(
        self,
        node: &Node,
        task: impl FnOnce(Box<TransactionRequest>) -> Task,
    ) -> Result<Answer, RpcError> {
        let simulation = Simulation {
            environment: self.environment,
            overrides: self.overrides,
            before: Vec::new(),
            task: task(Box::new(self.request)),
        };
        node.execute(self.at, Query::Simulate(Box::new(simulation))).await
    }
}

async fn call(node: Arc<Node>, params: CallParams) -> Result<Bytes, RpcError> {
    let call = Circumstances::of(&node, |at| node.environment(at), params)?;
    match call.execute(&node, Task::Call).await? {
        Answer::Call(result) => output(result),
        other => Err(confused(&other)),
    }
}

/// What a call returned, or why it did not.
fn output(result: CallResult) -> Result<Bytes, RpcError> {
    match result.failure {
        None => Ok(result.output),
        Some(CallFailure::Reverted) => Err(RpcError::reverted(&result.output)),
        Some(CallFailure::Halted(reason)) => Err(RpcError::halted(reason)),
    }
}

async fn estimate_gas(node: Arc<Node>, params: CallParams) -> Result<U64, RpcError> {
    let latest = params.1.is_none_or(|block| block == BlockId::LATEST);
    // What is estimated will be in the next block, or later: by then locks have expired and
    // oracles moved on, which may cost more gas than at the time of the latest block.
    let environment = |at| if latest { Ok(node.backend.pending()) } else { node.environment(at) };
    let call = Circumstances::of(&node, environment, params)?;
    match call.execute(&node, Task::Estimate).await? {
        Answer::Gas(gas) => Ok(U64::from(gas)),
        other => Err(confused(&other)),
    }
}

async fn create_access_list(
    node: Arc<Node>,
    (request, block, state): (CallRequest, Option<BlockId>, Option<Json<StateOverride>>),
) -> Result<AccessListResult, RpcError> {
    let params = (request, block, state, None);
    let call = Circumstances::of(&node, |at| node.environment(at), params)?;
    match call.execute(&node, Task::AccessList).await? {
        Answer::AccessList(list) => Ok(list),
        other => Err(confused(&other)),
    }
}

async fn simulate(
    node: Arc<Node>,
    (payload, block): (Json<SimulatePayload>, Option<BlockId>),
) -> Result<Value, RpcError> {
    let at = node.state(block)?;
    let environment = first_simulated(&node, at, payload.0.validation)?;
    let simulation = Simulation {
        environment,
        overrides: StateOverride::default(),
        before: Vec::new(),
        task: Task::Blocks(Box::new(payload.0)),
    };
    match node.execute(at, Query::Simulate(Box::new(simulation))).await? {
        Answer::Blocks(blocks) => Ok(blocks),
        other => Err(confused(&other)),
    }
}

/// The first block that `eth_simulateV1` makes, where nothing is overridden.
fn first_simulated(node: &Node, at: At, validation: bool) -> Result<Environment, RpcError> {
    let base = node.environment(at)?;
    let next_base_fee = || {
        let next = At::Block(base.number + 1);
        // The fee of a block that exists is known; that of the next one is the pending one's.
        node.environment(next).unwrap_or_else(|_| node.backend.pending()).base_fee
    };
    Ok(Environment {
        number: base.number + 1,
        timestamp: base.timestamp + SIMULATED_BLOCK_SECONDS,
        base_fee: if validation { next_base_fee() } else { 0 },
        prevrandao: Default::default(),
        ..base
    })
}
