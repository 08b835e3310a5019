//! The proof: the recorded order, replayed on one thread, must lead to the same receipts and the
//! same state.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use parsec_oracle::{Oracle, ReplaySummary};
use parsec_protocol::TxId;
use parsec_protocol::message::ClusterStatus;
use parsec_runtimes::Runtimes;
use parsec_storage::{Digest, LogReader};

use super::acknowledged::Journal;
use crate::cluster::ClusterOptions;
use crate::failure::{Context, Failure};

/// What the comparison found.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What one thread came to.
    pub(super) replay: ReplaySummary,
    /// How long that took.
    pub(super) took: Duration,
    /// The sum of the partitions' state digests.
    pub(super) state: Digest,
    /// The sum of the partitions' receipt digests.
    pub(super) receipts: Digest,
    /// Whether every partition could be asked.
    pub(super) complete: bool,
    /// Transactions that were acknowledged in earlier runs and are not in the log.
    pub(super) missing: Vec<TxId>,
}

impl Verdict {
    /// Whether the receipts agree.
    pub(super) fn receipts_agree(&self) -> bool {
        self.complete && self.receipts == self.replay.receipts
    }

    /// Whether the states agree.
    pub(super) fn states_agree(&self) -> bool {
        self.complete && self.state == self.replay.state
    }

    /// Whether everything agrees.
    pub(super) fn is_good(&self) -> bool {
        self.receipts_agree() && self.states_agree() && self.missing.is_empty()
    }
}

/// Replays the cluster's log on one thread and compares.
pub(super) async fn against_one_thread(
    options: &ClusterOptions,
    status: &ClusterStatus,
    journal: Journal,
    bar: ProgressBar,
) -> Result<Verdict, Failure> {
    let (log, runtimes) = (options.log(), options.runtimes.clone());
    let ordered = status.transactions;
    let work = move || replay(&log, &runtimes, &journal, ordered, &bar);
    let (replay, took, missing) = tokio::task::spawn_blocking(work).await.context("replay")??;
    let (mut state, mut receipts) = (Digest::ZERO, Digest::ZERO);
    for partition in &status.partitions {
        state.add(Digest(partition.state));
        receipts.add(Digest(partition.receipts));
    }
    let complete = status.partitions.len() == usize::from(status.partitions_total);
    Ok(Verdict { replay, took, state, receipts, complete, missing })
}

fn replay(
    log: &std::path::Path,
    runtimes: &Runtimes,
    journal: &Journal,
    ordered: u64,
    bar: &ProgressBar,
) -> Result<(ReplaySummary, Duration, Vec<TxId>), Failure> {
    let started = Instant::now();
    bar.set_length(ordered);
    let reader = LogReader::open(log).context("can't read the log")?;
    let summary = Oracle::new(runtimes)
        .replay(reader, |summary| bar.set_position(summary.transactions))
        .context("replay")?;
    let took = started.elapsed();
    bar.finish_and_clear();
    Ok((summary, took, missing(log, journal)?))
}

/// The transactions that were acknowledged in earlier runs and are not in the log.
fn missing(log: &std::path::Path, journal: &Journal) -> Result<Vec<TxId>, Failure> {
    let mut sought: BTreeSet<TxId> = journal.earlier_ids().collect();
    let mut present = BTreeSet::new();
    if sought.is_empty() {
        return Ok(Vec::new());
    }
    for epoch in LogReader::open(log).context("can't read the log")?.epochs() {
        let (_, batches) = epoch.context("can't read the log")?;
        for entry in batches.iter().flat_map(|batch| &batch.entries) {
            if sought.remove(&entry.id) {
                present.insert(entry.id);
            }
        }
    }
    Ok(journal.missing(&present))
}
