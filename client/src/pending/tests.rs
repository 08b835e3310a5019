//! What is pending, driven by hand and by chance.

use std::collections::BTreeSet;

use parsec_protocol::message::ClientReceipt;
use parsec_protocol::{Outcome, Position, RuntimeId, TxId};
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;

const IN_FLIGHT_MAX: usize = 5;
const DEADLINE: Duration = Duration::from_secs(10);

fn receipt() -> Receipt {
    Receipt {
        id: TxId([0; 32]),
        position: Position { epoch: EpochNumber(1), index: 0 },
        attempt: 0,
        outcome: Outcome::Committed,
        work: 0,
        output: "".into(),
        events: Vec::new(),
    }
}

/// A pending state, and the submissions that went into it.
struct World {
    now: Instant,
    pending: Pending,
    submissions: Vec<(usize, mpsc::Receiver<Indexed>)>,
}

impl World {
    fn new(retry_busy: bool) -> Self {
        let now = Instant::now();
        Self { now, pending: Pending::new(now, retry_busy), submissions: Vec::new() }
    }

    fn submit(&mut self, count: usize) {
        let (results, received) = mpsc::channel(count.max(1));
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let transactions = vec![Transaction::new(RuntimeId::NATIVE, "x"); count];
        let sink = Arc::new(Sink::new(results, room));
        self.pending.submit(transactions, &sink, self.now + DEADLINE);
        self.submissions.push((count, received));
    }

    fn send(&mut self) -> Option<(u64, usize)> {
        match &*self.pending.next_message(IN_FLIGHT_MAX)? {
            ClientMessage::Submit { request, transactions } => Some((*request, transactions.len())),
            other => panic!("{other:?}"),
        }
    }

    fn say(&mut self, message: ServerMessage) {
        self.pending.on_message(self.now, message).unwrap();
    }

    fn give_receipt(&mut self, request: u64, index: u32) {
        let receipt = receipt().into();
        self.say(ServerMessage::Receipts(vec![ClientReceipt { request, index, receipt }]));
    }

    fn refuse(&mut self, request: u64, count: usize, code: ErrorCode) {
        let verdict = Verdict::Rejected { code, detail: "no".into(), retry_after_ms: Some(1_000) };
        self.say(ServerMessage::Verdicts { request, verdicts: vec![verdict; count] });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pending.on_time(self.now, "silence");
    }

    fn result(&mut self) -> Option<Result<Receipt, Error>> {
        self.submissions[0].1.try_recv().ok().map(|(_, result)| result)
    }
}

#[test]
fn a_busy_server_is_asked_again_after_its_hint_until_the_deadline() {
    let mut world = World::new(true);
    world.submit(1);
    for _ in 0..9 {
        let (request, count) = world.send().unwrap();
        world.refuse(request, count, ErrorCode::Busy);
        assert!(!world.pending.has_message(IN_FLIGHT_MAX));
        assert_eq!(world.pending.next_time(), Some(world.pending.tick.min(world.now + TICK * 10)));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.result(), None);
    }
    let (request, _) = world.send().unwrap();
    world.refuse(request, 1, ErrorCode::Busy);
    let Some(Err(Error::Rejected(rejection))) = world.result() else { panic!("no rejection") };
    assert_eq!(rejection.code, ErrorCode::Busy);
    assert!(world.pending.is_empty());
}

#[test]
fn a_rejection_after_a_lost_connection_does_not_say_that_nothing_happened() {
    let mut world = World::new(false);
    world.submit(1);
    world.send().unwrap();
    world.pending.disconnected();
    let (request, _) = world.send().unwrap();
    world.refuse(request, 1, ErrorCode::Busy);
    assert!(matches!(world.result(), Some(Err(Error::Unknown { .. }))));
}

#[test]
fn what_is_given_up_still_counts_at_the_server() {
    let mut world = World::new(true);
    world.submit(IN_FLIGHT_MAX);
    let (request, count) = world.send().unwrap();
    assert_eq!(count, IN_FLIGHT_MAX);
    world.pass(DEADLINE);
    assert!(matches!(world.result(), Some(Err(Error::Unknown { .. }))));
    world.submit(1);
    assert!(!world.pending.has_message(IN_FLIGHT_MAX));
    world.give_receipt(request, 0);
    assert_eq!(world.send().map(|(_, count)| count), Some(1));
}

#[test]
fn what_was_never_sent_has_not_happened() {
    let mut world = World::new(true);
    world.submit(1);
    world.pass(DEADLINE);
    assert!(matches!(world.result(), Some(Err(Error::NotSent { .. }))));
}

