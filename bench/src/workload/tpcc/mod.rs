//! TPC-C: warehouses that take orders.

use std::collections::BTreeMap;

use bytes::Bytes;
use parsec_protocol::{Footprint, Key, PartitionMap, Transaction, Value};
use parsec_runtimes::procedures::tpcc::{
    Call, DISTRICTS, LINES_MAX, NAMES, NewOrder, OrderedItem, Payment, Place, Who,
};
use parsec_runtimes::procedures::{Invocation, ProcedureRuntime};
use parsec_runtimes::{Declared, Runtime};

use super::payments::index;
use super::{Audit, BuildProgress, LoadTransaction, Reverts, Spread, Stage, Workload, build, salt};
use crate::draw::{BadWorkload, Draws};
use random::{Constants, between, small};

mod audit;
mod population;
mod random;

/// Tokens of what is loaded first are below it.
const TOKEN_FIRST: u64 = 1 << 40;
/// Most warehouses.
const WAREHOUSES_MAX: u32 = 1_024;

/// Which transactions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// 45 % new-orders, 43 % payments, 4 % of each of the others: what clause 5.2.3 asks for.
    Full,
    /// Half new-orders, half payments, as deterministic databases are measured. Nobody delivers,
    /// so orders are not put into NEW-ORDER.
    NewOrderPayment,
}

/// Which transactions have to do with another warehouse than their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// Each line of an order with 1 %, each payment with 15 %: clauses 2.4.1.5 and 2.5.1.2.
    Lines,
    /// So many of 100 orders, and of 100 payments. [`TpccOptions::remote_lines`] says how many
    /// lines of such an order come from the other warehouse.
    Share(u8),
}

/// What a [`Tpcc`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TpccOptions {
    /// The seed.
    pub seed: u64,
    /// Which transactions there are.
    pub mix: Mix,
    /// Warehouses.
    pub warehouses: u32,
    /// Items; 100,000 in the specification.
    pub items: u32,
    /// Customers of a district; 3,000 in the specification.
    pub customers: u32,
    /// How many of 100 transactions are those of the first warehouse. The others choose evenly.
    pub conflict: u8,
    /// Which transactions have to do with another warehouse.
    pub remote: Remote,
    /// How many lines come from the other warehouse, the first ones, of an order of which that was
    /// decided as a whole: with [`Remote::Share`], and with a spread.
    pub remote_lines: u8,
    /// Whether transactions declare their footprints. Only those of [`Mix::NewOrderPayment`] can.
    pub declared: bool,
}

/// The transactions of terminals that don't think or type: each follows the last at once, and no
/// warehouse has terminals of its own. So the result is no tpmC, whatever the rate is.
///
/// What is kept of the specification is said in [`parsec_runtimes::procedures::tpcc`]; beside it,
/// one new-order in a hundred orders what there is not, and reverts.
#[derive(Debug)]
pub struct Tpcc {
    options: TpccOptions,
    spread: Option<Spread>,
    /// The number of each warehouse.
    warehouses: Vec<u32>,
    constants: Constants,
    draws: Draws,
    /// The customers of each district by last name, if footprints are to be declared.
    names: BTreeMap<Key, Option<Value>>,
    made: u64,
    multi_partition: u64,
    book: audit::Book,
}

impl Tpcc {
    /// The workload with these options. With a spread, warehouses lie evenly on its partitions,
    /// and its share of orders and payments has to do with a warehouse of another partition,
    /// where `remote` has no say.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range.
    pub fn new(options: TpccOptions, spread: Option<Spread>) -> Result<Self, BadWorkload> {
        options.check()?;
        let warehouses = match spread {
            None => (1..=options.warehouses).collect(),
            Some(spread) => options.spread_warehouses(spread)?,
        };
        let alone = warehouses.len() < 2 && spread.is_none();
        if alone && matches!(options.remote, Remote::Share(1..)) {
            let allowed = "another warehouse takes two".to_owned();
            return Err(BadWorkload::Value { knob: "warehouses", value: 1, allowed });
        }
        let places = warehouses.iter().flat_map(|w| population::places(options.seed, *w));
        let names = places.filter(|_| options.declared);
        let names = names
            .map(|place| (place.names(), Some(population::names_row(&options, &place))))
            .collect();
        Ok(Self {
            constants: Constants::new(options.seed),
            draws: Draws::new(options.seed, "tpcc"),
            book: audit::Book::new(&options),
            options,
            spread,
            warehouses,
            names,
            made: 0,
            multi_partition: 0,
        })
    }

