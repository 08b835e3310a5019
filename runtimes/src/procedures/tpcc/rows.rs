//! The rows of TPC-C. Text is padded with spaces to its greatest length. Money is in cents, taxes
//! and discounts in 1/10,000.

use parsec_protocol::{ErrorCode, Key, Value};

use super::super::Step;
use super::super::fields::Fields;
use crate::State;

mod customer;
mod stock;

pub use customer::{Account, DATA_BYTES, Names, PERSON_BYTES, Person};
pub(super) use customer::{customer, customer_told};
pub use stock::{DIST_BYTES, Stock, StockText};

/// Most lines of an order.
pub const LINES_MAX: usize = 15;
/// Its last orders that a district remembers.
pub const RECENT: u32 = 128;
const RECENT_SLOTS: usize = RECENT as usize;
/// Orders on a page of NEW-ORDER.
pub const PAGE: u32 = 64;
const _: () = assert!(PAGE < RECENT, "a page must be full before its first order is forgotten");
/// Bytes of names, streets, city, state and zip of a warehouse or district.
pub const ADDRESS_BYTES: usize = 10 + 20 + 20 + 20 + 2 + 9;

/// A row: how it is written and read.
pub(super) trait Row: Sized {
    fn decode(row: &[u8]) -> Option<Self>;
}

/// Reads a row that has to be there; says no ([`ErrorCode::Refused`]) if it is not, or is damaged.
pub(super) fn read<R: Row>(state: &mut dyn State, key: &Key) -> Step<R> {
    let row = state.get(key)?;
    Ok(row.and_then(|row| R::decode(&row)).ok_or(ErrorCode::Refused))
}

/// WAREHOUSE and DISTRICT, without what changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Office {
    /// W_TAX or D_TAX.
    pub tax: u16,
    /// Name, streets, city, state and zip.
    pub address: [u8; ADDRESS_BYTES],
}

impl Office {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([&self.tax.to_be_bytes()[..], &self.address])
    }

    /// W_NAME or D_NAME.
    pub(super) fn name(&self) -> &[u8] {
        &self.address[..10]
    }
}

impl Row for Office {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let tax = fields.u16()?;
        let address = fields.bytes(ADDRESS_BYTES)?.try_into().ok()?;
        fields.end()?;
        Some(Self { tax, address })
    }
}

/// What is remembered of an order until it is delivered: where it stands, and whose it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entered {
    /// Its token; zero where there is no order.
    pub token: u64,
    /// O_C_ID.
    pub customer: u32,
}

impl Entered {
    const BYTES: usize = 12;

    fn write(&self, row: &mut Vec<u8>) {
        row.extend_from_slice(&self.token.to_be_bytes());
        row.extend_from_slice(&self.customer.to_be_bytes());
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { token: fields.u64()?, customer: fields.u32()? })
    }

    fn is_some(&self) -> bool {
        self.token != 0
    }
}

/// The order numbers of a district, and its last orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// D_NEXT_O_ID.
    pub next: u32,
    /// The first order that no delivery has put on a [`Page`] yet.
    pub paged: u32,
    /// The last [`RECENT`] orders: order n stands at n modulo `RECENT`.
    pub recent: [Entered; RECENT_SLOTS],
}

impl Sequence {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut row = Vec::with_capacity(8 + Entered::BYTES * self.recent.len());
        row.extend_from_slice(&self.next.to_be_bytes());
        row.extend_from_slice(&self.paged.to_be_bytes());
        self.recent.iter().for_each(|entered| entered.write(&mut row));
        row.into()
    }

    /// The sequence of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }

    /// An order, if it is remembered.
    #[must_use]
    pub fn entered(&self, order: u32) -> Option<Entered> {
        let remembered = order < self.next && self.next - order <= RECENT;
        remembered.then(|| self.recent[slot(order)]).filter(Entered::is_some)
    }

    /// Remembers an order.
    pub fn remember(&mut self, order: u32, entered: Entered) {
        self.recent[slot(order)] = entered;
    }

    /// The next page, if it is full: what goes there of what is remembered.
    #[must_use]
    pub fn next_page(&self) -> Option<Value> {
        let end = self.paged.checked_add(PAGE).filter(|end| *end <= self.next)?;
        let mut row = Vec::with_capacity(Entered::BYTES * slot(PAGE));
        for order in self.paged..end {
            match order {
                // Numbers begin at one.
                0 => Entered::default().write(&mut row),
                order => self.entered(order)?.write(&mut row),
            }
        }
        Some(row.into())
    }
}

