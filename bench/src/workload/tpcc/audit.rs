//! The consistency conditions of clause 3.3.2, as far as the state tells them:
//!
//! 1. W_YTD is the sum of D_YTD.
//! 2. D_NEXT_O_ID - 1 is the greatest O_ID, and the greatest NO_O_ID.
//! 3. The numbers in NEW-ORDER have no gap.
//! 4. As many lines as O_OL_CNT says (they stand in one row, which says so itself).
//! 5. O_CARRIER_ID is null for what stands in NEW-ORDER, and for nothing else.
//! 7. OL_DELIVERY_D is null where O_CARRIER_ID is.
//!
//! Beyond them: numbers of orders have no gap at all; each order has as many lines as were built;
//! and, if everything committed, every order is there, and each D_YTD, S_YTD, S_ORDER_CNT and
//! S_REMOTE_CNT is what it must be, so that no update was lost.

use std::collections::BTreeMap;

use parsec_protocol::{Key, Value};
use parsec_runtimes::procedures::tpcc::rows::{Entered, Order, Page, Queue, Sequence, Stock};
use parsec_runtimes::procedures::tpcc::{NewOrder, PAGE, Payment, Place, RECENT, keys};

use super::population::{self, DISTRICT_YTD};
use super::{Mix, TpccOptions, place_of};
use crate::workload::audit::leading_number;
use crate::workload::{Audit, AuditFailure, Commits};

/// Most orders that are looked at: those of as many whole districts as they come to.
const ORDERS_MAX: usize = 150_000;
/// Most rows of stock that are looked at: of more, as many are taken evenly.
const STOCK_MAX: usize = 50_000;

/// What was built so far.
#[derive(Debug)]
pub(super) struct Book {
    options: TpccOptions,
    rollbacks: u64,
    /// What payments add to each district.
    paid: BTreeMap<Place, i128>,
    /// The tokens of orders of each district, and how many lines they have.
    orders: BTreeMap<Place, Vec<(u64, u8)>>,
    /// What orders take of each item out of each warehouse.
    taken: BTreeMap<u32, Vec<Taken>>,
}

/// What orders take of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    quantity: u32,
    orders: u32,
    remote: u32,
}

impl Book {
    pub(super) fn new(options: &TpccOptions) -> Self {
        let (paid, orders, taken) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { options: *options, rollbacks: 0, paid, orders, taken }
    }

    pub(super) fn rollbacks(&self) -> u64 {
        self.rollbacks
    }

    /// The token of the last order that was built for a district.
    #[cfg(test)]
    pub(super) fn last_token(&self, place: &Place) -> u64 {
        self.orders[place].last().unwrap().0
    }

    pub(super) fn order(&mut self, order: &NewOrder, rolls_back: bool) {
        self.rollbacks += u64::from(rolls_back);
        if rolls_back {
            return;
        }
        let NewOrder { warehouse, district, .. } = *order;
        let place = Place { database: self.options.seed, warehouse, district };
        let lines = u8::try_from(order.items.len()).expect("15 at most");
        self.orders.entry(place).or_default().push((order.token, lines));
        let items = super::index(self.options.items);
        for item in &order.items {
            let stock =
                self.taken.entry(item.supplier).or_insert_with(|| vec![Taken::default(); items]);
            let taken = &mut stock[place_of(item.item)];
            taken.quantity += u32::from(item.quantity);
            taken.orders += 1;
            taken.remote += u32::from(item.supplier != warehouse);
        }
    }

    pub(super) fn payment(&mut self, payment: &Payment) {
        let Payment { warehouse, district, amount, .. } = *payment;
        let place = Place { database: self.options.seed, warehouse, district };
        *self.paid.entry(place).or_default() += i128::from(amount);
    }

    pub(super) fn audit(&self, warehouses: &[u32]) -> Audit {
        let mut parts: Vec<Audit> = warehouses.iter().map(|w| self.takings(*w)).collect();
        let mut left = ORDERS_MAX;
        let places = warehouses.iter().flat_map(|w| population::places(self.options.seed, *w));
        for place in places {
            let Some(rest) = left.checked_sub(self.count(&place)) else { break };
            left = rest;
            parts.push(self.district(place));
        }
        parts.push(self.stock(warehouses));
        Audit::join(parts)
    }

    /// How many orders a district has.
    fn count(&self, place: &Place) -> usize {
        let built = self.orders.get(place).map_or(0, Vec::len);
        super::index(self.options.customers) + built
    }

    /// Condition 1.
    fn takings(&self, warehouse: u32) -> Audit {
        let places = population::places(self.options.seed, warehouse);
        let first = Place { database: self.options.seed, warehouse, district: 1 };
        let mut keys = vec![first.warehouse_ytd()];
        keys.extend(places.clone().map(|place| place.district_ytd()));
        let paid: Vec<i128> = places
            .map(|place| DISTRICT_YTD + self.paid.get(&place).copied().unwrap_or(0))
            .collect();
        Audit::of(keys, move |values, commits| check_takings(warehouse, &paid, values, commits))
    }