    /// The next call, and its number.
    fn next_call(&mut self) -> (u64, Call) {
        let number = self.made;
        self.made += 1;
        let home = match self.options.conflict {
            0 => self.any_warehouse(),
            percent if self.draws.below(100) < u64::from(percent) => 0,
            _ => self.any_warehouse(),
        };
        let warehouse = self.warehouses[home];
        let district = small(&mut self.draws, 1, DISTRICTS);
        let drawn = self.draws.below(100);
        let call = match (self.options.mix, drawn) {
            (Mix::Full, 0..45) | (Mix::NewOrderPayment, 0..50) => {
                Call::NewOrder(self.new_order(home, district, number))
            }
            (Mix::Full, 45..88) | (Mix::NewOrderPayment, _) => {
                Call::Payment(self.payment(home, district, number))
            }
            (Mix::Full, 88..92) => {
                Call::OrderStatus { warehouse, district, customer: self.someone() }
            }
            (Mix::Full, 92..96) => {
                Call::Delivery { warehouse, carrier: small(&mut self.draws, 1, 10) }
            }
            (Mix::Full, _) => {
                let threshold = small(&mut self.draws, 10, 20).into();
                Call::StockLevel { warehouse, district, threshold }
            }
        };
        (number, call)
    }

    fn any_warehouse(&mut self) -> usize {
        let count = u64::try_from(self.warehouses.len()).expect("1,024 at most");
        usize::try_from(self.draws.below(count)).expect("1,024 at most")
    }

    /// Another warehouse, on another partition if there is a spread.
    fn other_warehouse(&mut self, home: usize) -> usize {
        loop {
            let other = self.any_warehouse();
            let apart = match self.spread {
                None => other != home,
                Some(spread) => {
                    let partitions = usize::from(spread.partitions);
                    other % partitions != home % partitions
                }
            };
            if apart {
                return other;
            }
        }
    }

    /// The other warehouse that an order or a payment has to do with, if all of it does.
    fn counterpart(&mut self, home: usize) -> Option<usize> {
        let percent = match (self.spread, self.options.remote) {
            (Some(spread), _) => spread.percent,
            (None, Remote::Share(percent)) => percent,
            (None, Remote::Lines) => return None,
        };
        if self.draws.below(100) >= u64::from(percent) {
            return None;
        }
        self.multi_partition += u64::from(self.spread.is_some());
        Some(self.other_warehouse(home))
    }

    /// Whether each line or payment decides by itself.
    fn each_decides(&self) -> bool {
        self.spread.is_none() && self.options.remote == Remote::Lines && self.warehouses.len() > 1
    }

    fn new_order(&mut self, home: usize, district: u8, number: u64) -> NewOrder {
        let TpccOptions { customers, items: item_count, mix, .. } = self.options;
        let customer = self.constants.customer(&mut self.draws, customers);
        let counterpart = self.counterpart(home);
        let count = usize::from(small(&mut self.draws, 5, 15));
        let rolls_back = self.draws.below(100) == 0;
        let mut items: Vec<OrderedItem> = Vec::with_capacity(count);
        while items.len() < count {
            let item = self.constants.item(&mut self.draws, item_count);
            if items.iter().any(|other| other.item == item) {
                continue;
            }
            let from = match counterpart {
                Some(other) if items.len() < usize::from(self.options.remote_lines) => other,
                None if self.each_decides() && self.draws.below(100) == 0 => {
                    self.other_warehouse(home)
                }
                _ => home,
            };
            let quantity = small(&mut self.draws, 1, 10);
            items.push(OrderedItem { item, supplier: self.warehouses[from], quantity });
        }
        if rolls_back && let Some(last) = items.last_mut() {
            last.item = item_count + 1;
        }
        let order = NewOrder {
            warehouse: self.warehouses[home],
            district,
            customer,
            token: TOKEN_FIRST + number,
            queued: mix == Mix::Full,
            items,
        };
        self.book.order(&order, rolls_back);
        order
    }

    fn payment(&mut self, home: usize, district: u8, number: u64) -> Payment {
        let counterpart = self.counterpart(home);
        let theirs = match counterpart {
            Some(other) => other,
            None if self.each_decides() && self.draws.below(100) < 15 => self.other_warehouse(home),
            None => home,
        };
        let customer_district = match theirs == home {
            true => district,
            false => small(&mut self.draws, 1, DISTRICTS),
        };
        let payment = Payment {
            warehouse: self.warehouses[home],
            district,
            customer_warehouse: self.warehouses[theirs],
            customer_district,
            customer: self.someone(),
            amount: between(&mut self.draws, 100, 500_000),
            token: TOKEN_FIRST + number,
        };
        self.book.payment(&payment);
        payment
    }

    /// A customer: in six of ten cases by last name.
    fn someone(&mut self) -> Who {
        let customers = self.options.customers;
        match self.draws.below(100) < 60 {
            true => Who::Name(self.constants.name(&mut self.draws, customers)),
            false => Who::Number(self.constants.customer(&mut self.draws, customers)),
        }
    }
}

