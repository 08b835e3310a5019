//! The lane: takes transactions, closes batches of them, and follows each to its final receipt.

mod apart;
mod closing;

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{
    Access, Batch, BatchRef, Entry, EpochNumber, EpochRecord, ErrorCode, Footprint, LaneId,
    Position, Receipt, TxId, codec,
};
use smallvec::SmallVec;

use self::apart::Apart;
use crate::limits::APART_ATTEMPT;
use crate::window::{Window, firsts};
use crate::{
    Candidate, HomeChooser, LaneOptions, Output, Place, Rediscovery, Tick, Token, Word, is_void,
    limits, positions, word,
};

/// What the index of ids said of a transaction before it was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// Where it was ordered last, if the index knows.
    pub found: Option<Place>,
    /// Whether it is known that it had no effect at all there, as its receipt says.
    pub void: bool,
    /// The epoch through which the index was complete when it was asked.
    pub through: EpochNumber,
}

/// What becomes of a transaction that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It will be ordered. The token is answered with a [`Output::Reply`].
    Queued,
    /// It is under way already. The token is answered with a [`Output::Reply`].
    Attached,
    /// It was ordered and finished before: its receipt is there. The token is not answered.
    Known(Place),
}

/// Why a transaction is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A limit of [`LaneOptions`] is reached.
    #[error("the lane has as much to do as it accepts")]
    Busy,
    /// Its last epoch has passed.
    #[error("its last epoch has passed")]
    Expired,
    /// The index of ids was asked too long ago: ask it again, and submit with what it says.
    #[error("the index of ids has to be asked again")]
    LookupTooOld,
}

/// What is known of an id that is not in the index alone.
#[derive(Debug)]
enum Known {
    Flight(Flight),
    /// It is finished there; `void` if it is known that it had no effect at all.
    Finished {
        place: Place,
        void: bool,
    },
}

/// Who waits for a receipt: mostly one.
type Tokens = SmallVec<[Token; 1]>;

/// A transaction without a final receipt.
#[derive(Debug)]
struct Flight {
    tokens: Tokens,
    stage: Stage,
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// It waits for its first batch.
    Queued,
    /// It is in a batch that is not ordered yet; `before` is where its last attempt was ordered.
    Closed { before: Option<Position> },
    /// It is ordered and no receipt has come.
    Ordered(Place),
    /// It strayed at `before`; its footprint is being found anew.
    Rediscovering { before: Position, stray: Box<Access>, attempt: u8 },
    /// It strayed at `before`, and waits for its next batch.
    Again { before: Position },
}

/// What is known of a summary of all that is ordered. See
/// [`LaneOptions::summary_key`](crate::LaneOptions::summary_key).
#[derive(Debug)]
enum Summary {
    Unknown,
    /// It was asked for.
    Asked(EpochNumber),
    /// This transaction writes it.
    Known(EpochNumber, Box<Entry>),
}

/// A lane. See the crate's documentation for how its inputs and outputs go together.
///
/// **Invariant:** batches keep the order of submission, except that transactions that strayed go
/// first.
///
/// **Invariant:** `executing <= in_flight`, and no batch makes `in_flight` exceed its limit. (After a
/// restart it may: what was not known to be settled counts again until its receipts have come.)
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    options: LaneOptions,
    homes: HomeChooser,
    sequence: u64,
    queue: VecDeque<Entry>,
    queue_bytes: usize,
    /// Transactions that strayed and have their wider footprint.
    again: VecDeque<Entry>,
    again_bytes: usize,
    /// Transactions that have strayed so often that they have to run apart, first come first served.
    /// While there are any, or a group of them is under way, no other batch is closed.
    apart: VecDeque<TxId>,
    apart_stage: Apart,
    summary: Summary,
    known: AHashMap<TxId, Known>,
    /// Batches that are closed and not ordered.
    offered: VecDeque<(BatchRef, Arc<Batch>)>,
    window: Window,
    applied: EpochNumber,
    closed_at: Tick,
    /// Whether what is offered now is ordered at once, when this was last known.
    ledger_is_free: bool,
    /// Transactions that have been in a batch and are unfinished.
    in_flight: usize,
    /// Those of them that are in a batch or ordered now, and have no receipt for it.
    executing: usize,
    outputs: VecDeque<Output>,
}

