//! Admission: decodes, authenticates and looks up each transaction of a submission, and finds a
//! footprint for those that have none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashSet;
use bytes::Bytes;
use parsec_protocol::message::{Verdict, short};
use parsec_protocol::{EpochNumber, ErrorCode, Malformed, RuntimeId, Transaction, TxId};
use parsec_runtimes::trial::Subject;
use parsec_runtimes::{Rejection, Runtimes};
use parsec_sequencer_core::{Candidate, Lookup, Refused, is_void};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::discovery::{Discovery, Footprints, Undiscovered, Vantage};
use crate::index::{IdIndex, IndexError};
use crate::limits::ADMISSIONS_MIN;
use crate::queries::Queries;
use crate::workers::Workers;

/// When to try again what was refused as busy.
const BUSY_RETRY_MS: u32 = 50;
/// When to try again what was refused because the state could not be read.
const UNAVAILABLE_RETRY_MS: u32 = 500;

/// A transaction that admission has nothing against, or what it has.
#[derive(Debug)]
pub(crate) enum Prepared {
    Ready(Box<Candidate>, Lookup),
    Refused(Verdict),
}

/// Admits transactions.
pub(crate) struct Admission {
    pub(crate) runtimes: Runtimes,
    pub(crate) workers: Workers,
    pub(crate) index: Arc<IdIndex>,
    pub(crate) queries: Queries,
    pub(crate) discovery: Discovery,
    pub(crate) applied_by_all: watch::Receiver<EpochNumber>,
    /// Trials see the state after this epoch at least: the genesis.
    pub(crate) least: EpochNumber,
}

/// What the first step of admission says of a transaction.
enum Step {
    Ready(Box<Candidate>, Lookup),
    NeedsFootprint(Box<Candidate>, Lookup),
    Refused(Verdict),
}

impl Admission {
    /// Admits the transactions of a submission one by one, in their order. Trials see the state
    /// after `told`, or a later one, and what the client's `earlier` submissions deploy.
    ///
    /// # Errors
    /// If the index of ids fails: then the sequencer must stop.
    pub(crate) async fn prepare(
        &self,
        transactions: Vec<Transaction>,
        told: EpochNumber,
        earlier: watch::Receiver<()>,
    ) -> Result<Vec<Prepared>, IndexError> {
        let started = Instant::now();
        let shared = (self.runtimes.clone(), self.index.clone());
        let step = |(runtimes, index): &(Runtimes, Arc<IdIndex>), transaction| {
            step(runtimes, index, transaction)
        };
        let (_, steps) = self.workers.map(shared, transactions, ADMISSIONS_MIN, step).await;
        let mut steps = steps.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.find_void(&mut steps).await;
        metrics::histogram!("parsec_sequencer_admission_seconds").record(started.elapsed());
        let snapshot = self.least.max(told).max(*self.applied_by_all.borrow());
        let vantage = Vantage { snapshot, earlier: Some(earlier) };
        Ok(self.find_footprints(steps, vantage).await)
    }

    /// Finds out which of the transactions that renew had no effect when they were ordered before.
    /// Of those whose receipts can't be read now it is not known; their receipts come back.
    async fn find_void(&self, steps: &mut [Step]) {
        // All at once: one host that answers late makes the batch late once.
        let mut asked = JoinSet::new();
        for (index, step) in steps.iter().enumerate() {
            let (Step::Ready(candidate, lookup) | Step::NeedsFootprint(candidate, lookup)) = step
            else {
                continue;
            };
            let Some(place) = lookup.found.filter(|_| candidate.renews) else { continue };
            let queries = self.queries.clone();
            asked.spawn(async move { (index, queries.receipt(place).await) });
        }
        while let Some(answered) = asked.join_next().await {
            let Ok((index, receipt)) = answered else { continue };
            let receipt = match receipt {
                Ok(receipt) => receipt,
                Err(error) => {
                    tracing::debug!(%error, "a receipt can't be fetched now");
                    continue;
                }
            };
            if let Step::Ready(_, lookup) | Step::NeedsFootprint(_, lookup) = &mut steps[index] {
                lookup.void = receipt.as_ref().is_some_and(is_void);
            }
        }
    }

    async fn find_footprints(&self, steps: Vec<Step>, vantage: Vantage) -> Vec<Prepared> {
        // Most submissions declare all, and deploy nothing that others may wait for.
        let found = match steps.iter().any(Step::is_to_try) {
            true => {
                let subjects = steps.iter().filter_map(Step::subject).collect();
                self.discovery.find(subjects, vantage).await
            }
            false => Vec::new(),
        };
        with_footprints(steps, found)
    }

