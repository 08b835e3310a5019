//! A client: it submits transactions, submits them again when it hears nothing, and reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parsec_protocol::message::{ClientMessage, ClientReceipt, ReadAt, ServerMessage, Verdict};
use parsec_protocol::{EpochNumber, ErrorCode, Key, Transaction, TxId, codec};

use crate::agenda::{MILLISECOND, SECOND};
use crate::history::Ending;
use crate::network::Seen;
use crate::surroundings::{Event, Surroundings, client_node};
use crate::workload::Workload;

/// What a client has planned.
#[derive(Debug)]
pub(crate) enum ClientTimer {
    /// Do something new.
    Act,
    /// Submit a transaction again, unless it has ended.
    Again(TxId),
    /// Nothing was heard of a transaction since it was submitted for the `tries`th time.
    Impatient(TxId, u32),
}

/// A transaction that has not ended.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    tries: u32,
}

/// A read without an answer.
#[derive(Debug)]
struct Read {
    keys: Vec<Key>,
    at: ReadAt,
    /// The least epoch that it may show.
    least: EpochNumber,
}

/// Transactions that are kept until faults have ended, to show that things go on.
const KEPT_BACK: u64 = 3;

/// A client.
pub(crate) struct Client {
    number: u16,
    workload: Workload,
    session: Option<u64>,
    /// Transactions yet to be drawn.
    left: u64,
    drawn: u128,
    open: BTreeMap<TxId, Open>,
    requests: u64,
    /// The transactions of each submission of this session.
    submissions: BTreeMap<u64, Vec<TxId>>,
    /// What was accepted on this session and has no receipt: requests, and places there.
    accepted: BTreeSet<(u64, usize)>,
    reads: BTreeMap<u64, Read>,
    /// Whether a read of the latest state has succeeded after everything else.
    has_read_last: bool,
    read_through: EpochNumber,
}

impl Client {
    pub(crate) fn new(s: &mut Surroundings, number: u16) -> Self {
        let delay = s.within(s.options.load.pause);
        s.after(delay, Event::Client(number, ClientTimer::Act));
        Self {
            number,
            workload: Workload::new(s.options.load.clone()),
            session: None,
            left: s.options.transactions.max(KEPT_BACK),
            drawn: 0,
            open: BTreeMap::new(),
            requests: 0,
            submissions: BTreeMap::new(),
            accepted: BTreeSet::new(),
            reads: BTreeMap::new(),
            has_read_last: false,
            read_through: EpochNumber(0),
        }
    }

