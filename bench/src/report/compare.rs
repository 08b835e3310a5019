//! Two runs side by side, and which of their differences are beyond the noise.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::text::thousands;
use crate::draw::Draws;
use crate::record::{MedianRange, Point, Repeat, Run};

/// Repeats that each run needs before anything can be told.
const REPEATS_MIN: usize = 3;
/// Random samples of the repeats.
const RESAMPLES: usize = 2_000;
/// How many of a thousand resampled differences are left out at either end.
const TAIL: f64 = 0.025;

/// Two runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether what was run is the same, so that a difference says something of what ran it.
    pub comparable: bool,
    /// What was run that differs: why they can't be compared.
    pub differences: Vec<String>,
    /// What else is to be known.
    pub warnings: Vec<String>,
    /// Each pair of points with the same hosts and share.
    pub points: Vec<PointComparison>,
}

/// One point of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointComparison {
    /// Which one, for people.
    pub title: String,
    /// Each metric that both have.
    pub rows: Vec<Row>,
}

/// One metric of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it is, with its unit.
    pub name: &'static str,
    /// Of the first run.
    pub before: MedianRange,
    /// Of the second run.
    pub after: MedianRange,
    /// By how much the second median differs from the first, relative to it.
    pub change: f64,
    /// The noise floor: the larger of both runs' ranges, relative to their medians.
    pub noise: f64,
    /// The middle 95 % of resampled changes.
    pub interval: (f64, f64),
    /// What it means.
    pub verdict: Verdict,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is beyond the noise, and to the better.
    Better,
    /// It is beyond the noise, and to the worse.
    Worse,
    /// It is not beyond the noise.
    Noise,
    /// There are too few repeats to tell.
    Unknown,
}

/// A metric: its name, whether more is better, and where it stands.
type Metric = (&'static str, bool, fn(&Repeat) -> Option<f64>);

const METRICS: [Metric; 6] = [
    ("committed per s", true, |repeat| Some(repeat.tps)),
    ("latency p50, ms", false, |repeat| timed(repeat, repeat.latency.p50_ms)),
    ("latency p99, ms", false, |repeat| timed(repeat, repeat.latency.p99_ms)),
    ("latency p99.9, ms", false, |repeat| repeat.quantile(1_000, repeat.latency.p999_ms)),
    ("latency max, ms", false, |repeat| timed(repeat, repeat.latency.max_ms)),
    ("CPU per committed, us", false, Repeat::cpu_micros),
];

fn timed(repeat: &Repeat, value: f64) -> Option<f64> {
    (repeat.latency.count > 0).then_some(value)
}

impl Comparison {
    /// How it is told whether a difference is beyond the noise, for people.
    pub const METHOD: &'static str = "A difference is beyond the noise if it is larger than the \
        noise floor (the larger of both runs' ranges over their repeats, relative to their \
        medians), the ranges don't overlap, and the middle 95 % of 2,000 bootstrapped differences \
        of medians lie on one side of zero. The repeats of one run can't show how the machine drifts \
        from run to run: repeat both, in turns, before you believe a small difference.";

    /// Compares a run with an earlier one.
    #[must_use]
    pub fn new(before: &Run, after: &Run) -> Self {
        let mut differences = differences(before, after);
        let mut points = Vec::new();
        for point in &before.points {
            match after.points.iter().find(|other| pairs(point, other)) {
                Some(other) => points.push(compare_points(point, other)),
                None => differences.push(format!("only the first run has {}", title(point))),
            }
        }
        let known = |point: &&Point| before.points.iter().any(|other| pairs(point, other));
        let more = after.points.iter().filter(|point| !known(point));
        differences.extend(more.map(|point| format!("only the second run has {}", title(point))));
        let warnings = warnings(before, after);
        Self { comparable: differences.is_empty(), differences, warnings, points }
    }
}

fn pairs(one: &Point, other: &Point) -> bool {
    one.hosts == other.hosts && one.multi_partition == other.multi_partition
}

fn title(point: &Point) -> String {
    match (point.hosts, point.multi_partition) {
        (0, _) => "the cluster that was there".to_owned(),
        (hosts, None) => format!("{hosts} hosts"),
        (hosts, Some(share)) => format!("{hosts} hosts, {:.0} % multi-partition", share * 100.0),
    }
}

/// Settings that may differ: each repeat has another seed of its distances, more repeats only tell
/// more, and other kernels are warned of.
const FREE: [&str; 4] = ["load.pace.seed", "load.repeats", "machine.kernel", "cluster.notes"];

/// What was run that differs, setting by setting.
fn differences(before: &Run, after: &Run) -> Vec<String> {
    let (one, other) = (settings(before), settings(after));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    let differ = |name: &&String| one.get(*name) != other.get(*name);
    let names = names.into_iter().filter(|name| !FREE.contains(&name.as_str())).filter(differ);
    names
        .map(|name| format!("{name}: {} and {}", show(one.get(name)), show(other.get(name))))
        .collect()
}

