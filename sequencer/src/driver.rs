//! The driver: the one task that owns the order.
//!
//! It takes inputs from everywhere, advances the pure [`Orderer`], and carries its outputs out.
//! It only ever waits for the log and for dispatching, neither of which waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parsec_protocol::message::ClientReceipt;
use parsec_protocol::{Batch, EpochNumber, EpochRecord, ErrorCode, Footprint, Receipt, TxId};
use parsec_sequencer_core::{
    Accepted, Candidate, Offer, Orderer, Output, Rediscovery, SingleLedger, Submitted, Token,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::limits::INPUTS_PER_TURN_MAX;
use crate::log::LogCommand;
use crate::outbox::Outbox;
use crate::stop::Stop;

/// What comes to the driver.
pub(crate) enum Input {
    /// Transactions to be ordered, in their order.
    Submit { unit: Vec<Offer>, answer: oneshot::Sender<Submitted> },
    /// A connection whose tokens may be submitted.
    Connected { connection: u64, outbox: Arc<Outbox> },
    /// A connection whose tokens need no answer any more.
    Gone { connection: u64 },
    /// Receipts from an executor.
    Receipts(Vec<Arc<Receipt>>),
    /// Footprints that were found anew.
    Discovered(Vec<(TxId, u8, Result<Footprint, ErrorCode>)>),
    /// A transaction that writes the summary of all epochs through `through`.
    Summary { through: EpochNumber, write: Box<Candidate> },
}

/// An epoch that is ordered and durable.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) record: EpochRecord,
    pub(crate) batches: Vec<Arc<Batch>>,
}

/// How far the order is, for everyone to see.
#[derive(Debug)]
pub(crate) struct View {
    /// The last epoch that is ordered and durable.
    pub(crate) latest: watch::Sender<Option<Arc<EpochRecord>>>,
    settled: AtomicU64,
    transactions: AtomicU64,
    in_flight: AtomicU64,
    unordered: AtomicU64,
}

impl View {
    pub(crate) fn new(
        latest: Option<EpochRecord>,
        settled: EpochNumber,
        transactions: u64,
    ) -> Self {
        Self {
            latest: watch::Sender::new(latest.map(Arc::new)),
            settled: AtomicU64::new(settled.0),
            transactions: AtomicU64::new(transactions),
            in_flight: AtomicU64::new(0),
            unordered: AtomicU64::new(0),
        }
    }

    /// The number of the last epoch that is ordered and durable.
    pub(crate) fn ordered(&self) -> EpochNumber {
        self.latest.borrow().as_ref().map_or_else(EpochNumber::default, |record| record.number)
    }

    /// The epoch through which every transaction was answered, or ordered again.
    pub(crate) fn settled(&self) -> EpochNumber {
        EpochNumber(self.settled.load(Ordering::Acquire))
    }

    /// Transactions ordered so far.
    pub(crate) fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Acquire)
    }

    /// Transactions taken and not answered yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Transactions taken and not ordered yet.
    pub(crate) fn unordered(&self) -> u64 {
        self.unordered.load(Ordering::Acquire)
    }

    fn on_ordered(&self, record: &EpochRecord) {
        self.transactions.fetch_add(record.transactions(), Ordering::AcqRel);
        self.latest.send_replace(Some(Arc::new(record.clone())));
    }
}

/// What the driver hears without being sent an input: only the last of each counts.
pub(crate) struct Marks {
    pub(crate) durable: watch::Receiver<EpochNumber>,
    pub(crate) applied: watch::Receiver<EpochNumber>,
    pub(crate) indexed: watch::Receiver<EpochNumber>,
}

/// Where the driver's outputs go.
pub(crate) struct Outlets {
    pub(crate) log: mpsc::Sender<LogCommand>,
    pub(crate) dispatch: mpsc::Sender<Ordered>,
    pub(crate) rediscover: mpsc::Sender<Vec<Rediscovery>>,
    pub(crate) summarize: mpsc::Sender<EpochNumber>,
}

