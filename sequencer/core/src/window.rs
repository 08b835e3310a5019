//! The epochs that a lane still needs: those with unfinished transactions, and those whose ids
//! are not in the index of ids yet.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::{Batch, Entry, EpochNumber, EpochRecord, LaneId, Position, TxId};

/// A batch and the index that its first transaction has in its epoch.
pub(crate) type Placed = (u32, Arc<Batch>);

/// Epochs in order, without gaps.
#[derive(Debug)]
pub(crate) struct Window {
    /// The epoch before the first retained one.
    before: EpochNumber,
    epochs: VecDeque<Retained>,
    settled: EpochNumber,
    indexed: EpochNumber,
    /// The greatest epoch whose ids are known to the index alone.
    retired: EpochNumber,
    transactions: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Retained {
    batches: Vec<Placed>,
    /// How many of its transactions are neither finished nor ordered again.
    open: usize,
    transactions: usize,
    bytes: usize,
}

impl Window {
    /// A window in which every epoch through `settled` is finished, and every epoch through
    /// `indexed` in the index. The next epoch is the one after the lesser of them.
    pub(crate) fn new(settled: EpochNumber, indexed: EpochNumber) -> Self {
        let before = settled.min(indexed);
        Self {
            before,
            epochs: VecDeque::new(),
            settled,
            indexed,
            retired: before,
            transactions: 0,
            bytes: 0,
        }
    }

    /// The last epoch.
    pub(crate) fn last(&self) -> EpochNumber {
        EpochNumber(self.before.0 + self.len() as u64)
    }

    /// The greatest epoch through which nothing is unfinished.
    pub(crate) fn settled(&self) -> EpochNumber {
        self.settled
    }

    /// The greatest epoch whose ids are known to the index alone.
    pub(crate) fn retired(&self) -> EpochNumber {
        self.retired
    }

    /// How many epochs are remembered.
    pub(crate) fn len(&self) -> usize {
        self.epochs.len()
    }

    /// How many transactions are kept.
    pub(crate) fn transactions(&self) -> usize {
        self.transactions
    }

    /// About how many bytes those take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether transactions of `epoch` may be unfinished.
    pub(crate) fn is_settled(&self, epoch: EpochNumber) -> bool {
        epoch <= self.settled
    }

    /// Adds the next epoch. Its transactions are unfinished unless it is settled already.
    ///
    /// # Panics
    /// If it is not the next one.
    pub(crate) fn push(&mut self, number: EpochNumber, batches: Vec<Placed>) {
        assert_eq!(number, self.last().next(), "epochs are dense");
        let entries = || batches.iter().flat_map(|(_, batch)| &batch.entries);
        let transactions = entries().count();
        let bytes = entries().map(|entry| entry.size()).sum();
        let open = if self.is_settled(number) { 0 } else { transactions };
        self.transactions += transactions;
        self.bytes += bytes;
        self.epochs.push_back(Retained { batches, open, transactions, bytes });
        self.settle();
    }

    /// The entry at a position.
    pub(crate) fn entry(&self, position: Position) -> Option<&Entry> {
        let retained = self.epochs.get(self.offset(position.epoch)?)?;
        let after = retained.batches.partition_point(|(first, _)| *first <= position.index);
        let (first, batch) = retained.batches.get(after.checked_sub(1)?)?;
        batch.entries.get((position.index - first) as usize).map(|entry| &**entry)
    }

    /// A transaction of `epoch` is finished, or ordered again. Returns the ids and positions
    /// whose only keeper is now the index.
    pub(crate) fn resolve(&mut self, epoch: EpochNumber) -> Vec<(TxId, Position)> {
        let retained = self.offset(epoch).and_then(|offset| self.epochs.get_mut(offset));
        let retained = retained.expect("an epoch with an open transaction is retained");
        retained.open = retained.open.checked_sub(1).expect("each transaction resolves once");
        if retained.open > 0 {
            return Vec::new();
        }
        self.settle();
        self.retire(epoch, epoch)
    }

    /// The index holds every id through `through`. Returns the ids and positions whose only
    /// keeper it is now.
    pub(crate) fn on_indexed(&mut self, through: EpochNumber) -> Vec<(TxId, Position)> {
        let through = through.min(self.last());
        if through <= self.indexed {
            return Vec::new();
        }
        let from = self.indexed.next();
        self.indexed = through;
        self.retire(from, through)
    }

    fn offset(&self, epoch: EpochNumber) -> Option<usize> {
        usize::try_from(epoch.0.checked_sub(self.before.0)?.checked_sub(1)?).ok()
    }

    fn settle(&mut self) {
        let open = |window: &Self, epoch| {
            let offset = window.offset(epoch)?;
            Some(window.epochs.get(offset)?.open)
        };
        while open(self, self.settled.next()) == Some(0) {
            self.settled = self.settled.next();
        }
    }

    /// Lets go of those epochs in the range that are finished and indexed.
    fn retire(&mut self, from: EpochNumber, through: EpochNumber) -> Vec<(TxId, Position)> {
        let mut forgotten = Vec::new();
        for number in (from.0..=through.0.min(self.indexed.0)).map(EpochNumber) {
            let retained = self.offset(number).and_then(|offset| self.epochs.get_mut(offset));
            let Some(retained) = retained.filter(|retained| retained.open == 0) else { continue };
            for (first, batch) in std::mem::take(&mut retained.batches) {
                let positions = (first..).map(|index| Position { epoch: number, index });
                forgotten.extend(batch.entries.iter().map(|entry| entry.id).zip(positions));
            }
            self.transactions -= std::mem::take(&mut retained.transactions);
            self.bytes -= std::mem::take(&mut retained.bytes);
            self.retired = self.retired.max(number);
        }
        while self.before < self.settled.min(self.indexed) && self.epochs.pop_front().is_some() {
            self.before = self.before.next();
        }
        forgotten
    }
}

/// The index in the epoch that the first transaction of each of a lane's batches has.
pub(crate) fn firsts(lane: LaneId, record: &EpochRecord) -> Vec<u32> {
    let mut first = 0;
    let mut firsts = Vec::with_capacity(record.batches.len());
    for reference in &record.batches {
        if reference.lane == lane {
            firsts.push(first);
        }
        first += reference.transactions;
    }
    firsts
}
