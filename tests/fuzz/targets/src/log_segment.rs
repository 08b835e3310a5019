//! Segments of the log.
//!
//! Input: a byte that chooses, then a file as it is; or a plan, after which a segment is written
//! whose records may hold anything but whose checksums are right, and which is then damaged. What
//! the reader makes of it is compared with a second reader, written after the specification.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;

use arbitrary::Unstructured;
use parsec_protocol::{Batch, BatchRef, EpochNumber, EpochRecord, Wire as _, codec};
use parsec_storage::log::{LogEnd, LogError, LogReader, LogWriter, verify};
use parsec_storage::{LogOptions, Record};
use tempfile::TempDir;

use crate::encoded::Encoded as _;
use crate::spec::{self, BATCH, EPOCH, Header, Reading, SUMMARY, Writer};
use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "log_segment", run, seeds };

const RECORDS_MAX: usize = 8;

fn run(input: &[u8]) -> Verdict {
    match input.split_first() {
        Some((kind, file)) if kind % 2 == 0 => of_a_segment(file),
        Some((_, plan)) => of_a_segment(&planned(plan).unwrap_or_default()),
        None => Verdict::Refused,
    }
}

/// A segment after a plan.
fn planned(plan: &[u8]) -> arbitrary::Result<Vec<u8>> {
    let mut plan = Unstructured::new(plan);
    let first_record = match plan.int_in_range(0..=7)? {
        0 => plan.arbitrary()?,
        few => few,
    };
    let mut writer =
        Writer::new(&Header { cluster: [1; 32], first_record, chain: [2; 32], salt: [3; 16] });
    let mut story = Story::default();
    for _ in 0..plan.int_in_range(0..=RECORDS_MAX)? {
        let synced = match plan.int_in_range(0..=3)? {
            0 => plan.arbitrary()?,
            1 => 0,
            _ => writer.number.wrapping_sub(plan.int_in_range(1..=3)?),
        };
        let (kind, body) = story.next(&mut plan)?;
        writer.write(kind, &body, synced);
    }
    let mut bytes = writer.bytes;
    for _ in 0..plan.int_in_range(0..=2)? {
        let at = plan.choose_index(bytes.len())?;
        bytes[at] ^= 1 << plan.int_in_range(0..=7)?;
    }
    if plan.ratio(1, 4)? {
        bytes.truncate(plan.choose_index(bytes.len() + 1)?);
    }
    if plan.ratio(1, 4)? {
        bytes.extend_from_slice(plan.take_rest());
    }
    Ok(bytes)
}

/// What has been written to a log, so that what follows can fit it, or nearly so.
#[derive(Default)]
struct Story {
    batches: Vec<BatchRef>,
    sequence: u64,
    last: Option<EpochRecord>,
}

impl Story {
    fn next(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Vec<u8>)> {
        match plan.int_in_range(0..=9)? {
            0..=3 => self.batch(plan),
            4..=7 => self.epoch(plan),
            8 => Ok((SUMMARY, samples_of_a_summary())),
            _ => {
                let length = plan.int_in_range(0..=64)?;
                Ok((plan.int_in_range(0..=4)?, plan.bytes(length)?.to_vec()))
            }
        }
    }

    fn batch(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Vec<u8>)> {
        self.sequence = match plan.int_in_range(0..=15)? {
            0 => plan.arbitrary()?,
            _ => self.sequence.wrapping_add(1),
        };
        let mut batch = samples::batch(self.sequence);
        batch.entries.truncate(plan.int_in_range(0..=3)?);
        let body = batch.encoded();
        self.batches.push(batch.reference(&body));
        Ok((BATCH, body))
    }

