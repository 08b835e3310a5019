//! Where the chronicle has its epochs from: memory while it keeps up, else the log.
//!
//! Receipts pass by on their way to clients, and are kept with their epochs meanwhile: the chronicle
//! need not ask the partitions for them again, unless it is behind, or one was lost.
//!
//! Of an epoch that is no block, nothing but the record is kept, once the genesis is over: most of
//! the load may have nothing to do with Ethereum.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::{Batch, EpochNumber, EpochRecord, Receipt};
use parsec_runtimes::evm::chronicle::is_block;
use parsec_storage::log::{LogError, LogReader};

use crate::driver::Ordered;
use crate::limits::{CHRONICLE_EPOCHS_MAX, CHRONICLE_RECENT_TRANSACTIONS_MAX};

/// The epochs ordered last.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// **Invariant:** numbers are dense.
    epochs: VecDeque<Passing>,
    /// Those of the epochs whose batches are kept.
    transactions: u64,
    /// Whether batches of epochs that are no blocks are left out.
    genesis_ended: bool,
}

/// An epoch, and those of its receipts that came by.
#[derive(Debug)]
struct Passing {
    ordered: Ordered,
    /// By index in the epoch; empty if it is no block.
    receipts: Vec<Option<Arc<Receipt>>>,
    missing: usize,
}

/// An epoch that the chronicle takes, with its receipts, in order, if all of them came by.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) ordered: Ordered,
    pub(super) receipts: Option<Vec<Arc<Receipt>>>,
}

impl Passing {
    fn new(ordered: Ordered) -> Self {
        let count = match is_block(&ordered.record) {
            true => usize::try_from(ordered.record.transactions()).unwrap_or(0),
            false => 0,
        };
        Self { ordered, receipts: vec![None; count], missing: count }
    }

    /// How many transactions it keeps.
    fn transactions(&self) -> u64 {
        if self.ordered.batches.is_empty() { 0 } else { self.ordered.record.transactions() }
    }

    fn keep(&mut self, receipt: &Arc<Receipt>) {
        let index = usize::try_from(receipt.position.index).unwrap_or(usize::MAX);
        if let Some(place @ None) = self.receipts.get_mut(index) {
            *place = Some(receipt.clone());
            self.missing -= 1;
        }
    }

