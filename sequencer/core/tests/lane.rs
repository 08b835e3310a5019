//! What a lane takes, refuses and closes, step by step.

#![allow(clippy::unwrap_used, reason = "a test may")]

use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{
    Access, EpochNumber, EpochRecord, ErrorCode, Footprint, Key, LaneId, Mode, Namespace, Outcome,
    PartitionId, PartitionMap, Position, Receipt, RuntimeId, TxId,
};
use parsec_sequencer_core::{
    Accepted, Candidate, HomeChooser, LaneOptions, Lookup, Orderer, Output, Place, Refused,
    SingleLedger, Submitted, Tick, Token, limits,
};

const NOTHING: Lookup = Lookup { found: None, void: false, through: EpochNumber(0) };

/// An orderer with a log that is durable when the test says so.
struct Harness {
    orderer: Orderer<SingleLedger>,
    now: Tick,
    appended: EpochNumber,
}

fn candidate(id: u8, payload: usize) -> Candidate {
    let key = Key::new(Namespace::partitioned(1), &[id]).unwrap();
    Candidate {
        id: TxId([id; 32]),
        runtime: RuntimeId::NATIVE,
        sender: Vec::new().into(),
        payload: vec![id; payload].into(),
        footprint: Footprint::new(vec![Access { key, mode: Mode::Write }]).unwrap(),
        expires: None,
        renews: false,
    }
}

fn token(request: u64) -> Option<Token> {
    Some(Token { connection: 1, request, index: 0 })
}

fn receipt(id: u8, epoch: u64, index: u32, attempt: u8, outcome: Outcome) -> Receipt {
    Receipt {
        id: TxId([id; 32]),
        position: Position { epoch: EpochNumber(epoch), index },
        attempt,
        outcome,
        work: 0,
        output: Vec::new().into(),
        events: Vec::new(),
    }
}

fn strayed() -> Outcome {
    let key = Key::new(Namespace::partitioned(1), b"elsewhere").unwrap();
    Outcome::Strayed { key, mode: Mode::Read }
}

impl Harness {
    fn new(options: LaneOptions) -> Self {
        let homes = HomeChooser::new(PartitionMap::even(2).unwrap());
        let (none, ledger) = (EpochNumber(0), SingleLedger::new(None));
        let orderer = Orderer::new(LaneId(0), options, homes, ledger, none, none);
        Self { orderer, now: Tick(1_000_000), appended: none }
    }

    fn submit(&mut self, id: u8) -> Result<Accepted, Refused> {
        self.orderer.submit(candidate(id, 10), NOTHING, token(id.into()))
    }

    /// Advances, and says in words what comes out.
    fn outputs(&mut self) -> Vec<String> {
        self.orderer.advance(self.now);
        let mut seen = Vec::new();
        while let Some(output) = self.orderer.poll_output() {
            seen.push(match output {
                Output::Append { batch, .. } => {
                    let ids: Vec<_> = batch.entries.iter().map(|entry| entry.id.0[0]).collect();
                    format!("batch {} {ids:?}", batch.sequence)
                }
                Output::AppendEpoch(EpochRecord { number, batches, .. }) => {
                    self.appended = number;
                    format!("{number} of {}", batches.len())
                }
                Output::Sync => "sync".to_owned(),
                Output::Dispatch { record, .. } => format!("dispatch {}", record.number),
                Output::Reply { token, receipt } => {
                    format!("reply {} {}", token.request, receipt.position)
                }
                Output::Rediscover(strays) => {
                    let ids: Vec<_> = strays.iter().map(|s| s.entry.id.0[0].to_string()).collect();
                    format!("rediscover {} at {}", ids.join(" "), strays[0].least)
                }
                Output::Summarize { through } => format!("summarize {through}"),
            });
        }
        seen
    }

    fn durable(&mut self) -> Vec<String> {
        self.orderer.on_durable(self.appended);
        self.outputs()
    }
}

#[test]
fn an_idle_log_takes_a_batch_at_once_and_a_busy_one_gathers() {
    let mut harness =
        Harness::new(LaneOptions { batch_transactions_max: 3, ..LaneOptions::default() });
    harness.submit(1).unwrap();
    assert_eq!(harness.outputs(), ["batch 1 [1]", "e1 of 1", "sync"]);
    harness.submit(2).unwrap();
    assert_eq!(harness.outputs(), [""; 0]);
    let queued = (3..=5).filter(|id| harness.submit(*id) == Ok(Accepted::Queued));
    assert_eq!(queued.count(), 3);
    assert_eq!(harness.outputs(), ["batch 2 [2, 3, 4]"], "a full batch does not wait for the log");
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    assert_eq!(harness.durable(), ["dispatch e1", "batch 3 [5]", "e2 of 2", "sync"]);
}

