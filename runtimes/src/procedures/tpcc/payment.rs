//! Payment: clause 2.5.

use parsec_protocol::{Access, ErrorCode, Mode, Value};
use rkyv::{Archive, Deserialize, Serialize};

use super::rows::{self, Account, DATA_BYTES, Office, Person};
use super::told::Told;
use super::{Effects, Place, Step, Who, access, fault_of_customer, fault_of_district, yes};
use crate::access::Source;
use crate::{Declared, State};

/// The arguments of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Payment {
    /// Where it is taken.
    pub warehouse: u32,
    /// Where it is taken.
    pub district: u8,
    /// C_W_ID.
    pub customer_warehouse: u32,
    /// C_D_ID.
    pub customer_district: u8,
    /// Who pays.
    pub customer: Who,
    /// H_AMOUNT.
    pub amount: u32,
    /// What the key of its row in HISTORY holds: a number that no other payment of the district
    /// has.
    pub token: u64,
}

impl Payment {
    pub(super) fn fault(&self) -> Option<&'static str> {
        fault_of_district(self.district)
            .or_else(|| fault_of_district(self.customer_district))
            .or_else(|| fault_of_customer(self.customer))
    }

    fn place(&self, database: u64) -> Place {
        Place { database, warehouse: self.warehouse, district: self.district }
    }

    pub(super) fn place_of_customer(&self, database: u64) -> Place {
        Place { database, warehouse: self.customer_warehouse, district: self.customer_district }
    }

    /// What it touches if that customer is meant, without the index of names.
    pub(super) fn accesses(&self, database: u64, customer: u32) -> Vec<Access> {
        let (place, theirs) = (self.place(database), self.place_of_customer(database));
        vec![
            access(place.warehouse(), Mode::Read),
            access(place.warehouse_ytd(), Mode::Add),
            access(place.district(), Mode::Read),
            access(place.district_ytd(), Mode::Add),
            access(theirs.account(customer), Mode::Write),
            access(theirs.person(customer), Mode::Read),
            // It is changed if their credit is bad, which the arguments don't tell.
            access(theirs.customer_data(customer), Mode::Write),
            access(place.history(self.token), Mode::Write),
        ]
    }

    /// What it touches, as the index of names tells it. (Who pays by number is no matter of rows.)
    pub(super) fn declared(&self, database: u64, source: &dyn Source) -> Declared {
        if let Who::Number(_) = self.customer {
            return Declared::Nothing;
        }
        let mut told = Told::by(source);
        let theirs = self.place_of_customer(database);
        if let Some(customer) = rows::customer_told(&mut told, &theirs, self.customer) {
            for Access { key, mode } in self.accesses(database, customer) {
                told.touch(key, mode);
            }
        }
        told.all()
    }

    pub(super) fn run(&self, database: u64, call: &crate::Call<'_>, state: &mut dyn State) -> Step {
        let (place, theirs) = (self.place(database), self.place_of_customer(database));
        let number = yes!(rows::customer(state, &theirs, self.customer)?);
        let warehouse: Office = yes!(rows::read(state, &place.warehouse())?);
        let district: Office = yes!(rows::read(state, &place.district())?);
        let key = theirs.account(number);
        let mut account: Account = yes!(rows::read(state, &key)?);
        let person: Person = yes!(rows::read(state, &theirs.person(number))?);
        let history = place.history(self.token);
        if state.get(&history)?.is_some() {
            return Ok(Err(ErrorCode::AlreadyExists));
        }

        let amount = i64::from(self.amount);
        account.balance = yes!(account.balance.checked_sub(amount).ok_or(ErrorCode::Overflow));
        let paid = account.ytd_payment.checked_add(amount);
        account.ytd_payment = yes!(paid.ok_or(ErrorCode::Overflow));
        account.payments = account.payments.wrapping_add(1);
        let mut writes = vec![(key, account.encode())];
        if person.bad_credit {
            let key = theirs.customer_data(number);
            let data = yes!(state.get(&key)?.ok_or(ErrorCode::Refused));
            writes.push((key, self.note(number, &data)));
        }
        let mut row = Vec::with_capacity(64);
        row.extend_from_slice(&number.to_be_bytes());
        row.push(self.customer_district);
        row.extend_from_slice(&self.customer_warehouse.to_be_bytes());
        row.extend_from_slice(&call.epoch.timestamp_ms.to_be_bytes());
        row.extend_from_slice(&self.amount.to_be_bytes());
        // H_DATA.
        row.extend_from_slice(warehouse.name());
        row.extend_from_slice(b"    ");
        row.extend_from_slice(district.name());
        writes.push((history, row.into()));
        Ok(Ok(Effects {
            writes,
            additions: vec![
                (place.warehouse_ytd(), amount.into()),
                (place.district_ytd(), amount.into()),
            ],
            output: [&number.to_be_bytes()[..], &account.balance.to_be_bytes()].concat(),
        }))
    }

    /// C_DATA with the payment in front.
    fn note(&self, customer: u32, data: &[u8]) -> Value {
        let Self { warehouse, district, customer_warehouse, customer_district, amount, .. } = self;
        let note = format!(
            "{customer} {customer_district} {customer_warehouse} {district} {warehouse} {amount} "
        );
        let kept = DATA_BYTES.saturating_sub(note.len()).min(data.len());
        Value::concat([note.as_bytes(), &data[..kept]])
    }
}
