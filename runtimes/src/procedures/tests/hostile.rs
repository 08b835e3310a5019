//! Whatever is sent, and whatever is found: a procedure ends with an outcome, within what its
//! arguments tell of its footprint, and without a change if it says no.

use proptest::prelude::*;

use super::super::{smallbank, tpcc, ycsb};
use super::*;

fn small_bank() -> impl Strategy<Value = Invocation> {
    use smallbank::Call;
    let call = (0u64..4, 0u64..4, any::<u32>(), any::<i32>(), 0u8..6).prop_map(
        |(customer, to, amount, change, kind)| match kind {
            0 => Call::Balance { customer },
            1 => Call::DepositChecking { customer, amount },
            2 => Call::TransactSavings { customer, amount: change },
            3 => Call::Amalgamate { from: customer, to },
            4 => Call::WriteCheck { customer, amount },
            _ => Call::SendPayment { from: customer, to, amount },
        },
    );
    call.prop_map(|call| Invocation::SmallBank { bank: 1, call })
}

fn ycsb() -> impl Strategy<Value = Invocation> {
    use ycsb::{Answer, Call, Op};
    let bytes = || prop::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from);
    let op = (0u64..6, 0u8..12, bytes(), any::<u16>(), 0u8..5).prop_map(
        |(record, field, value, count, kind)| match kind {
            0 => Op::Read { record },
            1 => Op::Update { record, field, value },
            2 => Op::ReadModifyWrite { record, field, value },
            3 => Op::Insert { record, fields: value },
            _ => Op::Scan { first: record, count: count % 12 },
        },
    );
    (prop::collection::vec(op, 0..5), any::<bool>()).prop_map(|(ops, digest)| {
        let answer = if digest { Answer::Digest } else { Answer::Records };
        Invocation::Ycsb(Call { table: 1, answer, ops })
    })
}

fn tpcc() -> impl Strategy<Value = Invocation> {
    use tpcc::{Call, NewOrder, OrderedItem, Payment, Who};
    let who = || {
        (any::<bool>(), 0u16..1_010).prop_map(|(named, number)| match named {
            true => Who::Name(number),
            false => Who::Number(number.into()),
        })
    };
    let item = (0u32..9, 0u32..3, any::<u8>()).prop_map(|(item, supplier, quantity)| OrderedItem {
        item,
        supplier,
        quantity,
    });
    let items = prop::collection::vec(item, 0..17);
    let call = (0u32..3, 0u8..12, who(), items, any::<u64>(), any::<u32>(), 0u8..5).prop_map(
        |(warehouse, district, customer, items, token, amount, kind)| match kind {
            0 => Call::NewOrder(NewOrder {
                warehouse,
                district,
                customer: amount % 8,
                token,
                queued: token % 2 == 0,
                items,
            }),
            1 => Call::Payment(Payment {
                warehouse,
                district,
                customer_warehouse: amount % 3,
                customer_district: district,
                customer,
                amount,
                token,
            }),
            2 => Call::OrderStatus { warehouse, district, customer },
            3 => Call::Delivery { warehouse, carrier: district },
            _ => Call::StockLevel { warehouse, district, threshold: 50 },
        },
    );
    call.prop_map(|call| Invocation::Tpcc { database: 1, call })
}

/// A state in which each key of a footprint has any value, or none.
fn strew(host: &mut Host, entry: &Entry, rows: &[Option<Vec<u8>>]) {
    let accesses = entry.footprint.accesses();
    for (access, row) in accesses.iter().zip(rows.iter().cycle()) {
        if let Some(row) = row {
            host.state.insert(access.key.clone(), row.clone().into());
        }
    }
}

fn check(invocation: Invocation, rows: &[Option<Vec<u8>>]) {
    let transaction = invocation.into_transaction(0);
    let Ok(admitted) = ProcedureRuntime.admit(&transaction) else { return };
    let mut host = host();
    let entry = host.admit(&transaction).unwrap();
    strew(&mut host, &entry, rows);
    let before = host.state.clone();
    // Whatever rows say, a footprint that they tell is one that is admitted.
    let told = ProcedureRuntime.declared(&[], &transaction.payload, &host.state);
    if let Declared::Footprint(footprint) | Declared::Counting { footprint, .. } = told {
        let told = Transaction { footprint: Some(footprint), ..transaction.clone() };
        told.check().unwrap();
    }
    let receipt = host.execute(&entry);
    match &receipt.outcome {
        Outcome::Committed => {}
        Outcome::Reverted(_) => assert_eq!(host.state, before),
        Outcome::Strayed { .. } => {
            assert!(admitted.footprint.is_none(), "it left the footprint that it tells");
            assert_eq!(host.state, before);
        }
        Outcome::Invalid(_) => panic!("what is admitted can run"),
    }
    host.state = before;
    host.restart();
    assert_eq!(host.execute(&entry), receipt);
}

fn rows() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let length =
        prop_oneof![Just(8usize), Just(20), Just(24), Just(40), Just(83), Just(1_544), 0usize..700];
    let row = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
    prop::collection::vec(prop::option::weighted(0.9, row), 1..6)
}

proptest! {
    #[test]
    fn any_arguments_over_any_rows_end_with_an_outcome(
        invocation in prop_oneof![small_bank(), ycsb(), tpcc()],
        rows in rows(),
    ) {
        check(invocation, &rows);
    }

    #[test]
    fn any_bytes_are_a_call_or_are_refused(
        invocation in prop_oneof![small_bank(), ycsb(), tpcc()],
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut payload = invocation.into_transaction(0).payload.to_vec();
        for (index, bits) in flips {
            let index = index.index(payload.len());
            payload[index] ^= bits;
        }
        if is_cut {
            payload.truncate(end.index(payload.len()));
        }
        if let Ok(invocation) = decode(&payload) {
            check(invocation, &[]);
        } else {
            let mut host = host();
            let plain = Invocation::Ycsb(ycsb::Call {
                table: 1,
                answer: ycsb::Answer::Digest,
                ops: vec![ycsb::Op::Read { record: 1 }],
            });
            let mut entry = entry(&mut host, plain);
            entry.payload = payload.clone().into();
            let outcome = host.execute(&entry).outcome;
            prop_assert!(matches!(outcome, Outcome::Invalid(ErrorCode::Malformed)), "{:?}", outcome);
            let none = std::collections::BTreeMap::<Key, Option<Value>>::new();
            let declared = ProcedureRuntime.declared(&[], &entry.payload, &none);
            prop_assert_eq!(declared, Declared::Nothing);
        }
    }
}
