//! Filters and searches for logs.

use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

use crate::client::World;
use crate::fake::{event, raw, transfer};

fn numbers(logs: &Value) -> Vec<&str> {
    logs.as_array().unwrap().iter().map(|log| log["blockNumber"].as_str().unwrap()).collect()
}

async fn world_with_logs() -> World {
    let world = World::new().await;
    world.fake.mine(0, &[(transfer(0), vec![event(1, &[5, 6]), event(2, &[5])])]);
    world.fake.mine(0, &[]);
    world
        .fake
        .mine(0, &[(transfer(2), vec![event(1, &[7])]), (transfer(4), vec![event(1, &[5, 8])])]);
    world
}

#[tokio::test]
async fn logs_are_found_by_address_topics_and_blocks() {
    let world = world_with_logs().await;
    let topic = |byte: u8| B256::repeat_byte(byte);
    for (filter, found) in [
        (json!({}), vec!["0x3", "0x3"]),
        (json!({ "fromBlock": "earliest" }), vec!["0x1", "0x1", "0x3", "0x3"]),
        (json!({ "fromBlock": "0x1", "toBlock": "0x2" }), vec!["0x1", "0x1"]),
        (json!({ "fromBlock": "0x0", "address": Address::repeat_byte(2) }), vec!["0x1"]),
        (
            json!({ "fromBlock": "0x0", "address": [Address::repeat_byte(2), Address::repeat_byte(1)],
            "topics": [topic(5)] }),
            vec!["0x1", "0x1", "0x3"],
        ),
        (json!({ "fromBlock": "0x0", "topics": [null, [topic(6), topic(8)]] }), vec!["0x1", "0x3"]),
        (json!({ "fromBlock": "0x0", "topics": [[topic(5), null], topic(8)] }), vec!["0x3"]),
        (json!({ "fromBlock": "0x0", "topics": [topic(9)] }), vec![]),
        (json!({ "fromBlock": "0x9", "toBlock": "latest" }), vec![]),
        (json!({ "fromBlock": "0x1", "toBlock": "0x99" }), vec!["0x1", "0x1", "0x3", "0x3"]),
        (
            json!({ "blockHash": world.fake.chain.view().header(1).unwrap().unwrap().hash }),
            vec!["0x1", "0x1"],
        ),
    ] {
        let logs = world.call("eth_getLogs", json!([filter])).await;
        assert_eq!(numbers(&logs), found, "{filter}");
    }
    let logs = world.call("eth_getLogs", json!([{ "topics": [topic(5)] }])).await;
    let head = world.fake.chain.head();
    assert_eq!(
        logs[0],
        json!({
            "address": Address::repeat_byte(1), "topics": [topic(5), topic(8)], "data": "0x09",
            "blockNumber": "0x3", "blockHash": head.hash, "blockTimestamp": "0x3eb",
            "transactionHash": transfer(4).trie_hash(), "transactionIndex": "0x1", "logIndex": "0x1",
            "removed": false,
        })
    );
}

#[tokio::test]
async fn ranges_that_make_no_sense_are_refused() {
    let world = world_with_logs().await;
    let refusal = async |filter: Value| world.refusal("eth_getLogs", json!([filter])).await;
    let (code, message) = refusal(json!({ "fromBlock": "0x3", "toBlock": "0x1" })).await;
    assert_eq!((code, &*message), (-32602, "invalid block range params"));
    let (code, message) = refusal(json!({ "blockHash": B256::ZERO })).await;
    assert_eq!((code, &*message), (-32000, "unknown block"));
    let both = json!({ "blockHash": B256::ZERO, "fromBlock": "0x3", "toBlock": "0x4" });
    let (code, message) = refusal(both).await;
    assert_eq!(code, -32602);
    assert_eq!(
        message,
        "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or \
         the other"
    );
}

#[tokio::test]
async fn filters_tell_what_is_new_since_they_were_asked() {
    let world = world_with_logs().await;
    let blocks = world.call("eth_newBlockFilter", json!([])).await;
    let logs = world.call("eth_newFilter", json!([{ "topics": [B256::repeat_byte(5)] }])).await;
    let hashes = world.call("eth_newPendingTransactionFilter", json!([])).await;
    let full = world.call("eth_newPendingTransactionFilter", json!([true])).await;
    for filter in [&blocks, &logs, &hashes] {
        assert_eq!(world.call("eth_getFilterChanges", json!([filter])).await, json!([]));
    }
    let sent = world.call("eth_sendRawTransaction", json!([raw(&transfer(6))])).await;
    let first = world.fake.mine(0, &[(transfer(6), vec![event(1, &[5]), event(1, &[6])])]);
    let second = world.fake.mine(0, &[]);
    let news = async |filter: &Value| world.call("eth_getFilterChanges", json!([filter])).await;
    assert_eq!(news(&blocks).await, json!([B256::new(first.hash), B256::new(second.hash)]));
    let found = news(&logs).await;
    assert_eq!(numbers(&found), ["0x4"]);
    assert_eq!(news(&hashes).await, json!([sent]));
    assert_eq!(news(&full).await[0]["hash"], sent);
    for filter in [&blocks, &logs, &hashes, &full] {
        assert_eq!(news(filter).await, json!([]));
    }
    assert_eq!(numbers(&world.call("eth_getFilterLogs", json!([logs])).await), Vec::<&str>::new());

    assert_eq!(world.call("eth_uninstallFilter", json!([logs])).await, true);
    assert_eq!(world.call("eth_uninstallFilter", json!([logs])).await, false);
    assert_eq!(world.refusal("eth_getFilterChanges", json!([logs])).await.0, -32000);
    assert_eq!(world.refusal("eth_getFilterLogs", json!([blocks])).await.0, -32000);
}

#[tokio::test]
async fn filters_notice_that_blocks_were_taken_back() {
    let world = world_with_logs().await;
    let blocks = world.call("eth_newBlockFilter", json!([])).await;
    let logs = world.call("eth_newFilter", json!([{}])).await;
    world.fake.chain.rewind(2).unwrap();
    let other = world.fake.mine(1, &[(transfer(8), vec![event(9, &[])])]);
    let changes = world.call("eth_getFilterChanges", json!([logs])).await;
    let removed: Vec<_> =
        changes.as_array().unwrap().iter().map(|log| log["removed"].as_bool().unwrap()).collect();
    assert_eq!(removed, [true, true, false]);
    assert_eq!(numbers(&changes), ["0x3", "0x3", "0x3"]);
    let hashes = world.call("eth_getFilterChanges", json!([blocks])).await;
    assert_eq!(hashes, json!([B256::new(other.hash)]));
}