    /// Its receipts are handed over: each block is sealed once.
    fn take(&mut self) -> Taken {
        let receipts = std::mem::take(&mut self.receipts);
        let receipts = (self.missing == 0).then(|| receipts.into_iter().flatten().collect());
        Taken { ordered: self.ordered.clone(), receipts }
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch is ordered and durable. Epochs come in order.
    pub(crate) fn push(&self, record: &EpochRecord, batches: &[Arc<Batch>]) {
        let mut kept = self.lock();
        let batches = match kept.genesis_ended && !is_block(record) {
            true => Vec::new(),
            false => batches.to_vec(),
        };
        let passing = Passing::new(Ordered { record: record.clone(), batches });
        kept.transactions += passing.transactions();
        kept.epochs.push_back(passing);
        while kept.transactions > CHRONICLE_RECENT_TRANSACTIONS_MAX
            || kept.epochs.len() > CHRONICLE_EPOCHS_MAX
        {
            if !kept.forget_first() {
                return;
            }
        }
    }

    /// The genesis is over: from now on only blocks are of interest.
    pub(super) fn on_genesis_ended(&self) {
        self.lock().genesis_ended = true;
    }

    /// Receipts came from an executor. Those of epochs that are not here are not needed here.
    pub(crate) fn on_receipts(&self, receipts: &[Arc<Receipt>]) {
        let mut kept = self.lock();
        let Some(first) = kept.epochs.front().map(|epoch| epoch.ordered.record.number) else {
            return;
        };
        for receipt in receipts {
            let place = receipt.position.epoch.0.checked_sub(first.0);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(epoch) = place.and_then(|place| kept.epochs.get_mut(place)) {
                epoch.keep(receipt);
            }
        }
    }

    /// The epochs from `from` through `through`, as many as are taken at a time, if the first one
    /// is still here. Those before it are forgotten.
    fn take(&self, from: EpochNumber, through: EpochNumber) -> Option<Vec<Taken>> {
        let mut kept = self.lock();
        let first = kept.epochs.front()?.ordered.record.number;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let (mut taken, mut transactions) = (Vec::new(), 0);
        for epoch in kept.epochs.iter_mut().skip(skip) {
            let record = &epoch.ordered.record;
            if record.number > through || !room(taken.len(), transactions) {
                break;
            }
            transactions += epoch.transactions();
            taken.push(epoch.take());
        }
        for _ in 0..skip {
            kept.forget_first();
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// The epochs from `from` on, at least one and not beyond `through`, which is ordered.
    pub(super) async fn epochs(
        &self,
        log: &Path,
        from: EpochNumber,
        through: EpochNumber,
    ) -> Result<Vec<Taken>, LogError> {
        if let Some(taken) = self.take(from, through) {
            return Ok(taken);
        }
        let log = log.to_owned();
        let read = tokio::task::spawn_blocking(move || read_log(&log, from, through));
        match read.await {
            Ok(read) => read,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

impl Kept {
    /// Forgets the first epoch; whether there was one.
    fn forget_first(&mut self) -> bool {
        let Some(gone) = self.epochs.pop_front() else { return false };
        self.transactions -= gone.transactions();
        true
    }
}

/// Whether one more epoch is taken together with so many.
fn room(epochs: usize, transactions: u64) -> bool {
    epochs < parsec_protocol::limits::OUTCOME_EPOCHS_MAX
        && transactions < CHRONICLE_RECENT_TRANSACTIONS_MAX / 4
}

fn read_log(log: &Path, from: EpochNumber, through: EpochNumber) -> Result<Vec<Taken>, LogError> {
    let (mut epochs, mut transactions) = (Vec::new(), 0);
    for epoch in LogReader::epochs_from(log, from)? {
        let (record, batches) = epoch?;
        if record.number > through || !room(epochs.len(), transactions) {
            break;
        }
        transactions += record.transactions();
        let batches = batches.into_iter().map(Arc::new).collect();
        epochs.push(Taken { ordered: Ordered { record, batches }, receipts: None });
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{BatchRef, LaneId, Outcome, Position, RuntimeId, TxId};

    use super::*;

    fn ordered(number: u64, transactions: u32) -> Ordered {
        let batch = BatchRef {
            lane: LaneId(0),
            sequence: number,
            digest: [0; 32],
            transactions,
            runtimes: 0,
        };
        let record = EpochRecord {
            number: EpochNumber(number),
            timestamp_ms: 0,
            block: 0,
            parent: [0; 32],
            batches: vec![batch],
        };
        let batch =
            Batch { lane: LaneId(0), sequence: number, map_version: 0, entries: Vec::new() };
        Ordered { record, batches: vec![Arc::new(batch)] }
    }

    fn push(recent: &Recent, ordered: &Ordered) {
        recent.push(&ordered.record, &ordered.batches);
    }

    const NOTHING: [u64; 0] = [];

    fn numbers(taken: Option<Vec<Taken>>) -> Vec<u64> {
        taken.into_iter().flatten().map(|taken| taken.ordered.record.number.0).collect()
    }

    fn receipt(epoch: u64, index: u32) -> Receipt {
        Receipt {
            id: TxId([9; 32]),
            position: Position { epoch: EpochNumber(epoch), index },
            attempt: 0,
            outcome: Outcome::Committed,
            work: 1,
            output: Vec::new().into(),
            events: Vec::new(),
        }
    }

    #[test]
    fn receipts_are_handed_over_in_order_when_all_of_an_epoch_came_by() {
        let recent = Recent::default();
        for number in 1..=4 {
            let mut ordered = ordered(number, 3);
            // The third one is no block.
            if number != 3 {
                ordered.record.batches[0].runtimes = 1 << RuntimeId::EVM.0;
            }
            push(&recent, &ordered);
        }
        // In any order, more than once, of any epoch.
        for (epoch, index) in [(1, 2), (2, 0), (1, 0), (9, 0), (1, 0), (3, 1), (0, 0), (1, 7)] {
            recent.on_receipts(&[receipt(epoch, index).into()]);
        }
        let places = [(1, 1), (4, 1), (4, 0), (4, 2)];
        recent.on_receipts(&places.map(|(epoch, index)| receipt(epoch, index).into()));
        let taken = recent.take(EpochNumber(1), EpochNumber(4)).unwrap();
        let indexes = |taken: &Taken| {
            let receipts = taken.receipts.as_ref()?;
            Some(receipts.iter().map(|receipt| receipt.position.index).collect::<Vec<_>>())
        };
        let found: Vec<_> = taken.iter().map(indexes).collect();
        assert_eq!(found, [Some(vec![0, 1, 2]), None, Some(vec![]), Some(vec![0, 1, 2])]);
    }

    #[test]
    fn epochs_are_taken_in_order_and_forgotten_when_passed() {
        let recent = Recent::default();
        (5..9).for_each(|number| push(&recent, &ordered(number, 1)));
        assert_eq!(numbers(recent.take(EpochNumber(4), EpochNumber(9))), NOTHING);
        assert_eq!(numbers(recent.take(EpochNumber(5), EpochNumber(6))), [5, 6]);
        assert_eq!(numbers(recent.take(EpochNumber(7), EpochNumber(20))), [7, 8]);
        assert_eq!(numbers(recent.take(EpochNumber(6), EpochNumber(9))), NOTHING);
        assert_eq!(numbers(recent.take(EpochNumber(9), EpochNumber(9))), NOTHING);
    }

    #[test]
    fn what_is_too_much_is_forgotten_and_taken_in_parts() {
        let recent = Recent::default();
        let many = u32::try_from(CHRONICLE_RECENT_TRANSACTIONS_MAX / 4).unwrap();
        (1..=6).for_each(|number| push(&recent, &ordered(number, many)));
        assert_eq!(numbers(recent.take(EpochNumber(2), EpochNumber(9))), NOTHING);
        assert_eq!(numbers(recent.take(EpochNumber(3), EpochNumber(9))), [3]);
    }
    #[test]
    fn after_the_genesis_what_is_no_block_takes_no_room() {
        let recent = Recent::default();
        let many = u32::try_from(CHRONICLE_RECENT_TRANSACTIONS_MAX).unwrap();
        push(&recent, &ordered(1, 1));
        recent.on_genesis_ended();
        (2..=6).for_each(|number| push(&recent, &ordered(number, many)));
        let mut block = ordered(7, 1);
        block.record.batches[0].runtimes = 1 << RuntimeId::EVM.0;
        push(&recent, &block);
        let taken = recent.take(EpochNumber(1), EpochNumber(7)).unwrap();
        let batches: Vec<_> = taken.iter().map(|taken| taken.ordered.batches.len()).collect();
        assert_eq!(batches, [1, 0, 0, 0, 0, 0, 1]);
    }
}