    fn epoch(&mut self, plan: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Vec<u8>)> {
        let count = plan.int_in_range(0..=self.batches.len())?;
        let mut batches: Vec<_> = self.batches.drain(..count).collect();
        if plan.ratio(1, 16)? && !batches.is_empty() {
            batches.push(batches[0].clone());
        }
        let next = self.last.as_ref().map_or(1, |last| last.number.0.wrapping_add(1));
        let number = match plan.int_in_range(0..=15)? {
            0 => EpochNumber(plan.arbitrary()?),
            1 => EpochNumber(u64::MAX - 1),
            _ => EpochNumber(next),
        };
        let parent = self.last.as_ref().map_or([0; 32], EpochRecord::digest);
        let record = EpochRecord { number, timestamp_ms: next, block: 0, parent, batches };
        self.last = Some(record.clone());
        Ok((EPOCH, record.encoded()))
    }
}

/// The archive of a summary, as `FORMAT.md` describes it, of a log that holds nothing yet: three
/// empty parts.
fn samples_of_a_summary() -> Vec<u8> {
    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Summary {
        last_epoch: Option<EpochRecord>,
        lanes: Vec<(parsec_protocol::LaneId, u64)>,
        unordered: Vec<u64>,
    }
    let (last_epoch, lanes) = (None, Vec::new());
    codec::encode(&Summary { last_epoch, lanes, unordered: Vec::new() })
}

fn of_a_segment(bytes: &[u8]) -> Verdict {
    let directory = directory();
    let path = directory.join("0000000001.plog");
    fs::write(&path, bytes).unwrap();
    let Some(reading) = spec::read(bytes) else {
        assert!(LogReader::open(&path).is_err(), "what has no header is no segment");
        assert!(verify(&path).is_err());
        assert!(LogWriter::open(&directory, [1; 32], LogOptions::default()).is_err());
        assert_eq!(fs::read(&path).unwrap(), bytes);
        return Verdict::Refused;
    };
    of_the_reader(&path, bytes, &reading);
    of_its_epochs(&path);
    let verified = of_the_check(&path, bytes, &reading);
    of_the_writer(&directory, bytes, &reading, verified.as_ref());
    if reading.records.is_empty() { Verdict::Refused } else { Verdict::Accepted }
}

/// The reader gives every whole record until one does not decode, and nothing after the last.
fn of_the_reader(path: &Path, bytes: &[u8], reading: &Reading) {
    let mut reader = LogReader::open(path).expect("the header is right");
    assert_eq!(reader.cluster(), reading.header.cluster);
    for (kind, body) in reading.records.iter().filter(|(kind, _)| *kind != SUMMARY) {
        let body = &bytes[body.clone()];
        let expected = match *kind {
            BATCH => Batch::decoded(body).map(Record::Batch),
            _ => EpochRecord::decoded(body).map(Record::Epoch),
        };
        match (expected, reader.next().expect("the record is whole")) {
            (Ok(expected), Ok((_, found))) => assert_eq!(found, expected),
            (Err(_), Err(LogError::Undecodable { .. })) => return,
            (expected, found) => panic!("expected {expected:?}, found {found:?}"),
        }
    }
    match reader.next() {
        Some(Err(LogError::Damaged { offset, .. })) => {
            assert!(reading.damaged);
            assert_eq!(usize::try_from(offset), Ok(reading.end));
        }
        None => {
            assert!(!reading.damaged);
            assert_eq!(usize::try_from(reader.torn_bytes()), Ok(bytes.len() - reading.end));
        }
        other => panic!("behind the last whole record stands {other:?}"),
    }
}

/// An epoch comes with the batches that it names.
fn of_its_epochs(path: &Path) {
    for epoch in LogReader::open(path).unwrap().epochs() {
        let Ok((record, batches)) = epoch else { return };
        assert_eq!(record.check(), Ok(()));
        assert_eq!(record.batches.len(), batches.len());
        for (reference, batch) in record.batches.iter().zip(&batches) {
            assert_eq!(*reference, batch.reference(&batch.encoded()));
        }
    }
}

