//! The charts of one point: over time, and the distribution of latencies.

use std::collections::{BTreeMap, BTreeSet};

use super::svg::{Axis, Chart, Mark, Series, colour};
use super::text::{short, thousands};
use crate::record::{MedianRange, Pace, Phase, Point, Role, Run, Sample, Search};

/// Dots on one line that can still be told apart.
const DOTS_MAX: usize = 120;

/// Transactions a second, over time, one line for each repeat.
pub(super) fn throughput(run: &Run, point: &Point) -> Option<String> {
    let samples = || point.repeats.iter().flat_map(|repeat| &repeat.samples);
    let (from, to) = span(point)?;
    let rate = |count: u64, sample: &Sample| count as f64 / sample.seconds.max(1e-9);
    let (_, highest) = range(samples().map(|sample| rate(sample.committed, sample)))?;
    let mut series = Vec::new();
    let mut most = highest;
    if let Pace::Open { rate, .. } = run.load.pace {
        most = most.max(rate);
        let line = vec![(from, rate), (to, rate)];
        series.push(Series::new("offered on average", "ideal", vec![Mark::Dashed(line)]));
    }
    for (index, repeat) in point.repeats.iter().enumerate() {
        let at = |sample: &Sample| (middle(sample), rate(sample.committed, sample));
        let line = repeat.samples.iter().filter(whole).map(at).collect();
        let dots = repeat.samples.iter().filter(whole).map(|sample| {
            let (x, y) = at(sample);
            let title = format!(
                "repeat {}, second {}: {} committed, {} failed, {} in flight",
                index + 1,
                short(sample.end),
                thousands(sample.committed as f64),
                thousands(sample.failed as f64),
                thousands(sample.in_flight as f64)
            );
            (x, y, title)
        });
        let marks = vec![Mark::Line(line), self::dots(dots.collect())];
        series.push(Series::new(format!("repeat {}", index + 1), colour(index), marks));
    }
    let x = Axis::exact("seconds since measuring began", from, to);
    let y = Axis::linear("transactions committed per second", 0.0, most);
    let mut chart = Chart::new("throughput over time", x, y, series);
    chart.shades = shades(run, from, to);
    Some(chart.render())
}

/// Memory over time, by process, in the last repeat. Without the load generator, which may hold many
/// times as much.
pub(super) fn memory(run: &Run, point: &Point) -> Option<String> {
    let resources = &point.repeats.last()?.resources;
    let generators = resources.cpu.iter().filter(|used| used.role == Role::Client);
    let generators: BTreeSet<&str> = generators.map(|used| used.host.as_str()).collect();
    let samples = resources.memory_samples.iter();
    let samples: Vec<_> =
        samples.filter(|sample| !generators.contains(sample.host.as_str())).collect();
    let mebibytes = |bytes: u64| bytes as f64 / 1_048_576.0;
    let mut hosts: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &samples {
        hosts.entry(&sample.host).or_default().push((sample.end, mebibytes(sample.bytes)));
    }
    let (from, to) = span(point)?;
    let (_, most) = range(samples.iter().map(|sample| mebibytes(sample.bytes)))?;
    let series = hosts.into_iter().enumerate().map(|(index, (host, line))| {
        let title = |x: f64, y: f64| format!("{host}, second {}: {} MiB", short(x), short(y));
        let dots = dots(line.iter().map(|(x, y)| (*x, *y, title(*x, *y))).collect());
        Series::new(host, colour(index), vec![Mark::Line(line), dots])
    });
    let x = Axis::exact("seconds since measuring began", from, to);
    let y = Axis::linear("mebibytes resident", 0.0, most);
    let mut chart = Chart::new("memory over time", x, y, series.collect());
    chart.shades = shades(run, from, to);
    Some(chart.render())
}

/// Dots to point at; none where there are so many that they would hide the line.
fn dots(dots: Vec<(f64, f64, String)>) -> Mark {
    Mark::Dots(if dots.len() > DOTS_MAX { Vec::new() } else { dots })
}

