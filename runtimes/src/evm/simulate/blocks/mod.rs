//! Blocks of calls: what `eth_simulateV1` does.
//!
//! The root of the state of a simulated block is zero where what stands for it is a digest: nobody
//! computes that of a state that is none.

mod plan;
mod seal;
mod transfers;

use alloy_consensus::Header;
use alloy_primitives::{B256, Log, U256};
use alloy_rpc_types_eth::simulate::SimulatePayload;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use parsec_ethereum::{Environment, QueryError, revert_reason};
use revm::context::result::ExecutionResult;
use revm::context_interface::transaction::TransactionType;
use serde_json::{Value as Json, json};

use self::plan::Planned;
use self::seal::{Sealed, Transaction};
use self::transfers::Transfers;
use super::machine::{Machine, Terms};
use super::precompiles::Precompiles;
use super::{overrides, request, system, words};
use crate::evm::fees::{self, Parent};
use crate::evm::trie::StateTrie;

/// Most gas that all calls together may use, as it is with geth.
const GAS_MAX: u64 = 50_000_000;

/// Most bytes that what the calls return and log may have as JSON.
const ANSWER_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// Codes of JSON-RPC.
const BLOCK_GAS_LIMIT: i32 = -38_015;
const TOO_MUCH: i32 = -38_026;
const REVERTED: i32 = 3;
const HALTED: i32 = -32_015;

/// What a call of a simulated block did.
struct Called {
    transaction: Transaction,
    /// What it logged, with transfers of value where they are traced.
    logs: Vec<Log>,
    result: ExecutionResult,
}

/// Executes blocks of calls, one after another, each on what the last one left.
///
/// # Errors
/// [`QueryError::Refused`] with the method's own codes, or as for any call.
pub(super) fn simulate(
    chain_id: u64,
    machine: &mut Machine<'_>,
    environment: &Environment,
    payload: &SimulatePayload,
) -> Result<Json, QueryError> {
    let planned = plan::plan(environment, payload)?;
    let parent = machine.world().db.hash(environment.number.saturating_sub(1))?;
    let trie = machine.world().db.trie();
    let mut simulation = Simulation {
        chain_id,
        machine,
        payload,
        environment: environment.clone(),
        parent: (parent, None),
        trie,
        gas: GAS_MAX,
        bytes: 0,
    };
    let blocks = planned.iter().map(|planned| simulation.block(planned));
    Ok(Json::Array(blocks.collect::<Result<_, _>>()?))
}

struct Simulation<'m, 'a> {
    chain_id: u64,
    machine: &'m mut Machine<'a>,
    payload: &'m SimulatePayload,
    /// That of the last block, or of the first one if there is none.
    environment: Environment,
    /// The hash of the last block, and its header if it was simulated.
    parent: (B256, Option<Header>),
    /// The trie of the state, where there is one.
    trie: Option<StateTrie>,
    /// The gas that is left.
    gas: u64,
    /// The length of the answer, about.
    bytes: usize,
}

impl Simulation<'_, '_> {
    fn block(&mut self, planned: &Planned<'_>) -> Result<Json, QueryError> {
        self.enter(planned)?;
        if self.trie.is_some() {
            system::open(self.machine, &self.environment, self.parent.0)?;
        }
        let mut called = Vec::with_capacity(planned.calls.len());
        let mut gas_used = 0;
        for request in planned.calls {
            let call = self.call(request, gas_used)?;
            gas_used += call.result.tx_gas_used();
            self.gas = self.gas.saturating_sub(call.result.tx_gas_used());
            self.count(&call)?;
            called.push(call);
        }
        let root = self.root()?;
        let spec = self.machine.rules.cfg.spec;
        let sealed = Sealed::new(spec, &self.environment, (self.parent.0, root), &called);
        self.machine.world().db.set_hash(sealed.header.number, sealed.hash);
        self.parent = (sealed.hash, Some(sealed.header.clone()));
        let base_fee = self.environment.base_fee;
        let mut json = sealed.json(&called, self.payload.return_full_transactions, base_fee)?;
        json["calls"] = calls(&called, &sealed);
        Ok(json)
    }

    /// The root of the state after a block's calls; zero where there are no such roots.
    fn root(&mut self) -> Result<B256, QueryError> {
        let Some(trie) = &mut self.trie else { return Ok(B256::ZERO) };
        system::close(self.machine)?;
        Ok(system::root(self.machine, trie))
    }

    /// Goes to a block: its environment, its rules, and what is different in it.
    fn enter(&mut self, planned: &Planned<'_>) -> Result<(), QueryError> {
        let overrides = planned.overrides;
        self.environment.number = planned.number;
        self.environment.timestamp = planned.timestamp;
        self.fees(overrides)?;
        let environment = &mut self.environment;
        environment.gas_limit = overrides.gas_limit.unwrap_or(environment.gas_limit);
        environment.coinbase = overrides.coinbase.unwrap_or(environment.coinbase);
        environment.difficulty = overrides.difficulty.unwrap_or(environment.difficulty);
        environment.prevrandao = overrides.random.unwrap_or_default();
        environment.parent_beacon_block_root = overrides.beacon_root;
        for (number, hash) in overrides.block_hash.iter().flatten() {
            self.machine.world().db.set_hash(*number, *hash);
        }
        self.machine.enter(self.chain_id, &self.environment)?;
        let rules = &mut self.machine.rules;
        if let (Some(fee), Some(blobs)) =
            (overrides.blob_base_fee, &mut rules.block.blob_excess_gas_and_price)
        {
            blobs.blob_gasprice = fee.saturating_to();
        }
        self.machine.precompiles = Precompiles::new(rules.cfg.spec);
        let (world, precompiles) = self.machine.parts();
        match planned.state {
            Some(state) => overrides::apply(world, precompiles, state),
            None => Ok(()),
        }
    }

