use parsec_protocol::Delta;

use super::super::tpcc::rows::{
    Account, Entered, Item, Line, Names, Office, Order, PERSON_BYTES, Person, Queue, Sequence,
    Stock,
};
use super::super::tpcc::{
    Call, DISTRICTS, NewOrder, OrderedItem, PAGE, Payment, Place, RECENT, Who, keys,
};
use super::*;
use crate::access::Ahead;

const DATABASE: u64 = 8;
const ITEMS: u32 = 30;
const CUSTOMERS: u32 = 4;

fn place(warehouse: u32, district: u8) -> Place {
    Place { database: DATABASE, warehouse, district }
}

/// Two warehouses without orders.
fn database() -> Host {
    let mut host = host();
    for item in 1..=ITEMS {
        let row = Item { price: 100 * item, text: vec![b'i'; 50] };
        host.state.insert(keys::item(DATABASE, item), row.encode());
    }
    for warehouse in 1..=2 {
        fill(&mut host, warehouse);
    }
    host
}

fn fill(host: &mut Host, warehouse: u32) {
    let zero = || Value::copy_from_slice(&Delta::from(0).0);
    let office = |tax| Office { tax, address: [b'x'; 81] }.encode();
    let first = place(warehouse, 1);
    host.state.insert(first.warehouse(), office(1_000));
    host.state.insert(first.warehouse_ytd(), zero());
    host.state.insert(first.queue(), Queue::default().encode());
    for item in 1..=ITEMS {
        let text: Vec<u8> = (1..=DISTRICTS).flat_map(|district| [district; 24]).collect();
        let stock = Stock { quantity: 20, ytd: 0, orders: 0, remote: 0 };
        host.state.insert(keys::stock(DATABASE, warehouse, item), stock.encode());
        host.state.insert(keys::stock_text(DATABASE, warehouse, item), text.into());
    }
    for place in (1..=DISTRICTS).map(|district| place(warehouse, district)) {
        host.state.insert(place.district(), office(500));
        host.state.insert(place.district_ytd(), zero());
        let recent = [Entered::default(); RECENT as usize];
        let sequence = Sequence { next: 1, paged: 0, recent };
        host.state.insert(place.sequence(), sequence.encode());
        host.state.insert(place.names(), Names::encode(&[(3, 2), (5, 4), (5, 1), (5, 3)]));
        for customer in 1..=CUSTOMERS {
            let bad_credit = customer == 4;
            let person = Person { discount: 2_000, bad_credit, text: [b'p'; PERSON_BYTES] };
            let account = Account { balance: 0, ytd_payment: 0, payments: 0, deliveries: 0 };
            host.state.insert(place.person(customer), person.encode());
            host.state.insert(place.account(customer), account.encode());
            host.state.insert(place.customer_data(customer), vec![b'd'; 500].into());
        }
    }
}

fn call(call: Call) -> Invocation {
    Invocation::Tpcc { database: DATABASE, call }
}

fn new_order(token: u64, items: &[u32]) -> NewOrder {
    let ordered = |item: &u32| OrderedItem { item: *item, supplier: 1, quantity: 5 };
    let items = items.iter().map(ordered).collect();
    NewOrder { warehouse: 1, district: 2, customer: 3, token, queued: true, items }
}

fn ordered(host: &mut Host, token: u64, items: &[u32]) {
    committed(host, call(Call::NewOrder(new_order(token, items))));
}

fn order(host: &Host, token: u64) -> Order {
    Order::decode(&host.state[&place(1, 2).order(token)]).unwrap()
}

fn sequence(host: &Host) -> Sequence {
    Sequence::decode(&host.state[&place(1, 2).sequence()]).unwrap()
}

fn delivered(host: &Host) -> u32 {
    Queue::decode(&host.state[&place(1, 2).queue()]).unwrap().delivered[1]
}

fn account(host: &Host, number: u32) -> Account {
    Account::decode(&host.state[&place(1, 2).account(number)]).unwrap()
}

fn delivery() -> Invocation {
    call(Call::Delivery { warehouse: 1, carrier: 9 })
}

