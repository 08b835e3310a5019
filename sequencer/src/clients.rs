//! Clients: what they send, and what they are answered.
//!
//! Each connection has a reader, a submitter that keeps its submissions in order while several of
//! them are admitted at once, and a writer. All that one of them holds is bounded per connection,
//! so that a client that stalls or floods harms only itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parsec_protocol::limits::{ANSWER_BYTES_MAX, BLOCKS_MAX};
use parsec_protocol::message::{
    ClientMessage, ClientReceipt, ClusterStatus, ReadAt, ServerMessage, Verdict, short,
};
use parsec_protocol::transport::{ClientConnection, ClientListener, ClientReader, ClientWriter};
use parsec_protocol::{EpochNumber, ErrorCode, Key, RuntimeId, Transaction};
use parsec_runtimes::Rejection;
use parsec_sequencer_core::{Accepted, Lookup, Offer, Place, Submitted, Token, Word, word};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::admission::{Admission, Prepared, refused, rejected};
use crate::asking::Asking;
use crate::chronicle::{Blocks, Piece};
use crate::driver::{Input, View};
use crate::index::IndexError;
use crate::limits::{
    ADMISSION_BYTES_MAX, BLOCKS_WAIT, CONNECTION_ADMISSION_BYTES_MAX, CONNECTION_REQUESTS_MAX,
    CONNECTION_UNITS_MAX, RECEIPTS_AT_A_TIME, RETRY_DELAY,
};
use crate::outbox::{Outbox, Told};
use crate::queries::Queries;
use crate::stop::Stop;

/// What every connection needs.
pub(crate) struct Service {
    pub(crate) admission: Admission,
    pub(crate) queries: Queries,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) asking: Asking,
    /// The sealed blocks, if blocks are sealed.
    pub(crate) blocks: Option<Arc<Blocks>>,
    pub(crate) view: Arc<View>,
    pub(crate) partitions_total: u16,
    pub(crate) in_flight_max: u32,
    pub(crate) told: Arc<Told>,
    pub(crate) admission_room: Arc<Semaphore>,
    pub(crate) connections: AtomicU64,
    pub(crate) stop: Stop,
}

/// Semaphores for bytes count in these.
const ROOM_UNIT_BYTES: usize = 1_024;

/// Room for submissions in admission, for all connections together.
pub(crate) fn admission_room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ADMISSION_BYTES_MAX / ROOM_UNIT_BYTES))
}

/// Accepts clients until everything is to stop.
pub(crate) async fn accept_all(service: Arc<Service>, mut listener: ClientListener) {
    let mut connections = JoinSet::new();
    while let Some(Some(connection)) = service.stop.unless(listener.accept()).await {
        connections.spawn(serve(service.clone(), connection));
        while connections.try_join_next().is_some() {}
    }
    listener.close("the sequencer is stopping").await;
    while connections.join_next().await.is_some() {}
}

