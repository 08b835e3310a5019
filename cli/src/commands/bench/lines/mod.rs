//! What a run is held against: what one thread does with the same transactions, and what can't be
//! avoided for each of them. Measured in the same run: right after each repeat, when the cluster has
//! nothing to do, because a shared machine is faster at one moment than at another.
//!
//! Times are those that the one thread ran on a core, so that whatever else the machine does makes
//! neither line lower than it is.

mod plain;

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use parsec_bench::record::{Cost, Lines, MedianRange, Run};
use parsec_bench::workload::{Commits, LoadTransaction, Reverts, Workload, WorkloadSpec};
use parsec_protocol::message::{ClientMessage, ClientReceipt, ServerMessage};
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, Key, LaneId, Outcome, Receipt, RuntimeId, Transaction, Value,
    codec,
};
use parsec_runtimes::evm::chronicle::{Chronicle, Executed, Parent};
use parsec_storage::{Digest, LogOptions, LogWriter};
use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Context, Failure, failed};
use plain::{Change, PlainThread};

/// Transactions that are built and executed at a time.
const CHUNK: usize = 5_000;
/// Least chunks of a measurement: one of them may be disturbed.
const CHUNKS_MIN: usize = 3;
/// Transactions of a batch, and of a submission.
const BATCH: usize = 1_000;
/// Enough is measured when executing took so long, over all measurements, ...
const EXECUTING: Duration = Duration::from_millis(1_000);
/// ... or everything did, ...
const MEASURING: Duration = Duration::from_secs(5);
/// ... or so many transactions were measured in one.
const TRANSACTIONS_MAX: usize = 400_000;

/// What the stages cost so far.
#[derive(Default)]
struct Spent {
    transactions: usize,
    admission: Duration,
    execution: Duration,
    /// What admission and execution took for each transaction, microseconds, chunk by chunk: in one
    /// of them a table may have grown, or the machine was somebody else's.
    each: Vec<[f64; 2]>,
    encoding: Duration,
    log: Duration,
    digests: Duration,
    blocks: Duration,
    /// The transactions that `encoding`, `log`, `digests` and `blocks` are of.
    handled: usize,
}

/// Measures the lines of a run whose cluster has stopped, with the first transactions of its
/// workload.
///
/// # Errors
/// As [`Meter::measure`] and [`Meter::end`].
pub(super) fn of(run: &Run, bar: &ProgressBar) -> Result<Lines, Failure> {
    let spec = serde_json::from_value(run.workload.spec.clone()).context("the workload")?;
    tokio::task::block_in_place(|| {
        let mut meter = Meter::new(&spec, 1, bar)?;
        let lines = meter.measure(bar)?;
        meter.end()?;
        Ok(lines)
    })
}

/// One thread that executes a workload from its beginning, a part in each measurement.
pub(super) struct Meter {
    workload: Box<dyn Workload>,
    thread: PlainThread,
    /// How many measurements there will be.
    times: u32,
}

impl Meter {
    /// Sets a workload up, to be measured so many times.
    ///
    /// # Errors
    /// If one thread can't set it up.
    pub(super) fn new(spec: &WorkloadSpec, times: u32, bar: &ProgressBar) -> Result<Self, Failure> {
        let workload = spec.open().context("the workload")?;
        let mut thread = PlainThread::new(spec.chain_id);
        bar.set_message("one thread: setting up");
        set_up(&mut thread, &*workload)?;
        Ok(Self { workload, thread, times: times.max(1) })
    }

    /// Measures the next transactions.
    ///
    /// # Errors
    /// If one can't be executed.
    pub(super) fn measure(&mut self, bar: &ProgressBar) -> Result<Lines, Failure> {
        bar.set_message("one thread: measuring");
        let mut spent = Spent::default();
        while spent.is_too_short(self.times) {
            let load = self.workload.build(CHUNK, &|_| {});
            spent.measure(&mut self.thread, load)?;
            bar.set_position(u64::try_from(spent.transactions).unwrap_or(u64::MAX));
        }
        bar.finish_and_clear();
        Ok(spent.lines())
    }

