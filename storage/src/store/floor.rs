//! The floor: a small file outside the store that says what the store had durably reached.
//!
//! The engine's journal can open silently short after damage in its middle. A store that opens
//! below its floor, or at it with another digest, has lost synced data and must be rebuilt.
//!
//! ```text
//! 0         8          12         44           46         134          166
//! ├─────────┼──────────┼──────────┼────────────┼──────────┼────────────┤
//! │ "PFLOOR"│ version  │ cluster  │ partition  │ applied  │ BLAKE3 of  │
//! │  + 0 0  │ u32      │ 32 bytes │ u16        │ 88 bytes │ all before │
//! └─────────┴──────────┴──────────┴────────────┴──────────┴────────────┘
//! ```
//! Numbers are big-endian.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsec_protocol::plant::{self, Bug};
use parsec_protocol::{EpochNumber, PartitionId};

use super::{Applied, StoreError};
use crate::disk::{Disk, StdDisk};
use crate::files;

const MAGIC: [u8; 8] = *b"PFLOOR\0\0";
const VERSION: u32 = 1;
const BODY_BYTES: usize = 8 + 4 + 32 + 2 + Applied::BYTES;

/// Whose floor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    cluster: [u8; 32],
    partition: PartitionId,
}

/// The floor file of one partition's store.
#[derive(Debug, Clone)]
pub struct Floor<D: Disk = StdDisk> {
    disk: D,
    path: PathBuf,
    identity: Identity,
}

impl<D: Disk> Floor<D> {
    /// The floor at `path`. Nothing is read or written yet.
    #[must_use]
    pub fn new(disk: D, path: PathBuf, cluster: [u8; 32], partition: PartitionId) -> Self {
        Self { disk, path, identity: Identity { cluster, partition } }
    }

    /// Replaces the floor durably.
    ///
    /// ORDER: only after what it says is durable in the store, or a crash between them would
    /// condemn a store that lost nothing.
    ///
    /// # Errors
    /// [`StoreError::File`] if the disk refuses.
    pub fn raise(&self, applied: &Applied) -> Result<(), StoreError> {
        let mut bytes = body(self.identity, applied);
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        files::replace(&self.disk, &self.path, &bytes).map_err(|source| self.file_error(source))
    }

    /// Reads the floor; `None` if there is none yet.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not whole, [`StoreError::Foreign`] if it is another's,
    /// [`StoreError::File`] if it can't be read.
    pub fn read(&self) -> Result<Option<Applied>, StoreError> {
        let bytes = match self.disk.read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.file_error(source)),
        };
        let damaged = |what| StoreError::Damaged { path: self.path.clone(), what };
        let Some((body, check)) = bytes.split_at_checked(BODY_BYTES) else {
            return Err(damaged("the floor file is too short"));
        };
        if check != blake3::hash(body).as_bytes() {
            return Err(damaged("the checksum of the floor file is wrong"));
        }
        let applied = Applied::decode(&body[BODY_BYTES - Applied::BYTES..])
            .ok_or_else(|| damaged("the floor file is malformed"))?;
        if self::body(self.identity, &applied) != body {
            let found = "its floor file is another partition's, cluster's or version's".into();
            return Err(StoreError::Foreign { path: self.path.clone(), found });
        }
        Ok(Some(applied))
    }

    /// Checks what the store in `directory` was found at against the `floor` that was read.
    ///
    /// # Errors
    /// [`StoreError::BelowFloor`] if the store has lost what was durable.
    pub fn check(
        &self,
        floor: Option<&Applied>,
        found: &Applied,
        directory: &Path,
    ) -> Result<(), StoreError> {
        let Some(floor) = floor else {
            if found.epoch > EpochNumber(0) {
                tracing::warn!(
                    floor = %self.path.display(), applied = %found,
                    "the store has no floor file: lost data would go unnoticed this time"
                );
            }
            return Ok(());
        };
        let is_below = found.epoch < floor.epoch || (found.epoch == floor.epoch && found != floor);
        if is_below && !plant::is(Bug::FloorNotChecked) {
            return Err(StoreError::BelowFloor {
                path: directory.into(),
                found: Box::new(*found),
                floor: Box::new(*floor),
            });
        }
        Ok(())
    }

    fn file_error(&self, source: std::io::Error) -> StoreError {
        StoreError::File { path: self.path.clone(), source: Arc::new(source) }
    }
}

/// All but the checksum.
fn body(identity: Identity, applied: &Applied) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BODY_BYTES + 32);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&identity.cluster);
    bytes.extend_from_slice(&identity.partition.0.to_be_bytes());
    bytes.extend_from_slice(&applied.encode());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(path: &Path, cluster: u8, partition: u16) -> Floor {
        Floor::new(StdDisk, path.into(), [cluster; 32], PartitionId(partition))
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("floor");
        let ours = floor(&path, 7, 2);
        assert_eq!(ours.read().unwrap(), None);
        let applied = Applied { epoch: EpochNumber(9), executed: 5, ..Applied::default() };
        ours.raise(&applied).unwrap();
        assert_eq!(ours.read().unwrap(), Some(applied));

        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(ours.read(), Err(StoreError::Damaged { .. })), "bit {bit}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(ours.read(), Err(StoreError::Damaged { .. })), "at {length}");
        }
    }

    #[test]
    fn the_floor_of_another_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("floor");
        floor(&path, 7, 2).raise(&Applied::default()).unwrap();
        for other in [floor(&path, 7, 3), floor(&path, 8, 2)] {
            assert!(matches!(other.read(), Err(StoreError::Foreign { .. })));
        }
    }
}
