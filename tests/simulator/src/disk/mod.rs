//! A disk that loses what was not synced, tears writes, fills up, fails, and damages what it holds.

mod content;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_storage::Disk;

use self::content::Content;
pub(crate) use self::file::{SimFile, SimLock};
use crate::random::Random;

/// What may befall a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// The host loses its power before an operation.
    Crash,
    /// The host loses its power before a sync.
    CrashBeforeSync,
    /// A write fails.
    WriteError,
    /// A sync fails, and drops what it should have written.
    SyncError,
    /// There is no room for a write, and for none after it until there is again.
    Full,
}

/// What concerns a sync.
const SYNC: [DiskFault; 2] = [DiskFault::SyncError, DiskFault::CrashBeforeSync];

/// A simulated disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Clone)]
struct Inner {
    random: Random,
    contents: BTreeMap<u64, Content>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable yet, in their order.
    changes: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// What is to happen, and after how many operations that it concerns.
    armed: Option<(DiskFault, u64)>,
    full: bool,
    dead: bool,
    /// An operation has failed since the host started.
    struck: bool,
    /// A sync has failed, ever.
    dropped: bool,
    /// How often the host has started. Files of an earlier time are of no use.
    boot: u64,
    /// Bits that were flipped.
    damage: Vec<Damage>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

/// Bits that were flipped in a file.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    /// The file.
    pub(crate) path: PathBuf,
    /// The byte.
    pub(crate) at: usize,
    inode: u64,
    mask: u8,
}

impl SimDisk {
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            random,
            contents: BTreeMap::new(),
            next_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            directories: BTreeSet::new(),
            locks: BTreeSet::new(),
            armed: None,
            full: false,
            dead: false,
            struck: false,
            dropped: false,
            boot: 0,
            damage: Vec::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // There is one thread, and a run ends with its first panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a fault happen at the operation after `later` ones that it concerns.
    pub(crate) fn arm(&self, fault: DiskFault, later: u64) {
        self.inner().armed = Some((fault, later));
    }

    /// Whether the host has lost its power amid an operation.
    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Whether an operation has failed since the host started.
    pub(crate) fn has_failed(&self) -> bool {
        let inner = self.inner();
        inner.struck || inner.full
    }

    /// Whether a sync has ever failed: what it should have written may be lost at any power cut
    /// from then on, although it is read until then.
    pub(crate) fn has_dropped(&self) -> bool {
        self.inner().dropped
    }

    /// A copy of the disk as it is.
    pub(crate) fn copy(&self) -> Self {
        let inner = self.inner();
        Self(Arc::new(Mutex::new(Inner { locks: BTreeSet::new(), ..inner.clone() })))
    }

    /// The host starts again: after a power cut, with what was durable and any part of the rest;
    /// after a crash of its process alone, with everything that it wrote.
    pub(crate) fn restart(&self, power_cut: bool) {
        let mut inner = self.inner();
        if power_cut {
            inner.lose_power();
        }
        inner.locks.clear();
        inner.armed = None;
        inner.dead = false;
        inner.struck = false;
        inner.boot += 1;
    }

    /// All faults end: there is room again, and nothing else is to happen.
    pub(crate) fn heal(&self) {
        let mut inner = self.inner();
        inner.armed = None;
        inner.full = false;
    }

    /// Flips a bit of a file among its durable bytes in `range`. Returns where.
    pub(crate) fn damage(&self, path: &Path, range: std::ops::Range<usize>) -> Option<Damage> {
        let mut inner = self.inner();
        let inode = *inner.names.get(path)?;
        let end = range.end.min(inner.contents.get(&inode)?.durable_len());
        if range.start >= end {
            return None;
        }
        let at = range.start + inner.random.index(end - range.start);
        let mask = 1 << inner.random.below(8);
        inner.contents.get_mut(&inode)?.flip(at, mask);
        let damage = Damage { path: path.into(), at, inode, mask };
        inner.damage.push(damage.clone());
        Some(damage)
    }

    /// What is damaged in a directory, in files that are still there.
    pub(crate) fn damaged(&self, directory: &Path) -> Vec<Damage> {
        let inner = self.inner();
        let is_there = |damage: &&Damage| {
            damage.path.starts_with(directory)
                && inner.names.get(&damage.path) == Some(&damage.inode)
        };
        inner.damage.iter().filter(is_there).cloned().collect()
    }

    /// Puts back good copies of the damaged files in a directory.
    pub(crate) fn repair(&self, directory: &Path) {
        let mut inner = self.inner();
        let (repaired, left) = std::mem::take(&mut inner.damage)
            .into_iter()
            .partition(|damage| damage.path.starts_with(directory));
        inner.damage = left;
        let repaired: Vec<Damage> = repaired;
        for Damage { at, inode, mask, .. } in repaired {
            if let Some(content) = inner.contents.get_mut(&inode) {
                content.flip(at, mask);
            }
        }
    }

