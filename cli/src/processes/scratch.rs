//! Directories that are nobody's: removed when they are dropped, and when a process ends that drops
//! nothing any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::failure::{Context, Failure};

/// What all names of them begin with.
const PREFIX: &str = "parsec-";
/// How often a directory is removed into which somebody still writes.
const ATTEMPTS: u32 = 20;

/// All that there are.
static ALL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new one, where the system has temporary files.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new() -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir();
        let directory = made.context("can't make a directory")?;
        all().insert(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        all().remove(self.0.path());
    }
}

/// Removes all of them, for a process that is about to end without dropping anything.
pub fn abandon() {
    for directory in &*all() {
        for _ in 0..ATTEMPTS {
            // What is written meanwhile makes it fail, and is removed the next time.
            if std::fs::remove_dir_all(directory).is_ok() || !directory.exists() {
                break;
            }
        }
    }
}

fn all() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_removed_whoever_does_it() {
        let (dropped, abandoned) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        let paths = [&dropped, &abandoned].map(|scratch| scratch.path().to_owned());
        std::fs::create_dir_all(paths[0].join("a/b")).unwrap();
        std::fs::write(paths[1].join("file"), "x").unwrap();
        drop(dropped);
        assert!(!paths[0].exists() && paths[1].exists());
        abandon();
        assert!(!paths[1].exists());
        drop(abandoned);
        assert!(paths.iter().all(|path| !all().contains(path)));
    }
}
