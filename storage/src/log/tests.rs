use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use parsec_protocol::{
    BatchRef, Entry, EpochNumber, Footprint, PartitionId, RuntimeId, TxId, codec,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::*;
use crate::disk::StdDisk;

const CLUSTER: [u8; 32] = [4; 32];

fn batch(lane: u16, sequence: u64, payload: &[u8]) -> Batch {
    let entry = Entry {
        id: TxId([payload.len().to_le_bytes()[0]; 32]),
        runtime: RuntimeId::NATIVE,
        attempt: 0,
        home: PartitionId(0),
        sender: bytes::Bytes::new(),
        payload: payload.to_vec().into(),
        footprint: Footprint::default(),
        expires: None,
    };
    Batch { lane: LaneId(lane), sequence, map_version: 1, entries: vec![entry.into()] }
}

fn reference(batch: &Batch) -> BatchRef {
    batch.reference(&codec::encode(batch))
}

fn epoch(last: Option<&EpochRecord>, batches: Vec<BatchRef>) -> EpochRecord {
    EpochRecord {
        number: last.map_or(EpochNumber(1), |last| last.number.next()),
        timestamp_ms: 1_000,
        block: 0,
        parent: last.map_or([0; 32], EpochRecord::digest),
        batches,
    }
}

fn open(directory: &Path, segment_bytes: u64) -> Result<(LogWriter, LogEnd), LogError> {
    LogWriter::open(directory, CLUSTER, LogOptions { segment_bytes })
}

fn append(writer: &mut LogWriter, record: &Record) -> Result<LogLocation, LogError> {
    match record {
        Record::Batch(batch) => {
            let encoded = codec::encode(batch);
            writer.append_batch(&batch.reference(&encoded), &encoded)
        }
        Record::Epoch(epoch) => writer.append_epoch(epoch),
    }
}

/// The records that a log holds, for a writer to append in this order.
fn history(epochs: u64) -> Vec<Record> {
    let mut records = Vec::new();
    let mut last: Option<EpochRecord> = None;
    for number in 1..=epochs {
        let first = batch(1, number, &vec![1; 10 + usize::try_from(number).unwrap()]);
        let second = batch(2, number, &[2; 30]);
        let next = epoch(last.as_ref(), vec![reference(&second), reference(&first)]);
        records.extend([Record::Batch(first), Record::Batch(second), Record::Epoch(next.clone())]);
        last = Some(next);
    }
    records
}

/// Appends records, syncing after each of those before `synced`. Returns where each begins.
fn fill(
    directory: &Path,
    segment_bytes: u64,
    records: &[Record],
    synced: usize,
) -> Vec<LogLocation> {
    let (mut writer, _) = open(directory, segment_bytes).unwrap();
    let mut locations = Vec::new();
    for (index, record) in records.iter().enumerate() {
        locations.push(append(&mut writer, record).unwrap());
        if index < synced {
            writer.sync().unwrap();
        }
    }
    locations
}

fn read(path: &Path) -> Result<Vec<Record>, LogError> {
    LogReader::open(path)?.map(|item| item.map(|(_, record)| record)).collect()
}

/// The epochs of a history, each with its batches.
fn assembled(records: &[Record]) -> Vec<(EpochRecord, Vec<Batch>)> {
    let find = |ordered: &BatchRef| {
        let mut batches = records.iter().filter_map(|record| match record {
            Record::Batch(batch) => Some(batch),
            Record::Epoch(_) => None,
        });
        batches.find(|batch| reference(batch) == *ordered).unwrap().clone()
    };
    let epochs = records.iter().filter_map(|record| match record {
        Record::Batch(_) => None,
        Record::Epoch(epoch) => Some(epoch),
    });
    epochs.map(|epoch| (epoch.clone(), epoch.batches.iter().map(find).collect())).collect()
}

/// What the log should add up to after these records, summaries left out.
fn expected_end(records: &[Record], end: &LogEnd) -> LogEnd {
    let mut expected = LogEnd { records: end.records, ..LogEnd::default() };
    let mut ordered = Vec::new();
    for record in records {
        match record {
            Record::Batch(batch) => drop(expected.lanes.insert(batch.lane, batch.sequence)),
            Record::Epoch(epoch) => {
                ordered.extend(epoch.batches.iter().cloned());
                expected.last_epoch = Some(epoch.clone());
            }
        }
    }
    for (key, found) in &end.unordered {
        assert!(!ordered.contains(&found.batch));
        expected.unordered.insert(*key, found.clone());
    }
    let batches = records.iter().filter(|record| matches!(record, Record::Batch(_))).count();
    assert_eq!(end.unordered.len(), batches - ordered.len());
    expected.torn_bytes = end.torn_bytes;
    expected
}

#[test]
fn what_is_written_is_read_through_many_segments() {
    let directory = tempfile::tempdir().unwrap();
    let records = history(12);
    let locations = fill(directory.path(), 500, &records, 0);
    let last = locations.last().unwrap().segment;
    assert!(last > 4, "{last} segments");

    assert_eq!(read(directory.path()).unwrap(), records);
    let found: Vec<_> =
        LogReader::open(directory.path()).unwrap().map(|item| item.unwrap().0).collect();
    assert_eq!(found, locations);
    let epochs: Result<Vec<_>, _> = LogReader::open(directory.path()).unwrap().epochs().collect();
    assert_eq!(epochs.unwrap(), assembled(&records));

    let verified = verify(directory.path()).unwrap();
    assert_eq!(verified.records, records.len() as u64 + last - 1);
    assert_eq!(open(directory.path(), 500).unwrap().1, verified);
    assert_eq!(expected_end(&records, &verified), verified);
}

#[test]
fn a_torn_end_is_dropped_at_every_byte_and_the_log_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(2);
    // The last epoch and the batch before it are not synced.
    let locations = fill(root, u64::MAX, &records, 4);
    let path = segments::path(root, 1);
    let whole = fs::read(&path).unwrap();
    let starts: Vec<usize> =
        locations.iter().map(|at| usize::try_from(at.offset).unwrap()).collect();
    for cut in starts[4]..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let kept = if cut < starts[5] { 4 } else { 5 };
        assert_eq!(read(root).unwrap(), records[..kept], "cut at {cut}");
        let (mut writer, end) = open(root, u64::MAX).unwrap();
        assert_eq!(end.torn_bytes, (cut - starts[kept]) as u64);
        assert_eq!(expected_end(&records[..kept], &end), end);
        for record in &records[kept..] {
            append(&mut writer, record).unwrap();
        }
        assert_eq!(read(root).unwrap(), records);
    }
}