/// What was run, on what: each setting by its name in `run.json`, if it is set.
fn settings(run: &Run) -> BTreeMap<String, String> {
    let value = json!({
        "kind": run.kind,
        "objective": run.search.as_ref().map(|search| &search.objective),
        "workload": run.workload.spec,
        "load": run.load,
        "cluster": run.cluster,
        "machine": run.machine,
        "profile": run.versions.profile,
    });
    let mut found = BTreeMap::new();
    flatten(String::new(), &value, &mut found);
    if run.search.is_some() {
        // It is what was found, not what was set.
        found.remove("load.pace.rate");
    }
    found
}

fn flatten(name: String, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(format!("{name}{dot}{field}"), value, found);
            }
        }
        Value::String(text) => drop(found.insert(name, text.clone())),
        value => drop(found.insert(name, value.to_string())),
    }
}

/// What is to be known, though it does not hinder.
fn warnings(before: &Run, after: &Run) -> Vec<String> {
    let mut found = Vec::new();
    for (which, run) in [("first", before), ("second", after)] {
        if !run.verified() {
            found.push(format!("the {which} run is UNVERIFIED: its numbers are no result"));
        }
        let repeats = || run.points.iter().flat_map(|point| &point.repeats);
        if repeats().any(|repeat| repeat.steady.steady == Some(false)) {
            found.push(format!("a repeat of the {which} run was not steady"));
        }
        if repeats().any(|repeat| repeat.generator.limited) {
            found.push(format!("the load generator was the limit in the {which} run"));
        }
    }
    let version = |run: &Run| {
        let commit = run.versions.commit.as_deref().unwrap_or("unknown commit");
        let modified = if run.versions.modified == Some(true) { ", modified" } else { "" };
        format!("{} ({commit}{modified})", run.versions.parsec)
    };
    if version(before) != version(after) {
        found.push(format!("versions: {} and {}", version(before), version(after)));
    }
    let rate = |run: &Run| run.search.as_ref().and_then(|search| search.found);
    if let (Some(one), Some(other)) = (rate(before), rate(after))
        && one.total_cmp(&other).is_ne()
    {
        found.push(format!(
            "rates found: {} and {} per s; latencies and processor time are at these",
            thousands(one),
            thousands(other)
        ));
    }
    if before.machine.kernel != after.machine.kernel {
        found.push(format!("kernels: {} and {}", before.machine.kernel, after.machine.kernel));
    }
    found
}

fn compare_points(before: &Point, after: &Point) -> PointComparison {
    let rows = METRICS.iter().filter_map(|metric| compare_metric(metric, before, after));
    PointComparison { title: title(before), rows: rows.collect() }
}

fn compare_metric(metric: &Metric, before: &Point, after: &Point) -> Option<Row> {
    let (name, more_is_better, of) = *metric;
    let values = |point: &Point| point.repeats.iter().filter_map(of).collect::<Vec<f64>>();
    let (first, second) = (values(before), values(after));
    let (before, after) = (MedianRange::of(first.clone())?, MedianRange::of(second.clone())?);
    let change = relative(before.median, after.median);
    let spread = |range: &MedianRange| relative(range.median, range.median + range.max - range.min);
    let noise = spread(&before).max(spread(&after));
    let interval = bootstrap(&first, &second);
    let apart = before.max < after.min || after.max < before.min;
    let beyond = change.abs() > noise && apart && (interval.0 > 0.0 || interval.1 < 0.0);
    let verdict = match beyond {
        _ if first.len().min(second.len()) < REPEATS_MIN => Verdict::Unknown,
        false => Verdict::Noise,
        true if (change > 0.0) == more_is_better => Verdict::Better,
        true => Verdict::Worse,
    };
    Some(Row { name, before, after, change, noise, interval, verdict })
}

/// By how much `other` differs from `one`, relative to it.
fn relative(one: f64, other: f64) -> f64 {
    if one == 0.0 { 0.0 } else { (other - one) / one.abs() }
}

