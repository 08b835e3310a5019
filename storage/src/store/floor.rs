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
use std::path::Path;
use std::sync::Arc;

use parsec_protocol::PartitionId;

use super::{Applied, StoreError};
use crate::files;

const MAGIC: [u8; 8] = *b"PFLOOR\0\0";
const VERSION: u32 = 1;
const BODY_BYTES: usize = 8 + 4 + 32 + 2 + Applied::BYTES;

/// Whose floor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: [u8; 32],
    pub(super) partition: PartitionId,
}

/// Replaces the floor durably.
pub(super) fn write(path: &Path, identity: Identity, applied: &Applied) -> Result<(), StoreError> {
    let mut bytes = body(identity, applied);
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    files::replace(path, &bytes)
        .map_err(|source| StoreError::File { path: path.into(), source: Arc::new(source) })
}

/// Reads the floor; `None` if there is none yet.
pub(super) fn read(path: &Path, identity: Identity) -> Result<Option<Applied>, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoreError::File { path: path.into(), source: Arc::new(source) });
        }
    };
    let damaged = |what| StoreError::Damaged { path: path.into(), what };
    let Some((body, check)) = bytes.split_at_checked(BODY_BYTES) else {
        return Err(damaged("the floor file is too short"));
    };
    if check != blake3::hash(body).as_bytes() {
        return Err(damaged("the checksum of the floor file is wrong"));
    }
    let applied = Applied::decode(&body[BODY_BYTES - Applied::BYTES..])
        .ok_or_else(|| damaged("the floor file is malformed"))?;
    if self::body(identity, &applied) != body {
        let found = "its floor file is another partition's, cluster's or version's".into();
        return Err(StoreError::Foreign { path: path.into(), found });
    }
    Ok(Some(applied))
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
    use parsec_protocol::EpochNumber;

    use super::*;

    const US: Identity = Identity { cluster: [7; 32], partition: PartitionId(2) };

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("floor");
        assert_eq!(read(&path, US).unwrap(), None);
        let applied = Applied { epoch: EpochNumber(9), executed: 5, ..Applied::default() };
        write(&path, US, &applied).unwrap();
        assert_eq!(read(&path, US).unwrap(), Some(applied));

        let good = std::fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path, US), Err(StoreError::Damaged { .. })), "bit {bit}");
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(read(&path, US), Err(StoreError::Damaged { .. })), "at {length}");
        }
    }

    #[test]
    fn the_floor_of_another_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("floor");
        write(&path, US, &Applied::default()).unwrap();
        for other in
            [Identity { partition: PartitionId(3), ..US }, Identity { cluster: [8; 32], ..US }]
        {
            assert!(matches!(read(&path, other), Err(StoreError::Foreign { .. })));
        }
    }
}