    /// The files in a directory.
    pub(crate) fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let inner = self.inner();
        inner.names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect()
    }

    /// Removes a file or a directory with all that is in it, durably.
    pub(crate) fn wipe(&self, path: &Path) {
        let mut inner = self.inner();
        inner.names.retain(|name, _| !name.starts_with(path));
        inner.durable_names.retain(|name, _| !name.starts_with(path));
        inner.changes.retain(|change| match change {
            NameChange::Set(name, _) | NameChange::Remove(name) => !name.starts_with(path),
        });
        inner.collect_garbage();
    }

    /// How many bytes of a file are durable.
    #[cfg(test)]
    pub(crate) fn durable_len(&self, path: &Path) -> usize {
        let inner = self.inner();
        let inode = inner.names.get(path);
        inode.and_then(|inode| inner.contents.get(inode)).map_or(0, Content::durable_len)
    }
}

impl Inner {
    /// Counts an operation, and lets it fail if it is its time.
    fn operate(&mut self, concerned: &[DiskFault]) -> io::Result<()> {
        self.alive()?;
        if let Some((fault, later)) = &mut self.armed
            && (*fault == DiskFault::Crash || concerned.contains(fault))
        {
            if *later > 0 {
                *later -= 1;
            } else {
                let fault = *fault;
                self.armed = None;
                return self.strike(fault);
            }
        }
        match self.full && concerned.contains(&DiskFault::Full) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }

    fn strike(&mut self, fault: DiskFault) -> io::Result<()> {
        self.struck = true;
        self.dropped |= fault == DiskFault::SyncError;
        match fault {
            DiskFault::Crash | DiskFault::CrashBeforeSync => self.dead = true,
            DiskFault::Full => self.full = true,
            DiskFault::WriteError | DiskFault::SyncError => {
                return Err(io::Error::other("input/output error"));
            }
        }
        self.alive()?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn alive(&self) -> io::Result<()> {
        match self.dead {
            true => Err(io::Error::other("the host has lost its power")),
            false => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn lose_power(&mut self) {
        // Names become durable in the order in which they were changed, as in a journal.
        let kept = self.random.index(self.changes.len() + 1);
        for change in self.changes.drain(..).take(kept) {
            apply(&mut self.durable_names, &change);
        }
        self.names.clone_from(&self.durable_names);
        for content in self.contents.values_mut() {
            content.lose(&mut self.random);
        }
        self.collect_garbage();
    }

    fn truncate(&mut self, inode: u64, length: usize) {
        self.contents.entry(inode).or_default().truncate(length);
        self.damage.retain(|damage| damage.inode != inode || damage.at < length);
    }

    fn collect_garbage(&mut self) {
        let pending = self.changes.iter().filter_map(|change| match change {
            NameChange::Set(_, inode) => Some(inode),
            NameChange::Remove(_) => None,
        });
        let used = self.names.values().chain(self.durable_names.values()).chain(pending);
        let used: BTreeSet<u64> = used.copied().collect();
        self.contents.retain(|inode, _| used.contains(inode));
        self.damage.retain(|damage| used.contains(&damage.inode));
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            // A file that gets another name loses the one it had.
            names.retain(|_, other| other != inode);
            names.insert(path.clone(), *inode);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(&[])?;
        inner.directories.insert(path.into());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inner = self.inner();
        inner.operate(&[])?;
        let inside = inner.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let inner = self.inner();
        inner.names.contains_key(path) || inner.directories.contains(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.inner().directories.contains(path)
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let mut inner = self.inner();
        inner.operate(&[])?;
        let inode = inner.find(path)?;
        Ok(SimFile { disk: self.clone(), inode, at: 0, appends: false, boot: inner.boot })
    }

    fn append(&self, path: &Path) -> io::Result<SimFile> {
        Ok(SimFile { appends: true, ..self.open(path)? })
    }

    fn update(&self, path: &Path) -> io::Result<SimFile> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut inner = self.inner();
        inner.operate(&[DiskFault::WriteError, DiskFault::Full])?;
        let inode = match inner.names.get(path).copied() {
            Some(inode) => inode,
            None => {
                inner.next_inode += 1;
                let inode = inner.next_inode;
                inner.contents.insert(inode, Content::default());
                inner.change(NameChange::Set(path.into(), inode));
                inode
            }
        };
        inner.truncate(inode, 0);
        Ok(SimFile { disk: self.clone(), inode, at: 0, appends: false, boot: inner.boot })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(&[DiskFault::WriteError])?;
        let inode = inner.find(from)?;
        inner.change(NameChange::Set(to.into(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(&[DiskFault::WriteError])?;
        inner.find(path)?;
        inner.change(NameChange::Remove(path.into()));
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(&SYNC)?;
        // The journal of names is one for the whole disk.
        inner.changes.clear();
        inner.durable_names = inner.names.clone();
        inner.collect_garbage();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<SimLock>> {
        let mut inner = self.inner();
        inner.operate(&[])?;
        let is_free = inner.locks.insert(path.into());
        Ok(is_free.then(|| SimLock { disk: self.clone(), path: path.into(), boot: inner.boot }))
    }

    fn salt(&self) -> [u8; 16] {
        self.inner().random.bytes16()
    }
}

#[cfg(test)]
mod tests;
