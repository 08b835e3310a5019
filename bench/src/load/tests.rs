//! The generator against a cluster that does what each test wants, under a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parsec_protocol::{
    EpochNumber, ErrorCode, Outcome, Position, Receipt, RuntimeId, Transaction, TxId,
};
use proptest::prelude::*;
use tokio::time::sleep_until;

use super::*;

/// What the cluster makes of a transaction.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// Its answer, after the cluster's delay.
    Says(Answer),
    /// No answer, ever.
    Hangs,
    /// The connection breaks: neither it nor the rest of its submission is answered.
    Breaks,
}

type Script = Arc<dyn Fn(&Transaction) -> Fate + Send + Sync>;

/// A cluster whose transactions have a sender (high bits of the salt) and a nonce (low bits).
#[derive(Clone)]
pub(super) struct Cluster {
    script: Script,
    delay: Duration,
    /// Most transactions in flight; what comes beyond it is refused.
    pub(super) limit: usize,
    /// No answer comes between these times, but only after the latter.
    pub(super) stall: Option<(Instant, Instant)>,
    state: Arc<Mutex<ClusterState>>,
}

#[derive(Default)]
struct ClusterState {
    in_flight: usize,
    in_flight_most: usize,
    submission_most: usize,
    /// Of each sender: the nonces that were accepted, in order.
    accepted: BTreeMap<u128, Vec<u128>>,
}

pub(super) struct ClusterAnswers {
    cluster: Cluster,
    due: Instant,
    fates: VecDeque<(usize, Fate, bool)>,
}

impl Cluster {
    pub(super) fn new(script: impl Fn(&Transaction) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            delay: Duration::from_millis(10),
            limit: usize::MAX,
            stall: None,
            state: Arc::default(),
        }
    }

    pub(super) fn submission_most(&self) -> usize {
        self.state.lock().unwrap().submission_most
    }

    pub(super) fn committing() -> Self {
        Self::new(|_| Fate::Says(receipt(Outcome::Committed)))
    }
}

impl Target for Cluster {
    type Answers = ClusterAnswers;

    async fn submit(&self, transactions: Vec<Transaction>) -> Result<ClusterAnswers, String> {
        let mut state = self.state.lock().unwrap();
        state.submission_most = state.submission_most.max(transactions.len());
        let mut fates = VecDeque::new();
        for (index, transaction) in transactions.iter().enumerate() {
            let taken = state.in_flight < self.limit;
            let fate = if taken {
                state.in_flight += 1;
                state.in_flight_most = state.in_flight_most.max(state.in_flight);
                let sender = transaction.salt >> 64;
                state.accepted.entry(sender).or_default().push(nonce(transaction));
                (self.script)(transaction)
            } else {
                Fate::Says(rejected(ErrorCode::Busy))
            };
            fates.push_back((index, fate, taken));
        }
        let answered = Instant::now() + self.delay;
        let due = match self.stall {
            Some((from, to)) if answered >= from && answered < to => to,
            _ => answered,
        };
        Ok(ClusterAnswers { cluster: self.clone(), due, fates })
    }
}

impl Answers for ClusterAnswers {
    async fn next(&mut self) -> Option<(usize, Answer)> {
        let (index, fate, taken) = self.fates.pop_front()?;
        sleep_until(self.due).await;
        match fate {
            Fate::Says(answer) => {
                self.cluster.state.lock().unwrap().in_flight -= usize::from(taken);
                Some((index, answer))
            }
            Fate::Hangs => std::future::pending().await,
            Fate::Breaks => None,
        }
    }
}

pub(super) fn receipt(outcome: Outcome) -> Answer {
    Answer::Receipt(Receipt {
        id: TxId([0; 32]),
        position: Position { epoch: EpochNumber(1), index: 0 },
        attempt: 0,
        outcome,
        work: 0,
        output: b"why".into(),
        events: Vec::new(),
    })
}

fn rejected(code: ErrorCode) -> Answer {
    Answer::Rejected { code, detail: "no".into(), retry_after_ms: Some(3) }
}

fn nonce(transaction: &Transaction) -> u128 {
    transaction.salt & u128::from(u64::MAX)
}

/// `count` transactions of `senders` senders in turn, with nonces.
pub(super) fn load(count: u32, senders: u32) -> Vec<LoadTransaction> {
    let one = |number: u32| {
        let (sender, nonce) = (number % senders, number / senders);
        let salt = u128::from(sender) << 64 | u128::from(nonce);
        let transaction = Transaction { salt, ..Transaction::new(RuntimeId::NATIVE, Bytes::new()) };
        LoadTransaction { sender: Some(sender), transaction }
    };
    (0..count).map(one).collect()
}

