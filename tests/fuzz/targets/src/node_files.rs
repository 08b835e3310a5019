//! The files that people write: the configuration of a node, and the genesis.
//!
//! Input: a byte that chooses, then the text.

use parsec_cli::config::NodeConfig;
use parsec_cli::genesis::Genesis;
use parsec_runtimes::system::load_transactions;

use crate::{Seed, Target, Verdict};

/// See the module.
pub const TARGET: Target = Target { name: "node_files", run, seeds };

const CHAIN_ID: u64 = 5;

fn run(input: &[u8]) -> Verdict {
    let Some((kind, text)) = input.split_first() else { return Verdict::Refused };
    let Ok(text) = std::str::from_utf8(text) else { return Verdict::Refused };
    let accepted = if kind % 2 == 0 { is_configuration(text) } else { is_genesis(text) };
    if accepted { Verdict::Accepted } else { Verdict::Refused }
}

/// A configuration that is accepted gives a layout in which every partition has a host.
fn is_configuration(text: &str) -> bool {
    let config = match NodeConfig::parse(text) {
        Ok(config) => config,
        Err(problem) => {
            assert!(!problem.is_empty());
            return false;
        }
    };
    let layout = config.layout().expect("what is parsed has been checked");
    assert!(layout.map.partitions().all(|partition| layout.hosts.contains_key(&partition)));
    assert!(layout.addresses.iter().any(|peer| peer.node.0 == config.node));
    assert!(!layout.hosts.values().any(|host| *host == layout.sequencer));
    assert_eq!(NodeConfig::parse(text).as_ref(), Ok(&config));
    true
}

/// A genesis that is accepted can be ordered: each key once, and nothing beyond the limits.
fn is_genesis(text: &str) -> bool {
    let genesis = match Genesis::parse(text, CHAIN_ID) {
        Ok(genesis) => genesis,
        Err(problem) => {
            assert!(!problem.to_string().is_empty());
            return false;
        }
    };
    assert!(genesis.entries.is_sorted_by(|a, b| a.0 < b.0), "a key is there twice");
    assert!(genesis.entries.iter().all(|(key, _)| key.check().is_ok()));
    let loads = load_transactions(genesis.entries.iter().cloned()).expect("it can be ordered");
    let loaded: usize = loads.iter().map(|load| load.footprint.accesses().len()).sum();
    assert_eq!(loaded, genesis.entries.len());
    assert_eq!(Genesis::parse(text, CHAIN_ID).unwrap().log_id(1), genesis.log_id(1));
    true
}

const EXECUTOR: &str = r#"
node = 1
role = "executor"
data = "data"
chain_id = 7
genesis = "genesis.json"
metrics = "127.0.0.1:9000"
workers_per_partition = 2
tls.development = "certs"

[[nodes]]
node = 0
address = "127.0.0.1:7000"

[[nodes]]
node = 1
address = "127.0.0.1:7001"
partitions = [0, 1]
"#;

const SEQUENCER: &str = r#"
node = 0
role = "sequencer"
data = "data"
clients = "192.168.0.1:443"
[tls]
ca = "ca.pem"
certificate = "node.pem"
key = "node.key"
[[nodes]]
node = 0
address = "[::1]:7000"
[[nodes]]
node = 3
address = "10.0.0.1:7001"
partitions = [0]
"#;

const GENESIS: &str = r#"{
  "fork": "Cancun", "coinbase": "0x00000000000000000000000000000000000000cb",
  "gas_limit": 1000000, "base_fee": 7, "native": { "alice": 5, "bob": 18446744073709551615 },
  "accounts": {
    "0x00000000000000000000000000000000000000aa": {
      "balance": "0x10", "nonce": 3, "code": "0x6000", "storage": { "0x1": "0x2" } },
    "0x00000000000000000000000000000000000000bb": {}
  } }"#;

fn seeds() -> Vec<Seed> {
    let seed = |name, kind: u8, text: &str| Seed::new(name, [&[kind], text.as_bytes()].concat());
    vec![
        seed("executor", 0, EXECUTOR),
        seed("sequencer", 0, SEQUENCER),
        seed("genesis", 1, GENESIS),
        seed("genesis-empty", 1, "{}"),
    ]
}
