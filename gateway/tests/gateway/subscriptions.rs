//! Subscriptions over WebSocket.

use std::time::Duration;

use alloy_primitives::B256;
use serde_json::json;

use crate::client::World;
use crate::fake::{event, raw, transfer};

const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn new_heads_are_told_in_order() {
    let world = World::new().await;
    let mut socket = world.websocket().await;
    let heads = socket.subscribe(json!(["newHeads"])).await;
    let blocks: Vec<_> = (0..5).map(|_| world.fake.mine(0, &[])).collect();
    for block in &blocks {
        let head = socket.told(&heads).await;
        assert_eq!(head["hash"], json!(B256::new(block.hash)));
        assert!(head.get("transactions").is_none());
    }
    world.fake.chain.rewind(3).unwrap();
    let other = world.fake.mine(1, &[]);
    let head = socket.told(&heads).await;
    assert_eq!((&head["number"], &head["hash"]), (&json!("0x4"), &json!(B256::new(other.hash))));
}

#[tokio::test]
async fn logs_are_told_and_taken_back() {
    let world = World::new().await;
    let mut socket = world.websocket().await;
    let filter = json!({ "topics": [B256::repeat_byte(5)], "fromBlock": null });
    let logs = socket.subscribe(json!(["logs", filter])).await;
    world.fake.mine(0, &[(transfer(0), vec![event(1, &[5]), event(1, &[6])])]);
    world.fake.mine(0, &[(transfer(2), vec![event(2, &[5])])]);
    let first = socket.told(&logs).await;
    assert_eq!((&first["blockNumber"], &first["removed"]), (&json!("0x1"), &json!(false)));
    let second = socket.told(&logs).await;
    world.fake.chain.rewind(1).unwrap();
    let mut removed = socket.told(&logs).await;
    assert_eq!(removed["removed"], true);
    removed["removed"] = json!(false);
    assert_eq!(removed, second);
    assert_eq!(socket.next_within(A_WHILE).await, None);
}

#[tokio::test]
async fn pending_transactions_are_told() {
    let world = World::new().await;
    let mut socket = world.websocket().await;
    let hashes = socket.subscribe(json!(["newPendingTransactions"])).await;
    let sent = world.call("eth_sendRawTransaction", json!([raw(&transfer(0))])).await;
    assert_eq!(socket.told(&hashes).await, sent);
    let ended = socket.call("eth_unsubscribe", json!([hashes])).await;
    assert_eq!(ended["result"], true);
    let full = socket.subscribe(json!(["newPendingTransactions", true])).await;
    world.call("eth_sendRawTransaction", json!([raw(&transfer(2))])).await;
    let told = socket.told(&full).await;
    assert_eq!((&told["nonce"], &told["blockHash"]), (&json!("0x2"), &json!(null)));
    assert_eq!(socket.next_within(A_WHILE).await, None);
    let again = socket.call("eth_unsubscribe", json!([hashes])).await;
    assert_eq!(again["error"]["message"], "subscription not found");
}

#[tokio::test]
async fn the_answer_comes_before_what_was_subscribed_to() {
    let world = World::new().await;
    let mut socket = world.websocket().await;
    for round in 0..20 {
        let miner = std::sync::Arc::clone(&world.fake);
        let mining = std::thread::spawn(move || {
            (0..3).for_each(|_| drop(miner.mine(0, &[])));
        });
        let heads = socket.subscribe(json!(["newHeads"])).await;
        mining.join().unwrap();
        while socket.next_within(Duration::from_millis(50)).await.is_some() {}
        socket.call("eth_unsubscribe", json!([heads])).await;
        assert_eq!(world.fake.chain.head().number, 3 * (round + 1));
    }
}

#[tokio::test]
async fn subscriptions_have_limits_and_kinds() {
    let world = World::with(|config| config.limits.subscriptions_max = 2).await;
    let mut socket = world.websocket().await;
    for (params, code) in [
        (json!([]), -32602),
        (json!(["newBlocks"]), -32601),
        (json!(["logs", { "topics": 1 }]), -32602),
        (json!(["newPendingTransactions", 1]), -32602),
    ] {
        let answer = socket.call("eth_subscribe", params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{params}: {answer}");
    }
    socket.subscribe(json!(["syncing"])).await;
    socket.subscribe(json!(["newHeads"])).await;
    let answer = socket.call("eth_subscribe", json!(["newHeads"])).await;
    assert_eq!(answer["error"]["code"], -32005);
    // Over HTTP there is nobody to tell.
    assert_eq!(world.refusal("eth_subscribe", json!(["newHeads"])).await.0, -32601);
}

#[tokio::test]
async fn messages_are_answered_as_requests_are() {
    let world = World::new().await;
    let mut socket = world.websocket().await;
    socket.send("nonsense").await;
    assert_eq!(socket.next().await["error"]["code"], -32700);
    socket.send(r#"[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},1]"#).await;
    let answers = socket.next().await;
    assert_eq!(answers[0]["result"], "0x7a69");
    assert_eq!(answers[1]["error"]["code"], -32600);
    let answer = socket.call("eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(answer["result"]["number"], "0x0");
}
