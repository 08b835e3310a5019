//! Limits, who may ask, and from where.

use std::time::Duration;

use parsec_gateway::Auth;
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::World;
use crate::fake::{event, transfer};

const CHAIN_ID: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
const POST: &str = "POST / HTTP/1.1\r\ncontent-type: application/json";

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let world = World::with(|config| {
        config.limits.request_bytes_max = 1_000;
        config.limits.response_bytes_max = 600;
        config.limits.batch_max = 3;
    })
    .await;
    let long = format!("[{}]", " ".repeat(1_000));
    let answer = world.http(POST, long.as_bytes()).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("content length too large"), "{}", answer.body);

    let batch = format!("[{CHAIN_ID},{CHAIN_ID},{CHAIN_ID},{CHAIN_ID}]");
    assert_eq!(world.post(&batch).await["error"]["code"], -32600);

    // A block is longer than 600 bytes, its bloom filter alone is 512.
    let block = json!(["latest", false]);
    assert_eq!(world.refusal("eth_getBlockByNumber", block.clone()).await.0, -32003);
    let call =
        json!({ "jsonrpc": "2.0", "id": 2, "method": "eth_getBlockByNumber", "params": block });
    let answers = world.post(format!("[{CHAIN_ID},{call},{CHAIN_ID}]")).await;
    assert_eq!(answers[0]["result"], "0x7a69");
    assert_eq!(answers[1]["error"]["code"], -32003);
    assert_eq!(answers[2]["result"], "0x7a69");
}

#[tokio::test]
async fn connections_are_limited_and_given_back() {
    let world = World::with(|config| config.limits.connections_max = 1).await;
    let idle = TcpStream::connect(world.address()).await.unwrap();
    // Until the server has noticed the first one, the second may be that.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = world.http(POST, CHAIN_ID.as_bytes()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("too many connections"));
    drop(idle);
    for _ in 0..100 {
        if world.http(POST, CHAIN_ID.as_bytes()).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection was not given back");
}

#[tokio::test]
async fn searches_for_logs_are_limited() {
    let world = World::with(|config| {
        config.limits.log_blocks_max = 3;
        config.limits.logs_max = 2;
        config.limits.log_terms_max = 2;
    })
    .await;
    for number in 0..4 {
        world.fake.mine(0, &[(transfer(2 * number), vec![event(1, &[2])])]);
    }
    let logs = async |from: &str, to: &str| {
        world.refusal("eth_getLogs", json!([{ "fromBlock": from, "toBlock": to }])).await
    };
    let (code, message) = logs("0x1", "latest").await;
    assert_eq!((code, &*message), (-32005, "block range too large: 4 blocks, at most 3"));
    let (code, message) = logs("0x1", "0x3").await;
    assert_eq!((code, &*message), (-32005, "query returned more than 2 results"));
    let two = json!([{ "fromBlock": "0x1", "toBlock": "0x2" }]);
    assert_eq!(world.call("eth_getLogs", two).await.as_array().unwrap().len(), 2);
    let address = alloy_primitives::Address::ZERO;
    let terms = json!([{ "address": [address, address, address] }]);
    assert_eq!(world.refusal("eth_getLogs", terms).await.0, -32602);
}

#[tokio::test]
async fn filters_are_limited_and_forgotten() {
    let world = World::with(|config| {
        config.limits.filters_max = 2;
        config.limits.filter_idle_max = Duration::from_millis(300);
    })
    .await;
    let first = world.call("eth_newBlockFilter", json!([])).await;
    world.call("eth_newBlockFilter", json!([])).await;
    assert_eq!(world.refusal("eth_newBlockFilter", json!([])).await.0, -32005);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let gone = world.refusal("eth_getFilterChanges", json!([first])).await;
    assert_eq!(gone, (-32000, "filter not found".into()));
    world.call("eth_newBlockFilter", json!([])).await;
}

#[tokio::test]
async fn without_the_token_nobody_is_answered() {
    let world = World::with(|config| config.auth = Some(Auth::Token("secret".into()))).await;
    for (header, status) in [
        ("x: y", 401),
        ("authorization: Bearer wrong", 401),
        ("authorization: secret", 401),
        ("authorization: Bearer secret", 200),
    ] {
        let answer = world.http(&format!("{POST}\r\n{header}"), CHAIN_ID.as_bytes()).await;
        assert_eq!(answer.status, status, "{header}: {}", answer.body);
        assert_eq!(answer.body.contains("0x7a69"), status == 200);
    }
    let upgrade = "GET / HTTP/1.1\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(world.http(upgrade, b"").await.status, 401);
}

#[tokio::test]
async fn pages_of_other_origins_may_not_ask() {
    let ours = "https://ours.example";
    let world = World::with(|config| config.origins = vec![ours.into()]).await;
    let post = |origin: &str| format!("{POST}\r\norigin: {origin}");
    let allowed = world.http(&post(ours), CHAIN_ID.as_bytes()).await;
    assert_eq!(allowed.status, 200);
    let header = format!("access-control-allow-origin: {ours}");
    assert!(allowed.headers.contains(&header), "{}", allowed.headers);
    let refused = world.http(&post("https://theirs.example"), CHAIN_ID.as_bytes()).await;
    assert_eq!(refused.status, 403);
    assert!(!refused.headers.contains("access-control-allow-origin"));
    // Without a browser there is no origin.
    assert_eq!(world.http(POST, CHAIN_ID.as_bytes()).await.status, 200);

    let preflight = "OPTIONS / HTTP/1.1\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: content-type";
    let answer = world.http(&format!("{preflight}\r\norigin: {ours}"), b"").await;
    assert_eq!(answer.status, 204);
    for expected in [
        &*header,
        "access-control-allow-headers: authorization, content-type, *",
        "access-control-allow-methods: get, post",
    ] {
        assert!(answer.headers.contains(expected), "{}", answer.headers);
    }
    let any = World::new().await;
    let answer = any.http(&post("https://theirs.example"), CHAIN_ID.as_bytes()).await;
    assert!(answer.headers.contains("access-control-allow-origin: *"), "{}", answer.headers);
}

#[tokio::test]
async fn only_json_is_posted() {
    let world = World::new().await;
    for (head, status) in [
        ("POST / HTTP/1.1", 200),
        ("POST /any/path HTTP/1.1\r\ncontent-type: Application/JSON; charset=utf-8", 200),
        ("POST / HTTP/1.1\r\ncontent-type: text/plain", 415),
        ("PUT / HTTP/1.1", 405),
        ("GET / HTTP/1.1", 200),
    ] {
        assert_eq!(world.http(head, CHAIN_ID.as_bytes()).await.status, status, "{head}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_stopped_ends_its_connections() {
    let world = World::new().await;
    let address = world.address();
    let mut socket = world.websocket().await;
    socket.subscribe(json!(["newHeads"])).await;
    let started = std::time::Instant::now();
    world.gateway.stop().await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(socket.next_within(Duration::from_secs(5)).await, None);
    assert!(TcpStream::connect(address).await.is_err());
}
