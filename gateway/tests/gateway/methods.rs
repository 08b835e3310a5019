//! The methods: what they ask for, and the shapes of what they answer.

use std::time::Duration;

use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use parsec_ethereum::query::CallFailure;
use parsec_ethereum::{Answer, CallResult, Query, QueryError, Task, TransactionTrace};
use parsec_gateway::At;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::World;
use crate::fake::{SENDER, creation, event, raw, transfer};

fn result(output: &[u8], failure: Option<CallFailure>) -> Answer {
    Answer::Call(CallResult { output: Bytes::copy_from_slice(output), gas_used: 1, failure })
}

fn last_asked(world: &World) -> (At, Query) {
    world.fake.asked.lock().unwrap().last().cloned().unwrap()
}

/// What was last asked to be executed.
fn last_simulation(world: &World) -> (At, parsec_ethereum::Simulation) {
    match last_asked(world) {
        (at, Query::Simulate(simulation)) => (at, *simulation),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_block_has_the_shape_that_tools_expect() {
    let world = World::new().await;
    let sealed = world.fake.mine(0, &[(transfer(0), vec![]), (creation(2), vec![])]);
    let header = sealed.decode_header().unwrap();
    let hashes = json!([transfer(0).trie_hash(), creation(2).trie_hash()]);
    let mut expected = json!({
        "baseFeePerGas": "0x7", "blobGasUsed": "0x0", "difficulty": "0x0", "excessBlobGas": "0x0",
        "extraData": "0x", "gasLimit": "0x1c9c380", "gasUsed": "0xa4d8",
        "hash": B256::new(sealed.hash), "logsBloom": header.logs_bloom,
        "miner": Address::repeat_byte(0xcc), "mixHash": B256::repeat_byte(0xdd),
        "nonce": "0x0000000000000000", "number": "0x1",
        "parentBeaconBlockRoot": B256::ZERO, "parentHash": header.parent_hash,
        "receiptsRoot": header.receipts_root, "requestsHash": header.requests_hash,
        "sha3Uncles": header.ommers_hash, "size": "0x0", "stateRoot": header.state_root,
        "timestamp": "0x3e9", "transactions": hashes, "transactionsRoot": header.transactions_root,
        "uncles": [], "withdrawals": [], "withdrawalsRoot": header.withdrawals_root,
    });
    let raw_block = world.call("debug_getRawBlock", json!(["0x1"])).await;
    let raw_block: Bytes = serde_json::from_value(raw_block).unwrap();
    expected["size"] = json!(format!("{:#x}", raw_block.len()));
    let by_hash = json!([B256::new(sealed.hash), false]);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x1", false])),
        ("eth_getBlockByNumber", json!(["latest", false])),
        ("eth_getBlockByNumber", json!(["finalized", false])),
        ("eth_getBlockByHash", by_hash),
    ] {
        assert_eq!(world.call(method, params.clone()).await, expected, "{method} {params}");
    }
    let decoded =
        <alloy_consensus::Block<parsec_gateway::Transaction> as alloy_rlp::Decodable>::decode(
            &mut &raw_block[..],
        );
    assert_eq!(decoded.unwrap().header.hash_slow().0, sealed.hash);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x2", false])),
        ("eth_getBlockByHash", json!([B256::ZERO, true])),
        ("eth_getBlockReceipts", json!(["0x2"])),
        ("eth_getTransactionByHash", json!([B256::ZERO])),
        ("eth_getTransactionReceipt", json!([B256::ZERO])),
        ("eth_getRawTransactionByHash", json!([B256::ZERO])),
        ("eth_getBlockTransactionCountByNumber", json!(["0x2"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["0x1", "0x2"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["0x1", "0xffffffffff"])),
        ("eth_getTransactionByBlockHashAndIndex", json!([B256::ZERO, "0x0"])),
        ("eth_getUncleByBlockNumberAndIndex", json!(["0x1", "0x0"])),
        ("eth_getUncleCountByBlockNumber", json!(["0x2"])),
    ] {
        assert_eq!(world.call(method, params.clone()).await, Value::Null, "{method} {params}");
    }
    assert_eq!(world.call("eth_getUncleCountByBlockNumber", json!(["0x1"])).await, "0x0");
    assert_eq!(world.call("eth_getBlockTransactionCountByNumber", json!(["0x1"])).await, "0x2");
}

#[tokio::test]
async fn a_transaction_has_the_shape_that_tools_expect() {
    let world = World::new().await;
    let sealed = world.fake.mine(0, &[(transfer(0), vec![]), (creation(2), vec![])]);
    let dynamic = json!({
        "blockHash": B256::new(sealed.hash), "blockNumber": "0x1", "blockTimestamp": "0x3e9",
        "from": SENDER, "gas": "0x186a0", "gasPrice": "0xa", "maxFeePerGas": "0x64",
        "maxPriorityFeePerGas": "0x3", "hash": transfer(0).trie_hash(), "input": "0x010203",
        "nonce": "0x0", "to": Address::repeat_byte(0xbb), "transactionIndex": "0x0",
        "value": "0x0", "type": "0x2", "accessList": [], "chainId": "0x7a69", "v": "0x1",
        "yParity": "0x1", "r": "0x5", "s": "0x6",
    });
    let legacy = json!({
        "blockHash": B256::new(sealed.hash), "blockNumber": "0x1", "blockTimestamp": "0x3e9",
        "from": SENDER, "gas": "0x30d40", "gasPrice": "0x32", "hash": creation(2).trie_hash(),
        "input": "0x60", "nonce": "0x2", "to": null, "transactionIndex": "0x1", "value": "0x0",
        "type": "0x0", "chainId": "0x7a69", "v": "0xf4f5", "r": "0x5", "s": "0x6",
    });
    let block = world.call("eth_getBlockByNumber", json!(["0x1", true])).await;
    assert_eq!(block["transactions"], json!([dynamic, legacy]));
    for (index, expected) in [("0x0", dynamic), ("0x1", legacy)] {
        let hash = B256::new(sealed.hash);
        for (method, params) in [
            ("eth_getTransactionByHash", json!([expected["hash"]])),
            ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", index])),
            ("eth_getTransactionByBlockHashAndIndex", json!([hash, index])),
        ] {
            assert_eq!(world.call(method, params).await, expected, "{method}");
        }
    }
    let raw_creation = json!(raw(&creation(2)));
    for (method, params) in [
        ("eth_getRawTransactionByHash", json!([creation(2).trie_hash()])),
        ("debug_getRawTransaction", json!([creation(2).trie_hash()])),
        ("eth_getRawTransactionByBlockNumberAndIndex", json!(["0x1", "0x1"])),
    ] {
        assert_eq!(world.call(method, params).await, raw_creation, "{method}");
    }
}

#[tokio::test]
async fn a_receipt_has_the_shape_that_tools_expect() {
    let world = World::new().await;
    let logged = (transfer(0), vec![event(1, &[5]), event(2, &[])]);
    let sealed =
        world.fake.mine(0, &[logged, (transfer(1), vec![]), (creation(2), vec![event(3, &[])])]);
    let head = B256::new(sealed.hash);
    let receipt = |hash: B256| world.call("eth_getTransactionReceipt", json!([hash]));
    let mut first = receipt(transfer(0).trie_hash()).await;
    let bloom = first["logsBloom"].take();
    let log = |index: &str, source: u8, topics: Value| {
        json!({
            "address": Address::repeat_byte(source), "topics": topics, "data": "0x09",
            "blockNumber": "0x1", "blockHash": head, "blockTimestamp": "0x3e9",
            "transactionHash": transfer(0).trie_hash(), "transactionIndex": "0x0",
            "logIndex": index, "removed": false,
        })
    };
    assert_eq!(
        first,
        json!({
            "blockHash": head, "blockNumber": "0x1", "contractAddress": null,
            "cumulativeGasUsed": "0x5208", "effectiveGasPrice": "0xa", "from": SENDER,
            "gasUsed": "0x5208", "status": "0x1", "to": Address::repeat_byte(0xbb),
            "transactionHash": transfer(0).trie_hash(), "transactionIndex": "0x0", "type": "0x2",
            "logsBloom": null,
            "logs": [log("0x0", 1, json!([B256::repeat_byte(5)])), log("0x1", 2, json!([]))],
        })
    );
    let second = receipt(transfer(1).trie_hash()).await;
    assert_eq!(second["status"], "0x0");
    let third = receipt(creation(2).trie_hash()).await;
    assert_eq!(third["contractAddress"], json!(SENDER.create(2)));
    assert_eq!(third["cumulativeGasUsed"], format!("{:#x}", 3 * 21_000 + 300));
    assert_eq!(third["gasUsed"], format!("{:#x}", 21_200));
    assert_eq!(third["effectiveGasPrice"], "0x32");
    assert_eq!(third["logs"][0]["logIndex"], "0x2");

    first["logsBloom"] = bloom.clone();
    let all = world.call("eth_getBlockReceipts", json!(["0x1"])).await;
    assert_eq!(all, json!([first, second, third]));
    assert_eq!(world.call("eth_getBlockReceipts", json!([{ "blockHash": head }])).await, all);
    assert_eq!(world.call("eth_getBlockReceipts", json!(["0x0"])).await, json!([]));

    // The root of the raw receipts is that of the block, so all of them are as they are hashed.
    let raw: Vec<Bytes> =
        serde_json::from_value(world.call("debug_getRawReceipts", json!(["0x1"])).await).unwrap();
    let root = alloy_consensus::proofs::ordered_trie_root_encoded(&raw);
    assert_eq!(root, sealed.decode_header().unwrap().receipts_root);
    let union: alloy_primitives::Bloom =
        serde_json::from_value(third["logsBloom"].clone()).unwrap();
    let first: alloy_primitives::Bloom = serde_json::from_value(bloom).unwrap();
    assert_eq!(union | first, sealed.decode_header().unwrap().logs_bloom);
}

#[tokio::test]
async fn the_pending_block_holds_the_pool() {
    let world = World::new().await;
    world.fake.mine(0, &[]);
    for nonce in [0, 2, 100] {
        world.call("eth_sendRawTransaction", json!([raw(&transfer(nonce))])).await;
    }
    let block = world.call("eth_getBlockByNumber", json!(["pending", true])).await;
    assert_eq!((&block["number"], &block["hash"]), (&json!("0x2"), &Value::Null));
    assert_eq!((&block["nonce"], &block["miner"]), (&Value::Null, &Value::Null));
    assert_eq!(block["parentHash"], json!(world.fake.chain.head().hash));
    let pending = world.call("eth_getTransactionByHash", json!([transfer(2).trie_hash()])).await;
    assert_eq!(block["transactions"][1], pending);
    assert_eq!(block["transactions"].as_array().unwrap().len(), 2);
    assert_eq!((&pending["blockHash"], &pending["gasPrice"]), (&Value::Null, &json!("0x64")));
    assert_eq!(world.call("eth_getBlockTransactionCountByNumber", json!(["pending"])).await, "0x2");
    let first = json!(["pending", "0x0"]);
    let first = world.call("eth_getTransactionByBlockNumberAndIndex", first).await;
    assert_eq!(first["hash"], json!(transfer(0).trie_hash()));
    assert_eq!(
        world.call("eth_getTransactionReceipt", json!([pending["hash"]])).await,
        Value::Null
    );

    let status = world.call("txpool_status", json!([])).await;
    assert_eq!(status, json!({ "pending": "0x2", "queued": "0x1" }));
    let content = world.call("txpool_content", json!([])).await;
    let sender = SENDER.to_checksum(None);
    assert_eq!(content["pending"][&sender]["2"], pending);
    assert_eq!(content["queued"][&sender]["100"]["nonce"], "0x64");
    let of_sender = world.call("txpool_contentFrom", json!([SENDER])).await;
    assert_eq!(of_sender["pending"], content["pending"][&sender]);
    let nobody = world.call("txpool_contentFrom", json!([Address::ZERO])).await;
    assert_eq!(nobody, json!({ "pending": {}, "queued": {} }));
    let inspected = world.call("txpool_inspect", json!([])).await;
    let to = Address::repeat_byte(0xbb).to_checksum(None);
    let line = format!("{to}: 2 wei + 100000 gas × 100 wei");
    assert_eq!(inspected["pending"][&sender]["2"], line);
    assert_eq!(world.call("eth_pendingTransactions", json!([])).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn state_is_read_where_it_is_meant() {
    let world = World::new().await;
    let one = world.fake.mine(0, &[]);
    world.fake.mine(0, &[]);
    let hash = B256::new(one.hash);
    for (block, at) in [
        (json!("latest"), At::Block(2)),
        (json!(null), At::Block(2)),
        (json!("safe"), At::Block(2)),
        (json!("earliest"), At::Block(0)),
        (json!("0x1"), At::Block(1)),
        (json!(hash), At::Block(1)),
        (json!({ "blockHash": hash }), At::Block(1)),
        (json!({ "blockNumber": "0x1" }), At::Block(1)),
        (json!("pending"), At::Pending),
    ] {
        let balance = world.call("eth_getBalance", json!([SENDER, block])).await;
        assert_eq!(balance, "0x3e8");
        assert_eq!(last_asked(&world).0, at, "{block}");
    }
    assert_eq!(world.call("eth_getBalance", json!([SENDER])).await, "0x3e8");
    for block in [json!("0x3"), json!(B256::ZERO), json!({ "blockHash": B256::ZERO })] {
        let refusal = world.refusal("eth_getBalance", json!([SENDER, block])).await;
        assert_eq!(refusal, (-32000, "header not found".into()), "{block}");
    }
    assert_eq!(world.call("eth_getTransactionCount", json!([SENDER, "latest"])).await, "0x7");
    assert_eq!(world.call("eth_getTransactionCount", json!([SENDER, "pending"])).await, "0x9");
    assert_eq!(world.call("eth_getCode", json!([SENDER, "latest"])).await, "0xef");
    let info = world.call("eth_getAccountInfo", json!([SENDER, "latest"])).await;
    assert_eq!(info, json!({ "balance": "0x3e8", "nonce": "0x7", "code": "0xef" }));
    for slot in ["0x5", "0x05", "5", &format!("0x{:064x}", 5)] {
        let word = world.call("eth_getStorageAt", json!([SENDER, slot, "latest"])).await;
        assert_eq!(word, json!(B256::with_last_byte(5)), "{slot}");
    }
    let (code, message) =
        world.refusal("eth_getStorageAt", json!([SENDER, "0xasdf", "latest"])).await;
    assert_eq!((code, &*message), (-32602, "invalid hex in storage key: \"0xasdf\""));
    let values = json!([{ SENDER.to_string(): ["0x1", "0x2"] }, "latest"]);
    let values = world.call("eth_getStorageValues", values).await;
    let words = [B256::with_last_byte(1), B256::with_last_byte(2)];
    assert_eq!(values[format!("{SENDER:#x}")], json!(words));
    assert_eq!(world.refusal("eth_getProof", json!([SENDER, [], "latest"])).await.0, -32601);

    *world.fake.oldest.lock().unwrap() = 2;
    let (code, message) = world.refusal("eth_getBalance", json!([SENDER, "0x1"])).await;
    assert_eq!(code, -32000);
    assert_eq!(message, "the state after block 1 is not kept any more; the oldest is that of 2");
}

#[tokio::test]
async fn calls_are_asked_with_all_that_was_said_of_them() {
    let world = World::new().await;
    world.fake.mine(0, &[]);
    world.fake.mine(0, &[]);
    world.fake.answer(Ok(result(&[1, 2], None)));
    let call = json!([
        { "to": SENDER, "data": "0x0102", "value": "0x5", "hardfork": "x", "networkId": 1 },
        "0x1",
        { SENDER.to_string(): { "balance": "0x64" } },
        { "number": "0x63", "time": "0x6f", "baseFeePerGas": "0x8", "coinbase": SENDER },
    ]);
    assert_eq!(world.call("eth_call", call).await, "0x0102");
    let (at, simulation) = last_simulation(&world);
    assert_eq!(at, At::Block(1));
    let environment = simulation.environment;
    assert_eq!((environment.number, environment.timestamp), (0x63, 0x6f));
    assert_eq!((environment.base_fee, environment.coinbase), (8, SENDER));
    assert_eq!(simulation.overrides[&SENDER].balance, Some(U256::from(100)));
    let Task::Call(request) = simulation.task else { panic!() };
    assert_eq!(request.value, Some(U256::from(5)));
    assert_eq!(request.input.input().unwrap()[..], [1, 2]);

    world.fake.answer(Ok(result(&[], None)));
    world.call("eth_call", json!([{ "to": SENDER }, "latest"])).await;
    assert_eq!(last_simulation(&world).1.environment.number, 2);
    // What is estimated will be in the next block.
    world.fake.answer(Ok(Answer::Gas(21_000)));
    assert_eq!(world.call("eth_estimateGas", json!([{ "to": SENDER }])).await, "0x5208");
    let (at, simulation) = last_simulation(&world);
    assert_eq!((at, simulation.environment.number), (At::Block(2), 3));
    world.fake.answer(Ok(Answer::Gas(21_000)));
    world.call("eth_estimateGas", json!([{ "to": SENDER }, "0x1"])).await;
    assert_eq!(last_simulation(&world).1.environment.number, 1);
}

#[tokio::test]
async fn calls_that_fail_say_why() {
    let world = World::new().await;
    let call = json!([{ "to": SENDER }]);
    let text = "08c379a0000000000000000000000000000000000000000000000000000000000000002000000000\
                0000000000000000000000000000000000000000000000000000000a75736572206572726f7200\
                000000000000000000000000000000000000000000";
    let data = alloy_primitives::hex::decode(text).unwrap();
    let expected = json!({
        "code": 3, "message": "execution reverted: user error", "data": format!("0x{text}"),
    });
    world.fake.answer(Ok(result(&data, Some(CallFailure::Reverted))));
    assert_eq!(world.error("eth_call", call.clone()).await, expected);
    world.fake.answer(Err(QueryError::Reverted(data.into())));
    assert_eq!(world.error("eth_estimateGas", call.clone()).await, expected);
    world.fake.answer(Ok(result(&[], Some(CallFailure::Reverted))));
    let bare = json!({ "code": 3, "message": "execution reverted", "data": "0x" });
    assert_eq!(world.error("eth_call", call.clone()).await, bare);
    world.fake.answer(Ok(result(&[], Some(CallFailure::Halted("out of gas".into())))));
    let halted = json!({ "code": -32000, "message": "out of gas", "data": "0x" });
    assert_eq!(world.error("eth_call", call.clone()).await, halted);
    world.fake.answer(Err(QueryError::Refused { code: -38_014, message: "poor".into() }));
    let poor = json!({ "code": -38014, "message": "poor" });
    assert_eq!(world.error("eth_simulateV1", json!([{ "blockStateCalls": [] }])).await, poor);
    for (request, message) in [
        (json!({ "data": "0x01", "input": "0x02" }), "both \"data\" and \"input\" are set"),
        (json!({ "gasPrice": "0x1", "maxFeePerGas": "0x2" }), "both gasPrice and"),
        (json!({ "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x2" }), "maxFeePerGas (0x1) <"),
        (json!({ "chainId": "0x1" }), "chainId does not match node's (have=1, want=31337)"),
    ] {
        let (code, found) = world.refusal("eth_call", json!([request])).await;
        assert_eq!(code, -32000);
        assert!(found.starts_with(message), "{found}");
    }
}

#[tokio::test]
async fn traces_execute_what_came_before() {
    let world = World::new().await;
    world.fake.mine(0, &[]);
    let sealed = world.fake.mine(0, &[(transfer(0), vec![]), (transfer(2), vec![])]);
    let trace = |text: &str| TransactionTrace {
        hash: None,
        outcome: Ok(RawValue::from_string(text.into()).unwrap()),
    };
    world.fake.answer(Ok(Answer::Traces(vec![trace("{\"gas\":1}")])));
    let options = json!({ "tracer": "callTracer", "timeout": "5s" });
    let params = json!([transfer(2).trie_hash(), options]);
    assert_eq!(world.call("debug_traceTransaction", params).await, json!({ "gas": 1 }));
    let (at, simulation) = last_simulation(&world);
    assert_eq!((at, simulation.environment.number), (At::Block(1), 2));
    assert_eq!(simulation.before.len(), 1);
    assert_eq!(simulation.before[0].raw[..], transfer(0).encoded_2718());
    assert_eq!(simulation.before[0].sender, SENDER);

    for (method, block) in [
        ("debug_traceBlockByNumber", json!("0x2")),
        ("debug_traceBlockByHash", json!(B256::new(sealed.hash))),
    ] {
        let failed = TransactionTrace { hash: None, outcome: Err("too long".into()) };
        world.fake.answer(Ok(Answer::Traces(vec![trace("7"), failed])));
        assert_eq!(
            world.call(method, json!([block, {}])).await,
            json!([
                { "txHash": transfer(0).trie_hash(), "result": 7 },
                { "txHash": transfer(2).trie_hash(), "error": "too long" },
            ])
        );
        assert_eq!(last_simulation(&world).1.before.len(), 2);
    }
    world.fake.answer(Ok(Answer::Traces(vec![trace("8")])));
    let options =
        json!({ "blockOverrides": { "number": "0x9" }, "stateOverrides": {}, "txIndex": "0x1" });
    assert_eq!(world.call("debug_traceCall", json!([{ "to": SENDER }, "0x2", options])).await, 8);
    let (at, simulation) = last_simulation(&world);
    assert_eq!((at, simulation.environment.number, simulation.before.len()), (At::Block(1), 9, 1));

    for (method, params, message) in [
        ("debug_traceBlockByNumber", json!(["0x0"]), "genesis is not traceable"),
        ("debug_traceBlockByNumber", json!(["0x9"]), "block #9 not found"),
        ("debug_traceTransaction", json!([B256::ZERO]), "transaction not found"),
    ] {
        assert_eq!(world.refusal(method, params).await, (-32000, message.into()));
    }
    let unknown = B256::with_last_byte(1);
    let (_, message) = world.refusal("debug_traceBlockByHash", json!([unknown])).await;
    assert_eq!(message, format!("block {unknown} not found"));
}

#[tokio::test]
async fn fees_are_those_of_the_blocks() {
    let world = World::new().await;
    // Tips of 3 (of 21,000 gas) and of 50 - 7 (of 21,200 gas).
    world.fake.mine(0, &[(transfer(0), vec![]), (creation(2), vec![])]);
    let history = world.call("eth_feeHistory", json!(["0x5", "latest", [0, 49, 50.5, 100]])).await;
    let ratio: Value = serde_json::from_str("0.00140666666666666").unwrap();
    assert_eq!(
        history,
        json!({
            "oldestBlock": "0x0",
            "reward": [["0x0", "0x0", "0x0", "0x0"], ["0x3", "0x3", "0x2b", "0x2b"]],
            "baseFeePerGas": ["0x7", "0x7", "0x7"],
            "gasUsedRatio": [0, ratio],
            "baseFeePerBlobGas": ["0x1", "0x1", "0x1"],
            "blobGasUsedRatio": [0, 0],
        })
    );
    let one = world.call("eth_feeHistory", json!([1, "0x0"])).await;
    assert_eq!((&one["oldestBlock"], one.get("reward")), (&json!("0x0"), None));
    let (code, message) = world.refusal("eth_feeHistory", json!([1, "0x2", []])).await;
    assert_eq!((code, &*message), (-32000, "request beyond head block: requested 2, head 1"));
    assert_eq!(world.refusal("eth_feeHistory", json!([1, "latest", [50, 49]])).await.0, -32000);
    // 60 % of the gas is reached in the second transaction.
    assert_eq!(world.call("eth_maxPriorityFeePerGas", json!([])).await, "0x2b");
    assert_eq!(world.call("eth_gasPrice", json!([])).await, "0x32");
    assert_eq!(world.call("eth_blobBaseFee", json!([])).await, "0x1");
    assert_eq!(world.call("eth_baseFee", json!([])).await, "0x7");
}

#[tokio::test]
async fn sending_waits_for_the_receipt_if_it_is_asked_to() {
    let world = World::new().await;
    let hash = transfer(0).trie_hash();
    let params = json!([raw(&transfer(0)), 100]);
    let late = world.error("eth_sendRawTransactionSync", params).await;
    assert_eq!((&late["code"], &late["data"]), (&json!(4), &json!(hash)));
    assert_eq!(late["message"].as_str().unwrap().split(' ').next(), Some("the"));
    let known = world.refusal("eth_sendRawTransactionSync", json!([raw(&transfer(0))])).await;
    assert_eq!(known, (-32000, "already known".into()));

    let fake = std::sync::Arc::clone(&world.fake);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.mine(0, &[]);
        fake.mine(0, &[(transfer(2), vec![])]);
    });
    let receipt =
        world.call("eth_sendRawTransactionSync", json!([raw(&transfer(2)), "0x4e20"])).await;
    assert_eq!((&receipt["blockNumber"], &receipt["status"]), (&json!("0x2"), &json!("0x1")));
    assert_eq!(world.refusal("eth_sendRawTransaction", json!(["0x"])).await.0, -32000);
}

/// viem looks for a receipt when it has the hash, and again for each block, but misses a block that
/// comes while it looks; where nobody else sends, it waited for the next one for ever.
#[tokio::test]
async fn a_receipt_that_is_about_to_be_there_is_waited_for() {
    let world = World::new().await;
    let hash = json!([transfer(0).trie_hash()]);
    world.call("eth_sendRawTransaction", json!([raw(&transfer(0))])).await;
    assert_eq!(world.call("eth_getTransactionReceipt", hash.clone()).await, Value::Null);
    *world.fake.block_wait.lock().unwrap() = Duration::from_secs(20);
    let fake = std::sync::Arc::clone(&world.fake);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fake.mine(0, &[]);
        fake.mine(0, &[(transfer(0), vec![])]);
    });
    let receipt = world.call("eth_getTransactionReceipt", hash).await;
    assert_eq!(receipt["blockNumber"], "0x2");
    // One that nobody sent is not waited for.
    let unknown = world.call("eth_getTransactionReceipt", json!([transfer(4).trie_hash()]));
    let unknown = tokio::time::timeout(Duration::from_secs(10), unknown).await;
    assert_eq!(unknown.expect("an answer at once"), Value::Null);
}

