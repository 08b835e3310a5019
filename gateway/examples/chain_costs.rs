//! What the index of blocks costs: appends of blocks of token transfers, then look-ups. Times
//! are those of the processor in the calling thread, which other work on the machine changes least.
//!
//! `cargo run --release -p parsec-gateway --example chain_costs [BLOCKS] [TRANSFERS]`

#![allow(clippy::unwrap_used, reason = "a tool that measures")]

use std::time::Duration;

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Signature, TxKind, U256, keccak256};
use bytes::Bytes;
use parsec_ethereum::{Block, BlockTransaction, Environment};
use parsec_gateway::chain::LogFilter;
use parsec_gateway::{Chain, Transaction};
use parsec_protocol::{EpochNumber, Event, Outcome, Position, Receipt, TxId};
use parsec_runtimes::evm::block::Sealing;
use revm::primitives::hardfork::SpecId;

const ACCOUNTS: u64 = 100_000;

/// An account that looks random.
fn account(number: u64) -> Address {
    Address::from_slice(&keccak256(number.to_be_bytes())[12..])
}

/// One token transfer between accounts that look random.
fn transfer(nonce: u64) -> BlockTransaction {
    let draw = keccak256(nonce.to_be_bytes());
    let pick = |at: usize| u64::from_be_bytes(draw[at..at + 8].try_into().unwrap()) % ACCOUNTS;
    let (from, to) = (account(pick(0)), account(pick(8)));
    let token = Address::repeat_byte(0x70);
    let content = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 60_000,
        max_fee_per_gas: 100,
        to: TxKind::Call(token),
        input: vec![1; 68].into(),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from_be_bytes(draw.0), U256::from(nonce), false);
    let raw: Bytes = Transaction::from(content.into_signed(signature)).encoded_2718().into();
    let event = Event {
        source: token[..].into(),
        topics: vec![[1; 32], from.into_word().0, to.into_word().0].into(),
        data: vec![0; 32].into(),
    };
    let receipt = Receipt {
        id: TxId(keccak256(&raw).0),
        position: Position { epoch: EpochNumber(1), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 34_453,
        output: vec![0; 32].into(),
        events: vec![event],
    };
    BlockTransaction { raw, sender: from.0.0, receipt, state_root: None }
}

fn seal(parent: Option<&Block>, transactions: Vec<BlockTransaction>) -> Block {
    let number = parent.map_or(0, |parent| parent.number + 1);
    let environment = Environment { number, timestamp: number, ..Environment::default() };
    let sealing = Sealing {
        fork: SpecId::OSAKA,
        environment: &environment,
        parent: parent.map_or(B256::ZERO, |parent| B256::new(parent.hash)),
        state_root: B256::ZERO,
        epoch: EpochNumber(number),
    };
    sealing.seal(transactions)
}

/// A moment, in the processor's time of this thread.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let nanos = stat.split(' ').next().unwrap().parse().unwrap();
        Self(Duration::from_nanos(nanos))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

/// Microseconds of each of so many.
fn each(elapsed: Duration, count: u64) -> String {
    let tenths = elapsed.as_nanos() / 100 / u128::from(count.max(1));
    format!("{}.{} µs", tenths / 10, tenths % 10)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().unwrap());
    let (blocks, size): (u64, u64) = (args.next().unwrap_or(300), args.next().unwrap_or(1_000));
    let directory = tempfile::tempdir().unwrap();
    let mut parent = seal(None, Vec::new());
    let chain = Chain::open(&directory, &parent).unwrap();
    let (mut appending, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let mut sample = Vec::new();
    for number in 0..blocks {
        let transactions: Vec<_> = (number * size..(number + 1) * size).map(transfer).collect();
        sample.push((transactions[0].hash(), transactions[0].sender()));
        parent = seal(Some(&parent), transactions);
        let started = Instant::now();
        chain.append(&parent).unwrap();
        appending += started.elapsed();
        slowest = slowest.max(started.elapsed());
    }
    println!("append: {} a transfer; slowest block {slowest:?}", each(appending, blocks * size));

    let view = chain.view();
    let started = Instant::now();
    for (hash, _) in &sample {
        assert!(view.transaction(*hash).unwrap().is_some());
    }
    println!("transaction by hash: {}", each(started.elapsed(), blocks));

    let (started, mut found) = (Instant::now(), 0);
    for (_, sender) in &sample {
        let filter = LogFilter {
            addresses: vec![Address::repeat_byte(0x70)],
            topics: vec![vec![B256::repeat_byte(1)], vec![sender.into_word()]],
        };
        let visit = |logs: Vec<_>| {
            found += u64::try_from(logs.len()).unwrap();
            true
        };
        view.logs(&filter, 0, u64::MAX, visit).unwrap();
    }
    println!(
        "an account's transfers over the whole chain: {} each, {} a log ({found} logs)",
        each(started.elapsed(), blocks),
        each(started.elapsed(), found)
    );
    let (started, mut all) = (Instant::now(), 0);
    let visit = |logs: Vec<_>| {
        all += u64::try_from(logs.len()).unwrap();
        all < 50_000
    };
    view.logs(&LogFilter::default(), 0, u64::MAX, visit).unwrap();
    println!("all logs: {} a log ({all} logs)", each(started.elapsed(), all));

    let started = Instant::now();
    drop((view, chain));
    let chain = Chain::open(&directory, &seal(None, Vec::new())).unwrap();
    println!("open again: {:?}", started.elapsed());
    let started = Instant::now();
    chain.rewind(blocks - blocks.min(10)).unwrap();
    println!("take back 10 blocks: {:?}", started.elapsed());
}
