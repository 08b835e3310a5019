//! Open files and locks of a simulated disk.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use parsec_storage::DiskFile;

use super::content::Content;
use super::{DiskFault, SYNC, SimDisk};

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub(crate) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
    pub(super) at: usize,
    /// It is written at its end, wherever that is.
    pub(super) appends: bool,
    pub(super) boot: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        concerned: &[DiskFault],
        work: impl FnOnce(&mut Content) -> T,
    ) -> io::Result<T> {
        let mut inner = self.disk.inner();
        if inner.boot != self.boot {
            return Err(io::Error::other("the file was opened before the host crashed"));
        }
        inner.operate(concerned)?;
        let content = inner.contents.get_mut(&self.inode);
        content.map(work).ok_or_else(|| io::Error::other("the file is gone"))
    }
}

impl Read for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        let read = self.with(&[], |content| {
            let rest = content.bytes().get(at..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            length
        })?;
        self.at += read;
        Ok(read)
    }
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, appends) = (self.at, self.appends);
        let place = |content: &Content| if appends { content.len() } else { at };
        let written = self.with(&[DiskFault::WriteError, DiskFault::Full], |content| {
            content.write(place(content), bytes);
        });
        if let Err(error) = written {
            let mut inner = self.disk.inner();
            if !inner.dead && bytes.len() > 1 {
                // What fails may have begun.
                let part = inner.random.index(bytes.len());
                if let Some(content) = inner.contents.get_mut(&self.inode) {
                    content.write(place(content), &bytes[..part]);
                }
            }
            return Err(error);
        }
        self.at = at + bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = self.disk.inner().contents.get(&self.inode).map_or(0, Content::len);
        let from = |base: usize, by: i64| (base as u64).saturating_add_signed(by);
        let at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => from(length, by),
            SeekFrom::Current(by) => from(self.at, by),
        };
        self.at = usize::try_from(at).map_err(io::Error::other)?;
        Ok(at)
    }
}

impl DiskFile for SimFile {
    fn sync_data(&self) -> io::Result<()> {
        let synced = self.with(&SYNC, Content::sync);
        if synced.is_err()
            && !self.disk.is_dead()
            && let Some(content) = self.disk.inner().contents.get_mut(&self.inode)
        {
            content.fail_sync();
        }
        synced
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        self.with(&[DiskFault::WriteError], |_| ())?;
        self.disk.inner().truncate(self.inode, length);
        Ok(())
    }
}

/// A lock of a [`SimDisk`], until it is dropped or its host restarts.
#[derive(Debug)]
pub(crate) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) path: PathBuf,
    pub(super) boot: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.boot == self.boot {
            inner.locks.remove(&self.path);
        }
    }
}