#[test]
fn an_end_of_zeros_or_noise_is_torn_too() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(2);
    fill(root, u64::MAX, &records, 9);
    let path = segments::path(root, 1);
    let whole = fs::read(&path).unwrap();
    for tail in [vec![0; 5_000], b"PREC".repeat(100), whole[whole.len() - 50..].to_vec()] {
        fs::write(&path, [&whole[..], &tail].concat()).unwrap();
        let mut reader = LogReader::open(root).unwrap();
        assert_eq!(reader.by_ref().count(), records.len());
        assert_eq!(reader.torn_bytes(), tail.len() as u64);
        let (_, end) = open(root, u64::MAX).unwrap();
        assert_eq!(end.torn_bytes, tail.len() as u64);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn flips_and_zeroed_sectors_before_something_synced_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(4);
    let locations = fill(root, u64::MAX, &records, records.len());
    let path = segments::path(root, 1);
    let whole = fs::read(&path).unwrap();
    let last = usize::try_from(locations.last().unwrap().offset).unwrap();
    let flipped = (SEGMENT_HEADER_BYTES..last).step_by(7).map(|at| (at..at + 1, 0x10));
    let zeroed = (0..last - 512).step_by(512).map(|at| (at..at + 512, 0));
    for (range, flip) in flipped.chain(zeroed) {
        let mut bad = whole.clone();
        for byte in &mut bad[range.clone()] {
            *byte = if flip == 0 { 0 } else { *byte ^ flip };
        }
        fs::write(&path, &bad).unwrap();
        let opened = open(root, u64::MAX).err();
        let (hit, expected) = match range.start < SEGMENT_HEADER_BYTES {
            true => (0, None),
            false => {
                let hit = locations.iter().rposition(|at| at.offset <= range.start as u64);
                (hit.unwrap(), Some(locations[hit.unwrap()].offset))
            }
        };
        match opened {
            Some(LogError::Damaged { offset, .. }) => assert_eq!(Some(offset), expected),
            Some(LogError::NotALog { .. }) => assert_eq!(expected, None),
            other => panic!("{range:?}: {other:?}"),
        }
        assert_eq!(fs::read(&path).unwrap(), bad, "nothing is cut off");
        if expected.is_some() {
            let mut reader = LogReader::open(root).unwrap();
            assert_eq!(reader.by_ref().take_while(Result::is_ok).count(), hit);
            assert!(reader.next().is_none(), "an error is the end");
            assert!(matches!(verify(root), Err(LogError::Damaged { .. })));
        }
    }
}