    /// Conditions 2 to 5 and 7.
    fn district(&self, place: Place) -> Audit {
        let built = self.orders.get(&place).cloned().unwrap_or_default();
        let check = District {
            place,
            first: self.options.customers,
            delivered: population::delivered(&self.options),
            built,
            queued: self.options.mix == Mix::Full,
        };
        let first = (1..=self.options.customers).map(u64::from);
        let tokens = first.chain(check.built.iter().map(|(token, _)| *token));
        let mut keys = vec![place.sequence(), place.queue()];
        keys.extend(check.pages().map(|order| place.page(order)));
        keys.extend(tokens.map(|token| place.order(token)));
        Audit::of(keys, move |values, commits| {
            check.run(values, commits).map_err(|(rule, detail)| {
                let Place { warehouse, district, .. } = check.place;
                let detail = format!("warehouse {warehouse}, district {district}: {detail}");
                AuditFailure::rule(rule, detail)
            })
        })
    }

    /// What was taken out of stock.
    fn stock(&self, warehouses: &[u32]) -> Audit {
        let nothing = Vec::new();
        let all = warehouses.iter().flat_map(|warehouse| {
            let taken = self.taken.get(warehouse).unwrap_or(&nothing);
            (1..=self.options.items).map(|item| {
                let taken = taken.get(place_of(item)).copied().unwrap_or_default();
                (keys::stock(self.options.seed, *warehouse, item), taken)
            })
        });
        let count = warehouses.len() * super::index(self.options.items);
        let (keys, taken): (Vec<_>, Vec<_>) = all.step_by(count.div_ceil(STOCK_MAX).max(1)).unzip();
        let named = keys.clone();
        Audit::of(keys, move |values, commits| check_stock(&named, &taken, values, commits))
    }
}

