//! Answers against the OpenRPC document of the execution APIs.

use std::path::Path;

use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes};
use alloy_rpc_types_eth::AccessListResult;
use parsec_ethereum::{Answer, CallResult};
use serde_json::{Value, json};

use crate::client::World;
use crate::fake::{SENDER, creation, event, raw, transfer};
use crate::schema::check;

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