    /// Checks what the thread has come to.
    ///
    /// # Errors
    /// If that is not what the workload says must be so.
    pub(super) fn end(self) -> Result<(), Failure> {
        audit(&self.thread, &*self.workload)
    }
}

fn set_up(thread: &mut PlainThread, workload: &dyn Workload) -> Result<(), Failure> {
    thread.endow(&workload.genesis());
    for stage in workload.setup() {
        for LoadTransaction { transaction, .. } in stage.transactions {
            let entry = thread.admit(&transaction)?;
            let receipt = thread.execute(&entry, None)?;
            let tolerated =
                matches!(receipt.outcome, Outcome::Reverted(code) if stage.tolerated == Some(code));
            if receipt.outcome != Outcome::Committed && !tolerated {
                return Err(failed(format!(
                    "one thread, {}: {:?}",
                    stage.purpose, receipt.outcome
                )));
            }
        }
    }
    thread.begin_load();
    Ok(())
}

fn audit(thread: &PlainThread, workload: &dyn Workload) -> Result<(), Failure> {
    let audit = workload.audit();
    let value = |key: &Key| thread.get(key).cloned();
    let values: Vec<Option<Value>> = audit.keys().map(value).collect();
    let commits = match workload.reverts() {
        Reverts::Never | Reverts::Exactly(_) => Commits::All,
        Reverts::Perhaps(_) => {
            Commits::Between { least: thread.committed(), most: thread.committed() }
        }
    };
    audit.check(&values, commits).context("one thread, audit")
}

impl Spent {
    /// Whether more has to be measured, if that is done so many times.
    fn is_too_short(&self, times: u32) -> bool {
        let handled = self.encoding + self.log + self.digests + self.blocks;
        let all = self.admission + self.execution + handled;
        let is_short = self.execution < EXECUTING / times
            && all < MEASURING / times
            && self.transactions < TRANSACTIONS_MAX;
        is_short || self.each.len() < CHUNKS_MIN
    }

    /// Admits and executes these transactions. Of the first ones, what else must be done for them
    /// is measured, too.
    fn measure(
        &mut self,
        thread: &mut PlainThread,
        load: Vec<LoadTransaction>,
    ) -> Result<(), Failure> {
        let count = load.len();
        let transactions: Vec<_> = load.into_iter().map(|load| load.transaction).collect();
        let started = now();
        let entries: Vec<Entry> = transactions
            .iter()
            .map(|transaction| thread.admit(transaction))
            .collect::<Result<_, _>>()?;
        let admission = now() - started;
        let mut changes = (self.handled == 0).then(Vec::new);
        thread.begin_epoch();
        let started = now();
        let receipts: Vec<Receipt> = entries
            .iter()
            .map(|entry| thread.execute(entry, changes.as_mut()))
            .collect::<Result<_, _>>()?;
        let execution = now() - started;
        self.each.push([micros(admission, count), micros(execution, count)]);
        self.admission += admission;
        self.execution += execution;
        self.transactions += count;
        if let Some(changes) = changes {
            self.handled = count;
            let batches: Vec<_> = (1..).zip(entries.chunks(BATCH)).map(batch).collect();
            self.encoding = encoding(&transactions, &batches, &receipts)?;
            self.log = log(&batches)?;
            self.digests = digests(&changes, &receipts);
            self.blocks = blocks(&entries, receipts)?;
        }
        Ok(())
    }

    fn lines(&self) -> Lines {
        let [admission, execution] = [0, 1].map(|stage: usize| {
            let each = MedianRange::of(self.each.iter().map(|each| each[stage]));
            each.map_or(0.0, |each| each.median)
        });
        let handled = |spent| micros(spent, self.handled);
        let mut costs = vec![
            ("admission (decoding, signature, id)", admission),
            ("execution", execution),
            ("encoding (submission, batch, receipts)", handled(self.encoding)),
            ("log (hash chain, append, sync)", handled(self.log)),
            ("digests (state, receipts)", handled(self.digests)),
        ];
        if !self.blocks.is_zero() {
            costs.push(("blocks (roots, bloom filter, header)", handled(self.blocks)));
        }
        let cost = |(stage, micros): (&str, f64)| Cost { stage: stage.to_owned(), micros };
        Lines {
            one_thread_tps: 1e6 / execution,
            one_thread_with_signatures_tps: 1e6 / (admission + execution),
            costs: costs.into_iter().map(cost).collect(),
        }
    }
}

