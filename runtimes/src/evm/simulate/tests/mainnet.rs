//! Real blocks of Ethereum mainnet, traced: what each transaction used is what the chain says.

use std::path::{Path, PathBuf};

use alloy_rpc_types_trace::geth::{CallConfig, GethDebugTracingOptions};
use parsec_ethereum::Recorded;
use serde_json::Value as Json;

use super::*;
use crate::evm::import::{Bytecodes, ImportedBlock};

/// Where the blocks are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mainnet");
    path.exists().then_some(path)
}

#[test]
fn transactions_of_recorded_blocks_use_the_gas_that_they_used() {
    let Some(data) = data() else {
        eprintln!("skipped: no recorded blocks on this machine");
        return;
    };
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let codes = Bytecodes::read(&read(data.join("bytecodes.json"))).unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir(data.join("blocks")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let block = ImportedBlock::read(&read(file.clone()), &codes).unwrap();
        let expected = read(data.join("expected").join(file.file_name().unwrap()));
        let expected: Json = serde_json::from_slice(&expected).unwrap();
        check(&block, &expected["results"]);
    }
}

fn check(block: &ImportedBlock, expected: &Json) {
    let mut map = Map { values: block.genesis().into_iter().collect(), ..Map::default() };
    let recorded = block.transactions.iter().map(|transaction| Recorded {
        sender: transaction.sender,
        raw: transaction.raw.clone().into(),
    });
    let options = GethDebugTracingOptions::call_tracer(CallConfig::default().only_top_call());
    let simulation = Simulation {
        environment: environment(block),
        overrides: Default::default(),
        before: recorded.collect(),
        task: Task::TraceAll { options },
    };
    let answer = answer(1, &mut map, &Query::Simulate(Box::new(simulation))).unwrap();
    let Answer::Traces(traces) = answer else { panic!("{answer:?}") };
    assert_eq!(traces.len(), block.transactions.len());
    for (index, trace) in traces.iter().enumerate() {
        let name = format!("{}/{index}", block.header.number);
        assert_eq!(trace.hash, Some(block.transactions[index].hash), "{name}");
        let frame: Json = serde_json::from_str(trace.outcome.as_ref().unwrap().get()).unwrap();
        let used: U256 = frame["gasUsed"].as_str().unwrap().parse().unwrap();
        let expected = &expected[index];
        assert_eq!(used, U256::from(expected["gasUsed"].as_u64().unwrap()), "{name}");
        let failed = expected["kind"] != "success";
        assert_eq!(!frame["error"].is_null(), failed, "{name}: {}", frame["error"]);
    }
}

fn environment(block: &ImportedBlock) -> Environment {
    let given = block.params.block.as_ref().unwrap();
    let hash = |(number, hash): &(u64, [u8; 32])| (*number, B256::new(*hash));
    Environment {
        number: given.number,
        timestamp: given.timestamp,
        gas_limit: block.params.gas_limit,
        base_fee: block.params.base_fee,
        coinbase: Address::new(block.params.coinbase),
        difficulty: U256::from_be_bytes(given.difficulty),
        prevrandao: given.prevrandao.map(B256::new).unwrap_or_default(),
        excess_blob_gas: given.blobs.map(|blobs| blobs.excess),
        parent_beacon_block_root: None,
        hashes: given.hashes.iter().map(hash).collect(),
    }
}
