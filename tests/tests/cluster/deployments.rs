//! Contracts that come into being while others call them: their code stands on every partition.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use parsec_bench::contracts;
use parsec_client::{Client, Error, Submission};
use parsec_protocol::message::ReadAt;
use parsec_protocol::{Outcome, PartitionId, Receipt, Transaction, Value};
use parsec_runtimes::evm::keys;
use parsec_runtimes::lua::{self, LuaCall, LuaValue};
use parsec_runtimes::native::{Program, key};
use parsec_tests::{HeldStores, House, Replayed, Running, Shape, Wallet};

const SUPPLY: u64 = 1_000_000;

/// Someone who deploys a token, and pays from it at once.
struct Issuer {
    wallet: Wallet,
    token: Address,
}

impl Issuer {
    fn new(number: u64, chain_id: u64) -> Self {
        let wallet = Wallet::new(number, chain_id);
        Self { token: wallet.next_contract(), wallet }
    }

    fn deployment(&mut self) -> Transaction {
        let input = contracts::deploy_token("Token", "T", U256::from(SUPPLY));
        self.wallet.sign(None, input)
    }

    fn payment(&mut self, to: Address, amount: u64) -> Transaction {
        self.wallet.sign(Some(self.token), contracts::transfer(to, U256::from(amount)))
    }
}

/// A Lua payment from one account to another.
fn lua_payment(contract: [u8; 32], number: u8) -> Transaction {
    let account = |n: u8| LuaValue::from(&[n % 5; 32][..]);
    let arguments = [account(number), account(number + 1), LuaValue::Int(0)];
    LuaCall::invoke(contract, "transfer", arguments).into_transaction(u128::from(number))
}

/// A contract like `pay`, but with an id of its own.
fn lua_source(number: u8) -> String {
    format!("-- {number}\n{}", lua::PAY)
}

/// What each client sends at once: deployments, and calls of what others deploy meanwhile.
fn mixture(client: u8, chain_id: u64) -> Vec<Transaction> {
    let mut own = Issuer::new(u64::from(client), chain_id);
    let others: Vec<_> = (0..4).map(|n| Issuer::new(n, chain_id)).collect();
    // Another account, that calls what does not belong to it and may not be there.
    let mut caller = Wallet::new(100 + u64::from(client), chain_id);
    let mut all = Vec::new();
    all.push(own.deployment());
    for round in 0..8 {
        all.push(own.payment(caller.address(), 10));
        let token = others[usize::from((client + round) % 4)].token;
        all.push(caller.sign(Some(token), contracts::balance_of(caller.address())));
        // Two clients deploy each contract.
        let source = lua_source((client + round) / 2);
        let contract = lua::contract_id(source.as_bytes());
        let salt = u128::from(client) << 8 | u128::from(round);
        all.push(LuaCall::deploy(source).into_transaction(salt));
        all.push(lua_payment(contract, 16 * client + round));
        all.push(Program::new().add(&key("calls").unwrap(), 1).into_transaction(salt));
    }
    all
}

async fn submit_by_parts(client: &Client, transactions: &[Transaction]) -> Vec<Receipt> {
    let mut submissions = Vec::new();
    for part in transactions.chunks(9) {
        submissions.push(client.submit(part.to_vec()).await.unwrap());
    }
    let mut receipts = Vec::new();
    for submission in submissions {
        let results: Result<Vec<_>, Error> = submission.wait_all().await.into_iter().collect();
        receipts.extend(results.unwrap());
    }
    receipts
}

