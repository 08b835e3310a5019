//! Valid values of everything that is encoded: what the seeds are made of.

pub(crate) mod ethereum;

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::message::{
    Answer, ClientMessage, ClientReceipt, ClusterId, ClusterStatus, Outcomes, PartitionDigest,
    PartitionStatus, PeerHello, PeerMessage, Query, ReadAt, ServerMessage, Verdict, Welcome,
};
use parsec_protocol::{
    Access, Batch, Change, Delta, Entry, EpochNumber, EpochRecord, ErrorCode, Event, Footprint,
    HostSlices, Key, LaneId, Mode, Namespace, NodeId, Outcome, PartitionId, PartitionMap, Position,
    Push, PushKind, Receipt, RuntimeId, Transaction, TxId, Value, codec, slice,
};
use parsec_runtimes::native::{Program, key};

pub(crate) fn keys() -> [Key; 4] {
    [
        key("alice").unwrap(),
        key("bob").unwrap(),
        Key::with_affinity(Namespace::partitioned(0x11), 2, &[b"w1", b"stock"]).unwrap(),
        Key::new(Namespace::replicated(0x10), b"rate").unwrap(),
    ]
}

pub(crate) fn footprint() -> Footprint {
    let modes = [Mode::Write, Mode::Write, Mode::Add, Mode::Read];
    let accesses = keys().into_iter().zip(modes).map(|(key, mode)| Access { key, mode });
    Footprint::new(accesses.collect()).unwrap()
}

pub(crate) fn program() -> Program {
    let [alice, bob, stock, rate] = keys();
    Program::new().transfer(&alice, &bob, 5).add(&stock, -3).get(&rate)
}

pub(crate) fn transaction() -> Transaction {
    let expires = Some(EpochNumber(90));
    Transaction { footprint: Some(footprint()), expires, ..program().into_transaction(7) }
}

pub(crate) fn batch(sequence: u64) -> Batch {
    let entry = |n: u8| Entry {
        id: TxId([n; 32]),
        runtime: RuntimeId::NATIVE,
        attempt: n,
        home: PartitionId(n.into()),
        sender: Bytes::from(vec![n; 20]),
        payload: program().into_transaction(0).payload,
        footprint: footprint(),
        expires: (n > 0).then_some(EpochNumber(9)),
    };
    Batch {
        lane: LaneId(0),
        sequence,
        map_version: 1,
        entries: (0..3).map(entry).map(Arc::new).collect(),
    }
}

pub(crate) fn epoch(batches: &[&Batch], parent: [u8; 32]) -> EpochRecord {
    let reference = |batch: &&Batch| batch.reference(&codec::encode(*batch));
    EpochRecord {
        number: EpochNumber(1),
        timestamp_ms: 1_700_000_000_000,
        block: 1,
        parent,
        batches: batches.iter().map(reference).collect(),
    }
}

pub(crate) fn host_slices() -> HostSlices {
    let batch = batch(1);
    let map = PartitionMap::even(3).unwrap();
    let digest = codec::digest(&codec::encode(&batch));
    let slices = slice::cut(&batch, &map);
    HostSlices { lane: batch.lane, sequence: batch.sequence, digest, slices }
}

pub(crate) fn receipts() -> Vec<Receipt> {
    let outcomes = [
        Outcome::Committed,
        Outcome::Reverted(ErrorCode::InsufficientFunds),
        Outcome::Invalid(ErrorCode::Expired),
        Outcome::Strayed { key: keys()[0].clone(), mode: Mode::Write },
    ];
    let event = Event {
        source: Value::from_static(&[0xcc; 20]),
        topics: vec![[1; 32], [2; 32]].into(),
        data: Value::from_static(b"data"),
    };
    let receipt = |(index, outcome): (u32, Outcome)| Receipt {
        id: TxId([9; 32]),
        position: Position { epoch: EpochNumber(4), index: 2 * index },
        attempt: 0,
        events: if outcome == Outcome::Committed { vec![event.clone()] } else { Vec::new() },
        outcome,
        work: 21_000,
        output: Value::from_static(b"output"),
    };
    (0..).zip(outcomes).map(receipt).collect()
}

pub(crate) fn pushes() -> Vec<Push> {
    let value = Some(Value::from_static(b"value"));
    let reads = PushKind::Reads(vec![(0, None), (3, value)].into());
    let writes = PushKind::Writes(
        vec![
            (0, Change::Keep),
            (1, Change::Put(Value::from_static(b"new"))),
            (2, Change::Delete),
            (3, Change::Add(Delta::from(-4))),
        ]
        .into(),
    );
    let push = |(index, kind)| Push {
        position: Position { epoch: EpochNumber(4), index },
        from: PartitionId(1),
        to: PartitionId(0),
        kind: Arc::new(kind),
    };
    (0..).zip([reads, writes]).map(push).collect()
}

fn partition_digest() -> PartitionDigest {
    PartitionDigest {
        partition: PartitionId(1),
        applied: EpochNumber(8),
        state: [5; 32],
        receipts: [6; 32],
        executed: 100,
        multi_partition: 3,
    }
}

pub(crate) fn peer_hello() -> PeerHello {
    PeerHello { version: 1, cluster: ClusterId([8; 32]), node: NodeId(2) }
}