    /// What gas and blobs cost in a block: what follows from the block before, if it was simulated.
    fn fees(&mut self, overrides: &BlockOverrides) -> Result<(), QueryError> {
        if let Some(header) = &self.parent.1 {
            let parent = Parent::from(header);
            let rules = &self.machine.rules;
            self.environment.base_fee = match (&rules.fee, self.payload.validation) {
                (_, false) => 0,
                (Some(fee), true) => fees::next_base_fee(&parent, fee),
                (None, true) => self.environment.base_fee,
            };
            self.environment.excess_blob_gas =
                Some(fees::next_excess_blob_gas(&parent, &rules.blobs));
        }
        if let Some(fee) = overrides.base_fee {
            self.environment.base_fee = u64::try_from(fee)
                .map_err(|_| QueryError::Invalid(format!("the base fee {fee} is too high")))?;
        }
        Ok(())
    }

    fn call(&mut self, request: &TransactionRequest, gas_used: u64) -> Result<Called, QueryError> {
        let terms = self.terms(request, gas_used)?;
        let gas = terms.tx.gas_limit;
        let (result, transfers) =
            self.machine.inspect(&terms, Transfers::new(self.payload.trace_transfers));
        let result = result.map_err(|failure| failure.of_simulated(gas))?;
        self.machine.commit(result.state);
        let transaction = Transaction::new(&terms.tx);
        Ok(Called { transaction, logs: transfers.into_logs(), result: result.result })
    }

    fn terms(&mut self, request: &TransactionRequest, gas_used: u64) -> Result<Terms, QueryError> {
        let mut tx = request::transaction(self.machine, request)?;
        let limit = self.environment.gas_limit;
        let wanted = request.gas.unwrap_or_else(|| limit.saturating_sub(gas_used));
        if gas_used.saturating_add(wanted) > limit {
            let message = format!("block gas limit reached: {gas_used} >= {limit}");
            return Err(QueryError::Refused { code: BLOCK_GAS_LIMIT, message });
        }
        tx.gas_limit = wanted.min(self.gas);
        // A call is taken for a transaction of today, unless it says what it pays as of old.
        let dynamic = u8::from(TransactionType::Eip1559);
        if request.gas_price.is_some() {
            tx.tx_type = TransactionType::Legacy.into();
        } else if tx.tx_type < dynamic {
            tx.tx_type = dynamic;
            tx.gas_priority_fee = Some(0);
        }
        let validation = self.payload.validation;
        let mut terms = self.machine.terms(tx);
        terms.cfg.disable_nonce_check = !validation;
        terms.cfg.disable_eip3607 = true;
        terms.cfg.tx_gas_limit_cap = Some(u64::MAX);
        terms.cfg.disable_base_fee = !validation && request::is_free(&terms.tx);
        if !validation && terms.tx.max_fee_per_blob_gas == 0 {
            request::free_blobs(&mut terms);
        }
        Ok(terms)
    }

    /// Keeps count of the answer's length.
    fn count(&mut self, call: &Called) -> Result<(), QueryError> {
        const ENTRY: usize = 1_024;
        let output = call.result.output().map_or(0, |output| output.len());
        let logs: usize = call.logs.iter().map(|log| ENTRY + 2 * log.data.data.len()).sum();
        self.bytes += ENTRY + 2 * (output + call.transaction.raw.len()) + logs;
        match self.bytes > ANSWER_BYTES_MAX {
            true => {
                let message = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
                Err(QueryError::Refused { code: TOO_MUCH, message })
            }
            false => Ok(()),
        }
    }
}

/// What is said of the calls of a block.
fn calls(called: &[Called], sealed: &Sealed) -> Json {
    let mut log_index = 0_u64;
    let calls = called.iter().enumerate().map(|(index, call)| {
        let logs: Vec<Json> = call
            .logs
            .iter()
            .map(|log| {
                let json = json!({
                    "address": log.address,
                    "topics": log.topics(),
                    "data": log.data.data,
                    "blockNumber": U256::from(sealed.header.number),
                    "transactionHash": call.transaction.hash,
                    "transactionIndex": U256::from(index),
                    "blockHash": sealed.hash,
                    "blockTimestamp": U256::from(sealed.header.timestamp),
                    "logIndex": U256::from(log_index),
                    "removed": false,
                });
                log_index += 1;
                json
            })
            .collect();
        call_json(call, logs)
    });
    calls.collect()
}

fn call_json(call: &Called, logs: Vec<Json>) -> Json {
    let gas = call.result.gas();
    let mut json = json!({
        "returnData": "0x",
        "logs": logs,
        "gasUsed": U256::from(gas.tx_gas_used()),
        "maxUsedGas": U256::from(gas.total_gas_spent().max(gas.floor_gas())),
        "status": U256::from(u8::from(call.result.is_success())),
    });
    match &call.result {
        ExecutionResult::Success { output, .. } => json["returnData"] = json!(output.data()),
        ExecutionResult::Revert { output, .. } => {
            let message = match revert_reason(output) {
                Some(reason) => format!("execution reverted: {reason}"),
                None => "execution reverted".to_owned(),
            };
            json["error"] = json!({ "code": REVERTED, "message": message, "data": output });
        }
        ExecutionResult::Halt { reason, .. } => {
            json["error"] = json!({ "code": HALTED, "message": words::halted(reason) });
        }
    }
    json
}
