//! Delivery: clause 2.7.

use parsec_protocol::{ErrorCode, Mode};

use super::rows::{self, Account, Entered, Order, PAGE, Page, Queue, Sequence};
use super::told::Told;
use super::{DISTRICTS, Effects, Place, Step, yes};
use crate::access::Source;
use crate::{Declared, State};

/// The oldest order of a district may stand so many places before or behind where a footprint
/// expects a delivery to find it: a delivery on the way strays, or another one overtakes.
const LEEWAY: u32 = 4;
/// Most places where it may be expected: some 20 keys each.
const PLACES_MAX: u32 = 128;

/// Delivers the oldest order of each district of a warehouse.
pub(super) fn run(
    warehouse: Place,
    carrier: u8,
    call: &crate::Call<'_>,
    state: &mut dyn State,
) -> Step {
    let mut queue: Queue = yes!(rows::read(state, &warehouse.queue())?);
    let mut effects = Effects::default();
    for (district, delivered) in (1..=DISTRICTS).zip(&mut queue.delivered) {
        let place = Place { district, ..warehouse };
        let mut round = Round { place, call, state, effects: &mut effects };
        let id = yes!(round.run(carrier, delivered)?);
        effects.output.extend_from_slice(&id.to_be_bytes());
    }
    effects.writes.push((warehouse.queue(), queue.encode()));
    Ok(Ok(effects))
}

/// What a delivery touches, as the rows at hand tell it: it depends on how many deliveries come
/// before it.
pub(super) fn declared(warehouse: Place, source: &dyn Source) -> Declared {
    let mut told = Told::by(source);
    let queue = told.row::<Queue>(warehouse.queue(), Mode::Write);
    let ahead = source.ahead(&warehouse.queue());
    for district in 1..=DISTRICTS {
        let place = Place { district, ..warehouse };
        let sequence = told.row::<Sequence>(place.sequence(), Mode::Write);
        let (Some(queue), Some(sequence)) = (queue, sequence) else { continue };
        // By then, one more page may be full.
        for order in [sequence.paged, sequence.paged.saturating_add(PAGE)] {
            told.touch(place.page(order), Mode::Write);
        }
        let first = queue.delivered[usize::from(district - 1)].saturating_add(1);
        let from = first.saturating_add(ahead.least.saturating_sub(LEEWAY));
        let end = first.saturating_add(ahead.most).saturating_add(LEEWAY + 1);
        let end = end.min(from.saturating_add(PLACES_MAX)).min(sequence.next);
        for order in from..end {
            // It may be forgotten by then.
            let page = place.page(order);
            told.touch(page.clone(), Mode::Read);
            let on_page = || Page::decode(&told.value(&page)??).entered(order);
            if let Some(Entered { token, customer }) = sequence.entered(order).or_else(on_page) {
                told.touch(place.order(token), Mode::Write);
                told.touch(place.account(customer), Mode::Write);
            }
        }
    }
    told.counting(warehouse.queue())
}

/// What is done in one district.
struct Round<'a, 'b> {
    place: Place,
    call: &'a crate::Call<'a>,
    state: &'a mut (dyn State + 'b),
    effects: &'a mut Effects,
}

impl Round<'_, '_> {
    /// Delivers the order after so many. The number of it; zero if there is none.
    fn run(&mut self, carrier: u8, delivered: &mut u32) -> Step<u32> {
        let mut sequence: Sequence = yes!(rows::read(self.state, &self.place.sequence())?);
        let order = yes!(delivered.checked_add(1).ok_or(ErrorCode::Overflow));
        let is_there = order < sequence.next;
        if is_there {
            let entered = yes!(self.entered(&sequence, order)?);
            yes!(self.deliver(entered, carrier)?);
            *delivered = order;
        }
        self.turn_page(&mut sequence);
        Ok(Ok(if is_there { order } else { 0 }))
    }

    /// Where an order stands, and whose it is.
    fn entered(&mut self, sequence: &Sequence, order: u32) -> Step<Entered> {
        if let Some(entered) = sequence.entered(order) {
            return Ok(Ok(entered));
        }
        let page = yes!(self.state.get(&self.place.page(order))?.ok_or(ErrorCode::Refused));
        Ok(Page::decode(&page).entered(order).ok_or(ErrorCode::Refused))
    }

    /// Puts orders on the next page, if it is full and in the footprint: else a later delivery does
    /// so. (The footprint is in the log: all hosts do the same.)
    fn turn_page(&mut self, sequence: &mut Sequence) {
        let key = self.place.page(sequence.paged);
        let Some(page) = sequence.next_page() else { return };
        if self.call.trial || self.state.covers(&key, Mode::Write) {
            sequence.paged += PAGE;
            self.effects.writes.push((key, page));
            self.effects.writes.push((self.place.sequence(), sequence.encode()));
        }
    }

    fn deliver(&mut self, entered: Entered, carrier: u8) -> Step<()> {
        let Entered { token, customer } = entered;
        let key = self.place.order(token);
        let mut order: Order = yes!(rows::read(self.state, &key)?);
        order.carrier = carrier;
        order.delivered = self.call.epoch.timestamp_ms;
        self.effects.writes.push((key, order.encode()));
        let key = self.place.account(customer);
        let mut account: Account = yes!(rows::read(self.state, &key)?);
        let balance = account.balance.checked_add(order.amount());
        account.balance = yes!(balance.ok_or(ErrorCode::Overflow));
        account.deliveries = account.deliveries.wrapping_add(1);
        self.effects.writes.push((key, account.encode()));
        Ok(Ok(()))
    }
}
