//! What is printed at the end of a run.

use std::path::Path;

use parsec_bench::record::{CheckResult, Counts, MedianRange, Point, Repeat, Run};
use parsec_bench::report::{doubts, lines, thousands};
use serde_json::{Value, json};

use crate::failure::{Failure, failed};

/// What is told of each point: name, key in JSON, digits after the point, and where it stands.
type Row = (&'static str, &'static str, usize, fn(&Repeat) -> Option<f64>);

const ROWS: [Row; 11] = [
    ("committed per s", "tps", 0, |repeat| Some(repeat.tps)),
    ("latency mean, ms", "mean_ms", 2, |repeat| timed(repeat, repeat.latency.mean_ms)),
    ("latency p50, ms", "p50_ms", 2, |repeat| timed(repeat, repeat.latency.p50_ms)),
    ("latency p90, ms", "p90_ms", 2, |repeat| timed(repeat, repeat.latency.p90_ms)),
    ("latency p95, ms", "p95_ms", 2, |repeat| timed(repeat, repeat.latency.p95_ms)),
    ("latency p99, ms", "p99_ms", 2, |repeat| timed(repeat, repeat.latency.p99_ms)),
    ("latency p99.9, ms", "p999_ms", 2, |repeat| repeat.quantile(1_000, repeat.latency.p999_ms)),
    ("latency p99.99, ms", "p9999_ms", 2, |repeat| {
        repeat.quantile(10_000, repeat.latency.p9999_ms)
    }),
    ("latency max, ms", "max_ms", 2, |repeat| timed(repeat, repeat.latency.max_ms)),
    ("CPU per committed, us", "cpu_us", 1, Repeat::cpu_micros),
    ("unavoidable part of it, %", "unavoidable_percent", 1, Repeat::unavoidable_percent),
];

fn timed(repeat: &Repeat, value: f64) -> Option<f64> {
    (repeat.latency.count > 0).then_some(value)
}

/// Prints the summary of a run that was written to `directory`.
pub(crate) fn print(
    run: &Run,
    missed: &[String],
    directory: &Path,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let object = summary(run, missed, directory);
        return super::print(&(serde_json::to_string_pretty(&object).map_err(failed)? + "\n"));
    }
    let mut text = String::new();
    for point in &run.points {
        text.push_str(&describe(run, point));
    }
    for sentence in lines(run) {
        text.push_str(&format!("{sentence}\n"));
    }
    text.push_str(&format!("\nreport: {}\n", directory.join("report.html").display()));
    for objective in missed {
        text.push_str(&format!("MISSED {objective}\n"));
    }
    super::print(&text)
}

fn summary(run: &Run, missed: &[String], directory: &Path) -> Value {
    let points: Vec<Value> = run.points.iter().map(|point| point_json(run, point)).collect();
    json!({
        "schema": run.schema,
        "name": run.name,
        "workload": run.workload.name,
        "verified": run.verified(),
        "points": points,
        "lines": run.lines,
        "found_rate": run.search.as_ref().and_then(|search| search.found),
        "missed": missed,
        "directory": directory.display().to_string(),
    })
}

fn point_json(run: &Run, point: &Point) -> Value {
    let metrics: serde_json::Map<String, Value> = ROWS
        .iter()
        .filter_map(|(_, key, _, of)| Some(((*key).to_owned(), json!(spread(point, *of)?))))
        .collect();
    let steady: Vec<_> = point.repeats.iter().map(|repeat| repeat.steady.steady).collect();
    let mut reasons: Vec<&String> =
        point.repeats.iter().flat_map(|repeat| &repeat.generator.reasons).collect();
    reasons.dedup();
    json!({
        "hosts": point.hosts,
        "multi_partition": point.multi_partition,
        "verified": point.verification.verified,
        "metrics": metrics,
        "counts": total(point),
        "steady": steady,
        "doubts": doubts(run.load.pace, point).into_iter().map(|(number, doubt)| {
            format!("repeat {number}: {doubt}")
        }).collect::<Vec<_>>(),
        "generator_limited": point.repeats.iter().any(|repeat| repeat.generator.limited),
        "generator_notes": reasons,
        "checks": point.verification.checks,
    })
}

fn spread(point: &Point, of: fn(&Repeat) -> Option<f64>) -> Option<MedianRange> {
    point.spread(of)
}

/// The counts of all repeats.
fn total(point: &Point) -> Counts {
    let mut all = Counts::default();
    for repeat in &point.repeats {
        all.add(&repeat.counts);
    }
    all
}

fn describe(run: &Run, point: &Point) -> String {
    let mut text = format!("\n{}\n", run.workload.name);
    let verified = point.verification.verified;
    if !verified {
        text.push_str("UNVERIFIED: what follows is no result\n");
    }
    let mark = if verified { "" } else { "UNVERIFIED " };
    text.push_str(&format!("{:<35} {:>12} {:>12} {:>12}\n", "", "median", "least", "most"));
    for (name, _, digits, of) in ROWS {
        let Some(spread) = spread(point, of) else { continue };
        let show = |value: f64| match digits {
            0 => thousands(value),
            _ => format!("{value:.digits$}"),
        };
        text.push_str(&format!(
            "{:<35} {:>12} {:>12} {:>12}\n",
            format!("{mark}{name}"),
            show(spread.median),
            show(spread.min),
            show(spread.max)
        ));
    }
    text.push_str(&describe_counts(point));
    text.push_str(&describe_verdicts(run, point));
    text
}

fn describe_counts(point: &Point) -> String {
    let counts = total(point);
    let named = [
        ("offered", counts.offered),
        ("sent", counts.sent),
        ("accepted", counts.accepted),
        ("committed", counts.committed),
        ("reverted", counts.reverted),
        ("invalid", counts.invalid),
        ("rejected", counts.rejected),
        ("lost", counts.lost),
        ("unsent", counts.unsent),
        ("strayed", counts.strayed),
        ("retried", counts.retried),
        ("late", counts.late),
    ];
    let parts: Vec<_> = named.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let mut text = format!("\nof all repeats: {}\n", parts.join(", "));
    if let Some(failure) = point.repeats.iter().find_map(|repeat| repeat.first_failure.as_ref()) {
        text.push_str(&format!("the first one that did not commit: {failure}\n"));
    }
    text
}

fn describe_verdicts(run: &Run, point: &Point) -> String {
    let mut text = String::new();
    for (number, repeat) in (1..).zip(&point.repeats) {
        if repeat.steady.steady.is_none() {
            text.push_str(&format!(
                "repeat {number} was too short to tell whether the rate was steady\n"
            ));
        }
        if repeat.generator.limited {
            continue;
        }
        for reason in &repeat.generator.reasons {
            text.push_str(&format!("repeat {number}, load generator: {reason}\n"));
        }
    }
    for (number, doubt) in doubts(run.load.pace, point) {
        text.push_str(&format!("DOUBTFUL: repeat {number}: {doubt}\n"));
    }
    for check in &point.verification.checks {
        let result = match check.result {
            CheckResult::Passed => "ok",
            CheckResult::Failed => "WRONG",
            CheckResult::Skipped => "not checked",
        };
        text.push_str(&format!("{result}: {}\n", check.detail));
    }
    text
}
