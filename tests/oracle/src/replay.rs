//! Replaying a log or a recording.

use std::collections::BTreeMap;

use parsec_protocol::{ErrorCode, Outcome};
use parsec_storage::Digest;
use parsec_storage::log::LogReader;

use crate::{Oracle, OracleError};

/// How often each kind of outcome came about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Took effect.
    pub committed: u64,
    /// Ran and gave up, by reason.
    pub reverted: BTreeMap<ErrorCode, u64>,
    /// Could not run, by reason.
    pub invalid: BTreeMap<ErrorCode, u64>,
    /// Left their footprint, and were ordered again.
    pub strayed: u64,
}

impl OutcomeCounts {
    /// Counts an outcome.
    pub fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Committed => &mut self.committed,
            Outcome::Reverted(code) => self.reverted.entry(*code).or_default(),
            Outcome::Invalid(code) => self.invalid.entry(*code).or_default(),
            Outcome::Strayed { .. } => &mut self.strayed,
        };
        *counter += 1;
    }

    /// How many outcomes there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        let sum = |counts: &BTreeMap<ErrorCode, u64>| counts.values().sum::<u64>();
        self.committed + self.strayed + sum(&self.reverted) + sum(&self.invalid)
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// Epochs replayed.
    pub epochs: u64,
    /// Transactions in them; one that strayed counts again each time it was ordered.
    pub transactions: u64,
    /// The digest of the state after the last epoch.
    pub state: Digest,
    /// The digest of all receipts.
    pub receipts: Digest,
    /// What became of the transactions.
    pub outcomes: OutcomeCounts,
}

impl Oracle {
    /// Executes every epoch of a log, in order. `progress` hears of each one when it is done.
    ///
    /// # Errors
    /// [`OracleError::Log`] if the log can't be read, and those of [`Oracle::apply`].
    pub fn replay(
        &mut self,
        log: LogReader,
        mut progress: impl FnMut(&ReplaySummary),
    ) -> Result<ReplaySummary, OracleError> {
        let mut summary = ReplaySummary::default();
        (summary.state, summary.receipts) = (self.state_digest(), self.receipts_digest());
        for epoch in log.epochs() {
            let (record, batches) = epoch?;
            for receipt in self.apply(&record, &batches)? {
                summary.outcomes.count(&receipt.outcome);
            }
            summary.epochs += 1;
            summary.transactions += record.transactions();
            (summary.state, summary.receipts) = (self.state_digest(), self.receipts_digest());
            progress(&summary);
        }
        Ok(summary)
    }
}