#[test]
fn damage_to_an_earlier_segment_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(8);
    fill(root, 600, &records, 0);
    let path = segments::path(root, 2);
    let whole = fs::read(&path).unwrap();
    let cut_short = whole[..whole.len() - 1].to_vec();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let empty = whole[..SEGMENT_HEADER_BYTES].to_vec();
    for bad in [cut_short, flipped, empty] {
        fs::write(&path, bad).unwrap();
        match verify(root) {
            Err(LogError::Damaged { segment, .. }) => assert_eq!(segment, path),
            other => panic!("{other:?}"),
        }
        assert!(matches!(read(root), Err(LogError::Damaged { .. })));
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(verify(root), Err(LogError::MissingSegment { .. })));
    assert!(matches!(open(root, 600), Err(LogError::MissingSegment { .. })));
}

#[test]
fn a_segment_of_another_log_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    fill(&ours, 600, &history(8), 0);
    let other: Vec<_> =
        (1..9).map(|sequence| Record::Batch(batch(7, sequence, &[7; 99]))).collect();
    fill(&theirs, 600, &other, 0);
    fs::copy(segments::path(&theirs, 2), segments::path(&ours, 2)).unwrap();
    assert!(matches!(verify(&ours), Err(LogError::Damaged { .. })));
}

#[test]
fn one_writer_of_one_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (writer, _) = open(root, 600).unwrap();
    assert!(matches!(open(root, 600), Err(LogError::Locked { .. })));
    drop(writer);
    let foreign = LogWriter::open(root, [5; 32], LogOptions::default());
    assert!(matches!(foreign, Err(LogError::Foreign { .. })));
    assert_eq!(LogReader::open(root).unwrap().cluster(), CLUSTER);

    let empty = root.join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(read(&empty), Err(LogError::Empty { .. })));
    let text = root.join("text");
    fs::write(&text, b"no log").unwrap();
    assert!(matches!(read(&text), Err(LogError::NotALog { .. })));
    assert!(matches!(read(&root.join("nothing")), Err(LogError::Io { .. })));
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(directory.path(), u64::MAX).unwrap();
    let records = history(1);
    for record in &records {
        append(&mut writer, record).unwrap();
    }
    let Record::Epoch(last) = &records[2] else { unreachable!() };
    let third = batch(1, 2, b"third");
    append(&mut writer, &Record::Batch(third.clone())).unwrap();
    let before = writer.end().clone();

    let mut refuse = |record: Record| append(&mut writer, &record).unwrap_err();
    for sequence in [0, 1, 2, 4] {
        let error = refuse(Record::Batch(batch(1, sequence, b"")));
        assert!(matches!(error, LogError::BatchOrder { last: 2, .. }), "{error}");
    }
    let next = epoch(Some(last), vec![reference(&third)]);
    let late = EpochRecord { number: EpochNumber(3), ..next.clone() };
    assert!(matches!(refuse(Record::Epoch(late)), LogError::EpochOrder { .. }));
    let orphan = EpochRecord { parent: [1; 32], ..next.clone() };
    assert!(matches!(refuse(Record::Epoch(orphan)), LogError::EpochParent { .. }));
    for missing in [batch(1, 1, &[1; 11]), batch(3, 1, b"")] {
        let early = epoch(Some(last), vec![reference(&missing)]);
        assert!(matches!(refuse(Record::Epoch(early)), LogError::MissingBatch { .. }));
    }
    let other = epoch(Some(last), vec![reference(&batch(1, 2, b"other"))]);
    assert!(matches!(refuse(Record::Epoch(other)), LogError::WrongBatch { .. }));
    let huge = vec![0; crate::limits::RECORD_BODY_BYTES_MAX + 1];
    let too_large = writer.append_batch(&reference(&batch(5, 1, b"")), &huge);
    assert!(matches!(too_large, Err(LogError::TooLarge { .. })));

    assert_eq!(*writer.end(), before);
    append(&mut writer, &Record::Epoch(next)).unwrap();
}

