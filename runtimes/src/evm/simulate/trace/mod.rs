//! Executing a transaction again, to see what happens in it.

mod budget;
mod prestate;
mod steps;

use std::collections::BTreeMap;

use alloy_primitives::{B256, keccak256};
use alloy_rpc_types_trace::geth::{
    CallFrame, GethDebugBuiltInTracerType as BuiltIn, GethDebugTracerType as Tracer,
    GethDebugTracingOptions, GethTrace,
};
use parsec_ethereum::{QueryError, Recorded, TransactionTrace};
use revm::context::result::ResultAndState;
use revm_inspectors::tracing::{DebugInspector, TransactionContext};
use serde::Serialize;
use serde_json::value::RawValue;

use self::budget::Budget;
use self::steps::Steps;
use super::machine::{Machine, Terms};
use super::words::Failure;

/// Most bytes that a trace may have as JSON, and by and large in memory, too.
const TRACE_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// The stack with which traces are written whose calls are in one another. What is not touched of
/// it takes no memory.
const DEEP_STACK_BYTES: usize = 32 * 1_024 * 1_024;

/// What a tracer gives: its JSON, and what the execution did.
type Traced = (Box<RawValue>, ResultAndState);

/// Which transaction of its block is traced; a call is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Which {
    /// Its hash.
    pub(super) hash: Option<B256>,
    /// Its index in the block.
    pub(super) index: Option<usize>,
}

impl Which {
    /// The transaction of a block with that index.
    pub(super) fn new(recorded: &Recorded, index: usize) -> Self {
        Self { hash: Some(keccak256(&recorded.raw)), index: Some(index) }
    }
}

/// Traces a transaction, and then makes what it does a part of the state.
///
/// # Errors
/// A [`Failure`], also if there is no such tracer, or the trace gets too long.
pub(super) fn trace(
    machine: &mut Machine<'_>,
    terms: &Terms,
    which: Which,
    options: &GethDebugTracingOptions,
) -> Result<TransactionTrace, Failure> {
    let (json, result) = match &options.tracer {
        Some(Tracer::BuiltInTracer(BuiltIn::MuxTracer)) => many(machine, terms, which, options)?,
        _ => one(machine, terms, which, options)?,
    };
    machine.commit(result.state);
    Ok(TransactionTrace { hash: which.hash, outcome: Ok(json) })
}

/// Traces with several tracers, one after another.
fn many(
    machine: &mut Machine<'_>,
    terms: &Terms,
    which: Which,
    options: &GethDebugTracingOptions,
) -> Result<Traced, Failure> {
    let config = options.tracer_config.clone();
    let config = config.into_mux_config().map_err(|error| bad_config(&error))?;
    let mut traces = BTreeMap::new();
    let mut last = None;
    let mut bytes = 0;
    let tracers: BTreeMap<_, _> =
        config.0.into_iter().map(|(t, c)| (t.as_str().to_owned(), (t, c))).collect();
    for (name, (tracer, config)) in tracers {
        let options = GethDebugTracingOptions {
            tracer: Some(tracer),
            tracer_config: config.unwrap_or_default(),
            ..options.clone()
        };
        let (json, result) = one(machine, terms, which, &options)?;
        bytes += json.get().len();
        check_size(bytes)?;
        traces.insert(name, json);
        last = Some(result);
    }
    let result = last.map_or_else(|| machine.execute(terms), Ok)?;
    Ok((to_json(&traces)?, result))
}

/// Traces with one tracer.
fn one(
    machine: &mut Machine<'_>,
    terms: &Terms,
    which: Which,
    options: &GethDebugTracingOptions,
) -> Result<Traced, Failure> {
    match &options.tracer {
        None => steps(machine, terms, options),
        Some(Tracer::JsTracer(name)) if name.is_empty() => steps(machine, terms, options),
        Some(Tracer::JsTracer(_)) => Err(unsupported("tracers in JavaScript are not supported")),
        Some(Tracer::BuiltInTracer(BuiltIn::MuxTracer)) => {
            Err(unsupported("a muxTracer in a muxTracer"))
        }
        Some(Tracer::BuiltInTracer(BuiltIn::Erc7562Tracer)) => {
            Err(unsupported("the erc7562Tracer is not supported"))
        }
        Some(Tracer::BuiltInTracer(BuiltIn::PreStateTracer)) => prestate(machine, terms, options),
        Some(Tracer::BuiltInTracer(_)) => frames(machine, terms, which, options),
    }
}