fn options(in_flight: usize, batch: usize) -> LoadOptions {
    LoadOptions { in_flight, batch, ..LoadOptions::default() }
}

async fn run_on(targets: &[Cluster], count: u32, options: &LoadOptions) -> LoadReport {
    run("test", targets, load(count, 7), options, &Cancelled::never(), &|_| {}).await.unwrap()
}

/// Every transaction is counted once.
fn assert_whole(report: &LoadReport) {
    let counted = report.committed
        + report.reverted
        + report.invalid
        + report.rejected
        + report.unknown
        + report.unsent;
    assert_eq!(counted, report.total, "{report:?}");
}

pub(super) fn assert_ordered(cluster: &Cluster) {
    for (sender, nonces) in &cluster.state.lock().unwrap().accepted {
        let dense: Vec<_> = (0..).take(nonces.len()).collect();
        assert_eq!(*nonces, dense, "the nonces of sender {sender}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_is_sent_in_order_and_within_its_bounds() {
    let clusters = [Cluster::committing(), Cluster::committing(), Cluster::committing()];
    let told = AtomicU64::new(0);
    let last = AtomicU64::new(0);
    let on_progress = |progress: Progress| {
        told.fetch_add(1, Ordering::Relaxed);
        last.store(progress.done, Ordering::Relaxed);
        assert_eq!(progress.total, 5_000);
    };
    let never = Cancelled::never();
    let report = run("name", &clusters, load(5_000, 7), &options(60, 10), &never, &on_progress)
        .await
        .unwrap();
    assert_eq!((report.name.as_str(), report.committed, report.unsent), ("name", 5_000, 0));
    assert_eq!(last.load(Ordering::Relaxed), 5_000);
    assert_whole(&report);
    for cluster in &clusters {
        let state = cluster.state.lock().unwrap();
        assert_eq!((state.in_flight, state.in_flight_most, state.submission_most), (0, 20, 10));
        drop(state);
        assert_ordered(cluster);
    }
    // 7 senders over 3 connections: the first has 3 of them, 2,145 transactions, 20 every 10 ms.
    assert!((1.0..1.2).contains(&report.seconds), "{report:?}");
    assert!((10.0..11.1).contains(&report.p50_ms) && (10.0..13.0).contains(&report.max_ms));
    assert!((report.tps - 5_000.0 / report.seconds).abs() < 1.0);
    let expected = report.seconds * 10.0;
    let told = told.load(Ordering::Relaxed) as f64;
    assert!((expected - 1.0..expected + 4.0).contains(&told), "{told} reports of progress");
}

#[tokio::test(start_paused = true)]
async fn what_a_busy_cluster_refuses_is_sent_again_in_order() {
    let cluster = Cluster { limit: 35, ..Cluster::committing() };
    let report = run_on(std::slice::from_ref(&cluster), 1_000, &options(50, 10)).await;
    assert_eq!((report.committed, report.rejected), (1_000, 0), "{report:?}");
    assert!(report.retried > 0);
    assert_whole(&report);
    assert_ordered(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stays_busy_is_given_up() {
    let cluster = Cluster { limit: 0, ..Cluster::committing() };
    let report = run_on(&[cluster], 30, &options(10, 10)).await;
    assert_eq!((report.rejected, report.failures["Busy"]), (30, 30), "{report:?}");
    assert_whole(&report);
}

#[tokio::test(start_paused = true)]
async fn outcomes_are_counted_apart() {
    let cluster = Cluster::new(|transaction| {
        Fate::Says(match nonce(transaction) {
            0 => receipt(Outcome::Reverted(ErrorCode::Refused)),
            1 => receipt(Outcome::Invalid(ErrorCode::NonceTooLow)),
            2 => rejected(ErrorCode::BadSignature),
            3 => Answer::Unknown { reason: "lost".into() },
            _ => receipt(Outcome::Committed),
        })
    });
    let report = run_on(&[cluster], 70, &options(10, 5)).await;
    let counts = (report.reverted, report.invalid, report.rejected, report.unknown);
    assert_eq!((counts, report.committed), ((7, 7, 7, 7), 42));
    assert_whole(&report);
    let failures: Vec<_> = report.failures.iter().map(|(code, n)| (code.as_str(), *n)).collect();
    assert_eq!(failures, [("BadSignature", 7), ("NonceTooLow", 7), ("Refused", 7)]);
    let first = report.first_failure.unwrap();
    assert!(first.starts_with("reverted: Refused") && first.ends_with("why"), "{first}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_leaves_unknown_transactions() {
    let cluster = Cluster::new(|transaction| match nonce(transaction) {
        3 => Fate::Breaks,
        _ => Fate::Says(receipt(Outcome::Committed)),
    });
    let report = run_on(&[cluster], 70, &options(10, 5)).await;
    assert!(report.unknown >= 2 && report.committed >= 40, "{report:?}");
    assert!(report.first_failure.as_ref().unwrap().starts_with("unknown: "), "{report:?}");
    assert_whole(&report);
}

#[tokio::test(start_paused = true)]
async fn a_load_ends_when_its_time_is_up() {
    let options = LoadOptions { duration: Some(Duration::from_millis(95)), ..options(10, 10) };
    let report = run_on(&[Cluster::committing()], 1_000, &options).await;
    assert_eq!((report.unknown, report.cancelled), (0, false));
    assert!((70..=110).contains(&report.committed), "{report:?}");
    assert_whole(&report);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_load_waits_for_what_is_in_flight() {
    let (cancel, cancelled) = cancellation();
    let cancelling = |progress: Progress| {
        if progress.done > 0 {
            cancel.cancel();
        }
    };
    let target = [Cluster::committing()];
    let report =
        run("test", &target, load(1_000, 7), &options(10, 10), &cancelled, &cancelling).await;
    let report = report.unwrap();
    assert!(report.cancelled && report.unknown == 0 && report.unsent > 0, "{report:?}");
    assert_whole(&report);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_load_does_not_wait_for_ever() {
    let cluster = Cluster::new(|_| Fate::Hangs);
    let (cancel, cancelled) = cancellation();
    let started = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cancel.cancel();
    });
    let options = LoadOptions { drain: Duration::from_secs(3), ..options(10, 5) };
    let report =
        run("test", &[cluster], load(100, 7), &options, &cancelled, &|_| {}).await.unwrap();
    assert_eq!((report.unknown, report.unsent, report.committed), (10, 90, 0), "{report:?}");
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_whole(&report);
}

#[tokio::test(start_paused = true)]
async fn options_that_send_nothing_are_refused() {
    let never = Cancelled::never();
    let one = [Cluster::committing()];
    let run_with = |targets, in_flight, batch| {
        let (never, options) = (&never, options(in_flight, batch));
        async move { run("", targets, load(1, 1), &options, never, &|_| {}).await }
    };
    assert!(matches!(run_with(&[], 1, 1).await, Err(LoadError::NoConnections)));
    assert!(matches!(run_with(&one, 0, 1).await, Err(LoadError::Options { .. })));
    assert!(matches!(run_with(&one, 1, 0).await, Err(LoadError::Options { .. })));
    let empty = run("", &one, Vec::new(), &options(1, 1), &never, &|_| {}).await.unwrap();
    assert_eq!((empty.total, empty.committed), (0, 0));
    assert_eq!((empty.tps, empty.mean_ms, empty.p50_ms, empty.seconds), (0.0, 0.0, 0.0, 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_setup_stops_at_the_first_stage_that_fails() {
    let cluster = Cluster::new(|transaction| {
        Fate::Says(receipt(match transaction.salt >> 64 {
            1 => Outcome::Reverted(ErrorCode::AlreadyExists),
            2 => Outcome::Reverted(ErrorCode::Refused),
            _ => Outcome::Committed,
        }))
    });
    let stage = |sender: u128, tolerated| {
        let transaction =
            Transaction { salt: sender << 64, ..Transaction::new(RuntimeId::NATIVE, Bytes::new()) };
        let transactions = vec![LoadTransaction { sender: None, transaction }];
        Stage { purpose: "do it", transactions, tolerated }
    };
    let tolerated = Some(ErrorCode::AlreadyExists);
    let run_stages = |stages| {
        let (cluster, options) = (cluster.clone(), options(5, 5));
        async move { set_up(&cluster, stages, &options, &Cancelled::never(), |_, _| {}).await }
    };
    run_stages(vec![stage(0, None), stage(1, tolerated), stage(3, None)]).await.unwrap();
    let error = run_stages(vec![stage(2, tolerated), stage(4, None)]).await.unwrap_err();
    assert!(error.to_string().contains("could not do it: 1 of 1: reverted: Refused"), "{error}");
    assert!(!cluster.state.lock().unwrap().accepted.contains_key(&4), "the next stage was sent");
}

proptest! {
    #[test]
    fn dividing_keeps_everything_and_each_senders_order(
        count in 0u32..200,
        senders in 1u32..20,
        connections in 1usize..6,
    ) {
        let parts = divide(load(count, senders), connections, |_| None);
        let mut seen = BTreeMap::<u32, (usize, u128)>::new();
        for (part, transactions) in parts.iter().enumerate() {
            for (_, LoadTransaction { sender, transaction }, _) in transactions {
                let nonce = nonce(transaction);
                let (home, next) = seen.entry(sender.unwrap()).or_insert((part, 0));
                prop_assert_eq!((*home, *next), (part, nonce));
                *next += 1;
            }
        }
        let kept: usize = parts.iter().map(Vec::len).sum();
        prop_assert_eq!(kept, count as usize);
    }
}

/// A server that executes what real clients send it, one transaction after another.
mod over_the_wire {
    use parsec_client::ClientConfig;
    use parsec_protocol::limits::PROTOCOL_VERSION;
    use parsec_protocol::message::{
        ClientMessage, ClientReceipt, ClusterId, ServerMessage, Verdict, Welcome,
    };
    use parsec_protocol::transport::tls::{CertificateAuthority, Trust};
    use parsec_protocol::transport::{ClientConnection, ClientListener, ClientListenerOptions};
    use parsec_protocol::{EpochNumber, NodeId};

    use super::super::*;
    use crate::testing::{CHAIN_ID, Host};
    use crate::workload::{Erc20, Erc20Options, NativeTransfer, PaymentOptions, Workload};

    /// Starts the server; it runs until the test's runtime ends.
    fn serve() -> ClientConfig {
        let authority = CertificateAuthority::new().unwrap();
        let identity = authority.issue(NodeId(1), &["127.0.0.1".into()]).unwrap();
        let trust: Trust = authority.trust().unwrap();
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            cluster: ClusterId([0; 32]),
            chain_id: CHAIN_ID,
            in_flight_max: 500,
        };
        let options = ClientListenerOptions::default();
        let mut listener =
            ClientListener::bind("127.0.0.1:0".parse().unwrap(), &identity, welcome, options)
                .unwrap();
        let config = ClientConfig::new(vec![listener.local_address()], trust);
        let host = Arc::new(std::sync::Mutex::new(Host::new()));
        tokio::spawn(async move {
            while let Some(connection) = listener.accept().await {
                tokio::spawn(answer(connection, host.clone()));
            }
        });
        config
    }

    async fn answer(mut connection: ClientConnection, host: Arc<std::sync::Mutex<Host>>) {
        while let Ok(Some(message)) = connection.recv().await {
            let answers = match message {
                ClientMessage::Submit { request, transactions } => {
                    let mut host = host.lock().unwrap();
                    let receipts: Vec<_> = (0..)
                        .zip(&transactions)
                        .map(|(index, transaction)| {
                            let receipt = host.execute(transaction);
                            ClientReceipt { request, index, receipt: receipt.into() }
                        })
                        .collect();
                    let accepted = |answer: &ClientReceipt| Verdict::Accepted(answer.receipt.id);
                    let verdicts = receipts.iter().map(accepted).collect();
                    vec![
                        ServerMessage::Verdicts { request, verdicts },
                        ServerMessage::Receipts(receipts),
                    ]
                }
                ClientMessage::Read { request, keys, .. } => {
                    let host = host.lock().unwrap();
                    let values = keys.iter().map(|key| host.value(key)).collect();
                    vec![ServerMessage::Values { request, epoch: EpochNumber(1), values }]
                }
                other => panic!("no test sends {other:?}"),
            };
            for answer in answers {
                connection.send(&answer).await.unwrap();
            }
        }
    }

    async fn measure(mut workload: impl Workload, connections: usize) -> LoadReport {
        let clients = connect(&serve(), connections).await.unwrap();
        let never = Cancelled::never();
        let options = LoadOptions { in_flight: 90, batch: 30, ..LoadOptions::default() };
        set_up(&clients[0], workload.setup(), &options, &never, |_, _| {}).await.unwrap();
        let load = workload.build(1_000, &|_| {});
        let report = run(workload.name(), &clients, load, &options, &never, &|_| {}).await.unwrap();
        let all_committed = report.committed == report.total;
        assert!(all_committed, "{report:?}");
        let audit = workload.audit();
        audit.run(&clients[0], true).await.unwrap();
        audit.run(&clients[0], false).await.unwrap();
        report
    }

    fn payments() -> PaymentOptions {
        PaymentOptions { accounts: 30, ..PaymentOptions::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn erc20_transfers_run_over_several_connections() {
        let options = Erc20Options { payments: payments(), chain_id: CHAIN_ID };
        let report = measure(Erc20::new(options).unwrap(), 3).await;
        assert_eq!(report.name, "erc20 transfer (30 accounts, uniform, seed 1)");
        assert!(report.tps > 0.0 && report.p50_ms > 0.0 && report.max_ms >= report.p99_ms);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn native_transfers_run_over_one_connection() {
        measure(NativeTransfer::new(payments()).unwrap(), 1).await;
    }
}
