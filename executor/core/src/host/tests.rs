//! What a host decides, one input at a time. Random schedules of many hosts are in `tests/hosts`.

use parsec_protocol::{LaneId, Outcome, Position, PushItems, PushKind, TxId};

use super::*;
use crate::intake::IntakeError;
use crate::routes::Unheld;

const SEQUENCER: NodeId = NodeId(0);
const PEER: NodeId = NodeId(2);
/// Partitions 0 and 1 are on this host, 2 and 3 on [`PEER`].
const HOSTS: [(u16, u16); 4] = [(0, 1), (1, 1), (2, 2), (3, 2)];

/// A host whose partitions begin at `applied`, and what it asked for at its start.
fn start(applied: u64) -> (Host, Vec<HostOutput>) {
    let hosts = HOSTS.map(|(partition, node)| (PartitionId(partition), NodeId(node)));
    let routes = Arc::new(Routes::new(NodeId(1), &hosts.into()));
    let applied = [0, 1].map(|partition| (PartitionId(partition), EpochNumber(applied)));
    let mut host = Host::new(routes, SEQUENCER, &applied.into());
    let asked = outputs(&mut host);
    (host, asked)
}

fn outputs(host: &mut Host) -> Vec<HostOutput> {
    std::iter::from_fn(|| host.poll_output()).collect()
}

/// A host that has a link, session 7, with `node`.
fn linked(node: NodeId, applied: u64) -> Host {
    let (mut host, _) = start(applied);
    host.on_link_up(node, 7);
    outputs(&mut host);
    host
}

fn status(partition: u16, applied: u64, durable: u64) -> PartitionStatus {
    let (applied, durable) = (EpochNumber(applied), EpochNumber(durable));
    PartitionStatus { partition: PartitionId(partition), applied, durable }
}

fn watermarks(resume: bool, partitions: &[PartitionStatus]) -> PeerMessage {
    PeerMessage::Watermarks { resume, partitions: partitions.to_vec() }
}

fn push(to: u16, epoch: u64) -> Push {
    let position = Position { epoch: EpochNumber(epoch), index: 0 };
    let kind = PushKind::Reads(PushItems::new()).into();
    Push { position, from: PartitionId(0), to: PartitionId(to), kind }
}

fn receipt(epoch: u64) -> Receipt {
    let position = Position { epoch: EpochNumber(epoch), index: 0 };
    let (id, outcome) = (TxId([0; 32]), Outcome::Committed);
    Receipt {
        id,
        position,
        attempt: 0,
        outcome,
        work: 0,
        output: Default::default(),
        events: Vec::new(),
    }
}

fn sent(outputs: Vec<HostOutput>) -> Vec<(NodeId, u64, PeerMessage)> {
    let sent = outputs.into_iter().map(|output| match output {
        HostOutput::Send { to, session, message, .. } => (to, session, message),
        other => panic!("not a message: {other:?}"),
    });
    sent.collect()
}

/// The pushes that partitions are asked for again: partition, to, after.
fn resumes(outputs: &[HostOutput]) -> Vec<(Request, u16, u16, u64)> {
    let resumes = outputs.iter().filter_map(|output| match output {
        HostOutput::Resume { request, partition, to, after } => {
            Some((*request, partition.0, to.0, after.0))
        }
        _ => None,
    });
    resumes.collect()
}

fn prunes(outputs: &[HostOutput]) -> Vec<(u16, u16, u64)> {
    let prunes = outputs.iter().filter_map(|output| match output {
        HostOutput::PruneOutbox { partition, to, through } => Some((partition.0, to.0, through.0)),
        _ => None,
    });
    prunes.collect()
}

#[test]
fn partitions_of_one_host_resume_each_other_at_its_start() {
    let (_, asked) = start(4);
    let asked: Vec<_> =
        resumes(&asked).into_iter().map(|(_, at, to, after)| (at, to, after)).collect();
    assert_eq!(asked, [(1, 0, 4), (0, 1, 4)]);
}