#[tokio::test(flavor = "multi_thread")]
async fn contracts_are_called_while_they_are_deployed() {
    let house = House::in_memory(Shape::new(3, 2, 2));
    let chain_id = house.options.chain_id;
    let running = house.start().await;
    let clients = running.clients(4).await;
    let mut tasks = Vec::new();
    for (client, number) in clients.iter().cloned().zip(0..) {
        let transactions = mixture(number, chain_id);
        tasks.push(tokio::spawn(async move { submit_by_parts(&client, &transactions).await }));
    }
    let mut receipts = Vec::new();
    for task in tasks {
        receipts.extend(running.within(task).await.unwrap());
    }
    let status = running.settled().await;
    let replayed = Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    for receipt in &receipts {
        assert_eq!(replayed.told(&receipt.id).as_ref(), Some(receipt));
    }
    // Deployments come first in their accounts, and nothing keeps them from committing.
    for number in 0..4 {
        let issuer = Issuer::new(number, chain_id);
        assert!(replayed.oracle.get(&keys::code_record(&issuer.token)).is_some(), "{number}");
    }
    let committed = receipts.iter().filter(|receipt| receipt.is_committed()).count();
    let reverted = receipts.iter().filter(|r| matches!(r.outcome, Outcome::Reverted(_))).count();
    println!("{committed} committed, {reverted} reverted, {} strayed", replayed.outcomes.strayed);
    assert!(committed > 40 && reverted > 0, "{committed} committed, {reverted} reverted");

    // Code that was deployed is read on every partition, by everyone, from now on.
    let mut late = Issuer::new(50, chain_id);
    let first = late.deployment();
    assert!(clients[0].submit_one(first).await.unwrap().is_committed());
    let payments = (1..31).map(|n| late.payment(Address::repeat_byte(n), 5));
    for receipt in submit_by_parts(&clients[0], &payments.collect::<Vec<_>>()).await {
        assert!(receipt.is_committed(), "{receipt:?}");
    }
    let slots = (1..31).map(|n| {
        let slot = contracts::balance_slot(Address::repeat_byte(n));
        keys::storage(&late.token, 0, U256::from_be_bytes(slot.0))
    });
    let (_, balances) = clients[1].read(&slots.collect::<Vec<_>>(), ReadAt::Latest).await.unwrap();
    assert!(balances.iter().all(|balance| *balance == keys::encode_word(U256::from(5))));
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}

/// What a client was told of has happened for what is submitted next, even if a partition is slow to
/// write: no trial sees an older state, so that a call does not stray because its contract or its
/// pointer seems not to be there yet.
async fn what_was_acknowledged_is_seen(by_another: bool) {
    let stores = HeldStores::default();
    let mut house = House::in_memory(Shape::FOUR);
    house.options.stores = Some(stores.open());
    let running = house.start().await;
    running.settled().await;
    let first = running.client().await;
    let next = if by_another { running.client().await } else { first.clone() };
    let [pointer, target] = ["pointer", "target"].map(|name| key(name).unwrap());
    stores.hold(&(0..4).map(PartitionId).collect::<Vec<_>>());
    let put = Program::new().put(&pointer, Value::copy_from_slice(target.encoded()));
    let put = running.within(first.submit_one(put.into_transaction(1))).await.unwrap();
    assert!(put.is_committed());
    let chase = Program::new().chase(&pointer, 1, Some("there".into())).into_transaction(2);
    let (chase, ()) = running
        .within(async {
            tokio::join!(next.submit_one(chase), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stores.hold(&[]);
            })
        })
        .await;
    let chase = chase.unwrap();
    assert!(chase.is_committed());
    assert_eq!(chase.attempt, 0, "it strayed: its footprint was found in an older state");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_seen_by_the_next_submission() {
    what_was_acknowledged_is_seen(false).await;
}

/// One application may have several connections, and what it does on one of them may follow from
/// what it was told on another: an account that was paid over the first pays over the second.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_seen_by_submissions_on_other_connections() {
    what_was_acknowledged_is_seen(true).await;
}

/// Waits for the receipts of submissions, all of which have to commit without a stray.
async fn assert_committed_at_once(running: &Running, submissions: Vec<Submission>) {
    for result in running.results(submissions).await {
        let receipt = result.unwrap();
        assert!(receipt.is_committed(), "{receipt:?}");
        assert_eq!(receipt.attempt, 0, "{receipt:?}");
    }
}

/// A token, a Lua contract, and calls of both, in the order in which they are to happen.
fn deployed_and_called(number: u64, chain_id: u64) -> Vec<Transaction> {
    let mut issuer = Issuer::new(number, chain_id);
    let source = format!("-- of its own: {number}\n{}", lua::PAY);
    let contract = lua::contract_id(source.as_bytes());
    let salt = u128::from(number) << 32;
    vec![
        issuer.deployment(),
        issuer.payment(Address::repeat_byte(0x51), 10),
        LuaCall::deploy(source).into_transaction(salt),
        lua_payment(contract, 1),
        issuer.payment(Address::repeat_byte(0x52), 10),
        lua_payment(contract, 2),
    ]
}

/// A trial knows what the transactions before it deploy, in its own submission and in those before
/// that are not executed yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_called_right_behind_its_deployment() {
    let house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let running = house.start().await;
    let client = running.client().await;
    for number in 60..70 {
        let transactions = deployed_and_called(number, chain_id);
        let mut submissions = Vec::new();
        for part in transactions.chunks(if number % 2 == 0 { 6 } else { 1 }) {
            submissions.push(client.submit(part.to_vec()).await.unwrap());
        }
        assert_committed_at_once(&running, submissions).await;
    }
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}