#[test]
fn an_order_gets_the_next_number_and_its_price() {
    let mut host = database();
    let output = committed(&mut host, call(Call::NewOrder(new_order(77, &[1, 10]))));
    // (500 + 5,000) cents, less 20 %, plus 15 %.
    assert_eq!(&output[..], [&1u32.to_be_bytes()[..], &5_060u64.to_be_bytes()].concat());
    let order = order(&host, 77);
    assert_eq!((order.id, order.customer, order.carrier, order.all_local), (1, 3, 0, true));
    assert_eq!(order.entered, host.epoch.timestamp_ms);
    let line = Line { item: 10, supplier: 1, quantity: 5, amount: 5_000, info: [2; 24] };
    assert_eq!((order.lines.len(), order.lines[1]), (2, line));
    assert_eq!(sequence(&host).next, 2);
    assert_eq!(sequence(&host).entered(1), Some(Entered { token: 77, customer: 3 }));
}

#[test]
fn stock_is_filled_up_when_little_would_be_left() {
    let mut host = database();
    let quantities: Vec<u16> = (1..=5)
        .map(|token| {
            let mut order = new_order(token, &[4]);
            order.items[0].supplier = 2;
            committed(&mut host, call(Call::NewOrder(order)));
            Stock::decode(&host.state[&keys::stock(DATABASE, 2, 4)]).unwrap().quantity
        })
        .collect();
    // Below ten left, 91 come.
    assert_eq!(quantities, [15, 10, 96, 91, 86]);
    let row = host.state[&keys::stock(DATABASE, 2, 4)].clone();
    let stock = Stock::decode(&row).unwrap();
    assert_eq!((stock.ytd, stock.orders, stock.remote), (25, 5, 5));
    assert!(!order(&host, 1).all_local);
}

#[test]
fn an_unknown_item_rolls_the_order_back() {
    let mut host = database();
    let unknown = call(Call::NewOrder(new_order(1, &[3, ITEMS + 1])));
    assert_eq!(refused(&mut host, unknown), ErrorCode::Refused);
    ordered(&mut host, 5, &[3]);
    let again = call(Call::NewOrder(new_order(5, &[4])));
    assert_eq!(refused(&mut host, again), ErrorCode::AlreadyExists);
}

#[test]
fn a_district_takes_no_more_orders_than_deliveries_can_find() {
    let mut host = database();
    for token in 1..=u64::from(RECENT) {
        ordered(&mut host, token, &[1]);
    }
    let one_more = || new_order(1_000, &[1]);
    assert_eq!(refused(&mut host, call(Call::NewOrder(one_more()))), ErrorCode::TooLarge);
    committed(&mut host, call(Call::NewOrder(NewOrder { queued: false, ..one_more() })));
}

#[test]
fn payments_add_up_and_bad_credit_is_noted() {
    let mut host = database();
    let payment = |who, token| {
        call(Call::Payment(Payment {
            warehouse: 2,
            district: 7,
            customer_warehouse: 1,
            customer_district: 2,
            customer: who,
            amount: 1_234,
            token,
        }))
    };
    committed(&mut host, payment(Who::Number(4), 1));
    let output = committed(&mut host, payment(Who::Name(5), 2));
    // Of 4, 1 and 3, in the order of their first names, 1 is in the middle.
    assert_eq!(&output[..], [&1u32.to_be_bytes()[..], &(-1_234i64).to_be_bytes()].concat());
    let [bad, good] = [4, 1].map(|number| host.state[&place(1, 2).customer_data(number)].clone());
    assert!(bad.starts_with(b"4 2 1 7 2 1234 dd") && bad.len() == 500);
    assert_eq!(good[..], [b'd'; 500]);
    let good = account(&host, 1);
    assert_eq!((good.ytd_payment, good.payments, good.balance), (1_234, 1, -1_234));
    let sum = Value::copy_from_slice(&Delta::from(2_468).0);
    assert_eq!(host.state[&place(2, 7).warehouse_ytd()], sum);
    assert_eq!(host.state[&place(2, 7).district_ytd()], sum);
    assert_eq!(refused(&mut host, payment(Who::Number(4), 1)), ErrorCode::AlreadyExists);
    assert_eq!(refused(&mut host, payment(Who::Name(4), 3)), ErrorCode::Refused);
}

