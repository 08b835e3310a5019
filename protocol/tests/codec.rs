//! The encoding of everything that crosses a wire or goes to the log: what is encoded comes back,
//! and what is hostile is refused, or harmless.
//!
//! Memory needs no counting allocator here. An archive holds every length explicitly and each of
//! its parts once ([`parts_that_share_bytes_are_refused`]), so that what is decoded is bounded by
//! what was received; [`hostile_bytes_decode_to_nothing_large`] measures it by encoding again. Only
//! keys that are packed share bytes; how much larger they are in memory is tested beside them.

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::message::*;
use parsec_protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;

fn value() -> impl Strategy<Value = Value> {
    // On both sides of what is inline.
    vec(any::<u8>(), 0..80).prop_map(Value::from)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn digest() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn key() -> impl Strategy<Value = Key> {
    (0..0x7fffu16, any::<bool>(), 0..4u8, vec(any::<u8>(), 4..20)).prop_map(
        |(number, replicated, affinity, bytes)| {
            let namespace = match replicated {
                true => Namespace::replicated(number),
                false => Namespace::partitioned(number),
            };
            Key::with_affinity(namespace, affinity, &[&bytes]).expect("it is short")
        },
    )
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Add), Just(Mode::Read), Just(Mode::Write)]
}

fn access() -> impl Strategy<Value = Access> {
    (key(), mode()).prop_map(|(key, mode)| Access { key, mode })
}

fn footprint() -> impl Strategy<Value = Footprint> {
    vec(access(), 0..6).prop_map(|accesses| Footprint::new(accesses).expect("it is short"))
}

fn epoch_number() -> impl Strategy<Value = EpochNumber> {
    any::<u64>().prop_map(EpochNumber)
}

fn position() -> impl Strategy<Value = Position> {
    (epoch_number(), any::<u32>()).prop_map(|(epoch, index)| Position { epoch, index })
}

fn partition() -> impl Strategy<Value = PartitionId> {
    any::<u16>().prop_map(PartitionId)
}

