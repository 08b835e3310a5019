//! Order-status and stock-level, which only read: clauses 2.6 and 2.8.

use std::collections::BTreeSet;

use parsec_protocol::{ErrorCode, Mode};

use super::rows::{self, Account, Order, Person, RECENT, Sequence, Stock, Token};
use super::told::Told;
use super::{Effects, Place, Step, Who, keys, yes};
use crate::access::Source;
use crate::{Declared, State};

/// Orders that a stock-level looks at.
const ORDERS: u32 = 20;
const _: () = assert!(ORDERS < RECENT);

/// A customer's balance and last order.
pub(super) fn order(place: &Place, who: Who, state: &mut dyn State) -> Step {
    let number = yes!(rows::customer(state, place, who)?);
    let account: Account = yes!(rows::read(state, &place.account(number))?);
    // A terminal would show the name.
    let _: Person = yes!(rows::read(state, &place.person(number))?);
    let mut output = [&number.to_be_bytes()[..], &account.balance.to_be_bytes()].concat();
    if let Some(row) = state.get(&place.last_order(number))? {
        let Token(token) = yes!(rows::Row::decode(&row).ok_or(ErrorCode::Refused));
        let order = yes!(state.get(&place.order(token))?.ok_or(ErrorCode::Refused));
        output.extend_from_slice(&order);
    }
    Ok(Ok(Effects { output, ..Effects::default() }))
}

/// What [`order`] touches, as the rows at hand tell it.
pub(super) fn order_declared(place: &Place, who: Who, source: &dyn Source) -> Declared {
    let mut told = Told::by(source);
    if let Some(number) = rows::customer_told(&mut told, place, who) {
        told.touch(place.account(number), Mode::Read);
        told.touch(place.person(number), Mode::Read);
        if let Some(Token(token)) = told.row_if_any(place.last_order(number), Mode::Read) {
            told.touch(place.order(token), Mode::Read);
        }
    }
    told.all()
}

/// What [`stock`] touches, as the rows at hand tell it.
pub(super) fn stock_declared(place: &Place, source: &dyn Source) -> Declared {
    let mut told = Told::by(source);
    if let Some(sequence) = told.row::<Sequence>(place.sequence(), Mode::Read) {
        for token in last_orders(&sequence, sequence.next) {
            let order = told.row::<Order>(place.order(token), Mode::Read);
            for line in order.into_iter().flat_map(|order| order.lines) {
                told.touch(keys::stock(place.database, place.warehouse, line.item), Mode::Read);
            }
        }
    }
    told.all()
}

/// The tokens of the last orders before one.
fn last_orders(sequence: &Sequence, end: u32) -> impl Iterator<Item = u64> {
    let orders = end.saturating_sub(ORDERS)..end;
    orders.filter_map(|order| Some(sequence.entered(order)?.token))
}

/// How many items of the last orders are short.
pub(super) fn stock(place: &Place, threshold: u16, trial: bool, state: &mut dyn State) -> Step {
    let sequence: Sequence = yes!(rows::read(state, &place.sequence())?);
    // The last orders when the footprint was found: later ones are not in it. (The footprint is in
    // the log: all hosts look at the same ones.)
    let known = |end: &u32| match end.checked_sub(1).and_then(|last| sequence.entered(last)) {
        Some(entered) => trial || state.covers(&place.order(entered.token), Mode::Read),
        None => false,
    };
    let oldest = sequence.next.saturating_sub(RECENT - ORDERS);
    let end = (oldest..=sequence.next).rev().find(known).unwrap_or(sequence.next);
    let mut items = BTreeSet::new();
    for token in last_orders(&sequence, end) {
        let order: Order = yes!(rows::read(state, &place.order(token))?);
        items.extend(order.lines.into_iter().map(|line| line.item));
    }
    let mut short = 0u32;
    for item in items {
        let key = keys::stock(place.database, place.warehouse, item);
        let stock: Stock = yes!(rows::read(state, &key)?);
        short += u32::from(stock.quantity < threshold);
    }
    Ok(Ok(Effects { output: short.to_be_bytes().to_vec(), ..Effects::default() }))
}