#[test]
fn a_log_that_failed_to_write_once_never_writes_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(1);
    let (mut writer, _) = open(root, u64::MAX).unwrap();
    append(&mut writer, &records[0]).unwrap();
    let good = std::mem::replace(&mut writer.file, File::open(segments::path(root, 1)).unwrap());
    assert!(matches!(append(&mut writer, &records[1]), Err(LogError::Io { .. })));
    writer.file = good;
    assert!(matches!(append(&mut writer, &records[1]), Err(LogError::Poisoned)));
    assert!(matches!(writer.sync(), Err(LogError::Poisoned)));
    drop(writer);
    assert_eq!(read(root).unwrap(), records[..1]);
}

#[test]
fn a_log_that_failed_to_sync_once_never_writes_again() {
    let directory = tempfile::tempdir().unwrap();
    let records = history(1);
    let (mut writer, _) = open(directory.path(), u64::MAX).unwrap();
    append(&mut writer, &records[0]).unwrap();
    // A socket takes writes, but can't be synced.
    let (socket, _peer) = UnixStream::pair().unwrap();
    let good = std::mem::replace(&mut writer.file, File::from(OwnedFd::from(socket)));
    assert!(matches!(writer.sync(), Err(LogError::Io { .. })));
    writer.file = good;
    assert!(matches!(writer.sync(), Err(LogError::Poisoned)));
    assert!(matches!(append(&mut writer, &records[1]), Err(LogError::Poisoned)));
}

#[test]
fn a_reader_follows_a_writer_from_any_location() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(10);
    let (mut writer, _) = open(root, 700).unwrap();
    let mut follower = LogReader::open(root).unwrap();
    let mut locations = Vec::new();
    for record in &records {
        assert!(follower.next().is_none());
        let location = append(&mut writer, record).unwrap();
        assert_eq!(follower.next().unwrap().unwrap(), (location, record.clone()));
        locations.push(location);
    }
    for (index, location) in locations.iter().enumerate() {
        let reader = LogReader::open_at(root, *location).unwrap();
        let found: Result<Vec<_>, _> = reader.map(|item| item.map(|(_, record)| record)).collect();
        assert_eq!(found.unwrap(), records[index..]);
        let beside = LogLocation { offset: location.offset + 1, ..*location };
        let misplaced = LogReader::open_at(root, beside);
        assert!(matches!(misplaced, Err(LogError::NoRecord { .. })));
    }
    let nowhere = LogReader::open_at(root, LogLocation { segment: 99, offset: 0 });
    assert!(matches!(nowhere, Err(LogError::MissingSegment { .. })));
}

#[test]
fn a_reader_sees_whole_records_only_and_forgets_torn_ones() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let records = history(2);
    let locations = fill(root, u64::MAX, &records, 0);
    let path = segments::path(root, 1);
    let whole = fs::read(&path).unwrap();
    let start = usize::try_from(locations[5].offset).unwrap();
    fs::write(&path, &whole[..start]).unwrap();
    let mut reader = LogReader::open(root).unwrap();
    assert_eq!(reader.by_ref().count(), 5);

    // Half of a record arrives, and the writer dies. Another takes its place.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&whole[start..start + 60]).unwrap();
    assert!(reader.next().is_none());
    assert_eq!(reader.torn_bytes(), 60);
    let (mut writer, end) = open(root, u64::MAX).unwrap();
    assert_eq!(end.torn_bytes, 60);
    let other = Record::Batch(batch(1, 3, b"another"));
    append(&mut writer, &other).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().1, other);
    assert_eq!(reader.torn_bytes(), 0);
}