    /// Asks the index again about a transaction whose lookup has become too old.
    pub(crate) async fn look_up(&self, ids: Vec<TxId>) -> Result<Vec<Lookup>, IndexError> {
        let index = self.index.clone();
        self.workers.run(move || ids.iter().map(|id| index.lookup(id)).collect()).await
    }
}

impl Step {
    /// Whether it has to be tried: to find its footprint, or to see what it deploys.
    fn is_to_try(&self) -> bool {
        match self {
            Self::NeedsFootprint(..) => true,
            Self::Ready(candidate, lookup) => {
                lookup.found.is_none() && candidate.footprint.may_deploy()
            }
            Self::Refused(_) => false,
        }
    }

    /// The transaction, for discovery: even one that needs none may change what others touch.
    fn subject(&self) -> Option<Subject> {
        let (candidate, known) = match self {
            Self::NeedsFootprint(candidate, _) => (candidate, None),
            Self::Ready(candidate, _) => (candidate, Some(candidate.footprint.clone())),
            Self::Refused(_) => return None,
        };
        Some(Subject {
            id: candidate.id,
            runtime: candidate.runtime,
            sender: candidate.sender.clone(),
            payload: candidate.payload.clone(),
            known,
            declares: false,
            erratic: false,
        })
    }
}

/// Puts together what came of each transaction; `found` is empty if none had to be found.
fn with_footprints(steps: Vec<Step>, found: Footprints) -> Vec<Prepared> {
    let mut found = found.into_iter();
    let mut held_back = HeldBack::default();
    let prepare = |step| match step {
        Step::Refused(verdict) => Prepared::Refused(verdict),
        Step::Ready(candidate, lookup) => {
            found.next();
            held_back.pass(candidate, lookup)
        }
        Step::NeedsFootprint(mut candidate, lookup) => match found.next() {
            Some(Ok(footprint)) => {
                candidate.footprint = footprint;
                held_back.pass(candidate, lookup)
            }
            Some(Err(Undiscovered::Refused(code, detail))) => {
                Prepared::Refused(rejected(code, detail))
            }
            Some(Err(Undiscovered::Unavailable(detail))) => held_back.refuse(&candidate, detail),
            None => held_back.refuse(&candidate, "it is stopping"),
        },
    };
    steps.into_iter().map(prepare).collect()
}

/// Senders of whom a transaction is not taken now, but may be another time: what they sent behind
/// it in the same submission must not overtake it.
#[derive(Default)]
struct HeldBack(AHashSet<(RuntimeId, Bytes)>);

impl HeldBack {
    /// A transaction that is ready, unless an earlier one of its sender has to come first.
    fn pass(&self, candidate: Box<Candidate>, lookup: Lookup) -> Prepared {
        // What was ordered before overtakes nothing any more.
        let is_new = lookup.found.is_none() || candidate.renews;
        let sender = (candidate.runtime, candidate.sender.clone());
        match is_new && self.0.contains(&sender) {
            true => {
                let detail = "an earlier transaction of its sender can't be taken now";
                Prepared::Refused(rejected(ErrorCode::Unavailable, detail))
            }
            false => Prepared::Ready(candidate, lookup),
        }
    }

    /// A transaction that can't be taken now.
    fn refuse(&mut self, candidate: &Candidate, detail: impl Into<String>) -> Prepared {
        // What has no sender, has no order either.
        if !candidate.sender.is_empty() {
            self.0.insert((candidate.runtime, candidate.sender.clone()));
        }
        Prepared::Refused(rejected(ErrorCode::Unavailable, detail))
    }
}

fn step(
    runtimes: &Runtimes,
    index: &IdIndex,
    transaction: Transaction,
) -> Result<Step, IndexError> {
    let (candidate, has_footprint) = match admit(runtimes, transaction) {
        Ok(admitted) => admitted,
        Err(Rejection { code, detail }) => return Ok(Step::Refused(rejected(code, detail))),
    };
    let lookup = index.lookup(&candidate.id)?;
    let is_known = lookup.found.is_some() && !candidate.renews;
    let candidate = Box::new(candidate);
    // One that was ordered before gets its receipt, and needs no footprint.
    Ok(match has_footprint || is_known {
        true => Step::Ready(candidate, lookup),
        false => Step::NeedsFootprint(candidate, lookup),
    })
}