#[test]
fn a_session_begins_with_how_far_this_host_is() {
    let (mut host, _) = start(4);
    let statuses = || vec![status(0, 4, 0), status(1, 4, 0)];
    host.on_link_up(SEQUENCER, 7);
    let progress = PeerMessage::Progress(statuses());
    assert_eq!(sent(outputs(&mut host)), [(SEQUENCER, 7, progress)]);
    host.on_link_up(PEER, 8);
    assert_eq!(sent(outputs(&mut host)), [(PEER, 8, watermarks(true, &statuses()))]);
    host.on_link_up(NodeId(9), 9);
    assert!(outputs(&mut host).is_empty());
}

#[test]
fn messages_count_on_the_session_that_is_up_and_from_whom_they_may_come() {
    let mut host = linked(PEER, 0);
    host.on_link_up(SEQUENCER, 9);
    outputs(&mut host);
    let pushes = || PeerMessage::Pushes(vec![push(0, 1)]);
    let resend = || PeerMessage::ResendReceipts { from: EpochNumber(1) };
    assert_eq!(host.on_message(PEER, 6, pushes()), Err(Refused::Stale));
    assert_eq!(host.on_message(NodeId(5), 7, pushes()), Err(Refused::Stale));
    assert_eq!(host.on_message(PEER, 7, resend()), Err(Refused::NotSequencer));
    assert_eq!(host.on_message(SEQUENCER, 9, pushes()), Err(Refused::NotExecutor));
    let progress = PeerMessage::Progress(Vec::new());
    assert_eq!(host.on_message(SEQUENCER, 9, progress), Err(Refused::Unexpected));
    assert!(outputs(&mut host).is_empty());
    host.on_link_down(PEER, 6);
    assert_eq!(host.on_message(PEER, 7, pushes()), Ok(()), "another session went down");
    host.on_link_down(PEER, 7);
    assert_eq!(host.on_message(PEER, 7, pushes()), Err(Refused::Stale));
}

#[test]
fn pushes_go_to_partitions_here_and_to_peers_whose_link_is_up() {
    let mut host = linked(PEER, 0);
    host.on_pushes(vec![push(2, 1), push(1, 1), push(3, 1)]);
    let out = outputs(&mut host);
    assert!(
        matches!(&out[0], HostOutput::Pushes { partition: PartitionId(1), pushes } if pushes.len() == 1)
    );
    assert_eq!(out.len(), 3);
    host.on_message(PEER, 7, PeerMessage::Pushes(vec![push(2, 1), push(0, 2)])).unwrap();
    let out = outputs(&mut host);
    assert!(matches!(&out[..], [HostOutput::Pushes { partition: PartitionId(0), .. }]));
    host.on_link_down(PEER, 7);
    host.on_pushes(vec![push(2, 1)]);
    assert!(outputs(&mut host).is_empty(), "it is asked for when the link is up");
}

#[test]
fn a_push_to_nowhere_stops_the_host_and_nothing_else_comes_out() {
    let mut host = linked(PEER, 0);
    host.on_pushes(vec![push(1, 1), push(8, 1)]);
    let out = outputs(&mut host);
    assert!(matches!(&out[..], [HostOutput::Stop(HostError::Unheld(Unheld(PartitionId(8))))]));
    host.on_pushes(vec![push(1, 1)]);
    host.on_link_up(SEQUENCER, 9);
    assert!(outputs(&mut host).is_empty());
}

#[test]
fn an_impossible_epoch_stops_the_host() {
    let mut host = linked(SEQUENCER, 0);
    let record = parsec_protocol::EpochRecord {
        number: EpochNumber(2),
        timestamp_ms: 0,
        block: 0,
        parent: [0; 32],
        batches: Vec::new(),
    };
    host.on_message(SEQUENCER, 7, PeerMessage::Epoch(record)).unwrap();
    let out = outputs(&mut host);
    assert!(matches!(&out[..], [HostOutput::Stop(HostError::Intake(IntakeError::Gap { .. }))]));
}