#[test]
fn epochs_keep_their_distance_while_something_executes() {
    let mut harness = Harness::new(LaneOptions::default());
    harness.submit(1).unwrap();
    harness.outputs();
    harness.submit(2).unwrap();
    assert_eq!(harness.durable(), ["dispatch e1"]);
    let due = harness.orderer.next_timeout().unwrap();
    assert_eq!(due, harness.now.after(limits::EPOCH_INTERVAL_MIN_US));
    harness.now = due;
    assert_eq!(harness.outputs(), ["batch 2 [2]", "e2 of 1", "sync"]);
    assert_eq!(harness.orderer.next_timeout(), None);
    // With nothing to wait for, the next one goes at once.
    assert_eq!(harness.durable(), ["dispatch e2"]);
    harness.orderer.on_receipt(receipt(1, 1, 0, 0, Outcome::Committed).into());
    harness.orderer.on_receipt(receipt(2, 2, 0, 0, Outcome::Committed).into());
    harness.submit(3).unwrap();
    assert_eq!(
        harness.outputs(),
        ["reply 1 e1/0", "reply 2 e2/0", "batch 3 [3]", "e3 of 1", "sync"]
    );
}

#[test]
fn what_is_full_refuses() {
    let options = LaneOptions { pending_transactions_max: 2, ..LaneOptions::default() };
    let mut harness = Harness::new(options);
    assert_eq!(
        (harness.submit(1), harness.submit(2)),
        (Ok(Accepted::Queued), Ok(Accepted::Queued))
    );
    assert_eq!(harness.submit(3), Err(Refused::Busy));
    // What is under way needs no room.
    assert_eq!(harness.submit(2), Ok(Accepted::Attached));
    let taken = (0..limits::TOKENS_PER_TRANSACTION_MAX).filter(|_| harness.submit(1).is_ok());
    assert_eq!(taken.count(), limits::TOKENS_PER_TRANSACTION_MAX - 1);

    let mut harness =
        Harness::new(LaneOptions { pending_bytes_max: 1_000, ..LaneOptions::default() });
    let mut submit = |id, payload| harness.orderer.submit(candidate(id, payload), NOTHING, None);
    assert_eq!(submit(1, 500), Ok(Accepted::Queued));
    assert_eq!(submit(2, 500), Err(Refused::Busy));
    assert_eq!(submit(3, 10), Ok(Accepted::Queued));
}

#[test]
fn a_slow_partition_holds_the_order_back() {
    let mut harness =
        Harness::new(LaneOptions { epochs_in_flight_max: 2, ..LaneOptions::default() });
    let mut dispatched = 0;
    for id in 1..10 {
        harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
        harness.submit(id).unwrap();
        harness.outputs();
        dispatched +=
            harness.durable().iter().filter(|output| output.starts_with("dispatch")).count();
    }
    assert_eq!(dispatched, 2);
    assert_eq!(harness.orderer.next_timeout(), None, "only the partition can make room");
    harness.orderer.on_applied(EpochNumber(1));
    assert_eq!(harness.outputs()[0], "batch 3 [3, 4, 5, 6, 7, 8, 9]");
}

#[test]
fn the_index_is_asked_again_once_it_alone_knows() {
    let mut harness = Harness::new(LaneOptions::default());
    harness.submit(1).unwrap();
    harness.outputs();
    harness.durable();
    harness.orderer.on_receipt(receipt(1, 1, 0, 0, Outcome::Committed).into());
    let place = |home| Place { position: Position { epoch: EpochNumber(1), index: 0 }, home };
    let Ok(Accepted::Known(known)) = harness.submit(1) else { panic!("it is finished") };
    harness.orderer.on_indexed(EpochNumber(1));
    assert_eq!(harness.orderer.lane().retained(), 0);
    assert_eq!(harness.submit(1), Err(Refused::LookupTooOld));
    assert_eq!(harness.submit(2), Err(Refused::LookupTooOld));
    let lookup = |found| Lookup { found, void: false, through: EpochNumber(1) };
    let found = lookup(Some(place(PartitionId(1))));
    let again = harness.orderer.submit(candidate(1, 10), found, token(1));
    assert_eq!(again, Ok(Accepted::Known(place(PartitionId(1)))));
    assert_eq!(known.position, place(PartitionId(1)).position);
    let other = harness.orderer.submit(candidate(2, 10), lookup(None), token(2));
    assert_eq!(other, Ok(Accepted::Queued));
}