impl Lane {
    /// A lane whose last batch was `sequence` (0 for none), which has been told the final receipts
    /// of every epoch through `settled`, and all of whose ids through `indexed` are in the index.
    ///
    /// Whatever the log holds after the lesser of the two has to be restored next.
    #[must_use]
    pub fn new(
        id: LaneId,
        options: LaneOptions,
        homes: HomeChooser,
        settled: EpochNumber,
        indexed: EpochNumber,
    ) -> Self {
        assert!(options.epochs_in_flight_max >= 2, "one epoch is ordered while another is applied");
        Self {
            id,
            options,
            homes,
            sequence: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            again: VecDeque::new(),
            again_bytes: 0,
            apart: VecDeque::new(),
            apart_stage: Apart::Idle,
            summary: Summary::Unknown,
            known: AHashMap::new(),
            offered: VecDeque::new(),
            window: Window::new(settled, indexed),
            applied: EpochNumber::default(),
            closed_at: Tick::default(),
            ledger_is_free: true,
            in_flight: 0,
            executing: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Continues the lane's numbering after its batch `sequence`.
    pub fn restore_sequence(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Takes over the next epoch of the log, after a restart.
    ///
    /// # Panics
    /// If it is not the next one, or the batches are not those of the record.
    pub fn restore_epoch(&mut self, record: &EpochRecord, batches: Vec<Arc<Batch>>) {
        let settled = self.window.is_settled(record.number);
        for (position, entry) in positions(self.id, record, &batches) {
            let place = Place { position, home: entry.home };
            let state = match settled {
                true => Known::Finished { place, void: false },
                false => Known::Flight(Flight::new(Stage::Ordered(place))),
            };
            if let Some(Known::Flight(earlier)) = self.known.insert(entry.id, state) {
                // It was ordered again, so its earlier attempt strayed or had no effect.
                self.resolve(earlier.stage);
            } else if !settled {
                self.in_flight += 1;
                self.executing += 1;
            }
        }
        self.restore_sequence(batches.last().map_or(0, |batch| batch.sequence));
        let placed = firsts(self.id, record).into_iter().zip(batches).collect();
        self.window.push(record.number, placed);
    }

    /// Takes over a batch at the end of the log that no epoch orders, after a restart; it has to
    /// be offered to the ledger. Its transactions may have been promised to clients.
    ///
    /// # Panics
    /// If it is not the lane's next batch.
    #[must_use]
    pub fn restore_batch(&mut self, batch: Arc<Batch>) -> BatchRef {
        assert_eq!(batch.sequence, self.sequence + 1, "batches are dense");
        self.sequence = batch.sequence;
        for entry in &batch.entries {
            let before = match self.known.get(&entry.id) {
                Some(Known::Flight(Flight { stage: Stage::Ordered(place), .. })) => {
                    Some(place.position)
                }
                _ => {
                    self.in_flight += 1;
                    self.executing += 1;
                    None
                }
            };
            let flight = Flight::new(Stage::Closed { before });
            self.known.insert(entry.id, Known::Flight(flight));
        }
        let reference = batch.reference(&codec::encode(&*batch));
        self.offered.push_back((reference.clone(), batch));
        reference
    }

    /// Whether [`Self::submit`] would refuse a transaction because `lookup` is
    /// [too old](Refused::LookupTooOld).
    pub(crate) fn is_too_old(&self, id: &TxId, lookup: &Lookup) -> bool {
        lookup.through < self.window.retired() && !self.known.contains_key(id)
    }

    /// Takes a transaction, or refuses it.
    ///
    /// # Errors
    /// [`Refused::Busy`] if it, or one more token for it, would exceed a limit;
    /// [`Refused::Expired`] if its last epoch has passed; [`Refused::LookupTooOld`] if `lookup` is.
    pub fn submit(
        &mut self,
        candidate: Candidate,
        lookup: Lookup,
        token: Option<Token>,
    ) -> Result<Accepted, Refused> {
        if self.is_too_old(&candidate.id, &lookup) {
            return Err(Refused::LookupTooOld);
        }
        match self.known.get_mut(&candidate.id) {
            Some(Known::Flight(flight)) => return flight.attach(token),
            Some(Known::Finished { place, void }) => {
                let void = *void || (lookup.void && lookup.found == Some(*place));
                if !(void && candidate.renews) {
                    return Ok(Accepted::Known(*place));
                }
            }
            None => {
                if let Some(place) = lookup.found
                    && !(lookup.void && candidate.renews)
                {
                    return Ok(Accepted::Known(place));
                }
            }
        }
        if candidate.expires.is_some_and(|last| last <= self.window.last()) {
            return Err(Refused::Expired);
        }
        let entry = candidate.into_entry();
        let bytes = self.queue_bytes + entry.size();
        if self.queue.len() >= self.options.pending_transactions_max
            || bytes > self.options.pending_bytes_max
        {
            return Err(Refused::Busy);
        }
        let mut flight = Flight::new(Stage::Queued);
        flight.tokens.extend(token);
        self.known.insert(entry.id, Known::Flight(flight));
        self.queue_bytes = bytes;
        self.queue.push_back(entry);
        Ok(Accepted::Queued)
    }

    /// A receipt came from an executor. One that is not for the transaction's last attempt, or is
    /// for none that is under way, is ignored: executors send them again after every reconnect.
    pub fn on_receipt(&mut self, receipt: Arc<Receipt>) {
        let Some(known) = self.known.get_mut(&receipt.id) else { return };
        let Known::Flight(flight) = known else { return };
        let Stage::Ordered(place) = flight.stage else { return };
        if place.position != receipt.position {
            return;
        }
        self.executing -= 1;
        let (id, before, attempt) = (receipt.id, receipt.position, receipt.attempt + 1);
        match word(receipt) {
            Word::Final(receipt) => {
                let tokens = std::mem::take(&mut flight.tokens);
                *known = Known::Finished { place, void: is_void(&receipt) };
                self.finish(receipt, tokens);
            }
            Word::Again(stray) => {
                let stray = Box::new(stray);
                flight.stage = Stage::Rediscovering { before, stray, attempt };
                match attempt < APART_ATTEMPT {
                    true => self.rediscover(&[id], before.epoch),
                    false => self.apart.push_back(id),
                }
            }
        }
    }

    /// A [`Rediscovery`] is done: the transaction's footprint, or why none can be found at all.
    pub fn on_discovered(&mut self, id: TxId, attempt: u8, result: Result<Footprint, ErrorCode>) {
        let Some(Known::Flight(flight)) = self.known.get_mut(&id) else { return };
        let Stage::Rediscovering { before, stray, attempt: expected } = &flight.stage else {
            return;
        };
        if *expected != attempt {
            return;
        }
        let old = self.window.entry(*before).expect("an unfinished transaction is retained");
        let (footprint, attempt) = widen(&old.footprint, stray, result, attempt);
        let entry = Entry { footprint, attempt, ..old.clone() };
        flight.stage = Stage::Again { before: *before };
        if let Some(entry) = self.keep_for_group(entry) {
            self.again_bytes += entry.size();
            self.again.push_back(entry);
        }
    }

    /// The answer to [`Output::Summarize`]: a transaction that writes the summary of all epochs
    /// through `through`. Its id must be its own, whatever was summarized before.
    pub fn on_summary(&mut self, through: EpochNumber, write: Candidate) {
        if matches!(self.summary, Summary::Asked(asked) if asked == through) {
            self.summary = Summary::Known(through, Box::new(write.into_entry()));
        }
    }

    /// Every partition has applied every epoch through `through`.
    pub fn on_applied(&mut self, through: EpochNumber) {
        self.applied = self.applied.max(through);
    }

    /// The index holds every id through `through`.
    pub fn on_indexed(&mut self, through: EpochNumber) {
        let forgotten = self.window.on_indexed(through);
        self.forget(forgotten);
    }

    /// The ledger committed an epoch: it is ordered, and durable.
    ///
    /// # Panics
    /// If it does not order this lane's batches in their sequence.
    pub fn on_committed(&mut self, record: EpochRecord) {
        let mut batches = Vec::new();
        for reference in record.batches.iter().filter(|reference| reference.lane == self.id) {
            let (offered, batch) =
                self.offered.pop_front().expect("only what is offered is ordered");
            assert_eq!(offered, *reference, "a lane's batches are ordered in their sequence");
            batches.push(batch);
        }
        let placed = firsts(self.id, &record).into_iter().zip(batches.iter().cloned()).collect();
        self.window.push(record.number, placed);
        for (position, entry) in positions(self.id, &record, &batches) {
            let Some(Known::Flight(flight)) = self.known.get_mut(&entry.id) else {
                unreachable!("what is in an offered batch is under way")
            };
            let place = Place { position, home: entry.home };
            let stage = std::mem::replace(&mut flight.stage, Stage::Ordered(place));
            self.resolve(stage);
        }
        self.outputs.push_back(Output::Dispatch { record, batches });
    }

    /// Closes what batches may be closed now, and returns their references, to be offered. A batch
    /// that is not full is closed only if the ledger is free.
    pub fn close(&mut self, now: Tick, ledger_is_free: bool) -> Vec<BatchRef> {
        self.ledger_is_free = ledger_is_free;
        if let Some(closed) = self.close_apart(now) {
            return closed;
        }
        let mut closed = Vec::new();
        let partial = self.may_close_partial(now);
        while self.has_room() && (partial || self.has_full_batch()) {
            let entries = self.take_entries();
            if entries.is_empty() {
                break;
            }
            closed.push(self.close_batch(now, entries));
        }
        closed
    }

    /// When [`Lane::close`] should be called again, if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Tick> {
        let fresh = self.queue.len().min(self.room_for_fresh());
        let waits = self.again.len() + fresh > 0 && !self.is_apart() && !self.is_held();
        let paced = waits && self.ledger_is_free && self.has_room();
        paced.then(|| self.closed_at.after(self.epoch_interval_us()))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The greatest epoch through which every transaction has its final receipt, or was ordered
    /// again later.
    #[must_use]
    pub fn settled(&self) -> EpochNumber {
        self.window.settled()
    }

    /// The last epoch that was committed.
    #[must_use]
    pub fn ordered(&self) -> EpochNumber {
        self.window.last()
    }

    /// How many transactions wait for their first batch.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// How many transactions are not ordered yet, first attempts and later ones.
    #[must_use]
    pub fn unordered(&self) -> usize {
        self.queue.len() + self.again.len() + self.offered_transactions()
    }

    /// How many transactions have been put into a batch and have no final receipt.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many transactions are kept in memory because they are unfinished or not indexed.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.window.transactions()
    }
}

/// Receipts and strays.
impl Lane {
    /// A transaction that was under way is known as finished: tells those who wait for it.
    fn finish(&mut self, receipt: Arc<Receipt>, tokens: Tokens) {
        self.in_flight -= 1;
        let forgotten = self.window.resolve(receipt.position.epoch);
        self.forget(forgotten);
        let mut tokens = tokens.into_iter();
        let last = tokens.next_back();
        for token in tokens {
            self.outputs.push_back(Output::Reply { token, receipt: receipt.clone() });
        }
        // Most have one token: that one gets the receipt itself.
        self.outputs.extend(last.map(|token| Output::Reply { token, receipt }));
    }

    /// Asks for the footprints of transactions that strayed, in the state after `least` or later.
    fn rediscover(&mut self, ids: &[TxId], least: EpochNumber) {
        let strays = ids.iter().filter_map(|id| {
            let Some(Known::Flight(flight)) = self.known.get(id) else { return None };
            let Stage::Rediscovering { before, stray, attempt } = &flight.stage else {
                return None;
            };
            let entry = self.window.entry(*before).expect("an unfinished transaction is retained");
            let (entry, stray) = (entry.clone(), Access::clone(stray));
            Some(Rediscovery { entry, stray, attempt: *attempt, least })
        });
        self.outputs.push_back(Output::Rediscover(strays.collect()));
    }

    /// The attempt that had come to `stage` is over, because the transaction was ordered again.
    fn resolve(&mut self, stage: Stage) {
        let before = match stage {
            Stage::Ordered(place) => place.position,
            Stage::Closed { before: Some(before) } => before,
            _ => return,
        };
        let forgotten = self.window.resolve(before.epoch);
        self.forget(forgotten);
    }

    fn forget(&mut self, forgotten: Vec<(TxId, Position)>) {
        for (id, position) in forgotten {
            // A transaction that was ordered again later stays known until that is indexed too.
            let finished = |known: &Known| matches!(known, Known::Finished { place, .. } if place.position == position);
            if self.known.get(&id).is_some_and(finished) {
                self.known.remove(&id);
            }
        }
    }
}

impl Flight {
    fn new(stage: Stage) -> Self {
        Self { tokens: SmallVec::new(), stage }
    }

    fn attach(&mut self, token: Option<Token>) -> Result<Accepted, Refused> {
        if self.tokens.len() >= limits::TOKENS_PER_TRANSACTION_MAX {
            return Err(Refused::Busy);
        }
        self.tokens.extend(token);
        Ok(Accepted::Attached)
    }
}

/// The footprint and the number of the next attempt.
///
/// Where no footprint is to be had (it would be too long), the transaction goes straight to its
/// last attempt with what is known. It most likely strays there, which is how it ends: an end that
/// was not recorded in the order could be a different one after a crash.
fn widen(
    old: &Footprint,
    stray: &Access,
    found: Result<Footprint, ErrorCode>,
    attempt: u8,
) -> (Footprint, u8) {
    let strayed = Footprint::new(vec![stray.clone()]).unwrap_or_default();
    let wider = found.ok().and_then(|found| {
        let needed = found.union(&strayed).ok()?;
        Some(needed.union(old).unwrap_or(needed))
    });
    wider.map_or_else(|| (old.clone(), STRAY_ATTEMPTS_MAX), |footprint| (footprint, attempt))
}
