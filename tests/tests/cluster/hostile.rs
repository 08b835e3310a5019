//! Clients that mean harm, or were written badly: each of their transactions gets one clear
//! verdict, and everybody else goes on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parsec_client::Client;
use parsec_protocol::limits::{
    CLIENT_FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PROTOCOL_VERSION, SUBMISSION_TRANSACTIONS_MAX,
};
use parsec_protocol::message::{ReadAt, Verdict};
use parsec_protocol::transport::CloseCode;
use parsec_protocol::{ErrorCode, Key, Mode, RuntimeId, Transaction, Value};
use parsec_runtimes::evm::keys;
use parsec_runtimes::native::{Program, key};
use parsec_tests::{House, Replayed, Running, Shape, Wallet};

use crate::stranger::{Stranger, forged, framed, hello};

/// Where strangers connect.
struct Door {
    address: std::net::SocketAddr,
    ca: PathBuf,
}

impl Door {
    fn of(house: &House, running: &Running) -> Self {
        Self { address: running.cluster.address(), ca: house.options.ca() }
    }

    async fn stranger(&self) -> Stranger {
        Stranger::connect(self.address, &self.ca).await
    }

    async fn welcomed(&self) -> Stranger {
        Stranger::welcomed(self.address, &self.ca).await
    }
}

fn put(name: &str, salt: u128) -> Transaction {
    Program::new().put(&key(name).unwrap(), "there").into_transaction(salt)
}

fn declaring(keys: Vec<Bytes>) -> forged::Transaction {
    let footprint = forged::Footprint::of(keys.iter().map(|key| (&key[..], Mode::Write)));
    let footprint = Some(footprint);
    forged::Transaction { footprint, ..put("declared", 9).into() }
}

fn encoded(key: &Key) -> Bytes {
    Bytes::copy_from_slice(key.encoded())
}

/// Transactions that are refused, and why.
fn refusable(chain_id: u64) -> Vec<(forged::Transaction, ErrorCode)> {
    let plain = |runtime, payload: &'static [u8]| Transaction::new(runtime, payload).into();
    let signed = Wallet::new(1, chain_id).sign(None, Bytes::new());
    let mut no_signature = signed.payload.to_vec();
    let end = no_signature.len();
    no_signature[end - 32..].fill(0xff);
    let other_chain = Wallet::new(1, chain_id + 1).sign(None, Bytes::new());
    let salted = Transaction { salt: 1, ..signed };
    let [a, b] = ["a", "b"].map(|name| encoded(&key(name).unwrap()));
    let many = (0..5_000u32).map(|n| encoded(&key(n.to_be_bytes()).unwrap())).collect();
    let foreign = Program::new().put(&keys::params(), "mine").into_transaction(1);
    let late = Transaction { expires: Some(parsec_protocol::EpochNumber(0)), ..put("late", 1) };
    let long = Transaction::new(RuntimeId::NATIVE, vec![0; PAYLOAD_BYTES_MAX + 1]);
    vec![
        (Transaction::new(RuntimeId::EVM, no_signature).into(), ErrorCode::BadSignature),
        (other_chain.into(), ErrorCode::WrongChain),
        (salted.into(), ErrorCode::Malformed),
        (plain(RuntimeId::EVM, b"\x02garbage"), ErrorCode::Malformed),
        (plain(RuntimeId::NATIVE, b"garbage"), ErrorCode::Malformed),
        (plain(RuntimeId::LUA, b""), ErrorCode::Malformed),
        (plain(RuntimeId(9), b""), ErrorCode::UnknownRuntime),
        (plain(RuntimeId(255), b""), ErrorCode::UnknownRuntime),
        (plain(RuntimeId::SYSTEM, b""), ErrorCode::NotPermitted),
        (foreign.into(), ErrorCode::NotPermitted),
        (declaring(vec![b.clone(), a.clone()]), ErrorCode::BadFootprint),
        (declaring(vec![a.clone(), a.clone()]), ErrorCode::BadFootprint),
        (declaring(vec![Bytes::from_static(b"\0\x10\xffshort")]), ErrorCode::BadFootprint),
        (declaring(vec![vec![0; 2_000].into()]), ErrorCode::BadFootprint),
        (declaring(many), ErrorCode::BadFootprint),
        (long.into(), ErrorCode::TooLarge),
        (late.into(), ErrorCode::Expired),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_of_a_mixture_gets_its_own_verdict() {
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let before = running.settled().await.transactions;
    let mut stranger = Door::of(&house, &running).welcomed().await;
    let refusable = refusable(house.options.chain_id);
    // Good ones before, between and after, one of them three times.
    let mut transactions = vec![put("first", 1).into()];
    let mut expected = vec![None];
    for (transaction, code) in refusable {
        transactions.extend([transaction, put("first", 1).into()]);
        expected.extend([Some(code), None]);
    }
    transactions.push(put("last", 2).into());
    expected.push(None);
    stranger.submit(7, transactions).await;
    let (verdicts, receipts) = running.within(stranger.answers(1)).await;
    let [(7, verdicts)] = &verdicts[..] else { panic!("{verdicts:?}") };
    let found: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Accepted(_) => None,
            Verdict::Rejected { code, detail, .. } => {
                assert!(*code == ErrorCode::Expired || !detail.is_empty(), "{code:?}");
                Some(*code)
            }
        })
        .collect();
    assert_eq!(found, expected);
    let answered: BTreeSet<_> = receipts.iter().map(|item| (item.request, item.index)).collect();
    let accepted = (0u32..).zip(&expected).filter(|(_, code)| code.is_none());
    assert_eq!(answered, accepted.map(|(index, _)| (7, index)).collect());
    assert_eq!(receipts.len(), answered.len(), "an answer was given twice");
    assert!(receipts.iter().all(|item| item.receipt.is_committed()));
    let first = receipts.iter().find(|item| item.index == 0).unwrap();
    let same = receipts.iter().filter(|item| item.receipt == first.receipt);
    assert_eq!(same.count(), receipts.len() - 1);

    let status = running.settled().await;
    assert_eq!(status.transactions, before + 2);
    Replayed::of(&house.options).assert_agrees(&status);
    running.stop().await;
}