#[test]
fn slices_of_an_older_session_are_forgotten() {
    let mut host = linked(SEQUENCER, 0);
    for sequence in 0..crate::limits::UNORDERED_SLICES_MAX as u64 {
        let slices = parsec_protocol::HostSlices {
            lane: LaneId(0),
            sequence,
            digest: [0; 32],
            slices: Vec::new(),
        };
        let session = 7 + sequence / 4_000;
        if sequence == 4_000 {
            host.on_link_up(SEQUENCER, session);
            outputs(&mut host);
        }
        host.on_message(SEQUENCER, session, PeerMessage::Slices(slices)).unwrap();
        assert!(outputs(&mut host).is_empty());
    }
}

#[test]
fn what_a_peer_may_have_lost_is_read_once_the_store_has_it_chunk_by_chunk() {
    let mut host = linked(PEER, 5);
    host.on_message(PEER, 7, watermarks(true, &[status(2, 3, 0)])).unwrap();
    let asked = resumes(&outputs(&mut host));
    let [(first, 0, 2, 3), (second, 1, 2, 3)] = asked[..] else { panic!("{asked:?}") };
    host.on_resumed(second, EpochNumber(5));
    let out = outputs(&mut host);
    assert!(
        matches!(&out[..], [HostOutput::ReadOutbox { request, after: EpochNumber(3), .. }] if *request == second)
    );
    // The other one has finished more than its store has.
    host.on_resumed(first, EpochNumber(7));
    host.on_applied(PartitionId(1), EpochNumber(9));
    host.on_applied(PartitionId(0), EpochNumber(6));
    assert!(outputs(&mut host).is_empty());
    host.on_applied(PartitionId(0), EpochNumber(8));
    let out = outputs(&mut host);
    assert!(matches!(&out[..], [HostOutput::ReadOutbox { request, .. }] if *request == first));
    host.on_outbox(first, vec![push(2, 4), push(2, 6)]);
    let out = outputs(&mut host);
    assert!(
        matches!(&out[0], HostOutput::Send { message: PeerMessage::Pushes(p), .. } if p.len() == 2)
    );
    assert!(matches!(&out[1], HostOutput::ReadOutbox { after: EpochNumber(6), .. }));
    assert_eq!(host.resending(), 4, "two of these, and two from the start");
    host.on_outbox(first, Vec::new());
    host.on_outbox(second, Vec::new());
    assert!(outputs(&mut host).is_empty());
    assert_eq!(host.resending(), 2);
}

#[test]
fn a_newer_wish_takes_the_place_of_an_older_one_and_a_link_down_ends_both() {
    let mut host = linked(PEER, 5);
    let wish = watermarks(true, &[status(2, 3, 0)]);
    host.on_message(PEER, 7, wish.clone()).unwrap();
    let (old, ..) = resumes(&outputs(&mut host))[0];
    host.on_message(PEER, 7, wish).unwrap();
    let (new, ..) = resumes(&outputs(&mut host))[0];
    host.on_resumed(old, EpochNumber(5));
    assert!(outputs(&mut host).is_empty());
    host.on_resumed(new, EpochNumber(5));
    assert_eq!(outputs(&mut host).len(), 1);
    host.on_link_down(PEER, 7);
    assert_eq!(host.resending(), 2, "what partitions here owe each other goes on");
    host.on_outbox(new, vec![push(2, 4)]);
    assert!(outputs(&mut host).is_empty());
}

#[test]
fn receipts_are_sent_again_from_the_epoch_that_is_wanted() {
    let mut host = linked(SEQUENCER, 5);
    let wish = PeerMessage::ResendReceipts { from: EpochNumber(2) };
    host.on_message(SEQUENCER, 7, wish).unwrap();
    let out = outputs(&mut host);
    let [HostOutput::ResumeReceipts { request, .. }, HostOutput::ResumeReceipts { .. }] = out[..]
    else {
        panic!("{out:?}");
    };
    host.on_resumed(request, EpochNumber(5));
    let out = outputs(&mut host);
    assert!(matches!(&out[..], [HostOutput::ReadReceipts { from: EpochNumber(2), .. }]));
    host.on_stored_receipts(request, vec![(EpochNumber(3), vec![receipt(3)])]);
    let out = outputs(&mut host);
    assert!(
        matches!(&out[0], HostOutput::Send { message: PeerMessage::Receipts { receipts, .. }, .. } if receipts.len() == 1)
    );
    assert!(matches!(&out[1], HostOutput::ReadReceipts { from: EpochNumber(4), .. }));
    host.on_stored_receipts(request, Vec::new());
    assert!(outputs(&mut host).is_empty());
}

