//! Hostile JSON: every request has an answer that says what is wrong with it.

use serde_json::{Value, json};

use crate::client::World;
use crate::fake::{raw, transfer};

async fn code(world: &World, body: impl AsRef<[u8]>) -> i64 {
    let answer = world.post(&body).await;
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn hostile_requests_get_the_codes_of_the_specification() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
    for broken in
        ["", "{", "nonsense", "[1,", "{\"jsonrpc\":\"2.0\"", "\u{feff}{}", &"[".repeat(300_000)]
    {
        assert_eq!(code(&world, broken).await, -32700, "{:.30}", broken);
    }
    assert_eq!(code(&world, b"\xff\xfe").await, -32700);
    for invalid in [
        "1",
        "null",
        "\"x\"",
        "{}",
        "[]",
        r#"{"id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}"#,
    ] {
        assert_eq!(code(&world, invalid).await, -32600, "{invalid}");
    }
    let call = |method: &str, params: &str| {
        let method = json!(method);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method},"params":{params}}}"#)
    };
    for unknown in ["eth_nothing", "", "ETH_CHAINID", "eth_subscribe", "eth_getProofs", "\u{0}"] {
        assert_eq!(code(&world, call(unknown, "[]")).await, -32601, "{unknown}");
    }
    for (method, params) in [
        ("eth_chainId", "{}"),
        ("eth_chainId", "[1]"),
        ("eth_chainId", "\"x\""),
        ("eth_getBalance", "[]"),
        ("eth_getBalance", "[null]"),
        ("eth_getBalance", "[1]"),
        ("eth_getBalance", "[\"0x1\"]"),
        ("eth_getBalance", "[[\"0x1\"]]"),
        ("eth_getBlockByNumber", "[\"0x01\", true]"),
        ("eth_getBlockByNumber", "[\"-0x1\", true]"),
        ("eth_getBlockByNumber", "[\"1\", true]"),
        ("eth_getBlockByNumber", "[1.5, true]"),
        ("eth_getBlockByNumber", "[-1, true]"),
        ("eth_getBlockByNumber", "[\"0x1\", \"true\"]"),
        ("eth_getBlockByNumber", "[\"0x1\"]"),
        ("eth_getBlockByNumber", "[\"0xfffffffffffffffff\", true]"),
        ("eth_getBlockByNumber", "[1e999999, true]"),
        ("eth_call", "[\"x\"]"),
        ("eth_call", "[{\"gas\":\"0x0x1\"}]"),
        ("eth_call", "[{\"gas\":-1}]"),
        ("eth_call", "[{\"gas\":1.5}]"),
        ("eth_call", "[{\"value\":\"-0x1\"}]"),
        ("eth_call", "[{\"value\":\"0x01\"}]"),
        ("eth_call", "[{\"to\":\"0x12\"}]"),
        ("eth_call", "[{\"input\":\"0xabc\"}]"),
        ("eth_call", "[{},{},{},{},{}]"),
        ("eth_call", &deep),
        ("eth_sendRawTransaction", "[\"0xzz\"]"),
        ("eth_sendRawTransaction", "[\"ff\"]"),
        ("eth_getLogs", "[]"),
        ("eth_getLogs", "[{\"fromBlock\":\"x\"}]"),
        ("eth_feeHistory", "[-1,\"latest\"]"),
        ("eth_feeHistory", "[1,\"latest\",[{}]]"),
        ("web3_sha3", "[\"68656c6c6f\"]"),
        ("eth_getStorageAt", "[\"0xaa00000000000000000000000000000000000000\",\"0xasdf\"]"),
    ] {
        assert_eq!(code(&world, call(method, params)).await, -32602, "{method} {:.60}", params);
    }
}

#[tokio::test]
async fn requests_that_geth_takes_are_taken() {
    let world = World::new().await;
    for (body, id) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#, json!(1)),
        (r#"{"jsonrpc":"2.0","id":"x","method":"eth_chainId","params":null}"#, json!("x")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"eth_chainId","params":[]}"#, json!(null)),
        (r#" {"method":"eth_chainId","extra":{"a":[1]},"id":-1.5,"jsonrpc":"2.0"} "#, json!(-1.5)),
        (r#"{"jsonrpc":"2.0","id":0,"id":7,"method":"x","method":"eth_chainId"}"#, json!(7)),
    ] {
        let answer = world.post(body).await;
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": id, "result": "0x7a69" }), "{body}");
    }
    let big = r#"{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"eth_chainId"}"#;
    let answer = world.http("POST / HTTP/1.1", big.as_bytes()).await;
    assert!(answer.body.contains(r#""id":123456789012345678901234567890,"#), "{}", answer.body);
}

#[tokio::test]
async fn a_notification_is_acted_upon_but_not_answered() {
    let world = World::new().await;
    let request = json!({
        "jsonrpc": "2.0", "method": "eth_sendRawTransaction", "params": [raw(&transfer(0))],
    });
    assert_eq!(world.post(request.to_string()).await, Value::Null);
    assert_eq!(world.call("txpool_status", json!([])).await["pending"], "0x1");
    let batch = json!([{ "jsonrpc": "2.0", "method": "eth_chainId" }]);
    assert_eq!(world.post(batch.to_string()).await, Value::Null);
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let world = World::new().await;
    let call = |id: u64, method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let send =
        |id: u64, nonce: u64| call(id, "eth_sendRawTransaction", json!([raw(&transfer(nonce))]));
    let batch = json!([
        call(1, "eth_chainId", json!([])),
        send(2, 0), send(3, 2),
        call(4, "eth_sendRawTransaction", json!(["0xzz"])),
        send(5, 2),
        call(6, "txpool_status", json!([])),
        { "jsonrpc": "2.0", "method": "eth_chainId" },
        7,
        call(8, "extra_double", json!(["0x4"])),
        send(9, 4),
    ]);
    let answers = world.post(batch.to_string()).await;
    let ids: Vec<&Value> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
    assert_eq!(json!(ids), json!([1, 2, 3, 4, 5, 6, null, 8, 9]));
    assert_eq!(answers[0]["result"], "0x7a69");
    assert_eq!(answers[3]["error"]["code"], -32602);
    assert_eq!(answers[4]["error"]["message"], "already known");
    assert_eq!(answers[5]["result"]["pending"], "0x2");
    assert_eq!(answers[6]["error"]["code"], -32600);
    assert_eq!(answers[7]["result"], 8);
    assert!(answers[8]["result"].is_string());
    // Transactions that follow each other went together.
    assert_eq!(*world.fake.submitted.lock().unwrap(), [3, 1]);
}