#[test]
fn epochs_are_found_and_assembled_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut records = history(10);
    // A batch of the first epochs is ordered by the last one only.
    let early = batch(9, 1, b"early");
    records.insert(1, Record::Batch(early.clone()));
    let Some(Record::Epoch(last)) = records.last().cloned() else { unreachable!() };
    records.push(Record::Epoch(epoch(Some(&last), vec![reference(&early)])));
    fill(root, 600, &records, 0);
    let all = assembled(&records);
    for first in 0..=11 {
        let found: Result<Vec<_>, _> =
            LogReader::epochs_from(root, EpochNumber(first)).unwrap().collect();
        let skipped = usize::try_from(first.saturating_sub(1)).unwrap();
        assert_eq!(found.unwrap(), all[skipped..], "from {first}");
    }
    assert_eq!(LogReader::epochs_from(root, EpochNumber(12)).unwrap().count(), 0);

    // The same when the start of the log has been cut off, except for what it held.
    (1..=3).for_each(|segment| fs::remove_file(segments::path(root, segment)).unwrap());
    let cut = LogReader::epochs_from(root, EpochNumber(1));
    assert!(matches!(cut, Err(LogError::UnknownEpoch { .. })));
    let mut found = LogReader::epochs_from(root, EpochNumber(10)).unwrap();
    assert_eq!(found.next().unwrap().unwrap(), all[9]);
    assert!(matches!(found.next(), Some(Err(LogError::MissingBatch { .. }))));
    assert!(found.next().is_none());
    assert!(verify(root).is_ok());
}

#[test]
fn one_file_is_a_recording() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("log");
    let records = history(3);
    fill(&root, u64::MAX, &records, 0);
    let recording = directory.path().join("recording");
    fs::copy(segments::path(&root, 1), &recording).unwrap();
    assert_eq!(read(&recording).unwrap(), records);
    let epochs: Result<Vec<_>, _> = LogReader::open(&recording).unwrap().epochs().collect();
    assert_eq!(epochs.unwrap(), assembled(&records));
    assert_eq!(verify(&recording).unwrap(), verify(&root).unwrap());
}

#[derive(Debug, Clone)]
enum Op {
    Batch {
        lane: u16,
        bytes: usize,
    },
    Epoch {
        batches: usize,
    },
    Sync,
    Reopen,
    /// The power fails: of what was not synced, this part reaches the disk, and perhaps is noise.
    Crash {
        kept: Index,
        noise: Option<(Index, u8)>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let noise = prop::option::of((any::<Index>(), 1u8..));
    prop_oneof![
        6 => (0u16..3, 0usize..200).prop_map(|(lane, bytes)| Op::Batch { lane, bytes }),
        3 => (0usize..4).prop_map(|batches| Op::Epoch { batches }),
        2 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        2 => (any::<Index>(), noise).prop_map(|(kept, noise)| Op::Crash { kept, noise }),
    ]
}

/// A log under test, and what was appended to it.
struct Model<'a> {
    root: &'a Path,
    writer: Option<LogWriter>,
    records: Vec<Record>,
    /// How many of them are promised to be there.
    promised: usize,
    /// Up to where the last segment is promised.
    promised_at: LogLocation,
}

const MODEL_SEGMENT_BYTES: u64 = 1_000;