#[test]
fn the_index_of_names_tells_the_footprint_of_a_payment() {
    let host = database();
    let payment = Payment {
        warehouse: 1,
        district: 1,
        customer_warehouse: 2,
        customer_district: 3,
        customer: Who::Name(5),
        amount: 1,
        token: 1,
    };
    let transaction = call(Call::Payment(payment)).into_transaction(0);
    assert_eq!(ProcedureRuntime.admit(&transaction).unwrap().footprint, None);
    let none = std::collections::BTreeMap::<Key, Option<Value>>::new();
    let names = place(2, 3).names();
    let needs = Declared::Needs(vec![names]);
    assert_eq!(ProcedureRuntime.declared(&[], &transaction.payload, &none), needs);
    let mut tried = database();
    let found = tried.admit(&transaction).unwrap().footprint;
    // A trial sees that their credit is good, and C_DATA not touched.
    let data = access(place(2, 3).customer_data(1), Mode::Write);
    let expected = found.union(&Footprint::new(vec![data]).unwrap()).unwrap();
    let declared = ProcedureRuntime.declared(&[], &transaction.payload, &host.state);
    assert_eq!(declared, Declared::Footprint(expected));
}

/// The footprint that the state tells of a call before which `ahead` others count the same up.
fn told(host: &Host, invocation: Invocation, ahead: u32) -> Entry {
    told_between(host, invocation, Ahead { least: ahead, most: ahead })
}

fn told_between(host: &Host, invocation: Invocation, ahead: Ahead) -> Entry {
    struct Counted<'a>(&'a Host, Ahead);
    impl Source for Counted<'_> {
        fn value(&self, key: &Key) -> Option<Option<Value>> {
            Some(self.0.state.get(key).cloned())
        }

        fn ahead(&self, _: &Key) -> Ahead {
            self.1
        }
    }
    let transaction = invocation.into_transaction(ahead.most.into());
    let source = Counted(host, ahead);
    let footprint = match ProcedureRuntime.declared(&[], &transaction.payload, &source) {
        Declared::Footprint(footprint) | Declared::Counting { footprint, .. } => footprint,
        other => panic!("{other:?}"),
    };
    let transaction = Transaction { footprint: Some(footprint), ..transaction };
    super::host().admit(&transaction).unwrap()
}

#[test]
fn deliveries_take_orders_in_turn() {
    let mut host = database();
    for token in [30, 10, 20] {
        ordered(&mut host, token, &[1, 2]);
    }
    let mut ids_of_two = Vec::new();
    for _ in 0..4 {
        let output = committed(&mut host, delivery());
        let (ids, rest) = output.as_chunks::<4>();
        assert!(ids.len() == 10 && rest.is_empty());
        ids_of_two.push(u32::from_be_bytes(ids[1]));
        assert!(ids.iter().enumerate().all(|(at, id)| at == 1 || *id == [0; 4]));
    }
    assert_eq!((ids_of_two, delivered(&host)), (vec![1, 2, 3, 0], 3));
    for token in [30, 10, 20] {
        let order = order(&host, token);
        assert_eq!((order.carrier, order.delivered), (9, host.epoch.timestamp_ms));
    }
    let account = account(&host, 3);
    assert_eq!((account.balance, account.deliveries), (3 * 1_500, 3));
    ordered(&mut host, 40, &[1]);
    committed(&mut host, delivery());
    assert_eq!(order(&host, 40).carrier, 9);
}

