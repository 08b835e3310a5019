//! Measures what executing transactions of a recorded block costs, one thread, values at hand.
//!
//! `cargo run --release -p parsec-runtimes --example evm_cost -- BLOCK.json BYTECODES.json`
//!
//! Every transaction that succeeds is executed again and again, over the values of its footprint,
//! as an executor would. Printed per kind of call: how many, the mean gas and time of each, and
//! gas and time of the fastest.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    EpochNumber, EpochRecord, Footprint, Key, PartitionId, RuntimeId, Transaction, Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::evm::EvmRuntime;
use parsec_runtimes::evm::import::{Bytecodes, ImportedBlock};
use parsec_runtimes::{Call, Execution, Recorder, Runtime, Runtimes, Sessions};

const ROUNDS: u32 = 2_000;
const ENTROPY: [u8; 32] = [0; 32];

struct Snapshot(BTreeMap<Key, Value>);

impl Source for Snapshot {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(block), Some(codes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: evm_cost BLOCK.json BYTECODES.json".into());
    };
    let codes = Bytecodes::read(&std::fs::read(codes)?)?;
    let block = ImportedBlock::read(&std::fs::read(block)?, &codes)?;
    let mut state = Snapshot(block.genesis().into_iter().collect());
    let runtime = EvmRuntime::for_import(block.params.chain_id);
    let mut sessions = Runtimes::new(vec![Arc::new(runtime.clone())]).sessions();
    let mut costs: BTreeMap<String, Vec<(u128, u64)>> = BTreeMap::new();
    for transaction in &block.transactions {
        let (entry, values) = prepare(&runtime, &mut sessions, &state, &transaction.raw)?;
        let execution = execute(&mut sessions, &entry, &values)?;
        if execution.receipt.is_committed() {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                execute(&mut sessions, &entry, &values)?;
            }
            let cost = (start.elapsed().as_nanos() / u128::from(ROUNDS), execution.receipt.work);
            costs.entry(kind(&transaction.raw)).or_default().push(cost);
        }
        for (access, change) in entry.footprint.accesses().iter().zip(&execution.changes) {
            match change.apply(state.0.get(&access.key)) {
                Some(value) => state.0.insert(access.key.clone(), value),
                None => state.0.remove(&access.key),
            };
        }
    }
    for (kind, mut costs) in costs {
        costs.sort_unstable();
        let count = costs.len();
        let nanos = costs.iter().map(|cost| cost.0).sum::<u128>() / u128::try_from(count)?;
        let gas = costs.iter().map(|cost| cost.1).sum::<u64>() / u64::try_from(count)?;
        let (fastest, its_gas) = costs[0];
        println!(
            "{kind:>10}  {count:>4} transactions  {gas:>9} gas  {nanos:>9} ns each; \
             fastest {its_gas:>9} gas {fastest:>9} ns"
        );
    }
    Ok(())
}

/// The first four bytes of the call data: which method of a contract is called.
fn kind(raw: &[u8]) -> String {
    use alloy_consensus::Transaction as _;
    let input = parsec_runtimes::evm::payload::decode(raw).map(|tx| tx.input().clone());
    match input {
        Ok(input) if input.is_empty() => "transfer".to_owned(),
        Ok(input) => input.iter().take(4).map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => "malformed".to_owned(),
    }
}

fn epoch() -> EpochRecord {
    EpochRecord {
        number: EpochNumber(1),
        timestamp_ms: 0,
        block: 1,
        parent: [0; 32],
        batches: Vec::new(),
    }
}

/// A transaction ready to be executed: with the values of its footprint.
type Prepared = (Entry, Vec<Option<Value>>);

/// Admits a transaction and discovers its footprint.
fn prepare(
    runtime: &EvmRuntime,
    sessions: &mut Sessions,
    state: &Snapshot,
    raw: &bytes::Bytes,
) -> Result<Prepared, Box<dyn Error>> {
    let admitted = runtime.admit(&Transaction::new(RuntimeId::EVM, raw.clone()))?;
    let mut recorder = Recorder::new(state);
    let call = Call {
        id: &admitted.id,
        sender: &admitted.sender,
        payload: raw,
        epoch: &epoch(),
        entropy: &ENTROPY,
        trial: true,
    };
    sessions
        .execute(RuntimeId::EVM, &call, &mut recorder)
        .map_err(|interrupt| format!("{interrupt:?}"))?;
    let footprint: Footprint = recorder.finish()?.footprint;
    let values = footprint.accesses().iter();
    let values = values.map(|access| state.0.get(&access.key).cloned()).collect();
    let entry = Entry {
        id: admitted.id,
        runtime: RuntimeId::EVM,
        attempt: 0,
        home: PartitionId(0),
        sender: admitted.sender,
        payload: raw.clone(),
        footprint,
        expires: None,
    };
    Ok((entry, values))
}

fn execute(
    sessions: &mut Sessions,
    entry: &Entry,
    values: &[Option<Value>],
) -> Result<Execution, Box<dyn Error>> {
    Ok(Execution::run(sessions, entry, &epoch(), &ENTROPY, 0, values)?)
}