#[tokio::test]
async fn a_node_says_what_it_is() {
    let world = World::new().await;
    let head = world.fake.chain.head().hash;
    for (method, params, expected) in [
        ("eth_chainId", json!([]), json!("0x7a69")),
        ("net_version", json!([]), json!("31337")),
        ("net_listening", json!([]), json!(true)),
        ("net_peerCount", json!([]), json!("0x0")),
        ("eth_syncing", json!([]), json!(false)),
        ("eth_accounts", json!([]), json!([])),
        ("eth_blockNumber", json!([]), json!("0x0")),
        ("eth_coinbase", json!([]), json!(Address::repeat_byte(0xcc))),
        ("web3_sha3", json!(["0x68656c6c6f"]), json!(keccak256("hello"))),
        ("ots_getApiLevel", json!([]), json!(8)),
        ("extra_double", json!(["0x15"]), json!(42)),
    ] {
        assert_eq!(world.call(method, params).await, expected, "{method}");
    }
    let version = world.call("web3_clientVersion", json!([])).await;
    assert!(version.as_str().unwrap().starts_with("Parsec/v"), "{version}");
    let modules = world.call("rpc_modules", json!([])).await;
    for name in ["eth", "net", "web3", "txpool", "debug", "ots", "rpc", "extra"] {
        assert_eq!(modules[name], "1.0", "{modules}");
    }
    let capabilities = world.call("eth_capabilities", json!([])).await;
    assert_eq!(capabilities["head"], json!({ "number": "0x0", "hash": head }));
}

