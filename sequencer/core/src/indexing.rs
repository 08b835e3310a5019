//! What goes into the index of ids, and what may be said about it.
//!
//! The index can be rebuilt from the log and is written lazily, from durable epochs only. Each write
//! holds whole epochs and the [`Mark`] behind them. A crash takes the mark back to what an earlier
//! write left, and ids to that or a later one: those behind the mark are written again.

use std::sync::Arc;

use parsec_protocol::plant::{self, Bug};
use parsec_protocol::{Batch, EpochNumber, EpochRecord, LaneId, TxId};

use crate::{Place, positions};

/// How far the index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The epoch through which every id is in the index.
    pub through: EpochNumber,
    /// The epoch through which every transaction was answered, or ordered again, when this was
    /// written. Never greater than `through`.
    pub settled: EpochNumber,
    /// How many transactions were ordered through `through`.
    pub transactions: u64,
}

impl Mark {
    /// The first epoch that has to be read from the log after a restart.
    #[must_use]
    pub fn first_needed(&self) -> EpochNumber {
        self.settled.min(self.through).next()
    }
}

/// What has to be written to the index in one piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexWrite {
    /// Where each transaction was ordered. An id that is there already has a new place; one that
    /// comes twice has the later one.
    pub places: Vec<(TxId, Place)>,
    /// The index's mark behind them.
    pub mark: Mark,
}

/// Gathers what is to be written to the index.
#[derive(Debug)]
pub struct Indexing {
    lane: LaneId,
    written: Mark,
    /// What a write would hold now.
    next: IndexWrite,
    told: EpochNumber,
}

impl Indexing {
    /// For the index of `lane` that was found with this mark.
    #[must_use]
    pub fn new(lane: LaneId, mark: Mark) -> Self {
        let next = IndexWrite { places: Vec::new(), mark };
        Self { lane, written: mark, next, told: mark.through }
    }

    /// The next epoch is durable, with the batches of the lane that it orders.
    ///
    /// # Panics
    /// If it is not the next one, or a batch is missing.
    pub fn on_durable(&mut self, record: &EpochRecord, batches: &[Arc<Batch>]) {
        let IndexWrite { places, mark } = &mut self.next;
        assert_eq!(record.number, mark.through.next(), "epochs are indexed in order");
        places.extend(
            positions(self.lane, record, batches)
                .map(|(position, entry)| (entry.id, Place { position, home: entry.home })),
        );
        mark.through = record.number;
        mark.transactions += record.transactions();
    }

    /// How many ids wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.next.places.len()
    }

    /// What is to be written now, if anything is new. `settled` is the epoch through which every
    /// transaction was answered or ordered again. Call [`Indexing::on_written`] when it is written.
    pub fn write(&mut self, settled: EpochNumber) -> Option<IndexWrite> {
        let mark = &mut self.next.mark;
        mark.settled = mark.settled.max(settled.min(mark.through));
        if *mark == self.written {
            // Lookups that are under way were made after the last write: the lane may rely on it.
            self.told = self.written.through;
            return None;
        }
        if plant::is(Bug::IndexLosesIds) {
            self.next.places.pop();
        }
        let places = Vec::with_capacity(self.next.places.len());
        let next = IndexWrite { places, mark: self.next.mark };
        Some(std::mem::replace(&mut self.next, next))
    }

    /// The write that was handed out last is in the index, with this mark.
    ///
    /// The lane is told of the time before, so that it keeps ids a little longer than the index
    /// needs: submissions that asked the index a moment ago need not ask again.
    pub fn on_written(&mut self, mark: Mark) {
        assert!(mark.through >= self.written.through, "marks do not go back");
        self.told = self.written.through;
        self.written = mark;
    }

    /// The epoch through which the lane may rely on the index.
    #[must_use]
    pub fn told(&self) -> EpochNumber {
        self.told
    }

    /// The mark of the index.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.written
    }

    /// Whether there will be nothing to write until another epoch is durable, and the lane has
    /// been told of everything.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let Mark { through, settled, .. } = self.written;
        self.next.mark == self.written && settled == through && self.told == through
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{BatchRef, Entry, Footprint, PartitionId, Position, RuntimeId};

    use super::*;

    const LANE: LaneId = LaneId(1);

    /// Adds an epoch whose first batch is another lane's, with ten transactions.
    fn add(indexing: &mut Indexing, number: u64, ids: &[u8]) {
        let entry = |id: &u8| Entry {
            id: TxId([*id; 32]),
            runtime: RuntimeId::NATIVE,
            attempt: 0,
            home: PartitionId(u16::from(*id)),
            sender: Vec::new().into(),
            payload: Vec::new().into(),
            footprint: Footprint::default(),
            expires: None,
        };
        let entries: Vec<_> = ids.iter().map(entry).collect();
        let batch = Batch {
            lane: LANE,
            sequence: number,
            map_version: 1,
            entries: entries.into_iter().map(Arc::new).collect(),
        };
        let own = batch.reference(&[]);
        let other = BatchRef { lane: LaneId(0), transactions: 10, ..own.clone() };
        let (number, parent, batches) = (EpochNumber(number), [0; 32], vec![other, own]);
        let record = EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches };
        indexing.on_durable(&record, &[Arc::new(batch)]);
    }

    #[test]
    fn a_write_holds_whole_epochs_and_the_mark_behind_them() {
        let mut indexing = Indexing::new(LANE, Mark::default());
        add(&mut indexing, 1, &[1, 2]);
        add(&mut indexing, 2, &[3]);
        assert_eq!(indexing.waiting(), 3);
        // What is settled is never more than what is indexed, and does not fall.
        let write = indexing.write(EpochNumber(9)).unwrap();
        let two = EpochNumber(2);
        assert_eq!(write.mark, Mark { through: two, settled: two, transactions: 23 });
        let place = |epoch, index, home| {
            let position = Position { epoch: EpochNumber(epoch), index };
            (TxId([home; 32]), Place { position, home: PartitionId(home.into()) })
        };
        assert_eq!(write.places, [place(1, 10, 1), place(1, 11, 2), place(2, 10, 3)]);
        indexing.on_written(write.mark);
        add(&mut indexing, 3, &[2]);
        let write = indexing.write(EpochNumber(1)).unwrap();
        assert_eq!(write.mark, Mark { through: EpochNumber(3), settled: two, transactions: 34 });
        assert_eq!(write.mark.first_needed(), EpochNumber(3));
    }

    #[test]
    fn the_lane_is_told_one_write_late() {
        let mut indexing = Indexing::new(LANE, Mark::default());
        add(&mut indexing, 1, &[1]);
        let write = indexing.write(EpochNumber(0)).unwrap();
        assert_eq!(indexing.told(), EpochNumber(0));
        indexing.on_written(write.mark);
        assert_eq!((indexing.told(), indexing.is_done()), (EpochNumber(0), false));
        // Nothing is new: nobody can have a lookup from before the write any more.
        assert_eq!(indexing.write(EpochNumber(0)), None);
        assert_eq!((indexing.told(), indexing.is_done()), (EpochNumber(1), false));
        let write = indexing.write(EpochNumber(1)).expect("it is settled now");
        assert_eq!(write.places, []);
        indexing.on_written(write.mark);
        assert!(indexing.is_done());
    }
}