#[test]
fn what_had_no_effect_is_ordered_anew_for_those_who_want_it() {
    let mut harness = Harness::new(LaneOptions::default());
    let early = Outcome::Invalid(ErrorCode::NonceTooHigh);
    let renewing = |id| Candidate { renews: true, ..candidate(id, 10) };
    harness.submit(1).unwrap();
    harness.submit(2).unwrap();
    harness.outputs();
    harness.durable();
    harness.orderer.on_receipt(receipt(1, 1, 0, 0, early.clone()).into());
    harness.orderer.on_receipt(receipt(2, 1, 1, 0, Outcome::Committed).into());
    assert!(matches!(harness.submit(1), Ok(Accepted::Known(_))), "it does not want it");
    let offer =
        |harness: &mut Harness, id, lookup| harness.orderer.submit(renewing(id), lookup, token(9));
    assert!(matches!(offer(&mut harness, 2, NOTHING), Ok(Accepted::Known(_))), "it took effect");
    assert_eq!(offer(&mut harness, 1, NOTHING), Ok(Accepted::Queued));
    assert_eq!(offer(&mut harness, 1, NOTHING), Ok(Accepted::Attached));
    assert_eq!(harness.outputs()[..3], ["reply 1 e1/0", "reply 2 e1/1", "batch 2 [1]"]);
    assert_eq!(harness.durable(), ["dispatch e2"]);
    // Its first attempt is over: that it is indexed, or its receipt comes again, says nothing.
    harness.orderer.on_receipt(receipt(1, 1, 0, 0, early.clone()).into());
    harness.orderer.on_indexed(EpochNumber(1));
    assert_eq!(offer(&mut harness, 1, NOTHING), Ok(Accepted::Attached));
    harness.orderer.on_receipt(receipt(1, 2, 0, 0, early).into());
    harness.orderer.on_indexed(EpochNumber(2));
    assert_eq!(harness.orderer.lane().retained(), 0);
    // Now the index alone knows it.
    let place =
        Place { position: Position { epoch: EpochNumber(2), index: 0 }, home: PartitionId(0) };
    let found = Lookup { found: Some(place), void: false, through: EpochNumber(2) };
    assert_eq!(offer(&mut harness, 1, found), Ok(Accepted::Known(place)));
    assert_eq!(offer(&mut harness, 1, Lookup { void: true, ..found }), Ok(Accepted::Queued));
}

#[test]
fn nothing_overtakes_what_is_not_taken_now() {
    // The later ones of a unit have a younger lookup, and there is room for them; but they may be
    // the same sender's, with the next nonces.
    let mut harness = Harness::new(LaneOptions::default());
    harness.submit(1).unwrap();
    harness.outputs();
    harness.durable();
    harness.orderer.on_receipt(receipt(1, 1, 0, 0, Outcome::Committed).into());
    harness.orderer.on_indexed(EpochNumber(1));
    let young = Lookup { found: None, void: false, through: EpochNumber(1) };
    let offer = |id, lookup| (candidate(id, 10), lookup, token(id.into()));
    let unit = [offer(2, young), offer(3, NOTHING), offer(4, young)];
    let Submitted { verdicts, mut again } = harness.orderer.submit_in_order(unit);
    assert_eq!(verdicts, [Ok(Accepted::Queued)]);
    assert_eq!(again, [offer(3, NOTHING), offer(4, young)]);
    again[0].1 = young;
    let Submitted { verdicts, again } = harness.orderer.submit_in_order(again);
    assert_eq!((verdicts, again), (vec![Ok(Accepted::Queued); 2], Vec::new()));
}

#[test]
fn what_came_too_late_is_refused_before_it_is_ordered() {
    let mut harness = Harness::new(LaneOptions::default());
    harness.submit(1).unwrap();
    harness.outputs();
    harness.durable();
    let last = |epoch| Candidate { expires: Some(EpochNumber(epoch)), ..candidate(2, 10) };
    assert_eq!(harness.orderer.submit(last(1), NOTHING, token(2)), Err(Refused::Expired));
    assert_eq!(harness.orderer.submit(last(2), NOTHING, token(2)), Ok(Accepted::Queued));
}