/// Decodes and authenticates a transaction. Returns also whether its footprint is known.
fn admit(runtimes: &Runtimes, transaction: Transaction) -> Result<(Candidate, bool), Rejection> {
    transaction.check().map_err(|error| Rejection::new(code_of(&error), error.to_string()))?;
    if transaction.runtime == RuntimeId::SYSTEM {
        return Err(Rejection::new(ErrorCode::NotPermitted, "only a genesis may do that"));
    }
    let runtime = runtimes.get(transaction.runtime).ok_or_else(|| {
        let detail = format!("there is no runtime {}", transaction.runtime.0);
        Rejection::new(ErrorCode::UnknownRuntime, detail)
    })?;
    // What makes a runtime panic must not make the sequencer fall for everyone.
    let admitted = catch_unwind(AssertUnwindSafe(|| runtime.admit(&transaction)));
    let admitted = admitted.map_err(|_| {
        tracing::error!(runtime = transaction.runtime.0, "a runtime panicked at admission");
        Rejection::new(ErrorCode::Malformed, "its runtime failed on it")
    })??;
    let footprint = transaction.footprint.or(admitted.footprint);
    let has_footprint = footprint.is_some();
    if has_footprint {
        metrics::counter!("parsec_sequencer_footprints_total", "by" => "declaration").increment(1);
    }
    let candidate = Candidate {
        id: admitted.id,
        runtime: transaction.runtime,
        sender: admitted.sender,
        payload: transaction.payload,
        footprint: footprint.unwrap_or_default(),
        expires: transaction.expires,
        renews: transaction.renews,
    };
    Ok((candidate, has_footprint))
}

fn code_of(error: &Malformed) -> ErrorCode {
    match error {
        Malformed::PayloadLength { .. } => ErrorCode::TooLarge,
        Malformed::FootprintLength { .. }
        | Malformed::FootprintOrder
        | Malformed::KeyLength { .. }
        | Malformed::KeyAffinity => ErrorCode::BadFootprint,
        _ => ErrorCode::Malformed,
    }
}

/// A verdict that refuses a transaction, with a hint when to retry where that may help.
pub(crate) fn rejected(code: ErrorCode, detail: impl Into<String>) -> Verdict {
    metrics::counter!("parsec_sequencer_rejected_total", "code" => format!("{code:?}"))
        .increment(1);
    let retry_after_ms = match code {
        ErrorCode::Busy => Some(BUSY_RETRY_MS),
        ErrorCode::Unavailable => Some(UNAVAILABLE_RETRY_MS),
        _ => None,
    };
    Verdict::Rejected { code, detail: short(detail), retry_after_ms }
}

/// The verdict on a transaction that the lane refused.
pub(crate) fn refused(refused: Refused) -> Verdict {
    let code = match refused {
        Refused::Expired => ErrorCode::Expired,
        Refused::Busy | Refused::LookupTooOld => ErrorCode::Busy,
    };
    rejected(code, refused.to_string())
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Footprint;

    use super::*;

    const NEW: Lookup = Lookup { found: None, void: false, through: EpochNumber(0) };

    fn candidate(sender: &'static [u8], number: u8) -> Box<Candidate> {
        Box::new(Candidate {
            id: TxId([number; 32]),
            runtime: RuntimeId(1),
            sender: Bytes::from_static(sender),
            payload: Bytes::new(),
            footprint: Footprint::default(),
            expires: None,
            renews: false,
        })
    }

    fn taken(prepared: &[Prepared]) -> Vec<bool> {
        prepared.iter().map(|each| matches!(each, Prepared::Ready(..))).collect()
    }

    #[test]
    fn nobody_overtakes_an_own_transaction_that_could_not_be_tried() {
        let to_try = |sender, number| Step::NeedsFootprint(candidate(sender, number), NEW);
        let steps = vec![
            to_try(b"a", 0),
            to_try(b"b", 1),
            to_try(b"b", 2),
            Step::Ready(candidate(b"b", 3), NEW),
            Step::Ready(candidate(b"c", 4), NEW),
            to_try(b"", 5),
            to_try(b"", 6),
        ];
        let found = || Ok(Footprint::default());
        let missed = || Err(Undiscovered::Unavailable("a host is away".into()));
        let found = vec![found(), missed(), found(), found(), found(), missed(), found()];
        let prepared = with_footprints(steps, found);
        assert_eq!(taken(&prepared), [true, false, false, false, true, false, true]);
        for refused in prepared.iter().filter(|each| !matches!(each, Prepared::Ready(..))) {
            let Prepared::Refused(Verdict::Rejected { code, .. }) = refused else { panic!() };
            assert_eq!(*code, ErrorCode::Unavailable);
        }
    }

    #[test]
    fn what_will_never_be_taken_holds_up_nobody() {
        let steps = vec![
            Step::NeedsFootprint(candidate(b"a", 0), NEW),
            Step::Ready(candidate(b"a", 1), NEW),
        ];
        let too_large = Undiscovered::Refused(ErrorCode::TooLarge, "it reads too much".into());
        let prepared = with_footprints(steps, vec![Err(too_large), Ok(Footprint::default())]);
        assert_eq!(taken(&prepared), [false, true]);
    }
}