pub(crate) fn client_messages() -> Vec<(&'static str, ClientMessage)> {
    let bare = Transaction { footprint: None, expires: None, ..transaction() };
    let transactions = vec![transaction(), bare];
    vec![
        ("client-hello", ClientMessage::Hello { version: 1 }),
        ("client-submit", ClientMessage::Submit { request: 1, transactions }),
        (
            "client-read",
            ClientMessage::Read {
                request: 2,
                at: ReadAt::Epoch(EpochNumber(5)),
                keys: keys().to_vec(),
            },
        ),
        ("client-status", ClientMessage::Status { request: 3 }),
        ("client-blocks", ClientMessage::Blocks { request: 4, from: 7, offset: 0, limit: 9 }),
        (
            "client-query",
            ClientMessage::Query {
                request: 5,
                runtime: RuntimeId::EVM,
                at: EpochNumber(8),
                question: Bytes::from_static(b"{}"),
            },
        ),
    ]
}

pub(crate) fn server_messages() -> Vec<(&'static str, ServerMessage)> {
    let welcome =
        Welcome { version: 1, cluster: ClusterId([8; 32]), chain_id: 1, in_flight_max: 4_096 };
    let rejected = Verdict::Rejected {
        code: ErrorCode::Busy,
        detail: "as much to do as is accepted".into(),
        retry_after_ms: Some(5),
    };
    let verdicts = vec![Verdict::Accepted(TxId([9; 32])), rejected];
    let receipts = (0..).zip(receipts());
    let receipts = receipts.map(|(index, receipt)| ClientReceipt {
        request: 1,
        index,
        receipt: receipt.into(),
    });
    let values = vec![None, Some(Value::from_static(b"a value that is stored out of line"))];
    let answer = Bytes::from_static(b"{}");
    let blocks = vec![Bytes::from_static(b"a piece of a block")];
    let status = ClusterStatus {
        ordered: EpochNumber(8),
        transactions: 100,
        in_flight: 2,
        partitions: vec![partition_digest()],
        partitions_total: 2,
    };
    let (code, detail) = (ErrorCode::Unavailable, "a partition is away".into());
    vec![
        ("server-welcome", ServerMessage::Welcome(welcome)),
        ("server-verdicts", ServerMessage::Verdicts { request: 1, verdicts }),
        ("server-receipts", ServerMessage::Receipts(receipts.collect())),
        ("server-values", ServerMessage::Values { request: 2, epoch: EpochNumber(8), values }),
        ("server-failed", ServerMessage::Failed { request: 2, code, detail }),
        ("server-status", ServerMessage::Status { request: 3, status }),
        ("server-blocks", ServerMessage::Blocks { request: 4, blocks, cut: Some(99) }),
        ("server-answer", ServerMessage::Answer { request: 5, answer }),
        ("server-goodbye", ServerMessage::Goodbye { reason: "the node stops".into() }),
    ]
}

pub(crate) fn peer_messages() -> Vec<(&'static str, PeerMessage)> {
    let (partition, epoch) = (PartitionId(1), EpochNumber(8));
    let statuses = || vec![PartitionStatus { partition, applied: epoch, durable: EpochNumber(7) }];
    let query = |query| PeerMessage::Query { number: 5, query };
    let answer = |answer| PeerMessage::Answer { number: 5, answer };
    let position = Position { epoch, index: 3 };
    let values = vec![None, Some(Value::from_static(b"value"))];
    let receipt = receipts().pop();
    let shared = receipts().into_iter().map(Arc::new);
    let epochs = vec![epoch, epoch.next()];
    let outcomes = Outcomes { states: vec![[7; 32]; 2], receipts: receipts(), complete: false };
    vec![
        ("peer-slices", PeerMessage::Slices(host_slices())),
        ("peer-epoch", PeerMessage::Epoch(self::epoch(&[&batch(1)], [3; 32]))),
        ("peer-progress", PeerMessage::Progress(statuses())),
        ("peer-resend", PeerMessage::ResendReceipts { from: epoch }),
        ("peer-receipts", PeerMessage::Receipts { partition, receipts: shared.collect() }),
        ("peer-pushes", PeerMessage::Pushes(pushes())),
        ("peer-watermarks", PeerMessage::Watermarks { resume: true, partitions: statuses() }),
        ("query-read", query(Query::Read { partition, epoch, keys: keys().to_vec() })),
        ("query-receipt", query(Query::Receipt { partition, position })),
        ("query-digests", query(Query::Digests)),
        ("query-states", query(Query::States { epochs: epochs.clone() })),
        ("query-outcomes", query(Query::Outcomes { partition, epochs, after: Some(position) })),
        ("answer-values", answer(Answer::Values(values))),
        ("answer-receipt", answer(Answer::Receipt(receipt))),
        ("answer-digests", answer(Answer::Digests(vec![partition_digest()]))),
        ("answer-outcomes", answer(Answer::Outcomes(outcomes))),
        ("answer-states", answer(Answer::States(vec![[7; 32]; 2]))),
        ("answer-failed", answer(Answer::Failed { reason: "not here".into() })),
    ]
}
