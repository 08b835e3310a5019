//! The tests of Ethereum's execution APIs, on the head of their chain.

use std::path::{Path, PathBuf};

use alloy_consensus::Header;
use alloy_primitives::hex;
use alloy_rlp::Decodable;
use parsec_ethereum::query::CallFailure;
use parsec_ethereum::revert_reason;
use serde_json::{Value as Json, json};

use super::*;

const CHAIN_ID: u64 = 3_503_995_874_084_926;

/// What the chain's rules make the base fee of the block after the head.
const NEXT_BASE_FEE: u64 = 23_985_819;

/// Where the tests are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/execution-apis");
    path.exists().then_some(path)
}

/// The headers of a chain of blocks.
fn headers(mut chain: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while !chain.is_empty() {
        let mut block = alloy_rlp::Header::decode_bytes(&mut chain, true).unwrap();
        headers.push(Header::decode(&mut block).unwrap());
    }
    headers
}

struct Chain {
    map: Map,
    head: Header,
}

impl Chain {
    fn read(data: &Path) -> Self {
        let file = |name: &str| std::fs::read(data.join(name)).unwrap();
        let genesis: Json = serde_json::from_slice(&file("head_genesis.json")).unwrap();
        let params = ChainParams { fork: "BPO2".to_owned(), ..ChainParams::new(CHAIN_ID) };
        let mut map = Map::new(&params, &geth::accounts(&genesis["alloc"]));
        let headers = headers(&file("tests/chain.rlp"));
        map.hashes = headers.iter().map(|header| (header.number, header.hash_slow())).collect();
        Self { map, head: headers.last().unwrap().clone() }
    }

    /// The environment of the head.
    fn environment(&self) -> Environment {
        let head = &self.head;
        Environment {
            number: head.number,
            timestamp: head.timestamp,
            gas_limit: head.gas_limit,
            base_fee: head.base_fee_per_gas.unwrap(),
            coinbase: head.beneficiary,
            prevrandao: head.mix_hash,
            excess_blob_gas: head.excess_blob_gas,
            ..Environment::default()
        }
    }

    /// That of the first block that is simulated on it.
    fn next(&self, validation: bool) -> Environment {
        let head = self.environment();
        Environment {
            number: head.number + 1,
            timestamp: head.timestamp + 12,
            base_fee: if validation { NEXT_BASE_FEE } else { 0 },
            prevrandao: B256::ZERO,
            ..head
        }
    }

    fn ask(&mut self, method: &str, params: &Json) -> Json {
        let request = || Box::new(serde_json::from_value(params[0].clone()).unwrap());
        let (environment, task) = match method {
            "eth_call" => (self.environment(), Task::Call(request())),
            "eth_estimateGas" => (self.environment(), Task::Estimate(request())),
            "eth_createAccessList" => (self.environment(), Task::AccessList(request())),
            "eth_simulateV1" => {
                let validation = params[0]["validation"] == true;
                let payload = serde_json::from_value(params[0].clone()).unwrap();
                (self.next(validation), Task::Blocks(Box::new(payload)))
            }
            method => panic!("{method}"),
        };
        let simulation =
            Simulation { environment, overrides: Default::default(), before: Vec::new(), task };
        let query = Query::Simulate(Box::new(simulation));
        match answer(CHAIN_ID, &mut self.map, &query) {
            Ok(Answer::Call(result)) if result.failure == Some(CallFailure::Reverted) => {
                reverted(&result.output)
            }
            Ok(Answer::Call(result)) => json!({ "result": result.output }),
            Ok(Answer::Gas(gas)) => json!({ "result": U256::from(gas) }),
            Ok(Answer::AccessList(list)) => json!({ "result": list }),
            Ok(Answer::Blocks(blocks)) => json!({ "result": blocks }),
            Ok(answer) => panic!("{answer:?}"),
            Err(QueryError::Reverted(data)) => reverted(&data),
            Err(QueryError::Refused { code, message }) => {
                json!({ "error": { "code": code, "message": message } })
            }
            Err(error) => json!({ "error": { "code": -32_000, "message": error.to_string() } }),
        }
    }
}

fn reverted(data: &Bytes) -> Json {
    let message = format!("execution reverted: {}", revert_reason(data).unwrap());
    json!({ "error": { "code": 3, "message": message, "data": hex::encode_prefixed(data) } })
}

/// An answer without what differs by its root of the state alone: the root itself, and the hashes
/// of simulated blocks, which become their places.
fn rootless(answer: &Json) -> Json {
    let mut answer = answer.clone();
    let mut hashes = Vec::new();
    if let Some(blocks) = answer["result"].as_array_mut() {
        for block in blocks {
            if let Some(hash) = block["hash"].as_str() {
                hashes.push(hash.to_owned());
                block["stateRoot"] = Json::Null;
            }
        }
    }
    let mut text = answer.to_string();
    for (index, hash) in hashes.iter().enumerate() {
        text = text.replace(&hash[2..], &format!("block {index}"));
    }
    serde_json::from_str(&text).unwrap()
}

#[test]
fn answers_are_those_of_the_execution_apis() {
    let Some(data) = data() else {
        eprintln!("skipped: the tests of the execution APIs are not on this machine");
        return;
    };
    let mut chain = Chain::read(&data);
    let mut count = 0;
    let mut wrong = Vec::new();
    for method in ["eth_call", "eth_createAccessList", "eth_estimateGas", "eth_simulateV1"] {
        let folder = data.join("tests").join(method);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let line = |start: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(start)).unwrap();
                serde_json::from_str::<Json>(line).unwrap()
            };
            let found = rootless(&chain.ask(method, &line(">> ")["params"]));
            let mut expected = rootless(&line("<< "));
            for field in ["jsonrpc", "id"] {
                expected.as_object_mut().unwrap().remove(field);
            }
            let mut differences = Vec::new();
            geth::compare("", &found, &expected, &mut differences);
            let name = file.file_name().unwrap().display();
            wrong.extend(differences.iter().map(|difference| format!("{name}{difference}")));
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(count, 31);
}