#[test]
fn orders_are_found_on_pages_when_the_district_has_forgotten_them() {
    let mut host = database();
    let mut token = 0;
    for round in 0..4 {
        for _ in 0..PAGE {
            token += 1;
            ordered(&mut host, token, &[1]);
        }
        committed(&mut host, delivery());
        assert_eq!(sequence(&host).paged, PAGE * (round + 1));
    }
    assert_eq!(sequence(&host).entered(5), None);
    for expected in 5..=4 * PAGE {
        // A trial and the rows themselves agree on what there is.
        let found = match expected % 2 {
            0 => entry(&mut host, delivery()),
            _ => told(&host, delivery(), 0),
        };
        assert_eq!(host.execute(&found).outcome, Outcome::Committed);
        assert_eq!(delivered(&host), expected);
        assert_eq!(order(&host, expected.into()).carrier, 9);
    }
    committed(&mut host, delivery());
    assert_eq!(delivered(&host), 4 * PAGE);
}

/// A page that is not in the footprint is left to the next delivery.
#[test]
fn orders_that_come_after_a_footprint_was_found_do_not_make_a_delivery_stray() {
    let mut host = database();
    // Numbers begin at one: the first page has one order less.
    for token in 1..PAGE - 1 {
        ordered(&mut host, token.into(), &[1]);
    }
    let tried = entry(&mut host, delivery());
    ordered(&mut host, 1_000, &[1]);
    assert_eq!(host.execute(&tried).outcome, Outcome::Committed);
    assert_eq!((delivered(&host), sequence(&host).paged), (1, 0));
    // What the rows tell has the page that will be full then.
    let found = told(&host, delivery(), 0);
    assert_eq!(host.execute(&found).outcome, Outcome::Committed);
    assert_eq!((delivered(&host), sequence(&host).paged), (2, PAGE));
}

#[test]
fn deliveries_on_their_way_are_counted() {
    let mut host = database();
    for token in 1..=30 {
        ordered(&mut host, token, &[1]);
    }
    let found: Vec<Entry> = (0..30).map(|ahead| told(&host, delivery(), ahead)).collect();
    // Some that are missing, or come twice, do not matter.
    let mut count = 0;
    for (at, entry) in found.iter().enumerate().filter(|(at, _)| !at.is_multiple_of(10)) {
        assert_eq!(host.execute(entry).outcome, Outcome::Committed, "{at}");
        count += 1;
        assert_eq!(delivered(&host), count);
    }
    let wrong = told(&host, delivery(), 10);
    let strayed = Outcome::Strayed { key: place(1, 2).order(28), mode: Mode::Read };
    assert_eq!(host.execute(&wrong).outcome, strayed);
    let cautious = told_between(&host, delivery(), Ahead { least: 0, most: 10 });
    assert_eq!(host.execute(&cautious).outcome, Outcome::Committed);
}

#[test]
fn a_trial_finds_the_one_that_is_next() {
    let mut host = database();
    ordered(&mut host, 1, &[1]);
    ordered(&mut host, 2, &[1]);
    let found = [entry(&mut host, delivery()), entry(&mut host, delivery())];
    assert_eq!(host.execute(&found[0]).outcome, Outcome::Committed);
    let second = Outcome::Strayed { key: place(1, 2).order(2), mode: Mode::Read };
    assert_eq!(host.execute(&found[1]).outcome, second);
    assert_eq!(delivered(&host), 1);
    let receipt = host.submit(&delivery().into_transaction(1)).unwrap();
    assert_eq!((receipt.outcome, delivered(&host)), (Outcome::Committed, 2));
}

/// What is told is what is touched, and no value is needed that it does not go on from.
#[test]
fn rows_tell_what_questions_touch() {
    let mut host = database();
    for token in 1..=25 {
        ordered(&mut host, token, &[u32::try_from(token).unwrap(), 26]);
    }
    for question in [
        Call::OrderStatus { warehouse: 1, district: 2, customer: Who::Number(3) },
        Call::OrderStatus { warehouse: 1, district: 2, customer: Who::Name(5) },
        Call::StockLevel { warehouse: 1, district: 2, threshold: 10 },
        Call::StockLevel { warehouse: 1, district: 3, threshold: 10 },
    ] {
        let tried = entry(&mut host, call(question.clone()));
        let told = told(&host, call(question.clone()), 0);
        assert_eq!(told.footprint, tried.footprint, "{question:?}");
    }
    let nobody = Call::OrderStatus { warehouse: 1, district: 2, customer: Who::Name(4) };
    let payload = call(nobody).into_transaction(0).payload;
    assert_eq!(ProcedureRuntime.declared(&[], &payload, &host.state), Declared::Nothing);
}