#[test]
fn the_last_attempt_waits_for_the_others_and_they_for_it() {
    let mut harness = Harness::new(LaneOptions::default());
    harness.submit(1).unwrap();
    harness.outputs();
    harness.durable();
    let mut epoch = 1;
    for attempt in 0..limits::APART_ATTEMPT - 1 {
        harness.orderer.on_receipt(receipt(1, epoch, 0, attempt, strayed()).into());
        assert_eq!(harness.outputs(), [format!("rediscover 1 at e{epoch}")]);
        harness.orderer.on_discovered(TxId([1; 32]), attempt + 1, Ok(Footprint::default()));
        harness.outputs();
        harness.durable();
        epoch += 1;
    }
    harness.submit(2).unwrap();
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    harness.outputs();
    assert_eq!(harness.durable(), [format!("dispatch e{}", epoch + 1)]);
    // As if it had strayed in all attempts but one: it has to run alone, but another transaction executes.
    harness.orderer.on_receipt(receipt(1, epoch, 0, STRAY_ATTEMPTS_MAX - 1, strayed()).into());
    harness.submit(3).unwrap();
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    assert_eq!(harness.outputs(), [""; 0]);
    harness.orderer.on_receipt(receipt(2, epoch + 1, 0, 0, Outcome::Committed).into());
    let second = epoch + 1;
    let outputs = harness.outputs();
    assert_eq!(outputs, [format!("reply 2 e{second}/0"), format!("rediscover 1 at e{second}")]);
    harness.orderer.on_discovered(TxId([1; 32]), STRAY_ATTEMPTS_MAX, Ok(Footprint::default()));
    let alone = second + 1;
    assert_eq!(harness.outputs()[0], format!("batch {alone} [1]"));
    assert_eq!(harness.durable(), [format!("dispatch e{alone}")]);
    harness.orderer.on_receipt(receipt(1, alone, 0, STRAY_ATTEMPTS_MAX, Outcome::Committed).into());
    let outputs = harness.outputs();
    assert_eq!(outputs[..2], [format!("reply 1 e{alone}/0"), format!("batch {} [3]", alone + 1)]);
}

#[test]
fn those_that_stray_again_and_again_run_apart_as_a_group() {
    let mut harness = Harness::new(LaneOptions::default());
    let all = [1, 2, 3];
    for id in all {
        harness.submit(id).unwrap();
    }
    harness.outputs();
    harness.durable();
    let mut epoch = 1;
    let index = |id: &u8| u32::from(*id) - 1;
    for attempt in 0..limits::APART_ATTEMPT - 1 {
        for id in &all {
            let strayed = receipt(*id, epoch, index(id), attempt, strayed());
            harness.orderer.on_receipt(strayed.into());
        }
        let asked = all.map(|id| format!("rediscover {id} at e{epoch}"));
        assert_eq!(harness.outputs(), asked, "one by one");
        for id in all {
            let footprint = Ok(Footprint::default());
            harness.orderer.on_discovered(TxId([id; 32]), attempt + 1, footprint);
        }
        harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
        harness.outputs();
        epoch += 1;
        assert_eq!(harness.durable(), [format!("dispatch e{epoch}")]);
    }
    let last = limits::APART_ATTEMPT - 1;
    for id in [1, 3] {
        harness.orderer.on_receipt(receipt(id, epoch, index(&id), last, strayed()).into());
    }
    harness.submit(4).unwrap();
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    assert_eq!(harness.outputs(), [""; 0], "the second one executes still");
    harness.orderer.on_receipt(receipt(2, epoch, 1, last, Outcome::Committed).into());
    let outputs = harness.outputs();
    assert_eq!(outputs, [format!("reply 2 e{epoch}/1"), format!("rediscover 1 3 at e{epoch}")]);
    harness.orderer.on_discovered(TxId([3; 32]), last + 1, Ok(Footprint::default()));
    assert_eq!(harness.outputs(), [""; 0], "the first one's footprint is not found yet");
    harness.orderer.on_discovered(TxId([1; 32]), last + 1, Ok(Footprint::default()));
    epoch += 1;
    assert_eq!(harness.outputs()[0], format!("batch {epoch} [1, 3]"), "in their order");
    assert_eq!(harness.durable(), [format!("dispatch e{epoch}")]);
    harness.orderer.on_receipt(receipt(1, epoch, 0, last + 1, Outcome::Committed).into());
    assert_eq!(harness.outputs(), [format!("reply 1 e{epoch}/0")], "the others wait");
    // One that strays even so is of the next group.
    harness.orderer.on_receipt(receipt(3, epoch, 1, last + 1, strayed()).into());
    assert_eq!(harness.outputs(), [format!("rediscover 3 at e{epoch}")]);
    harness.orderer.on_discovered(TxId([3; 32]), last + 2, Ok(Footprint::default()));
    epoch += 1;
    assert_eq!(harness.outputs()[0], format!("batch {epoch} [3]"));
    harness.durable();
    harness.orderer.on_receipt(receipt(3, epoch, 0, last + 2, Outcome::Committed).into());
    let outputs = harness.outputs();
    assert_eq!(outputs[..2], [format!("reply 3 e{epoch}/0"), format!("batch {} [4]", epoch + 1)]);
}

