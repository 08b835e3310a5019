//! Blocks of calls.

use alloy_rpc_types_eth::simulate::SimulatePayload;
use serde_json::{Value as Json, json};

use super::*;

fn simulate(map: &mut Map, payload: Json) -> Result<Json, QueryError> {
    let payload: SimulatePayload = serde_json::from_value(payload).unwrap();
    match map.task(Task::Blocks(Box::new(payload)))? {
        Answer::Blocks(blocks) => Ok(blocks),
        answer => panic!("{answer:?}"),
    }
}

fn refused(map: &mut Map, payload: Json) -> (i32, String) {
    match simulate(map, payload) {
        Err(QueryError::Refused { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn later_calls_and_blocks_see_what_earlier_ones_did() {
    let counts = Code::new().push(1).ops(&[SLOAD]).push(1).ops(&[ADD, DUP1]).store(1).give_back();
    let mut map = Map::with(&[(CONTRACT, counts)]);
    let call = json!({ "from": RICH, "to": CONTRACT });
    let payload = json!({ "blockStateCalls": [{ "calls": [call, call] }, { "calls": [call] }] });
    let blocks = simulate(&mut map, payload).unwrap();
    let outputs = [&blocks[0]["calls"][0], &blocks[0]["calls"][1], &blocks[1]["calls"][0]];
    for (count, call) in (1..).zip(outputs) {
        assert_eq!(call["status"], "0x1");
        assert_eq!(call["returnData"], B256::with_last_byte(count).to_string());
    }
    assert_eq!(blocks[1]["parentHash"], blocks[0]["hash"]);
    assert_eq!((&blocks[0]["number"], &blocks[1]["number"]), (&json!("0x64"), &json!("0x65")));
}

#[test]
fn failures_of_calls_are_told_with_them() {
    let invalid = Address::repeat_byte(2);
    let mut map = Map::with(&[(CONTRACT, refuses()), (invalid, Code::new().ops(&[INVALID]))]);
    let calls = json!([{ "to": CONTRACT }, { "to": invalid, "gas": "0x7530" }]);
    let payload = json!({ "blockStateCalls": [{ "calls": calls }] });
    let blocks = simulate(&mut map, payload).unwrap();
    let calls = &blocks[0]["calls"];
    assert_eq!(
        calls[0]["error"],
        json!({ "code": 3, "message": "execution reverted: no", "data": revert_data() })
    );
    assert_eq!((&calls[0]["status"], &calls[0]["returnData"]), (&json!("0x0"), &json!("0x")));
    assert_eq!(calls[1]["error"], json!({ "code": -32_015, "message": "invalid opcode: INVALID" }));
}

#[test]
fn whole_transactions_are_shown_if_asked_for() {
    let mut map = Map::with(&[]);
    let calls = json!([
        { "from": RICH, "to": POOR, "value": "0x5" },
        { "from": RICH, "to": POOR, "gasPrice": "0x7", "gas": "0x5208" },
    ]);
    let payload =
        json!({ "blockStateCalls": [{ "calls": calls }], "returnFullTransactions": true });
    let blocks = simulate(&mut map, payload).unwrap();
    let transactions = &blocks[0]["transactions"];
    let expected = [("0x2", "0x0", "0x0"), ("0x0", "0x1", "0x1")];
    for (index, (kind, nonce, place)) in expected.into_iter().enumerate() {
        let transaction = &transactions[index];
        assert_eq!(transaction["type"], kind);
        assert_eq!(transaction["nonce"], nonce);
        assert_eq!(transaction["transactionIndex"], place);
        assert_eq!(transaction["from"], json!(RICH));
        assert_eq!(transaction["blockHash"], blocks[0]["hash"]);
        assert_eq!((&transaction["r"], &transaction["v"]), (&json!("0x0"), &json!("0x0")));
    }
}

#[test]
fn only_logs_that_last_are_told_and_transfers_with_them() {
    let inner = Address::repeat_byte(3);
    // It logs, pays the inner contract, which logs and reverts, and pays the poor one.
    let logs = Code::new().push(0).push(0).ops(&[LOG0]);
    let outer = logs.clone().call(inner, 1).ops(&[POP]).call(POOR, 2).ops(&[POP, STOP]);
    let inner_code = logs.push(0).push(0).ops(&[REVERT]);
    let mut map = Map::with(&[(CONTRACT, outer), (inner, inner_code)]);
    let calls = json!([{ "from": RICH, "to": CONTRACT, "value": "0x9" }]);
    let payload =
        |traced: bool| json!({ "blockStateCalls": [{ "calls": calls }], "traceTransfers": traced });
    let logs = |blocks: &Json| {
        let logs = blocks[0]["calls"][0]["logs"].as_array().unwrap();
        logs.iter().map(|log| (log["address"].clone(), log["data"].clone())).collect::<Vec<_>>()
    };
    let plain = simulate(&mut map, payload(false)).unwrap();
    assert_eq!(logs(&plain), [(json!(CONTRACT), json!("0x"))]);
    let traced = simulate(&mut map, payload(true)).unwrap();
    let transfer =
        |value: u8| (json!(Address::repeat_byte(0xee)), json!(B256::with_last_byte(value)));
    let expected = [transfer(9), (json!(CONTRACT), json!("0x")), transfer(2)];
    assert_eq!(logs(&traced), expected);
    // Neither receipts nor bloom know of them.
    assert_eq!(plain[0]["receiptsRoot"], traced[0]["receiptsRoot"]);
    assert_eq!(plain[0]["hash"], traced[0]["hash"]);
}

#[test]
fn what_is_out_of_order_or_too_much_is_refused_with_its_code() {
    let mut map = Map::with(&[]);
    let blocks = |overrides: &[Json]| {
        let blocks: Vec<_> = overrides.iter().map(|o| json!({ "blockOverrides": o })).collect();
        json!({ "blockStateCalls": blocks })
    };
    assert_eq!(refused(&mut map, blocks(&[])).0, -32_602);
    let numbers = blocks(&[json!({ "number": "0x66" }), json!({ "number": "0x66" })]);
    let message = "block numbers must be in order: 102 <= 102".to_owned();
    assert_eq!(refused(&mut map, numbers), (-38_020, message));
    let past = blocks(&[json!({ "time": "0x1" })]);
    assert_eq!(refused(&mut map, past).0, -38_021);
    for number in ["0x1000", "0xffffffffffffffffffffffffffffffff"] {
        let far = blocks(&[json!({ "number": number })]);
        assert_eq!(refused(&mut map, far), (-38_026, "too many blocks".to_owned()));
    }
    let calls = |call: Json, validation: bool| json!({ "blockStateCalls": [{ "calls": [call] }], "validation": validation });
    let rich = |field: &str, value: &str| json!({ "from": RICH, "to": POOR, "maxFeePerGas": "0x9", "gas": "0x5300", field: value });
    assert_eq!(refused(&mut map, calls(rich("nonce", "0x1"), true)).0, -38_011);
    assert_eq!(refused(&mut map, calls(rich("maxFeePerGas", "0x1"), true)).0, -38_012);
    assert_eq!(refused(&mut map, calls(rich("gas", "0x5207"), false)).0, -38_013);
    assert_eq!(refused(&mut map, calls(rich("value", "0xfffffffff"), false)).0, -38_014);
    assert_eq!(refused(&mut map, calls(rich("gas", "0x1c9c381"), false)).0, -38_015);
}

#[test]
fn all_calls_together_have_fifty_million_gas() {
    let loops = Code::new().ops(&[JUMPDEST]).push(0).ops(&[JUMP]);
    let mut map = Map::with(&[(CONTRACT, loops)]);
    let block = json!({ "calls": [{ "to": CONTRACT }] });
    let payload = json!({ "blockStateCalls": [block, block, block] });
    assert_eq!(refused(&mut map, payload).0, -38_013);
    let blocks = simulate(&mut map, json!({ "blockStateCalls": [block, block] })).unwrap();
    assert_eq!(blocks[1]["gasUsed"], json!(U256::from(20_000_000)));
}