/// The one owner of the order.
pub(crate) struct Driver {
    pub(crate) orderer: Orderer<SingleLedger>,
    pub(crate) view: Arc<View>,
    pub(crate) outlets: Outlets,
    pub(crate) connections: AHashMap<u64, Arc<Outbox>>,
    /// Strays that no one has taken yet, those together that are ordered together: as many as are in
    /// flight at most.
    pub(crate) strays: VecDeque<Vec<Rediscovery>>,
    /// When recent epochs were dispatched, to tell how long they take.
    pub(crate) dispatched: VecDeque<(EpochNumber, Instant)>,
    /// Receipts of this turn, by connection: each is woken once for all of them.
    pub(crate) replies: BTreeMap<u64, Vec<ClientReceipt>>,
    pub(crate) stop: Stop,
}

/// As many recent epochs as are remembered to tell how long they take.
const DISPATCH_TIMES_MAX: usize = 1_024;

impl Driver {
    /// Runs until everything is to stop.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut marks: Marks) {
        self.turn(&marks).await;
        while !self.stop.is_stopped() {
            let wait = self.until_timeout();
            let strays = self.outlets.rediscover.clone();
            tokio::select! {
                biased;
                _ = self.stop.stopped() => return,
                changed = marks.durable.changed() => if changed.is_err() { return },
                input = inputs.recv() => match input {
                    Some(input) => self.take_inputs(input, &mut inputs),
                    None => return,
                },
                changed = marks.applied.changed() => if changed.is_err() { return },
                changed = marks.indexed.changed() => if changed.is_err() { return },
                permit = strays.reserve(), if !self.strays.is_empty() => {
                    let (Ok(permit), Some(next)) = (permit, self.strays.pop_front()) else { return };
                    permit.send(next);
                    continue;
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            self.turn(&marks).await;
        }
    }

    fn until_timeout(&self) -> Option<Duration> {
        let due = self.orderer.next_timeout()?;
        Some(Duration::from_micros(due.0.saturating_sub(clock::now().0)))
    }

    fn take_inputs(&mut self, first: Input, inputs: &mut mpsc::Receiver<Input>) {
        self.take(first);
        for _ in 1..INPUTS_PER_TURN_MAX {
            match inputs.try_recv() {
                Ok(input) => self.take(input),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Submit { unit, answer } => {
                let submitted = self.orderer.submit_in_order(unit);
                let verdicts = submitted.verdicts.iter();
                let queued = verdicts.filter(|v| **v == Ok(Accepted::Queued)).count();
                self.view.unordered.fetch_add(queued as u64, Ordering::AcqRel);
                // A connection that is gone does not wait for it.
                answer.send(submitted).ok();
            }
            Input::Connected { connection, outbox } => {
                self.connections.insert(connection, outbox);
            }
            Input::Gone { connection } => {
                self.connections.remove(&connection);
            }
            Input::Receipts(receipts) => {
                receipts.into_iter().for_each(|receipt| self.orderer.on_receipt(receipt));
            }
            Input::Summary { through, write } => self.orderer.on_summary(through, *write),
            Input::Discovered(found) => {
                for (id, attempt, result) in found {
                    self.orderer.on_discovered(id, attempt, result);
                }
            }
        }
    }

    /// Advances the order with all that is new, and carries out what follows.
    async fn turn(&mut self, marks: &Marks) {
        let (durable, applied, indexed) =
            (*marks.durable.borrow(), *marks.applied.borrow(), *marks.indexed.borrow());
        self.orderer.on_durable(durable);
        self.orderer.on_applied(applied);
        self.orderer.on_indexed(indexed);
        self.orderer.advance(clock::now());
        while let Some(output) = self.orderer.poll_output() {
            if self.carry_out(output).await.is_none() {
                return;
            }
        }
        self.reply();
        self.show();
    }

    /// Shows everyone how far the order is.
    fn show(&self) {
        let lane = self.orderer.lane();
        let in_flight = (lane.pending() + lane.in_flight()) as u64;
        self.view.settled.store(lane.settled().0, Ordering::Release);
        self.view.in_flight.store(in_flight, Ordering::Release);
        self.view.unordered.store(lane.unordered() as u64, Ordering::Release);
        let gauge = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        metrics::gauge!("parsec_sequencer_pending_transactions").set(gauge(lane.pending()));
        metrics::gauge!("parsec_sequencer_in_flight_transactions").set(gauge(lane.in_flight()));
        metrics::gauge!("parsec_sequencer_retained_transactions").set(gauge(lane.retained()));
        metrics::gauge!("parsec_sequencer_waiting_strays")
            .set(gauge(self.strays.iter().map(Vec::len).sum()));
    }

    /// Carries out an output; `None` if the one who would take it has stopped.
    async fn carry_out(&mut self, output: Output) -> Option<()> {
        match output {
            Output::Append { batch, reference, encoded } => {
                metrics::counter!("parsec_sequencer_batches_total").increment(1);
                let strayed = batch.entries.iter().filter(|entry| entry.attempt > 0).count();
                metrics::counter!("parsec_sequencer_reordered_total").increment(strayed as u64);
                self.outlets.log.send(LogCommand::Batch { reference, encoded }).await.ok()
            }
            Output::AppendEpoch(record) => {
                self.outlets.log.send(LogCommand::Epoch(record)).await.ok()
            }
            Output::Sync => self.outlets.log.send(LogCommand::Sync).await.ok(),
            Output::Dispatch { record, batches } => self.dispatch(record, batches).await,
            Output::Reply { token, receipt } => {
                let Token { connection, request, index } = token;
                let reply = ClientReceipt { request, index, receipt };
                self.replies.entry(connection).or_default().push(reply);
                Some(())
            }
            Output::Summarize { through } => self.outlets.summarize.send(through).await.ok(),
            Output::Rediscover(strays) => {
                metrics::counter!("parsec_sequencer_strays_total").increment(strays.len() as u64);
                self.strays.push_back(strays);
                Some(())
            }
        }
    }

    async fn dispatch(&mut self, record: EpochRecord, batches: Vec<Arc<Batch>>) -> Option<()> {
        metrics::counter!("parsec_sequencer_epochs_total").increment(1);
        metrics::counter!("parsec_sequencer_transactions_total").increment(record.transactions());
        // ORDER: what is ordered is seen before an executor can say that it has applied it.
        self.view.on_ordered(&record);
        if self.dispatched.len() >= DISPATCH_TIMES_MAX {
            self.dispatched.pop_front();
        }
        self.dispatched.push_back((record.number, Instant::now()));
        self.outlets.dispatch.send(Ordered { record, batches }).await.ok()
    }

    /// Hands the receipts of this turn to those who wait for them.
    fn reply(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let now = Instant::now();
        for (connection, replies) in std::mem::take(&mut self.replies) {
            metrics::counter!("parsec_sequencer_replies_total").increment(replies.len() as u64);
            self.note_times(&replies, now);
            if let Some(outbox) = self.connections.get(&connection) {
                outbox.receipts(replies);
            }
        }
    }

    /// Shows how long transactions took from being ordered on.
    fn note_times(&self, replies: &[ClientReceipt], now: Instant) {
        let took = metrics::histogram!("parsec_sequencer_order_to_receipt_seconds");
        let epoch = |reply: &ClientReceipt| reply.receipt.position.epoch;
        for of_epoch in replies.chunk_by(|a, b| epoch(a) == epoch(b)) {
            let epoch = epoch(&of_epoch[0]);
            let found = self.dispatched.binary_search_by_key(&epoch, |(epoch, _)| *epoch);
            let Ok(index) = found else { continue };
            let since = now.saturating_duration_since(self.dispatched[index].1);
            took.record_many(since, of_epoch.len());
        }
    }
}