/// The middle 95 % of the changes between medians of repeats drawn at random, with repetition.
fn bootstrap(first: &[f64], second: &[f64]) -> (f64, f64) {
    let mut draws = Draws::new(1, "bootstrap");
    let mut median = |values: &[f64]| {
        let bound = u64::try_from(values.len()).unwrap_or(u64::MAX);
        let mut drawn = || {
            let index = usize::try_from(draws.below(bound)).unwrap_or(0);
            values.get(index).copied().unwrap_or_default()
        };
        let sample: Vec<f64> = values.iter().map(|_| drawn()).collect();
        MedianRange::of(sample).map_or(0.0, |range| range.median)
    };
    let mut changes: Vec<f64> =
        (0..RESAMPLES).map(|_| relative(median(first), median(second))).collect();
    changes.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 2,000"
        )]
        let index = (share * RESAMPLES as f64) as usize;
        changes[index.min(RESAMPLES - 1)]
    };
    (at(TAIL), at(1.0 - TAIL))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::example;
    use crate::record::{Pace, Pacing, Search};

    fn tps_row(before: &[f64], after: &[f64]) -> Row {
        let comparison = Comparison::new(&example(before, &[1_000]), &example(after, &[1_000]));
        assert!(comparison.comparable, "{:?}", comparison.differences);
        comparison.points[0].rows[0].clone()
    }

    #[test]
    fn a_difference_counts_only_beyond_the_noise() {
        let verdict = |before, after| tps_row(before, after).verdict;
        assert_eq!(verdict(&[100.0, 101.0, 102.0], &[120.0, 121.0, 122.0]), Verdict::Better);
        assert_eq!(verdict(&[120.0, 121.0, 122.0], &[100.0, 101.0, 102.0]), Verdict::Worse);
        assert_eq!(verdict(&[100.0, 101.0, 102.0], &[101.0, 102.0, 103.0]), Verdict::Noise);
        // Apart, but by less than each of them is wide.
        assert_eq!(verdict(&[80.0, 90.0, 100.0], &[101.0, 102.0, 103.0]), Verdict::Noise);
        assert_eq!(verdict(&[100.0, 101.0], &[200.0, 201.0]), Verdict::Unknown);
        let row = tps_row(&[100.0, 100.0, 100.0], &[150.0, 150.0, 150.0]);
        assert_eq!((row.change, row.noise, row.interval), (0.5, 0.0, (0.5, 0.5)));
    }

    #[test]
    fn less_latency_is_better() {
        let (before, after) = (example(&[1.0; 3], &[9_000]), example(&[1.0; 3], &[4_000]));
        let comparison = Comparison::new(&before, &after);
        let p50 = &comparison.points[0].rows[1];
        assert_eq!((p50.name, p50.verdict), ("latency p50, ms", Verdict::Better));
    }

    #[test]
    fn runs_of_different_things_are_not_comparable() {
        let before = example(&[1.0; 3], &[1]);
        let changed = |change: fn(&mut Run)| {
            let mut after = before.clone();
            change(&mut after);
            Comparison::new(&before, &after)
        };
        assert!(
            changed(|run| run.workload.spec["seed"] = 8.into()).differences[0].contains("seed")
        );
        assert_eq!(
            changed(|run| run.load.in_flight = 1).differences,
            ["load.in_flight: 2000 and 1"]
        );
        assert_eq!(
            changed(|run| run.cluster.delay_ms = Some(2.0)).differences,
            ["cluster.delay_ms: not set and 2.0"]
        );
        assert!(changed(|run| run.load.repeats = 9).comparable);
        assert!(!changed(|run| run.load.pace = Pace::Closed).comparable);
        assert!(!changed(|run| run.cluster.quota = None).comparable);
        assert!(!changed(|run| run.machine.cores = 64).comparable);
        assert!(!changed(|run| run.versions.profile = "dev".into()).comparable);
        assert!(!changed(|run| run.points[0].hosts = 3).comparable);
        let other = changed(|run| run.versions.commit = Some("abc".into()));
        assert!(other.comparable && other.warnings[0].contains("abc"));
        let unverified = changed(|run| run.points[0].verification.verified = false);
        assert!(unverified.warnings[0].contains("UNVERIFIED"));
    }

    #[test]
    fn rates_that_were_found_may_differ() {
        let found = |rate: f64| {
            let mut run = example(&[rate; 3], &[1]);
            run.load.pace = Pace::Open { rate, pacing: Pacing::Poisson, seed: 1 };
            run.search =
                Some(Search { objective: "p99<9ms".into(), probes: Vec::new(), found: Some(rate) });
            run
        };
        let comparison = Comparison::new(&found(1_000.0), &found(2_000.0));
        assert!(comparison.comparable, "{:?}", comparison.differences);
        assert!(comparison.warnings[0].contains("1,000 and 2,000"));
        let mut other = found(1_000.0);
        other.search.as_mut().unwrap().objective = "p99<8ms".into();
        assert!(!Comparison::new(&found(1_000.0), &other).comparable);
    }

    proptest! {
        #[test]
        fn a_run_is_like_itself(tps in prop::collection::vec(1.0..1e6f64, 3..8)) {
            let row = tps_row(&tps, &tps);
            prop_assert_eq!((row.change, row.verdict), (0.0, Verdict::Noise));
            prop_assert!(row.interval.0 <= 0.0 && row.interval.1 >= 0.0);
        }
    }
}
