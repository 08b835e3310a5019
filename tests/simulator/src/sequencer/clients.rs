//! Clients, as the sequencer serves them: submissions in their order, receipts, reads.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::codec;
use parsec_protocol::message::{
    ClientMessage, ClientReceipt, Query, ReadAt, ServerMessage, Verdict,
};
use parsec_protocol::{
    EpochNumber, ErrorCode, Footprint, Key, NodeId, Receipt, Transaction, Value,
};
use parsec_sequencer_core::{
    Accepted, Candidate, Lookup, Place, Refused, Submitted, Token, Word, word,
};

use super::queries::Purpose;
use super::trials::WantedBy;
use super::{Sequencer, SequencerTimer};
use crate::agenda::{MILLISECOND, Micros};
use crate::surroundings::{Halt, Surroundings};

/// How long to wait before asking again for a receipt.
const RETRY: Micros = 250 * MILLISECOND;

/// A client's connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    session: u64,
    /// Submissions that are being admitted, in the order in which they came.
    units: VecDeque<Unit>,
    /// The last epoch that the client was told of in a receipt.
    told: EpochNumber,
    /// Transactions that were let in and have neither a receipt nor a rejection.
    in_flight: usize,
}

/// A submission that is being admitted.
#[derive(Debug)]
struct Unit {
    request: u64,
    items: Vec<Item>,
    admitted: bool,
}

/// A transaction of a submission.
#[derive(Debug)]
enum Item {
    Ready(Box<Candidate>, Lookup),
    NeedsFootprint(Box<Candidate>, Lookup),
    Refused(ErrorCode),
}

/// A recorded receipt that a client wants.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    client: NodeId,
    session: u64,
    request: u64,
    index: u32,
    place: Place,
}

/// A read of a client.
#[derive(Debug)]
pub(super) struct Reading {
    client: NodeId,
    session: u64,
    request: u64,
    epoch: EpochNumber,
    values: Vec<Option<Value>>,
    /// How many questions have no answer yet.
    open: usize,
}

/// Connections.
impl Sequencer {
    pub(super) fn connect(&mut self, s: &mut Surroundings, client: NodeId, session: u64) {
        s.note(client, || format!("is connected ({session})"));
        self.connections.insert(client, Connection { session, ..Connection::default() });
    }

    pub(super) fn disconnect(&mut self, client: NodeId, session: u64) {
        if self.connection(client, session).is_some() {
            self.connections.remove(&client);
        }
    }

    fn connection(&mut self, client: NodeId, session: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&client).filter(|connection| connection.session == session)
    }

    fn answer(&mut self, s: &mut Surroundings, to: (NodeId, u64), message: &ServerMessage) {
        let (client, session) = to;
        if self.connection(client, session).is_some() {
            s.answer(client, session, message);
        }
    }

    pub(super) fn on_request(
        &mut self,
        s: &mut Surroundings,
        client: NodeId,
        session: u64,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        let request = codec::decode(bytes)
            .map_err(|error| Halt::Defect(format!("a request does not decode: {error}")))?;
        match request {
            ClientMessage::Submit { request, transactions } => {
                self.admit(s, client, session, request, transactions);
            }
            ClientMessage::Read { request, at, keys } => {
                self.read(s, client, session, request, at, &keys);
            }
            ClientMessage::Hello { .. }
            | ClientMessage::Status { .. }
            | ClientMessage::Blocks { .. }
            | ClientMessage::Query { .. } => {}
        }
        Ok(())
    }
}

/// Submissions.
impl Sequencer {
    fn admit(
        &mut self,
        s: &mut Surroundings,
        client: NodeId,
        session: u64,
        request: u64,
        transactions: Vec<Transaction>,
    ) {
        let Some(connection) = self.connection(client, session) else { return };
        let room = s.options.in_flight_max.saturating_sub(connection.in_flight);
        connection.in_flight += transactions.len();
        let admit = |(place, transaction)| match place < room {
            true => self.admit_one(s, transaction),
            false => Item::Refused(ErrorCode::Busy),
        };
        let items: Vec<Item> = transactions.iter().enumerate().map(admit).collect();
        let applied = self.followers.applied_by_all();
        let Some(connection) = self.connection(client, session) else { return };
        // What the client was told of has happened for what it sends now.
        let snapshot = connection.told.max(applied);
        let tried: Vec<_> = items
            .iter()
            .enumerate()
            .filter_map(|(place, item)| match item {
                Item::NeedsFootprint(candidate, _) => Some((place, Candidate::clone(candidate))),
                _ => None,
            })
            .collect();
        connection.units.push_back(Unit { request, items, admitted: false });
        for (place, candidate) in tried {
            let wanted_by = WantedBy::Submission { client, session, request, place };
            self.try_out(s, candidate, wanted_by, snapshot);
        }
        let delay = s.within(300);
        self.plan(s, delay, SequencerTimer::Admitted { client, session, request });
    }