#[test]
fn what_is_owed_is_forgotten_when_it_is_synced_there_and_applied_here() {
    let mut host = linked(PEER, 5);
    let synced = |durable| watermarks(false, &[status(2, 9, durable), status(0, 9, 9)]);
    host.on_message(PEER, 7, synced(4)).unwrap();
    assert_eq!(prunes(&outputs(&mut host)), [(0, 2, 4), (1, 2, 4)]);
    host.on_message(PEER, 7, synced(4)).unwrap();
    assert_eq!(prunes(&outputs(&mut host)), []);
    host.on_message(PEER, 7, synced(8)).unwrap();
    assert_eq!(prunes(&outputs(&mut host)), [(0, 2, 5), (1, 2, 5)]);
    // This host does again what the peer has long synced, and then owes that as well.
    host.on_applied(PartitionId(0), EpochNumber(9));
    host.on_durable(&[(PartitionId(0), EpochNumber(9))]);
    assert_eq!(prunes(&outputs(&mut host)), [(1, 0, 5), (0, 2, 8)]);
}

#[test]
fn a_peer_that_lost_what_it_had_synced_is_told_of() {
    let mut host = linked(PEER, 5);
    host.on_message(PEER, 7, watermarks(false, &[status(2, 5, 4)])).unwrap();
    outputs(&mut host);
    host.on_message(PEER, 7, watermarks(true, &[status(2, 4, 4)])).unwrap();
    assert!(!outputs(&mut host).iter().any(|out| matches!(out, HostOutput::Forgotten { .. })));
    host.on_message(PEER, 7, watermarks(true, &[status(2, 3, 0)])).unwrap();
    let (applied, pruned) = (EpochNumber(3), EpochNumber(4));
    let forgotten = |out: &HostOutput| match out {
        HostOutput::Forgotten { partition: PartitionId(2), applied: a, pruned: p } => {
            (*a, *p) == (applied, pruned)
        }
        _ => false,
    };
    assert!(outputs(&mut host).iter().any(forgotten));
}

#[test]
fn progress_and_watermarks_are_told_once_they_grow() {
    let mut host = linked(SEQUENCER, 5);
    host.on_link_up(PEER, 8);
    outputs(&mut host);
    host.report_progress();
    assert!(outputs(&mut host).is_empty());
    host.on_applied(PartitionId(1), EpochNumber(6));
    assert!(host.is_progress_due() && outputs(&mut host).is_empty());
    host.report_progress();
    let statuses = vec![status(0, 5, 0), status(1, 6, 0)];
    let progress = PeerMessage::Progress(statuses);
    assert_eq!(sent(outputs(&mut host)), [(SEQUENCER, 7, progress)]);
    host.on_durable(&[(PartitionId(0), EpochNumber(5)), (PartitionId(1), EpochNumber(0))]);
    let statuses = [status(0, 5, 5), status(1, 6, 0)];
    let mut out = outputs(&mut host);
    assert_eq!(prunes(&out.split_off(1)), [(1, 0, 5)]);
    assert_eq!(sent(out), [(PEER, 8, watermarks(false, &statuses))]);
    host.on_durable(&[(PartitionId(0), EpochNumber(5)), (PartitionId(1), EpochNumber(0))]);
    assert!(outputs(&mut host).is_empty());
}

#[test]
fn a_partition_that_lost_pushes_asks_everybody_for_them() {
    let mut host = linked(PEER, 5);
    host.on_pushes_lost(PartitionId(1));
    let mut out = outputs(&mut host);
    let asked = resumes(&out.split_off(1));
    assert!(matches!(asked[..], [(_, 0, 1, 5)]));
    assert_eq!(sent(out), [(PEER, 7, watermarks(true, &[status(1, 5, 0)]))]);
}
