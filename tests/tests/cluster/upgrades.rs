//! Contracts that are replaced while others call them: every call runs the code, old or new, that the
//! agreed order says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloy_primitives::{Address, B256, U256, keccak256};
use bytes::Bytes;
use parsec_cli::genesis::Genesis;
use parsec_client::Client;
use parsec_protocol::{Key, Namespace, Position, Receipt, Value};
use parsec_runtimes::evm::{self, ChainParams};
use parsec_runtimes::native::{Program, Results, TABLE_FIRST};
use parsec_tests::{House, Replayed, Running, Shape, Wallet};
use tokio::sync::watch;

use crate::assembly::{deployer, factory, metamorphic, proxy, versioned, word};

/// Versions of a contract, each with code of its own.
const VERSIONS: u8 = 12;
const CLIENTS: usize = 3;
const CALLERS_PER_CLIENT: u64 = 4;
const CALLERS: u64 = CLIENTS as u64 * CALLERS_PER_CLIENT;

/// What calls must return, by when it came to be so; `None` where there is no contract.
#[derive(Default)]
struct Timeline(Vec<(Position, Option<u8>)>);

impl Timeline {
    fn push(&mut self, receipt: &Receipt, version: Option<u8>) {
        assert!(receipt.is_committed(), "{receipt:?}");
        assert!(self.0.last().is_none_or(|(last, _)| *last < receipt.position));
        self.0.push((receipt.position, version));
    }

    /// What a call at that position must return.
    fn at(&self, position: Position) -> Option<u8> {
        let before = self.0.partition_point(|(change, _)| *change < position);
        self.0[..before].last().and_then(|(_, version)| *version)
    }

    /// Checks what calls have returned. Returns how many versions they have seen, the absence of one
    /// among them.
    fn check(&self, calls: &[Receipt], output: fn(&Receipt) -> Option<u8>) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        for receipt in calls {
            assert!(receipt.is_committed(), "{receipt:?}");
            let expected = self.at(receipt.position);
            assert_eq!(output(receipt), expected, "{receipt:?}");
            seen.insert(expected);
        }
        seen.len()
    }
}

/// How many calls were answered so far.
#[derive(Clone)]
struct Answered(watch::Sender<u64>);

impl Answered {
    fn none() -> Self {
        Self(watch::Sender::new(0))
    }