type Broken = (&'static str, String);

fn check_takings(
    warehouse: u32,
    paid: &[i128],
    values: &[Option<Value>],
    commits: Commits,
) -> Result<(), AuditFailure> {
    const RULE: &str = "W_YTD is the sum of D_YTD (condition 1)";
    let number = |value: &Option<Value>| {
        let number = value.as_deref().and_then(leading_number);
        let number = number.and_then(|number| i128::try_from(number).ok());
        let detail = format!("warehouse {warehouse}: one of them is no number");
        number.ok_or_else(|| AuditFailure::rule(RULE, detail))
    };
    let numbers = values.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let (all, districts) = (numbers[0], &numbers[1..]);
    let sum: i128 = districts.iter().sum();
    if all != sum {
        let detail = format!("warehouse {warehouse}: it is {all}, and they are {sum}");
        return Err(AuditFailure::rule(RULE, detail));
    }
    for ((found, expected), district) in districts.iter().zip(paid).zip(1..) {
        let fine = match commits {
            Commits::All => found == expected,
            Commits::Between { .. } => (DISTRICT_YTD..=*expected).contains(found),
        };
        if !fine {
            let detail = format!(
                "warehouse {warehouse}, district {district}: D_YTD is {found}, not {expected}"
            );
            return Err(AuditFailure::rule("payments are neither lost nor made twice", detail));
        }
    }
    Ok(())
}

/// What is expected of one district.
struct District {
    place: Place,
    /// Orders at first.
    first: u32,
    /// How many of them were delivered.
    delivered: u32,
    built: Vec<(u64, u8)>,
    /// Whether those that were built are to be delivered.
    queued: bool,
}

impl District {
    fn run(&self, values: &[Option<Value>], commits: Commits) -> Result<(), Broken> {
        let form = |what: &str| ("rows keep their form", format!("{what} is none"));
        let (head, rows) = values.split_at(2);
        let (pages, rows) = rows.split_at(self.pages().count());
        let sequence = head[0].as_deref().and_then(Sequence::decode);
        let sequence = sequence.ok_or_else(|| form("D_NEXT_O_ID"))?;
        let queue = head[1].as_deref().and_then(Queue::decode);
        let queue = queue.ok_or_else(|| form("the queue"))?;
        let delivered = queue.delivered[usize::from(self.place.district - 1)];
        let orders = self.orders(rows, commits == Commits::All)?;
        self.numbers(&orders, &sequence)?;
        self.deliveries(&orders, delivered)?;
        self.queue(&orders, &sequence, delivered, pages)
    }

    /// The first order of each page on which there may be one that is not delivered.
    fn pages(&self) -> impl Iterator<Item = u32> {
        let built = u32::try_from(self.built.len()).expect("a few million");
        let first = self.delivered / PAGE * PAGE;
        let count = (self.first + built - first) / PAGE + 1;
        (0..count).map(move |page| first + page * PAGE)
    }

    /// The orders by their numbers, with their tokens.
    fn orders(
        &self,
        rows: &[Option<Value>],
        all: bool,
    ) -> Result<BTreeMap<u32, (u64, Order)>, Broken> {
        let first = (1..=u64::from(self.first)).map(|token| (token, None));
        let built = self.built.iter().map(|(token, lines)| (*token, Some(*lines)));
        let mut orders = BTreeMap::new();
        for ((token, lines), row) in first.chain(built).zip(rows) {
            let Some(row) = row else {
                match all || lines.is_none() {
                    true => return Err(("orders are not lost", format!("that of token {token}"))),
                    false => continue,
                }
            };
            let Some(order) = Order::decode(row) else {
                let detail = format!("the order of token {token} is none");
                return Err(("an order has as many lines as it says (condition 4)", detail));
            };
            if lines.is_some_and(|lines| usize::from(lines) != order.lines.len()) {
                let detail = format!("the order of token {token} has {}", order.lines.len());
                return Err(("an order has the lines that were ordered", detail));
            }
            let id = order.id;
            if orders.insert(id, (token, order)).is_some() {
                return Err(("numbers of orders are unique", format!("{id} is not")));
            }
        }
        Ok(orders)
    }

    fn numbers(
        &self,
        orders: &BTreeMap<u32, (u64, Order)>,
        sequence: &Sequence,
    ) -> Result<(), Broken> {
        let count = u32::try_from(orders.len()).unwrap_or(u32::MAX);
        let last = orders.keys().next_back().copied().unwrap_or(0);
        let first = orders.keys().next().copied().unwrap_or(1);
        let next = sequence.next;
        match last.checked_add(1) == Some(next) && first == 1 && count == last {
            true => Ok(()),
            false => Err((
                "D_NEXT_O_ID follows the last order, and there is no gap (condition 2)",
                format!("it is {next}, and {count} orders have numbers from {first} to {last}"),
            )),
        }
    }

    /// That what is delivered comes before all that is not.
    fn deliveries(
        &self,
        orders: &BTreeMap<u32, (u64, Order)>,
        delivered: u32,
    ) -> Result<(), Broken> {
        for (id, (_, order)) in orders {
            if (order.carrier == 0) != (order.delivered == 0) {
                let detail = format!("order {id}");
                return Err(("what has a carrier has a date of delivery (condition 7)", detail));
            }
            if (*id <= delivered) != (order.carrier != 0) {
                let detail = format!("order {id}, and {delivered} are delivered");
                return Err((
                    "orders are delivered in turn, none is left out (conditions 3 and 5)",
                    detail,
                ));
            }
        }
        match delivered < self.delivered || (!self.queued && delivered != self.delivered) {
            true => Err(("what was delivered stays so", format!("{delivered} are"))),
            false => Ok(()),
        }
    }

    /// That deliveries will find each order that is not delivered, and its customer.
    fn queue(
        &self,
        orders: &BTreeMap<u32, (u64, Order)>,
        sequence: &Sequence,
        delivered: u32,
        pages: &[Option<Value>],
    ) -> Result<(), Broken> {
        let numbers: Vec<u32> = self.pages().collect();
        for (id, (token, order)) in orders.range(delivered + 1..) {
            // What nobody will deliver is put on no page.
            if *id >= sequence.paged && !self.queued && sequence.next - id > RECENT {
                continue;
            }
            let page = numbers.iter().position(|first| id / PAGE == first / PAGE);
            let page = page.and_then(|page| pages[page].as_deref()).map(Page::decode);
            let found = match *id < sequence.paged {
                true => page.and_then(|page| page.entered(*id)),
                false => sequence.entered(*id),
            };
            if found != Some(Entered { token: *token, customer: order.customer }) {
                return Err((
                    "the queue holds what is not delivered (conditions 2 and 3)",
                    format!("order {id}: {found:?}"),
                ));
            }
        }
        Ok(())
    }
}

fn check_stock(
    keys: &[Key],
    expected: &[Taken],
    values: &[Option<Value>],
    commits: Commits,
) -> Result<(), AuditFailure> {
    const RULE: &str = "stock is taken once for each line";
    for ((key, expected), value) in keys.iter().zip(expected).zip(values) {
        let stock = value.as_deref().and_then(Stock::decode);
        let stock = stock.ok_or_else(|| AuditFailure::rule(RULE, format!("{key} is no stock")))?;
        let found = Taken { quantity: stock.ytd, orders: stock.orders, remote: stock.remote };
        let within = found.quantity <= expected.quantity
            && found.orders <= expected.orders
            && found.remote <= expected.remote;
        if !within || (commits == Commits::All && found != *expected) {
            let detail = format!("{key} says {found:?}, not {expected:?}");
            return Err(AuditFailure::rule(RULE, detail));
        }
    }
    Ok(())
}
