//! What waits to be written to a client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::message::{ClientReceipt, ServerMessage, Verdict};
use parsec_protocol::{EpochNumber, Receipt};
use tokio::sync::Notify;

use crate::limits::{CONNECTION_ANSWERS_MAX, FRAME_RECEIPTS_MAX};

/// The last epoch of a receipt that any client may have been told of.
///
/// One for all connections: what one of them was told of may be why another one sends what it
/// sends, if both are the same application's, or two that talk to each other.
#[derive(Debug, Default)]
pub(crate) struct Told(AtomicU64);

impl Told {
    fn epoch(&self) -> EpochNumber {
        EpochNumber(self.0.load(Ordering::Acquire))
    }

    fn tell(&self, epoch: EpochNumber) {
        self.0.fetch_max(epoch.0, Ordering::AcqRel);
    }
}

/// What waits to be written to one client.
///
/// Bounded: there are at most as many receipts as the connection may have transactions in flight,
/// and the connection is not read while [`CONNECTION_ANSWERS_MAX`] answers wait.
///
/// **Invariant:** the verdicts on a submission are written before its receipts.
#[derive(Debug)]
pub(crate) struct Outbox {
    in_flight_max: usize,
    told: Arc<Told>,
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<ServerMessage>,
    receipts: VecDeque<ClientReceipt>,
    /// Receipts of submissions whose verdicts are not there yet.
    held: BTreeMap<u64, Vec<ClientReceipt>>,
    /// Transactions that were let in and whose receipt or rejection is not taken yet.
    in_flight: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn new(in_flight_max: u32, told: Arc<Told>) -> Self {
        let in_flight_max = usize::try_from(in_flight_max).unwrap_or(usize::MAX);
        Self {
            in_flight_max,
            told,
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it is held would be one of an allocation, after which nothing goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in a submission of `wanted` transactions, or as many of them as may be in flight.
    /// Returns how many; `None` if a submission of that number is under way already.
    pub(crate) fn begin(&self, request: u64, wanted: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.held.contains_key(&request) {
            return None;
        }
        state.held.insert(request, Vec::new());
        let room = self.in_flight_max.saturating_sub(state.in_flight).min(wanted);
        state.in_flight += room;
        Some(room)
    }

    /// The verdicts on a submission are there. `rejected` of those that were let in are refused.
    pub(crate) fn verdicts(&self, request: u64, verdicts: Vec<Verdict>, rejected: usize) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(rejected);
        state.answers.push_back(ServerMessage::Verdicts { request, verdicts });
        let held = state.held.remove(&request).unwrap_or_default();
        state.receipts.extend(held);
        drop(state);
        self.filled.notify_one();
    }

    /// Receipts are there.
    pub(crate) fn receipts(&self, receipts: Vec<ClientReceipt>) {
        let mut state = self.lock();
        if state.held.is_empty() {
            state.receipts.extend(receipts);
        } else {
            for receipt in receipts {
                match state.held.get_mut(&receipt.request) {
                    Some(held) => held.push(receipt),
                    None => state.receipts.push_back(receipt),
                }
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Another answer is there.
    pub(crate) fn answer(&self, message: ServerMessage) {
        self.lock().answers.push_back(message);
        self.filled.notify_one();
    }

    /// Nothing more is read or written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// The last epoch that any client may have been told of in a receipt.
    pub(crate) fn told(&self) -> EpochNumber {
        self.told.epoch()
    }

    /// Whether nothing more is read or written.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until fewer than [`CONNECTION_ANSWERS_MAX`] answers wait. Only for the one who reads.
    pub(crate) async fn has_room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.accepts() {
                return;
            }
            emptied.await;
        }
    }

    fn accepts(&self) -> bool {
        let state = self.lock();
        state.closed || state.answers.len() < CONNECTION_ANSWERS_MAX
    }

    /// The next message to write; `None` when it is closed. Only for the one who writes.
    pub(crate) async fn next(&self) -> Option<ServerMessage> {
        loop {
            let filled = self.filled.notified();
            if let Some(message) = self.take() {
                return Some(message);
            }
            if self.is_closed() {
                return None;
            }
            filled.await;
        }
    }

    fn take(&self) -> Option<ServerMessage> {
        let mut state = self.lock();
        if let Some(answer) = state.answers.pop_front() {
            drop(state);
            self.emptied.notify_one();
            return Some(answer);
        }
        let mut receipts = Vec::new();
        let mut bytes = 0;
        while bytes < FRAME_BYTES_TARGET && receipts.len() < FRAME_RECEIPTS_MAX {
            let Some(next) = state.receipts.front() else { break };
            let size = size(&next.receipt);
            if !receipts.is_empty() && bytes + size > FRAME_BYTES_TARGET {
                break;
            }
            bytes += size;
            receipts.extend(state.receipts.pop_front());
        }
        state.in_flight = state.in_flight.saturating_sub(receipts.len());
        // ORDER: before the client can read it.
        let told = receipts.iter().map(|receipt| receipt.receipt.position.epoch).max();
        self.told.tell(told.unwrap_or_default());
        (!receipts.is_empty()).then_some(ServerMessage::Receipts(receipts))
    }
}

/// About how many bytes a receipt takes.
fn size(receipt: &Receipt) -> usize {
    let events = receipt.events.iter();
    let events: usize = events
        .map(|event| 64 + event.source.len() + 32 * event.topics.len() + event.data.len())
        .sum();
    160 + receipt.output.len() + events
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Outcome, Position, TxId};

    use super::*;

    fn receipt(index: u32, output: usize) -> Receipt {
        Receipt {
            id: TxId([0; 32]),
            position: Position { epoch: EpochNumber(1), index },
            attempt: 0,
            outcome: Outcome::Committed,
            work: 0,
            output: vec![0; output].into(),
            events: Vec::new(),
        }
    }

    fn reply(request: u64, index: u32, output: usize) -> ClientReceipt {
        ClientReceipt { request, index, receipt: receipt(index, output).into() }
    }

    #[test]
    fn receipts_wait_for_their_verdicts() {
        let told = Arc::<Told>::default();
        let (outbox, other) = (Outbox::new(10, told.clone()), Outbox::new(10, told));
        assert_eq!(outbox.begin(5, 2), Some(2));
        outbox.receipts(vec![reply(5, 0, 0)]);
        assert_eq!(outbox.take(), None);
        outbox.verdicts(5, Vec::new(), 0);
        assert!(matches!(outbox.take(), Some(ServerMessage::Verdicts { request: 5, .. })));
        assert_eq!(outbox.told(), EpochNumber(0));
        assert!(matches!(outbox.take(), Some(ServerMessage::Receipts(all)) if all.len() == 1));
        assert_eq!((outbox.told(), other.told()), (EpochNumber(1), EpochNumber(1)));
        assert_eq!(outbox.take(), None);
    }

    #[test]
    fn no_more_than_the_limit_is_let_in() {
        let outbox = Outbox::new(3, Arc::default());
        assert_eq!(outbox.begin(1, 2), Some(2));
        assert_eq!(outbox.begin(2, 2), Some(1));
        assert_eq!(outbox.begin(2, 2), None, "the number is taken");
        outbox.verdicts(1, Vec::new(), 1);
        assert_eq!(outbox.begin(3, 5), Some(1));
        outbox.receipts(vec![reply(1, 0, 0)]);
        assert!(outbox.take().is_some() && outbox.take().is_some());
        assert_eq!(outbox.begin(4, 5), Some(1));
    }

    #[test]
    fn frames_of_receipts_stay_small() {
        let outbox = Outbox::new(1_000, Arc::default());
        outbox.receipts((0..100).map(|index| reply(1, index, 60_000)).collect());
        let mut seen = Vec::new();
        while let Some(ServerMessage::Receipts(receipts)) = outbox.take() {
            let bytes: usize = receipts.iter().map(|each| size(&each.receipt)).sum();
            assert!(bytes <= FRAME_BYTES_TARGET);
            seen.extend(receipts.into_iter().map(|each| each.index));
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