#[test]
fn an_order_status_shows_the_last_order() {
    let mut host = database();
    let status = |customer| call(Call::OrderStatus { warehouse: 1, district: 2, customer });
    let output = committed(&mut host, status(Who::Number(3)));
    assert_eq!(&output[..], [&3u32.to_be_bytes()[..], &[0; 8]].concat());
    ordered(&mut host, 50, &[1]);
    ordered(&mut host, 40, &[2]);
    let output = committed(&mut host, status(Who::Number(3)));
    assert_eq!(Order::decode(&output[12..]).unwrap(), order(&host, 40));
    assert_eq!(committed(&mut host, status(Who::Name(3)))[..4], 2u32.to_be_bytes());
}

#[test]
fn a_stock_level_counts_items_of_the_last_twenty_orders() {
    let mut host = database();
    let level = |threshold| call(Call::StockLevel { warehouse: 1, district: 2, threshold });
    assert_eq!(committed(&mut host, level(100))[..], 0u32.to_be_bytes());
    ordered(&mut host, 1_000, &[25]);
    for token in 1..=20 {
        ordered(&mut host, token, &[u32::try_from(token).unwrap().div_ceil(4)]);
    }
    // Items 1 to 5, each ordered four times: 20 - 5 - 5, then + 91 - 5 and - 5.
    assert_eq!(committed(&mut host, level(92))[..], 5u32.to_be_bytes());
    assert_eq!(committed(&mut host, level(91))[..], 0u32.to_be_bytes());
    let found = entry(&mut host, level(100));
    for token in 21..=23 {
        ordered(&mut host, token, &[6, 7, 8]);
    }
    // The orders of when the footprint was found, the stock of now.
    let receipt = host.execute(&found);
    assert_eq!(receipt.outcome, Outcome::Committed);
    assert_eq!(receipt.output[..], 5u32.to_be_bytes());
    assert_eq!(committed(&mut host, level(100))[..], 8u32.to_be_bytes());
}

#[test]
fn bad_arguments_are_refused_at_admission() {
    let order = |order| malformed(call(Call::NewOrder(order)));
    assert!(order(new_order(1, &[])).contains("1 to 15"));
    assert!(order(new_order(1, &(1..=16).collect::<Vec<_>>())).contains("1 to 15"));
    assert!(order(new_order(0, &[1])).contains("token"));
    assert!(order(new_order(1, &[1, 2, 1])).contains("twice"));
    assert!(order(NewOrder { district: 11, ..new_order(1, &[1]) }).contains("ten districts"));
    for quantity in [0, 100] {
        let mut wrong = new_order(1, &[1]);
        wrong.items[0].quantity = quantity;
        assert!(order(wrong).contains("1 to 99"));
    }
    let status = |district, customer| {
        malformed(call(Call::OrderStatus { warehouse: 1, district, customer }))
    };
    assert!(status(0, Who::Number(1)).contains("ten districts"));
    assert!(status(1, Who::Name(1_000)).contains("last names"));
    assert!(malformed(call(Call::Delivery { warehouse: 1, carrier: 0 })).contains("carrier"));
    let level = Call::StockLevel { warehouse: 1, district: 0, threshold: 1 };
    assert!(malformed(call(level)).contains("ten districts"));
}

#[test]
fn all_of_a_warehouse_shares_a_placement() {
    for warehouse in 0..50 {
        let (one, other) = (place(warehouse, 1), place(warehouse, 9));
        let keys = [
            one.warehouse(),
            one.warehouse_ytd(),
            other.district(),
            other.district_ytd(),
            other.sequence(),
            other.queue(),
            other.account(7),
            other.person(7),
            other.customer_data(7),
            other.last_order(7),
            other.order(u64::MAX),
            other.history(3),
            keys::stock(DATABASE, warehouse, 5),
            keys::stock_text(DATABASE, warehouse, 5),
        ];
        assert!(keys.iter().all(|key| key.slot() == keys[0].slot()));
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
