//! The conformance files of Ethereum's execution APIs: after the import of their chain, every
//! request must be answered exactly as they say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "../../tests/gateway/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsec_dev::{Accounts, DevBackend, DevConfig, Mining, rpc};
use parsec_gateway::{Gateway, GatewayConfig};
use parsec_runtimes::evm::verify::{self, Genesis};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Methods that are not there.
const ABSENT: [&str; 1] = ["testing_buildBlockV1"];
/// How many files are answered exactly, and how many that there is no such method.
const EXACTLY: usize = 105;
const ABSENT_FILES: usize = 2;
/// A file with this line is only held against the document of the methods.
const SHAPE_ALONE: &str = "speconly";

/// Where the files are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/execution-apis");
    if !path.exists() {
        eprintln!("skipped: the tests of the execution APIs are not on this machine");
        return None;
    }
    Some(path)
}

struct World {
    gateway: Gateway,
    /// Dropped last: the index is in it.
    _directory: tempfile::TempDir,
}

impl World {
    async fn import(data: &Path) -> Self {
        let file = |name: &str| std::fs::read(data.join("tests").join(name)).unwrap();
        let genesis = Genesis::read(&file("genesis.json")).unwrap();
        let config = DevConfig {
            genesis: Some(Box::new(genesis)),
            // Transactions that are sent wait, so that the chain stays the one that was imported.
            mining: Mining::Manual,
            ..DevConfig::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let backend = DevBackend::start(config, Accounts::default(), directory.path()).unwrap();
        let blocks = verify::split(&file("chain.rlp")).unwrap();
        backend.import(blocks, true).await.unwrap().unwrap();
        let gateway = Gateway::start(
            GatewayConfig::new(([127, 0, 0, 1], 0).into()),
            backend.index(),
            Arc::new(backend.clone()),
            rpc::methods(&backend),
        );
        Self { gateway: gateway.await.unwrap(), _directory: directory }
    }

    /// The answer to a request, as it is sent.
    async fn ask(&self, request: &str) -> Value {
        let mut stream = TcpStream::connect(self.gateway.address()).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            request.len()
        );
        stream.write_all([head.as_bytes(), request.as_bytes()].concat().as_slice()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

/// The requests and answers of a file, and whether the answers count.
struct Exchange {
    name: String,
    exact: bool,
    calls: Vec<(String, Value)>,
}

fn exchanges(data: &Path) -> Vec<Exchange> {
    let inside = |path: &Path| {
        let mut all: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    };
    let folders = inside(&data.join("tests")).into_iter().filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| inside(&folder));
    files.map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Exchange {
    let text = std::fs::read_to_string(path).unwrap();
    let mut exchange = Exchange {
        name: path
            .components()
            .rev()
            .take(2)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<PathBuf>()
            .display()
            .to_string(),
        exact: true,
        calls: Vec::new(),
    };
    for line in text.lines() {
        if let Some(request) = line.strip_prefix(">> ") {
            exchange.calls.push((request.to_owned(), Value::Null));
        } else if let Some(answer) = line.strip_prefix("<< ") {
            exchange.calls.last_mut().unwrap().1 = serde_json::from_str(answer).unwrap();
        } else if line.contains(SHAPE_ALONE) {
            exchange.exact = false;
        }
    }
    exchange
}

/// The shapes of results by method.
fn shapes(data: &Path) -> BTreeMap<String, Value> {
    let document = std::fs::read(data.join("openrpc.json")).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let methods = document["methods"].as_array().unwrap().iter();
    methods
        .map(|method| {
            let name = method["name"].as_str().unwrap().to_owned();
            (name, method["result"]["schema"].clone())
        })
        .collect()
}

/// In what two answers differ first.
fn difference(path: &str, found: &Value, expected: &Value) -> Option<String> {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let keys = found.keys().chain(expected.keys());
            keys.into_iter().find_map(|key| {
                let (found, expected) = (found.get(key), expected.get(key));
                match (found, expected) {
                    (Some(found), Some(expected)) => {
                        difference(&format!("{path}.{key}"), found, expected)
                    }
                    (found, _) => {
                        let is = if found.is_some() { "too much" } else { "missing" };
                        Some(format!("{path}.{key} is {is}"))
                    }
                }
            })
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            let pairs = found.iter().zip(expected).enumerate();
            pairs.into_iter().find_map(|(index, (found, expected))| {
                difference(&format!("{path}[{index}]"), found, expected)
            })
        }
        // Numbers that are written in two ways are the same.
        (Value::Number(found), Value::Number(expected)) if found.as_f64() == expected.as_f64() => {
            None
        }
        _ if found == expected => None,
        _ => {
            let short = |value: &Value| value.to_string().chars().take(200).collect::<String>();
            Some(format!("{path} is {}, not {}", short(found), short(expected)))
        }
    }
}

/// How a file is answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Answered {
    Exactly,
    /// That there is no such method.
    Absent,
    Wrong(String),
}

async fn answered(
    world: &World,
    shapes: &BTreeMap<String, Value>,
    exchange: &Exchange,
) -> Answered {
    let mut outcome = Answered::Exactly;
    for (request, expected) in &exchange.calls {
        let answer = world.ask(request).await;
        let method = serde_json::from_str::<Value>(request).unwrap()["method"].clone();
        let method = method.as_str().unwrap();
        let shape = answer.get("result");
        let shape = shape.and_then(|result| schema::check(&shapes[method], result, "result").err());
        let differs = match exchange.exact {
            true => difference("", &answer, expected),
            false if answer.get("result").is_some() == expected.get("result").is_some() => None,
            false => Some(format!("it is {answer}")),
        };
        outcome = outcome.max(match (shape, differs) {
            (None, None) => Answered::Exactly,
            (None, Some(_)) if ABSENT.contains(&method) && answer["error"]["code"] == -32_601 => {
                Answered::Absent
            }
            (shape, differs) => Answered::Wrong(format!("{shape:?} {differs:?}")),
        });
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_answered_as_it_says() {
    let Some(data) = data() else { return };
    let world = World::import(&data).await;
    let shapes = shapes(&data);
    let mut by_outcome: BTreeMap<Answered, Vec<String>> = BTreeMap::new();
    for exchange in exchanges(&data) {
        let outcome = answered(&world, &shapes, &exchange).await;
        by_outcome.entry(outcome).or_default().push(exchange.name);
    }
    for (outcome, files) in &by_outcome {
        eprintln!("{outcome:?}: {}", files.len());
        if *outcome != Answered::Exactly {
            files.iter().for_each(|file| eprintln!("  {file}"));
        }
    }
    let count = |outcome| by_outcome.get(&outcome).map_or(0, Vec::len);
    let counts = (count(Answered::Exactly), count(Answered::Absent));
    assert_eq!(counts, (EXACTLY, ABSENT_FILES));
    assert_eq!(by_outcome.values().map(Vec::len).sum::<usize>(), 107);
}

#[test]
fn differences_are_found() {
    let answer = json!({ "id": 1, "result": [{ "a": 0.5, "b": "0x1" }, null] });
    assert_eq!(difference("", &answer, &answer), None);
    for other in [
        json!({ "id": 1, "result": [{ "a": 0.5, "b": "0x01" }, null] }),
        json!({ "id": 1, "result": [{ "a": 0.5 }, null] }),
        json!({ "id": 1, "result": [{ "a": 0.5, "b": "0x1", "c": 1 }, null] }),
        json!({ "id": 1, "result": [{ "a": 0.5, "b": "0x1" }] }),
        json!({ "id": 1, "error": {} }),
    ] {
        assert!(difference("", &answer, &other).is_some(), "{other}");
    }
}