fn tx_id() -> impl Strategy<Value = TxId> {
    digest().prop_map(TxId)
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let expires = option::of(epoch_number());
    (any::<u8>(), bytes(), any::<u128>(), option::of(footprint()), expires, any::<bool>()).prop_map(
        |(runtime, payload, salt, footprint, expires, renews)| Transaction {
            runtime: RuntimeId(runtime),
            payload,
            salt,
            footprint,
            expires,
            renews,
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let names = (tx_id(), any::<u8>(), any::<u8>(), partition());
    (names, bytes(), bytes(), footprint(), option::of(epoch_number())).prop_map(
        |((id, runtime, attempt, home), sender, payload, footprint, expires)| Entry {
            id,
            runtime: RuntimeId(runtime),
            attempt,
            home,
            sender,
            payload,
            footprint,
            expires,
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    (any::<u16>(), any::<u64>(), any::<u64>(), vec(entry(), 0..4)).prop_map(
        |(lane, sequence, map_version, entries)| Batch {
            lane: LaneId(lane),
            sequence,
            map_version,
            entries: entries.into_iter().map(Arc::new).collect(),
        },
    )
}

fn epoch_record() -> impl Strategy<Value = EpochRecord> {
    let batches = vec((batch(), digest()), 0..4).prop_map(|batches| {
        batches.iter().map(|(batch, encoded)| batch.reference(encoded)).collect()
    });
    (epoch_number(), any::<u64>(), any::<u64>(), digest(), batches).prop_map(
        |(number, timestamp_ms, block, parent, batches)| EpochRecord {
            number,
            timestamp_ms,
            block,
            parent,
            batches,
        },
    )
}

fn error_code() -> impl Strategy<Value = ErrorCode> {
    proptest::sample::select(vec![
        ErrorCode::Malformed,
        ErrorCode::BadSignature,
        ErrorCode::Busy,
        ErrorCode::OutOfWork,
        ErrorCode::Overflow,
    ])
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Committed),
        error_code().prop_map(Outcome::Reverted),
        error_code().prop_map(Outcome::Invalid),
        (key(), mode()).prop_map(|(key, mode)| Outcome::Strayed { key, mode }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (bytes(), vec(digest(), 0..4), bytes()).prop_map(|(source, topics, data)| Event {
        source: source.into(),
        topics: topics.into(),
        data: data.into(),
    })
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let events = vec(event(), 0..3);
    (tx_id(), position(), any::<u8>(), outcome(), any::<u64>(), bytes(), events).prop_map(
        |(id, position, attempt, outcome, work, output, events)| Receipt {
            id,
            position,
            attempt,
            outcome,
            work,
            output: output.into(),
            events,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Keep),
        Just(Change::Delete),
        value().prop_map(Change::Put),
        digest().prop_map(|delta| Change::Add(Delta(delta))),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    let kind = prop_oneof![
        vec((any::<u16>(), option::of(value())), 0..4)
            .prop_map(|items| PushKind::Reads(items.into())),
        vec((any::<u16>(), change()), 0..4).prop_map(|items| PushKind::Writes(items.into())),
    ];
    (position(), partition(), partition(), kind).prop_map(|(position, from, to, kind)| Push {
        position,
        from,
        to,
        kind: kind.into(),
    })
}

fn host_slices() -> impl Strategy<Value = HostSlices> {
    let accesses = footprint().prop_map(|footprint| {
        footprint.indexed().map(|(index, access)| (index, access.clone())).collect::<Vec<_>>()
    });
    let forward = prop_oneof![Just(Forward::First), Just(Forward::Next), Just(Forward::Last)];
    let forwards = vec((any::<u16>(), forward), 0..4);
    let forwarded = vec(any::<u16>(), 0..3);
    let role = prop_oneof![
        (entry(), forwards)
            .prop_map(|(entry, forwards)| Role::Home { entry: Arc::new(entry), forwards }),
        (partition(), accesses, forwarded).prop_map(|(home, accesses, forwarded)| {
            Role::Participant { home, accesses, forwarded }
        }),
    ];
    let entry = (any::<u32>(), role).prop_map(|(index, role)| SliceEntry { index, role });
    let slice = (partition(), vec(entry, 0..3))
        .prop_map(|(partition, entries)| Slice { partition, entries });
    (any::<u16>(), any::<u64>(), digest(), vec(slice, 0..3)).prop_map(
        |(lane, sequence, digest, slices)| HostSlices {
            lane: LaneId(lane),
            sequence,
            digest,
            slices,
        },
    )
}

fn partition_status() -> impl Strategy<Value = PartitionStatus> {
    (partition(), epoch_number(), epoch_number())
        .prop_map(|(partition, applied, durable)| PartitionStatus { partition, applied, durable })
}

fn partition_digest() -> impl Strategy<Value = PartitionDigest> {
    (partition(), epoch_number(), digest(), digest(), any::<u64>(), any::<u64>()).prop_map(
        |(partition, applied, state, receipts, executed, multi_partition)| PartitionDigest {
            partition,
            applied,
            state,
            receipts,
            executed,
            multi_partition,
        },
    )
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        (partition(), epoch_number(), vec(key(), 0..4))
            .prop_map(|(partition, epoch, keys)| Query::Read { partition, epoch, keys }),
        (partition(), position())
            .prop_map(|(partition, position)| Query::Receipt { partition, position }),
        Just(Query::Digests),
        (partition(), vec(epoch_number(), 1..4), option::of(position()))
            .prop_map(|(partition, epochs, after)| Query::Outcomes { partition, epochs, after }),
        vec(epoch_number(), 1..4).prop_map(|epochs| Query::States { epochs }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        vec(option::of(value()), 0..4).prop_map(Answer::Values),
        option::of(receipt()).prop_map(Answer::Receipt),
        vec(partition_digest(), 0..3).prop_map(Answer::Digests),
        any::<String>().prop_map(|reason| Answer::Failed { reason }),
        epoch_number().prop_map(|oldest| Answer::NotKept { oldest }),
        vec(any::<[u8; 32]>(), 0..3).prop_map(Answer::States),
        (vec(any::<[u8; 32]>(), 0..3), vec(receipt(), 0..3), any::<bool>()).prop_map(
            |(states, receipts, complete)| Answer::Outcomes(Outcomes {
                states,
                receipts,
                complete
            })
        ),
    ]
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    let statuses = || vec(partition_status(), 0..4);
    prop_oneof![
        host_slices().prop_map(PeerMessage::Slices),
        epoch_record().prop_map(PeerMessage::Epoch),
        epoch_number().prop_map(|from| PeerMessage::ResendReceipts { from }),
        statuses().prop_map(PeerMessage::Progress),
        (partition(), vec(receipt().prop_map(Arc::new), 0..3))
            .prop_map(|(partition, receipts)| PeerMessage::Receipts { partition, receipts }),
        vec(push(), 0..4).prop_map(PeerMessage::Pushes),
        (any::<bool>(), statuses())
            .prop_map(|(resume, partitions)| PeerMessage::Watermarks { resume, partitions }),
        (any::<u64>(), query()).prop_map(|(number, query)| PeerMessage::Query { number, query }),
        (any::<u64>(), answer())
            .prop_map(|(number, answer)| PeerMessage::Answer { number, answer }),
    ]
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let at = prop_oneof![Just(ReadAt::Latest), epoch_number().prop_map(ReadAt::Epoch)];
    prop_oneof![
        any::<u32>().prop_map(|version| ClientMessage::Hello { version }),
        (any::<u64>(), vec(transaction(), 0..4))
            .prop_map(|(request, transactions)| ClientMessage::Submit { request, transactions }),
        (any::<u64>(), at, vec(key(), 0..4)).prop_map(|(request, at, keys)| ClientMessage::Read {
            request,
            at,
            keys
        }),
        any::<u64>().prop_map(|request| ClientMessage::Status { request }),
        any::<(u64, u64, u64, u32)>().prop_map(|(request, from, offset, limit)| {
            ClientMessage::Blocks { request, from, offset, limit }
        }),
        (any::<(u64, u8)>(), epoch_number(), bytes()).prop_map(
            |((request, runtime), at, question)| {
                let runtime = RuntimeId(runtime);
                ClientMessage::Query { request, runtime, at, question }
            }
        ),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        tx_id().prop_map(Verdict::Accepted),
        (error_code(), any::<String>(), any::<Option<u32>>()).prop_map(
            |(code, detail, retry_after_ms)| Verdict::Rejected { code, detail, retry_after_ms }
        ),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let welcome = (any::<u32>(), digest(), any::<u64>(), any::<u32>()).prop_map(
        |(version, cluster, chain_id, in_flight_max)| Welcome {
            version,
            cluster: ClusterId(cluster),
            chain_id,
            in_flight_max,
        },
    );
    let receipts = vec((any::<u64>(), any::<u32>(), receipt().prop_map(Arc::new)), 0..3);
    let receipts = receipts.prop_map(|receipts| {
        let item = |(request, index, receipt)| ClientReceipt { request, index, receipt };
        receipts.into_iter().map(item).collect()
    });
    let counts = (epoch_number(), any::<u64>(), any::<u64>(), any::<u16>());
    let status = (counts, vec(partition_digest(), 0..3)).prop_map(
        |((ordered, transactions, in_flight, partitions_total), partitions)| ClusterStatus {
            ordered,
            transactions,
            in_flight,
            partitions,
            partitions_total,
        },
    );
    prop_oneof![
        welcome.prop_map(ServerMessage::Welcome),
        (any::<u64>(), vec(verdict(), 0..4))
            .prop_map(|(request, verdicts)| ServerMessage::Verdicts { request, verdicts }),
        receipts.prop_map(ServerMessage::Receipts),
        (any::<u64>(), epoch_number(), vec(option::of(value()), 0..4))
            .prop_map(|(request, epoch, values)| ServerMessage::Values { request, epoch, values }),
        (any::<u64>(), error_code(), any::<String>())
            .prop_map(|(request, code, detail)| ServerMessage::Failed { request, code, detail }),
        (any::<u64>(), status)
            .prop_map(|(request, status)| ServerMessage::Status { request, status }),
        any::<String>().prop_map(|reason| ServerMessage::Goodbye { reason }),
        (any::<u64>(), vec(bytes(), 0..3), any::<Option<u64>>())
            .prop_map(|(request, blocks, cut)| ServerMessage::Blocks { request, blocks, cut }),
        (any::<u64>(), bytes())
            .prop_map(|(request, answer)| ServerMessage::Answer { request, answer }),
    ]
}

/// What the tests need of a type that is encoded as a whole.
trait Encoded: Wire + PartialEq + std::fmt::Debug + Sized {
    fn encoded(&self) -> Vec<u8>;
    fn decoded(bytes: &[u8]) -> Result<Self, Malformed>;
}

impl<T> Encoded for T
where
    T: Wire + PartialEq + std::fmt::Debug + rkyv::Archive,
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>>
        + rkyv::Deserialize<T, HighDeserializer<Error>>,
{
    fn encoded(&self) -> Vec<u8> {
        codec::encode(self).to_vec()
    }

    fn decoded(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes)
    }
}

fn comes_back<T: Encoded>(value: &T) -> Result<(), TestCaseError> {
    prop_assert_eq!(value.check(), Ok(()));
    let encoded = value.encoded();
    let decoded = T::decoded(&encoded);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    // Frames lie anywhere in a buffer.
    let shifted = [&[0xee][..], &encoded].concat();
    let decoded = T::decoded(&shifted[1..]);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    Ok(())
}

/// Decodes what may be anything. Fails the test if that is accepted without passing its check, if
/// it can't be printed, or if it is much larger than the bytes it came from.
fn is_harmless<T: Encoded>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(value) = T::decoded(bytes) else { return Ok(()) };
    prop_assert_eq!(value.check(), Ok(()));
    let printed = format!("{value:?}");
    prop_assert!(!printed.is_empty());
    let again = value.encoded();
    prop_assert!(
        again.len() <= bytes.len() + 16,
        "{} bytes from {}: {:?}",
        again.len(),
        bytes.len(),
        value
    );
    Ok(())
}

/// Damage to an encoding: bytes replaced, then cut off at an end.
#[derive(Debug, Clone)]
struct Damage {
    replaced: Vec<(prop::sample::Index, u8)>,
    cut_front: Option<prop::sample::Index>,
    cut_back: Option<prop::sample::Index>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let cut = || option::weighted(0.3, any::<prop::sample::Index>());
    (vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut(), cut())
        .prop_map(|(replaced, cut_front, cut_back)| Damage { replaced, cut_front, cut_back })
}

impl Damage {
    fn done_to(&self, encoded: &[u8]) -> Vec<u8> {
        let mut bytes = encoded.to_vec();
        for (index, byte) in &self.replaced {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
        }
        if let Some(cut) = self.cut_back {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Some(cut) = self.cut_front {
            bytes.drain(..cut.index(bytes.len() + 1));
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn batches_come_back(value in batch()) {
        comes_back(&value)?;
    }

    #[test]
    fn epoch_records_come_back(value in epoch_record()) {
        comes_back(&value)?;
        let same = codec::decode::<EpochRecord>(&codec::encode(&value)).unwrap();
        prop_assert_eq!(same.digest(), value.digest());
    }

    #[test]
    fn peer_messages_come_back(value in peer_message()) {
        comes_back(&value)?;
    }

    // What waits without having been encoded is limited by its size.
    #[test]
    fn the_size_of_a_peer_message_is_of_the_order_of_its_encoding(value in peer_message()) {
        let (size, encoded) = (value.size(), value.encoded().len());
        prop_assert!(encoded <= 3 * size, "{encoded} bytes, taken for {size}");
    }

    #[test]
    fn client_messages_come_back(value in client_message()) {
        comes_back(&value)?;
    }

    #[test]
    fn server_messages_come_back(value in server_message()) {
        comes_back(&value)?;
    }

    #[test]
    fn transactions_and_receipts_come_back(transaction in transaction(), receipt in receipt()) {
        prop_assert_eq!(transaction.check(), Ok(()));
        let encoded = codec::encode(&transaction);
        let decoded: Transaction = rkyv::from_bytes::<_, Error>(&encoded).unwrap();
        prop_assert_eq!(decoded.content_id(), transaction.content_id());
        prop_assert_eq!(decoded, transaction);
        let encoded = codec::encode(&receipt);
        let decoded: Receipt = rkyv::from_bytes::<_, Error>(&encoded).unwrap();
        prop_assert_eq!(decoded.digest(), receipt.digest());
        prop_assert_eq!(decoded, receipt);
    }

    #[test]
    fn the_same_value_has_the_same_encoding(value in batch()) {
        prop_assert_eq!(value.encoded(), value.clone().encoded());
    }

    #[test]
    fn random_bytes_are_harmless(bytes in vec(any::<u8>(), 0..300)) {
        is_harmless::<Batch>(&bytes)?;
        is_harmless::<EpochRecord>(&bytes)?;
        is_harmless::<PeerHello>(&bytes)?;
        is_harmless::<PeerMessage>(&bytes)?;
        is_harmless::<ClientMessage>(&bytes)?;
        is_harmless::<ServerMessage>(&bytes)?;
    }

    #[test]
    fn damaged_batches_are_harmless(value in batch(), damage in damage()) {
        is_harmless::<Batch>(&damage.done_to(&value.encoded()))?;
    }

    #[test]
    fn damaged_peer_messages_are_harmless(value in peer_message(), damage in damage()) {
        is_harmless::<PeerMessage>(&damage.done_to(&value.encoded()))?;
    }

    #[test]
    fn damaged_client_messages_are_harmless(value in client_message(), damage in damage()) {
        is_harmless::<ClientMessage>(&damage.done_to(&value.encoded()))?;
    }

    #[test]
    fn damaged_server_messages_are_harmless(value in server_message(), damage in damage()) {
        is_harmless::<ServerMessage>(&damage.done_to(&value.encoded()))?;
    }

    #[test]
    fn one_kind_of_message_taken_for_another_is_harmless(value in peer_message()) {
        is_harmless::<ClientMessage>(&value.encoded())?;
        is_harmless::<ServerMessage>(&value.encoded())?;
        is_harmless::<Batch>(&value.encoded())?;
    }

    /// Small archives are dense in lengths and offsets: nearly every byte is one.
    #[test]
    fn hostile_bytes_decode_to_nothing_large(
        keys in vec(key(), 1..4),
        at in any::<prop::sample::Index>(),
        word in prop_oneof![any::<u32>(), 0..2_000u32, (0..200u32).prop_map(|n| n.wrapping_neg())],
    ) {
        let message = ClientMessage::Read { request: 1, at: ReadAt::Latest, keys };
        let mut bytes = message.encoded();
        let at = at.index(bytes.len() - 3);
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        is_harmless::<ClientMessage>(&bytes)?;
    }
}

/// Where `word` stands in `bytes`, which must hold it once.
fn find(bytes: &[u8], word: u32) -> usize {
    let mut found = (0..bytes.len() - 3).filter(|at| bytes[*at..at + 4] == word.to_le_bytes());
    let at = found.next().expect("the word is there");
    assert_eq!(found.next(), None, "the word is there once");
    at
}

#[test]
fn parts_that_share_bytes_are_refused() {
    // Two values of different lengths; then the second is made to point to the first one's bytes.
    let (first, second) = (Bytes::from(vec![0xaa; 3_001]), Bytes::from(vec![0xbb; 2_003]));
    let message = ServerMessage::Values {
        request: 1,
        epoch: EpochNumber(1),
        values: vec![Some(first.into()), Some(second.clone().into())],
    };
    let encoded = message.encoded();
    let (one, two) = (find(&encoded, 3_001), find(&encoded, 2_003));
    let offset_at = |at: usize| i32::from_le_bytes(encoded[at..at + 4].try_into().unwrap());
    // The offset, relative to its own place, stands next to the length.
    let before = i32::try_from(two - one).unwrap();
    let mut bytes = encoded.clone();
    let shared = offset_at(one - 4) - before;
    bytes[two - 4..two].copy_from_slice(&shared.to_le_bytes());
    assert!(offset_at(two - 4) < 0 && shared < 0, "the layout is not what the test takes it for");
    assert!(matches!(ServerMessage::decoded(&bytes), Err(Malformed::Archive { .. })));
}

#[test]
fn limits_are_checked_when_decoding() {
    let key = Key::new(Namespace::partitioned(1), b"k").unwrap();
    let keys = vec![key; limits::READ_KEYS_MAX + 1];
    let read = ClientMessage::Read { request: 1, at: ReadAt::Latest, keys };
    let refused = ClientMessage::decoded(&read.encoded());
    assert_eq!(refused, Err(Malformed::ReadLength { keys: limits::READ_KEYS_MAX + 1 }));
    let transactions =
        vec![Transaction::new(RuntimeId::LUA, ""); limits::SUBMISSION_TRANSACTIONS_MAX + 1];
    let count = transactions.len();
    let submit = ClientMessage::Submit { request: 1, transactions };
    let refused = ClientMessage::decoded(&submit.encoded());
    assert_eq!(refused, Err(Malformed::SubmissionLength { transactions: count }));
}

#[test]
fn a_part_of_a_transaction_has_each_key_once() {
    let key = |name: &[u8]| Key::new(Namespace::partitioned(1), name).unwrap();
    let access = |name| Access { key: key(name), mode: Mode::Write };
    let slices = |accesses: Vec<(u16, Access)>| {
        let role = Role::Participant { home: PartitionId(1), accesses, forwarded: Vec::new() };
        let entries = vec![SliceEntry { index: 0, role }];
        let slices = vec![Slice { partition: PartitionId(0), entries }];
        HostSlices { lane: LaneId(0), sequence: 1, digest: [0; 32], slices }
    };
    let checked = |accesses| codec::decode::<HostSlices>(&codec::encode(&slices(accesses)));
    assert!(checked(vec![(0, access(b"a")), (3, access(b"b"))]).is_ok());
    for wrong in [
        vec![(0, access(b"a")), (1, access(b"a"))],
        vec![(0, access(b"b")), (1, access(b"a"))],
        vec![(1, access(b"a")), (1, access(b"b"))],
    ] {
        assert_eq!(checked(wrong).unwrap_err(), Malformed::FootprintOrder);
    }
}

#[test]
fn an_epoch_of_impossible_batches_is_refused() {
    let empty = Batch { lane: LaneId(0), sequence: 1, map_version: 1, entries: Vec::new() };
    let epoch = |transactions| EpochRecord {
        number: EpochNumber(1),
        timestamp_ms: 0,
        block: 0,
        parent: [0; 32],
        batches: vec![BatchRef { transactions, ..empty.reference(b"") }],
    };
    let most = u32::try_from(limits::BATCH_TRANSACTIONS_MAX).unwrap();
    assert_eq!(EpochRecord::decoded(&epoch(most).encoded()), Ok(epoch(most)));
    // Positions in an epoch of such batches would not fit their 32 bits.
    let refused = EpochRecord::decoded(&epoch(u32::MAX).encoded());
    assert!(matches!(refused, Err(Malformed::BatchLength { .. })));
}
