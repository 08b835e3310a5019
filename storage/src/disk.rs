//! What the log and the floors need of a disk, so that they run on a simulated one as well.
//!
//! [`StdDisk`] is the real one. A test's own disk may lose what was not synced, tear writes, fill
//! up, fail, or damage what it holds; the code above it is the same.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A disk with files and directories. Cheap to clone: every clone is the same disk.
pub trait Disk: Clone + Debug + Send + 'static {
    /// An open file.
    type File: DiskFile;
    /// Held for as long as something is locked.
    type Lock: Debug + Send;

    /// Creates a directory and those above it, unless they are there.
    ///
    /// # Errors
    /// What the disk says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The paths in a directory, in any order.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether something is at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// Whether a directory is at `path`.
    fn is_directory(&self, path: &Path) -> bool;

    /// Opens a file to read it from its start.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file to write at its end.
    ///
    /// # Errors
    /// What the disk says.
    fn append(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file to write anywhere in what it holds.
    ///
    /// # Errors
    /// What the disk says.
    fn update(&self, path: &Path) -> io::Result<Self::File>;

    /// Creates a file, or empties the one that is there, to write it.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Gives a file another name, in place of whatever had it.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Locks the file at `path`, which is created if absent; `None` if somebody else holds it.
    ///
    /// # Errors
    /// What the disk says.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;

    /// Bytes that nobody outside of this process can guess.
    fn salt(&self) -> [u8; 16];

    /// All bytes of a file.
    ///
    /// # Errors
    /// What the disk says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// An open file of a [`Disk`].
pub trait DiskFile: Read + Write + Seek + Debug + Send {
    /// Makes the content durable.
    ///
    /// # Errors
    /// What the disk says. Nobody knows then what it holds.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and the metadata durable.
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts the file off at `bytes`.
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdDisk;

impl Disk for StdDisk {
    type File = File;
    type Lock = File;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn append(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).open(path)
    }

    fn update(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).open(path)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        File::create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(source),
        }
    }

    fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        for half in salt.chunks_exact_mut(8) {
            // The standard library keys its hash maps from the operating system's random source.
            half.copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        }
        salt
    }
}

impl DiskFile for File {
    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_differ() {
        assert_ne!(StdDisk.salt(), StdDisk.salt());
        assert_ne!(StdDisk.salt()[..8], StdDisk.salt()[8..]);
    }

    #[test]
    fn a_lock_is_held_once_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = StdDisk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(StdDisk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(StdDisk.lock(&path).unwrap().is_some());
    }
}
