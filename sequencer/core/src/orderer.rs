//! A lane and a ledger, wired together.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, ErrorCode, Footprint, LaneId, Receipt, TxId,
};

use crate::{
    Accepted, Candidate, HomeChooser, Lane, LaneOptions, Ledger, LedgerOutput, Lookup, Output,
    Refused, Tick, Token,
};

/// A transaction for the lane, with what the index says of its id, and whom to answer.
pub type Offer = (Candidate, Lookup, Option<Token>);

/// What became of transactions that were [submitted](Orderer::submit_in_order) in their order.
#[derive(Debug)]
pub struct Submitted {
    /// What was said of each of the first ones.
    pub verdicts: Vec<Result<Accepted, Refused>>,
    /// Those after them, of which nothing was said, because the index was asked about the first of
    /// them [too long ago](Refused::LookupTooOld).
    pub again: Vec<Offer>,
}

/// A lane whose batches a ledger orders.
///
/// After any number of inputs, call [`Orderer::advance`] once, then [`Orderer::poll_output`] until
/// it says `None`.
#[derive(Debug)]
pub struct Orderer<L> {
    lane: Lane,
    ledger: L,
    outputs: VecDeque<Output>,
}

impl<L: Ledger> Orderer<L> {
    /// An orderer over `ledger`, which has to stand at the end of the log. See [`Lane::new`] for
    /// what `settled` and `indexed` mean; what the log holds after the lesser of them has to be
    /// restored before any other input.
    #[must_use]
    pub fn new(
        lane: LaneId,
        options: LaneOptions,
        homes: HomeChooser,
        ledger: L,
        settled: EpochNumber,
        indexed: EpochNumber,
    ) -> Self {
        let lane = Lane::new(lane, options, homes, settled, indexed);
        Self { lane, ledger, outputs: VecDeque::new() }
    }

    /// Continues the lane's numbering after its batch `sequence`.
    pub fn restore_sequence(&mut self, sequence: u64) {
        self.lane.restore_sequence(sequence);
    }

    /// Takes over the next epoch of the log. See [`Lane::restore_epoch`].
    pub fn restore_epoch(&mut self, record: &EpochRecord, batches: Vec<Arc<Batch>>) {
        self.lane.restore_epoch(record, batches);
    }

    /// Takes over a batch at the end of the log that no epoch orders. See [`Lane::restore_batch`].
    pub fn restore_batch(&mut self, batch: Arc<Batch>) {
        let reference = self.lane.restore_batch(batch);
        self.ledger.offer(reference);
    }

    /// Takes a transaction, or refuses it.
    ///
    /// # Errors
    /// See [`Lane::submit`].
    pub fn submit(
        &mut self,
        candidate: Candidate,
        lookup: Lookup,
        token: Option<Token>,
    ) -> Result<Accepted, Refused> {
        self.lane.submit(candidate, lookup, token)
    }

    /// Takes transactions in their order. When one of them is not taken now, but may be another
    /// time, those after it are not taken either: they may be the same sender's, and must not
    /// overtake it.
    pub fn submit_in_order(&mut self, unit: impl IntoIterator<Item = Offer>) -> Submitted {
        let mut unit = unit.into_iter();
        let mut verdicts = Vec::with_capacity(unit.size_hint().0);
        let mut is_busy = false;
        while let Some((candidate, lookup, token)) = unit.next() {
            if !is_busy && self.lane.is_too_old(&candidate.id, &lookup) {
                let this = (candidate, lookup, token);
                return Submitted { verdicts, again: std::iter::once(this).chain(unit).collect() };
            }
            let verdict = match is_busy {
                true => Err(Refused::Busy),
                false => self.lane.submit(candidate, lookup, token),
            };
            is_busy |= verdict == Err(Refused::Busy);
            verdicts.push(verdict);
        }
        Submitted { verdicts, again: Vec::new() }
    }

    /// A receipt came from an executor. See [`Lane::on_receipt`].
    pub fn on_receipt(&mut self, receipt: Arc<Receipt>) {
        self.lane.on_receipt(receipt);
    }

    /// A [`Rediscovery`](crate::Rediscovery) is done. See [`Lane::on_discovered`].
    pub fn on_discovered(&mut self, id: TxId, attempt: u8, result: Result<Footprint, ErrorCode>) {
        self.lane.on_discovered(id, attempt, result);
    }

    /// What was to be summarized is. See [`Lane::on_summary`].
    pub fn on_summary(&mut self, through: EpochNumber, write: Candidate) {
        self.lane.on_summary(through, write);
    }

    /// Every partition has applied every epoch through `through`.
    pub fn on_applied(&mut self, through: EpochNumber) {
        self.lane.on_applied(through);
    }

    /// The index holds every id through `through`. It may be told late, so that lookups that were
    /// made a moment ago stay good.
    pub fn on_indexed(&mut self, through: EpochNumber) {
        self.lane.on_indexed(through);
    }

    /// The log is durable through the record of `through`.
    pub fn on_durable(&mut self, through: EpochNumber) {
        self.ledger.on_durable(through);
    }

    /// Closes and orders what may be closed and ordered now.
    pub fn advance(&mut self, now: Tick) {
        loop {
            for reference in self.lane.close(now, self.ledger.is_free()) {
                self.ledger.offer(reference);
            }
            // ORDER: the batch that an epoch orders goes to the log before the epoch.
            while let Some(output) = self.lane.poll_output() {
                self.outputs.push_back(output);
            }
            match self.ledger.poll_output(now) {
                Some(LedgerOutput::Committed(record)) => self.lane.on_committed(record),
                Some(LedgerOutput::Append(record)) => {
                    self.outputs.push_back(Output::AppendEpoch(record));
                    self.outputs.push_back(Output::Sync);
                }
                None => return,
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Orderer::advance`] should be called again, if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Tick> {
        self.lane.next_timeout()
    }

    /// The lane, to look at.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }
}
