//! Everything that has no answer yet. Pure: no sockets and no clock, `now` is an argument.
//!
//! ```text
//!            submit                 next_message                receipt
//!   ───────────────▶ waiting ────────────────────▶ flights ───────────────▶ result
//!                      ▲  ▲ ▲                        │  │
//!                      │  │ └──── connection lost ───┘  │ busy
//!                      │  └── time has come ── later ◀──┘
//! ```
//!
//! **Invariant:** a transaction is in one of the three, or has its result. A result is given once.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parsec_protocol::codec::Malformed;
use parsec_protocol::epoch::EpochNumber;
use parsec_protocol::limits::{FRAME_BYTES_TARGET, SUBMISSION_TRANSACTIONS_MAX};
use parsec_protocol::message::{ClientMessage, ClusterStatus, ReadAt, ServerMessage, Verdict};
use parsec_protocol::{ErrorCode, Footprint, Key, Receipt, RuntimeId, Transaction, TxId, Value};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::{Error, Rejection};
use crate::submission::Indexed;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// When to try again if a busy server does not say.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Where the results of one submission go.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Has room for a result of every transaction.
    results: mpsc::Sender<Indexed>,
    /// Where it is told that a transaction was accepted; has room for every transaction.
    accepted: Option<mpsc::Sender<(usize, TxId)>>,
    /// The submission's share of what may be pending.
    _room: OwnedSemaphorePermit,
}

impl Sink {
    pub(crate) fn new(results: mpsc::Sender<Indexed>, room: OwnedSemaphorePermit) -> Self {
        Self { results, accepted: None, _room: room }
    }

    pub(crate) fn telling(self, accepted: mpsc::Sender<(usize, TxId)>) -> Self {
        Self { accepted: Some(accepted), ..self }
    }
}

/// Whose a transaction is, and until when it is tried.
#[derive(Debug)]
struct Meta {
    sink: Arc<Sink>,
    index: usize,
    deadline: Instant,
    /// Whether a server may have it.
    sent: bool,
    /// Whether it was sent on a connection that ended without an answer to it. A later rejection
    /// does not say that it has no effect then.
    lost: bool,
    /// Whether it was told to be accepted.
    accepted: bool,
    /// What the last server said that refused it.
    refused: Option<Box<Rejection>>,
}

impl Meta {
    fn resolve(self, result: Result<Receipt, Error>) {
        if self.sink.results.try_send((self.index, result)).is_err() {
            tracing::trace!(index = self.index, "nobody waits for this result any more");
        }
    }

    /// A server has accepted it.
    fn accept(&mut self, id: TxId) {
        let first = !std::mem::replace(&mut self.accepted, true);
        if let Some(accepted) = self.sink.accepted.as_ref().filter(|_| first) {
            // Whoever submitted it may not care any more.
            accepted.try_send((self.index, id)).ok();
        }
    }

    fn expire(mut self, reason: &str) {
        let error = match (self.sent, self.refused.take()) {
            (true, _) => Error::Unknown { reason: reason.to_owned() },
            (false, Some(rejection)) => Error::Rejected(*rejection),
            (false, None) => Error::NotSent { reason: reason.to_owned() },
        };
        self.resolve(Err(error));
    }
}

#[derive(Debug)]
struct Item {
    transaction: Transaction,
    meta: Meta,
}

/// Transactions that were sent together, on the present connection.
#[derive(Debug)]
struct Flight {
    message: Arc<ClientMessage>,
    slots: Vec<Slot>,
    /// How many slots are not `Done`.
    left: usize,
}

#[derive(Debug)]
enum Slot {
    Open(Meta),
    /// Its deadline has passed, but the server has not answered: it still counts there.
    Abandoned,
    Done,
}

/// A read or a status.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) question: Question,
    pub(crate) reply: oneshot::Sender<Result<Answer, Error>>,
    pub(crate) deadline: Instant,
}

