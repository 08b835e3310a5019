//! What was measured so far, by number of hosts and share of multi-partition transactions.

use std::collections::BTreeMap;

use parsec_bench::record::{Check, Point, Verification, WorkloadRecord};

use super::super::session::Outcome;
use super::visits::Visit;

/// All points.
#[derive(Debug, Default)]
pub(super) struct Points {
    points: BTreeMap<(Option<u8>, u16), Point>,
    /// What was sent at the last one.
    pub(super) workload: WorkloadRecord,
}

impl Points {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Adds what came of a visit. A point is verified if all of its repeats are.
    pub(super) fn add(&mut self, visit: &Visit, workload: WorkloadRecord, outcome: Outcome) {
        self.workload = workload;
        let Outcome { repeats, verification, .. } = outcome;
        let point = self.points.entry((visit.share, visit.hosts)).or_insert_with(|| Point {
            hosts: visit.hosts,
            multi_partition: visit.share.map(|percent| f64::from(percent) / 100.0),
            repeats: Vec::new(),
            verification: Verification { verified: true, checks: Vec::new() },
        });
        point.repeats.extend(repeats);
        point.verification.verified &= verification.verified;
        let told = |check: Check| {
            let detail = format!("repeat {}: {}", visit.repeat + 1, check.detail);
            Check { detail, ..check }
        };
        point.verification.checks.extend(verification.checks.into_iter().map(told));
    }

    /// All of them, by share and then by hosts.
    pub(super) fn into_points(self) -> Vec<Point> {
        self.points.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use parsec_bench::record::{CheckKind, CheckResult, Pace};

    use super::*;

    #[test]
    fn a_point_is_verified_if_all_of_its_repeats_are() {
        let mut points = Points::default();
        let mut add = |repeat, hosts, verified| {
            let check = Check {
                kind: CheckKind::Oracle,
                result: if verified { CheckResult::Passed } else { CheckResult::Failed },
                detail: "compared".to_owned(),
                transactions: None,
            };
            let verification = Verification { verified, checks: vec![check] };
            let outcome =
                Outcome { pace: Pace::Closed, repeats: Vec::new(), search: None, verification };
            let visit = Visit { repeat, hosts, share: Some(10) };
            points.add(&visit, WorkloadRecord::default(), outcome);
        };
        add(0, 2, true);
        add(0, 1, true);
        add(1, 1, false);
        add(1, 2, true);
        add(2, 1, true);
        let points = points.into_points();
        let verified: Vec<_> =
            points.iter().map(|point| (point.hosts, point.verification.verified)).collect();
        assert_eq!(verified, [(1, false), (2, true)]);
        assert_eq!(points[0].multi_partition, Some(0.1));
        assert_eq!(points[0].verification.checks[2].detail, "repeat 3: compared");
    }
}
