//! What is in the tables at first: clause 4.3.3.

use parsec_protocol::{Delta, Key, Value};
use parsec_runtimes::procedures::tpcc::rows::{
    Account, Entered, Item, Line, Names, Office, Order, Person, Queue, Sequence, Stock,
};
use parsec_runtimes::procedures::tpcc::{DISTRICTS, PAGE, Place, RECENT, keys};
use rayon::prelude::*;

use super::random::{Constants, between, data, exact, small, some_text, text};
use super::{NAMES, TpccOptions};
use crate::draw::Draws;
use crate::workload::{Stage, put_rows};

/// D_YTD at first, cents; W_YTD is ten times as much.
pub(super) const DISTRICT_YTD: i128 = 3_000_000;
/// When everything was entered, milliseconds since 1970.
const THEN: u64 = 1_577_836_800_000;
/// Rows of a table that are made together.
const CHUNK: usize = 1_000;

type Rows = Vec<(Key, Value)>;

/// A stream of numbers for one part of a table.
fn draws(options: &TpccOptions, table: &str, one: u32, other: u32) -> Draws {
    Draws::new(options.seed, &format!("tpcc {table} {one} {other}"))
}

/// All of it.
pub(super) fn stages(options: &TpccOptions, warehouses: &[u32]) -> Vec<Stage> {
    let districts: Vec<Place> =
        warehouses.iter().flat_map(|warehouse| places(options.seed, *warehouse)).collect();
    let items: Vec<u32> = (1..=options.items).collect();
    let stocks: Vec<(u32, &[u32])> = warehouses
        .iter()
        .flat_map(|warehouse| items.chunks(CHUNK).map(|items| (*warehouse, items)))
        .collect();
    let stage = |purpose, parts: Vec<Rows>| {
        let parts: Vec<Stage> =
            parts.into_par_iter().map(|rows| put_rows(options.seed, purpose, rows)).collect();
        let transactions = parts.into_iter().flat_map(|part| part.transactions).collect();
        Stage { purpose, transactions, tolerated: None }
    };
    vec![
        stage(
            "put the items",
            items.par_chunks(CHUNK).map(|part| item_rows(options, part)).collect(),
        ),
        stage("put the warehouses", warehouses.iter().map(|w| offices(options, *w)).collect()),
        stage(
            "put the stock",
            stocks.into_par_iter().map(|(w, part)| stock_rows(options, w, part)).collect(),
        ),
        stage(
            "put the customers",
            districts.par_iter().map(|place| customer_rows(options, place)).collect(),
        ),
        stage(
            "put the orders",
            districts.par_iter().map(|place| order_rows(options, place)).collect(),
        ),
    ]
}

/// The districts of a warehouse.
pub(super) fn places(database: u64, warehouse: u32) -> impl Iterator<Item = Place> + Clone {
    (1..=DISTRICTS).map(move |district| Place { database, warehouse, district })
}

fn item_rows(options: &TpccOptions, items: &[u32]) -> Rows {
    let row = |item: &u32| {
        let draws = &mut draws(options, "item", *item, 0);
        let price = between(draws, 100, 10_000);
        let mut text = some_text(draws, 14, 24);
        text.resize(24, b' ');
        text.extend(data(draws));
        (keys::item(options.seed, *item), Item { price, text }.encode())
    };
    items.iter().map(row).collect()
}

fn number(amount: i128) -> Value {
    Value::copy_from_slice(&Delta::from(amount).0)
}

fn offices(options: &TpccOptions, warehouse: u32) -> Rows {
    let draws = &mut draws(options, "warehouse", warehouse, 0);
    let mut office = || {
        let tax = u16::try_from(between(draws, 0, 2_000)).expect("2,000 at most");
        Office { tax, address: exact(draws) }.encode()
    };
    let all = i128::from(DISTRICTS) * DISTRICT_YTD;
    let place = Place { database: options.seed, warehouse, district: 1 };
    let queue = Queue { delivered: [delivered(options); DISTRICTS as usize] };
    let mut rows = vec![
        (place.warehouse(), office()),
        (place.warehouse_ytd(), number(all)),
        (place.queue(), queue.encode()),
    ];
    for place in places(options.seed, warehouse) {
        rows.push((place.district(), office()));
        rows.push((place.district_ytd(), number(DISTRICT_YTD)));
    }
    rows
}

fn stock_rows(options: &TpccOptions, warehouse: u32, items: &[u32]) -> Rows {
    let row = |item: &u32| {
        let draws = &mut draws(options, "stock", warehouse, *item);
        let quantity = small(draws, 10, 100).into();
        let mut all = text(draws, usize::from(DISTRICTS) * 24);
        all.extend(data(draws));
        let stock = Stock { quantity, ytd: 0, orders: 0, remote: 0 };
        [
            (keys::stock(options.seed, warehouse, *item), stock.encode()),
            (keys::stock_text(options.seed, warehouse, *item), all.into()),
        ]
    };
    items.iter().flat_map(row).collect()
}