fn micros(spent: Duration, transactions: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / transactions.max(1) as f64
}

fn batch((sequence, entries): (u64, &[Entry])) -> Batch {
    Batch {
        lane: LaneId(0),
        sequence,
        map_version: 1,
        entries: entries.iter().cloned().map(Arc::new).collect(),
    }
}

/// A submission is read, a batch is written and read, and so are its receipts.
fn encoding(
    transactions: &[Transaction],
    batches: &[Batch],
    receipts: &[Receipt],
) -> Result<Duration, Failure> {
    let submit = |some: &[_]| {
        codec::encode(&ClientMessage::Submit { request: 1, transactions: some.to_vec() })
    };
    let submissions: Vec<_> = transactions.chunks(BATCH).map(submit).collect();
    let answer = |some: &[Receipt]| {
        let one = |receipt: &Receipt| ClientReceipt {
            request: 1,
            index: 0,
            receipt: receipt.clone().into(),
        };
        ServerMessage::Receipts(some.iter().map(one).collect())
    };
    let answers: Vec<_> = receipts.chunks(BATCH).map(answer).collect();
    let started = now();
    for submission in &submissions {
        codec::decode::<ClientMessage>(submission).context("a submission")?;
    }
    for batch in batches {
        codec::decode::<Batch>(&codec::encode(batch)).context("a batch")?;
    }
    for answer in &answers {
        codec::decode::<ServerMessage>(&codec::encode(answer)).context("receipts")?;
    }
    Ok(now() - started)
}

/// The batches are hashed, appended and made durable, one after another.
fn log(batches: &[Batch]) -> Result<Duration, Failure> {
    let encoded: Vec<_> = batches.iter().map(codec::encode).collect();
    let directory = tempfile::tempdir().context("a directory for a log")?;
    let opened = LogWriter::open(directory.path(), [0; 32], LogOptions::default());
    let (mut log, _) = opened.context("a log")?;
    let mut parent = [0; 32];
    let started = now();
    for (number, (batch, encoded)) in (1..).zip(batches.iter().zip(&encoded)) {
        let reference = batch.reference(encoded);
        log.append_batch(&reference, encoded).context("a log")?;
        let epoch = EpochRecord {
            number: EpochNumber(number),
            timestamp_ms: 1,
            block: 0,
            parent,
            batches: vec![reference],
        };
        parent = epoch.digest();
        log.append_epoch(&epoch).context("a log")?;
        log.sync().context("a log")?;
    }
    Ok(now() - started)
}

fn digests(changes: &[Change], receipts: &[Receipt]) -> Duration {
    let started = now();
    let mut state = Digest::ZERO;
    // About as many at a time as an epoch has.
    for changes in changes.chunks(BATCH) {
        state.update_all(changes.iter().map(|it| (&it.key, it.old.as_ref(), it.new.as_ref())));
    }
    for receipt in receipts {
        state.add(Digest(receipt.digest()));
    }
    std::hint::black_box(state);
    now() - started
}

