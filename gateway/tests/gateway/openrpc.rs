//! Answers against the OpenRPC document of the execution APIs.

use std::path::Path;

use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes};
use alloy_rpc_types_eth::AccessListResult;
use parsec_ethereum::{Answer, CallResult};
use regex::Regex;
use serde_json::{Value, json};

use crate::client::World;
use crate::fake::{SENDER, creation, event, raw, transfer};

/// Whether a value is what a schema describes; only the keywords that the document uses.
fn check(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{path}: {what}: {value}"));
    let list = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
    let fits = |schema: &&Value| check(schema, value, path).is_ok();
    if schema.get("anyOf").is_some() && !list("anyOf").iter().any(|schema| fits(&schema)) {
        return wrong("fits none");
    }
    if schema.get("oneOf").is_some() {
        let all = list("oneOf");
        match all.iter().filter(fits).count() {
            1 => {}
            0 => {
                let why: Vec<_> = all.iter().filter_map(|s| check(s, value, path).err()).collect();
                return Err(format!("none of:\n  {}", why.join("\n  ")));
            }
            _ => return wrong("fits several"),
        }
    }
    for schema in list("allOf") {
        check(&schema, value, path)?;
    }
    if let Some(kind) = schema["type"].as_str() {
        let is = match kind {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.is_number(),
            "integer" => value.is_i64() || value.is_u64(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("a type {other}"),
        };
        if !is {
            return wrong(&format!("is no {kind}"));
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        return wrong(&format!("does not match {pattern}"));
    }
    if schema.get("const").is_some_and(|expected| expected != value)
        || schema.get("enum").is_some() && !list("enum").contains(value)
    {
        return wrong("is another constant");
    }
    check_content(schema, value, path)
}

fn check_content(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            check(items, value, &format!("{path}[{index}]"))?;
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{path}: there is no {name}"));
        }
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) => check(schema, value, &path)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{path}: is too much")),
            (None, Some(schema)) if schema.is_object() => check(schema, value, &path)?,
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn the_checker_tells_right_from_wrong() {
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {
            "a": { "oneOf": [{ "type": "null" }, { "type": "string", "pattern": "^0x[0-9]+$" }] },
            "b": { "type": "array", "items": { "type": "integer" } },
        },
    });
    for right in [json!({ "a": null }), json!({ "a": "0x1", "b": [1, 2] })] {
        assert_eq!(check(&schema, &right, ""), Ok(()));
    }
    for wrong in [
        json!([]),
        json!({}),
        json!({ "a": "x" }),
        json!({ "a": null, "c": 1 }),
        json!({ "a": null, "b": ["1"] }),
    ] {
        assert!(check(&schema, &wrong, "").is_err(), "{wrong}");
    }
}