/// A row of [`Sequence`], as it is: an order changes 16 of its 1,544 bytes.
pub(super) struct SequenceRow {
    row: Value,
    /// D_NEXT_O_ID.
    pub(super) next: u32,
    paged: u32,
}

impl SequenceRow {
    const HEADER_BYTES: usize = 8;

    /// Whether the next order takes the place of one that is on no page.
    pub(super) fn is_full(&self) -> bool {
        self.next.checked_sub(RECENT).is_some_and(|lost| lost >= self.paged.max(1))
    }

    /// The row after the next order; `None` if there can't be another.
    pub(super) fn entered(&self, entered: Entered) -> Option<Value> {
        let next = self.next.checked_add(1)?.to_be_bytes();
        let mut order = Vec::with_capacity(Entered::BYTES);
        entered.write(&mut order);
        let (before, rest) =
            self.row.split_at(Self::HEADER_BYTES + slot(self.next) * Entered::BYTES);
        let (_, after) = rest.split_at(Entered::BYTES);
        Some(Value::concat([&next[..], &before[next.len()..], &order, after]))
    }

    /// The row; `None` if it is none.
    pub(super) fn decode(row: Value) -> Option<Self> {
        let mut fields = Fields(&row);
        let (next, paged) = (fields.u32()?, fields.u32()?);
        let is_whole = row.len() == Self::HEADER_BYTES + RECENT_SLOTS * Entered::BYTES;
        is_whole.then_some(Self { row, next, paged })
    }
}

fn slot(order: u32) -> usize {
    usize::try_from(order % RECENT).expect("below 128")
}

impl Row for Sequence {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let (next, paged) = (fields.u32()?, fields.u32()?);
        let mut recent = [Entered::default(); RECENT_SLOTS];
        for entered in &mut recent {
            *entered = Entered::read(&mut fields)?;
        }
        fields.end()?;
        Some(Self { next, paged, recent })
    }
}

/// A page of NEW-ORDER: [`PAGE`] orders of a district, by their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a>(&'a [u8]);

impl<'a> Page<'a> {
    /// The page of a row.
    #[must_use]
    pub fn decode(row: &'a [u8]) -> Self {
        Self(row)
    }

    /// An order, if it is on the page.
    #[must_use]
    pub fn entered(&self, order: u32) -> Option<Entered> {
        let start = usize::try_from(order % PAGE).ok()? * Entered::BYTES;
        Entered::read(&mut Fields(self.0.get(start..)?)).filter(Entered::is_some)
    }
}

/// NEW-ORDER: how many orders of each district of a warehouse are delivered. The next one is the
/// oldest that is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// By district, from the first.
    pub delivered: [u32; super::DISTRICTS as usize],
}

impl Queue {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        self.delivered.map(u32::to_be_bytes).concat().into()
    }

    /// The queue of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }
}

impl Row for Queue {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let mut queue = Self::default();
        for delivered in &mut queue.delivered {
            *delivered = fields.u32()?;
        }
        fields.end()?;
        Some(queue)
    }
}

/// ITEM. Its name and its image are kept, but nothing reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// I_PRICE.
    pub price: u32,
    /// I_NAME, 24 bytes, and then I_DATA.
    pub text: Vec<u8>,
}

impl Item {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([&self.price.to_be_bytes()[..], &self.text])
    }
}

/// The price in a row of ITEM.
pub(super) fn price(row: &[u8]) -> Option<u32> {
    Fields(row).u32()
}