    fn admit_one(&self, s: &Surroundings, transaction: &Transaction) -> Item {
        let Some(runtime) = s.cluster.runtimes.get(transaction.runtime) else {
            return Item::Refused(ErrorCode::UnknownRuntime);
        };
        let admitted = match runtime.admit(transaction) {
            Ok(admitted) => admitted,
            Err(rejection) => return Item::Refused(rejection.code),
        };
        let footprint = transaction.footprint.clone().or(admitted.footprint);
        let lookup = self.index.lookup(&admitted.id);
        let has_footprint = footprint.is_some();
        let candidate = Box::new(Candidate {
            id: admitted.id,
            runtime: transaction.runtime,
            sender: admitted.sender,
            payload: transaction.payload.clone(),
            footprint: footprint.unwrap_or_default(),
            expires: transaction.expires,
            renews: transaction.renews,
        });
        match has_footprint || lookup.found.is_some() {
            true => Item::Ready(candidate, lookup),
            false => Item::NeedsFootprint(candidate, lookup),
        }
    }

    pub(super) fn on_footprint(
        &mut self,
        s: &mut Surroundings,
        client: NodeId,
        session: u64,
        request: u64,
        place: usize,
        found: Result<Footprint, ErrorCode>,
    ) {
        let Some(connection) = self.connection(client, session) else { return };
        let Some(unit) = connection.units.iter_mut().find(|unit| unit.request == request) else {
            return;
        };
        let item = std::mem::replace(&mut unit.items[place], Item::Refused(ErrorCode::Unavailable));
        unit.items[place] = match (item, found) {
            (Item::NeedsFootprint(mut candidate, lookup), Ok(footprint)) => {
                candidate.footprint = footprint;
                Item::Ready(candidate, lookup)
            }
            (_, Err(code)) => Item::Refused(code),
            (other, Ok(_)) => other,
        };
        self.submit_admitted(s, client, session);
    }

    pub(super) fn on_admitted(
        &mut self,
        s: &mut Surroundings,
        client: NodeId,
        session: u64,
        request: u64,
    ) {
        let Some(connection) = self.connection(client, session) else { return };
        if let Some(unit) = connection.units.iter_mut().find(|unit| unit.request == request) {
            unit.admitted = true;
        }
        self.submit_admitted(s, client, session);
    }

    /// Submits what is admitted, in the order in which it was sent.
    fn submit_admitted(&mut self, s: &mut Surroundings, client: NodeId, session: u64) {
        while let Some(connection) = self.connection(client, session)
            && let Some(unit) = connection.units.pop_front_if(|unit| unit.is_ready())
        {
            self.submit(s, client, session, unit);
        }
    }

    fn submit(&mut self, s: &mut Surroundings, client: NodeId, session: u64, unit: Unit) {
        let request = unit.request;
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(unit.items.len());
        let (mut open, mut undecided) = (Vec::new(), Vec::new());
        for (index, item) in (0u32..).zip(unit.items) {
            match item {
                Item::Ready(candidate, lookup) => {
                    verdicts.push(None);
                    undecided.push((index, candidate.id));
                    let token = Token { connection: session, request, index };
                    open.push((*candidate, lookup, Some(token)));
                }
                Item::Refused(code) => verdicts.push(Some(rejected(code))),
                Item::NeedsFootprint(..) => unreachable!("a unit is ready when none is left"),
            }
        }
        let mut undecided = undecided.into_iter();
        let mut known = Vec::new();
        let mut is_fresh = false;
        while !open.is_empty() {
            let Submitted { verdicts: answers, mut again } = self.orderer.submit_in_order(open);
            for (answer, (index, id)) in answers.into_iter().zip(undecided.by_ref()) {
                let place = usize::try_from(index).unwrap_or(usize::MAX);
                verdicts[place] = Some(match answer {
                    Err(Refused::Expired) => rejected(ErrorCode::Expired),
                    Err(Refused::Busy) => rejected(ErrorCode::Busy),
                    Err(Refused::LookupTooOld) => unreachable!("what is too old comes back"),
                    Ok(Accepted::Known(place)) => {
                        known.push(Recorded { client, session, request, index, place });
                        Verdict::Accepted(id)
                    }
                    Ok(_) => Verdict::Accepted(id),
                });
            }
            if is_fresh && !again.is_empty() {
                let detail = format!("request {request} of {client} has asked it just now");
                return s.history.violate("what the index says now is new enough", detail);
            }
            is_fresh = true;
            for (candidate, lookup, _) in &mut again {
                *lookup = self.index.lookup(&candidate.id);
            }
            open = again;
        }
        let verdicts: Vec<Verdict> = verdicts.into_iter().flatten().collect();
        let rejected = verdicts.iter().filter(|v| matches!(v, Verdict::Rejected { .. })).count();
        if let Some(connection) = self.connection(client, session) {
            connection.in_flight -= rejected;
        }
        self.answer(s, (client, session), &ServerMessage::Verdicts { request, verdicts });
        known.into_iter().for_each(|recorded| self.fetch_receipt(s, recorded));
        self.wake(s);
    }
}