/// The last name of each customer of a district, from the first: clause 4.3.3.1.
fn last_names(options: &TpccOptions, place: &Place) -> Vec<u16> {
    let draws = &mut draws(options, "name", place.warehouse, place.district.into());
    let constants = Constants::new(options.seed);
    let name = |number: u32| match u16::try_from(number) {
        Ok(number) if number < NAMES => number,
        _ => constants.name(draws, options.customers),
    };
    (0..options.customers).map(name).collect()
}

/// The index of a district's customers by last name. Which of them has which first name is as if
/// drawn: those of one name are sorted by a hash.
pub(super) fn names_row(options: &TpccOptions, place: &Place) -> Value {
    let draws = &mut draws(options, "first", place.warehouse, place.district.into());
    let named = last_names(options, place).into_iter().zip(1..);
    let mut named: Vec<(u16, u64, u32)> =
        named.map(|(name, customer)| (name, draws.next_u64(), customer)).collect();
    named.sort_unstable();
    let pairs: Vec<_> = named.into_iter().map(|(name, _, customer)| (name, customer)).collect();
    Names::encode(&pairs)
}

fn customer_rows(options: &TpccOptions, place: &Place) -> Rows {
    let mut rows = vec![(place.names(), names_row(options, place))];
    for (customer, name) in (1..).zip(last_names(options, place)) {
        let draws = &mut draws(options, "customer", customer, place.warehouse);
        let mut text = exact(draws);
        text[..16].copy_from_slice(&last_name(name));
        let person = Person {
            discount: u16::try_from(between(draws, 0, 5_000)).expect("5,000 at most"),
            bad_credit: draws.below(10) == 0,
            text,
        };
        let account = Account { balance: -1_000, ytd_payment: 1_000, payments: 1, deliveries: 0 };
        rows.push((place.person(customer), person.encode()));
        rows.push((place.customer_data(customer), some_text(draws, 300, 500).into()));
        rows.push((place.account(customer), account.encode()));
        rows.push((place.history(customer.into()), history(place, customer, draws)));
    }
    rows
}

/// C_LAST: three syllables, padded.
fn last_name(number: u16) -> [u8; 16] {
    const SYLLABLES: [&str; 10] =
        ["BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"];
    let digits = [number / 100 % 10, number / 10 % 10, number % 10];
    let name = digits.map(|digit| SYLLABLES[usize::from(digit)]).concat();
    let mut padded = [b' '; 16];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}

fn history(place: &Place, customer: u32, draws: &mut Draws) -> Value {
    let mut row = customer.to_be_bytes().to_vec();
    row.push(place.district);
    row.extend_from_slice(&place.warehouse.to_be_bytes());
    row.extend_from_slice(&THEN.to_be_bytes());
    row.extend_from_slice(&1_000u32.to_be_bytes());
    row.extend(text(draws, 24));
    row.into()
}

/// How many of a district's first orders are delivered: seven of ten.
pub(super) fn delivered(options: &TpccOptions) -> u32 {
    options.customers / 10 * 7
}

/// The orders of a district: one of each customer. The token of each is its number.
fn order_rows(options: &TpccOptions, place: &Place) -> Rows {
    let draws = &mut draws(options, "orders", place.warehouse, place.district.into());
    let mut rows = Vec::new();
    let recent = [Entered::default(); RECENT as usize];
    let mut sequence = Sequence { next: 1, paged: 0, recent };
    for customer in shuffled(draws, options.customers) {
        let id = sequence.next;
        let order = first_order(options, place, draws, id, customer);
        rows.push((place.order(id.into()), order.encode()));
        let token = Value::copy_from_slice(&u64::from(id).to_be_bytes());
        rows.push((place.last_order(customer), token));
        sequence.remember(id, Entered { token: id.into(), customer });
        sequence.next += 1;
        if let Some(page) = sequence.next_page() {
            rows.push((place.page(sequence.paged), page));
            sequence.paged += PAGE;
        }
    }
    rows.push((place.sequence(), sequence.encode()));
    rows
}

fn first_order(
    options: &TpccOptions,
    place: &Place,
    draws: &mut Draws,
    id: u32,
    customer: u32,
) -> Order {
    let is_delivered = id <= delivered(options);
    let count = small(draws, 5, 15);
    let mut line = |_| Line {
        item: between(draws, 1, options.items),
        supplier: place.warehouse,
        quantity: 5,
        amount: if is_delivered { 0 } else { between(draws, 1, 999_999) },
        info: exact(draws),
    };
    let lines = (0..count).map(&mut line).collect();
    Order {
        id,
        customer,
        entered: THEN,
        carrier: if is_delivered { small(draws, 1, 10) } else { 0 },
        delivered: if is_delivered { THEN } else { 0 },
        all_local: true,
        lines,
    }
}

/// The numbers from 1 to `last` in any order.
fn shuffled(draws: &mut Draws, last: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (1..=last).collect();
    for end in (1..numbers.len()).rev() {
        let bound = u64::try_from(end + 1).expect("a vector's length is a u64");
        let other = usize::try_from(draws.below(bound)).expect("below a usize");
        numbers.swap(end, other);
    }
    numbers
}
