//! Traces, step by step and call by call.

use alloy_rpc_types_trace::geth::GethDebugTracingOptions;
use parsec_ethereum::{Recorded, Traced};
use serde_json::{Value as Json, json};

use super::*;
use crate::evm::tests::Wallet;

fn trace(map: &mut Map, options: Json) -> Result<String, QueryError> {
    let options: GethDebugTracingOptions = serde_json::from_value(options).unwrap();
    let what = Traced::Call(Box::new(request()));
    let answer = map.task(Task::Trace { what, options })?;
    // Over a wire and back.
    let answer = serde_json::from_slice(&serde_json::to_vec(&answer).unwrap()).unwrap();
    match answer {
        Answer::Traces(traces) => {
            assert_eq!((traces.len(), traces[0].hash), (1, None));
            Ok(traces[0].outcome.as_ref().unwrap().get().to_owned())
        }
        answer => panic!("{answer:?}"),
    }
}

fn json(map: &mut Map, options: Json) -> Json {
    serde_json::from_str(&trace(map, options).unwrap()).unwrap()
}

fn stores() -> Map {
    let code = Code::new().push(5).store(1).push(1).ops(&[SLOAD, POP]).push(0).store(1);
    Map::with(&[(CONTRACT, code.ops(&[STOP]))])
}

#[test]
fn steps_tell_what_each_instruction_finds() {
    let trace = json(&mut stores(), json!({}));
    let logs = trace["structLogs"].as_array().unwrap();
    assert_eq!(trace["failed"], false);
    assert_eq!(trace["returnValue"], "0x");
    assert_eq!(logs.len(), 10);
    let (gas, left) = (30_000_000 - 21_000, 30_000_000 - 21_000 - 6);
    assert_eq!(
        logs[0],
        json!({ "pc": 0, "op": "PUSH1", "gas": gas, "gasCost": 3, "depth": 1, "stack": [] })
    );
    let slot = |number: u8| B256::with_last_byte(number).to_string();
    let storage = json!({ slot(1): slot(5) });
    assert_eq!(
        logs[2],
        json!({
            "pc": 4, "op": "SSTORE", "gas": left, "gasCost": 22_100, "depth": 1,
            "stack": ["0x5", "0x1"], "storage": storage,
        })
    );
    assert_eq!((&logs[4]["storage"], &logs[4]["gasCost"]), (&storage, &json!(100)));
    assert_eq!(logs[8]["storage"], json!({ slot(1): slot(0) }));
    assert_eq!((&logs[8]["refund"], &logs[9]["refund"]), (&Json::Null, &json!(19_900)));
}

#[test]
fn options_choose_what_is_told() {
    let off = json!({ "disableStack": true, "disableStorage": true, "limit": 5 });
    let trace = json(&mut stores(), off);
    let logs = trace["structLogs"].as_array().unwrap();
    assert_eq!(logs.len(), 5);
    assert!(logs.iter().all(|log| log["stack"].is_null() && log["storage"].is_null()));

    let code = Code::new().push(7).push(0).ops(&[MSTORE]).push(32).push(0).push(32).push(0);
    let code = code.push(4).push(99).ops(&[STATICCALL, POP, STOP]);
    let mut map = Map::with(&[(CONTRACT, code)]);
    let trace = json(&mut map, json!({ "enableMemory": true, "enableReturnData": true }));
    let logs = trace["structLogs"].as_array().unwrap();
    let seven = B256::with_last_byte(7).to_string();
    assert_eq!((&logs[2]["memory"], &logs[3]["memory"]), (&json!([]), &json!([seven])));
    assert_eq!(logs[10]["op"], "POP");
    assert_eq!((&logs[9]["returnData"], &logs[10]["returnData"]), (&Json::Null, &json!(seven)));
}

