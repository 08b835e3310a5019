//! TPC-C: the five transactions of an order-entry business.
//!
//! What is kept of the specification (revision 5.11), and what is not:
//!
//! - All five profiles do all of their reads and writes of rows (clauses 2.4 to 2.8). What they
//!   return is less than what a terminal would show.
//! - Rows have all columns, in [this](rows) form. Columns that change are split from those that do
//!   not where that keeps transactions apart which have nothing to do with each other (vertical
//!   partitioning, clause 1.4.5): W_YTD and D_YTD are numbers of their own that payments *add* to,
//!   so that payments of one warehouse do not conflict; nor do they with new-orders. Of STOCK and
//!   CUSTOMER, what never changes stands apart, and C_DATA: else each new-order would write 300
//!   bytes for each of its lines of which 14 change, and each payment some 560 of which 24 do.
//! - ORDER-LINEs stand in the row of their ORDER.
//! - O_ID comes from D_NEXT_O_ID, without gaps, as it should. But an order's *key* does not hold it:
//!   it holds a token that whoever enters the order chooses, so that the footprint of a new-order
//!   is known before D_NEXT_O_ID is.
//! - NEW-ORDER is how many orders of each district are delivered, for they are delivered in the
//!   order of O_ID. Where they stand, and whose they are, new-orders leave with the district;
//!   deliveries put it on [pages](rows::Page) before it is forgotten there. A district of which
//!   [`RECENT`] orders are on no page takes no more
//!   ([`TooLarge`](parsec_protocol::ErrorCode::TooLarge)), unless they are entered not to be
//!   [queued](NewOrder::queued). What stands on pages is not removed when it is delivered.
//! - Customers are found by their last name through a replicated index: names never change.
//! - A delivery is one transaction for all ten districts (clause 2.7.2.2 allows it). A district
//!   without undelivered orders is skipped.
//! - A stock-level looks at the last 20 orders as they were when its footprint was found, and at
//!   the stock as it is when it runs (clause 2.8.2.3 allows this).
//!
//! An order, a delivery and a payment take their date from the epoch.

use parsec_protocol::Access;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Effects, Step, access, yes};
use crate::access::Source;
use crate::{Declared, State};

mod delivery;
pub mod keys;
mod new_order;
mod payment;
pub mod rows;
mod status;
mod told;

pub use keys::Place;
pub use new_order::{NewOrder, OrderedItem};
pub use payment::Payment;
pub use rows::{LINES_MAX, PAGE, RECENT};

/// Districts of a warehouse.
pub const DISTRICTS: u8 = 10;
/// Last names: three syllables of ten.
pub const NAMES: u16 = 1_000;

/// Which customer of a district.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Who {
    /// C_ID.
    Number(u32),
    /// The number of C_LAST, below [`NAMES`]: its digits are the syllables.
    Name(u16),
}

/// One of the transactions.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Call {
    /// Enters an order. Returns O_ID (4 bytes) and the total amount in cents (8 bytes). Says no
    /// ([`Refused`](parsec_protocol::ErrorCode::Refused)) if there is no such item: clause 2.4.2.3.
    NewOrder(NewOrder),
    /// Takes a payment. Returns C_ID (4 bytes) and C_BALANCE (8 bytes).
    Payment(Payment),
    /// Looks at a customer's last order. Returns C_ID (4 bytes), C_BALANCE (8 bytes), and the row
    /// of the [order](rows::Order), if there is one.
    OrderStatus { warehouse: u32, district: u8, customer: Who },
    /// Delivers the oldest order of each district. Returns O_ID (4 bytes each), zero where there
    /// was none.
    Delivery { warehouse: u32, carrier: u8 },
    /// Counts the items of the last 20 orders of which less than `threshold` are in stock.
    /// Returns how many (4 bytes).
    StockLevel { warehouse: u32, district: u8, threshold: u16 },
}

impl Call {
    pub(super) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::NewOrder(order) => order.fault(),
            Self::Payment(payment) => payment.fault(),
            Self::OrderStatus { district, customer, .. } => {
                fault_of_district(*district).or_else(|| fault_of_customer(*customer))
            }
            Self::StockLevel { district, .. } => fault_of_district(*district),
            Self::Delivery { carrier: 0, .. } => Some("a carrier's number is not zero"),
            Self::Delivery { .. } => None,
        }
    }

    /// What it touches, if the arguments alone tell it.
    pub(super) fn accesses(&self, database: u64) -> Option<Vec<Access>> {
        match self {
            Self::NewOrder(order) => Some(order.accesses(database)),
            Self::Payment(payment) => match payment.customer {
                Who::Number(customer) => Some(payment.accesses(database, customer)),
                Who::Name(_) => None,
            },
            Self::OrderStatus { .. } | Self::Delivery { .. } | Self::StockLevel { .. } => None,
        }
    }

    /// What it touches, as far as the rows at hand tell it.
    pub(super) fn declared(&self, database: u64, source: &dyn Source) -> Declared {
        let place = |warehouse, district| Place { database, warehouse, district };
        match self {
            Self::NewOrder(_) => Declared::Nothing,
            Self::Payment(payment) => payment.declared(database, source),
            Self::OrderStatus { warehouse, district, customer } => {
                status::order_declared(&place(*warehouse, *district), *customer, source)
            }
            Self::Delivery { warehouse, .. } => delivery::declared(place(*warehouse, 1), source),
            Self::StockLevel { warehouse, district, .. } => {
                status::stock_declared(&place(*warehouse, *district), source)
            }
        }
    }

    pub(super) fn run(&self, database: u64, call: &crate::Call<'_>, state: &mut dyn State) -> Step {
        let place = |warehouse, district| Place { database, warehouse, district };
        match self {
            Self::NewOrder(order) => order.run(database, call, state),
            Self::Payment(payment) => payment.run(database, call, state),
            Self::OrderStatus { warehouse, district, customer } => {
                status::order(&place(*warehouse, *district), *customer, state)
            }
            Self::Delivery { warehouse, carrier } => {
                delivery::run(place(*warehouse, 1), *carrier, call, state)
            }
            Self::StockLevel { warehouse, district, threshold } => {
                status::stock(&place(*warehouse, *district), *threshold, call.trial, state)
            }
        }
    }
}

fn fault_of_district(district: u8) -> Option<&'static str> {
    let exists = (1..=DISTRICTS).contains(&district);
    (!exists).then_some("a warehouse has ten districts, from 1 on")
}

fn fault_of_customer(who: Who) -> Option<&'static str> {
    match who {
        Who::Name(name) if name >= NAMES => Some("there are 1,000 last names, from 0 on"),
        _ => None,
    }
}
