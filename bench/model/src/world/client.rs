//! The load generator: a closed loop over some connections, each of which sends whole batches as
//! soon as there is room for one.

use std::collections::{BTreeMap, VecDeque};

use parsec_protocol::Outcome;
use parsec_protocol::message::ClientReceipt;

use super::{Admission, Options, Parcel, SEQUENCER_NODE, Simulation, Submission};
use crate::agenda::Nanos;
use crate::load::Load;

/// Bytes of a submission that has no transactions.
const SUBMISSION_BYTES: usize = 32;

/// The load generator.
#[derive(Debug)]
pub(super) struct Client {
    connections: Vec<Connection>,
    /// Transactions that have their receipt.
    pub(super) done: usize,
    /// Those of them that took effect.
    pub(super) committed: usize,
    /// When the last receipt came.
    pub(super) answered: Nanos,
}

#[derive(Debug, Default)]
struct Connection {
    /// What it is to send, places in the load.
    queue: VecDeque<usize>,
    in_flight: usize,
    in_flight_max: usize,
    requests: u64,
    /// Of each submission under way: when it was sent, and how many of it have no receipt.
    under_way: BTreeMap<u64, (Nanos, usize)>,
}

impl Client {
    /// Deals the load out to connections: what one sender sends stays on one of them.
    pub(super) fn new(load: &Load, options: &Options) -> Self {
        let count = options.connections;
        let connection = |index: usize| Connection {
            in_flight_max: options.in_flight / count
                + usize::from(index < options.in_flight % count),
            ..Connection::default()
        };
        let mut connections: Vec<_> = (0..count).map(connection).collect();
        for (place, item) in load.items.iter().enumerate() {
            let by = item.sender.map_or(place, |sender| usize::try_from(sender).unwrap_or(place));
            connections[by % count].queue.push_back(place);
        }
        Self { connections, done: 0, committed: 0, answered: 0 }
    }
}

impl Simulation<'_> {
    /// Sends what a connection has room for.
    pub(super) fn submit(&mut self, connection: usize) {
        let (from, to) = (self.client_node(), self.admits(connection));
        loop {
            let here = &mut self.client.connections[connection];
            let count = self.options.batch.min(here.queue.len());
            if count == 0 || here.in_flight + count > here.in_flight_max {
                return;
            }
            here.in_flight += count;
            here.requests += 1;
            let request = here.requests;
            here.under_way.insert(request, (self.now, count));
            let items: Vec<usize> = here.queue.drain(..count).collect();
            let of_items = items.iter().map(|place| self.load.items[*place].bytes);
            let bytes = SUBMISSION_BYTES + of_items.sum::<usize>();
            let submission = Submission { connection, request, items, bytes };
            self.send(from, to, Parcel::Submission(submission), bytes);
        }
    }

    /// The node that admits what comes over a connection.
    fn admits(&self, connection: usize) -> usize {
        match self.options.admission {
            Admission::Sequencer => SEQUENCER_NODE,
            Admission::Gateways(count) => {
                self.client_node() + 1 + connection % usize::from(count.max(1))
            }
        }
    }

    pub(super) fn on_client(&mut self, parcel: Parcel) {
        let Parcel::Receipts(connection, receipts) = parcel else { return };
        for ClientReceipt { request, receipt, .. } in &receipts {
            let here = &mut self.client.connections[connection];
            here.in_flight -= 1;
            let Some((sent, left)) = here.under_way.get_mut(request) else { continue };
            let latency = self.now - *sent;
            *left -= 1;
            if *left == 0 {
                here.under_way.remove(request);
            }
            self.client.done += 1;
            self.client.committed += usize::from(receipt.outcome == Outcome::Committed);
            self.client.answered = self.now;
            self.completed(latency);
        }
        self.submit(connection);
    }
}
