//! What the scheduler costs by itself: one thread that runs transactions through the state machine
//! of a partition, against one thread that executes the same transactions in order without any
//! scheduling. `cargo run --release -p parsec-bench --example scheduler`; an argument chooses the
//! rows that contain it.
//!
//! Both have their state in memory, take the same transactions as they were decoded a moment ago,
//! and keep every receipt. The plain thread looks values up in a hash map, executes, and writes
//! back. Both take turns, epoch by epoch, so that a machine that becomes slower halfway does not tilt
//! the ratio; times are those that the thread had a processor. Receipts are compared in every epoch,
//! the state once.

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use parsec_bench::draw::{Pairs, Skew};
use parsec_bench::workload::{
    Erc20, Erc20Options, LoadTransaction, NativeTransfer, PaymentOptions, Workload,
};
use parsec_executor_core::{EpochContext, EpochWrite, Output, Partition, Task};
use parsec_protocol::codec::{self, Malformed};
use parsec_protocol::transaction::{Batch, Entry, LaneId};
use parsec_protocol::{
    Access, Change, EpochNumber, EpochRecord, Footprint, Key, Mode, Outcome, PartitionId,
    PartitionMap, Position, Receipt, Role, RuntimeId, ShortBytes, Transaction, TxId, Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::native::Program;
use parsec_runtimes::{Call, Execution, Recorder, Runtimes, Sessions};

/// As in `parsec` itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHAIN_ID: u64 = 1;
const ACCOUNTS: u32 = 2_000;
/// As many as a batch has under load.
const EPOCH_TRANSACTIONS: usize = 100;
/// The one before it warms the partition.
const FIRST_EPOCH: u64 = 2;
const ROUNDS: usize = 9;
const SKEWS: [(&str, Skew); 3] = [
    ("no contention", Skew::Turns),
    ("Zipf 0.99", Skew::Zipf { exponent: 0.99 }),
    ("one hot key", Skew::OnePayee),
];

fn main() -> Result<(), Box<dyn Error>> {
    let only = std::env::args().nth(1).unwrap_or_default();
    println!("{:<34} {:>9} {:>9}  ratio (median of {ROUNDS}, least, most)", "", "plain", "graph");
    for (contention, skew) in SKEWS {
        let payments =
            PaymentOptions { seed: 1, accounts: ACCOUNTS, skew, ..PaymentOptions::default() };
        let name = |kind: &str| Some(format!("{kind}, {contention}")).filter(|n| n.contains(&only));
        let mut native = NativeTransfer::new(payments)?;
        if let Some(name) = name("native, 4 keys") {
            compare(&name, &native.setup_all(), &four_keys(native.keys(), skew)?)?;
        }
        if let Some(name) = name("native, 2 keys") {
            let load = native.build(40_000, &|_| {});
            compare(&name, &native.setup_all(), &plain(load))?;
        }
        if let Some(name) = name("ERC-20") {
            let mut tokens = Erc20::new(Erc20Options { payments, chain_id: CHAIN_ID })?;
            let load = tokens.build(20_000, &|_| {});
            compare(&name, &tokens.setup_all(), &plain(load))?;
        }
    }
    Ok(())
}

/// What a workload sets up, in one list.
trait SetupAll: Workload {
    fn setup_all(&self) -> Vec<Transaction> {
        self.setup().into_iter().flat_map(|stage| plain(stage.transactions)).collect()
    }
}

impl<W: Workload> SetupAll for W {}

fn plain(load: Vec<LoadTransaction>) -> Vec<Transaction> {
    load.into_iter().map(|each| each.transaction).collect()
}

/// Procedures of two transfers between four accounts of [`NativeTransfer`].
fn four_keys(keys: &[Key], skew: Skew) -> Result<Vec<Transaction>, Box<dyn Error>> {
    let mut pairs = Pairs::new(1, ACCOUNTS, skew)?;
    let key = |account: u32| &keys[account as usize];
    let mut transactions = Vec::new();
    while transactions.len() < 40_000 {
        let ((a, b), (c, mut d)) = (pairs.next_pair(), pairs.next_pair());
        if skew == Skew::OnePayee {
            d = c % (ACCOUNTS - 2) + 2;
        }
        let accounts = [a, b, c, d];
        if (1..4).any(|n| accounts[..n].contains(&accounts[n])) {
            continue;
        }
        let program = Program::new().transfer(key(a), key(b), 5).transfer(key(c), key(d), 7);
        transactions.push(program.into_transaction(transactions.len() as u128));
    }
    Ok(transactions)
}

#[derive(Default, Clone)]
struct State(HashMap<Key, Value, ahash::RandomState>);

impl Source for State {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

impl State {
    /// Executes one transaction, the plain way.
    fn execute(
        &mut self,
        sessions: &mut Sessions,
        context: &EpochContext,
        index: u32,
        entry: &Entry,
    ) -> Result<Receipt, String> {
        let accesses = entry.footprint.accesses();
        let values: Vec<_> = accesses.iter().map(|a| self.0.get(&a.key).cloned()).collect();
        let (record, entropy) = (&context.record, &context.entropy);
        let done = Execution::run(sessions, entry, record, entropy, index, &values)?;
        for ((access, value), change) in accesses.iter().zip(&values).zip(&done.changes) {
            if !access.mode.may_change() {
                continue;
            }
            match change.apply(value.as_ref()) {
                Some(value) => drop(self.0.insert(access.key.clone(), value)),
                None => drop(self.0.remove(&access.key)),
            }
        }
        Ok(done.receipt)
    }
}

fn compare(name: &str, setup: &[Transaction], load: &[Transaction]) -> Result<(), Box<dyn Error>> {
    let runtimes = Runtimes::standard(CHAIN_ID);
    let mut sessions = runtimes.sessions();
    let mut state = State::default();
    let context = Arc::new(context(1));
    for transaction in setup {
        let entry = entry(&runtimes, &mut sessions, &state, transaction, &context)?;
        state.execute(&mut sessions, &context, 0, &entry)?;
    }
    let entries: Result<Vec<_>, _> =
        load.iter().map(|t| entry(&runtimes, &mut sessions, &state, t, &context)).collect();
    let entries = entries?;
    let batches: Vec<_> = entries.chunks(EPOCH_TRANSACTIONS).map(encode).collect();
    // The first round warms everything up, and shows that both come to the same state.
    let mut times = Vec::new();
    for round in 0..=ROUNDS {
        times.push(race(&mut sessions, &state, &batches, round == 0)?);
    }
    report(name, load.len(), &times[1..]);
    Ok(())
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let (lane, entries) = (LaneId(0), entries.to_vec());
    codec::encode(&Batch {
        lane,
        sequence: 1,
        map_version: 1,
        entries: entries.into_iter().map(Arc::new).collect(),
    })
}

/// What both took for all batches.
fn race(
    sessions: &mut Sessions,
    state: &State,
    batches: &[Vec<u8>],
    look: bool,
) -> Result<[Duration; 2], Box<dyn Error>> {
    let mut plain = state.clone();
    let mut graph = Graph { written: look.then(Vec::new), ..warm(state)? };
    let mut times = [Duration::ZERO; 2];
    for (number, batch) in (FIRST_EPOCH..).zip(batches) {
        let context = Arc::new(context(number));
        let entries = codec::decode::<Batch>(batch)?.entries;
        let mut expected = Vec::with_capacity(entries.len());
        let started = processor_time();
        for (index, entry) in (0..).zip(entries) {
            // Dropped when it is done, as in the graph.
            expected.push(plain.execute(sessions, &context, index, &entry)?);
        }
        times[0] += processor_time() - started;
        if let Some(other) = expected.iter().find(|receipt| !receipt.is_committed()) {
            return Err(format!("a transaction does not commit: {:?}", other.outcome).into());
        }

        let entries = codec::decode::<Batch>(batch)?.entries;
        let alone = |entry| Role::Home { entry, forwards: Vec::new() };
        let roles = (0..).zip(entries.into_iter().map(alone)).collect();
        graph.receipts = Vec::with_capacity(expected.len());
        let started = processor_time();
        graph.partition.on_epoch(context, roles);
        graph.run(|Task { context, index, entry, values, .. }| {
            Execution::run(sessions, entry, &context.record, &context.entropy, *index, values)
        })?;
        times[1] += processor_time() - started;

        graph.receipts.sort_by_key(|receipt| receipt.position);
        if !graph.receipts.iter().map(AsRef::as_ref).eq(&expected) {
            return Err("the receipts differ from those of one thread".into());
        }
    }
    if let Some(written) = graph.written {
        compare_states(state.clone(), written, &plain)?;
    }
    Ok(times)
}

fn compare_states(
    mut state: State,
    written: Vec<EpochWrite>,
    expected: &State,
) -> Result<(), Box<dyn Error>> {
    for write in written {
        match write.new {
            Some(value) => drop(state.0.insert(write.key, value)),
            None => drop(state.0.remove(&write.key)),
        }
    }
    match state.0 == expected.0 {
        true => Ok(()),
        false => Err("the state differs from that of one thread".into()),
    }
}

fn report(name: &str, count: usize, times: &[[Duration; 2]]) {
    let seconds = |side: usize| times.iter().map(move |pair| pair[side].as_secs_f64());
    let each = |side| median(seconds(side)) * 1e9 / count as f64;
    let ratios: Vec<f64> = seconds(0).zip(seconds(1)).map(|(plain, graph)| plain / graph).collect();
    println!(
        "{name:<34} {:>6.0} ns {:>6.0} ns  {:.2} ({:.2} to {:.2})",
        each(0),
        each(1),
        median(ratios.iter().copied()),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn context(number: u64) -> EpochContext {
    let record = EpochRecord {
        number: EpochNumber(number),
        timestamp_ms: 1_800_000_000_000,
        block: number,
        parent: [0; 32],
        batches: Vec::new(),
    };
    EpochContext { entropy: record.digest(), record }
}

/// The transaction as it would be ordered.
fn entry(
    runtimes: &Runtimes,
    sessions: &mut Sessions,
    state: &State,
    transaction: &Transaction,
    context: &EpochContext,
) -> Result<Entry, Box<dyn Error>> {
    let runtime = runtimes.get(transaction.runtime).ok_or("the runtime is there")?;
    let admitted = runtime.admit(transaction)?;
    let mut entry = Entry {
        id: admitted.id,
        runtime: transaction.runtime,
        sender: admitted.sender,
        payload: transaction.payload.clone(),
        ..empty_entry(Footprint::default())
    };
    let mut recorder = Recorder::new(state);
    let call = Call {
        id: &entry.id,
        sender: &entry.sender,
        payload: &entry.payload,
        epoch: &context.record,
        entropy: &context.entropy,
        trial: true,
    };
    sessions.execute(entry.runtime, &call, &mut recorder).map_err(|why| format!("{why:?}"))?;
    entry.footprint = recorder.finish()?.footprint;
    Ok(entry)
}

fn empty_entry(footprint: Footprint) -> Entry {
    Entry {
        id: TxId([0; 32]),
        runtime: RuntimeId::NATIVE,
        attempt: 0,
        home: PartitionId(0),
        sender: Bytes::new(),
        payload: Bytes::new(),
        footprint,
        expires: None,
    }
}

fn empty_receipt(position: Position) -> Receipt {
    Receipt {
        id: TxId([0; 32]),
        position,
        attempt: 0,
        outcome: Outcome::Committed,
        work: 0,
        output: ShortBytes::new(),
        events: Vec::new(),
    }
}

/// How long this thread has had a processor.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// A partition whose keys are all in memory, as after some time of the same load: it has executed
/// one epoch of transactions that read them.
fn warm(state: &State) -> Result<Graph<'_>, Box<dyn Error>> {
    let map = Arc::new(PartitionMap::even(1)?);
    let mut partition = Partition::new(PartitionId(0), map, EpochNumber(0));
    let accesses = |key: &Key| Access { key: key.clone(), mode: Mode::Read };
    let accesses: Vec<_> = state.0.keys().map(accesses).collect();
    let reader = |accesses: &[Access]| {
        let footprint = Footprint::new(accesses.to_vec())?;
        Ok(Role::Home { entry: Arc::new(empty_entry(footprint)), forwards: Vec::new() })
    };
    let readers: Result<Vec<_>, Malformed> = accesses.chunks(1_000).map(reader).collect();
    partition.on_epoch(Arc::new(context(1)), (0..).zip(readers?).collect());
    let mut graph = Graph { partition, store: state, receipts: Vec::new(), written: None };
    graph.run(|task| {
        let position = Position { epoch: EpochNumber(1), index: task.index };
        let changes = vec![Change::Keep; task.values.len()];
        Ok(Execution { changes, receipt: empty_receipt(position) })
    })?;
    Ok(graph)
}

/// One thread that runs what a partition has ready, and keeps what comes out.
struct Graph<'a> {
    partition: Partition,
    store: &'a State,
    receipts: Vec<Arc<Receipt>>,
    /// All that was written, if that is to be looked at.
    written: Option<Vec<EpochWrite>>,
}

impl Graph<'_> {
    fn run(
        &mut self,
        mut execute: impl FnMut(&Task) -> Result<Execution, String>,
    ) -> Result<(), Box<dyn Error>> {
        loop {
            while let Some(output) = self.partition.poll_output() {
                match output {
                    Output::Fetch { index, key } => {
                        self.partition.on_fetched(index, self.store.0.get(&key).cloned());
                    }
                    Output::Receipt(receipt) => self.receipts.push(receipt),
                    Output::Finished(epoch) => {
                        self.partition.on_stored(epoch.epoch);
                        if let Some(written) = &mut self.written {
                            written.extend(epoch.writes);
                        }
                    }
                    Output::Push(_) => return Err("there is one partition".into()),
                }
            }
            let Some(task) = self.partition.take_ready() else { return Ok(()) };
            let done = execute(&task)?;
            self.partition.on_executed(task, done.changes, done.receipt);
        }
    }
}
