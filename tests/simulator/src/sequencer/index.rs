//! The index of ids on a simulated disk: a journal of writes, each with its mark.
//!
//! As in production it is not synced: a power cut takes the last writes, ids and mark together.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use parsec_protocol::codec::{self, Malformed, Wire};
use parsec_protocol::{EpochNumber, PartitionId, Position, TxId};
use parsec_sequencer_core::{IndexWrite, Lookup, Mark, Place};
use parsec_storage::Disk as _;
use rkyv::{Archive, Deserialize, Serialize};

use crate::disk::SimDisk;
use crate::store::Journal;

const DIRECTORY: &str = "/ids";
/// Where the journal is.
pub(crate) const PATH: &str = "/ids/journal";

#[derive(Debug, Archive, Serialize, Deserialize)]
struct Written {
    places: Vec<(TxId, Position, PartitionId)>,
    through: EpochNumber,
    settled: EpochNumber,
    transactions: u64,
}

impl Wire for Written {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// The index of ids.
#[derive(Debug)]
pub(super) struct Index {
    journal: Journal,
    places: BTreeMap<TxId, Place>,
    mark: Mark,
}

impl Index {
    pub(super) fn open(disk: &SimDisk) -> io::Result<Self> {
        disk.create_directory(Path::new(DIRECTORY))?;
        let entries = Journal::read(disk, Path::new(PATH))?;
        let journal = Journal::truncate(disk, Path::new(PATH))?;
        let mut index = Self { journal, places: BTreeMap::new(), mark: Mark::default() };
        for entry in entries {
            let written: Written = codec::decode(&entry).map_err(io::Error::other)?;
            index.take(written);
        }
        Ok(index)
    }

    fn take(&mut self, written: Written) {
        let Written { places, through, settled, transactions } = written;
        let place = |(id, position, home)| (id, Place { position, home });
        self.places.extend(places.into_iter().map(place));
        self.mark = Mark { through, settled, transactions };
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    pub(super) fn write(&mut self, write: IndexWrite) -> io::Result<()> {
        let IndexWrite { places, mark: Mark { through, settled, transactions } } = write;
        let places = places.into_iter().map(|(id, Place { position, home })| (id, position, home));
        let written = Written { places: places.collect(), through, settled, transactions };
        self.journal.append(&codec::encode(&written))?;
        self.take(written);
        Ok(())
    }

    pub(super) fn lookup(&self, id: &TxId) -> Lookup {
        Lookup { found: self.places.get(id).copied(), void: false, through: self.mark.through }
    }
}