impl TpccOptions {
    fn check(&self) -> Result<(), BadWorkload> {
        let bounded = |knob, value: u32, least: u32, most: u32| match value {
            value if (least..=most).contains(&value) => Ok(()),
            value => {
                let allowed = format!("{least} to {most}");
                Err(BadWorkload::Value { knob, value: value.into(), allowed })
            }
        };
        bounded("warehouses", self.warehouses, 1, WAREHOUSES_MAX)?;
        bounded("items", self.items, 100, 100_000)?;
        bounded("customers", self.customers, 30, 3_000)?;
        bounded("conflict", self.conflict.into(), 0, 100)?;
        bounded("remote_lines", self.remote_lines.into(), 1, LINES_MAX_U32)?;
        match self.remote {
            Remote::Share(percent) => bounded("remote", percent.into(), 0, 100),
            Remote::Lines => Ok(()),
        }
    }

    /// Numbers of warehouses, so that number n of them lies on partition n modulo all.
    fn spread_warehouses(&self, spread: Spread) -> Result<Vec<u32>, BadWorkload> {
        let Spread { partitions, percent, participants } = spread;
        let map = PartitionMap::even(partitions).ok().filter(|_| participants == 2);
        let Some(map) = map.filter(|_| partitions > 1) else {
            return Err(BadWorkload::Participants { participants, partitions, most: 2 });
        };
        if percent > 100 {
            return Err(BadWorkload::Percent { percent });
        }
        if !self.warehouses.is_multiple_of(partitions.into()) {
            let allowed = format!("a multiple of {partitions}, the partitions");
            let value = self.warehouses.into();
            return Err(BadWorkload::Value { knob: "warehouses", value, allowed });
        }
        let mut next = vec![1; usize::from(partitions)];
        let mut find = |number: u32| {
            let partition = u16::try_from(number % u32::from(partitions)).expect("below a u16");
            let next = &mut next[usize::from(partition)];
            loop {
                let place = Place { database: self.seed, warehouse: *next, district: 1 };
                *next += 1;
                if map.owner(&place.warehouse()).0 == partition {
                    return place.warehouse;
                }
            }
        };
        Ok((0..self.warehouses).map(&mut find).collect())
    }

    /// The footprint that a call declares.
    fn footprint(
        &self,
        payload: &Bytes,
        names: &BTreeMap<Key, Option<Value>>,
    ) -> Option<Footprint> {
        let runtime = ProcedureRuntime;
        match runtime.declared(&[], payload, names) {
            Declared::Footprint(footprint) => Some(footprint),
            Declared::Nothing | Declared::Needs(_) | Declared::Counting { .. } => {
                let plain =
                    Transaction::new(parsec_protocol::RuntimeId::PROCEDURES, payload.clone());
                runtime.admit(&plain).ok()?.footprint
            }
        }
    }
}

const LINES_MAX_U32: u32 = 15;
const _: () = assert!(LINES_MAX == LINES_MAX_U32 as usize);

impl Workload for Tpcc {
    fn name(&self) -> String {
        let TpccOptions { seed, mix, warehouses, items, customers, conflict, remote, .. } =
            self.options;
        let lines = match self.options.remote_lines {
            1 => " in one line".to_owned(),
            lines => format!(" in up to {lines} lines"),
        };
        let mix = match mix {
            Mix::Full => "tpcc",
            Mix::NewOrderPayment => "tpcc new-order and payment",
        };
        let remote = match (self.spread, remote) {
            (Some(spread), _) => format!("{spread}{lines}"),
            (None, Remote::Lines) => "remote as specified".to_owned(),
            (None, Remote::Share(percent)) => format!("{percent} % remote{lines}"),
        };
        let conflict = match conflict {
            0 => String::new(),
            percent => format!("{percent} % in one, "),
        };
        format!(
            "{mix} ({warehouses} warehouses, {items} items, {customers} customers a district, \
             {conflict}{remote}, seed {seed})"
        )
    }

    fn setup(&self) -> Vec<Stage> {
        population::stages(&self.options, &self.warehouses)
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let options = self.options;
        let names = std::mem::take(&mut self.names);
        let built = build(
            count,
            progress,
            || self.next_call(),
            |(number, call)| {
                let invocation = Invocation::Tpcc { database: options.seed, call };
                let mut transaction =
                    invocation.into_transaction(salt(options.seed, "tpcc load", number));
                if options.declared {
                    transaction.footprint = options.footprint(&transaction.payload, &names);
                }
                LoadTransaction { sender: None, transaction }
            },
        );
        self.names = names;
        built
    }

    fn reverts(&self) -> Reverts {
        Reverts::Exactly(self.book.rollbacks())
    }

    fn multi_partition(&self) -> Option<u64> {
        self.spread.map(|_| self.multi_partition)
    }

    fn audit(&self) -> Audit {
        self.book.audit(&self.warehouses)
    }
}

/// The place of a number from 1 on.
fn place_of(number: u32) -> usize {
    index(number) - 1
}

#[cfg(test)]
mod tests;
