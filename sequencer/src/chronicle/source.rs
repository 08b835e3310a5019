//! Where the chronicle has its epochs from: memory while it keeps up, else the log.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use parsec_protocol::EpochNumber;
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
    epochs: VecDeque<Ordered>,
    transactions: u64,
}

impl Recent {
    /// An epoch is ordered and durable. Epochs come in order.
    pub(crate) fn push(&self, ordered: Ordered) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.transactions += ordered.record.transactions();
        kept.epochs.push_back(ordered);
        while kept.transactions > CHRONICLE_RECENT_TRANSACTIONS_MAX
            || kept.epochs.len() > CHRONICLE_EPOCHS_MAX
        {
            let Some(gone) = kept.epochs.pop_front() else { return };
            kept.transactions -= gone.record.transactions();
        }
    }

    /// The epochs from `from` through `through`, as many as are taken at a time, if the first one
    /// is still here. Those before it are forgotten.
    fn take(&self, from: EpochNumber, through: EpochNumber) -> Option<Vec<Ordered>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.epochs.front()?.record.number;
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let (mut taken, mut transactions) = (Vec::new(), 0);
        for ordered in kept.epochs.iter().skip(skip) {
            if ordered.record.number > through || !room(taken.len(), transactions) {
                break;
            }
            transactions += ordered.record.transactions();
            taken.push(ordered.clone());
        }
        for _ in 0..skip {
            if let Some(gone) = kept.epochs.pop_front() {
                kept.transactions -= gone.record.transactions();
            }
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// The epochs from `from` on, at least one and not beyond `through`, which is ordered.
    pub(crate) async fn epochs(
        &self,
        log: &Path,
        from: EpochNumber,
        through: EpochNumber,
    ) -> Result<Vec<Ordered>, LogError> {
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

/// Whether one more epoch is taken together with so many.
fn room(epochs: usize, transactions: u64) -> bool {
    epochs < parsec_protocol::limits::OUTCOME_EPOCHS_MAX
        && transactions < CHRONICLE_RECENT_TRANSACTIONS_MAX / 4
}

fn read_log(log: &Path, from: EpochNumber, through: EpochNumber) -> Result<Vec<Ordered>, LogError> {
    let (mut epochs, mut transactions) = (Vec::new(), 0);
    for epoch in LogReader::epochs_from(log, from)? {
        let (record, batches) = epoch?;
        if record.number > through || !room(epochs.len(), transactions) {
            break;
        }
        transactions += record.transactions();
        let batches = batches.into_iter().map(Arc::new).collect();
        epochs.push(Ordered { record, batches });
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{BatchRef, EpochRecord, LaneId};

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
        Ordered { record, batches: Vec::new() }
    }

    const NOTHING: [u64; 0] = [];

    fn numbers(taken: Option<Vec<Ordered>>) -> Vec<u64> {
        taken.into_iter().flatten().map(|ordered| ordered.record.number.0).collect()
    }

    #[test]
    fn epochs_are_taken_in_order_and_forgotten_when_passed() {
        let recent = Recent::default();
        (5..9).for_each(|number| recent.push(ordered(number, 1)));
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
        (1..=6).for_each(|number| recent.push(ordered(number, many)));
        assert_eq!(numbers(recent.take(EpochNumber(2), EpochNumber(9))), NOTHING);
        assert_eq!(numbers(recent.take(EpochNumber(3), EpochNumber(9))), [3]);
    }
}
