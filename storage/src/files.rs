//! Files that are whole or absent, whatever happens.

use std::io::{self, Write as _};
use std::path::Path;

use crate::disk::{Disk, DiskFile as _};

/// Ends the names of files that are not whole yet.
pub(crate) const UNFINISHED: &str = "tmp";

/// Puts a file with these bytes in place of whatever was there: the old file or the new one
/// survives a crash, never a part of one. Returns when the new one is durable.
pub(crate) fn replace<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(disk, path, |file| file.write_all(bytes))
}

/// As [`replace`], with the bytes that `write` writes.
pub(crate) fn replace_with<D: Disk>(
    disk: &D,
    path: &Path,
    write: impl FnOnce(&mut D::File) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = path.with_added_extension(UNFINISHED);
    let mut file = disk.create(&unfinished)?;
    write(&mut file)?;
    // ORDER: content before name, name before the directory's own sync. Else a crash could leave
    // an empty file under the final name, or the old one after success was reported.
    file.sync_all()?;
    disk.rename(&unfinished, path)?;
    disk.sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::StdDisk;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&StdDisk, &path, b"one").unwrap();
        replace(&StdDisk, &path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_does_not_touch_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&StdDisk, &path, b"one").unwrap();
        // A directory stands where the unfinished file would be written.
        fs::create_dir(path.with_added_extension(UNFINISHED)).unwrap();
        assert!(replace(&StdDisk, &path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }
}