/// The blocks that Ethereum transactions come to; nothing for others.
fn blocks(entries: &[Entry], receipts: Vec<Receipt>) -> Result<Duration, Failure> {
    let of_evm = entries.iter().zip(receipts).filter(|(entry, _)| entry.runtime == RuntimeId::EVM);
    let mut executed = of_evm.map(|(entry, receipt)| Executed {
        sender: entry.sender.clone(),
        payload: entry.payload.clone(),
        receipt,
    });
    let next = || Some(executed.by_ref().take(BATCH).collect::<Vec<_>>());
    let blocks: Vec<_> = std::iter::from_fn(next).take_while(|block| !block.is_empty()).collect();
    if blocks.is_empty() {
        return Ok(Duration::ZERO);
    }
    let chronicle = Chronicle::new(1, None).context("blocks")?;
    let mut parent = Parent::from(&chronicle.genesis(None, [0; 32]).context("blocks")?);
    let started = now();
    for (number, executed) in (1..).zip(blocks) {
        let record = EpochRecord {
            number: EpochNumber(number),
            timestamp_ms: 1,
            block: number,
            parent: [0; 32],
            batches: Vec::new(),
        };
        let block = chronicle.block(&parent, &record, [0; 32], executed).context("blocks")?;
        parent = (&block).into();
    }
    Ok(now() - started)
}

/// How long this thread has run.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_is_counted_and_sleeping_is_not() {
        let started = now();
        std::thread::sleep(Duration::from_millis(50));
        assert!(now() - started < Duration::from_millis(40));
        while now() - started < Duration::from_millis(20) {}
    }

    #[test]
    fn many_measurements_take_no_longer_than_a_few_but_for_the_least_of_each() {
        let ms = Duration::from_millis;
        let each = || vec![[1.0, 1.0]; CHUNKS_MIN];
        let spent = Spent { execution: ms(400), each: each(), ..Spent::default() };
        assert!(spent.is_too_short(1) && spent.is_too_short(2) && !spent.is_too_short(3));
        let spent = Spent { admission: ms(2_000), each: each(), ..Spent::default() };
        assert!(spent.is_too_short(2) && !spent.is_too_short(3));
        let spent = Spent { transactions: TRANSACTIONS_MAX, each: each(), ..Spent::default() };
        assert!(!spent.is_too_short(1));
        let spent = Spent { execution: ms(9_000), each: vec![[1.0, 1.0]], ..Spent::default() };
        assert!(spent.is_too_short(9), "one chunk has no median");
    }

    #[test]
    fn what_costs_more_is_seen_to_cost_more() {
        let ms = Duration::from_millis;
        let spent = Spent {
            transactions: 1_000,
            // The third one was disturbed.
            each: vec![[39.0, 10.0], [40.0, 9.0], [90.0, 20.0], [38.0, 11.0], [41.0, 9.5]],
            handled: 100,
            encoding: ms(1),
            log: ms(2),
            digests: ms(3),
            blocks: ms(4),
            ..Spent::default()
        };
        let lines = spent.lines();
        assert!((lines.one_thread_tps - 1e5).abs() < 1.0);
        assert!((lines.one_thread_with_signatures_tps - 2e4).abs() < 1.0);
        assert!((lines.limit_micros() - 150.0).abs() < 1e-6);
    }

    #[test]
    fn one_thread_executes_every_kind_of_transaction_and_what_it_leaves_is_audited() {
        for name in ["erc20", "lua-pay", "native-transfer-4", "smallbank", "swap"] {
            let accounts = Some(50);
            let spec =
                WorkloadSpec { accounts, ..WorkloadSpec::new(name.parse().unwrap(), 1, 1_234) };
            let mut meter = Meter::new(&spec, 2, &ProgressBar::hidden()).unwrap();
            for _ in 0..2 {
                let mut spent = Spent::default();
                let load = meter.workload.build(150, &|_| {});
                spent.measure(&mut meter.thread, load).unwrap();
                let lines = spent.lines();
                assert!(lines.one_thread_tps > lines.one_thread_with_signatures_tps, "{name}");
                assert!(lines.costs.iter().all(|cost| cost.micros > 0.0), "{name}: {lines:?}");
            }
            audit(&meter.thread, &*meter.workload).unwrap();
            // Transactions that it should have executed and did not are noticed, where each has
            // an effect.
            drop(meter.workload.build(100, &|_| {}));
            let never_reverts = meter.workload.reverts() == Reverts::Never;
            assert_eq!(meter.end().is_err(), never_reverts, "{name}");
        }
    }
}