impl Ask {
    fn resolve(self, answer: Result<Answer, Error>) {
        if self.reply.send(answer).is_err() {
            tracing::trace!("nobody waits for this answer any more");
        }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Read { at: ReadAt, keys: Vec<Key> },
    Status,
    Blocks { from: u64, offset: u64, limit: u32 },
    Query { runtime: RuntimeId, at: EpochNumber, question: Bytes },
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Values { epoch: EpochNumber, values: Vec<Option<Value>> },
    Status(ClusterStatus),
    Blocks { blocks: Vec<Bytes>, cut: Option<u64> },
    Told(Bytes),
}

/// Everything that has no answer yet.
#[derive(Debug)]
pub(crate) struct Pending {
    retry_busy: bool,
    waiting: VecDeque<Item>,
    later: BTreeMap<(Instant, u64), Item>,
    flights: BTreeMap<u64, Flight>,
    in_flight: usize,
    questions: VecDeque<Ask>,
    asked: BTreeMap<u64, Ask>,
    /// The next number for a request, or for telling apart what waits until the same time.
    next_number: u64,
    tick: Instant,
}

impl Pending {
    pub(crate) fn new(now: Instant, retry_busy: bool) -> Self {
        Self {
            retry_busy,
            waiting: VecDeque::new(),
            later: BTreeMap::new(),
            flights: BTreeMap::new(),
            in_flight: 0,
            questions: VecDeque::new(),
            asked: BTreeMap::new(),
            next_number: 1,
            tick: now,
        }
    }

    /// Takes transactions. One that no server would accept gets its result at once.
    pub(crate) fn submit(
        &mut self,
        transactions: Vec<Transaction>,
        sink: &Arc<Sink>,
        deadline: Instant,
    ) {
        for (index, transaction) in transactions.into_iter().enumerate() {
            let sink = sink.clone();
            let meta = Meta {
                sink,
                index,
                deadline,
                sent: false,
                lost: false,
                accepted: false,
                refused: None,
            };
            match transaction.check() {
                Ok(()) => self.waiting.push_back(Item { transaction, meta }),
                Err(error) => meta.resolve(Err(Error::Rejected(malformed(&error)))),
            }
        }
    }

    /// Takes a question.
    pub(crate) fn ask(&mut self, ask: Ask) {
        self.questions.push_back(ask);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.later.is_empty()
            && self.flights.is_empty()
            && self.questions.is_empty()
            && self.asked.is_empty()
    }

    /// Whether there is something to send to a server that allows so many in flight.
    pub(crate) fn has_message(&self, in_flight_max: usize) -> bool {
        !self.questions.is_empty() || (self.in_flight < in_flight_max && !self.waiting.is_empty())
    }

    /// The next message to send to a server that allows so many in flight.
    pub(crate) fn next_message(&mut self, in_flight_max: usize) -> Option<Arc<ClientMessage>> {
        let request = self.next_number;
        let message = match self.questions.pop_front() {
            Some(ask) => {
                let message = match ask.question.clone() {
                    Question::Read { at, keys } => ClientMessage::Read { request, at, keys },
                    Question::Status => ClientMessage::Status { request },
                    Question::Blocks { from, offset, limit } => {
                        ClientMessage::Blocks { request, from, offset, limit }
                    }
                    Question::Query { runtime, at, question } => {
                        ClientMessage::Query { request, runtime, at, question }
                    }
                };
                self.asked.insert(request, ask);
                Arc::new(message)
            }
            None => self.next_flight(request, in_flight_max)?,
        };
        self.next_number += 1;
        Some(message)
    }

    fn next_flight(&mut self, request: u64, in_flight_max: usize) -> Option<Arc<ClientMessage>> {
        let allowed = in_flight_max.saturating_sub(self.in_flight).min(SUBMISSION_TRANSACTIONS_MAX);
        let mut transactions = Vec::new();
        let mut slots = Vec::new();
        let mut bytes = 0;
        while slots.len() < allowed && bytes < FRAME_BYTES_TARGET {
            let Some(Item { transaction, meta }) = self.waiting.pop_front() else { break };
            bytes += size(&transaction);
            transactions.push(transaction);
            slots.push(Slot::Open(Meta { sent: true, ..meta }));
        }
        if slots.is_empty() {
            return None;
        }
        let left = slots.len();
        self.in_flight += left;
        let message = Arc::new(ClientMessage::Submit { request, transactions });
        self.flights.insert(request, Flight { message: message.clone(), slots, left });
        Some(message)
    }

