//! What goes into the index of ids, and what may be said about it.
//!
//! The index can be rebuilt from the log and is written lazily, from durable epochs only. Each write
//! holds whole epochs and the [`Mark`] behind them, and is atomic: a crash takes ids and mark back
//! together, to what an earlier write left.

use std::sync::Arc;

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
        let next = IndexWrite { places: Vec::new(), mark: *mark };
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
