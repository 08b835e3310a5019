//! The rows of TPC-C. Text is padded with spaces to its greatest length. Money is in cents, taxes
//! and discounts in 1/10,000.

use parsec_protocol::{ErrorCode, Key, Mode, Value};

use super::super::fields::Fields;
use super::super::{Step, yes};
use super::told::Told;
use crate::State;

/// Most lines of an order.
pub const LINES_MAX: usize = 15;
/// Its last orders that a district remembers.
pub const RECENT: u32 = 128;
/// Orders on a page of NEW-ORDER.
pub const PAGE: u32 = 64;
const _: () = assert!(PAGE < RECENT, "a page must be full before its first order is forgotten");
/// Bytes of S_DIST_xx and OL_DIST_INFO.
pub const DIST_BYTES: usize = 24;
/// Bytes of names, streets, city, state and zip of a warehouse or district.
pub const ADDRESS_BYTES: usize = 10 + 20 + 20 + 20 + 2 + 9;
/// Bytes of what never changes of a customer: names, address, phone, since, credit limit.
pub const PERSON_BYTES: usize = 16 + 2 + 16 + 71 + 16 + 8 + 8;
/// Most bytes of C_DATA.
pub const DATA_BYTES: usize = 500;

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
    pub recent: [Entered; RECENT as usize],
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

    /// Whether the next order takes the place of one that is on no page.
    pub(super) fn is_full(&self) -> bool {
        self.next.checked_sub(RECENT).is_some_and(|lost| lost >= self.paged.max(1))
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

fn slot(order: u32) -> usize {
    usize::try_from(order % RECENT).expect("below 128")
}

impl Row for Sequence {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let (next, paged) = (fields.u32()?, fields.u32()?);
        let mut recent = [Entered::default(); RECENT as usize];
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

/// CUSTOMER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// C_BALANCE.
    pub balance: i64,
    /// C_YTD_PAYMENT.
    pub ytd_payment: i64,
    /// C_PAYMENT_CNT.
    pub payments: u32,
    /// C_DELIVERY_CNT.
    pub deliveries: u32,
    /// C_DISCOUNT.
    pub discount: u16,
    /// Whether C_CREDIT is "BC".
    pub bad_credit: bool,
    /// Names, address, phone, since and credit limit.
    pub person: [u8; PERSON_BYTES],
    /// C_DATA.
    pub data: Vec<u8>,
}

impl Customer {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut row = Vec::with_capacity(32 + PERSON_BYTES + self.data.len());
        row.extend_from_slice(&self.balance.to_be_bytes());
        row.extend_from_slice(&self.ytd_payment.to_be_bytes());
        row.extend_from_slice(&self.payments.to_be_bytes());
        row.extend_from_slice(&self.deliveries.to_be_bytes());
        row.extend_from_slice(&self.discount.to_be_bytes());
        row.push(u8::from(self.bad_credit));
        row.extend_from_slice(&self.person);
        row.extend_from_slice(&self.data);
        row.into()
    }

    /// The customer of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }
}

impl Row for Customer {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        Some(Self {
            balance: fields.i64()?,
            ytd_payment: fields.i64()?,
            payments: fields.u32()?,
            deliveries: fields.u32()?,
            discount: fields.u16()?,
            bad_credit: fields.u8()? == 1,
            person: fields.bytes(PERSON_BYTES)?.try_into().ok()?,
            data: fields.0.get(..DATA_BYTES.min(fields.0.len()))?.to_vec(),
        })
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

/// STOCK: what changes, and then S_DIST_01 to S_DIST_10 and S_DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock<'a> {
    /// S_QUANTITY.
    pub quantity: u16,
    /// S_YTD.
    pub ytd: u32,
    /// S_ORDER_CNT.
    pub orders: u32,
    /// S_REMOTE_CNT.
    pub remote: u32,
    /// S_DIST_01 to S_DIST_10, and then S_DATA.
    pub text: &'a [u8],
}

impl<'a> Stock<'a> {
    /// The stock of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let (quantity, ytd) = (fields.u16()?, fields.u32()?);
        let (orders, remote) = (fields.u32()?, fields.u32()?);
        let text = fields.0;
        (text.len() >= usize::from(super::DISTRICTS) * DIST_BYTES).then_some(Self {
            quantity,
            ytd,
            orders,
            remote,
            text,
        })
    }

    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([
            &self.quantity.to_be_bytes()[..],
            &self.ytd.to_be_bytes(),
            &self.orders.to_be_bytes(),
            &self.remote.to_be_bytes(),
            self.text,
        ])
    }

    /// S_DIST_xx of a district.
    pub(super) fn district(&self, district: u8) -> [u8; DIST_BYTES] {
        let start = usize::from(district.saturating_sub(1)) * DIST_BYTES;
        let found = self.text.get(start..start + DIST_BYTES);
        found.and_then(|text| text.try_into().ok()).unwrap_or([b' '; DIST_BYTES])
    }
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

/// The customers of a district by last name: pairs of the number of a name and a customer, sorted
/// by name and then by first name.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(&'a [u8]);

const NAME_BYTES: usize = 6;

impl<'a> Names<'a> {
    /// The row of pairs in their order.
    #[must_use]
    pub fn encode(pairs: &[(u16, u32)]) -> Value {
        let pair = |(name, customer): &(u16, u32)| {
            name.to_be_bytes().into_iter().chain(customer.to_be_bytes())
        };
        pairs.iter().flat_map(pair).collect::<Vec<u8>>().into()
    }

    /// The names in a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &'a [u8]) -> Option<Self> {
        row.len().is_multiple_of(NAME_BYTES).then_some(Self(row))
    }

    /// Of the customers of that name, the one in the middle (of an even number the first of the
    /// two), as clause 2.5.2.2 has it.
    #[must_use]
    pub fn middle(&self, name: u16) -> Option<u32> {
        let rows: &[[u8; NAME_BYTES]] = self.0.as_chunks().0;
        let of = |row: &[u8; NAME_BYTES]| u16::from_be_bytes([row[0], row[1]]);
        let from = rows.partition_point(|row| of(row) < name);
        let same = rows[from..].partition_point(|row| of(row) == name);
        let middle = rows[from..].get(same.div_ceil(2).checked_sub(1)?)?;
        Some(u32::from_be_bytes([middle[2], middle[3], middle[4], middle[5]]))
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

/// Whom a name or a number means. Says no ([`ErrorCode::Refused`]) if it is nobody.
pub(super) fn customer(state: &mut dyn State, place: &super::Place, who: super::Who) -> Step<u32> {
    match who {
        super::Who::Number(customer) => Ok(Ok(customer)),
        super::Who::Name(name) => {
            let row = yes!(state.get(&place.names())?.ok_or(ErrorCode::Refused));
            let found = Names::decode(&row).and_then(|names| names.middle(name));
            Ok(found.ok_or(ErrorCode::Refused))
        }
    }
}

/// Whom a name or a number means, as far as the rows at hand tell it.
pub(super) fn customer_told(
    told: &mut Told<'_>,
    place: &super::Place,
    who: super::Who,
) -> Option<u32> {
    let name = match who {
        super::Who::Number(customer) => return Some(customer),
        super::Who::Name(name) => name,
    };
    let row = told.value(&place.names())?;
    told.touch(place.names(), Mode::Read);
    let found = row.as_deref().and_then(Names::decode).and_then(|names| names.middle(name));
    if found.is_none() {
        told.lose();
    }
    found
}
