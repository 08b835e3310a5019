//! The development chain as its clients see it: over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U256, hex};
use parsec_dev::accounts::MNEMONIC;
use parsec_dev::{Accounts, DevBackend, DevConfig, Mining, rpc};
use parsec_gateway::{Gateway, GatewayConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: &str = include_str!("../../../runtimes/contracts/Token.json");
/// Code of a contract that reverts without a reason.
const REVERTS: &str = "0x5f5ffd";

struct World {
    backend: DevBackend,
    gateway: Gateway,
    /// Dropped last: the index is in it.
    _directory: tempfile::TempDir,
}

/// What was answered: a result, or an error's code, message and data.
type Answer = Result<Value, (i64, String, Value)>;

impl World {
    async fn new() -> Self {
        Self::with(DevConfig::default()).await
    }

    async fn with(config: DevConfig) -> Self {
        let accounts = Accounts::of_mnemonic(MNEMONIC, 4).unwrap();
        let balance = U256::from(10_000) * U256::from(10).pow(U256::from(18));
        let funded = accounts.addresses().iter().map(|address| (*address, balance)).collect();
        let directory = tempfile::tempdir().unwrap();
        let config = DevConfig { accounts: funded, ..config };
        let backend = DevBackend::start(config, accounts, directory.path()).unwrap();
        let gateway = Gateway::start(
            GatewayConfig::new(([127, 0, 0, 1], 0).into()),
            backend.index(),
            Arc::new(backend.clone()),
            rpc::methods(&backend),
        );
        Self { gateway: gateway.await.unwrap(), backend, _directory: directory }
    }

    async fn ask(&self, method: &str, params: Value) -> Answer {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let body = request.to_string();
        let mut stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.unwrap();
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
        read.expect("an answer in time").unwrap();
        let (_, json) = text.split_once("\r\n\r\n").expect("headers");
        let answer: Value = serde_json::from_str(json).unwrap();
        match answer.get("error") {
            None => Ok(answer["result"].clone()),
            Some(error) => {
                let message = error["message"].as_str().unwrap().to_owned();
                Err((error["code"].as_i64().unwrap(), message, error["data"].clone()))
            }
        }
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params.clone()).await;
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error:?}"))
    }

    fn account(&self, index: usize) -> Address {
        self.backend.accounts().addresses()[index]
    }

    /// Sends a transaction and takes its receipt, which must be there at once.
    async fn send(&self, transaction: Value) -> Value {
        let hash = self.call("eth_sendTransaction", json!([transaction])).await;
        let receipt = self.call("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["transactionHash"], hash);
        receipt
    }

    async fn block(&self, tag: &str) -> Value {
        self.call("eth_getBlockByNumber", json!([tag, false])).await
    }

    async fn timestamp(&self) -> u64 {
        number(&self.block("latest").await["timestamp"])
    }

    async fn balance(&self, address: &str) -> u64 {
        number(&self.call("eth_getBalance", json!([address, "latest"])).await)
    }
}