impl Unit {
    fn is_ready(&self) -> bool {
        let waits = |item: &Item| matches!(item, Item::NeedsFootprint(..));
        self.admitted && !self.items.iter().any(waits)
    }
}

fn rejected(code: ErrorCode) -> Verdict {
    Verdict::Rejected { code, detail: String::new(), retry_after_ms: None }
}

/// Receipts.
impl Sequencer {
    pub(super) fn reply(&mut self, s: &mut Surroundings, token: Token, receipt: Arc<Receipt>) {
        let found = self.connections.iter_mut().find(|(_, c)| c.session == token.connection);
        let Some((client, connection)) = found else { return };
        connection.told = connection.told.max(receipt.position.epoch);
        connection.in_flight -= 1;
        let to = (*client, token.connection);
        let (request, index) = (token.request, token.index);
        let receipts = vec![ClientReceipt { request, index, receipt }];
        self.answer(s, to, &ServerMessage::Receipts(receipts));
    }

    /// Asks for the recorded receipt of a transaction that was finished before.
    pub(super) fn fetch_receipt(&mut self, s: &mut Surroundings, recorded: Recorded) {
        if self.connection(recorded.client, recorded.session).is_none() {
            return;
        }
        let Place { position, home } = recorded.place;
        let query = Query::Receipt { partition: home, position };
        self.question(s, query, Purpose::Receipt(recorded));
    }

    pub(super) fn retry_receipt(&mut self, s: &mut Surroundings, recorded: Recorded) {
        self.plan(s, RETRY, SequencerTimer::Receipt(recorded));
    }

    pub(super) fn on_recorded(
        &mut self,
        s: &mut Surroundings,
        recorded: Recorded,
        receipt: Option<Receipt>,
    ) -> Result<(), Halt> {
        let Some(receipt) = receipt else {
            self.retry_receipt(s, recorded);
            return Ok(());
        };
        match word(receipt.into()) {
            Word::Final(receipt) => {
                let Recorded { session, request, index, .. } = recorded;
                self.reply(s, Token { connection: session, request, index }, receipt);
                Ok(())
            }
            Word::Again(_) => {
                let place = recorded.place;
                Err(Halt::Defect(format!("the index says that {place:?} was the last attempt")))
            }
        }
    }
}

/// Reads.
impl Sequencer {
    fn read(
        &mut self,
        s: &mut Surroundings,
        client: NodeId,
        session: u64,
        request: u64,
        at: ReadAt,
        keys: &[Key],
    ) {
        let ordered = self.followers.ordered();
        let epoch = match at {
            ReadAt::Latest => ordered,
            ReadAt::Epoch(epoch) => epoch,
        };
        let number = self.number();
        let values = vec![None; keys.len()];
        // One more than there are questions, until all of them are asked.
        let reading = Reading { client, session, request, epoch, values, open: 1 };
        self.reads.insert(number, reading);
        if epoch > ordered {
            return self.fail_read(s, number);
        }
        let purpose = |places| Purpose::Read { read: number, places };
        let asked = self.question_keys(s, epoch, keys, purpose);
        if let Some(reading) = self.reads.get_mut(&number) {
            reading.open += asked;
        }
        self.on_read_values(s, number, &[], Vec::new());
    }

    pub(super) fn on_read_values(
        &mut self,
        s: &mut Surroundings,
        number: u64,
        places: &[usize],
        values: Vec<Option<Value>>,
    ) {
        let Some(reading) = self.reads.get_mut(&number) else { return };
        for (place, value) in places.iter().zip(values) {
            reading.values[*place] = value;
        }
        reading.open -= 1;
        if reading.open == 0
            && let Some(reading) = self.reads.remove(&number)
        {
            let Reading { client, session, request, epoch, values, .. } = reading;
            let message = ServerMessage::Values { request, epoch, values };
            self.answer(s, (client, session), &message);
        }
    }

    pub(super) fn fail_read(&mut self, s: &mut Surroundings, number: u64) {
        let Some(reading) = self.reads.remove(&number) else { return };
        let (code, request) = (ErrorCode::Unavailable, reading.request);
        let message = ServerMessage::Failed { request, code, detail: String::new() };
        self.answer(s, (reading.client, reading.session), &message);
    }
}