#[test]
fn a_lost_connection_keeps_the_order() {
    let mut world = World::new(true);
    let payload = |n: usize| Transaction::new(RuntimeId::NATIVE, n.to_string());
    let (results, _received) = mpsc::channel(10);
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let sink = Arc::new(Sink::new(results, room));
    world.pending.submit((0..8).map(payload).collect(), &sink, world.now + DEADLINE);
    world.pending.next_message(2);
    world.pending.next_message(4);
    world.pending.disconnected();
    let message = world.pending.next_message(100).unwrap();
    let ClientMessage::Submit { transactions, .. } = &*message else { panic!("{message:?}") };
    assert_eq!(*transactions, (0..8).map(payload).collect::<Vec<_>>());
}

#[test]
fn a_transaction_beyond_the_limits_is_refused_here() {
    let mut world = World::new(true);
    let (results, mut received) = mpsc::channel(1);
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let payload = vec![0; parsec_protocol::limits::PAYLOAD_BYTES_MAX + 1];
    let transaction = Transaction::new(RuntimeId::EVM, payload);
    let sink = Arc::new(Sink::new(results, room));
    world.pending.submit(vec![transaction], &sink, world.now + DEADLINE);
    let (_, result) = received.try_recv().unwrap();
    let Err(Error::Rejected(rejection)) = result else { panic!("{result:?}") };
    assert_eq!(rejection.code, ErrorCode::TooLarge);
    assert!(world.pending.is_empty());
}

#[test]
fn acceptance_is_told_once_however_often_it_is_sent() {
    let mut world = World::new(true);
    let (results, mut received) = mpsc::channel(2);
    let (accepted, mut acceptances) = mpsc::channel(2);
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let sink = Arc::new(Sink::new(results, room).telling(accepted));
    let transactions = vec![Transaction::new(RuntimeId::NATIVE, "x"); 2];
    world.pending.submit(transactions, &sink, world.now + DEADLINE);
    for _ in 0..2 {
        let (request, count) = world.send().unwrap();
        assert_eq!(count, 2);
        let rejected = Verdict::Rejected {
            code: ErrorCode::Busy,
            detail: String::new(),
            retry_after_ms: Some(1),
        };
        let verdicts = vec![Verdict::Accepted(TxId([7; 32])), rejected];
        world.say(ServerMessage::Verdicts { request, verdicts });
        world.pending.disconnected();
        world.now += Duration::from_secs(1);
        world.pending.on_time(world.now, "late");
    }
    assert_eq!(acceptances.try_recv().unwrap(), (0, TxId([7; 32])));
    assert!(acceptances.try_recv().is_err());
    assert!(received.try_recv().is_err(), "neither has a result yet");
}

#[derive(Debug, Clone)]
enum Op {
    Submit(usize),
    Send,
    Receipt { request: u64, index: u32 },
    Refuse { flight: usize, busy: bool },
    Disconnect,
    Pass { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..7usize).prop_map(Op::Submit),
        Just(Op::Send),
        (1..20u64, 0..6u32).prop_map(|(request, index)| Op::Receipt { request, index }),
        (0..3usize, any::<bool>()).prop_map(|(flight, busy)| Op::Refuse { flight, busy }),
        Just(Op::Disconnect),
        (0..4_000u64).prop_map(|ms| Op::Pass { ms }),
    ]
}

proptest! {
    #[test]
    fn every_transaction_gets_one_result_and_no_more_are_in_flight_than_allowed(
        ops in proptest::collection::vec(op(), 0..60),
        retry_busy: bool,
    ) {
        let mut world = World::new(retry_busy);
        let mut flights = Vec::new();
        for op in ops {
            match op {
                Op::Submit(count) => world.submit(count),
                Op::Send => flights.extend(world.send()),
                Op::Receipt { request, index } => world.give_receipt(request, index),
                Op::Refuse { flight, busy } if flight < flights.len() => {
                    let (request, count) = flights.swap_remove(flight);
                    let code = if busy { ErrorCode::Busy } else { ErrorCode::BadSignature };
                    world.refuse(request, count, code);
                }
                Op::Refuse { .. } => {}
                Op::Disconnect => world.pending.disconnected(),
                Op::Pass { ms } => world.pass(Duration::from_millis(ms)),
            }
            let open: usize = world.pending.flights.values().map(|flight| flight.left).sum();
            prop_assert_eq!(open, world.pending.in_flight);
            prop_assert!(open <= IN_FLIGHT_MAX);
        }
        world.pass(DEADLINE * 2);
        world.pending.disconnected();
        prop_assert!(world.pending.is_empty());
        for (count, mut results) in world.submissions {
            let mut indexes = BTreeSet::new();
            while let Ok((index, _)) = results.try_recv() {
                prop_assert!(indexes.insert(index), "{} has two results", index);
            }
            prop_assert_eq!(indexes.len(), count);
        }
    }
}