/// Calls whose answers hold something of each kind. A transaction of the pool is not among them:
/// the document has it in a block, but all nodes say `"blockHash": null`, and clients rely on it.
fn calls(head: B256) -> Vec<(&'static str, Value)> {
    let (dynamic, legacy) = (transfer(0).trie_hash(), creation(2).trie_hash());
    let pooled = transfer(4).trie_hash();
    vec![
        ("debug_getBadBlocks", json!([])),
        ("debug_getRawBlock", json!(["0x1"])),
        ("debug_getRawHeader", json!(["0x1"])),
        ("debug_getRawReceipts", json!(["0x1"])),
        ("debug_getRawTransaction", json!([dynamic])),
        ("eth_accounts", json!([])),
        ("eth_baseFee", json!([])),
        ("eth_blobBaseFee", json!([])),
        ("eth_blockNumber", json!([])),
        ("eth_capabilities", json!([])),
        ("eth_chainId", json!([])),
        ("eth_coinbase", json!([])),
        ("eth_feeHistory", json!(["0x5", "latest", [0, 50]])),
        ("eth_gasPrice", json!([])),
        ("eth_getBalance", json!([SENDER, "latest"])),
        ("eth_getBlockByHash", json!([head, true])),
        ("eth_getBlockByNumber", json!(["latest", false])),
        ("eth_getBlockByNumber", json!(["earliest", true])),
        ("eth_getBlockByNumber", json!(["0x99", true])),
        ("eth_getBlockReceipts", json!(["latest"])),
        ("eth_getBlockTransactionCountByHash", json!([head])),
        ("eth_getBlockTransactionCountByNumber", json!(["latest"])),
        ("eth_getCode", json!([SENDER, "latest"])),
        ("eth_getLogs", json!([{ "fromBlock": "0x0" }])),
        ("eth_getStorageAt", json!([SENDER, "0x1", "latest"])),
        ("eth_getStorageValues", json!([{ SENDER.to_string(): ["0x1"] }, "latest"])),
        ("eth_getTransactionByBlockHashAndIndex", json!([head, "0x0"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x1"])),
        ("eth_getTransactionByHash", json!([dynamic])),
        ("eth_getTransactionByHash", json!([legacy])),
        ("eth_getTransactionCount", json!([SENDER, "latest"])),
        ("eth_getTransactionReceipt", json!([dynamic])),
        ("eth_getTransactionReceipt", json!([legacy])),
        ("eth_getTransactionReceipt", json!([pooled])),
        ("eth_maxPriorityFeePerGas", json!([])),
        ("eth_newBlockFilter", json!([])),
        ("eth_newFilter", json!([{}])),
        ("eth_newPendingTransactionFilter", json!([])),
        ("eth_syncing", json!([])),
        ("net_version", json!([])),
        ("txpool_content", json!([])),
        ("txpool_contentFrom", json!([SENDER])),
        ("txpool_status", json!([])),
    ]
}

#[tokio::test]
async fn answers_are_what_the_document_describes() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/execution-apis/openrpc.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return;
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    let methods = document["methods"].as_array().unwrap();
    let schema = |name: &str| {
        let found = methods.iter().find(|method| method["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in the document"))["result"]["schema"].clone()
    };
    let world = World::new().await;
    let logged = vec![event(1, &[1, 2, 3]), event(2, &[])];
    let sealed = world.fake.mine(0, &[(transfer(0), logged), (creation(2), vec![])]);
    for nonce in [4, 100] {
        world.call("eth_sendRawTransaction", json!([raw(&transfer(nonce))])).await;
    }
    let mut failures = Vec::new();
    let mut verify = |method: &str, answer: &Value| {
        failures.extend(check(&schema(method), answer, method).err());
    };
    for (method, params) in calls(B256::new(sealed.hash)) {
        verify(method, &world.call(method, params).await);
    }
    let sent = world.call("eth_sendRawTransaction", json!([raw(&transfer(6))])).await;
    verify("eth_sendRawTransaction", &sent);
    let mut nonce = 200;
    for (filter, params) in [
        ("eth_newFilter", json!([{}])),
        ("eth_newBlockFilter", json!([])),
        ("eth_newPendingTransactionFilter", json!([])),
    ] {
        let id = world.call(filter, params).await;
        nonce += 2;
        world.call("eth_sendRawTransaction", json!([raw(&transfer(nonce))])).await;
        world.fake.mine(0, &[(transfer(8), vec![event(1, &[])])]);
        verify("eth_getFilterChanges", &world.call("eth_getFilterChanges", json!([id])).await);
        if filter == "eth_newFilter" {
            verify("eth_getFilterLogs", &world.call("eth_getFilterLogs", json!([id])).await);
        }
        verify("eth_uninstallFilter", &world.call("eth_uninstallFilter", json!([id])).await);
        world.fake.chain.rewind(1).unwrap();
    }
    for (method, answer) in [
        ("eth_call", Answer::Call(CallResult { output: Bytes::new(), gas_used: 0, failure: None })),
        ("eth_estimateGas", Answer::Gas(21_000)),
        ("eth_createAccessList", Answer::AccessList(AccessListResult::default())),
    ] {
        world.fake.answer(Ok(answer));
        let call = json!([{ "to": Address::ZERO }, "latest"]);
        verify(method, &world.call(method, call).await);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
