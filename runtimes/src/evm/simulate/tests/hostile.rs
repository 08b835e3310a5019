//! Whatever is asked gets an answer or an error, soon.

use alloy_rpc_types_eth::simulate::{SimBlock, SimulatePayload};
use alloy_rpc_types_eth::state::AccountOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionInput};
use parsec_ethereum::Traced;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

// Strategies are boxed: as they are, they take much of a thread's stack.

/// Numbers at and between the ends of what fits.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..100_000_u64, any::<u64>()]
}

fn wide() -> impl Strategy<Value = U256> {
    prop_oneof![number().prop_map(U256::from), Just(U256::MAX)]
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        Just(RICH),
        Just(POOR),
        Just(CONTRACT),
        (0..20_u8).prop_map(Address::with_last_byte)
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

prop_compose! {
    fn call()(
        from in option::of(address()),
        to in option::of(address()),
        fees in (option::of(number()), option::of(number()), option::of(number())),
        gas in prop_oneof![Just(None), (0..300_000_u64).prop_map(Some), Just(Some(u64::MAX))],
        (value, nonce, chain) in (option::of(wide()), option::of(number()), option::of(Just(CHAIN))),
        input in bytes(),
        (list, blobs, authorizations) in (any::<bool>(), option::of(0..3_usize), any::<bool>()),
    ) -> TransactionRequest {
        TransactionRequest {
            from,
            to: to.map(TxKind::Call),
            gas_price: fees.0.map(u128::from),
            max_fee_per_gas: fees.1.map(u128::from),
            max_priority_fee_per_gas: fees.2.map(u128::from),
            max_fee_per_blob_gas: fees.1.map(u128::from),
            gas,
            value,
            nonce,
            chain_id: chain,
            input: TransactionInput::new(input),
            access_list: list.then(Default::default),
            blob_versioned_hashes: blobs.map(|count| vec![B256::with_last_byte(1); count]),
            authorization_list: authorizations.then(Vec::new),
            ..TransactionRequest::default()
        }
    }
}

prop_compose! {
    fn account()(
        balance in option::of(wide()),
        nonce in option::of(number()),
        code in option::of(bytes()),
        to in option::of(address()),
        (state, diff) in (any::<bool>(), any::<bool>()),
    ) -> AccountOverride {
        let storage = || [(B256::ZERO, B256::repeat_byte(1))].into_iter().collect();
        AccountOverride {
            balance,
            nonce,
            code,
            state: state.then(storage),
            state_diff: diff.then(storage),
            move_precompile_to: to,
        }
    }
}

prop_compose! {
    fn block()(
        number in option::of(prop_oneof![(100..130_u64).prop_map(U256::from), wide()]),
        (time, gas_limit) in (option::of(number()), option::of(number())),
        base_fee in option::of(wide()),
        calls in prop::collection::vec(call().boxed(), 0..3),
        accounts in prop::collection::vec((address(), account().boxed()), 0..2),
    ) -> SimBlock {
        SimBlock {
            block_overrides: Some(BlockOverrides {
                number,
                time,
                gas_limit,
                base_fee,
                blob_base_fee: base_fee,
                ..BlockOverrides::default()
            }),
            state_overrides: Some(accounts.into_iter().collect()),
            calls,
        }
    }
}

fn task() -> impl Strategy<Value = Task> {
    let tracer = prop_oneof![
        Just(json!({})),
        Just(json!({ "enableMemory": true, "enableReturnData": true, "limit": 3 })),
        Just(json!({ "tracer": "callTracer", "tracerConfig": { "withLog": true } })),
        Just(json!({ "tracer": "prestateTracer", "tracerConfig": { "diffMode": true } })),
        Just(json!({ "tracer": "flatCallTracer" })),
        Just(json!({ "tracer": "4byteTracer" })),
        Just(json!({ "tracer": "muxTracer", "tracerConfig": { "prestateTracer": null } })),
    ];
    let trace = (call().boxed(), tracer.boxed()).prop_map(|(call, options)| Task::Trace {
        what: Traced::Call(Box::new(call)),
        options: serde_json::from_value(options).unwrap(),
    });
    let blocks = (prop::collection::vec(block().boxed(), 0..3), any::<[bool; 3]>());
    let blocks = blocks.prop_map(|(block_state_calls, [a, b, c])| {
        Task::Blocks(Box::new(SimulatePayload {
            block_state_calls,
            trace_transfers: a,
            validation: b,
            return_full_transactions: c,
        }))
    });
    prop_oneof![
        call().prop_map(|call| Task::Call(Box::new(call))).boxed(),
        call().prop_map(|call| Task::Estimate(Box::new(call))).boxed(),
        call().prop_map(|call| Task::AccessList(Box::new(call))).boxed(),
        trace.boxed(),
        blocks.boxed(),
    ]
}

/// Code of instructions that are likely to do something.
fn code() -> impl Strategy<Value = Code> {
    let op = prop_oneof![
        3 => prop_oneof![Just(PUSH1), Just(DUP1), Just(PUSH0), Just(GAS), Just(ADDRESS)],
        2 => prop_oneof![Just(MLOAD), Just(SLOAD), Just(SSTORE), Just(CALL), Just(CREATE)],
        1 => any::<u8>(),
    ];
    prop::collection::vec(op, 0..60).prop_map(|ops| Code::new().ops(&ops))
}

proptest! {
    #[test]
    fn nothing_panics(
        code in code().boxed(),
        task in task().boxed(),
        accounts in prop::collection::vec((address(), account().boxed()), 0..2),
        (timestamp, base_fee) in (number(), number()),
        number in prop_oneof![Just(0), Just(100), Just(u64::MAX)],
        gas_limit in prop_oneof![Just(0), Just(1_000_000), Just(u64::MAX)],
    ) {
        let mut map = Map::with(&[(CONTRACT, code)]);
        let mut simulation = simulation(task);
        simulation.overrides = accounts.into_iter().collect();
        simulation.environment =
            Environment { number, timestamp, base_fee, gas_limit, ..environment() };
        if let Ok(answer) = map.answer(simulation) {
            let json = serde_json::to_vec(&answer).unwrap();
            prop_assert!(serde_json::from_slice::<Answer>(&json).is_ok());
        }
    }
}