#[tokio::test]
async fn an_explorer_finds_its_way() {
    let world = World::new().await;
    world.fake.mine(0, &[(transfer(0), vec![]), (creation(2), vec![])]);
    world.fake.mine(0, &[(transfer(4), vec![])]);
    world.fake.mine(0, &[(transfer(6), vec![event(9, &[])]), (transfer(8), vec![])]);
    let details = world.call("ots_getBlockDetails", json!([1])).await;
    assert_eq!(details["block"]["transactionCount"], 2);
    assert_eq!(details["totalFees"], format!("{:#x}", 10 * 21_000 + 50 * 21_200));
    let page = world.call("ots_getBlockTransactions", json!([1, 0, 1])).await;
    assert_eq!(page["fullblock"]["transactions"][0]["nonce"], "0x2");
    assert_eq!(page["receipts"][0]["logs"], Value::Null);

    let nonces = |page: &Value| -> Vec<String> {
        let txs = page["txs"].as_array().unwrap().iter();
        txs.map(|tx| tx["nonce"].as_str().unwrap().to_owned()).collect()
    };
    let before = |block: u64, size: u64| {
        world.call("ots_searchTransactionsBefore", json!([SENDER, block, size]))
    };
    let page = before(0, 1).await;
    assert_eq!(nonces(&page), ["0x8", "0x6"]);
    assert_eq!((&page["firstPage"], &page["lastPage"]), (&json!(true), &json!(false)));
    let page = before(2, 5).await;
    assert_eq!(nonces(&page), ["0x2", "0x0"]);
    assert_eq!((&page["firstPage"], &page["lastPage"]), (&json!(false), &json!(true)));
    let after = world.call("ots_searchTransactionsAfter", json!([SENDER, 0, 1])).await;
    assert_eq!(nonces(&after), ["0x2", "0x0"]);
    assert_eq!((&after["firstPage"], &after["lastPage"]), (&json!(false), &json!(true)));
    let of_log = json!([Address::repeat_byte(9), 0, 5]);
    let of_log = world.call("ots_searchTransactionsBefore", of_log).await;
    assert_eq!(nonces(&of_log), ["0x6"]);

    for nonce in [0, 2, 4, 6, 8] {
        let tx = if nonce == 2 { creation(2) } else { transfer(nonce) };
        let found = world.call("ots_getTransactionBySenderAndNonce", json!([SENDER, nonce])).await;
        assert_eq!(found, json!(tx.trie_hash()), "{nonce}");
    }
    for nonce in [1, 3, 9] {
        let found = world.call("ots_getTransactionBySenderAndNonce", json!([SENDER, nonce])).await;
        assert_eq!(found, Value::Null, "{nonce}");
    }
    let creator = world.call("ots_getContractCreator", json!([SENDER.create(2)])).await;
    assert_eq!(creator, json!({ "hash": creation(2).trie_hash(), "creator": SENDER }));
    assert_eq!(world.call("ots_getContractCreator", json!([Address::ZERO])).await, Value::Null);
    assert_eq!(world.refusal("ots_getContractCreator", json!([SENDER])).await.0, -32000);
    assert_eq!(world.call("ots_hasCode", json!([SENDER, "latest"])).await, true);
    assert_eq!(world.call("ots_getTransactionError", json!([transfer(0).trie_hash()])).await, "0x");
}