fn number(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap_or_else(|| panic!("{quantity} is no quantity"));
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn word(number: u64) -> String {
    hex::encode(U256::from(number).to_be_bytes::<32>())
}

/// What deploys the token with a name, a symbol and a supply.
fn deployment(supply: u64) -> String {
    let token: Value = serde_json::from_str(TOKEN).unwrap();
    let code = token["bytecode"].as_str().unwrap();
    let (name, symbol) = (hex::encode("Coin"), hex::encode("COI"));
    let text = |length, text: &str| format!("{}{text:0<64}", word(length));
    let arguments = [word(96), word(160), word(supply), text(4, &name), text(3, &symbol)].concat();
    format!("0x{}{arguments}", code.trim_start_matches("0x"))
}

#[tokio::test]
async fn a_token_is_deployed_and_moves_and_tells_of_it() {
    let world = World::new().await;
    let receipt = world.send(json!({ "data": deployment(1_000) })).await;
    assert_eq!(receipt["status"], "0x1");
    let token = receipt["contractAddress"].clone();
    let to = world.account(1);
    let transfer = format!("0xa9059cbb{:0>64}{}", hex::encode(to), word(7));
    let receipt = world.send(json!({ "to": token, "input": transfer })).await;
    assert_eq!(
        (receipt["status"].as_str(), receipt["blockNumber"].as_str()),
        (Some("0x1"), Some("0x2"))
    );
    let logs = world.call("eth_getLogs", json!([{ "address": token, "fromBlock": "0x2" }])).await;
    assert_eq!(logs.as_array().unwrap().len(), 1);
    assert_eq!(logs[0]["data"], format!("0x{}", word(7)));
    let balance = format!("0x70a08231{:0>64}", hex::encode(to));
    let call = json!([{ "to": token, "data": balance }, "latest"]);
    assert_eq!(world.call("eth_call", call).await, format!("0x{}", word(7)));
    // Too much: the estimate says why, in the contract's own error.
    let too_much = format!("0xa9059cbb{:0>64}{}", hex::encode(to), word(100_000));
    let request = json!([{ "from": world.account(0), "to": token, "data": too_much }]);
    let (code, message, data) = world.ask("eth_estimateGas", request.clone()).await.unwrap_err();
    assert_eq!((code, message.as_str()), (3, "execution reverted"));
    assert!(data.as_str().unwrap().starts_with("0xe450d38c"), "{data}");
    // Without an estimate of its own, the client sees it fail in a block.
    let receipt = world.send(request[0].clone()).await;
    assert_eq!(receipt["status"], "0x0");
}

#[tokio::test]
async fn snapshots_take_blocks_state_and_receipts_back() {
    let world = World::new().await;
    let to = "0x00000000000000000000000000000000000000ee";
    world.send(json!({ "to": to, "value": "0x1" })).await;
    let snapshot = world.call("evm_snapshot", json!([])).await;
    let hash = world.send(json!({ "to": to, "value": "0x2" })).await["transactionHash"].clone();
    assert_eq!(world.balance(to).await, 3);
    assert_eq!(world.call("evm_revert", json!([snapshot])).await, true);
    assert_eq!(world.balance(to).await, 1);
    assert_eq!(world.call("eth_blockNumber", json!([])).await, "0x1");
    assert_eq!(world.call("eth_getTransactionReceipt", json!([hash])).await, Value::Null);
    assert_eq!(world.call("evm_revert", json!([snapshot])).await, false);
    // The chain goes on from there.
    world.send(json!({ "to": to, "value": "0x4" })).await;
    assert_eq!(world.balance(to).await, 5);
    world.call("hardhat_reset", json!([])).await;
    assert_eq!((world.balance(to).await, world.timestamp().await > 0), (0, true));
    world.send(json!({ "to": to, "value": "0x4" })).await;
    assert_eq!(world.call("eth_blockNumber", json!([])).await, "0x1");
}

#[tokio::test]
async fn time_can_be_set() {
    let world = World::new().await;
    let start = world.timestamp().await;
    world.call("evm_increaseTime", json!([1_000])).await;
    world.call("evm_mine", json!([])).await;
    let jumped = world.timestamp().await;
    assert!((1_000..1_020).contains(&(jumped - start)), "{jumped} {start}");
    world.call("evm_setNextBlockTimestamp", json!([jumped + 5_000])).await;
    let pending = world.block("pending").await;
    assert_eq!(number(&pending["timestamp"]), jumped + 5_000);
    world.call("evm_mine", json!([])).await;
    assert_eq!(world.timestamp().await, jumped + 5_000);
    let (code, message, _) =
        world.ask("evm_setNextBlockTimestamp", json!([jumped])).await.unwrap_err();
    assert_eq!(code, -32_602);
    assert!(message.contains("lower than previous block's timestamp"), "{message}");
    world.call("evm_mine", json!([{ "timestamp": jumped + 6_000, "blocks": 2 }])).await;
    assert_eq!(world.timestamp().await, jumped + 6_001);
    let before = number(&world.block("latest").await["number"]);
    world.call("hardhat_mine", json!(["0x3e8", "0xc"])).await;
    assert_eq!(number(&world.block("latest").await["number"]), before + 1_000);
    // The clock showed 6,000, though the last block was one second ahead of it.
    assert!(world.timestamp().await >= jumped + 6_000 + 12_000);
}

#[tokio::test]
async fn anybody_can_be_impersonated_and_anything_set() {
    let world = World::new().await;
    let somebody = "0x00000000000000000000000000000000000000aa";
    let to = "0x00000000000000000000000000000000000000ee";
    let request = json!({ "from": somebody, "to": to, "value": "0x5" });
    let (_, message, _) = world.ask("eth_sendTransaction", json!([request])).await.unwrap_err();
    assert_eq!(message, "No Signer available");
    world.call("hardhat_impersonateAccount", json!([somebody])).await;
    world.call("hardhat_setBalance", json!([somebody, "0xde0b6b3a7640000"])).await;
    world.call("hardhat_setCode", json!([somebody, REVERTS])).await;
    let receipt = world.send(request.clone()).await;
    assert_eq!(
        (receipt["from"].as_str(), receipt["status"].as_str()),
        (Some(somebody), Some("0x1"))
    );
    let hash = receipt["transactionHash"].clone();
    let transaction = world.call("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(transaction["from"], somebody);
    world.call("hardhat_stopImpersonatingAccount", json!([somebody])).await;
    assert!(world.ask("eth_sendTransaction", json!([request])).await.is_err());
    assert_eq!(world.call("eth_getCode", json!([somebody, "latest"])).await, REVERTS);
    let zeros = format!("0x{}", word(9));
    world.call("hardhat_setStorageAt", json!([somebody, "0x0", zeros])).await;
    assert_eq!(world.call("eth_getStorageAt", json!([somebody, "0x0", "latest"])).await, zeros);
    world.call("hardhat_setNonce", json!([somebody, "0x50"])).await;
    let nonce = world.call("eth_getTransactionCount", json!([somebody, "latest"])).await;
    assert_eq!(nonce, "0x50");
    world.call("hardhat_setNextBlockBaseFeePerGas", json!(["0x1234"])).await;
    world.call("hardhat_setCoinbase", json!([somebody])).await;
    world.call("hardhat_setPrevRandao", json!([zeros])).await;
    world.call("evm_mine", json!([])).await;
    let block = world.block("latest").await;
    assert_eq!(block["baseFeePerGas"], "0x1234");
    assert_eq!((block["miner"].as_str(), &block["mixHash"]), (Some(somebody), &json!(zeros)));
}

#[tokio::test]
async fn without_automine_transactions_wait_in_the_pool() {
    let world = World::new().await;
    let to = "0x00000000000000000000000000000000000000ee";
    world.call("evm_setAutomine", json!([false])).await;
    let send = |nonce: u64, value: u64, fee: u64| {
        let transaction = json!({
            "to": to, "gas": "0x5208", "nonce": format!("{nonce:#x}"),
            "value": format!("{value:#x}"), "maxFeePerGas": format!("{fee:#x}"),
            "maxPriorityFeePerGas": "0x1",
        });
        world.ask("eth_sendTransaction", json!([transaction]))
    };
    let gwei = 1_000_000_000;
    let first = send(0, 1, 10 * gwei).await.unwrap();
    assert_eq!(send(0, 2, 9 * gwei).await.unwrap_err().1, "replacement transaction underpriced");
    let replaced = send(0, 4, 20 * gwei).await.unwrap();
    send(2, 8, 10 * gwei).await.unwrap();
    let status = world.call("txpool_status", json!([])).await;
    assert_eq!(status, json!({ "pending": "0x1", "queued": "0x1" }));
    let from = world.account(0);
    let count = world.call("eth_getTransactionCount", json!([from, "pending"])).await;
    assert_eq!(count, "0x1");
    let pending = world.call("eth_getBalance", json!([to, "pending"])).await;
    assert_eq!((number(&pending), world.balance(to).await), (4, 0));
    assert_eq!(world.call("eth_getTransactionReceipt", json!([replaced])).await, Value::Null);
    world.call("evm_mine", json!([])).await;
    assert_eq!(world.balance(to).await, 4);
    assert_eq!(world.call("eth_getTransactionByHash", json!([first])).await, Value::Null);
    send(1, 16, 10 * gwei).await.unwrap();
    world.call("evm_mine", json!([])).await;
    assert_eq!(world.balance(to).await, 28);
    assert_eq!(send(0, 1, 10 * gwei).await.unwrap_err().1, "nonce too low");
}

#[tokio::test]
async fn blocks_come_by_themselves_where_they_have_an_interval() {
    let world =
        World::with(DevConfig { mining: Mining::Interval(50), ..DevConfig::default() }).await;
    let backend = world.backend.clone();
    let running = tokio::spawn(async move { backend.run().await });
    let request = json!([{ "to": world.account(1), "value": "0x1" }]);
    let receipt = world.call("eth_sendTransactionSync", request).await;
    assert_eq!(receipt["status"], "0x1");
    world.call("evm_setIntervalMining", json!([0])).await;
    let height = world.call("eth_blockNumber", json!([])).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.call("eth_blockNumber", json!([])).await, height);
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_sent_together_get_nonces_of_their_own() {
    let world = Arc::new(World::new().await);
    let sending: Vec<_> = (0..16)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let request = json!({ "to": world.account(1), "value": "0x1" });
                world.send(request).await
            })
        })
        .collect();
    for sent in sending {
        assert_eq!(sent.await.unwrap()["status"], "0x1");
    }
    let count = world.call("eth_getTransactionCount", json!([world.account(0), "latest"])).await;
    assert_eq!(count, "0x10");
}

