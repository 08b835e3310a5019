//! Signed loads on disk: what was built once need not be built again.
//!
//! A file holds the transactions of one [`WorkloadSpec`] and count, and is found by their digest:
//!
//! ```text
//! magic (8) | digest of spec, count and version (32) | blocks ... | end
//! block: bytes (8, little-endian) | transactions, an archive | BLAKE3 of it (32)
//! end:   zero (8)
//! ```
//!
//! A file that is damaged, cut short, or another one's is built anew: a checksum that holds says
//! that the bytes are those that were written, and the digest in the name and in the head that
//! they were written for this spec. A file appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use parsec_protocol::codec::{self, Malformed, Wire};
use rkyv::{Archive, Deserialize, Serialize};

use super::{BuildProgress, LoadTransaction, Workload, WorkloadSpec};
use crate::draw::BadWorkload;

/// Grows with each change of what workloads build or of how it is written.
const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"parsecld";
/// Transactions in one block.
const BLOCK_TRANSACTIONS: usize = 16_384;
/// Longest block, bytes: far more than any workload's transactions take.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

/// A workload whose first load is built.
pub struct Prepared {
    /// The workload, which goes on where the load ends, and audits it.
    pub workload: Box<dyn Workload>,
    /// The load.
    pub load: Vec<LoadTransaction>,
    /// Whether it came from the disk.
    pub from_disk: bool,
    /// Why it could not be kept, if it was to be.
    pub not_kept: Option<io::Error>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("workload", &self.workload.name())
            .field("load", &self.load.len())
            .field("from_disk", &self.from_disk)
            .field("not_kept", &self.not_kept)
            .finish()
    }
}

/// A workload with its first `count` transactions. Those of signed workloads are kept in `dir`, if
/// one is given; that a file there can't be used or written is no failure, it only takes longer.
///
/// # Errors
/// As [`WorkloadSpec::open`].
pub fn cached(
    spec: &WorkloadSpec,
    count: usize,
    dir: Option<&Path>,
    progress: BuildProgress<'_>,
) -> Result<Prepared, BadWorkload> {
    let mut workload = spec.open()?;
    let digest = digest(spec, count);
    let path = dir.filter(|_| spec.is_signed()).map(|dir| file(dir, spec, &digest));
    if let Some(Ok(load)) = path.as_deref().map(|path| read(path, &digest, count)) {
        workload.skip(count);
        progress(count);
        return Ok(Prepared { workload, load, from_disk: true, not_kept: None });
    }
    let load = workload.build(count, progress);
    let not_kept = path.and_then(|path| write(&path, &digest, &load).err());
    Ok(Prepared { workload, load, from_disk: false, not_kept })
}

/// Some transactions of a load.
#[derive(Debug, Archive, Serialize, Deserialize)]
struct Block {
    transactions: Vec<LoadTransaction>,
}

impl Wire for Block {
    fn check(&self) -> Result<(), Malformed> {
        self.transactions.iter().try_for_each(|load| load.transaction.check())
    }
}

/// What a file is named by.
fn digest(spec: &WorkloadSpec, count: usize) -> [u8; 32] {
    let spec = serde_json::to_vec(spec).expect("a spec has only strings for keys");
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let mut hasher = blake3::Hasher::new_derive_key("parsec 2026 cached load");
    hasher.update(&VERSION.to_be_bytes()).update(&count.to_be_bytes()).update(&spec);
    hasher.finalize().into()
}

fn file(dir: &Path, spec: &WorkloadSpec, digest: &[u8; 32]) -> PathBuf {
    let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(format!("{}-{name}.load", spec.workload))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read(path: &Path, digest: &[u8; 32], count: usize) -> io::Result<Vec<LoadTransaction>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut head = [0; 40];
    file.read_exact(&mut head)?;
    if head[..8] != MAGIC[..] || head[8..] != digest[..] {
        return Err(damaged("the head is another one's"));
    }
    let mut load = Vec::new();
    loop {
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length == 0 {
            break;
        }
        load.extend(read_block(&mut file, length)?);
        if load.len() > count {
            return Err(damaged("it is too long"));
        }
    }
    let ends_here = file.read(&mut [0])? == 0;
    match ends_here && load.len() == count {
        true => Ok(load),
        false => Err(damaged("it does not end where it should")),
    }
}

