//! Questions about the state after a block, and their answers. Both travel as JSON.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::simulate::SimulatePayload;
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{AccessListResult, TransactionRequest};
use alloy_rpc_types_trace::geth::GethDebugTracingOptions;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A question about the state after a block.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Query {
    /// The balance, nonce and code hash of an account.
    Account(Address),
    /// The code of an account.
    Code(Address),
    /// Words of an account's storage.
    Storage(Address, Vec<U256>),
    /// An account and words of its storage, with what proves them to whoever knows the root of
    /// the state.
    Proof(Address, Vec<U256>),
    /// What an execution would do.
    Simulate(Box<Simulation>),
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Query::Account`]; the default where there is none.
    Account(Account),
    /// To [`Query::Code`].
    Code(Bytes),
    /// To [`Query::Storage`], in the order of the slots.
    Storage(Vec<B256>),
    /// To [`Query::Proof`].
    Proof(Box<Proof>),
    /// To [`Task::Call`].
    Call(CallResult),
    /// To [`Task::Estimate`]: the least gas limit with which it succeeds.
    Gas(u64),
    /// To [`Task::AccessList`].
    AccessList(AccessListResult),
    /// To [`Task::Trace`] (one) and [`Task::TraceAll`] (one for each transaction).
    Traces(Vec<TransactionTrace>),
    /// To [`Task::Blocks`]: the JSON that `eth_simulateV1` returns.
    Blocks(serde_json::Value),
}

/// What a tracer says of a transaction or call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionTrace {
    /// The hash of the transaction; none of a call.
    pub hash: Option<B256>,
    /// The JSON that the tracer gives, or why there is none. It is handed on as it is: calls nest
    /// deeper in it than parsers of JSON like, and it may be long.
    pub outcome: Result<Box<RawValue>, String>,
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// What it owns, wei.
    pub balance: U256,
    /// How many transactions it sent, or contracts it created.
    pub nonce: u64,
    /// The Keccak-256 hash of its code; none if it has no code.
    pub code_hash: Option<B256>,
}

/// An account and words of its storage, with the nodes of Ethereum's trie down to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The account; the default if there is none.
    pub account: Account,
    /// The root of its storage.
    pub storage_root: B256,
    /// The nodes down to it, from the root of the state on.
    pub nodes: Vec<Bytes>,
    /// The words, in the order of the slots, each with the nodes from the root of the storage on.
    pub words: Vec<(U256, Vec<Bytes>)>,
}

/// What a transaction sees of its block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// Its number.
    pub number: u64,
    /// Its time, seconds since 1970.
    pub timestamp: u64,
    /// Its gas limit.
    pub gas_limit: u64,
    /// What of the price of gas is burnt, wei.
    pub base_fee: u64,
    /// Who gets the fees.
    pub coinbase: Address,
    /// Its difficulty; zero from the Merge on.
    pub difficulty: U256,
    /// Its randomness, from the Merge on.
    pub prevrandao: B256,
    /// The blob gas in excess of the target before it, from Cancun on.
    pub excess_blob_gas: Option<u64>,
    /// The root of the beacon block that is its parent, from Cancun on.
    pub parent_beacon_block_root: Option<B256>,
    /// Hashes of blocks that stand for those of the chain, where a request overrides them.
    pub hashes: Vec<(u64, B256)>,
}

/// Something to execute on a state, in a block, without any effect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// The block that it is executed in.
    pub environment: Environment,
    /// What is different from the state.
    pub overrides: StateOverride,
    /// Transactions that are executed before it, in order: those of the block that come first.
    pub before: Vec<Recorded>,
    /// What to execute.
    pub task: Task,
}

/// A transaction of a block.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Who sent it.
    pub sender: Address,
    /// Its raw bytes.
    pub raw: Bytes,
}

/// What to execute.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// A call, of which the result counts. Without a gas limit it has that of the block. Neither
    /// nonce nor base fee are checked; the balance is for value and, where a price is given, gas.
    Call(Box<TransactionRequest>),
    /// A call of which the least sufficient gas limit counts.
    Estimate(Box<TransactionRequest>),
    /// A call of which the addresses and slots count that it touches.
    AccessList(Box<TransactionRequest>),
    /// One transaction or call, traced.
    Trace {
        /// What is traced.
        what: Traced,
        /// How.
        options: GethDebugTracingOptions,
    },
    /// All that comes `before`, traced.
    TraceAll {
        /// How.
        options: GethDebugTracingOptions,
    },
    /// Blocks of calls, as `eth_simulateV1` takes them; the environment is that of the first
    /// block where the payload does not override it: its number is one more than that of the
    /// block that they build on, its time 12 seconds later, its base fee what `validation` asks
    /// for. They are executed in the state that is asked.
    Blocks(Box<SimulatePayload>),
}

/// What is traced.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Traced {
    /// A call.
    Call(Box<TransactionRequest>),
    /// A transaction of a block.
    Recorded(Recorded),
}

/// What a call did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallResult {
    /// What it returned, or its revert data.
    pub output: Bytes,
    /// The gas that it used.
    pub gas_used: u64,
    /// Why it gave up, if it did.
    pub failure: Option<CallFailure>,
}

/// Why a call gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallFailure {
    /// It reverted.
    Reverted,
    /// It was halted: out of gas, an invalid instruction.
    Halted(String),
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum QueryError {
    /// The state after the block is not kept any more.
    #[error("the state after block {block} is not kept any more; the oldest is that of {oldest}")]
    #[allow(missing_docs, reason = "the message says it")]
    NotKept { block: u64, oldest: u64 },
    /// The call can't be executed at all: it can't pay, or its fields contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// As [`QueryError::Invalid`], where a method has a code of JSON-RPC for the reason.
    #[error("{message}")]
    #[allow(missing_docs, reason = "the names say it")]
    Refused { code: i32, message: String },
    /// It reverted, where only success has an answer (an estimate); with the revert data.
    #[error("execution reverted")]
    Reverted(Bytes),
    /// It was halted, where only success has an answer.
    #[error("{0}")]
    Halted(String),
    /// What is asked for is not there.
    #[error("{0}")]
    Unsupported(String),
    /// The state can't be read now.
    #[error("{0}")]
    Unavailable(String),
}