/// Traces instruction by instruction.
fn steps(
    machine: &mut Machine<'_>,
    terms: &Terms,
    options: &GethDebugTracingOptions,
) -> Result<Traced, Failure> {
    let (result, steps) = machine.inspect(terms, Steps::new(options.config, TRACE_BYTES_MAX));
    let result = result?;
    Ok((to_json(&steps.into_frame(&result.result))?, result))
}

/// Tells the accounts that a transaction touches.
fn prestate(
    machine: &mut Machine<'_>,
    terms: &Terms,
    options: &GethDebugTracingOptions,
) -> Result<Traced, Failure> {
    let config = match options.tracer_config.is_null() {
        true => prestate::Config::default(),
        false => options.tracer_config.clone().from_value().map_err(|e| bad_config(&e))?,
    };
    let result = machine.execute(terms)?;
    check_size(state_size(&result))?;
    let frame = prestate::frame(config, machine.world(), &result.state).map_err(|stop| stop.0)?;
    Ok((to_json(&frame)?, result))
}

/// Traces call by call.
fn frames(
    machine: &mut Machine<'_>,
    terms: &Terms,
    which: Which,
    options: &GethDebugTracingOptions,
) -> Result<Traced, Failure> {
    let tracer = DebugInspector::new(options.clone()).map_err(|error| bad_config(&error))?;
    let (result, (budget, mut tracer)) =
        machine.inspect(terms, (Budget::new(TRACE_BYTES_MAX), tracer));
    let result = result?;
    let context =
        TransactionContext { tx_hash: which.hash, tx_index: which.index, ..Default::default() };
    let mut trace = tracer
        .get_result(Some(context), &terms.tx, &terms.block, &result, machine.world())
        .map_err(|error| unsupported(&error.to_string()))?;
    let json = with_deep_stack(move || {
        if let GethTrace::CallTracer(frame) = &mut trace {
            name_unpaid(frame, &mut budget.unpaid().iter().copied());
        }
        to_json(&trace)
    })?;
    Ok((json, result))
}

/// Does something that needs stack for each of the calls that are in one another: up to 1,024.
fn with_deep_stack<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let unavailable = |reason: &str| Failure::Query(QueryError::Unavailable(reason.to_owned()));
    std::thread::Builder::new()
        .stack_size(DEEP_STACK_BYTES)
        .spawn(task)
        .map_err(|error| unavailable(&error.to_string()))?
        .join()
        .unwrap_or_else(|_| Err(unavailable("the trace could not be written")))
}

/// Says of creations that could not pay for the code that they are that, as geth does.
/// `unpaid` says it of each, in the order in which they begin.
fn name_unpaid(frame: &mut CallFrame, unpaid: &mut dyn Iterator<Item = bool>) {
    if frame.typ.starts_with("CREATE") && unpaid.next().unwrap_or_default() {
        frame.error = Some("contract creation code storage out of gas".to_owned());
    }
    frame.calls.iter_mut().for_each(|call| name_unpaid(call, unpaid));
}

/// What the accounts that an execution touched take as JSON, about.
fn state_size(result: &ResultAndState) -> usize {
    const ACCOUNT: usize = 256;
    const WORD: usize = 2 * 140;
    let sizes = result.state.values().map(|account| {
        let code = account.info.code.as_ref().map_or(0, revm::bytecode::Bytecode::len);
        ACCOUNT + 2 * code + WORD * account.storage.len()
    });
    sizes.sum()
}

/// Makes sure that traces are not longer than they may be together.
pub(super) fn check_size(bytes: usize) -> Result<(), QueryError> {
    match bytes > TRACE_BYTES_MAX {
        true => Err(QueryError::Unsupported(too_long(TRACE_BYTES_MAX))),
        false => Ok(()),
    }
}

/// What is said of a trace that gets longer than that.
fn too_long(bytes: usize) -> String {
    format!("the trace is longer than {bytes} bytes: ask for less of it")
}

fn unsupported(reason: &str) -> Failure {
    Failure::Query(QueryError::Unsupported(reason.to_owned()))
}

fn bad_config(error: &dyn std::fmt::Display) -> Failure {
    Failure::Query(QueryError::Invalid(format!("tracer configuration: {error}")))
}

fn to_json(trace: &impl Serialize) -> Result<Box<RawValue>, Failure> {
    serde_json::value::to_raw_value(trace)
        .map_err(|error| Failure::Query(QueryError::Unavailable(error.to_string())))
}
