//! The sequencer's shell, over real transports and a real log.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::time::Duration;

use parsec_protocol::message::{ClientMessage, ReadAt, ServerMessage, Verdict};
use parsec_protocol::{
    Access, EpochNumber, ErrorCode, Footprint, Mode, Outcome, RuntimeId, Transaction, Value,
};
use parsec_runtimes::system::load_transactions;
use parsec_sequencer::{RestoreError, StartError, StopReason};
use support::{Client, Cluster, IN_FLIGHT_MAX, PATIENCE, call, key};

async fn read(client: &mut Client, at: ReadAt, names: &[&str]) -> ServerMessage {
    let keys = names.iter().map(|name| key(name)).collect();
    let read = ClientMessage::Read { request: 900, at, keys };
    client.connection.writer.send(&read).await.unwrap();
    client.next().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_ordered_executed_and_answered_once() {
    let cluster = Cluster::new();
    let running = cluster.start().await;
    let mut client = running.client().await;
    let first = client.submit(vec![call("set a 1", 0), call("set b 2", 0)]).await;
    assert!(first.values().all(|receipt| receipt.is_committed()));
    // The same again, and something else: the same receipts.
    let again = client.submit(vec![call("set b 2", 0), call("set a 3", 0)]).await;
    assert_eq!(again[&0], first[&1]);
    assert!(again[&1].position > first[&0].position);
    match read(&mut client, ReadAt::Latest, &["a", "b", "c"]).await {
        ServerMessage::Values { values, epoch, .. } => {
            assert!(epoch >= again[&1].position.epoch);
            let text = |text: &'static str| Some(Value::from_static(text.as_bytes()));
            assert_eq!(values, [text("3"), text("2"), None]);
        }
        other => panic!("{other:?}"),
    }
    let ahead = ReadAt::Epoch(EpochNumber(1_000));
    assert!(matches!(read(&mut client, ahead, &["a"]).await, ServerMessage::Failed { .. }));
    client.connection.writer.send(&ClientMessage::Status { request: 901 }).await.unwrap();
    match client.next().await {
        ServerMessage::Status { status, .. } => {
            assert_eq!((status.transactions, status.in_flight), (3, 0));
            assert_eq!((status.partitions.len(), status.partitions_total), (2, 2));
        }
        other => panic!("{other:?}"),
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_transaction_is_refused_alone() {
    let cluster = Cluster::new();
    let running = cluster.start().await;
    let mut client = running.client().await;
    let expired = Transaction { expires: Some(EpochNumber(0)), ..call("set x 1", 0) };
    let long = "set x ".to_owned() + &"y".repeat(parsec_protocol::limits::PAYLOAD_BYTES_MAX);
    let unit = vec![
        call("set a 1", 0),
        call("nonsense", 0),
        Transaction::new(RuntimeId::SYSTEM, "set a 1"),
        Transaction::new(RuntimeId(77), "set a 1"),
        expired,
        call(&long, 0),
        call("panic", 0),
        call("set b 1", 0),
    ];
    let request = client.send(unit).await;
    let codes: Vec<_> = client
        .verdicts(request)
        .await
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Accepted(_) => None,
            Verdict::Rejected { code, .. } => Some(code),
        })
        .collect();
    let refused = [
        None,
        Some(ErrorCode::Malformed),
        Some(ErrorCode::NotPermitted),
        Some(ErrorCode::UnknownRuntime),
        Some(ErrorCode::Expired),
        Some(ErrorCode::TooLarge),
        Some(ErrorCode::Malformed),
        None,
    ];
    assert_eq!(codes, refused);
    let receipts = client.receipts(request, 2).await;
    assert_eq!(receipts.keys().copied().collect::<Vec<_>>(), [0, 7]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_a_connection_is_refused_as_busy() {
    let cluster = Cluster::new();
    let running = cluster.start().await;
    let mut client = running.client().await;
    let count = usize::try_from(IN_FLIGHT_MAX).unwrap();
    let unit = (0..count + 10).map(|n| call(&format!("set k{n} 1"), 0)).collect();
    let request = client.send(unit).await;
    let verdicts = client.verdicts(request).await;
    let busy = |verdict: &Verdict| {
        matches!(verdict, Verdict::Rejected { code: ErrorCode::Busy, retry_after_ms: Some(_), .. })
    };
    assert_eq!(verdicts.iter().filter(|verdict| busy(verdict)).count(), 10);
    assert!(verdicts[count..].iter().all(busy));
    assert_eq!(client.receipts(request, count).await.len(), count);
    // There is room again.
    assert_eq!(client.submit(vec![call("set again 1", 0)]).await.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_is_ordered_again_with_a_wider_footprint() {
    let cluster = Cluster::new();
    let running = cluster.start().await;
    let mut client = running.client().await;
    client.submit(vec![call("set p first", 0)]).await;
    // When the second one's footprint is found, the pointer still names the first target.
    let receipts = client.submit(vec![call("set p second", 0), call("follow p 5", 0)]).await;
    assert_eq!((receipts[&1].attempt, &receipts[&1].outcome), (1, &Outcome::Committed));
    assert_eq!(&receipts[&1].output[..], b"second");
    let declared = Footprint::new(vec![Access { key: key("p"), mode: Mode::Read }]).unwrap();
    let narrow = Transaction { footprint: Some(declared), ..call("follow p 6", 0) };
    let receipts = client.submit(vec![narrow]).await;
    assert_eq!((receipts[&0].attempt, &receipts[&0].outcome), (1, &Outcome::Committed));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_transaction_is_known_after_a_restart() {
    let cluster = Cluster::new();
    let running = cluster.start().await;
    let before = running.client().await.submit(vec![call("set a 1", 0)]).await;
    running.stop().await;

    let running = cluster.start().await;
    let mut client = running.client().await;
    assert_eq!(client.submit(vec![call("set a 1", 0)]).await, before);
    let later = client.submit(vec![call("set a 2", 0)]).await;
    assert_eq!(later[&0].position.epoch, before[&0].position.epoch.next());
    running.crash().await;

    let running = cluster.start().await;
    let mut client = running.client().await;
    let again = client.submit(vec![call("set a 2", 0), call("set a 1", 0)]).await;
    assert_eq!((&again[&0], &again[&1]), (&later[&0], &before[&0]));
    running.stop().await;
    assert_eq!(cluster.host.lock().unwrap().epochs.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_away_is_sent_the_log() {
    let cluster = Cluster::new();
    let running = cluster.try_start(false).await.unwrap();
    let mut client = running.client().await;
    let declare = |name: &str| {
        let write = vec![Access { key: key(name), mode: Mode::Write }];
        Some(Footprint::new(write).unwrap())
    };
    let transactions: Vec<_> = ["a", "b", "c"]
        .map(|name| Transaction { footprint: declare(name), ..call(&format!("set {name} 1"), 0) })
        .into();
    let request = client.send(transactions.clone()).await;
    assert_eq!(client.verdicts(request).await.len(), 3);
    // Without an executor nothing is read, so no footprint is found.
    let request = client.send(vec![call("follow d 1", 0)]).await;
    let verdicts = client.verdicts(request).await;
    assert!(matches!(
        verdicts[..],
        [Verdict::Rejected { code: ErrorCode::Unavailable, retry_after_ms: Some(_), .. }]
    ));
    let ordered = || async {
        while running.sequencer.ordered() == EpochNumber(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ordered()).await.unwrap();
    running.stop().await;

    let running = cluster.start().await;
    let receipts = running.client().await.submit(transactions).await;
    assert!(receipts.values().all(|receipt| receipt.position.epoch == EpochNumber(1)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_ordered_before_a_crash_is_answered_once_after_it() {
    let cluster = Cluster::new();
    let running = cluster.try_start(false).await.unwrap();
    let write = vec![Access { key: key("a"), mode: Mode::Write }];
    let footprint = Some(Footprint::new(write).unwrap());
    let transaction = Transaction { footprint, ..call("set a 1", 0) };
    let mut client = running.client().await;
    let request = client.send(vec![transaction.clone()]).await;
    client.verdicts(request).await;
    let ordered = async {
        while running.sequencer.ordered() == EpochNumber(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ordered).await.unwrap();
    running.crash().await;

    // One asks again before its receipt is there, and once more after that; another does, too.
    let running = cluster.start().await;
    let (mut client, mut other) = (running.client().await, running.client().await);
    let receipts = client.submit(vec![transaction.clone(), transaction.clone()]).await;
    assert_eq!(receipts[&0].position.epoch, EpochNumber(1));
    assert_eq!(receipts[&0], receipts[&1]);
    for client in [&mut client, &mut other] {
        assert_eq!(client.submit(vec![transaction.clone()]).await[&0], receipts[&0]);
        let more = client.connection.reader.recv();
        let more = tokio::time::timeout(Duration::from_millis(400), more).await;
        assert!(more.is_err(), "answered more than once: {more:?}");
    }
    running.stop().await;
    assert_eq!(cluster.host.lock().unwrap().epochs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_genesis_comes_first_and_once() {
    let mut cluster = Cluster::new();
    let entries = (0..2_500).map(|n| (key(&n.to_string()), Value::from_static(b"x")));
    cluster.genesis = load_transactions(entries).unwrap();
    for round in 0..2u128 {
        let running = cluster.start().await;
        let receipts = running.client().await.submit(vec![call("set 0 y", round)]).await;
        assert!(receipts[&0].position.epoch > EpochNumber(1));
        running.stop().await;
    }
    let host = cluster.host.lock().unwrap();
    let transactions: u64 = host.epochs.iter().map(|record| record.transactions()).sum();
    assert_eq!(transactions, 3 + 2);
    assert_eq!(host.values.len(), 2_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_lost_its_end_is_not_gone_on_with() {
    let cluster = Cluster::new();
    cluster.host.lock().unwrap().applied = EpochNumber(5);
    let running = cluster.start().await;
    match tokio::time::timeout(PATIENCE, running.sequencer.stopped()).await.unwrap() {
        StopReason::Failed(reason) => {
            assert!(reason.contains("has applied e5, but the log ends with e0"), "{reason}");
        }
        StopReason::Asked => panic!("nobody asked"),
    }

    // The index of ids notices it, too.
    let cluster = Cluster::new();
    let running = cluster.start().await;
    running.client().await.submit(vec![call("set a 1", 0)]).await;
    running.stop().await;
    std::fs::remove_dir_all(cluster.config().log_directory()).unwrap();
    match cluster.try_start(true).await.map(|_| ()) {
        Err(StartError::Restore(RestoreError::Order { source, .. })) => {
            let (end, indexed) = (EpochNumber(0), EpochNumber(1));
            assert_eq!(source, parsec_sequencer_core::RestoreError::LogTooShort { end, indexed });
        }
        other => panic!("{other:?}"),
    }
}
