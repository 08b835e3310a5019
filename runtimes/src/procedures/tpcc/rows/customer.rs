//! CUSTOMER, in three rows: what each payment and delivery changes, what never changes, and C_DATA,
//! which few payments change. And how customers are found by name.

use parsec_protocol::{ErrorCode, Mode, Value};

use super::super::super::fields::Fields;
use super::super::super::{Step, yes};
use super::super::told::Told;
use super::super::{Place, Who};
use super::Row;
use crate::State;

/// Bytes of names, address, phone, since and credit limit.
pub const PERSON_BYTES: usize = 16 + 2 + 16 + 71 + 16 + 8 + 8;
/// Most bytes of C_DATA, which is a row of its own without any other field.
pub const DATA_BYTES: usize = 500;

/// What changes of a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// C_BALANCE.
    pub balance: i64,
    /// C_YTD_PAYMENT.
    pub ytd_payment: i64,
    /// C_PAYMENT_CNT.
    pub payments: u32,
    /// C_DELIVERY_CNT.
    pub deliveries: u32,
}

impl Account {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::concat([
            &self.balance.to_be_bytes()[..],
            &self.ytd_payment.to_be_bytes(),
            &self.payments.to_be_bytes(),
            &self.deliveries.to_be_bytes(),
        ])
    }

    /// The account of a row; `None` if it is none.
    #[must_use]
    pub fn decode(row: &[u8]) -> Option<Self> {
        Row::decode(row)
    }
}

impl Row for Account {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let account = Self {
            balance: fields.i64()?,
            ytd_payment: fields.i64()?,
            payments: fields.u32()?,
            deliveries: fields.u32()?,
        };
        fields.end()?;
        Some(account)
    }
}

/// What never changes of a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    /// C_DISCOUNT.
    pub discount: u16,
    /// Whether C_CREDIT is "BC".
    pub bad_credit: bool,
    /// Names, address, phone, since and credit limit.
    pub text: [u8; PERSON_BYTES],
}

impl Person {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Value {
        let bad_credit = [u8::from(self.bad_credit)];
        Value::concat([&self.discount.to_be_bytes()[..], &bad_credit, &self.text])
    }
}

impl Row for Person {
    fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let person = Self {
            discount: fields.u16()?,
            bad_credit: fields.u8()? == 1,
            text: fields.bytes(PERSON_BYTES)?.try_into().ok()?,
        };
        fields.end()?;
        Some(person)
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
        // Few have the same name.
        let same = rows[from..].iter().take_while(|row| of(row) == name).count();
        let middle = rows[from..].get(same.div_ceil(2).checked_sub(1)?)?;
        Some(u32::from_be_bytes([middle[2], middle[3], middle[4], middle[5]]))
    }
}

/// Whom a name or a number means. Says no ([`ErrorCode::Refused`]) if it is nobody.
pub(in super::super) fn customer(state: &mut dyn State, place: &Place, who: Who) -> Step<u32> {
    match who {
        Who::Number(customer) => Ok(Ok(customer)),
        Who::Name(name) => {
            let row = yes!(state.get(&place.names())?.ok_or(ErrorCode::Refused));
            let found = Names::decode(&row).and_then(|names| names.middle(name));
            Ok(found.ok_or(ErrorCode::Refused))
        }
    }
}

/// Whom a name or a number means, as far as the rows at hand tell it.
pub(in super::super) fn customer_told(told: &mut Told<'_>, place: &Place, who: Who) -> Option<u32> {
    let name = match who {
        Who::Number(customer) => return Some(customer),
        Who::Name(name) => name,
    };
    let row = told.value(&place.names())?;
    told.touch(place.names(), Mode::Read);
    let found = row.as_deref().and_then(Names::decode).and_then(|names| names.middle(name));
    if found.is_none() {
        told.lose();
    }
    found
}