#[test]
fn steps_tell_errors_as_geth_does() {
    let error = |code: Code| {
        let trace = json(&mut Map::with(&[(CONTRACT, code)]), json!({}));
        assert_eq!(trace["failed"], true);
        trace["structLogs"].as_array().unwrap().last().unwrap()["error"].clone()
    };
    assert_eq!(error(Code::new().push(1).ops(&[ADD])), "stack underflow (1 <=> 2)");
    let loops = Code::new().ops(&[JUMPDEST]).push(0).ops(&[JUMP]);
    let mut map = Map::with(&[(CONTRACT, loops)]);
    let what = Traced::Call(Box::new(request().gas_limit(21_012)));
    let options = GethDebugTracingOptions::default();
    let Answer::Traces(traces) = map.task(Task::Trace { what, options }).unwrap() else { panic!() };
    let trace: Json = serde_json::from_str(traces[0].outcome.as_ref().unwrap().get()).unwrap();
    let last = trace["structLogs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["op"], &last["error"]), (&json!("JUMPDEST"), &json!("out of gas")));
    assert_eq!((&last["gas"], &last["gasCost"]), (&json!(0), &json!(1)));
    assert_eq!(error(Code::new().ops(&[0x0c])), Json::Null);
    assert_eq!(error(refuses()), Json::Null);
}

#[test]
fn a_trace_that_gets_too_long_is_refused() {
    // It calls the identity contract with a megabyte, again and again.
    let zeros = Code::new().ops(&[JUMPDEST]).push(0).push(0).push(1_000_000).push(0);
    let calls = zeros.push(4).ops(&[GAS, STATICCALL, POP]).push(0).ops(&[JUMP]);
    let loops = Code::new().ops(&[JUMPDEST]).push(0).ops(&[JUMP]);
    for (code, options) in [
        (loops, json!({})),
        (calls.clone(), json!({ "tracer": "callTracer" })),
        (calls.clone(), json!({ "enableMemory": true })),
        (calls, json!({ "tracer": "muxTracer", "tracerConfig": { "callTracer": {} } })),
    ] {
        let error = trace(&mut Map::with(&[(CONTRACT, code)]), options).unwrap_err();
        let long = |reason: &str| reason.starts_with("the trace is longer than");
        assert!(matches!(&error, QueryError::Unsupported(reason) if long(reason)), "{error:?}");
    }
}

#[test]
fn deep_calls_are_traced_and_travel() {
    // It calls itself until it can't: 1,024 times, for there is gas left, before EIP-150.
    let code = Code::new().push(0).push(0).push(0).push(0).push(0).ops(&[ADDRESS]).push(100);
    let code = code.ops(&[GAS, SUB, CALL, STOP]).build();
    let params = ChainParams { fork: "Homestead".to_owned(), ..ChainParams::new(CHAIN) };
    let account = GenesisAccount { code, ..GenesisAccount::default() };
    let mut map = Map::new(&params, &BTreeMap::from([(CONTRACT, account)]));
    let trace = trace(&mut map, json!({ "tracer": "callTracer" })).unwrap();
    assert_eq!(trace.matches("\"type\":\"CALL\"").count(), 1_026);
}

#[test]
fn every_tracer_answers_or_is_refused_by_name() {
    let mut map = stores();
    assert_eq!(json(&mut map, json!({ "tracer": "noopTracer" })), json!({}));
    assert_eq!(json(&mut map, json!({ "tracer": "4byteTracer" })), json!({}));
    let flat = json(&mut map, json!({ "tracer": "flatCallTracer" }));
    assert_eq!(flat[0]["action"]["to"], json!(CONTRACT));
    let steps = json(&mut map, json!({}));
    assert_eq!(json(&mut map, json!({ "tracer": "" })), steps);
    let config = json!({ "callTracer": { "onlyTopCall": true }, "noopTracer": null });
    let mux = json(&mut map, json!({ "tracer": "muxTracer", "tracerConfig": config }));
    assert_eq!((&mux["callTracer"]["type"], &mux["noopTracer"]), (&json!("CALL"), &json!({})));
    for options in [
        json!({ "tracer": "{ step: function() {} }" }),
        json!({ "tracer": "erc7562Tracer" }),
        json!({ "tracer": "muxTracer", "tracerConfig": { "muxTracer": {} } }),
    ] {
        let error = trace(&mut map, options).unwrap_err();
        assert!(matches!(error, QueryError::Unsupported(_)), "{error:?}");
    }
    for tracer in ["callTracer", "prestateTracer", "muxTracer", "flatCallTracer"] {
        let options = json!({ "tracer": tracer, "tracerConfig": [1] });
        let error = trace(&mut map, options).unwrap_err();
        assert!(matches!(error, QueryError::Invalid(_)), "{tracer}: {error:?}");
    }
}

#[test]
fn a_block_is_traced_transaction_by_transaction() {
    let mut wallet = Wallet::new(1);
    let balance = U256::from(2 * MILLION);
    let account = GenesisAccount { balance, ..GenesisAccount::default() };
    let accounts = BTreeMap::from([(wallet.address, account)]);
    let mut map = Map::new(&ChainParams::new(CHAIN), &accounts);
    let mut raw = |value| Recorded {
        sender: wallet.address,
        raw: wallet.legacy(TxKind::Call(POOR), value, Vec::new()).into(),
    };
    // The second is no good: it costs more than there is.
    let block = vec![raw(1), raw(2_000_000)];
    let task = Task::TraceAll { options: GethDebugTracingOptions::call_tracer(Default::default()) };
    let mut simulation = simulation(task);
    simulation.environment.base_fee = 0;
    simulation.before = block.clone();
    let Answer::Traces(traces) = map.answer(simulation).unwrap() else { panic!() };
    assert_eq!(traces.len(), 2);
    assert_eq!(traces[0].hash, Some(alloy_primitives::keccak256(&block[0].raw)));
    assert!(traces[0].outcome.as_ref().unwrap().get().contains("\"type\":\"CALL\""));
    assert!(traces[1].outcome.as_ref().unwrap_err().starts_with("insufficient funds"));
}
