//! Delivery: clause 2.7.

use parsec_protocol::{ErrorCode, Key, Mode};

use super::rows::{self, Customer, Order, Queue, Sequence};
use super::{DISTRICTS, Effects, Place, Step, yes};
use crate::State;

/// Delivers the oldest order of each district of a warehouse.
pub(super) fn run(
    warehouse: Place,
    carrier: u8,
    call: &crate::Call<'_>,
    state: &mut dyn State,
) -> Step {
    let mut effects = Effects::default();
    for district in 1..=DISTRICTS {
        let place = Place { district, ..warehouse };
        let mut round = Round { place, call, state, orders: Vec::new(), effects: &mut effects };
        let delivered = yes!(round.run(carrier)?);
        effects.output.extend_from_slice(&delivered.to_be_bytes());
    }
    Ok(Ok(effects))
}

/// What is done in one district.
struct Round<'a, 'b> {
    place: Place,
    call: &'a crate::Call<'a>,
    state: &'a mut (dyn State + 'b),
    /// Orders that were changed, by their tokens.
    orders: Vec<(u64, Order)>,
    effects: &'a mut Effects,
}

impl Round<'_, '_> {
    /// The number of the order that is delivered; zero if there is none.
    fn run(&mut self, carrier: u8) -> Step<u32> {
        let mut sequence: Sequence = yes!(rows::read(self.state, &self.place.sequence())?);
        let mut queue: Queue = yes!(rows::read(self.state, &self.place.queue())?);
        let unchained = sequence.unchained;
        yes!(self.chain(&mut sequence, &mut queue)?);
        if sequence.unchained != unchained {
            self.effects.writes.push((self.place.sequence(), sequence.encode()));
        }
        let delivered = match queue.head {
            0 => 0,
            head => yes!(self.deliver(head, carrier, &mut queue)?),
        };
        self.effects.writes.push((self.place.queue(), queue.encode()));
        for (token, order) in std::mem::take(&mut self.orders) {
            self.effects.writes.push((self.place.order(token), order.encode()));
        }
        Ok(Ok(delivered))
    }

    /// Puts the orders that were entered since the last delivery into the chain, as far as the
    /// footprint goes: those that were entered after it was found are left to the next delivery.
    /// (The footprint is in the log: all hosts go equally far.)
    fn chain(&mut self, sequence: &mut Sequence, queue: &mut Queue) -> Step<()> {
        while sequence.unchained < sequence.next {
            let token = yes!(sequence.token(sequence.unchained).ok_or(ErrorCode::Refused));
            if queue.head == 0 {
                queue.head = token;
            } else {
                let last = self.place.order(queue.tail);
                if !self.may_write(&last) {
                    break;
                }
                yes!(self.order(queue.tail, &last)?).next = token;
            }
            queue.tail = token;
            sequence.unchained += 1;
        }
        Ok(Ok(()))
    }

    fn may_write(&self, key: &Key) -> bool {
        self.call.trial || self.state.covers(key, Mode::Write)
    }

    /// An order, to be changed.
    fn order(&mut self, token: u64, key: &Key) -> Step<&mut Order> {
        let found = self.orders.iter().position(|(other, _)| *other == token);
        let index = match found {
            Some(index) => index,
            None => {
                let order: Order = yes!(rows::read(self.state, key)?);
                self.orders.push((token, order));
                self.orders.len() - 1
            }
        };
        Ok(Ok(&mut self.orders[index].1))
    }

    /// Delivers the first order of the chain.
    fn deliver(&mut self, head: u64, carrier: u8, queue: &mut Queue) -> Step<u32> {
        let now = self.call.epoch.timestamp_ms;
        let key = self.place.order(head);
        let order = yes!(self.order(head, &key)?);
        order.carrier = carrier;
        order.delivered = now;
        let Order { id, customer, next, .. } = *order;
        let amount = order.amount();
        *queue = Queue {
            head: next,
            tail: if next == 0 { 0 } else { queue.tail },
            delivered: queue.delivered.wrapping_add(1),
        };
        let key = self.place.customer(customer);
        let mut customer: Customer = yes!(rows::read(self.state, &key)?);
        customer.balance = yes!(customer.balance.checked_add(amount).ok_or(ErrorCode::Overflow));
        customer.deliveries = customer.deliveries.wrapping_add(1);
        self.effects.writes.push((key, customer.encode()));
        Ok(Ok(id))
    }
}