/// ORDER with its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// O_ID.
    pub id: u32,
    /// O_C_ID.
    pub customer: u32,
    /// O_ENTRY_D, milliseconds since 1970.
    pub entered: u64,
    /// O_CARRIER_ID; zero until it is delivered.
    pub carrier: u8,
    /// OL_DELIVERY_D of all lines; zero until it is delivered.
    pub delivered: u64,
    /// O_ALL_LOCAL.
    pub all_local: bool,
    /// Its lines, at most [`LINES_MAX`].
    pub lines: Vec<Line>,
}

/// ORDER-LINE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// OL_I_ID.
    pub item: u32,
    /// OL_SUPPLY_W_ID.
    pub supplier: u32,
    /// OL_QUANTITY.
    pub quantity: u8,
    /// OL_AMOUNT.
    pub amount: u32,
    /// OL_DIST_INFO.
    pub info: [u8; DIST_BYTES],
}

impl Order {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut row = Vec::with_capacity(27 + 37 * self.lines.len());
        row.extend_from_slice(&self.id.to_be_bytes());
        row.extend_from_slice(&self.customer.to_be_bytes());
        row.extend_from_slice(&self.entered.to_be_bytes());
        row.push(self.carrier);
        row.extend_from_slice(&self.delivered.to_be_bytes());
        row.push(u8::from(self.all_local));
        // O_OL_CNT.
        row.push(u8::try_from(self.lines.len()).unwrap_or(u8::MAX));
        for line in &self.lines {
            row.extend_from_slice(&line.item.to_be_bytes());
            row.extend_from_slice(&line.supplier.to_be_bytes());
            row.push(line.quantity);
            row.extend_from_slice(&line.amount.to_be_bytes());
            row.extend_from_slice(&line.info);
        }
        row.into()
    }

    /// The order of a row; `None` if it is none, or has not as many lines as it says.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }

    /// The sum of OL_AMOUNT.
    #[must_use]
    pub fn amount(&self) -> i64 {
        self.lines.iter().map(|line| i64::from(line.amount)).sum()
    }
}

impl Row for Order {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let mut order = Self {
            id: fields.u32()?,
            customer: fields.u32()?,
            entered: fields.u64()?,
            carrier: fields.u8()?,
            delivered: fields.u64()?,
            all_local: fields.u8()? == 1,
            lines: Vec::new(),
        };
        let count = fields.u8()?;
        if usize::from(count) > LINES_MAX {
            return None;
        }
        for _ in 0..count {
            order.lines.push(Line {
                item: fields.u32()?,
                supplier: fields.u32()?,
                quantity: fields.u8()?,
                amount: fields.u32()?,
                info: fields.bytes(DIST_BYTES)?.try_into().ok()?,
            });
        }
        fields.end()?;
        Some(order)
    }
}

/// The token that a row holds.
pub(super) struct Token(pub(super) u64);

impl Row for Token {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let token = fields.u64()?;
        fields.end()?;
        Some(Self(token))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_takes_an_order_as_its_sequence_does(
            (next, paged, remembered) in (any::<u32>(), any::<u32>(), any::<u64>()),
            (token, customer) in any::<(u64, u32)>(),
        ) {
            let recent = [Entered { token: remembered, customer: 7 }; RECENT_SLOTS];
            let mut sequence = Sequence { next, paged, recent };
            let row = SequenceRow::decode(sequence.encode()).unwrap();
            let entered = Entered { token, customer };
            sequence.remember(next, entered);
            sequence.next = next.wrapping_add(1);
            let expected = (sequence.next != 0).then(|| sequence.encode());
            prop_assert_eq!(row.entered(entered), expected);
        }
    }

    #[test]
    fn a_row_of_another_length_is_none() {
        let sequence = Sequence { next: 1, paged: 0, recent: [Entered::default(); RECENT_SLOTS] };
        let row = sequence.encode();
        assert!(SequenceRow::decode(row.clone()).is_some());
        for other in [&row[..0], &row[..8], &row[..row.len() - 1], &[&row[..], &[0]].concat()] {
            assert!(SequenceRow::decode(Value::copy_from_slice(other)).is_none());
        }
    }
}
