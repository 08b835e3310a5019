//! Answers questions about a state: what an account holds, and what an execution would do.
//!
//! Nothing here is ordered or has an effect, so that nothing here is a part of the protocol:
//! plain revm executes over the keys of a state, with none of the care for footprints that
//! transactions need. Answers are those of geth, in its words, where clients look at them.
//!
//! What blocks of other chains do around their transactions (EIP-2935, EIP-4788, EIP-7002 and
//! EIP-7251) is done where [`Reader`] says that blocks do it.

mod access;
mod base;
mod blocks;
mod call;
mod environment;
mod machine;
mod overrides;
mod precompiles;
mod request;
mod system;
#[cfg(test)]
mod tests;
mod trace;
mod words;

use alloy_primitives::{Address, B256, TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::GethDebugTracingOptions;
use parsec_ethereum::{
    Account, Answer, Query, QueryError, Recorded, Simulation, Task, Traced, TransactionTrace,
};
use parsec_protocol::{Key, Value};

use self::base::{Base, Found};
use self::machine::{Machine, Terms};
use self::trace::Which;
use self::words::Failure;
use super::trie::StateTrie;
use super::{keys, payload};

/// Why there is no proof of what a state holds.
pub const NO_TRIE: &str = "the state is no Merkle trie here, and stateRoot is a digest of it";

/// Where a simulation reads: the state after a block, over all partitions.
pub trait Reader {
    /// The value of `key`. Each is asked for at most once in the course of a question.
    ///
    /// # Errors
    /// [`QueryError::NotKept`] or [`QueryError::Unavailable`]: the question gets it as its answer.
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError>;

    /// The hash of the block with that number, one of the last 256; none if there is no such block.
    ///
    /// # Errors
    /// As [`Reader::value`].
    fn block_hash(&mut self, number: u64) -> Result<Option<B256>, QueryError>;

    /// Whether the block with that number, the one after the state, called system contracts as
    /// Ethereum's blocks do.
    fn calls_system(&mut self, number: u64) -> bool {
        let _ = number;
        false
    }

    /// The trie of the state, where its root is one in the sense of Ethereum: simulated blocks then
    /// have such roots, too.
    fn trie(&mut self) -> Option<StateTrie> {
        None
    }

    /// Says that these keys are likely to be asked for, so that they can be fetched together.
    fn prefetch(&mut self, keys: &[Key]) {
        let _ = keys;
    }
}

/// Answers a question about the state that `reader` reads, on the chain with that id.
///
/// It executes up to a block's gas, so it belongs on a thread that may be kept busy.
///
/// # Errors
/// [`QueryError`]: see there.
pub fn answer(chain_id: u64, reader: &mut dyn Reader, query: &Query) -> Result<Answer, QueryError> {
    match query {
        Query::Account(address) => account(&Base::new(reader), address),
        Query::Code(address) => code(&Base::new(reader), address),
        Query::Storage(address, slots) => storage(&Base::new(reader), address, slots),
        Query::Proof(..) => Err(QueryError::Unsupported(NO_TRIE.to_owned())),
        Query::Simulate(simulation) => simulate(chain_id, reader, simulation),
    }
}

fn account(base: &Base<'_>, address: &Address) -> Result<Answer, QueryError> {
    base.prefetch(&[keys::account(address), keys::code_record(address)]);
    let Found { record, code } = base.account(address)?;
    let record = record.unwrap_or_default();
    let account = Account { balance: record.balance, nonce: record.nonce, code_hash: code.hash };
    Ok(Answer::Account(account))
}

fn code(base: &Base<'_>, address: &Address) -> Result<Answer, QueryError> {
    let code = base.account(address)?.code.hash.map(|hash| base.code(&hash)).transpose()?;
    Ok(Answer::Code(code.map(|code| code.original_bytes()).unwrap_or_default()))
}

fn storage(base: &Base<'_>, address: &Address, slots: &[U256]) -> Result<Answer, QueryError> {
    let mut likely = vec![keys::code_record(address)];
    likely.extend(slots.iter().map(|slot| keys::storage(address, 0, *slot)));
    base.prefetch(&likely);
    let words = slots.iter().map(|slot| base.word(address, *slot).map(B256::from));
    Ok(Answer::Storage(words.collect::<Result<_, _>>()?))
}

fn simulate(
    chain_id: u64,
    reader: &mut dyn Reader,
    simulation: &Simulation,
) -> Result<Answer, QueryError> {
    reader.prefetch(&likely_keys(simulation));
    let number = simulation.environment.number;
    let replays = matches!(simulation.task, Task::TraceAll { .. } | Task::Trace { .. })
        && reader.calls_system(number);
    let mut machine = Machine::new(chain_id, reader, &simulation.environment)?;
    if replays && in_block(simulation) {
        let parent = machine.world().db.hash(number.saturating_sub(1))?;
        system::open(&mut machine, &simulation.environment, parent)?;
    }
    if let Task::TraceAll { options } = &simulation.task {
        return trace_all(&mut machine, &simulation.before, options).map(Answer::Traces);
    }
    for recorded in &simulation.before {
        let terms = recorded_terms(&machine, recorded)?;
        let result = machine.execute(&terms).map_err(Failure::of_recorded)?;
        machine.commit(result.state);
    }
    let (world, precompiles) = machine.parts();
    overrides::apply(world, precompiles, &simulation.overrides)?;
    match &simulation.task {
        Task::Call(request) => call::call(&mut machine, request).map(Answer::Call),
        Task::Estimate(request) => call::estimate(&mut machine, request).map(Answer::Gas),
        Task::AccessList(request) => access::list(&mut machine, request).map(Answer::AccessList),
        Task::Trace { what, options } => {
            let trace = trace_one(&mut machine, what, simulation.before.len(), options)?;
            Ok(Answer::Traces(vec![trace]))
        }
        Task::TraceAll { options } => {
            trace_all(&mut machine, &simulation.before, options).map(Answer::Traces)
        }
        Task::Blocks(payload) => {
            blocks::simulate(chain_id, &mut machine, &simulation.environment, payload)
                .map(Answer::Blocks)
        }
    }
}

/// Whether it happens inside a block, rather than after it.
fn in_block(simulation: &Simulation) -> bool {
    !simulation.before.is_empty()
        || matches!(simulation.task, Task::Trace { what: Traced::Recorded(_), .. })
}

fn trace_one(
    machine: &mut Machine<'_>,
    what: &Traced,
    index: usize,
    options: &GethDebugTracingOptions,
) -> Result<TransactionTrace, QueryError> {
    match what {
        Traced::Call(request) => {
            let terms = request::terms(machine, request)?;
            trace::trace(machine, &terms, Which::default(), options)
                .map_err(|failure| failure.of_call(terms.tx.gas_limit))
        }
        Traced::Recorded(recorded) => {
            let terms = recorded_terms(machine, recorded)?;
            trace::trace(machine, &terms, Which::new(recorded, index), options)
                .map_err(Failure::of_recorded)
        }
    }
}

/// Traces all transactions of a block, as far as they go together in one answer.
fn trace_all(
    machine: &mut Machine<'_>,
    block: &[Recorded],
    options: &GethDebugTracingOptions,
) -> Result<Vec<TransactionTrace>, QueryError> {
    let mut traces = Vec::with_capacity(block.len());
    let mut bytes = 0;
    for (index, recorded) in block.iter().enumerate() {
        let terms = recorded_terms(machine, recorded)?;
        let which = Which::new(recorded, index);
        let trace = match trace::trace(machine, &terms, which, options) {
            Ok(trace) => trace,
            Err(Failure::Invalid(_, reason)) => {
                TransactionTrace { hash: which.hash, outcome: Err(reason) }
            }
            Err(Failure::Query(error)) => return Err(error),
        };
        bytes += trace.outcome.as_ref().map_or(0, |json| json.get().len());
        trace::check_size(bytes)?;
        traces.push(trace);
    }
    Ok(traces)
}

/// The terms of a transaction of a block.
fn recorded_terms(machine: &Machine<'_>, recorded: &Recorded) -> Result<Terms, QueryError> {
    let signed = payload::decode(&recorded.raw)
        .map_err(|rejection| QueryError::Invalid(rejection.detail))?;
    Ok(machine.terms(payload::environment(signed, recorded.sender)))
}

/// The keys that a simulation is sure or likely to read.
fn likely_keys(simulation: &Simulation) -> Vec<Key> {
    let mut likely = vec![keys::params()];
    let mut address = |address: &Address| {
        likely.extend([keys::account(address), keys::code_record(address)]);
    };
    address(&simulation.environment.coinbase);
    simulation.before.iter().for_each(|recorded| address(&recorded.sender));
    if let Task::Call(request)
    | Task::Estimate(request)
    | Task::AccessList(request)
    | Task::Trace { what: Traced::Call(request), .. } = &simulation.task
    {
        likely.extend(likely_keys_of(request));
    }
    likely
}

fn likely_keys_of(request: &TransactionRequest) -> Vec<Key> {
    let mut likely = Vec::new();
    let from = request.from.unwrap_or_default();
    let to = request.to.as_ref().and_then(TxKind::to);
    for address in [Some(&from), to].into_iter().flatten() {
        likely.extend([keys::account(address), keys::code_record(address)]);
    }
    for item in request.access_list.iter().flat_map(|list| list.iter()) {
        likely.extend([keys::account(&item.address), keys::code_record(&item.address)]);
        let slots = item.storage_keys.iter();
        // An address whose contract was never destroyed is in incarnation 0.
        likely
            .extend(slots.map(|slot| keys::storage(&item.address, 0, U256::from_be_bytes(slot.0))));
    }
    likely
}