    fn one_more(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Waits until a call was answered that was made after now, if `callers` make one at a time.
    async fn a_new_one(&self, callers: u64) {
        let mut answered = self.0.subscribe();
        let old = *answered.borrow() + callers;
        answered.wait_for(|count| *count > old).await.unwrap();
    }
}

/// What a versioned contract returned: a word; nothing if it was not there.
fn returned(receipt: &Receipt) -> Option<u8> {
    receipt.output.last().copied()
}

async fn submit(client: &Client, transaction: parsec_protocol::Transaction) -> Receipt {
    client.submit_one(transaction).await.unwrap()
}

/// Has accounts of several clients call a contract, one call of each at a time, until `upgrade`
/// is done. Returns the receipts of all calls.
async fn called_while(
    running: &Running,
    contract: Address,
    chain_id: u64,
    answered: &Answered,
    upgrade: impl Future<Output = ()>,
) -> Vec<Receipt> {
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for (client, number) in running.clients(CLIENTS).await.into_iter().zip(0..) {
        for caller in 0..CALLERS_PER_CLIENT {
            let mut wallet = Wallet::new(100 + number * CALLERS_PER_CLIENT + caller, chain_id);
            let (client, done, answered) = (client.clone(), done.clone(), answered.clone());
            callers.push(tokio::spawn(async move {
                let mut receipts = Vec::new();
                while !done.load(Ordering::Acquire) {
                    let call = wallet.sign(Some(contract), Bytes::new());
                    receipts.push(submit(&client, call).await);
                    answered.one_more();
                }
                receipts
            }));
        }
    }
    running.within(upgrade).await;
    done.store(true, Ordering::Release);
    let mut receipts = Vec::new();
    for caller in callers {
        receipts.extend(running.within(caller).await.unwrap());
    }
    receipts
}

/// Checks that the cluster has come to what one thread makes of the order, and told its clients so.
async fn check_against_one_thread(house: &House, running: Running, calls: &[Receipt]) -> u64 {
    let status = running.settled().await;
    let replayed = Replayed::of(&house.options);
    replayed.assert_agrees(&status);
    for receipt in calls {
        assert_eq!(replayed.told(&receipt.id).as_ref(), Some(receipt));
    }
    running.stop().await;
    replayed.outcomes.strayed
}

/// Deploys all versions. Returns their addresses.
async fn deploy_versions(client: &Client, owner: &mut Wallet) -> Vec<Address> {
    let mut versions = Vec::new();
    for version in 1..=VERSIONS {
        versions.push(owner.next_contract());
        let deployment = owner.sign(None, deployer(&versioned(version)));
        assert!(submit(client, deployment).await.is_committed());
    }
    versions
}

/// A proxy's pointer is switched to code that was deployed a moment ago: it stands on one partition,
/// the code that it points to on all.
#[tokio::test(flavor = "multi_thread")]
async fn calls_through_a_proxy_see_the_implementation_of_their_place_in_the_order() {
    let house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let running = house.start().await;
    let client = running.client().await;
    let mut owner = Wallet::new(1, chain_id);
    let contract = owner.next_contract();
    assert!(submit(&client, owner.sign(None, deployer(&proxy()))).await.is_committed());
    let mut timeline = Timeline::default();
    let answered = Answered::none();
    // A proxy to nowhere calls an account without code: it returns the memory that nobody wrote.
    let upgrades = async {
        for version in 1..=VERSIONS {
            let implementation = owner.next_contract();
            let deployment = owner.sign(None, deployer(&versioned(version)));
            let switch =
                owner.sign(Some(contract), word(U256::from_be_slice(implementation.as_slice())));
            assert!(submit(&client, deployment).await.is_committed());
            timeline.push(&submit(&client, switch).await, Some(version));
            answered.a_new_one(CALLERS).await;
        }
    };
    let calls = called_while(&running, contract, chain_id, &answered, upgrades).await;
    let or_zero = |receipt: &Receipt| returned(receipt).filter(|version| *version > 0);
    let seen = timeline.check(&calls, or_zero);
    let strayed = check_against_one_thread(&house, running, &calls).await;
    println!("{} calls saw {seen} versions; {strayed} strays", calls.len());
    assert!(seen >= usize::from(VERSIONS), "{} calls saw {seen} versions", calls.len());
}

/// Under the rules before Cancun a contract can destroy itself and be created again with other code:
/// writes to replicated keys, of which every partition is a participant.
#[tokio::test(flavor = "multi_thread")]
async fn calls_see_the_code_of_their_place_in_the_order_while_it_is_replaced() {
    let mut house = House::in_memory(Shape::FOUR);
    let chain_id = house.options.chain_id;
    let params = ChainParams { fork: "Shanghai".to_owned(), ..ChainParams::new(chain_id) };
    house.options.genesis = Genesis { entries: evm::genesis(&params, &Default::default()) };
    let running = house.start().await;
    let client = running.client().await;
    let mut owner = Wallet::new(1, chain_id);
    let factory_at = owner.next_contract();
    assert!(submit(&client, owner.sign(None, deployer(&factory()))).await.is_committed());
    let versions = deploy_versions(&client, &mut owner).await;
    let contract = factory_at.create2(B256::ZERO, keccak256(metamorphic()));

    let mut timeline = Timeline::default();
    let answered = Answered::none();
    let replacements = async {
        for (code, version) in versions.iter().zip(1..) {
            let create = owner.sign(Some(factory_at), word(U256::from_be_slice(code.as_slice())));
            timeline.push(&submit(&client, create).await, Some(version));
            answered.a_new_one(CALLERS).await;
            let destroy = owner.sign(Some(contract), word(U256::ONE));
            timeline.push(&submit(&client, destroy).await, None);
        }
    };
    let calls = called_while(&running, contract, chain_id, &answered, replacements).await;
    let seen = timeline.check(&calls, returned);
    let strayed = check_against_one_thread(&house, running, &calls).await;
    println!("{} calls saw {seen} versions; {strayed} strays", calls.len());
    assert!(seen >= usize::from(VERSIONS), "{} calls saw {seen} versions", calls.len());
}

/// Two replicated keys that are only ever written together, while transactions at home on every
/// partition read both.
#[tokio::test(flavor = "multi_thread")]
async fn replicated_keys_that_are_written_together_are_read_together() {
    let house = House::in_memory(Shape::new(3, 2, 2));
    let running = house.start().await;
    let replicated = |name: &[u8]| Key::new(Namespace::replicated(TABLE_FIRST), name).unwrap();
    let keys = [replicated(b"code"), replicated(b"more code")];
    let done = Arc::new(AtomicBool::new(false));
    let answered = Answered::none();
    let mut readers = Vec::new();
    for (client, number) in running.clients(CLIENTS).await.into_iter().zip(0u128..) {
        let (keys, done, answered) = (keys.clone(), done.clone(), answered.clone());
        readers.push(tokio::spawn(async move {
            let mut receipts = Vec::new();
            let mut salts = (number << 64..).step_by(16);
            while !done.load(Ordering::Acquire) {
                let salt = salts.next().unwrap();
                // Adding to a key of its own sends each to another home.
                let read = |n: u128| {
                    let own = parsec_runtimes::native::key((salt + n).to_be_bytes()).unwrap();
                    let program = Program::new().get(&keys[0]).add(&own, 1).get(&keys[1]);
                    program.into_transaction(salt + n)
                };
                let submission = client.submit((0..16).map(read).collect()).await.unwrap();
                let results = submission.wait_all().await;
                receipts.extend(results.into_iter().map(Result::unwrap));
                answered.one_more();
            }
            receipts
        }));
    }
    let client = running.client().await;
    let mut timeline = Timeline::default();
    for version in 1..=60 {
        let value = || Value::copy_from_slice(&[version]);
        let program = Program::new().put(&keys[0], value()).put(&keys[1], value());
        let write = program.into_transaction(u128::MAX - u128::from(version));
        let receipt = running.within(submit(&client, write)).await;
        timeline.push(&receipt, Some(version));
        if version % 3 == 0 {
            running.within(answered.a_new_one(CLIENTS as u64)).await;
        }
    }
    done.store(true, Ordering::Release);
    let mut reads = Vec::new();
    for reader in readers {
        reads.extend(running.within(reader).await.unwrap());
    }
    let both = |receipt: &Receipt| {
        let values = Results::decode(&receipt.output).unwrap().values;
        assert_eq!(values[0], values[1], "{receipt:?}");
        values[0].as_ref().map(|value| value[0])
    };
    let seen = timeline.check(&reads, both);
    let strayed = check_against_one_thread(&house, running, &reads).await;
    println!("{} reads saw {seen} versions; {strayed} strays", reads.len());
    assert!(seen >= 20, "{} reads saw {seen} versions", reads.len());
}