    /// Takes what a server says.
    ///
    /// # Errors
    /// What is wrong with it. The connection is of no use then.
    pub(crate) fn on_message(
        &mut self,
        now: Instant,
        message: ServerMessage,
    ) -> Result<(), String> {
        match message {
            ServerMessage::Verdicts { request, verdicts } => {
                self.on_verdicts(now, request, verdicts)?;
            }
            ServerMessage::Receipts(receipts) => {
                for item in receipts {
                    if let Slot::Open(meta) = self.finish(item.request, item.index) {
                        meta.resolve(Ok(Arc::unwrap_or_clone(item.receipt)));
                    }
                }
            }
            ServerMessage::Values { request, epoch, values } => {
                self.on_values(request, epoch, values)?;
            }
            ServerMessage::Status { request, status } => {
                self.on_answer(request, Ok(Answer::Status(status)));
            }
            ServerMessage::Blocks { request, blocks, cut } => {
                self.on_answer(request, Ok(Answer::Blocks { blocks, cut }));
            }
            ServerMessage::Answer { request, answer } => {
                self.on_answer(request, Ok(Answer::Told(answer)));
            }
            ServerMessage::Failed { request, code, detail } => {
                self.on_answer(request, Err(Error::Failed { code, detail }));
            }
            ServerMessage::Welcome(_) | ServerMessage::Goodbye { .. } => {
                return Err("the server sent a message that has no place there".to_owned());
            }
        }
        Ok(())
    }

    fn on_verdicts(
        &mut self,
        now: Instant,
        request: u64,
        verdicts: Vec<Verdict>,
    ) -> Result<(), String> {
        // Without a flight, all of it has its receipts already.
        let Some(flight) = self.flights.get(&request) else { return Ok(()) };
        let (expected, got) = (flight.slots.len(), verdicts.len());
        if expected != got {
            return Err(format!("the server sent {got} verdicts for {expected} transactions"));
        }
        for (index, verdict) in (0u32..).zip(verdicts) {
            let (code, detail, retry_after_ms) = match verdict {
                Verdict::Accepted(id) => {
                    self.accept(request, index, id);
                    continue;
                }
                Verdict::Rejected { code, detail, retry_after_ms } => {
                    (code, detail, retry_after_ms)
                }
            };
            let retry_after = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
            let rejection = Rejection { code, detail, retry_after };
            let transaction = self.transaction(request, index);
            if let (Some(transaction), Slot::Open(meta)) =
                (transaction, self.finish(request, index))
            {
                self.on_rejection(now, Item { transaction, meta }, rejection);
            }
        }
        Ok(())
    }

    fn accept(&mut self, request: u64, index: u32, id: TxId) {
        let flight = self.flights.get_mut(&request);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(Slot::Open(meta)) = flight.and_then(|flight| flight.slots.get_mut(index)) {
            meta.accept(id);
        }
    }

    fn on_rejection(&mut self, now: Instant, mut item: Item, rejection: Rejection) {
        let is_busy = matches!(rejection.code, ErrorCode::Busy | ErrorCode::Unavailable);
        if !is_busy {
            return item.meta.resolve(Err(Error::Rejected(rejection)));
        }
        let again = now + rejection.retry_after.unwrap_or(RETRY_AFTER);
        let retry = self.retry_busy && again < item.meta.deadline;
        item.meta.sent = item.meta.lost;
        let reason = rejection.detail.clone();
        item.meta.refused = Some(Box::new(rejection));
        if !retry {
            return item.meta.expire(&reason);
        }
        self.later.insert((again, self.next_number), item);
        self.next_number += 1;
    }

    fn on_values(
        &mut self,
        request: u64,
        epoch: EpochNumber,
        values: Vec<Option<Value>>,
    ) -> Result<(), String> {
        if let Some(Ask { question: Question::Read { keys, .. }, .. }) = self.asked.get(&request)
            && keys.len() != values.len()
        {
            return Err(format!("the server sent {} values for {} keys", values.len(), keys.len()));
        }
        self.on_answer(request, Ok(Answer::Values { epoch, values }));
        Ok(())
    }

    fn on_answer(&mut self, request: u64, answer: Result<Answer, Error>) {
        // Without a question, its deadline has passed.
        if let Some(ask) = self.asked.remove(&request) {
            ask.resolve(answer);
        }
    }

    /// The transaction in a slot of a flight.
    fn transaction(&self, request: u64, index: u32) -> Option<Transaction> {
        self.flights.get(&request)?.transaction(usize::try_from(index).ok()?)
    }

