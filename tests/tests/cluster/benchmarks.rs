//! Every workload of the benchmark on a cluster of four partitions: it runs, its audit passes, and
//! one thread makes the same of it.

use std::time::Duration;

use parsec_bench::draw::Skew;
use parsec_bench::load::{self, Cancelled, LoadOptions};
use parsec_bench::workload::{Commits, Reverts, Stage, WorkloadName, WorkloadSpec};
use parsec_client::Client;
use parsec_protocol::{Outcome, PartitionId, Transaction};
use parsec_runtimes::evm::keys::{self, AccountRecord};
use parsec_tests::{HeldStores, House, Replayed, Running, Shape};

/// Transactions of each workload.
const LOAD: usize = 400;
/// Transactions in one submission: of a sender of Ethereum transactions there is one among them
/// where they may stray, since a stray loses its place.
const SUBMISSION: usize = 50;
/// As many mints at once as there may be attempts for one: in each round of attempts at least one
/// mint finds the counter as it was tried, and the others stray.
const MINTS: usize = 8;

fn small(workload: WorkloadName, chain_id: u64) -> WorkloadSpec {
    // Each a seed of its own: with the same one, both kinds of native transfers have the same
    // accounts.
    let seed = (1..).zip(WorkloadName::ALL).find(|(_, name)| *name == workload).unwrap().0;
    let mut spec = WorkloadSpec::new(workload, seed, chain_id);
    let has = |knob| workload.knobs().contains(&knob);
    spec.accounts = has("accounts").then_some(64);
    spec.warehouses = has("warehouses").then_some(4);
    spec.items = has("items").then_some(300);
    spec.customers = has("customers").then_some(40);
    spec.rounds = has("rounds").then_some(10);
    if workload == WorkloadName::Nft {
        spec.skew = Some(Skew::Turns);
    }
    spec
}

/// How many of the transactions committed and reverted.
async fn submit(
    running: &Running,
    client: &Client,
    transactions: Vec<Transaction>,
    at_once: usize,
) -> (u64, u64) {
    let (mut committed, mut reverted) = (0, 0);
    for part in transactions.chunks(at_once) {
        for result in running.run(client, part.to_vec()).await {
            let receipt = result.unwrap();
            match receipt.outcome {
                Outcome::Committed => committed += 1,
                Outcome::Reverted(_) => reverted += 1,
                _ => panic!("{receipt:?}"),
            }
        }
    }
    (committed, reverted)
}

async fn run(running: &Running, client: &Client, spec: &WorkloadSpec) {
    let mut workload = spec.open().unwrap();
    for Stage { transactions, tolerated, .. } in workload.setup() {
        let transactions: Vec<_> = transactions.into_iter().map(|load| load.transaction).collect();
        let (_, reverted) = submit(running, client, transactions, SUBMISSION).await;
        assert!(reverted == 0 || tolerated.is_some(), "{spec}");
    }
    let load = workload.build(LOAD, &|_| {}).into_iter().map(|load| load.transaction).collect();
    let at_once = if spec.workload == WorkloadName::Nft { MINTS } else { SUBMISSION };
    let (committed, reverted) = submit(running, client, load, at_once).await;
    match workload.reverts() {
        Reverts::Never => assert_eq!(reverted, 0, "{spec}"),
        Reverts::Exactly(expected) => assert_eq!(reverted, expected, "{spec}"),
        Reverts::Perhaps(_) => {}
    }
    let commits = match workload.reverts() {
        Reverts::Perhaps(_) => Commits::Between { least: committed, most: committed },
        Reverts::Never | Reverts::Exactly(_) => Commits::All,
    };
    let audit = workload.audit();
    let verified = running.within(audit.verify(client, commits)).await;
    verified.unwrap_or_else(|error| panic!("{spec}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workload_runs_on_a_cluster_as_on_one_thread() {
    let mut house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let specs = WorkloadName::ALL.map(|name| small(name, chain_id));
    for (address, balance) in specs.iter().flat_map(|spec| spec.open().unwrap().genesis()) {
        let record = AccountRecord { balance, nonce: 0 }.encode();
        house.options.genesis.entries.push((keys::account(&address), record));
    }
    let running = house.start().await;
    let client = running.client().await;
    for spec in &specs {
        run(&running, &client, spec).await;
    }
    let status = running.settled().await;
    Replayed::checking(&house.options, &[]).assert_agrees(&status);
}

/// A load begins on several connections as soon as its set-up is answered on one of them, however
/// far the stores are behind. No payer may seem not to be paid yet: its payment would stray, lose
/// its place, and make all that its account pays after it invalid.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_on_several_connections_sees_its_set_up() {
    let stores = HeldStores::default();
    let mut house = House::in_memory(Shape::FOUR);
    house.options.stores = Some(stores.open());
    let running = house.start().await;
    let clients = load::connect(running.cluster.client_config(), 4).await.unwrap();
    let mut workload = small(WorkloadName::Erc20, house.options.chain_id).open().unwrap();
    for Stage { transactions, .. } in workload.setup() {
        stores.hold(&[]);
        running.settled().await;
        stores.hold(&(0..4).map(PartitionId).collect::<Vec<_>>());
        let transactions: Vec<_> = transactions.into_iter().map(|load| load.transaction).collect();
        let all = transactions.len();
        assert_eq!(submit(&running, &clients[0], transactions, all).await, (all as u64, 0));
    }
    // Of the last stage, nothing has reached the stores.
    let transactions = workload.build(LOAD, &|_| {});
    let options = LoadOptions { in_flight: LOAD, batch: SUBMISSION, ..LoadOptions::default() };
    let never = Cancelled::never();
    let (report, ()) = running
        .within(async {
            tokio::join!(
                load::run("payments", &clients, transactions, &options, &never, &|_| {}),
                async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    stores.hold(&[]);
                }
            )
        })
        .await;
    let report = report.unwrap();
    assert_eq!(report.committed, LOAD as u64, "{report:?}");
    let status = running.settled().await;
    Replayed::checking(&house.options, &[]).assert_agrees(&status);
    running.stop().await;
}