/// A log that passes the check has all the records that are whole.
fn of_the_check(path: &Path, bytes: &[u8], reading: &Reading) -> Option<LogEnd> {
    let end = verify(path).ok()?;
    assert!(!reading.damaged);
    let before = reading.header.first_record - 1;
    assert_eq!(end.records - before, reading.records.len() as u64);
    assert_eq!(usize::try_from(end.torn_bytes), Ok(bytes.len() - reading.end));
    Some(end)
}

/// A writer cuts off what is torn, and nothing else; it does not touch a log that it refuses.
fn of_the_writer(directory: &Path, bytes: &[u8], reading: &Reading, verified: Option<&LogEnd>) {
    let path = directory.join("0000000001.plog");
    match LogWriter::open(directory, reading.header.cluster, LogOptions::default()) {
        Ok((mut writer, end)) => {
            assert_eq!(Some(&end), verified);
            assert_eq!(fs::read(&path).unwrap(), bytes[..reading.end]);
            goes_on(&mut writer, &end, &path);
        }
        Err(_) => {
            assert_eq!(verified, None, "a log that passes the check can be written");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
}

/// What is appended to a log can be read.
fn goes_on(writer: &mut LogWriter, end: &LogEnd, path: &Path) {
    let sequence = end.lanes.values().next().map_or(Some(1), |last| last.checked_add(1));
    let Some(sequence) = sequence else { return };
    let batch = samples::batch(sequence);
    let body = batch.encoded();
    if writer.append_batch(&batch.reference(&body), &body).is_ok() {
        let last = LogReader::open(path).unwrap().last().unwrap().unwrap();
        assert_eq!(last.1, Record::Batch(batch));
    }
}

/// A directory without segments, the same one each time.
fn directory() -> PathBuf {
    thread_local! {
        static DIRECTORY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    DIRECTORY.with_borrow_mut(|directory| {
        let path = directory.get_or_insert_with(|| tempfile::tempdir().unwrap()).path();
        for entry in fs::read_dir(path).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        path.to_path_buf()
    })
}

/// A segment whose first record has that number.
fn segment(first_record: u64, records: &[(u8, Vec<u8>)], synced_through: u64) -> Vec<u8> {
    let (chain, salt) = ([0; 32], [3; 16]);
    let mut writer = Writer::new(&Header { cluster: [1; 32], first_record, chain, salt });
    records.iter().for_each(|(kind, body)| writer.write(*kind, body, synced_through));
    [&[0], &writer.bytes[..]].concat()
}

fn seeds() -> Vec<Seed> {
    let (first, second) = (samples::batch(1), samples::batch(2));
    let epoch = samples::epoch(&[&first], [0; 32]);
    let empty = |number| {
        let (number, parent) = (EpochNumber(number), [0; 32]);
        let epoch = EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches: Vec::new() };
        (EPOCH, epoch.encoded())
    };
    let batch = (BATCH, first.encoded());
    let records = [batch.clone(), (BATCH, second.encoded()), (EPOCH, epoch.encoded())];
    let whole = segment(1, &records, 2);
    let torn = whole[..whole.len() - 5].to_vec();
    let mut damaged = whole.clone();
    damaged[300] ^= 1;
    // Two batches, an epoch that orders them, and a summary; no damage.
    let (batches, epoch_and_summary) = ([1, 0, 1, 3].repeat(2), [1, 4, 2, 1, 2, 1, 8]);
    let plan = [&[1, 1, 4], &batches[..], &epoch_and_summary, &[0, 1, 1]].concat();
    vec![
        Seed::new("whole", whole),
        Seed::new("torn", torn),
        Seed::refused("damaged", damaged),
        Seed::new("plan", plan),
        Seed::refused("numbered-from-zero", segment(0, slice::from_ref(&batch), 0)),
        Seed::refused("last-number", segment(u64::MAX, slice::from_ref(&batch), 0)),
        Seed::new("last-number-but-one", segment(u64::MAX - 1, &[batch.clone(), batch], 0)),
        Seed::new("epoch-after-the-last", segment(1, &[empty(u64::MAX), empty(0)], 0)),
    ]
}
