//! Whether a run is right: the workload's invariants, and one thread over the recorded order.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use parsec_bench::record::{Check, CheckKind, CheckResult, Verification};
use parsec_oracle::Oracle;
use parsec_protocol::EpochNumber;
use parsec_protocol::message::{ClusterStatus, PartitionDigest};
use parsec_runtimes::Runtimes;
use parsec_storage::{Digest, LogReader};

use crate::failure::{Context, Failure, failed};

/// How a cluster was at a moment when nothing was in flight.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    ordered: EpochNumber,
    transactions: u64,
    state: Digest,
    receipts: Digest,
}

impl Rest {
    /// # Errors
    /// If partitions are missing, or are not at the same epoch.
    pub(super) fn new(status: &ClusterStatus) -> Result<Self, Failure> {
        let complete = status.partitions.len() == usize::from(status.partitions_total);
        let level = |partition: &PartitionDigest| partition.applied == status.ordered;
        if !complete || !status.partitions.iter().all(level) {
            return Err(failed("not every partition has applied all that is ordered"));
        }
        let sum = |digest: fn(&PartitionDigest) -> [u8; 32]| -> Digest {
            status.partitions.iter().map(|partition| Digest(digest(partition))).sum()
        };
        Ok(Self {
            ordered: status.ordered,
            transactions: status.transactions,
            state: sum(|partition| partition.state),
            receipts: sum(|partition| partition.receipts),
        })
    }
}

/// Replays a log on one thread up to the last of `rests` that has at most `most` transactions
/// before it (the first one, if none has), and compares digests there.
pub(super) async fn against_one_thread(
    log: PathBuf,
    chain_id: u64,
    rests: &[Rest],
    most: Option<u64>,
    bar: ProgressBar,
) -> Result<Check, Failure> {
    let within = |rest: &&Rest| most.is_none_or(|most| rest.transactions <= most);
    let chosen = rests.iter().rfind(within).or_else(|| rests.first());
    let rest = chosen.cloned().ok_or_else(|| failed("nothing was measured"))?;
    let all = rests.last().map_or(0, |last| last.transactions);
    bar.set_length(rest.transactions);
    let until = rest.ordered;
    let work = move || replay(&log, chain_id, until, &bar);
    let (state, receipts, replayed) =
        tokio::task::spawn_blocking(work).await.context("replay")??;
    let agrees = state == rest.state && receipts == rest.receipts;
    let says = |same: bool| if same { "agree" } else { "DIFFER" };
    Ok(Check {
        kind: CheckKind::Oracle,
        result: if agrees { CheckResult::Passed } else { CheckResult::Failed },
        detail: format!(
            "one thread executed {replayed} of {all} ordered transactions again, set-up included: \
             receipts {}, states {} (state digest {state})",
            says(receipts == rest.receipts),
            says(state == rest.state),
        ),
        transactions: Some(replayed),
    })
}

fn replay(
    log: &Path,
    chain_id: u64,
    until: EpochNumber,
    bar: &ProgressBar,
) -> Result<(Digest, Digest, u64), Failure> {
    let reader = LogReader::open(log).context("can't read the log")?;
    let mut oracle = Oracle::new(&Runtimes::standard(chain_id));
    let mut transactions = 0;
    for epoch in reader.epochs() {
        let (record, batches) = epoch.context("can't read the log")?;
        if record.number > until {
            break;
        }
        oracle.apply(&record, &batches).context("replay")?;
        transactions += record.transactions();
        bar.set_position(transactions);
    }
    bar.finish_and_clear();
    if oracle.applied() != until {
        return Err(failed(format!("the log ends before {until}")));
    }
    Ok((oracle.state_digest(), oracle.receipts_digest(), transactions))
}

/// That the log of a cluster is out of reach.
pub(super) fn without_log() -> Check {
    Check {
        kind: CheckKind::Oracle,
        result: CheckResult::Skipped,
        detail: "the log of a cluster that was there is out of reach: its order was not executed \
                 again on one thread. `parsec replay` where its sequencer runs does it"
            .to_owned(),
        transactions: None,
    }
}

/// That all partitions have applied the same epoch, with these digests.
pub(super) fn level(rest: &Rest) -> Check {
    Check {
        kind: CheckKind::Digests,
        result: CheckResult::Passed,
        detail: format!(
            "every partition answered and has applied {}; state digest {}, receipts digest {}",
            rest.ordered, rest.state, rest.receipts
        ),
        transactions: Some(rest.transactions),
    }
}

/// What all checks come to: nothing is wrong, and the invariants were checked. The serial replay
/// is needed, too, `needs_oracle` says.
pub(super) fn verdict(checks: Vec<Check>, needs_oracle: bool) -> Verification {
    let passed =
        |kind| checks.iter().any(|check| check.kind == kind && check.result == CheckResult::Passed);
    let wrong = checks.iter().any(|check| check.result == CheckResult::Failed);
    let oracle = passed(CheckKind::Oracle) || !needs_oracle;
    let verified = !wrong && passed(CheckKind::Audit) && oracle;
    Verification { verified, checks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: CheckKind, result: CheckResult) -> Check {
        Check { kind, result, detail: String::new(), transactions: None }
    }

    #[test]
    fn only_what_was_checked_and_is_right_is_verified() {
        use CheckKind::{Audit, Digests, Oracle};
        use CheckResult::{Failed, Passed, Skipped};
        let verified = |checks: &[(CheckKind, CheckResult)], needs_oracle| {
            let checks = checks.iter().map(|(kind, result)| check(*kind, *result)).collect();
            verdict(checks, needs_oracle).verified
        };
        assert!(verified(&[(Audit, Passed), (Oracle, Passed)], true));
        assert!(verified(&[(Audit, Passed), (Oracle, Skipped)], false));
        assert!(!verified(&[(Audit, Passed), (Oracle, Skipped)], true));
        assert!(!verified(&[(Audit, Passed), (Oracle, Failed)], true));
        assert!(!verified(&[(Audit, Skipped), (Oracle, Passed)], true));
        assert!(!verified(&[(Audit, Failed), (Oracle, Passed)], false));
        assert!(!verified(&[(Audit, Passed), (Oracle, Passed), (Digests, Failed)], true));
        assert!(!verified(&[], false));
    }

    #[test]
    fn partitions_that_are_missing_or_behind_are_no_rest() {
        let digest = |applied| PartitionDigest {
            partition: parsec_protocol::PartitionId(0),
            applied: EpochNumber(applied),
            state: [1; 32],
            receipts: [2; 32],
            executed: 1,
            multi_partition: 0,
        };
        let status = |partitions: Vec<PartitionDigest>| ClusterStatus {
            ordered: EpochNumber(7),
            transactions: 9,
            in_flight: 0,
            partitions,
            partitions_total: 2,
        };
        assert!(Rest::new(&status(vec![digest(7)])).is_err());
        assert!(Rest::new(&status(vec![digest(7), digest(6)])).is_err());
        let rest = Rest::new(&status(vec![digest(7), digest(7)])).unwrap();
        assert_eq!(rest.state, [Digest([1; 32]); 2].into_iter().sum::<Digest>());
    }
}