async fn serve(service: Arc<Service>, connection: ClientConnection) {
    let number = service.connections.fetch_add(1, Ordering::Relaxed);
    let remote = connection.remote_address();
    let (reader, writer) = connection.split();
    let outbox = Arc::new(Outbox::new(service.in_flight_max, service.told.clone()));
    let connected = Input::Connected { connection: number, outbox: outbox.clone() };
    if service.inputs.send(connected).await.is_err() {
        return;
    }
    let (units, submissions) = mpsc::channel(CONNECTION_UNITS_MAX);
    let room = Semaphore::new(CONNECTION_ADMISSION_BYTES_MAX / ROOM_UNIT_BYTES);
    let session = Arc::new(Session {
        number,
        service: service.clone(),
        outbox: outbox.clone(),
        room: Arc::new(room),
        requests: Arc::new(Semaphore::new(CONNECTION_REQUESTS_MAX)),
        last: Mutex::new(watch::channel(()).1),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(session.clone().submit_all(submissions));
    tasks.spawn(write_all(outbox.clone(), writer));
    tokio::select! {
        // A client that sends no more may still wait for receipts: only the writer's end counts.
        () = read_then_wait(&session, reader, units) => {}
        _ = tasks.join_next() => {}
        _ = service.stop.stopped() => {}
    }
    outbox.close();
    tasks.shutdown().await;
    tracing::debug!(%remote, "a client is gone");
    // If the driver has stopped there is nobody to be told.
    service.inputs.send(Input::Gone { connection: number }).await.ok();
}

async fn write_all(outbox: Arc<Outbox>, writer: ClientWriter) {
    loop {
        let message = tokio::select! {
            message = outbox.next() => message,
            _ = writer.closed() => None,
        };
        let Some(message) = message else { return };
        if let Err(error) = writer.send(&message).await {
            tracing::debug!(%error, "a client can't be answered");
            return;
        }
    }
}

async fn read_then_wait(
    session: &Arc<Session>,
    mut reader: ClientReader,
    units: mpsc::Sender<Submission>,
) {
    loop {
        session.outbox.has_room().await;
        match reader.recv().await {
            Ok(Some(message)) => {
                if session.clone().take(message, &units).await.is_none() {
                    return;
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "a client can't be read");
                return;
            }
        }
    }
    drop(units);
    std::future::pending().await
}

/// A connection, as its tasks share it.
struct Session {
    number: u64,
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    room: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// Closes when the last submission, and all before it, have been admitted.
    last: Mutex<watch::Receiver<()>>,
}

/// A submission that is being admitted.
struct Submission {
    request: u64,
    admitted: JoinHandle<Result<Vec<Prepared>, IndexError>>,
    /// How many transactions were left out because too many are in flight.
    left_out: usize,
    _room: [OwnedSemaphorePermit; 2],
}

/// About how many bytes a submission takes, in units of [`ROOM_UNIT_BYTES`].
fn room_for(transactions: &[Transaction]) -> u32 {
    let size = |transaction: &Transaction| {
        let footprint = transaction.footprint.as_ref().map_or(0, |footprint| footprint.size());
        256 + transaction.payload.len() + footprint
    };
    let bytes: usize = transactions.iter().map(size).sum();
    let units = bytes.min(CONNECTION_ADMISSION_BYTES_MAX) / ROOM_UNIT_BYTES;
    u32::try_from(units).unwrap_or(u32::MAX).max(1)
}

impl Session {
    /// Takes a message; `None` if the connection is to end.
    async fn take(
        self: Arc<Self>,
        message: ClientMessage,
        units: &mpsc::Sender<Submission>,
    ) -> Option<()> {
        match message {
            ClientMessage::Submit { request, transactions } => {
                self.admit(request, transactions, units).await
            }
            ClientMessage::Read { request, at, keys } => {
                let permit = self.requests.clone().acquire_owned().await.ok()?;
                tokio::spawn(async move {
                    let answer = self.read(request, at, &keys).await;
                    self.outbox.answer(answer);
                    drop(permit);
                });
                Some(())
            }
            ClientMessage::Status { request } => {
                let permit = self.requests.clone().acquire_owned().await.ok()?;
                tokio::spawn(async move {
                    let status = self.status().await;
                    self.outbox.answer(ServerMessage::Status { request, status });
                    drop(permit);
                });
                Some(())
            }
            ClientMessage::Blocks { request, from, offset, limit } => {
                let permit = self.requests.clone().acquire_owned().await.ok()?;
                tokio::spawn(async move {
                    let answer = self.blocks(request, from, offset, limit).await;
                    self.outbox.answer(answer);
                    drop(permit);
                });
                Some(())
            }
            ClientMessage::Query { request, runtime, at, question } => {
                let permit = self.requests.clone().acquire_owned().await.ok()?;
                tokio::spawn(async move {
                    let answer = self.query(request, runtime, at, question).await;
                    self.outbox.answer(answer);
                    drop(permit);
                });
                Some(())
            }
            // The transport lets only the first message be one.
            ClientMessage::Hello { .. } => None,
        }
    }

    async fn admit(
        &self,
        request: u64,
        mut transactions: Vec<Transaction>,
        units: &mpsc::Sender<Submission>,
    ) -> Option<()> {
        let room = room_for(&transactions);
        let own = self.room.clone().acquire_many_owned(room).await.ok()?;
        let shared = self.service.admission_room.clone().acquire_many_owned(room).await.ok()?;
        let Some(let_in) = self.outbox.begin(request, transactions.len()) else {
            tracing::debug!(request, "a client used the number of a request twice");
            return None;
        };
        let left_out = transactions.len() - let_in;
        transactions.truncate(let_in);
        // What any client was told of has happened for what is sent now: a trial in an older state
        // would make calls stray whose contract was just seen deployed, maybe on another connection.
        let (service, told) = (self.service.clone(), self.outbox.told());
        let (admitting, last) = watch::channel(());
        let mut earlier = {
            let mut known = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, last)
        };
        let admitted = tokio::spawn(async move {
            let prepared = service.admission.prepare(transactions, told, earlier.clone()).await;
            // It can't be submitted before them anyway.
            while earlier.changed().await.is_ok() {}
            drop(admitting);
            prepared
        });
        let submission = Submission { request, admitted, left_out, _room: [own, shared] };
        units.send(submission).await.ok()
    }

    /// Submits what was admitted, in the order in which it was sent.
    async fn submit_all(self: Arc<Self>, mut submissions: mpsc::Receiver<Submission>) {
        while let Some(submission) = submissions.recv().await {
            let prepared = match submission.admitted.await {
                Ok(Ok(prepared)) => prepared,
                Ok(Err(error)) => return self.service.stop.fail(error),
                Err(panicked) => return self.service.stop.fail(panicked),
            };
            let submitted = self.submit(submission.request, prepared, submission.left_out).await;
            match submitted {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => return self.service.stop.fail(error),
            }
        }
        // The writer ends the connection, not this.
        std::future::pending().await
    }

    async fn submit(
        self: &Arc<Self>,
        request: u64,
        prepared: Vec<Prepared>,
        left_out: usize,
    ) -> Result<Option<()>, IndexError> {
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(prepared.len() + left_out);
        let (mut open, mut undecided) = (Vec::new(), Vec::new());
        for (index, prepared) in (0u32..).zip(prepared) {
            match prepared {
                Prepared::Refused(verdict) => verdicts.push(Some(verdict)),
                Prepared::Ready(candidate, lookup) => {
                    verdicts.push(None);
                    undecided.push((index, candidate.id));
                    let token = Token { connection: self.number, request, index };
                    open.push((*candidate, lookup, Some(token)));
                }
            }
        }
        let mut undecided = undecided.into_iter();
        let mut known = Vec::new();
        while !open.is_empty() {
            let Some(submitted) = self.offer(open).await else { return Ok(None) };
            for (answer, (index, id)) in submitted.verdicts.into_iter().zip(undecided.by_ref()) {
                if let Ok(Accepted::Known(place)) = answer {
                    known.push((index, place));
                }
                let verdict = answer.map_or_else(refused, |_| Verdict::Accepted(id));
                verdicts[index as usize] = Some(verdict);
            }
            open = self.look_up_again(submitted.again).await?;
        }
        self.decide(request, verdicts.into_iter().flatten().collect(), left_out);
        if !known.is_empty() {
            tokio::spawn(self.clone().fetch_receipts(request, known));
        }
        Ok(Some(()))
    }

    fn decide(&self, request: u64, mut verdicts: Vec<Verdict>, left_out: usize) {
        let rejections = verdicts.iter().filter(|v| matches!(v, Verdict::Rejected { .. }));
        let rejections = rejections.count();
        metrics::counter!("parsec_sequencer_admitted_total")
            .increment((verdicts.len() - rejections) as u64);
        let limit = self.service.in_flight_max;
        verdicts.extend((0..left_out).map(|_| {
            let detail = format!("this connection may have {limit} transactions without a receipt");
            rejected(ErrorCode::Busy, detail)
        }));
        self.outbox.verdicts(request, verdicts, rejections);
    }

    /// Offers transactions to the lane; `None` if it has stopped.
    async fn offer(&self, unit: Vec<Offer>) -> Option<Submitted> {
        let (answer, answers) = oneshot::channel();
        self.service.inputs.send(Input::Submit { unit, answer }).await.ok()?;
        answers.await.ok()
    }

    /// Asks the index again of those of which it was asked too long ago.
    async fn look_up_again(&self, mut again: Vec<Offer>) -> Result<Vec<Offer>, IndexError> {
        if again.is_empty() {
            return Ok(again);
        }
        let ids = again.iter().map(|(candidate, ..)| candidate.id).collect();
        let lookups = self.service.admission.look_up(ids).await?;
        for ((_, old, _), new) in again.iter_mut().zip(lookups) {
            // Of the same attempt the same is known.
            let void = old.void && old.found == new.found;
            *old = Lookup { void, ..new };
        }
        Ok(again)
    }

    /// Answers transactions that were finished before with their recorded receipts.
    async fn fetch_receipts(self: Arc<Self>, request: u64, mut known: Vec<(u32, Place)>) {
        while !self.outbox.is_closed() && !self.service.stop.is_stopped() {
            known = self.fetch_each(request, known).await;
            if known.is_empty() {
                return;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Asks once for each receipt, for several at a time: after a restart a client may submit
    /// thousands again, which must not take as many round trips. Returns what has to be asked for
    /// again.
    async fn fetch_each(&self, request: u64, known: Vec<(u32, Place)>) -> Vec<(u32, Place)> {
        let mut known = known.into_iter();
        let mut asked = JoinSet::new();
        let mut missing = Vec::new();
        loop {
            for (index, place) in known.by_ref().take(RECEIPTS_AT_A_TIME - asked.len()) {
                let queries = self.service.queries.clone();
                asked.spawn(async move { (index, place, queries.receipt(place).await) });
            }
            let (index, place, receipt) = match asked.join_next().await {
                Some(Ok(answered)) => answered,
                Some(Err(panicked)) => {
                    self.service.stop.fail(panicked);
                    return Vec::new();
                }
                None => return missing,
            };
            match receipt.map(|receipt| receipt.map(|receipt| word(Arc::new(receipt)))) {
                Ok(Some(Word::Final(receipt))) => {
                    self.outbox.receipts(vec![ClientReceipt { request, index, receipt }]);
                }
                Ok(Some(Word::Again(_))) => {
                    let position = place.position;
                    self.service.stop.fail(format!(
                        "the receipt at {position} is not the transaction's last, but the index of \
                         ids says so: delete the index, it is rebuilt"
                    ));
                    return Vec::new();
                }
                // Its partition is being rebuilt, or its host is away.
                Ok(None) => missing.push((index, place)),
                Err(error) => {
                    tracing::debug!(%error, "a receipt can't be fetched yet");
                    missing.push((index, place));
                }
            }
        }
    }

    async fn read(&self, request: u64, at: ReadAt, keys: &[Key]) -> ServerMessage {
        let ordered = self.service.view.ordered();
        let epoch = match at {
            ReadAt::Latest => ordered,
            ReadAt::Epoch(epoch) => epoch,
        };
        if epoch > ordered {
            return failed(request, &format!("{epoch} is not ordered yet; the last is {ordered}"));
        }
        match self.service.queries.read(epoch, keys).await {
            Ok(values) => ServerMessage::Values { request, epoch, values },
            Err(error) => failed_as(request, error.code(), &error.to_string()),
        }
    }

    /// Asks a runtime about a state.
    async fn query(
        &self,
        request: u64,
        runtime: RuntimeId,
        at: EpochNumber,
        question: Bytes,
    ) -> ServerMessage {
        let ordered = self.service.view.ordered();
        if at > ordered {
            return failed(request, &format!("{at} is not ordered yet; the last is {ordered}"));
        }
        match self.service.asking.ask(runtime, at, question).await {
            Ok(answer) if answer.len() > ANSWER_BYTES_MAX => {
                let bytes = answer.len();
                let detail = format!("the answer has {bytes} bytes, more than {ANSWER_BYTES_MAX}");
                failed_as(request, ErrorCode::TooLarge, &detail)
            }
            Ok(answer) => ServerMessage::Answer { request, answer },
            Err(Rejection { code, detail }) => failed_as(request, code, &detail),
        }
    }

    async fn blocks(&self, request: u64, from: u64, offset: u64, limit: u32) -> ServerMessage {
        let Some(blocks) = &self.service.blocks else {
            let detail = "this cluster seals no blocks: it is configured not to";
            return failed_as(request, ErrorCode::Unsupported, detail);
        };
        let mut head = blocks.head();
        let wanted = blocks.want();
        let there = head.wait_for(|head| head.is_some_and(|head| head.number >= from));
        // Without it, the answer is that there is none yet.
        tokio::time::timeout(BLOCKS_WAIT, there).await.ok();
        drop(wanted);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(BLOCKS_MAX);
        let blocks = blocks.clone();
        let read = tokio::task::spawn_blocking(move || blocks.read(from, offset, limit));
        match read.await {
            Ok(Ok(Piece { blocks, cut })) => ServerMessage::Blocks { request, blocks, cut },
            Ok(Err(error)) => failed(request, &error.to_string()),
            Err(panicked) => {
                self.service.stop.fail(panicked);
                failed(request, "the sequencer stops")
            }
        }
    }

    async fn status(&self) -> ClusterStatus {
        let Service { queries, view, partitions_total, .. } = &*self.service;
        ClusterStatus {
            ordered: view.ordered(),
            transactions: view.transactions(),
            in_flight: view.in_flight(),
            partitions: queries.digests().await,
            partitions_total: *partitions_total,
        }
    }
}

fn failed(request: u64, detail: &str) -> ServerMessage {
    failed_as(request, ErrorCode::Unavailable, detail)
}

fn failed_as(request: u64, code: ErrorCode, detail: &str) -> ServerMessage {
    metrics::counter!("parsec_sequencer_reads_failed_total").increment(1);
    ServerMessage::Failed { request, code, detail: short(detail) }
}
