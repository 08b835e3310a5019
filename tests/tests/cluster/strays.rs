//! A workload that is built to stray: chases of pointers that others keep changing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parsec_client::Client;
use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{Key, Receipt, Transaction, Value};
use parsec_runtimes::native::{Program, key};
use parsec_sequencer_core::limits::APART_ATTEMPT;
use parsec_storage::LogReader;
use parsec_tests::{House, Replayed, Shape};

const POINTERS: u64 = 3;
const CHASERS: u64 = 4;
const CHANGERS: u64 = 3;
/// Chases of each chaser at least.
const CHASES_MIN: u64 = 60;
/// Chases in one submission.
const CHASES_PER_SUBMISSION: u64 = 6;

fn pointer(number: u64) -> Key {
    key(format!("pointer {}", number % POINTERS)).unwrap()
}

fn target(number: u64) -> Key {
    key(format!("target {number}")).unwrap()
}

/// Points a pointer where nothing has pointed before.
fn change(number: u64) -> Transaction {
    let to = Value::copy_from_slice(target(number).encoded());
    Program::new().put(&pointer(number), to).into_transaction(u128::from(number))
}

/// Follows two pointers, and leaves something where they point.
fn chase(number: u64) -> Transaction {
    let mark = || Some(Value::copy_from_slice(&number.to_be_bytes()));
    Program::new()
        .chase(&pointer(number), 1, mark())
        .chase(&pointer(number + 1), 1, mark())
        .into_transaction(1 << 64 | u128::from(number))
}

/// Changes pointers until it is told to stop.
async fn keep_changing(
    client: Client,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let first = next.fetch_add(POINTERS, Ordering::AcqRel);
        let changes = (first..first + POINTERS).map(change).collect();
        let results = client.submit(changes).await.unwrap().wait_all().await;
        receipts.extend(results.into_iter().map(Result::unwrap));
    }
    receipts
}

/// Chases until someone, so far, has had to run apart.
async fn keep_chasing(client: Client, chaser: u64, apart: Arc<AtomicBool>) -> Vec<Receipt> {
    let mut receipts: Vec<Receipt> = Vec::new();
    let mut number = chaser << 32;
    while receipts.len() < usize::try_from(CHASES_MIN).unwrap() || !apart.load(Ordering::Acquire) {
        let chases = (number..number + CHASES_PER_SUBMISSION).map(chase).collect();
        number += CHASES_PER_SUBMISSION;
        for result in client.submit(chases).await.unwrap().wait_all().await {
            let receipt = result.unwrap();
            apart.fetch_or(receipt.attempt >= APART_ATTEMPT, Ordering::AcqRel);
            receipts.push(receipt);
        }
    }
    receipts
}

/// Checks that transactions that run apart share no epoch with others, and that each that was ordered
/// for the last time is alone in its epoch. How many ran apart, each time counted.
fn check_apart(house: &House) -> usize {
    let mut count = 0;
    for epoch in LogReader::open(&house.options.log()).unwrap().epochs() {
        let (record, batches) = epoch.unwrap();
        let entries: Vec<_> = batches.iter().flat_map(|batch| &batch.entries).collect();
        let apart = entries.iter().filter(|entry| entry.attempt >= APART_ATTEMPT).count();
        assert!(apart == 0 || apart == entries.len(), "{} is not a group's own", record.number);
        if entries.iter().any(|entry| entry.attempt == STRAY_ATTEMPTS_MAX) {
            assert_eq!(entries.len(), 1, "{} is not one transaction's own", record.number);
        }
        count += apart;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn chases_of_pointers_that_never_rest_come_to_an_end() {
    let house = House::in_memory(Shape::new(2, 2, 2));
    let running = house.start().await;
    let first = running.client().await;
    let begun = running.run(&first, (0..POINTERS).map(change).collect()).await;
    assert!(begun.iter().all(|result| result.as_ref().unwrap().is_committed()));

    let (apart, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let next = Arc::new(AtomicU64::new(POINTERS));
    let mut changers = Vec::new();
    for client in running.clients(usize::try_from(CHANGERS).unwrap()).await {
        changers.push(tokio::spawn(keep_changing(client, next.clone(), stop.clone())));
    }
    let mut chasers = Vec::new();
    let clients = running.clients(usize::try_from(CHASERS).unwrap()).await;
    for (client, chaser) in clients.into_iter().zip(0..) {
        chasers.push(tokio::spawn(keep_chasing(client, chaser, apart.clone())));
    }
    let mut receipts = Vec::new();
    let mut attempts: BTreeMap<u8, u32> = BTreeMap::new();
    for chaser in chasers {
        let chased = running.within(chaser).await.unwrap();
        chased.iter().for_each(|receipt| *attempts.entry(receipt.attempt).or_default() += 1);
        receipts.extend(chased);
    }
    stop.store(true, Ordering::Release);
    for changer in changers {
        receipts.extend(running.within(changer).await.unwrap());
    }

    let status = running.settled().await;
    let replayed = Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    for receipt in &receipts {
        assert!(receipt.is_committed(), "{receipt:?}");
        assert_eq!(replayed.told(&receipt.id).as_ref(), Some(receipt), "one receipt, with strays");
    }
    assert!(replayed.outcomes.strayed >= u64::from(APART_ATTEMPT));
    println!("chases by how often they strayed: {attempts:?}");
    // Each attempt from the first that is apart to the one that gave the receipt.
    let ran = |(attempt, count): (&u8, &u32)| u32::from(attempt - APART_ATTEMPT + 1) * count;
    let apart: u32 = attempts.range(APART_ATTEMPT..).map(ran).sum();
    assert_eq!(check_apart(&house), usize::try_from(apart).unwrap());
    running.stop().await;
}