    /// Ends one slot of a flight. Returns what it was.
    fn finish(&mut self, request: u64, index: u32) -> Slot {
        let Some(flight) = self.flights.get_mut(&request) else { return Slot::Done };
        let Some(index) = usize::try_from(index).ok() else { return Slot::Done };
        let Some(slot) = flight.slots.get_mut(index) else { return Slot::Done };
        let slot = std::mem::replace(slot, Slot::Done);
        if matches!(slot, Slot::Done) {
            return slot;
        }
        flight.left -= 1;
        self.in_flight -= 1;
        if flight.left == 0 {
            self.flights.remove(&request);
        }
        slot
    }

    /// The connection is lost: all that it has not answered is to be sent again, first and in the
    /// same order.
    pub(crate) fn disconnected(&mut self) {
        let mut again = VecDeque::new();
        for (_, mut flight) in std::mem::take(&mut self.flights) {
            let slots = std::mem::take(&mut flight.slots);
            for (index, slot) in slots.into_iter().enumerate() {
                if let (Slot::Open(meta), Some(transaction)) = (slot, flight.transaction(index)) {
                    again.push_back(Item { transaction, meta: Meta { lost: true, ..meta } });
                }
            }
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        self.in_flight = 0;
        let mut questions: VecDeque<_> = std::mem::take(&mut self.asked).into_values().collect();
        questions.append(&mut self.questions);
        self.questions = questions;
    }

    /// When to call [`on_time`](Self::on_time) next.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let retry = self.later.first_key_value().map(|((time, _), _)| *time);
        let tick = (!self.is_empty()).then_some(self.tick);
        retry.into_iter().chain(tick).min()
    }

    /// Moves on what has waited long enough, and gives up what has no time left, for `reason`.
    pub(crate) fn on_time(&mut self, now: Instant, reason: &str) {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            self.waiting.push_back(first.remove());
        }
        if now < self.tick {
            return;
        }
        self.tick = now + TICK;
        let expired = |meta: &Meta| meta.deadline <= now;
        take_if(&mut self.waiting, |item| expired(&item.meta), |item| item.meta.expire(reason));
        let later: Vec<_> = self.later.extract_if(.., |_, item| expired(&item.meta)).collect();
        later.into_iter().for_each(|(_, item)| item.meta.expire(reason));
        for slot in self.flights.values_mut().flat_map(|flight| &mut flight.slots) {
            if matches!(slot, Slot::Open(meta) if expired(meta))
                && let Slot::Open(meta) = std::mem::replace(slot, Slot::Abandoned)
            {
                meta.expire(reason);
            }
        }
        let give_up = |ask: Ask| ask.resolve(Err(Error::NotSent { reason: reason.to_owned() }));
        take_if(&mut self.questions, |ask| ask.deadline <= now, give_up);
        let asked: Vec<_> = self.asked.extract_if(.., |_, ask| ask.deadline <= now).collect();
        asked.into_iter().for_each(|(_, ask)| give_up(ask));
    }
}

impl Flight {
    fn transaction(&self, index: usize) -> Option<Transaction> {
        match &*self.message {
            ClientMessage::Submit { transactions, .. } => transactions.get(index).cloned(),
            _ => None,
        }
    }
}

/// Hands those elements of a queue to `taken` that `condition` chooses; the others keep their
/// order.
fn take_if<T>(queue: &mut VecDeque<T>, condition: impl Fn(&T) -> bool, taken: impl Fn(T)) {
    if !queue.iter().any(&condition) {
        return;
    }
    for element in std::mem::take(queue) {
        match condition(&element) {
            true => taken(element),
            false => queue.push_back(element),
        }
    }
}

/// Roughly how many bytes a transaction takes in a message.
fn size(transaction: &Transaction) -> usize {
    64 + transaction.payload.len() + transaction.footprint.as_ref().map_or(0, Footprint::size)
}

/// What a server would say of a transaction that breaks a limit.
fn malformed(error: &Malformed) -> Rejection {
    let code = match error {
        Malformed::FootprintOrder | Malformed::KeyAffinity => ErrorCode::BadFootprint,
        _ => ErrorCode::TooLarge,
    };
    Rejection { code, detail: error.to_string(), retry_after: None }
}
