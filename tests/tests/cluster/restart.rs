//! Clusters that end, in order or not, and start again: nothing that was acknowledged is lost, and
//! nothing takes effect twice.

use std::time::Duration;

use parsec_protocol::message::ReadAt;
use parsec_protocol::{Key, PartitionId, Receipt, Transaction};
use parsec_runtimes::native::{Program, key};
use parsec_tests::{HeldStores, House, Replayed, Running, Shape, Sighting, copy_log};

use crate::load::{CLIENTS, History, Load};
use crate::workload::{all_keys, sample};

/// Loads a cluster, stops and starts it, and goes on, some times. After each start everything is
/// submitted once more, which must change nothing.
async fn stop_and_go_on(house: &House) {
    let mut history = History::default();
    for rounds in sample(9, 80, CLIENTS).chunks(3) {
        let running = house.start().await;
        let before = running.settled().await;
        history.submit_again(&running).await;
        let after = running.settled().await;
        assert_eq!(after.transactions, before.transactions, "something was ordered again");
        history.sightings.push(look(&running).await);
        history.check(house, &after);
        let mut load = Load::new(&running, 10, history).await;
        for round in rounds {
            load.run(&running, round).await;
        }
        history = load.history;
        running.stop().await;
    }
    let running = house.start().await;
    let status = running.settled().await;
    history.check(house, &status);
    running.stop().await;
}

async fn look(running: &Running) -> Sighting {
    let (client, keys) = (running.client().await, all_keys());
    let (epoch, values) = running.within(client.read(&keys, ReadAt::Latest)).await.unwrap();
    Sighting { epoch, values: keys.into_iter().zip(values).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_on_disk_goes_on_after_a_stop() {
    stop_and_go_on(&House::on_disk(Shape::new(2, 2, 2))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_that_lost_everything_are_rebuilt_from_the_log() {
    stop_and_go_on(&House::in_memory(Shape::new(2, 1, 1))).await;
}

/// The counter with that number, and the transactions that count on it.
fn counting(counter: u64, count: u64) -> (Key, Vec<Transaction>) {
    let key = key(counter.to_be_bytes()).unwrap();
    let salt = |number: u64| u128::from(counter) << 64 | u128::from(number);
    let one = |number| Program::new().add(&key, 1).into_transaction(salt(number));
    let transactions = (0..count).map(one).collect();
    (key, transactions)
}

/// The log is copied in the middle of a load, as a crash of all hosts at that moment would leave
/// it. What had been acknowledged by then is in the copy; what had not is submitted again and takes
/// effect once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_in_the_log_at_any_moment() {
    const COUNTERS: u64 = 6;
    const COUNT: u64 = 400;
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let client = running.client().await;
    let mut acknowledged = Vec::new();
    for counter in 0..COUNTERS {
        let (_, transactions) = counting(counter, COUNT);
        let mut submission = client.submit(transactions.clone()).await.unwrap();
        let enough = usize::try_from(COUNT * (counter + 1) / (COUNTERS + 1)).unwrap();
        let mut told = Vec::new();
        while told.len() < enough {
            let next = running.within(submission.next()).await;
            let (index, result) = next.expect("there are more");
            told.push((transactions[index].clone(), result.unwrap()));
        }
        acknowledged.extend(told);
        let image = House::in_memory(Shape::FOUR);
        copy_log(&house.options.log(), &image.options.log());
        check_image(&image, &acknowledged, counter + 1, COUNT).await;
        // The original goes on as if nothing had happened.
        while let Some((index, result)) = running.within(submission.next()).await {
            acknowledged.push((transactions[index].clone(), result.unwrap()));
        }
    }
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}

async fn check_image(
    image: &House,
    acknowledged: &[(Transaction, Receipt)],
    counters: u64,
    count: u64,
) {
    let running = image.start().await;
    let client = running.client().await;
    let transactions = acknowledged.iter().map(|(transaction, _)| transaction.clone()).collect();
    let results = running.run(&client, transactions).await;
    for (result, (_, receipt)) in results.iter().zip(acknowledged) {
        assert_eq!(result.as_ref(), Ok(receipt));
    }
    for counter in 0..counters {
        let (key, transactions) = counting(counter, count);
        let results = running.run(&client, transactions).await;
        assert!(results.iter().all(|result| result.as_ref().unwrap().is_committed()));
        let (_, values) = running.within(client.read(&[key], ReadAt::Latest)).await.unwrap();
        let mut expected = [0; 32];
        expected[24..].copy_from_slice(&count.to_be_bytes());
        assert_eq!(values[0].as_deref(), Some(&expected[..]), "counter {counter}");
    }
    let status = running.settled().await;
    Replayed::of(&image.options).assert_agrees(&status);
    running.stop().await;
}

/// Transfers from every key to every other, so that every partition has a part in each epoch.
fn crossing(salt: u128) -> Vec<Transaction> {
    let keys = all_keys();
    let pairs = keys.iter().flat_map(|from| keys.iter().map(move |to| (from, to)));
    let transfer = |((from, to), number): ((&Key, &Key), u128)| {
        Program::new().add(from, 3).transfer(from, to, 2).into_transaction(salt << 32 | number)
    };
    pairs.zip(0..).map(transfer).collect()
}

/// A crash leaves partitions at different epochs, on one host and on several: each gets from the
/// others what it needs to catch up.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_ended_at_different_epochs_catch_up() {
    let all_held: [&[u16]; 5] = [&[0], &[1], &[0, 3], &[1, 2, 3], &[2]];
    let stores = HeldStores::default();
    let mut house = House::in_memory(Shape::FOUR);
    let mut transactions = Vec::new();
    let mut told = Vec::new();
    for (held, salt) in all_held.into_iter().zip(0..) {
        house.options.stores = Some(stores.open());
        let running = house.start().await;
        let client = running.client().await;
        assert_eq!(running.run(&client, transactions.clone()).await, told);
        let status = running.settled().await;
        Replayed::of(&house.options).assert_agrees(&status);

        let held: Vec<_> = held.iter().map(|partition| PartitionId(*partition)).collect();
        stores.hold(&held);
        for part in crossing(salt).chunks(40) {
            told.extend(running.run(&client, part.to_vec()).await);
            transactions.extend_from_slice(part);
        }
        // Receipts need no store; those that are not held get on.
        let is_ahead = |id: &PartitionId| stores.applied()[id.index()] > status.ordered;
        let free: Vec<_> = (0..4).map(PartitionId).filter(|id| !held.contains(id)).collect();
        running.within(until(|| free.iter().all(is_ahead))).await;
        assert!(!held.iter().any(is_ahead), "what is held has written");
        stores.crash();
        drop(running);
        house = House::over_log_of(&house.options, Shape::FOUR);
    }
    house.options.stores = Some(stores.open());
    let running = house.start().await;
    let client = running.client().await;
    assert_eq!(running.run(&client, transactions).await, told);
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