fn read_block(file: &mut impl Read, length: u64) -> io::Result<Vec<LoadTransaction>> {
    if length > BLOCK_BYTES_MAX {
        return Err(damaged("a block is too long"));
    }
    let mut bytes = Vec::new();
    // Not allocated before it is there: the length is not covered by any checksum.
    let found = file.by_ref().take(length).read_to_end(&mut bytes)?;
    let mut checksum = [0; 32];
    file.read_exact(&mut checksum)?;
    if u64::try_from(found) != Ok(length) || codec::digest(&bytes) != checksum {
        return Err(damaged("a block is damaged"));
    }
    let block: Block = codec::decode(&bytes).map_err(|error| damaged(&error.to_string()))?;
    Ok(block.transactions)
}

fn write(path: &Path, digest: &[u8; 32], load: &[LoadTransaction]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| damaged("the file is in no directory"))?;
    fs::create_dir_all(dir)?;
    // Of this process alone: another one may build the same at the same time.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = write_all(&temporary, digest, load).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() && temporary.exists() {
        fs::remove_file(&temporary)?;
    }
    written
}

fn write_all(path: &Path, digest: &[u8; 32], load: &[LoadTransaction]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(MAGIC)?;
    file.write_all(digest)?;
    for transactions in load.chunks(BLOCK_TRANSACTIONS) {
        let bytes = codec::encode(&Block { transactions: transactions.to_vec() });
        let length = u64::try_from(bytes.len()).map_err(|_| damaged("a block is too long"))?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&bytes)?;
        file.write_all(&codec::digest(&bytes))?;
    }
    file.write_all(&0u64.to_le_bytes())?;
    // ORDER: the bytes are on the disk before the name is.
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadName;

    fn spec() -> WorkloadSpec {
        WorkloadSpec { accounts: Some(10), ..WorkloadSpec::new(WorkloadName::Erc20, 3, 1_234) }
    }

    fn prepare(spec: &WorkloadSpec, count: usize, dir: &Path) -> Prepared {
        cached(spec, count, Some(dir), &|_| {}).unwrap()
    }

    fn only_file(dir: &Path) -> PathBuf {
        let mut files = fs::read_dir(dir).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn what_was_kept_is_what_would_be_built_and_goes_on_as_that_would() {
        let dir = tempfile::tempdir().unwrap();
        let mut built = prepare(&spec(), 50, dir.path());
        let mut kept = prepare(&spec(), 50, dir.path());
        assert!(!built.from_disk && built.not_kept.is_none() && kept.from_disk);
        assert_eq!(built.load, kept.load);
        let next = |prepared: &mut Prepared| prepared.workload.build(20, &|_| {});
        assert_eq!(next(&mut built), next(&mut kept));
    }

    #[test]
    fn another_spec_or_count_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        prepare(&spec(), 10, dir.path());
        assert!(!prepare(&spec(), 11, dir.path()).from_disk);
        assert!(!prepare(&WorkloadSpec { seed: 4, ..spec() }, 10, dir.path()).from_disk);
        assert!(prepare(&spec(), 10, dir.path()).from_disk);
    }

    #[test]
    fn unsigned_loads_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let spec = WorkloadSpec::new(WorkloadName::NativeTransfer, 3, 1_234);
        prepare(&spec, 10, dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn whatever_is_damaged_is_built_anew() {
        let dir = tempfile::tempdir().unwrap();
        let sound = prepare(&spec(), 5, dir.path()).load;
        let path = only_file(dir.path());
        let bytes = fs::read(&path).unwrap();
        let mut wrong: Vec<Vec<u8>> =
            (0..bytes.len()).step_by(97).map(|at| flipped(&bytes, at)).collect();
        wrong.extend([0, 7, 39, 47, bytes.len() - 1].map(|end| bytes[..end].to_vec()));
        wrong.push([&bytes[..], b"x"].concat());
        wrong.push([&bytes[..40], &u64::MAX.to_le_bytes()].concat());
        // The last eight bytes say that it ends; a second load of the same is too long.
        wrong.push([&bytes[..bytes.len() - 8], &bytes[40..]].concat());
        for wrong in wrong {
            fs::write(&path, &wrong).unwrap();
            let again = prepare(&spec(), 5, dir.path());
            assert!(!again.from_disk);
            assert_eq!(again.load, sound);
            assert_eq!(fs::read(only_file(dir.path())).unwrap(), bytes, "it is repaired");
        }
    }

    fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    }

    #[test]
    fn where_nothing_can_be_written_the_load_is_there_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let prepared = prepare(&spec(), 5, &file);
        assert!(prepared.not_kept.is_some());
        assert_eq!(prepared.load.len(), 5);
    }
}
