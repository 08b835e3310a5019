//! Real blocks of Ethereum mainnet, executed by a cluster of four partitions: their headers say
//! what must come out.

use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use bytes::Bytes;
use parsec_cli::genesis::Genesis;
use parsec_client::{Client, Error};
use parsec_protocol::{ErrorCode, Outcome, Receipt, RuntimeId, Transaction};
use parsec_runtimes::Runtimes;
use parsec_runtimes::evm::EvmRuntime;
use parsec_runtimes::evm::block::BlockReceipts;
use parsec_runtimes::evm::import::{Bytecodes, ImportedBlock};
use parsec_runtimes::system::SystemRuntime;
use parsec_tests::{House, Replayed, Running, Serial, Shape, sum_of};

/// Where the blocks are. They are not part of the project.
fn data() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mainnet");
    assert!(
        path.is_dir(),
        "the recorded blocks of mainnet are not in {}: put them there, they are not part of the \
         project",
        path.display()
    );
    path
}

fn blocks() -> Vec<ImportedBlock> {
    let data = data();
    let codes = Bytecodes::read(&std::fs::read(data.join("bytecodes.json")).unwrap()).unwrap();
    let files = std::fs::read_dir(data.join("blocks")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |file| ImportedBlock::read(&std::fs::read(file).unwrap(), &codes).unwrap();
    files.into_iter().map(read).collect()
}

fn runtimes() -> Runtimes {
    let evm = EvmRuntime::for_import(1);
    Runtimes::new(vec![std::sync::Arc::new(SystemRuntime), std::sync::Arc::new(evm)])
}

fn house(block: &ImportedBlock) -> House {
    let mut house = House::in_memory(Shape::FOUR);
    house.options.chain_id = 1;
    house.options.genesis = Genesis { entries: block.genesis() };
    house.options.runtimes = runtimes();
    house
}

fn raw(block: &ImportedBlock) -> Vec<Transaction> {
    let raw = block.transactions.iter().map(|transaction| transaction.raw.clone());
    raw.map(|raw| Transaction::new(RuntimeId::EVM, raw)).collect()
}

/// Runs transactions through a client. Returns receipts by position, with their payloads; and how
/// many transactions were refused, because they touch so many keys one after the other that no
/// trial found all of them.
async fn run(
    running: &Running,
    client: &Client,
    transactions: &[Transaction],
) -> (Vec<(Bytes, Receipt)>, usize) {
    let results = running.run(client, transactions.to_vec()).await;
    let (mut executed, mut refused) = (Vec::new(), 0);
    for (transaction, result) in transactions.iter().zip(results) {
        match result {
            Ok(receipt) => executed.push((transaction.payload.clone(), receipt)),
            Err(Error::Rejected(rejection)) if rejection.code == ErrorCode::TooLarge => {
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    executed.sort_by_key(|(_, receipt)| receipt.position);
    (executed, refused)
}

/// What a block's header says of it, as far as it says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    gas_used: u64,
    bloom: alloy_primitives::Bloom,
    receipts_root: Option<B256>,
}

impl Header {
    fn expected(block: &ImportedBlock) -> Self {
        let header = &block.header;
        let (gas_used, bloom) = (header.gas_used, header.bloom);
        Self { gas_used, bloom, receipts_root: header.receipts_root }
    }

    fn found(block: &ImportedBlock, executed: &[(Bytes, Receipt)]) -> Self {
        let receipts = BlockReceipts::new(executed.iter().map(|(raw, receipt)| (raw, receipt)));
        let root = block.header.receipts_root.map(|_| receipts.root());
        Self { gas_used: receipts.gas_used, bloom: receipts.bloom, receipts_root: root }
    }
}

/// With the keys declared that each transaction touches in its block, a cluster keeps the order of
/// the block, and all that it says.
async fn check_declared(block: &ImportedBlock) {
    let mut serial = Serial::new(&runtimes(), &block.genesis());
    let mut transactions = raw(block);
    let mut expected = Vec::new();
    for transaction in &mut transactions {
        let (receipt, footprint) = serial.run(transaction);
        transaction.footprint = Some(footprint);
        expected.push(receipt);
    }
    let house = house(block);
    let running = house.start().await;
    let client = running.client().await;
    let (executed, refused) = run(&running, &client, &transactions).await;
    assert_eq!((executed.len(), refused), (transactions.len(), 0));
    let number = block.header.number;
    for ((_, found), expected) in executed.iter().zip(&expected) {
        let position = found.position;
        assert_eq!(*found, Receipt { position, ..expected.clone() }, "{number}");
    }
    assert_eq!(Header::found(block, &executed), Header::expected(block), "{number}");
    let status = running.settled().await;
    let replayed = Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    assert_eq!(replayed.outcomes.strayed, 0, "{number}");
    assert_eq!(sum_of(&status).0, serial.digest(), "{number}");
    running.stop().await;
}

/// What came of a block without declared keys.
struct Discovered {
    /// Whether it was executed in its own order, and whole.
    kept: bool,
    /// Transactions for which no footprint was found.
    refused: usize,
    /// Transactions that came before what they build on.
    early: usize,
}

/// Without declared keys, what strays is ordered again, after later transactions, which may then
/// come too early. The oracle must agree all the same; and if the block's order was kept, so must
/// its header.
async fn check_discovered(block: &ImportedBlock) -> Discovered {
    let house = house(block);
    let running = house.start().await;
    let client = running.client().await;
    let (executed, refused) = run(&running, &client, &raw(block)).await;
    let status = running.settled().await;
    let replayed = Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    for (_, receipt) in &executed {
        assert_eq!(replayed.told(&receipt.id).as_ref(), Some(receipt));
    }
    running.stop().await;
    let invalid = executed.iter().filter_map(|(_, receipt)| match receipt.outcome {
        Outcome::Invalid(code) => Some(code),
        _ => None,
    });
    let invalid: Vec<_> = invalid.collect();
    let order = executed.iter().map(|(raw, _)| raw);
    let kept = order.eq(block.transactions.iter().map(|transaction| &transaction.raw));
    let number = block.header.number;
    if kept {
        assert_eq!(Header::found(block, &executed), Header::expected(block), "{number}");
    } else {
        let is_early = |code: &ErrorCode| {
            [ErrorCode::NonceTooHigh, ErrorCode::InsufficientFunds].contains(code)
        };
        assert!(invalid.iter().all(is_early), "{number}: {invalid:?}");
    }
    Discovered { kept, refused, early: invalid.len() }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_come_out_as_their_headers_say() {
    let blocks = blocks();
    assert!(blocks.len() >= 43, "some of the blocks are missing");
    let (mut kept, mut refused, mut early) = (0, 0, 0);
    for block in &blocks {
        check_declared(block).await;
        let discovered = check_discovered(block).await;
        kept += u32::from(discovered.kept);
        refused += discovered.refused;
        early += discovered.early;
    }
    println!(
        "without declared keys {kept} of {} blocks kept their order, {early} transactions came too \
         early, {refused} were refused",
        blocks.len()
    );
    assert!(kept > 0, "no block kept its order, so that discovery was checked by no header");
}
