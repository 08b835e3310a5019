use std::io::Write as _;

use parsec_storage::DiskFile as _;

use super::*;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Random::new(seed, 1))
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = disk.create(Path::new(path))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// As the floor and the log's segments are written.
fn replace(disk: &SimDisk, path: &str, bytes: &[u8]) -> io::Result<()> {
    write(disk, "d/tmp", bytes)?;
    disk.rename(Path::new("d/tmp"), Path::new(path))?;
    disk.sync_directory(Path::new("d"))
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_whenever_the_power_is_cut() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let disk = disk(seed);
        replace(&disk, "d/file", b"old").unwrap();
        disk.arm(DiskFault::Crash, seed % 7);
        let replaced = replace(&disk, "d/file", b"new");
        assert_eq!(replaced.is_err(), disk.is_dead());
        disk.restart(true);
        let found = disk.read(Path::new("d/file")).unwrap();
        assert!(found == b"old" || (found == b"new"), "{found:?}");
        assert!(replaced.is_err() || found == b"new");
        seen.insert((replaced.is_ok(), found));
    }
    assert_eq!(seen.len(), 3, "interrupted with the old and the new one, and not interrupted");
}

#[test]
fn a_process_that_dies_alone_loses_nothing_that_it_wrote() {
    let disk = disk(1);
    let mut file = disk.create(Path::new("file")).unwrap();
    file.write_all(b"written").unwrap();
    disk.restart(false);
    assert_eq!(disk.read(Path::new("file")).unwrap(), b"written");
    assert!(file.write_all(b"after its end").is_err());
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let disk = disk(2);
    let mut file = disk.create(Path::new("file")).unwrap();
    disk.arm(DiskFault::Full, 1);
    file.write_all(b"fits").unwrap();
    let error = file.write_all(b"does not").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file.write_all(b"more").is_err());
    disk.heal();
    assert!(file.write_all(b"more").is_ok());
}

#[test]
fn a_failed_sync_fails_once_and_what_it_dropped_is_lost() {
    let disk = disk(3);
    let mut file = disk.create(Path::new("file")).unwrap();
    disk.sync_directory(Path::new("")).unwrap();
    file.write_all(b"dropped").unwrap();
    disk.arm(DiskFault::SyncError, 0);
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok(), "as Linux answers");
    assert_eq!(disk.durable_len(Path::new("file")), 0);
}

#[test]
fn damage_is_remembered_and_repaired() {
    let disk = disk(4);
    write(&disk, "d/file", &[7; 100]).unwrap();
    let path = Path::new("d/file");
    let damage = disk.damage(path, 10..20).unwrap();
    assert!((10..20).contains(&damage.at));
    assert_ne!(disk.read(path).unwrap(), [7; 100]);
    assert_eq!(disk.damaged(Path::new("d")).len(), 1);
    disk.repair(Path::new("elsewhere"));
    assert_eq!(disk.damaged(Path::new("d")).len(), 1);
    disk.repair(Path::new("d"));
    assert_eq!(disk.read(path).unwrap(), [7; 100]);
    assert!(disk.damaged(Path::new("d")).is_empty());
}

#[test]
fn a_lock_ends_with_its_holder_or_its_host() {
    let disk = disk(5);
    let path = Path::new("lock");
    let held = disk.lock(path).unwrap();
    assert!(held.is_some() && disk.lock(path).unwrap().is_none());
    disk.restart(true);
    let again = disk.lock(path).unwrap();
    drop(held);
    assert!(again.is_some() && disk.lock(path).unwrap().is_none());
}

mod log {
    use std::sync::Arc;

    use parsec_protocol::{Batch, Entry, LaneId, codec};
    use parsec_storage::log::{LogOptions, LogWriter};

    use super::*;

    fn open(disk: &SimDisk) -> (LogWriter<SimDisk>, u64) {
        let options = LogOptions { segment_bytes: 1_000 };
        let (log, end) =
            LogWriter::open_on(disk.clone(), Path::new("log"), [1; 32], options).unwrap();
        (log, end.records)
    }

    fn append(log: &mut LogWriter<SimDisk>, sequence: u64) {
        let entries: Vec<Entry> = Vec::new();
        let batch = Batch {
            lane: LaneId(0),
            sequence,
            map_version: 1,
            entries: entries.into_iter().map(Arc::new).collect(),
        };
        let encoded = codec::encode(&batch);
        log.append_batch(&batch.reference(&encoded), &encoded).unwrap();
    }

    #[test]
    fn the_name_of_a_segment_is_durable_once_the_log_is_opened() {
        for later in 0..40 {
            let disk = disk(later);
            let (mut log, _) = open(&disk);
            // Somewhere in here, perhaps right after a new segment got its name, a sync fails.
            disk.arm(DiskFault::SyncError, later);
            let mut sequence = 1;
            while append_synced(&mut log, sequence) {
                sequence += 1;
            }
            disk.restart(false);
            let (mut log, _) = open(&disk);
            let next = log.end().lanes.get(&LaneId(0)).map_or(1, |last| last + 1);
            assert!(append_synced(&mut log, next));
            disk.restart(true);
            assert_eq!(open(&disk).0.end().lanes[&LaneId(0)], next, "a sync failed after {later}");
        }
    }

    fn append_synced(log: &mut LogWriter<SimDisk>, sequence: u64) -> bool {
        let batch = Batch { lane: LaneId(0), sequence, map_version: 1, entries: Vec::new() };
        let encoded = codec::encode(&batch);
        let appended = log.append_batch(&batch.reference(&encoded), &encoded);
        appended.is_ok() && log.sync().is_ok()
    }

    #[test]
    fn what_a_failed_sync_dropped_is_written_again_when_the_log_is_opened() {
        for seed in 0..20 {
            let disk = disk(seed);
            let (mut log, _) = open(&disk);
            append(&mut log, 1);
            log.sync().unwrap();
            append(&mut log, 2);
            disk.arm(DiskFault::SyncError, 0);
            assert!(log.sync().is_err());
            // The process starts again and finds everything in the system's cache.
            disk.restart(false);
            let (mut log, records) = open(&disk);
            assert_eq!(records, 2);
            append(&mut log, 3);
            log.sync().unwrap();
            disk.restart(true);
            assert_eq!(open(&disk).1, 3, "what was synced is there");
        }
    }
}