/// A client that behaves, all the while.
struct Witness {
    client: Client,
    counted: u64,
    slowest: Duration,
}

impl Witness {
    fn counter() -> Key {
        key("witness").unwrap()
    }

    /// Counts until told to stop.
    async fn run(mut self, stop: &tokio::sync::Notify) -> Self {
        let stopped = stop.notified();
        tokio::pin!(stopped);
        loop {
            let began = Instant::now();
            let one = Program::new().add(&Self::counter(), 1);
            let one = self.client.submit_one(one.into_transaction(u128::from(self.counted)));
            assert!(one.await.unwrap().is_committed());
            self.counted += 1;
            self.slowest = self.slowest.max(began.elapsed());
            let pause = tokio::time::sleep(Duration::from_millis(1));
            tokio::select! {
                () = &mut stopped => return self,
                () = pause => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_harm_those_who_behave() {
    let house = House::in_memory(Shape::FOUR);
    let running = house.start().await;
    let client = running.client().await;
    let witness = Witness { client: client.clone(), counted: 0, slowest: Duration::ZERO };
    let stop = std::sync::Arc::new(tokio::sync::Notify::new());
    let stop_ = stop.clone();
    let witness = tokio::spawn(async move { witness.run(&stop_).await });
    let door = Door::of(&house, &running);

    let stalled = stall(&door).await;
    running.within(say_nonsense(&door)).await;
    running.within(flood(&door)).await;
    let unread = running.within(never_read(&door, &client)).await;
    assert_eq!(running.within(unread.closed()).await, CloseCode::Unread);

    stop.notify_one();
    let witness = running.within(witness).await.unwrap();
    println!("counted {}, the slowest took {:?}", witness.counted, witness.slowest);
    assert!(witness.counted > 100, "counted {}", witness.counted);
    assert!(witness.slowest < Duration::from_secs(8), "waited {:?}", witness.slowest);
    let names = [Witness::counter(), key("stalled").unwrap()];
    let (_, values) = client.read(&names, ReadAt::Latest).await.unwrap();
    let mut expected = [0; 32];
    expected[24..].copy_from_slice(&witness.counted.to_be_bytes());
    assert_eq!(values, [Some(Value::copy_from_slice(&expected)), None]);
    let status = running.settled().await;
    Replayed::of(&house.options).assert_agrees(&status);
    drop(stalled);
    running.stop().await;
}

/// Clients that stop in the middle: of their hello, of a submission, and before saying anything.
async fn stall(door: &Door) -> Vec<Stranger> {
    let mut silent = vec![door.stranger().await];
    let mut half_hello = door.stranger().await;
    half_hello.say(&hello(PROTOCOL_VERSION)[..5]).await;
    silent.push(half_hello);
    for _ in 0..20 {
        let mut stranger = door.welcomed().await;
        let transactions = vec![put("stalled", 1).into()];
        let frame = framed(&forged::Message::Submit { request: 1, transactions });
        stranger.say(&frame[..frame.len() - 1]).await;
        silent.push(stranger);
    }
    silent
}

async fn say_nonsense(door: &Door) {
    let long = u32::try_from(CLIENT_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let garbage = [&100u32.to_le_bytes()[..], &[0xa5; 100]].concat();
    let many = vec![put("many", 1).into(); SUBMISSION_TRANSACTIONS_MAX + 1];
    let many = framed(&forged::Message::Submit { request: 1, transactions: many });
    // No packed key is as short as this.
    let short = vec![declaring(vec![Bytes::from_static(b"\0\x10")])];
    let short = framed(&forged::Message::Submit { request: 1, transactions: short });
    let twice = hello(PROTOCOL_VERSION);
    for bytes in [&garbage[..], &u32::MAX.to_le_bytes(), &framed(&status())] {
        let mut stranger = door.stranger().await;
        stranger.say(bytes).await;
        assert_eq!(stranger.closed().await, CloseCode::Malformed);
    }
    for bytes in [&garbage[..], &long, &u32::MAX.to_le_bytes(), &[0; 4], &many, &short, &twice] {
        let mut stranger = door.welcomed().await;
        stranger.say(bytes).await;
        assert_eq!(stranger.closed().await, CloseCode::Malformed, "{:?}", &bytes[..4]);
    }
    let mut stranger = door.stranger().await;
    stranger.say(&hello(PROTOCOL_VERSION + 1)).await;
    assert_eq!(stranger.closed().await, CloseCode::Version);
}

fn status() -> forged::Message {
    forged::Message::Status { request: 1 }
}

/// More transactions than a connection may have in flight, all at once: each one is answered, what
/// is too much is refused with a hint when to try again.
async fn flood(door: &Door) {
    const SUBMISSIONS: usize = 6;
    let mut stranger = door.welcomed().await;
    for request in 0..SUBMISSIONS as u64 {
        let salt = |n: usize| u128::from(request) << 64 | n as u128;
        let one = |n| put(&format!("flood{}", n % 500), salt(n)).into();
        let transactions = (0..SUBMISSION_TRANSACTIONS_MAX).map(one).collect();
        stranger.submit(request, transactions).await;
    }
    let (verdicts, receipts) = stranger.answers(SUBMISSIONS).await;
    let requests: Vec<_> = verdicts.iter().map(|(request, _)| *request).collect();
    assert_eq!(requests, (0..SUBMISSIONS as u64).collect::<Vec<_>>());
    let mut accepted = BTreeSet::new();
    for (request, verdicts) in &verdicts {
        assert_eq!(verdicts.len(), SUBMISSION_TRANSACTIONS_MAX);
        for (index, verdict) in (0u32..).zip(verdicts) {
            match verdict {
                Verdict::Accepted(_) => assert!(accepted.insert((*request, index))),
                Verdict::Rejected { code, retry_after_ms, .. } => {
                    assert_eq!((*code, retry_after_ms.is_some()), (ErrorCode::Busy, true));
                }
            }
        }
    }
    let answered: BTreeSet<_> = receipts.iter().map(|item| (item.request, item.index)).collect();
    assert_eq!(answered, accepted);
    assert_eq!(receipts.len(), accepted.len());
}

/// A client that asks for much and reads nothing of it.
async fn never_read(door: &Door, client: &Client) -> Stranger {
    let large = key("large").unwrap();
    let store = Program::new().put(&large, vec![7; 60_000]).into_transaction(1);
    assert!(client.submit_one(store).await.unwrap().is_committed());
    let mut stranger = door.welcomed().await;
    let one = |n| Program::new().get(&large).into_transaction(n).into();
    stranger.submit(1, (0..400).map(one).collect()).await;
    stranger
}