/// A transaction that needs to know what all before it came to.
fn curious(id: u8) -> Candidate {
    let accesses = vec![Access { key: summary_key(), mode: Mode::Read }];
    Candidate { footprint: Footprint::new(accesses).unwrap(), ..candidate(id, 10) }
}

fn summary_key() -> Key {
    Key::new(Namespace::replicated(9), b"summary").unwrap()
}

fn summary_write(id: u8) -> Candidate {
    let accesses = vec![Access { key: summary_key(), mode: Mode::Write }];
    Candidate { footprint: Footprint::new(accesses).unwrap(), ..candidate(id, 10) }
}

#[test]
fn who_asks_what_all_before_came_to_waits_for_them_and_for_the_summary() {
    let options = LaneOptions { summary_key: Some(summary_key()), ..LaneOptions::default() };
    let mut harness = Harness::new(options);
    harness.submit(1).unwrap();
    harness.outputs();
    assert_eq!(harness.durable(), ["dispatch e1"]);
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    harness.submit(2).unwrap();
    harness.orderer.submit(curious(3), NOTHING, token(3)).unwrap();
    harness.submit(4).unwrap();
    assert_eq!(harness.outputs()[0], "batch 2 [2]", "not the one that asks, nor those behind it");
    harness.durable();
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    assert_eq!(harness.outputs(), [""; 0], "others execute");
    assert_eq!(harness.orderer.next_timeout(), None, "and time alone changes nothing");

    harness.orderer.on_receipt(receipt(1, 1, 0, 0, Outcome::Committed).into());
    harness.orderer.on_receipt(receipt(2, 2, 0, 0, Outcome::Committed).into());
    assert_eq!(harness.outputs(), ["reply 1 e1/0", "reply 2 e2/0", "summarize e2"]);
    assert_eq!(harness.outputs(), [""; 0], "it is asked for once");
    harness.orderer.on_summary(EpochNumber(1), summary_write(90));
    assert_eq!(harness.outputs(), [""; 0], "that was not asked for");
    harness.orderer.on_summary(EpochNumber(2), summary_write(91));
    assert_eq!(harness.outputs()[0], "batch 3 [91, 3, 4]");
    assert_eq!(harness.durable(), ["dispatch e3"]);
    for (id, index) in [(91, 0), (3, 1), (4, 2)] {
        harness.orderer.on_receipt(receipt(id, 3, index, 0, Outcome::Committed).into());
    }
    assert_eq!(harness.outputs(), ["reply 3 e3/1", "reply 4 e3/2"]);
    assert_eq!(harness.orderer.lane().in_flight(), 0);
}

#[test]
fn a_summary_that_was_overtaken_is_asked_for_again() {
    let options = LaneOptions { summary_key: Some(summary_key()), ..LaneOptions::default() };
    let mut harness = Harness::new(options);
    harness.orderer.submit(curious(1), NOTHING, token(1)).unwrap();
    assert_eq!(harness.outputs(), ["summarize e0"]);
    harness.orderer.on_summary(EpochNumber(0), summary_write(90));
    assert_eq!(harness.outputs()[0], "batch 1 [90, 1]");
    harness.durable();
    // It strays, without need of a summary meanwhile; another epoch comes before it.
    harness.orderer.on_receipt(receipt(90, 1, 0, 0, Outcome::Committed).into());
    harness.orderer.on_receipt(receipt(1, 1, 1, 0, strayed()).into());
    harness.submit(2).unwrap();
    harness.now = harness.now.after(limits::EPOCH_INTERVAL_MIN_US);
    let outputs = harness.outputs();
    assert_eq!(outputs[..2], ["rediscover 1 at e1", "batch 2 [2]"]);
    harness.durable();
    let found = curious(1).footprint;
    harness.orderer.on_discovered(TxId([1; 32]), 1, Ok(found));
    harness.orderer.on_receipt(receipt(2, 2, 0, 0, Outcome::Committed).into());
    assert_eq!(harness.outputs(), ["reply 2 e2/0", "summarize e2"]);
    harness.orderer.on_summary(EpochNumber(2), summary_write(92));
    assert_eq!(harness.outputs()[0], "batch 3 [92, 1]");
}