#[tokio::test]
async fn known_accounts_sign() {
    let world = World::new().await;
    let from = world.account(0);
    assert_eq!(world.call("eth_accounts", json!([])).await[0], json!(from));
    // The signature that any wallet with this key gives.
    let signature = world.call("personal_sign", json!(["0xdeadbeef", from])).await;
    assert_eq!(signature, world.call("eth_sign", json!([from, "0xdeadbeef"])).await);
    let signature = hex::decode(signature.as_str().unwrap()).unwrap();
    let hash = alloy_primitives::eip191_hash_message([0xde, 0xad, 0xbe, 0xef]);
    let signature = alloy_primitives::Signature::from_raw(&signature).unwrap();
    assert_eq!(signature.recover_address_from_prehash(&hash).unwrap(), from);
    let transaction = json!({ "from": from, "to": from, "value": "0x1", "gas": "0x5208" });
    let raw = world.call("eth_signTransaction", json!([transaction])).await;
    let hash = world.call("eth_sendRawTransaction", json!([raw])).await;
    let receipt = world.call("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!((receipt["from"].clone(), receipt["status"].as_str()), (json!(from), Some("0x1")));
    let filled = world.call("eth_fillTransaction", json!([transaction])).await;
    assert_eq!(filled["tx"]["nonce"], "0x1");
    let version = world.call("web3_clientVersion", json!([])).await;
    assert!(version.as_str().unwrap().starts_with("Parsec"), "the gateway's own: {version}");
    assert!(rpc::client_version().starts_with("anvil"));
}

#[tokio::test]
async fn a_token_is_dealt_whatever_its_storage_is_like() {
    let world = World::new().await;
    let token = world.send(json!({ "data": deployment(1_000) })).await["contractAddress"].clone();
    let (owner, spender) = (world.account(1), world.account(2));
    world.call("anvil_dealERC20", json!([owner, token, "0x1234"])).await;
    world.call("anvil_setERC20Allowance", json!([owner, spender, token, "0x56"])).await;
    let call = async |data: String| {
        world.call("eth_call", json!([{ "to": token, "data": data }, "latest"])).await
    };
    let balance = format!("0x70a08231{:0>64}", hex::encode(owner));
    assert_eq!(call(balance).await, format!("0x{}", word(0x1234)));
    let allowance = format!("0xdd62ed3e{:0>64}{:0>64}", hex::encode(owner), hex::encode(spender));
    assert_eq!(call(allowance).await, format!("0x{}", word(0x56)));
    // An account without code answers nothing, so nothing can be set.
    let none = world.ask("anvil_dealERC20", json!([owner, spender, "0x1"])).await;
    assert_eq!(none.unwrap_err().0, -32000);
}

#[tokio::test]
async fn what_has_been_is_taken_back_and_made_anew() {
    let world = World::new().await;
    let (from, to) = (world.account(0), world.account(1));
    let pay = |value: &str| json!({ "from": from, "to": to, "value": value });
    let gone = world.send(pay("0x1")).await["transactionHash"].clone();
    let mined = world.call("evm_mine_detailed", json!([{ "blocks": 2 }])).await;
    assert_eq!(mined.as_array().unwrap().len(), 2);
    world.call("anvil_reorg", json!([3, [[pay("0x2"), 2]]])).await;
    assert_eq!(world.call("eth_blockNumber", json!([])).await, "0x3");
    let receipt = world.call("eth_getTransactionReceipt", json!([gone])).await;
    assert_eq!(receipt, Value::Null);
    let block = world.call("eth_getBlockByNumber", json!(["0x3", true])).await;
    assert_eq!(block["transactions"][0]["value"], "0x2");
    assert_ne!(block["hash"], mined[1]["hash"]);
    let beyond = world.ask("anvil_reorg", json!([1, [[pay("0x1"), 1]]])).await;
    assert_eq!(beyond.unwrap_err().0, -32602);
    let balance = json!([to, "latest"]);
    let after = world.call("eth_getBalance", balance.clone()).await;
    let state = world.call("anvil_dumpState", json!([])).await;
    world.call("anvil_rollback", json!([3])).await;
    assert_eq!(world.call("eth_blockNumber", json!([])).await, "0x0");
    assert_ne!(world.call("eth_getBalance", balance.clone()).await, after);
    assert_eq!(world.call("anvil_loadState", json!([state])).await, true);
    assert_eq!(world.call("eth_getBalance", balance).await, after);
    assert_eq!(world.ask("anvil_loadState", json!(["0x1f8b"])).await.unwrap_err().0, -32602);
}

#[tokio::test]
async fn what_is_proven_holds_against_the_header() {
    let world = World::new().await;
    let to = Address::repeat_byte(0x77);
    world.send(json!({ "from": world.account(0), "to": to, "value": "0x5" })).await;
    let proof = world.call("eth_getProof", json!([to, ["0x0"], "latest"])).await;
    let node = hex::decode(proof["accountProof"][0].as_str().unwrap()).unwrap();
    let root = world.block("latest").await["stateRoot"].clone();
    assert_eq!(root, json!(alloy_primitives::keccak256(node)));
    assert_eq!((&proof["balance"], &proof["nonce"]), (&json!("0x5"), &json!("0x0")));
    assert_eq!(proof["storageProof"], json!([{ "key": "0x0", "value": "0x0", "proof": [] }]));
    // The state that was asked before is proven, too; one that no header names is not.
    let before = world.call("eth_getProof", json!([to, [], "0x0"])).await;
    assert_eq!(before["balance"], json!("0x0"));
    world.call("hardhat_setBalance", json!([to, "0x9"])).await;
    let (code, message, _) =
        world.ask("eth_getProof", json!([to, [], "latest"])).await.unwrap_err();
    assert!(code == -32_000 && message.contains("was changed"), "{message}");
    world.call("evm_mine", json!([])).await;
    let after = world.call("eth_getProof", json!([to, [], "latest"])).await;
    assert_eq!(after["balance"], json!("0x9"));
}