impl Model<'_> {
    fn writer(&mut self) -> &mut LogWriter {
        self.writer.as_mut().unwrap()
    }

    fn append(&mut self, record: Record) {
        let location = append(self.writer(), &record).unwrap();
        if location.segment > self.promised_at.segment {
            // All before it was synced when the segment was closed.
            self.promised = self.records.len();
            self.promised_at = location;
        }
        self.records.push(record);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Batch { lane, bytes } => {
                let last = self.writer().end().lanes.get(&LaneId(lane)).copied();
                let next = batch(lane, last.unwrap_or(0) + 1, &vec![3; bytes]);
                self.append(Record::Batch(next));
            }
            Op::Epoch { batches } => {
                let end = self.writer().end();
                let batches = end.unordered.values().take(batches);
                let batches = batches.map(|entry| entry.batch.clone()).collect();
                let next = epoch(end.last_epoch.as_ref(), batches);
                self.append(Record::Epoch(next));
            }
            Op::Sync => {
                self.writer().sync().unwrap();
                self.promise_all();
            }
            Op::Reopen => self.reopen(),
            Op::Crash { kept, noise } => {
                self.writer = None;
                self.crash(kept, noise);
                self.reopen();
            }
        }
    }

    /// Everything in the log is promised now.
    fn promise_all(&mut self) {
        self.promised = self.records.len();
        let segment = *segments::list(&StdDisk, self.root).unwrap().last().unwrap();
        let offset = fs::metadata(segments::path(self.root, segment)).unwrap().len();
        self.promised_at = LogLocation { segment, offset };
    }

    fn crash(&mut self, kept: Index, noise: Option<(Index, u8)>) {
        let path = segments::path(self.root, self.promised_at.segment);
        let mut bytes = fs::read(&path).unwrap();
        let promised = usize::try_from(self.promised_at.offset).unwrap();
        bytes.truncate(promised + kept.index(bytes.len() - promised + 1));
        let torn = &mut bytes[promised..];
        if let Some((at, noise)) = noise.filter(|_| !torn.is_empty()) {
            torn[at.index(torn.len())] ^= noise;
        }
        fs::write(&path, bytes).unwrap();
    }

    fn reopen(&mut self) {
        self.writer = None;
        let (writer, end) = open(self.root, MODEL_SEGMENT_BYTES).unwrap();
        self.writer = Some(writer);
        let found = read(self.root).unwrap();
        assert!(found.len() >= self.promised, "{} of {}", found.len(), self.promised);
        assert_eq!(found, self.records[..found.len()]);
        self.records = found;
        self.promise_all();
        assert_eq!(expected_end(&self.records, &end), end);
        let verified = verify(self.root).unwrap();
        assert_eq!(verified, LogEnd { torn_bytes: 0, ..end });
        let epochs: Result<Vec<_>, _> = LogReader::open(self.root).unwrap().epochs().collect();
        assert_eq!(epochs.unwrap(), assembled(&self.records));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_promised_survives_every_crash(ops in vec(op(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let (writer, _) = open(directory.path(), MODEL_SEGMENT_BYTES).unwrap();
        let mut model = Model {
            root: directory.path(),
            writer: Some(writer),
            records: Vec::new(),
            promised: 0,
            promised_at: LogLocation { segment: 1, offset: SEGMENT_HEADER_BYTES as u64 },
        };
        for op in ops {
            model.apply(op);
        }
        model.reopen();
    }
}

#[test]
fn nothing_follows_the_last_epoch_there_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(directory.path(), u64::MAX).unwrap();
    let last = EpochRecord { number: EpochNumber(u64::MAX), ..epoch(None, Vec::new()) };
    writer.append_epoch(&last).unwrap();
    let next = EpochRecord { parent: last.digest(), ..epoch(None, Vec::new()) };
    for number in [0, 1, u64::MAX] {
        let next = EpochRecord { number: EpochNumber(number), ..next.clone() };
        assert!(matches!(writer.append_epoch(&next), Err(LogError::EpochOrder { .. })));
    }
}

#[test]
fn nothing_follows_the_last_record_there_can_be() {
    let last = u64::MAX - 1;
    for (first_record, fits) in [(last - 1, true), (last, false), (u64::MAX, false)] {
        let directory = tempfile::tempdir().unwrap();
        let header =
            SegmentHeader { cluster: CLUSTER, first_record, chain: [0; 32], salt: [3; 16] };
        let path = directory.path().join("0000000001.plog");
        fs::write(&path, header.encode()).unwrap();
        let (mut writer, _) = open(directory.path(), 1).unwrap();
        let appended = append(&mut writer, &Record::Batch(batch(1, 1, b"last")));
        drop(writer);
        match appended {
            Ok(_) => assert!(fits),
            Err(LogError::Full) => {
                assert!(!fits);
                assert_eq!(fs::read(&path).unwrap(), header.encode());
            }
            Err(error) => panic!("{error}"),
        }
        let records = LogReader::open(directory.path()).unwrap().collect::<Result<Vec<_>, _>>();
        assert_eq!(records.unwrap().len(), usize::from(fits));
    }
}
