//! The client against a server that follows a script.

#![allow(clippy::unwrap_used, reason = "these helpers serve tests only")]

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parsec_client::{Client, ClientConfig, Error};
use parsec_protocol::limits::{PROTOCOL_VERSION, READ_KEYS_MAX, SUBMISSION_TRANSACTIONS_MAX};
use parsec_protocol::message::{
    ClientMessage, ClientReceipt, ClusterId, ClusterStatus, ReadAt, ServerMessage, Verdict, Welcome,
};
use parsec_protocol::transport::tls::{CertificateAuthority, NodeIdentity};
use parsec_protocol::transport::{
    ClientConnection, ClientListener, ClientListenerOptions, CloseCode,
};
use parsec_protocol::{
    EpochNumber, ErrorCode, Key, Namespace, NodeId, Outcome, Position, Receipt, RuntimeId,
    Transaction,
};

/// Fails the test instead of hanging it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

struct Server {
    identity: NodeIdentity,
    listener: ClientListener,
}

impl Server {
    fn new(in_flight_max: u32) -> Self {
        let identity = CertificateAuthority::new().unwrap().issue(NodeId(1), &[]).unwrap();
        Self { listener: listen(&identity, in_flight_max), identity }
    }

    fn config(&self) -> ClientConfig {
        let addresses = vec![self.listener.local_address()];
        ClientConfig::new(addresses, self.identity.trust().clone())
    }

    async fn client(&mut self) -> (Client, Script) {
        self.client_with(self.config()).await
    }

    async fn client_with(&mut self, config: ClientConfig) -> (Client, Script) {
        let client = soon(Client::connect(config)).await.unwrap();
        (client, self.accept().await)
    }

    async fn accept(&mut self) -> Script {
        Script(soon(self.listener.accept()).await.unwrap())
    }
}

fn listen(identity: &NodeIdentity, in_flight_max: u32) -> ClientListener {
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        cluster: ClusterId([1; 32]),
        chain_id: 5,
        in_flight_max,
    };
    let any = "127.0.0.1:0".parse().unwrap();
    ClientListener::bind(any, identity, welcome, ClientListenerOptions::default()).unwrap()
}

/// The server's end of one connection.
struct Script(ClientConnection);

impl Script {
    async fn recv(&mut self) -> ClientMessage {
        soon(self.0.recv()).await.unwrap().expect("the client has more to say")
    }