/// Latency over time: the median of all repeats in each second, and their range.
pub(super) fn latency(run: &Run, point: &Point) -> Option<String> {
    type Curve = (&'static str, fn(&Sample) -> Option<f64>);
    let curves: [Curve; 3] = [
        ("half took at most this long (p50)", |sample| sample.p50_ms),
        ("99 of 100 took at most this long (p99)", |sample| sample.p99_ms),
        ("the slowest", |sample| sample.max_ms),
    ];
    let mut series = Vec::new();
    let mut values = Vec::new();
    for (index, (name, of)) in curves.into_iter().enumerate() {
        let points = by_second(point, of);
        values.extend(points.iter().flat_map(|(_, spread)| [spread.min, spread.max]));
        let band = points.iter().map(|(x, spread)| (*x, spread.min, spread.max)).collect();
        let line = points.iter().map(|(x, spread)| (*x, spread.median)).collect();
        let dots = points.iter().map(|(x, spread)| {
            let (median, min, max) = (short(spread.median), short(spread.min), short(spread.max));
            (*x, spread.median, format!("second {}: {median} ms ({min} to {max})", short(x + 0.5)))
        });
        let marks = vec![Mark::Line(line), Mark::Band(band), self::dots(dots.collect())];
        series.push(Series::new(name, colour(index), marks));
    }
    let ((from, to), (low, high)) = (span(point)?, range(values)?);
    let x = Axis::exact("seconds since measuring began", from, to);
    let y = Axis::log("milliseconds (logarithmic)", low, high);
    let mut chart = Chart::new("latency over time", x, y, series);
    chart.shades = shades(run, from, to);
    Some(chart.render())
}

/// The percentile plot: how long the slowest of so many took.
pub(super) fn distribution(point: &Point) -> Option<String> {
    const MARKS: [(f64, &str); 6] = [
        (2.0, "1 in 2 (median)"),
        (10.0, "1 in 10 (p90)"),
        (100.0, "1 in 100 (p99)"),
        (1_000.0, "1 in 1,000 (p99.9)"),
        (10_000.0, "1 in 10,000 (p99.99)"),
        (100_000.0, "1 in 100,000"),
    ];
    let mut series = Vec::new();
    let mut values = Vec::new();
    let mut rarest = 10.0_f64;
    for (index, repeat) in point.repeats.iter().enumerate() {
        let Ok(Some(histogram)) = repeat.latency.histogram.read() else { continue };
        if histogram.is_empty() {
            continue;
        }
        let count = histogram.len() as f64;
        let mut line = Vec::new();
        let mut rarity = 2.0_f64;
        while rarity <= count.min(100_000.0) {
            let ms = histogram.value_at_quantile(1.0 - 1.0 / rarity) as f64 / 1_000.0;
            line.push((rarity, ms));
            rarity *= 1.15;
        }
        // To the last dot.
        let end = count.min(100_000.0);
        line.push((end.max(2.0), histogram.value_at_quantile(1.0 - 1.0 / end) as f64 / 1_000.0));
        rarest = rarest.max(count.min(100_000.0));
        values.extend(line.iter().map(|(_, ms)| *ms));
        let latency = &repeat.latency;
        let named = [
            (2.0, "p50", latency.p50_ms),
            (10.0, "p90", latency.p90_ms),
            (20.0, "p95", latency.p95_ms),
            (100.0, "p99", latency.p99_ms),
            (1_000.0, "p99.9", latency.p999_ms),
            (10_000.0, "p99.99", latency.p9999_ms),
        ];
        let dots = named.into_iter().filter(|(rarity, ..)| *rarity <= count);
        let dots = dots
            .map(|(x, name, ms)| (x, ms, format!("repeat {}: {name} {} ms", index + 1, short(ms))));
        let marks = vec![Mark::Line(line), Mark::Dots(dots.collect())];
        series.push(Series::new(format!("repeat {}", index + 1), colour(index), marks));
    }
    let (low, high) = range(values)?;
    let mut x = Axis::log("how rare: the slowest one in so many transactions", 2.0, rarest);
    let shown: Vec<_> =
        MARKS.iter().filter(|(rarity, _)| *rarity < rarest * 10.0 || *rarity <= 10.0).collect();
    x.ticks.0 = shown.iter().map(|(rarity, _)| *rarity).collect();
    x.texts = Some(shown.iter().map(|(_, text)| (*text).to_owned()).collect());
    let y = Axis::log("milliseconds (logarithmic)", low.max(1e-3), high);
    Some(Chart::new("distribution of latencies", x, y, series).render())
}

/// The search for the highest rate: latency by rate.
pub(super) fn search(search: &Search) -> Option<String> {
    let mut probes: Vec<_> = search.probes.iter().collect();
    probes.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let (low, high) = range(probes.iter().flat_map(|probe| [probe.p50_ms, probe.p99_ms]))?;
    let (_, most) = range(probes.iter().map(|probe| probe.rate))?;
    let curve = |of: fn(&crate::record::Probe) -> f64| -> Vec<(f64, f64)> {
        probes.iter().map(|probe| (probe.rate, of(probe))).collect()
    };
    let dots = |kept: bool| -> Vec<(f64, f64, String)> {
        let chosen = probes.iter().filter(|probe| probe.kept == kept);
        let title = |probe: &crate::record::Probe| {
            format!("{}/s: p99 {} ms; {}", thousands(probe.rate), short(probe.p99_ms), probe.reason)
        };
        chosen.map(|probe| (probe.rate, probe.p99_ms, title(probe))).collect()
    };
    let mut series = vec![
        Series::new("p50", colour(0), vec![Mark::Line(curve(|probe| probe.p50_ms))]),
        Series::new("p99", colour(1), vec![Mark::Line(curve(|probe| probe.p99_ms))]),
        Series::new("kept to the objective", "good", vec![Mark::Dots(dots(true))]),
        Series::new("did not", "bad", vec![Mark::Dots(dots(false))]),
    ];
    if let Some(found) = search.found {
        let line = vec![(found, low.max(1e-3)), (found, high)];
        series.push(Series::new("found", "ideal", vec![Mark::Dashed(line)]));
    }
    let x = Axis::linear("transactions offered per second", 0.0, most);
    let y = Axis::log("milliseconds (logarithmic)", low.max(1e-3), high);
    Some(Chart::new("latency by rate", x, y, series).render())
}

/// The warm-up and the drain.
fn shades(run: &Run, from: f64, to: f64) -> Vec<(f64, f64, String)> {
    let mut shades = Vec::new();
    if from < 0.0 {
        shades.push((from, 0.0, "warm-up".to_owned()));
    }
    if to > run.load.seconds + 0.5 {
        shades.push((run.load.seconds, to, "drain".to_owned()));
    }
    shades
}

/// In each second with samples: median and range over the repeats.
fn by_second(point: &Point, of: fn(&Sample) -> Option<f64>) -> Vec<(f64, MedianRange)> {
    let mut seconds: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for sample in point.repeats.iter().flat_map(|repeat| &repeat.samples).filter(whole) {
        #[allow(clippy::cast_possible_truncation, reason = "a time of a run, in seconds")]
        let second = sample.end.round() as i64;
        seconds.entry(second).or_default().extend(of(sample));
    }
    let spread = |(second, values): (i64, Vec<f64>)| {
        MedianRange::of(values).map(|spread| (second as f64 - 0.5, spread))
    };
    seconds.into_iter().filter_map(spread).collect()
}

/// From the first sample to the end of the last one, of all repeats.
fn span(point: &Point) -> Option<(f64, f64)> {
    let samples = point.repeats.iter().flat_map(|repeat| &repeat.samples).filter(whole);
    range(samples.flat_map(|sample| [start(sample), sample.end]))
}

/// Whether a sample is long enough for its rate to mean something.
fn whole(sample: &&Sample) -> bool {
    sample.seconds > 0.5 || sample.phase == Phase::Measuring
}

fn start(sample: &Sample) -> f64 {
    sample.end - sample.seconds
}

fn middle(sample: &Sample) -> f64 {
    sample.end - sample.seconds / 2.0
}

/// The least and the most of some numbers; `None` if there are none.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    MedianRange::of(values).map(|range| (range.min, range.max))
}
