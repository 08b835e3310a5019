//! The segment files of a log's directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::LogError;
use super::format::{HeaderFault, SegmentHeader};
use crate::disk::Disk;
use crate::files;

const EXTENSION: &str = "plog";

/// The path of a segment.
pub(super) fn path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:010}.{EXTENSION}"))
}

/// The number of the segment at a path, if it is named like one.
pub(super) fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let digits = stem.len() == 10 && stem.bytes().all(|byte| byte.is_ascii_digit());
    let named = digits && path.extension()? == EXTENSION;
    named.then(|| stem.parse().ok())?
}

/// The numbers of a directory's segments, in order and without gaps.
pub(super) fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<u64>, LogError> {
    let mut numbers = BTreeSet::new();
    for path in disk.list(directory).map_err(LogError::io(directory))? {
        numbers.extend(number(&path));
    }
    let numbers: Vec<u64> = numbers.into_iter().collect();
    match numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        Some(pair) => Err(LogError::MissingSegment { path: path(directory, pair[0] + 1) }),
        None => Ok(numbers),
    }
}

/// Removes what a crash left of segments that were being created.
pub(super) fn remove_unfinished<D: Disk>(disk: &D, directory: &Path) -> Result<(), LogError> {
    for path in disk.list(directory).map_err(LogError::io(directory))? {
        let unfinished = path.extension().is_some_and(|end| end == files::UNFINISHED);
        if unfinished && number(&path.with_extension("")).is_some() {
            disk.remove(&path).map_err(LogError::io(&path))?;
        }
    }
    Ok(())
}

/// Decodes a segment's header.
pub(super) fn decode_header(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, LogError> {
    SegmentHeader::decode(bytes).map_err(|fault| match fault {
        HeaderFault::NotALog => LogError::NotALog { path: path.into() },
        HeaderFault::Version(found) => LogError::Version { path: path.into(), found },
        HeaderFault::Damaged => LogError::Damaged {
            segment: path.into(),
            offset: 0,
            record: 0,
            what: "the segment's header does not match its checksum",
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::StdDisk;

    #[test]
    fn only_segments_are_listed_and_gaps_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["0000000002.plog", "0000000003.plog", "3.plog", "0000000009.log", "lock"] {
            fs::write(root.join(name), b"").unwrap();
        }
        assert_eq!(list(&StdDisk, root).unwrap(), [2, 3]);
        fs::write(path(root, 6), b"").unwrap();
        match list(&StdDisk, root) {
            Err(LogError::MissingSegment { path: missing }) => assert_eq!(missing, path(root, 4)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_unfinished_segments_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["0000000002.plog", "0000000003.plog.tmp", "notes.tmp"] {
            fs::write(root.join(name), b"").unwrap();
        }
        remove_unfinished(&StdDisk, root).unwrap();
        assert!(root.join("0000000002.plog").exists());
        assert!(!root.join("0000000003.plog.tmp").exists());
        assert!(root.join("notes.tmp").exists());
    }
}
