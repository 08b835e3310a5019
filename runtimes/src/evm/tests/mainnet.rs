//! Real blocks of Ethereum mainnet, of every fork from Frontier to Cancun.

use std::path::{Path, PathBuf};

use alloy_primitives::{KECCAK256_EMPTY, U256, keccak256};
use parsec_protocol::{ErrorCode, Outcome, Receipt};
use serde_json::Value as Json;

use super::*;
use crate::evm::block::{BlockReceipts, transactions_root};
use crate::evm::import::{Bytecodes, ImportedBlock};

/// Where the blocks are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mainnet");
    path.exists().then_some(path)
}

#[test]
fn blocks_give_the_results_that_their_headers_say() {
    let Some(data) = data() else {
        eprintln!("skipped: no recorded blocks on this machine");
        return;
    };
    let codes = Bytecodes::read(&std::fs::read(data.join("bytecodes.json")).unwrap()).unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir(data.join("blocks")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let block = ImportedBlock::read(&std::fs::read(&file).unwrap(), &codes).unwrap();
        let expected = data.join("expected").join(file.file_name().unwrap());
        let expected: Json = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
        check_block(&block, &expected);
    }
}

fn check_block(block: &ImportedBlock, expected: &Json) {
    let number = block.header.number;
    let mut world = World::new(EvmRuntime::for_import(1), block.genesis());
    let mut receipts = Vec::new();
    for (index, transaction) in block.transactions.iter().enumerate() {
        let receipt = world.run(&transaction.raw);
        let result = &expected["results"][index];
        assert_eq!(receipt.id.0, transaction.hash.0);
        check_result(&receipt, result, &format!("{number}/{index}"));
        receipts.push(receipt);
    }
    let raw: Vec<_> =
        block.transactions.iter().map(|transaction| transaction.raw.clone()).collect();
    let results = BlockReceipts::new(raw.iter().zip(&receipts));
    assert_eq!(results.gas_used, block.header.gas_used, "{number}");
    assert_eq!(results.bloom, block.header.bloom, "{number}");
    assert_eq!(transactions_root(&raw), block.header.transactions_root, "{number}");
    if let Some(root) = block.header.receipts_root {
        assert_eq!(results.root(), root, "{number}");
    }
    check_state(&world, block, &expected["post"]);
}

fn check_result(receipt: &Receipt, expected: &Json, name: &str) {
    assert_eq!(receipt.work, expected["gasUsed"].as_u64().unwrap(), "{name}: {receipt:?}");
    let kind = match &receipt.outcome {
        Outcome::Committed => "success",
        Outcome::Reverted(ErrorCode::Refused) => "revert",
        Outcome::Reverted(_) => "halt",
        outcome => panic!("{name}: {outcome:?}"),
    };
    assert_eq!(kind, expected["kind"].as_str().unwrap(), "{name}: {receipt:?}");
    assert_eq!(receipt.events.len() as u64, expected["logs"].as_u64().unwrap(), "{name}");
    // The output of a creation is its address here, and the code there.
    if kind == "revert" || (kind == "success" && receipt.output.len() != 20) {
        assert_eq!(keccak256(&receipt.output).to_string(), expected["output"], "{name}");
    }
}

fn check_state(world: &World, block: &ImportedBlock, post: &Json) {
    let number = block.header.number;
    let parse = |json: &Json| json.as_str().unwrap().parse::<U256>().unwrap();
    for (address, expected) in post.as_object().unwrap() {
        let address: Address = address.parse().unwrap();
        let record = world.account(&address).unwrap_or_default();
        let code = world.code(&address);
        let name = format!("{number}: {address}");
        assert_eq!(record.balance, parse(&expected["balance"]), "{name}");
        assert_eq!(record.nonce, expected["nonce"].as_u64().unwrap(), "{name}");
        let hash = code.hash.unwrap_or(KECCAK256_EMPTY);
        assert_eq!(hash.to_string(), expected["codeHash"].as_str().unwrap(), "{name}");
        for (slot, word) in expected["storage"].as_object().unwrap() {
            let key = keys::storage(&address, code.incarnation, slot.parse().unwrap());
            let present = keys::decode_word(world.state.get(&key)).unwrap();
            assert_eq!(present, parse(word), "{name} {slot}");
        }
    }
}
