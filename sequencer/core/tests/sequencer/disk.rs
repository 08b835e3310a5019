//! The sequencer's disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_protocol::{Batch, Entry, EpochRecord, Position, TxId};
use parsec_sequencer_core::{IndexWrite, Lookup, Mark};

/// A record of the log.
#[derive(Debug, Clone)]
pub(crate) enum Record {
    Batch(Arc<Batch>),
    Epoch(EpochRecord),
}

/// An epoch with the batches that it orders.
pub(crate) type Epoch = (EpochRecord, Vec<Arc<Batch>>);

/// What is to be done to the log.
#[derive(Debug)]
pub(crate) enum LogCommand {
    Append(Record),
    Sync,
}

/// The log on its disk.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<Record>,
    pub(crate) synced: usize,
}

impl Log {
    /// The epochs among the first `count` records with their batches, and the batches behind them.
    pub(crate) fn read(&self, count: usize) -> (Vec<Epoch>, Vec<Arc<Batch>>) {
        let mut epochs = Vec::new();
        let mut batches = VecDeque::new();
        for record in &self.records[..count] {
            match record {
                Record::Batch(batch) => batches.push_back(batch.clone()),
                Record::Epoch(record) => {
                    epochs.push((record.clone(), batches.drain(..record.batches.len()).collect()));
                }
            }
        }
        (epochs, batches.into())
    }

    pub(crate) fn entries(&self, count: usize) -> BTreeMap<Position, Arc<Entry>> {
        let (epochs, _) = self.read(count);
        let mut entries = BTreeMap::new();
        for (record, batches) in epochs {
            let all = batches.iter().flat_map(|batch| batch.entries.iter().cloned());
            let position = |index| Position { epoch: record.number, index };
            entries.extend((0u32..).map(position).zip(all));
        }
        entries
    }
}

/// The index on its disk: what each write left, which a crash may take back from the end.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) writes: Vec<IndexWrite>,
}

impl Index {
    pub(crate) fn mark(&self) -> Mark {
        self.writes.last().map_or_else(Mark::default, |write| write.mark)
    }

    pub(crate) fn look_up(&self, id: TxId) -> Lookup {
        let places = self.writes.iter().flat_map(|write| &write.places);
        let found = places.rev().find(|(known, _)| *known == id).map(|(_, place)| *place);
        Lookup { found, void: false, through: self.mark().through }
    }
}
