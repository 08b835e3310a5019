//! Where rows of TPC-C stand.
//!
//! | tag | row | key |
//! |--:|---|---|
//! | 1 | WAREHOUSE without W_YTD | warehouse |
//! | 2 | W_YTD, a number that is only added to | warehouse |
//! | 3 | DISTRICT without D_YTD and D_NEXT_O_ID | warehouse, district |
//! | 4 | D_YTD, a number that is only added to | warehouse, district |
//! | 5 | D_NEXT_O_ID, and where the last orders stand | warehouse, district |
//! | 6 | NEW-ORDER: how many orders of each district are delivered | warehouse |
//! | 7 | CUSTOMER: what each payment and delivery changes | warehouse, district, customer |
//! | 8 | the token of a customer's last order | warehouse, district, customer |
//! | 9 | ORDER with its ORDER-LINEs | warehouse, district, token |
//! | 10 | STOCK: what each order changes | warehouse, item |
//! | 11 | HISTORY | warehouse, district, token |
//! | 12 | NEW-ORDER: where so many orders stand as fit on a page | warehouse, district, number of the page |
//! | 13 | CUSTOMER: what never changes | warehouse, district, customer |
//! | 14 | C_DATA | warehouse, district, customer |
//! | 15 | STOCK: what never changes | warehouse, item |
//! | 1, replicated | ITEM | item |
//! | 2, replicated | customers by last name | warehouse, district |
//!
//! All keys begin with the database's number. Those of one warehouse share a placement.

use parsec_protocol::{Key, Namespace};

use super::rows::PAGE;

const ROWS: Namespace = Namespace::partitioned(0x18);
const EVERYWHERE: Namespace = Namespace::replicated(0x18);
/// The number of the database, and of the warehouse.
const AFFINITY_BYTES: u8 = 12;

/// A district of a warehouse of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The database's number.
    pub database: u64,
    /// The warehouse's.
    pub warehouse: u32,
    /// The district's, from 1 to [`DISTRICTS`](super::DISTRICTS).
    pub district: u8,
}

impl Place {
    /// The key of the warehouse.
    #[must_use]
    pub fn warehouse(&self) -> Key {
        row(self.database, self.warehouse, &[&[1]])
    }

    /// The key of its W_YTD.
    #[must_use]
    pub fn warehouse_ytd(&self) -> Key {
        row(self.database, self.warehouse, &[&[2]])
    }

    /// The key of the district.
    #[must_use]
    pub fn district(&self) -> Key {
        self.of_district(3, &[])
    }

    /// The key of its D_YTD.
    #[must_use]
    pub fn district_ytd(&self) -> Key {
        self.of_district(4, &[])
    }

    /// The key of its order numbers.
    #[must_use]
    pub fn sequence(&self) -> Key {
        self.of_district(5, &[])
    }

    /// The key of how many orders of the warehouse's districts are delivered.
    #[must_use]
    pub fn queue(&self) -> Key {
        row(self.database, self.warehouse, &[&[6]])
    }

    /// The key of the page on which an order is put before the district forgets it.
    #[must_use]
    pub fn page(&self, order: u32) -> Key {
        self.of_district(12, &(order / PAGE).to_be_bytes())
    }

    /// The key of what changes of a customer.
    #[must_use]
    pub fn account(&self, customer: u32) -> Key {
        self.of_district(7, &customer.to_be_bytes())
    }

    /// The key of what never changes of a customer.
    #[must_use]
    pub fn person(&self, customer: u32) -> Key {
        self.of_district(13, &customer.to_be_bytes())
    }

    /// The key of a customer's C_DATA.
    #[must_use]
    pub fn customer_data(&self, customer: u32) -> Key {
        self.of_district(14, &customer.to_be_bytes())
    }

    /// The key of the token of a customer's last order.
    #[must_use]
    pub fn last_order(&self, customer: u32) -> Key {
        self.of_district(8, &customer.to_be_bytes())
    }

    /// The key of an order.
    #[must_use]
    pub fn order(&self, token: u64) -> Key {
        self.of_district(9, &token.to_be_bytes())
    }

    /// The key of a payment's row in HISTORY.
    #[must_use]
    pub fn history(&self, token: u64) -> Key {
        self.of_district(11, &token.to_be_bytes())
    }

    /// The key of the district's customers by last name.
    #[must_use]
    pub fn names(&self) -> Key {
        let (database, warehouse) = (self.database.to_be_bytes(), self.warehouse.to_be_bytes());
        key(EVERYWHERE, 0, &[&database, &[2], &warehouse, &[self.district]])
    }

    fn of_district(&self, tag: u8, rest: &[u8]) -> Key {
        row(self.database, self.warehouse, &[&[tag, self.district], rest])
    }
}

/// The key of an item.
#[must_use]
pub fn item(database: u64, item: u32) -> Key {
    key(EVERYWHERE, 0, &[&database.to_be_bytes(), &[1], &item.to_be_bytes()])
}

/// The key of what changes of a warehouse's stock of an item.
#[must_use]
pub fn stock(database: u64, warehouse: u32, item: u32) -> Key {
    row(database, warehouse, &[&[10], &item.to_be_bytes()])
}

/// The key of what never changes of a warehouse's stock of an item.
#[must_use]
pub fn stock_text(database: u64, warehouse: u32, item: u32) -> Key {
    row(database, warehouse, &[&[15], &item.to_be_bytes()])
}

fn row(database: u64, warehouse: u32, rest: &[&[u8]]) -> Key {
    let (database, warehouse) = (database.to_be_bytes(), warehouse.to_be_bytes());
    let mut bytes = [0; 32];
    let mut end = 0;
    for part in [&database[..], &warehouse].into_iter().chain(rest.iter().copied()) {
        bytes[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    key(ROWS, AFFINITY_BYTES, &[&bytes[..end]])
}

fn key(namespace: Namespace, affinity: u8, parts: &[&[u8]]) -> Key {
    Key::with_affinity(namespace, affinity, parts).expect("25 bytes at most are no long key")
}
