//! New-order: clause 2.4.

use parsec_protocol::{Access, ErrorCode, Key, Mode, Value};
use rkyv::{Archive, Deserialize, Serialize};

use super::rows::{self, Entered, Line, Office, Order, Person, SequenceRow, Stock, StockText};
use super::{Effects, LINES_MAX, Place, Step, access, fault_of_district, keys, yes};
use crate::{Interrupt, State};

/// Most of an item in one line.
const QUANTITY_MAX: u8 = 99;

/// The arguments of a new-order.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NewOrder {
    /// The customer's warehouse.
    pub warehouse: u32,
    /// The customer's district.
    pub district: u8,
    /// C_ID.
    pub customer: u32,
    /// What the order's key holds: a number that no other order of the district has. Not zero.
    pub token: u64,
    /// Whether the order is to be delivered: put into NEW-ORDER.
    pub queued: bool,
    /// What is ordered: 1 to [`LINES_MAX`] different items.
    pub items: Vec<OrderedItem>,
}

/// A line of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct OrderedItem {
    /// OL_I_ID.
    pub item: u32,
    /// OL_SUPPLY_W_ID.
    pub supplier: u32,
    /// OL_QUANTITY.
    pub quantity: u8,
}

impl NewOrder {
    pub(super) fn fault(&self) -> Option<&'static str> {
        if !(1..=LINES_MAX).contains(&self.items.len()) {
            return Some("an order has 1 to 15 lines");
        }
        if self.token == 0 {
            return Some("an order's token is not zero");
        }
        let repeats = |(index, one): (usize, &OrderedItem)| {
            self.items[..index].iter().any(|other| other.item == one.item)
        };
        if self.items.iter().enumerate().any(repeats) {
            return Some("an item is ordered twice");
        }
        let amount = |item: &OrderedItem| !(1..=QUANTITY_MAX).contains(&item.quantity);
        if self.items.iter().any(amount) {
            return Some("1 to 99 of an item are ordered");
        }
        fault_of_district(self.district)
    }

    fn place(&self, database: u64) -> Place {
        Place { database, warehouse: self.warehouse, district: self.district }
    }

    pub(super) fn accesses(&self, database: u64) -> Vec<Access> {
        let place = self.place(database);
        let mut accesses = Vec::with_capacity(6 + 3 * self.items.len());
        accesses.extend([
            access(place.warehouse(), Mode::Read),
            access(place.district(), Mode::Read),
            access(place.sequence(), Mode::Write),
            access(place.person(self.customer), Mode::Read),
            access(place.last_order(self.customer), Mode::Write),
            access(place.order(self.token), Mode::Write),
        ]);
        for &OrderedItem { item, supplier, .. } in &self.items {
            accesses.push(access(keys::item(database, item), Mode::Read));
            accesses.push(access(keys::stock(database, supplier, item), Mode::Write));
            accesses.push(access(keys::stock_text(database, supplier, item), Mode::Read));
        }
        accesses
    }

    pub(super) fn run(&self, database: u64, call: &crate::Call<'_>, state: &mut dyn State) -> Step {
        let place = self.place(database);
        let warehouse: Office = yes!(rows::read(state, &place.warehouse())?);
        let district: Office = yes!(rows::read(state, &place.district())?);
        let person: Person = yes!(rows::read(state, &place.person(self.customer))?);
        let sequence_key = place.sequence();
        let sequence = state.get(&sequence_key)?.and_then(SequenceRow::decode);
        let sequence = yes!(sequence.ok_or(ErrorCode::Refused));
        let order_key = place.order(self.token);
        if state.get(&order_key)?.is_some() {
            return Ok(Err(ErrorCode::AlreadyExists));
        }

        let (mut found, by_key) = self.look_up(database, state)?;
        let mut lines = Vec::with_capacity(self.items.len());
        for (item, found) in self.items.iter().zip(&mut found) {
            lines.push(yes!(self.take(item, found)));
        }
        let mut effects = Effects::default();
        effects.writes.reserve(self.items.len() + 3);
        let stocks = by_key.iter().map(|line| &found[*line]);
        effects
            .writes
            .extend(stocks.filter_map(|found| Some((found.key.clone(), found.stock.clone()?))));
        let id = sequence.next;
        let numbered = yes!(self.number(&sequence));
        let order = Order {
            id,
            customer: self.customer,
            entered: call.epoch.timestamp_ms,
            carrier: 0,
            delivered: 0,
            all_local: self.items.iter().all(|item| item.supplier == self.warehouse),
            lines,
        };
        let tax = 10_000 + u64::from(warehouse.tax) + u64::from(district.tax);
        let total = yes!(total(&order, person.discount, tax).ok_or(ErrorCode::Overflow));
        effects.writes.extend([
            (order_key, order.encode()),
            (sequence_key, numbered),
            (place.last_order(self.customer), Value::copy_from_slice(&self.token.to_be_bytes())),
        ]);
        effects.output = [&id.to_be_bytes()[..], &total.to_be_bytes()].concat();
        Ok(Ok(effects))
    }

    /// The row of the district's numbers, after the order has taken one.
    fn number(&self, sequence: &SequenceRow) -> Result<Value, ErrorCode> {
        if self.queued && sequence.is_full() {
            return Err(ErrorCode::TooLarge);
        }
        let entered = Entered { token: self.token, customer: self.customer };
        sequence.entered(entered).ok_or(ErrorCode::Overflow)
    }

    /// The rows of all lines, and these in the order of their stocks' keys. Rows are looked up by what
    /// they are and then in the order of their keys: so each is next to the last one in the footprint.
    fn look_up(
        &self,
        database: u64,
        state: &mut dyn State,
    ) -> Result<(Vec<Found>, Vec<usize>), Interrupt> {
        let nothing = |ordered: &OrderedItem| Found {
            item: None,
            key: keys::stock(database, ordered.supplier, ordered.item),
            stock: None,
            text: None,
        };
        let mut found: Vec<Found> = self.items.iter().map(nothing).collect();
        let mut lines: Vec<usize> = (0..found.len()).collect();
        lines.sort_unstable_by_key(|line| self.items[*line].item);
        for line in &lines {
            found[*line].item = state.get(&keys::item(database, self.items[*line].item))?;
        }
        lines.sort_unstable_by_key(|line| (self.items[*line].supplier, self.items[*line].item));
        for line in &lines {
            found[*line].stock = state.get(&found[*line].key)?;
        }
        for line in &lines {
            let OrderedItem { item, supplier, .. } = self.items[*line];
            found[*line].text = state.get(&keys::stock_text(database, supplier, item))?;
        }
        Ok((found, lines))
    }

    /// Takes an item out of stock.
    fn take(&self, ordered: &OrderedItem, found: &mut Found) -> Result<Line, ErrorCode> {
        let &OrderedItem { item, supplier, quantity } = ordered;
        let price = found.item.as_deref().and_then(rows::price).ok_or(ErrorCode::Refused)?;
        let amount = price.checked_mul(u32::from(quantity)).ok_or(ErrorCode::Overflow)?;
        let stock = found.stock.as_deref().and_then(Stock::decode);
        let mut stock = stock.ok_or(ErrorCode::Refused)?;
        let text = found.text.as_deref().and_then(StockText::decode).ok_or(ErrorCode::Refused)?;
        let ordered = u16::from(quantity);
        stock.quantity = match stock.quantity >= ordered + 10 {
            true => stock.quantity - ordered,
            false => (stock.quantity + 91).saturating_sub(ordered),
        };
        stock.ytd = stock.ytd.wrapping_add(quantity.into());
        stock.orders = stock.orders.wrapping_add(1);
        stock.remote = stock.remote.wrapping_add(u32::from(supplier != self.warehouse));
        let info = text.district(self.district);
        found.stock = Some(stock.encode());
        Ok(Line { item, supplier, quantity, amount, info })
    }
}

/// The rows of a line.
struct Found {
    item: Option<Value>,
    /// Of its stock.
    key: Key,
    stock: Option<Value>,
    text: Option<Value>,
}

/// What an order costs, cents, rounded down.
fn total(order: &Order, discount: u16, tax: u64) -> Option<u64> {
    let amount = u64::try_from(order.amount()).ok()?;
    let rest = 10_000u64.checked_sub(discount.into())?;
    Some(amount.checked_mul(rest)?.checked_mul(tax)? / 100_000_000)
}