    /// Whether it has done all that it wanted.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.open.is_empty() && self.accepted.is_empty() && self.has_read_last
    }

    /// Whether all that it has yet to do is to be done after faults have ended.
    pub(crate) fn waits_for_the_end(&self) -> bool {
        self.left <= KEPT_BACK && self.open.is_empty()
    }

    /// Something was seen of the network.
    pub(crate) fn on_seen(&mut self, s: &mut Surroundings, seen: Seen) {
        match seen {
            Seen::Up { session, .. } => {
                self.session = Some(session);
                if s.random.chance(500) {
                    let open: Vec<TxId> = self.open.keys().copied().collect();
                    self.submit(s, open);
                }
            }
            Seen::Down { .. } => {
                self.session = None;
                self.submissions.clear();
                self.accepted.clear();
                self.reads.clear();
            }
            Seen::Message { bytes, .. } => match codec::decode(&bytes) {
                Ok(message) => self.on_message(s, message),
                Err(error) => s.history.violate("messages decode", error.to_string()),
            },
        }
    }

    /// Something is due.
    pub(crate) fn on_timer(&mut self, s: &mut Surroundings, timer: ClientTimer) {
        match timer {
            ClientTimer::Act => self.act(s),
            ClientTimer::Again(id) => self.submit(s, vec![id]),
            ClientTimer::Impatient(id, tries) => {
                if self.open.get(&id).is_some_and(|open| open.tries == tries) {
                    self.submit(s, vec![id]);
                }
            }
        }
    }

    fn act(&mut self, s: &mut Surroundings) {
        let kept_back = if s.healed { 0 } else { KEPT_BACK };
        let room = s.options.load.window.saturating_sub(self.open.len()) as u64;
        let wanted = s.random.between(1, s.options.load.submission);
        let count = wanted.min(room).min(self.left.saturating_sub(kept_back));
        if self.session.is_some() && count > 0 {
            let new = (0..count).map(|_| self.draw(s)).collect();
            self.submit(s, new);
        }
        let has_ended = self.left == 0 && self.open.is_empty();
        if has_ended && s.healed && !self.has_read_last && self.reads.is_empty() {
            self.read(s, ReadAt::Latest);
        } else if s.random.chance(200) {
            self.read_any(s);
        }
        if !self.is_done() {
            // What is left once faults have ended is done soon: nothing is learnt by waiting.
            let longest = match (s.healed, self.left > kept_back) {
                (true, true) => s.options.load.pause.min(SECOND / 16),
                (false, true) => s.options.load.pause,
                (_, false) => SECOND / 4,
            };
            let delay = s.within(longest);
            s.after(delay, Event::Client(self.number, ClientTimer::Act));
        }
    }

    fn draw(&mut self, s: &mut Surroundings) -> TxId {
        self.left -= 1;
        self.drawn += 1;
        let unique = (u128::from(self.number) << 64) | self.drawn;
        let mut transaction = self.workload.draw(&mut s.random, unique);
        if s.random.chance(s.options.load.expires) {
            let last = self.read_through.0 + s.random.between(1, 40);
            transaction.expires = Some(EpochNumber(last));
        }
        let id = transaction.content_id();
        s.history.on_submit(s.now, self.number, id, &transaction);
        self.open.insert(id, Open { transaction, tries: 0 });
        id
    }

    /// Submits transactions, perhaps again. Without a connection they wait.
    fn submit(&mut self, s: &mut Surroundings, ids: Vec<TxId>) {
        let mut transactions = Vec::new();
        let mut submitted = Vec::new();
        for id in ids {
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.tries += 1;
            let again = ClientTimer::Impatient(id, open.tries);
            transactions.push(open.transaction.clone());
            submitted.push(id);
            let delay = s.options.load.patience + s.within(s.options.load.patience);
            s.after(delay, Event::Client(self.number, again));
        }
        let Some(session) = self.session.filter(|_| !transactions.is_empty()) else { return };
        self.requests += 1;
        let request = self.requests;
        for (place, id) in submitted.iter().enumerate() {
            s.history.on_sent(id, session, (request, place));
        }
        self.submissions.insert(request, submitted);
        let message = ClientMessage::Submit { request, transactions };
        s.ask(client_node(self.number), session, &message);
    }

    fn read_any(&mut self, s: &mut Surroundings) {
        let at = match s.random.chance(500) {
            true => ReadAt::Latest,
            false => {
                let back = s.random.below(8);
                ReadAt::Epoch(EpochNumber(self.read_through.0.saturating_sub(back)))
            }
        };
        self.read(s, at);
    }

    fn read(&mut self, s: &mut Surroundings, at: ReadAt) {
        let Some(session) = self.session else { return };
        let keys = self.workload.keys(&mut s.random);
        let least = match at {
            ReadAt::Latest => s.history.heard(),
            ReadAt::Epoch(epoch) => epoch,
        };
        self.requests += 1;
        let request = self.requests;
        self.reads.insert(request, Read { keys: keys.clone(), at, least });
        let message = ClientMessage::Read { request, at, keys };
        s.ask(client_node(self.number), session, &message);
    }

    fn on_message(&mut self, s: &mut Surroundings, message: ServerMessage) {
        match message {
            ServerMessage::Verdicts { request, verdicts } => self.on_verdicts(s, request, verdicts),
            ServerMessage::Receipts(receipts) => {
                receipts.into_iter().for_each(|receipt| self.on_receipt(s, receipt));
            }
            ServerMessage::Values { request, epoch, values } => {
                let Some(read) = self.reads.remove(&request) else { return };
                self.on_values(s, &read, epoch, &values);
            }
            ServerMessage::Failed { request, .. } => {
                self.reads.remove(&request);
            }
            ServerMessage::Welcome(_)
            | ServerMessage::Status { .. }
            | ServerMessage::Blocks { .. }
            | ServerMessage::Answer { .. }
            | ServerMessage::Goodbye { .. } => {}
        }
    }

    fn on_verdicts(&mut self, s: &mut Surroundings, request: u64, verdicts: Vec<Verdict>) {
        let ids = self.submissions.get(&request).cloned().unwrap_or_default();
        if ids.len() != verdicts.len() {
            let detail = format!("{} verdicts on {} transactions", verdicts.len(), ids.len());
            return s.history.violate("a verdict on each transaction", detail);
        }
        let mut is_busy = false;
        for (place, (id, verdict)) in ids.into_iter().zip(verdicts).enumerate() {
            match verdict {
                Verdict::Accepted(_) if is_busy => {
                    let detail = format!("{id} of request {request}");
                    s.history.violate("nothing overtakes what has to wait", detail);
                }
                Verdict::Accepted(accepted) if accepted == id => {
                    self.accepted.insert((request, place));
                }
                Verdict::Accepted(other) => {
                    let detail = format!("{other} was accepted where {id} was submitted");
                    s.history.violate("a verdict on each transaction", detail);
                }
                Verdict::Rejected {
                    code: code @ (ErrorCode::Busy | ErrorCode::Unavailable),
                    ..
                } => {
                    is_busy |= code == ErrorCode::Busy;
                    let delay = s.random.magnitude(20 * MILLISECOND, SECOND);
                    s.after(delay, Event::Client(self.number, ClientTimer::Again(id)));
                }
                Verdict::Rejected { code, .. } => {
                    if self.open.remove(&id).is_some() {
                        s.history.on_ending(s.now, &id, Ending::Refused(code));
                    }
                }
            }
        }
    }

    fn on_receipt(&mut self, s: &mut Surroundings, answer: ClientReceipt) {
        let ClientReceipt { request, index, receipt } = answer;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let submission = self.submissions.get(&request);
        let id = submission.and_then(|ids| ids.get(index)).copied();
        if id != Some(receipt.id) {
            let detail = format!("{} for {id:?} of request {request}", receipt.id);
            return s.history.violate("receipts answer submissions", detail);
        }
        if !self.accepted.remove(&(request, index)) {
            let detail = format!("{} of request {request} was not waited for", receipt.id);
            return s.history.violate("one receipt for each submission", detail);
        }
        self.read_through = self.read_through.max(receipt.position.epoch);
        self.open.remove(&receipt.id);
        let id = receipt.id;
        s.history.on_ending(s.now, &id, Ending::Receipt(Arc::unwrap_or_clone(receipt)));
    }

    fn on_values(
        &mut self,
        s: &mut Surroundings,
        read: &Read,
        epoch: EpochNumber,
        values: &[Option<parsec_protocol::Value>],
    ) {
        if values.len() != read.keys.len() || matches!(read.at, ReadAt::Epoch(at) if at != epoch) {
            let detail = format!("{} values at {epoch} for {read:?}", values.len());
            return s.history.violate("reads show what the oracle holds", detail);
        }
        s.history.on_read(read.least, epoch, &read.keys, values);
        self.read_through = self.read_through.max(epoch);
        let has_ended = self.left == 0 && self.open.is_empty();
        self.has_read_last |= has_ended && s.healed && read.at == ReadAt::Latest;
    }
}
