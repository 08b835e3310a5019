//! One token that everybody uses. Its code stands on every partition, so that nobody has to ask the
//! partition of its address; `cargo run --release -p parsec --example one_token` shows the same of
//! as many transfers as one wants.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use bytes::Bytes;
use parsec_bench::workload::{
    Erc20, Erc20Options, LoadTransaction, PaymentOptions, Spread, Workload,
};
use parsec_executor::Traffic;
use parsec_protocol::{PartitionId, PartitionMap, Transaction};
use parsec_runtimes::evm::keys;
use parsec_tests::{House, Replayed, Running, Shape, Wallet};

use crate::assembly::deployer;

const TRANSFERS: usize = 1_600;

type Traffics = BTreeMap<PartitionId, Traffic>;

fn workload(chain_id: u64, seed: u64, percent: u8) -> Erc20 {
    let payments = PaymentOptions { seed, accounts: 256, ..PaymentOptions::default() };
    let spread = Spread { partitions: 4, percent, participants: 3 };
    Erc20::spread(Erc20Options { payments, chain_id }, spread).unwrap()
}

fn owner(address: &Address) -> PartitionId {
    PartitionMap::even(4).unwrap().owner(&keys::account(address))
}

async fn commit(running: &Running, transactions: Vec<Transaction>) {
    let client = running.client().await;
    for part in transactions.chunks(400) {
        for result in running.run(&client, part.to_vec()).await {
            let receipt = result.unwrap();
            assert!(receipt.is_committed(), "{receipt:?}");
        }
    }
}

fn transactions(load: Vec<LoadTransaction>) -> Vec<Transaction> {
    load.into_iter().map(|load| load.transaction).collect()
}

/// What each partition has to do for some transactions, those of each submission by themselves.
async fn traffic_of(running: &Running, submissions: Vec<Vec<Transaction>>) -> Traffics {
    running.settled().await;
    let before = running.cluster.traffic();
    for transactions in submissions {
        commit(running, transactions).await;
    }
    running.settled().await;
    let after = running.cluster.traffic().into_iter();
    after.map(|(partition, traffic)| (partition, traffic.since(before[&partition]))).collect()
}

/// Sets a token up and teaches its footprints to the cluster; then counts what its transfers cost.
async fn transfers(running: &Running, mut workload: Erc20) -> Traffics {
    for stage in workload.setup() {
        commit(running, transactions(stage.transactions)).await;
    }
    commit(running, transactions(workload.build(50, &|_| {}))).await;
    let load = transactions(workload.build(TRANSFERS, &|_| {}));
    let traffic = traffic_of(running, vec![load]).await;
    let client = running.client().await;
    running.within(workload.audit().run(&client, true)).await.unwrap();
    traffic
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partition_of_a_tokens_address_has_no_more_to_do_than_others() {
    let house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let running = house.start().await;

    // Where all keys but the token's code are on one partition, nothing is exchanged at all.
    let alone = transfers(&running, workload(chain_id, 1, 0)).await;
    for (partition, traffic) in &alone {
        let homed = traffic.homed;
        assert_eq!(*traffic, Traffic { homed, ..Traffic::default() }, "{partition}");
        assert!(homed > 0, "{partition}");
    }

    // Where transfers need three partitions, that of the token has its share and not more.
    let spread = workload(chain_id, 2, 100);
    let token = owner(&spread.token());
    let shared = transfers(&running, spread).await;
    println!("the token is on {token}: {shared:#?}");
    let counts: [fn(&Traffic) -> u64; 4] =
        [|t| t.homed, |t| t.participations, |t| t.pushes_sent, |t| t.pushes_received];
    for count in counts {
        let (own, all) = (count(&shared[&token]), shared.values().map(count).sum::<u64>());
        let mean = all / 4;
        assert!(all >= TRANSFERS as u64 && own.abs_diff(mean) * 10 < mean, "{shared:?}");
    }
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}

/// The counts would show it if a contract's own partition were asked: here each call asks for the
/// contract's balance. One after the other: those of a batch would leave it to one another.
#[tokio::test(flavor = "multi_thread")]
async fn a_contract_that_consults_its_own_balance_has_traffic_at_home() {
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let mut wallets: Vec<_> =
        (0..16).map(|number| Wallet::new(number, house.options.chain_id)).collect();
    let contract = wallets[0].next_contract();
    // SELFBALANCE POP STOP
    let deployment = wallets[0].sign(None, deployer(&[0x47, 0x50, 0x00]));
    commit(&running, vec![deployment]).await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        let call = |wallet: &mut Wallet| vec![wallet.sign(Some(contract), Bytes::new())];
        calls.extend(wallets.iter_mut().map(call));
    }
    let count = calls.len() as u64;
    let traffic = traffic_of(&running, calls).await[&owner(&contract)];
    assert!(traffic.homed + traffic.participations >= count, "{traffic:?}");
    running.stop().await;
}