    async fn submission(&mut self) -> (u64, Vec<Transaction>) {
        match self.recv().await {
            ClientMessage::Submit { request, transactions } => (request, transactions),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, message: ServerMessage) {
        self.0.send(&message).await.unwrap();
    }

    async fn accept_all(&self, request: u64, transactions: &[Transaction]) {
        let accepted = transactions.iter().map(|tx| Verdict::Accepted(tx.content_id()));
        self.send(ServerMessage::Verdicts { request, verdicts: accepted.collect() }).await;
    }

    async fn give_receipts(
        &self,
        request: u64,
        receipts: impl IntoIterator<Item = (u32, Receipt)>,
    ) {
        let receipts = receipts
            .into_iter()
            .map(|(index, receipt)| ClientReceipt { request, index, receipt: receipt.into() })
            .collect();
        self.send(ServerMessage::Receipts(receipts)).await;
    }

    /// Answers a submission as a cluster does that is in good health.
    async fn commit(&self, request: u64, transactions: &[Transaction]) {
        self.accept_all(request, transactions).await;
        self.give_receipts(request, (0..).zip(transactions.iter().map(receipt))).await;
    }

    async fn refuse(&self, request: u64, code: ErrorCode, retry_after_ms: Option<u32>) {
        let verdict = Verdict::Rejected { code, detail: "not now".into(), retry_after_ms };
        self.send(ServerMessage::Verdicts { request, verdicts: vec![verdict] }).await;
    }
}

fn transaction(number: usize) -> Transaction {
    Transaction::new(RuntimeId::NATIVE, number.to_string())
}

fn transactions(count: usize) -> Vec<Transaction> {
    (0..count).map(transaction).collect()
}

fn receipt(transaction: &Transaction) -> Receipt {
    Receipt {
        id: transaction.content_id(),
        position: Position { epoch: EpochNumber(3), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 1,
        output: transaction.payload.clone().into(),
        events: Vec::new(),
    }
}

fn keys(count: usize) -> Vec<Key> {
    let key = |n: usize| Key::new(Namespace::partitioned(1), n.to_string().as_bytes()).unwrap();
    (0..count).map(key).collect()
}

#[tokio::test]
async fn receipts_may_come_in_any_order() {
    let mut server = Server::new(100);
    let (client, mut script) = server.client().await;
    let all = transactions(5);
    let mut first = soon(client.submit(all.clone())).await.unwrap();
    let (request, sent) = script.submission().await;
    assert_eq!(sent, all);
    let receipts: Vec<_> = (0..5).zip(sent.iter().map(receipt)).collect();
    script.give_receipts(request, [receipts[3].clone()]).await;
    script.accept_all(request, &sent).await;
    script.give_receipts(request, receipts.iter().rev().cloned()).await;
    let mut order = Vec::new();
    while let Some((index, result)) = soon(first.next()).await {
        assert_eq!(result.unwrap(), receipt(&all[index]));
        order.push(index);
    }
    assert_eq!(order, [3, 4, 2, 1, 0]);

    let second = soon(client.submit(all.clone())).await.unwrap();
    let (request, sent) = script.submission().await;
    script.give_receipts(request, (0..5).zip(sent.iter().map(receipt)).rev()).await;
    let results = soon(second.wait_all()).await;
    assert_eq!(results, all.iter().map(|tx| Ok(receipt(tx))).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_has_no_receipt_is_submitted_again_after_a_lost_connection() {
    let mut server = Server::new(100);
    let (client, mut script) = server.client().await;
    let all = transactions(4);
    let submission = soon(client.submit(all.clone())).await.unwrap();
    let (request, sent) = script.submission().await;
    script.accept_all(request, &sent).await;
    script.give_receipts(request, [(1, receipt(&sent[1]))]).await;
    // Let the client read it before the connection breaks.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(script);
    let mut script = server.accept().await;
    let (request, again) = script.submission().await;
    assert_eq!(again, [all[0].clone(), all[2].clone(), all[3].clone()]);
    script.commit(request, &again).await;
    let results = soon(submission.wait_all()).await;
    assert_eq!(results, all.iter().map(|tx| Ok(receipt(tx))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_says_goodbye_is_left_for_the_next_address() {
    let mut server = Server::new(100);
    let mut other = listen(&server.identity, 7);
    let mut config = server.config();
    config.addresses.push(other.local_address());
    let (client, mut script) = server.client_with(config).await;
    assert_eq!(client.welcome().in_flight_max, 100);
    let submission = soon(client.submit(transactions(1))).await.unwrap();
    script.submission().await;
    let (_reader, writer) = script.0.split();
    let ((), connection) =
        tokio::join!(writer.goodbye(CloseCode::Shutdown, "maintenance"), soon(other.accept()));
    let mut script = Script(connection.unwrap());
    let (request, again) = script.submission().await;
    script.commit(request, &again).await;
    assert_eq!(soon(submission.wait_all()).await, [Ok(receipt(&transaction(0)))]);
    assert_eq!(client.welcome().in_flight_max, 7);
}

#[tokio::test]
async fn a_rejection_is_handed_on_and_a_busy_server_asked_again() {
    let mut server = Server::new(100);
    let (client, mut script) = server.client().await;
    let serve = async {
        let (request, _) = script.submission().await;
        script.refuse(request, ErrorCode::BadSignature, None).await;
        let (request, _) = script.submission().await;
        script.refuse(request, ErrorCode::Busy, Some(300)).await;
        let refused = Instant::now();
        let (request, again) = script.submission().await;
        assert!(refused.elapsed() >= Duration::from_millis(290), "{:?}", refused.elapsed());
        script.commit(request, &again).await;
    };
    let ask = async {
        let Err(Error::Rejected(rejection)) = client.submit_one(transaction(1)).await else {
            panic!("it is not rejected")
        };
        assert_eq!((rejection.code, rejection.retry_after), (ErrorCode::BadSignature, None));
        assert_eq!(client.submit_one(transaction(2)).await, Ok(receipt(&transaction(2))));
    };
    soon(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn who_does_not_want_to_wait_hears_of_a_busy_server() {
    let mut server = Server::new(100);
    let config = ClientConfig { retry_busy: false, ..server.config() };
    let (client, mut script) = server.client_with(config).await;
    let serve = async {
        let (request, _) = script.submission().await;
        script.refuse(request, ErrorCode::Busy, Some(7)).await;
    };
    let (result, ()) = tokio::join!(soon(client.submit_one(transaction(1))), serve);
    let Err(Error::Rejected(rejection)) = result else { panic!("{result:?}") };
    assert_eq!(rejection.retry_after, Some(Duration::from_millis(7)));
}

#[tokio::test]
async fn no_more_are_in_flight_than_the_server_allows() {
    let mut server = Server::new(10);
    let (client, mut script) = server.client().await;
    let submission = soon(client.submit(transactions(25))).await.unwrap();
    let (request, first) = script.submission().await;
    assert_eq!(first.len(), 10);
    script.accept_all(request, &first).await;
    let more = tokio::time::timeout(Duration::from_millis(300), script.0.recv()).await;
    assert!(more.is_err(), "ten are in flight already");
    script.give_receipts(request, (0..4).zip(first.iter().map(receipt))).await;
    let (next, second) = script.submission().await;
    assert_eq!(second.len(), 4);
    script.commit(next, &second).await;
    script.give_receipts(request, (4..10).zip(first[4..].iter().map(receipt))).await;
    let mut left = 25 - 14;
    while left > 0 {
        let (request, sent) = script.submission().await;
        left -= sent.len();
        script.commit(request, &sent).await;
    }
    assert!(soon(submission.wait_all()).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn large_submissions_are_split() {
    let mut server = Server::new(1_000_000);
    let (client, mut script) = server.client().await;
    let count = SUBMISSION_TRANSACTIONS_MAX + 10;
    let submission = soon(client.submit(transactions(count))).await.unwrap();
    let (request, sent) = script.submission().await;
    assert_eq!(sent.len(), SUBMISSION_TRANSACTIONS_MAX);
    script.commit(request, &sent).await;
    let (request, sent) = script.submission().await;
    assert_eq!(sent.len(), 10);
    script.commit(request, &sent).await;
    assert!(soon(submission.wait_all()).await.iter().all(Result::is_ok));
    // By bytes as well: 40 of these are too long for one frame.
    let heavy = Transaction::new(RuntimeId::LUA, vec![1; 1_000_000]);
    let heavy: Vec<_> = (0..40).map(|salt| Transaction { salt, ..heavy.clone() }).collect();
    let submission = soon(client.submit(heavy)).await.unwrap();
    let mut left = 40;
    while left > 0 {
        let (request, sent) = script.submission().await;
        left -= sent.len();
        let small = sent.iter().map(|tx| Receipt { output: "".into(), ..receipt(tx) });
        script.give_receipts(request, (0..).zip(small)).await;
    }
    assert!(soon(submission.wait_all()).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn at_the_deadline_what_was_sent_is_unknown_and_what_was_not_has_not_happened() {
    let mut server = Server::new(1);
    let config = ClientConfig { deadline: Duration::from_millis(600), ..server.config() };
    let (client, mut script) = server.client_with(config).await;
    let begun = Instant::now();
    let submission = soon(client.submit(transactions(2))).await.unwrap();
    script.submission().await;
    let results = soon(submission.wait_all()).await;
    assert!(matches!(results[0], Err(Error::Unknown { .. })), "{results:?}");
    assert!(matches!(results[1], Err(Error::NotSent { .. })), "{results:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    drop((script, server));
    let status = soon(client.status()).await;
    assert!(matches!(status, Err(Error::NotSent { .. })), "{status:?}");
}

#[tokio::test]
async fn reads_of_many_keys_are_of_one_epoch() {
    let mut server = Server::new(10);
    let (client, mut script) = server.client().await;
    let wanted = keys(READ_KEYS_MAX + 3);
    let serve = async {
        for (expected_at, count) in
            [(ReadAt::Latest, READ_KEYS_MAX), (ReadAt::Epoch(EpochNumber(9)), 3)]
        {
            let ClientMessage::Read { request, at, keys } = script.recv().await else {
                panic!("it is no read")
            };
            assert_eq!((at, keys.len()), (expected_at, count));
            let values = keys.iter().map(|key| Some(key.bytes().to_vec().into())).collect();
            script.send(ServerMessage::Values { request, epoch: EpochNumber(9), values }).await;
        }
    };
    let (read, ()) = tokio::join!(soon(client.read(&wanted, ReadAt::Latest)), serve);
    let (epoch, values) = read.unwrap();
    assert_eq!((epoch, values.len()), (EpochNumber(9), wanted.len()));
    assert!(wanted.iter().zip(values).all(|(key, value)| value.unwrap() == key.bytes()));
}

#[tokio::test]
async fn questions_are_answered_fail_or_are_asked_again() {
    let mut server = Server::new(10);
    let (client, mut script) = server.client().await;
    let status = ClusterStatus {
        ordered: EpochNumber(1),
        transactions: 2,
        in_flight: 3,
        partitions: Vec::new(),
        partitions_total: 4,
    };
    let serve = async {
        let ClientMessage::Status { request } = script.recv().await else { panic!("no status") };
        let code = ErrorCode::Unavailable;
        script.send(ServerMessage::Failed { request, code, detail: "later".into() }).await;
        script.recv().await;
        drop(script);
        let mut script = server.accept().await;
        let ClientMessage::Status { request } = script.recv().await else { panic!("no status") };
        let status = status.clone();
        script.send(ServerMessage::Status { request, status }).await;
        script
    };
    let ask = async { (client.status().await, client.status().await) };
    let (_script, (first, second)) = soon(async { tokio::join!(serve, ask) }).await;
    let detail = "later".to_owned();
    assert_eq!(first, Err(Error::Failed { code: ErrorCode::Unavailable, detail }));
    assert_eq!(second, Ok(status));
}

#[tokio::test]
async fn a_server_that_makes_no_sense_is_left() {
    let mut server = Server::new(10);
    let (client, mut script) = server.client().await;
    let submission = soon(client.submit(transactions(2))).await.unwrap();
    let (request, sent) = script.submission().await;
    script.accept_all(request, &sent[..1]).await;
    let ended = soon(script.0.recv()).await;
    assert_eq!(ended, Ok(None));
    let mut script = server.accept().await;
    let (request, sent) = script.submission().await;
    script.commit(request, &sent).await;
    assert!(soon(submission.wait_all()).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn nobody_to_connect_to_is_an_error_that_names_everybody() {
    let server = Server::new(10);
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut config = ClientConfig { addresses: Vec::new(), ..server.config() };
    assert_eq!(soon(Client::connect(config.clone())).await.unwrap_err(), Error::NoAddress);
    config.dial.connect_timeout = Duration::from_millis(200);
    config.addresses = vec![nobody];
    let error = soon(Client::connect(config)).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1: "), "{error}");
}

#[tokio::test]
async fn a_dropped_client_still_finishes_what_was_submitted_and_then_leaves() {
    let mut server = Server::new(10);
    let (client, mut script) = server.client().await;
    let submission = soon(client.submit(transactions(3))).await.unwrap();
    drop(client);
    let (request, sent) = script.submission().await;
    script.commit(request, &sent).await;
    assert!(soon(submission.wait_all()).await.iter().all(Result::is_ok));
    assert_eq!(soon(script.0.recv()).await, Ok(None));
}

#[tokio::test]
async fn submitters_wait_for_room() {
    let mut server = Server::new(100);
    let config = ClientConfig { pending_max: 3, ..server.config() };
    let (client, mut script) = server.client_with(config).await;
    let first = soon(client.submit(transactions(2))).await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(200), client.submit(transactions(2)));
    assert!(second.await.is_err(), "only three may be pending");
    let (request, sent) = script.submission().await;
    script.commit(request, &sent).await;
    assert!(soon(first.wait_all()).await.iter().all(Result::is_ok));
    // More than may be pending at all goes alone.
    let third = soon(client.submit(transactions(9))).await.unwrap();
    let (request, sent) = script.submission().await;
    script.commit(request, &sent).await;
    assert_eq!(soon(third.wait_all()).await.len(), 9);
}
