//! The ledger: what orders batches into epochs.

use std::collections::VecDeque;

use parsec_protocol::limits::EPOCH_BATCHES_MAX;
use parsec_protocol::{BatchRef, EpochNumber, EpochRecord, RuntimeId};

use crate::Tick;

/// Orders batches, of which it knows only references.
///
/// References are offered; epochs come out as committed, dense and in order, and each holds
/// batches of one lane in the order of their sequence. A ledger that is replicated commits what
/// other lanes offered as well.
pub trait Ledger {
    /// Offers a batch, which is already on its way to the log.
    fn offer(&mut self, batch: BatchRef);

    /// The log is durable through the record of `through`.
    fn on_durable(&mut self, through: EpochNumber);

    /// Whether what is offered now is ordered at once, because the ledger is busy with no epoch.
    fn is_free(&self) -> bool;

    /// The next thing to do. Call it after every input, until `None`.
    fn poll_output(&mut self, now: Tick) -> Option<LedgerOutput>;
}

/// What a ledger wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerOutput {
    /// Append the epoch to the log and make it durable.
    Append(EpochRecord),
    /// The epoch is agreed on, for ever.
    Committed(EpochRecord),
}

/// A ledger with one voter, whose log is also the lane's.
///
/// It makes an epoch of all that was offered, one epoch at a time: while the log is busy with one,
/// offers gather for the next. An epoch is committed when the log is durable through its record.
///
/// A batch and the record of its epoch share one sync here. That is right because the log is one
/// file of chained records: if the epoch's record survives a crash, all before it does too, the
/// batch included. With several voters it would be wrong: a record may survive on voters that
/// never had the batch, so a batch has to be durable (on a quorum) before it is offered.
#[derive(Debug)]
pub struct SingleLedger {
    last: Last,
    offered: VecDeque<BatchRef>,
    appended: Option<EpochRecord>,
    committed: Option<EpochRecord>,
}

/// What an epoch takes over from the one before it.
#[derive(Debug, Default)]
struct Last {
    number: EpochNumber,
    timestamp_ms: u64,
    block: u64,
    digest: [u8; 32],
}

impl From<&EpochRecord> for Last {
    fn from(record: &EpochRecord) -> Self {
        Self {
            number: record.number,
            timestamp_ms: record.timestamp_ms,
            block: record.block,
            digest: record.digest(),
        }
    }
}

impl SingleLedger {
    /// A ledger that goes on after `last`, the last epoch in the log.
    #[must_use]
    pub fn new(last: Option<&EpochRecord>) -> Self {
        Self {
            last: last.map_or_else(Last::default, Last::from),
            offered: VecDeque::new(),
            appended: None,
            committed: None,
        }
    }

    fn order(&mut self, now: Tick) -> EpochRecord {
        let count = self.offered.len().min(EPOCH_BATCHES_MAX);
        let batches: Vec<_> = self.offered.drain(..count).collect();
        let is_block = batches.iter().any(|batch| batch.calls(RuntimeId::EVM));
        let record = EpochRecord {
            number: self.last.number.next(),
            timestamp_ms: now.as_millis().max(self.last.timestamp_ms),
            block: self.last.block + u64::from(is_block),
            parent: self.last.digest,
            batches,
        };
        self.last = Last::from(&record);
        record
    }
}

impl Ledger for SingleLedger {
    fn offer(&mut self, batch: BatchRef) {
        self.offered.push_back(batch);
    }

    fn on_durable(&mut self, through: EpochNumber) {
        if self.appended.as_ref().is_some_and(|record| record.number <= through) {
            self.committed = self.appended.take();
        }
    }

    fn is_free(&self) -> bool {
        self.appended.is_none() && self.committed.is_none()
    }

    fn poll_output(&mut self, now: Tick) -> Option<LedgerOutput> {
        if let Some(record) = self.committed.take() {
            return Some(LedgerOutput::Committed(record));
        }
        if self.appended.is_some() || self.offered.is_empty() {
            return None;
        }
        let record = self.order(now);
        self.appended = Some(record.clone());
        Some(LedgerOutput::Append(record))
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::LaneId;

    use super::*;

    fn offer(ledger: &mut SingleLedger, sequence: u64, runtime: RuntimeId) {
        ledger.offer(BatchRef {
            lane: LaneId(0),
            sequence,
            digest: [1; 32],
            transactions: 1,
            runtimes: 1 << runtime.0,
        });
    }

    fn append(ledger: &mut SingleLedger, now: Tick) -> EpochRecord {
        match ledger.poll_output(now) {
            Some(LedgerOutput::Append(record)) => record,
            other => panic!("expected an append, not {other:?}"),
        }
    }

    #[test]
    fn offers_gather_while_the_log_is_busy() {
        let mut ledger = SingleLedger::new(None);
        offer(&mut ledger, 1, RuntimeId::NATIVE);
        let first = append(&mut ledger, Tick(5_000));
        offer(&mut ledger, 2, RuntimeId::EVM);
        offer(&mut ledger, 3, RuntimeId::NATIVE);
        assert_eq!(ledger.poll_output(Tick(6_000)), None);
        ledger.on_durable(EpochNumber(1));
        assert_eq!(ledger.poll_output(Tick(6_000)), Some(LedgerOutput::Committed(first.clone())));
        let second = append(&mut ledger, Tick(6_000));
        assert_eq!(second.batches.iter().map(|b| b.sequence).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((first.number, second.number), (EpochNumber(1), EpochNumber(2)));
        assert_eq!((first.block, second.block), (0, 1));
        assert_eq!(second.parent, first.digest());
    }

    #[test]
    fn a_clock_that_goes_back_does_not_take_the_order_with_it() {
        let mut ledger = SingleLedger::new(None);
        offer(&mut ledger, 1, RuntimeId::NATIVE);
        let first = append(&mut ledger, Tick(9_000_000));
        let mut again = SingleLedger::new(Some(&first));
        offer(&mut again, 2, RuntimeId::NATIVE);
        let second = append(&mut again, Tick(1_000));
        assert_eq!(second.timestamp_ms, 9_000);
        assert_eq!((second.number, second.parent), (EpochNumber(2), first.digest()));
    }

    #[test]
    fn an_epoch_of_another_sync_commits_nothing() {
        let mut ledger = SingleLedger::new(None);
        offer(&mut ledger, 1, RuntimeId::NATIVE);
        let _ = append(&mut ledger, Tick(0));
        ledger.on_durable(EpochNumber(0));
        assert_eq!(ledger.poll_output(Tick(0)), None);
    }

    #[test]
    fn an_epoch_takes_no_more_batches_than_it_may() {
        let mut ledger = SingleLedger::new(None);
        let many = u64::try_from(EPOCH_BATCHES_MAX).unwrap() + 1;
        (1..=many).for_each(|sequence| offer(&mut ledger, sequence, RuntimeId::NATIVE));
        assert_eq!(append(&mut ledger, Tick(0)).batches.len(), EPOCH_BATCHES_MAX);
        ledger.on_durable(EpochNumber(1));
        assert!(matches!(ledger.poll_output(Tick(0)), Some(LedgerOutput::Committed(_))));
        assert_eq!(append(&mut ledger, Tick(0)).batches[0].sequence, many);
    }
}
