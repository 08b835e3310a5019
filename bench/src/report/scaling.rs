//! The charts over hosts: throughput with the ideal line, the fitted law and the model; processor
//! time for each transaction.

use std::collections::BTreeMap;

use super::charts::range;
use super::svg::{Axis, Chart, Mark, Series, colour};
use super::text::{short, thousands};
use super::ticks::Ticks;
use crate::record::{MedianRange, Point, Repeat, Run, Usl};

/// The points of one share of multi-partition transactions, by hosts.
type Curve<'a> = Vec<(f64, MedianRange, &'a Point)>;

/// Transactions a second by hosts.
pub(super) fn throughput(run: &Run) -> Option<String> {
    let curves = curves(run, |repeat| Some(repeat.tps));
    let hosts = hosts(run)?;
    let last = *hosts.last()?;
    let mut series = Vec::new();
    let mut values: Vec<f64> = Vec::new();
    for (index, (share, curve)) in curves.values().enumerate() {
        let (base_hosts, base, _) = curve.first()?;
        let ideal = |hosts: f64| base.median / base_hosts * hosts;
        values.extend(curve.iter().map(|(_, spread, _)| spread.max));
        if index == 0 {
            values.push(ideal(last));
            let line = hosts.iter().map(|hosts| (*hosts, ideal(*hosts))).collect();
            let plural = if *base_hosts > 1.0 { "s" } else { "" };
            let text = format!("ideal: as {} host{plural}, in proportion", short(*base_hosts));
            series.push(Series::new(text, "ideal", vec![Mark::Dashed(line)]));
        }
        series.push(measured(*share, index, curve, "transactions a second"));
        if let Some(usl) = run.usl.iter().find(|usl| same(usl.multi_partition, *share)) {
            series.push(fitted(usl, index, last));
        }
    }
    series.extend(predicted(run, last));
    let (_, measured_most) = range(values.iter().copied())?;
    let threads = one_thread(run);
    // They may take as much room as half of what was measured, and are told of in words beyond that.
    let beside = threads.iter().map(|(_, tps)| *tps).filter(|tps| *tps <= measured_most * 1.5);
    let (_, most) = range(values.iter().copied().chain(beside))?;
    let y = Axis::linear("transactions committed per second", 0.0, most);
    for (what, tps) in threads {
        let is_above = tps > y.ticks.high();
        let line = (!is_above).then(|| Mark::Dashed(vec![(1.0_f64.min(last), tps), (last, tps)]));
        let place = if is_above { ", above this chart" } else { "" };
        let text = format!("one thread, {what}: {}/s{place}", thousands(tps));
        series.push(Series::new(text, "thread", line.into_iter().collect()));
    }
    Some(Chart::new("throughput by hosts", host_axis(&hosts), y, series).render())
}

/// What one thread does with the same transactions, if that was measured.
fn one_thread(run: &Run) -> Vec<(&'static str, f64)> {
    let Some(lines) = &run.lines else { return Vec::new() };
    let threads = [
        ("checking signatures", lines.one_thread_with_signatures_tps),
        ("no signatures", lines.one_thread_tps),
    ];
    threads.into_iter().filter(|(_, tps)| *tps > 0.0).collect()
}

/// Processor time for each transaction by hosts.
pub(super) fn cpu(run: &Run) -> Option<String> {
    let curves = curves(run, Repeat::cpu_micros);
    let hosts = hosts(run)?;
    let mut series = Vec::new();
    let mut values = Vec::new();
    for (index, (share, curve)) in curves.values().enumerate() {
        values.extend(curve.iter().map(|(_, spread, _)| spread.max));
        series.push(measured(*share, index, curve, "microseconds"));
    }
    let (_, most) = range(values)?;
    let y = Axis::linear("microseconds of a core per transaction", 0.0, most);
    Some(Chart::new("processor time by hosts", host_axis(&hosts), y, series).render())
}

/// What the model says of any number of hosts, beyond what was measured.
pub(super) fn model(run: &Run) -> Option<String> {
    type Dots = Vec<(f64, f64, String)>;
    let mut groups: BTreeMap<(String, u64), Dots> = BTreeMap::new();
    for point in &run.model {
        let title = format!(
            "MODEL, {} hosts: {}/s, p50 {} ms, p99 {} ms, {} Mbit/s per host; used up first: {}",
            point.hosts,
            thousands(point.tps),
            short(point.p50_ms),
            short(point.p99_ms),
            short(point.mbit_per_host),
            point.saturated
        );
        let key = (point.variant.clone(), point.multi_partition.to_bits());
        groups.entry(key).or_default().push((f64::from(point.hosts), point.tps, title));
    }
    let (first, last) = range(run.model.iter().map(|point| f64::from(point.hosts)))?;
    let (low, high) = range(run.model.iter().map(|point| point.tps))?;
    let mut series = Vec::new();
    for (index, ((variant, share), points)) in groups.into_iter().enumerate() {
        let percent = f64::from_bits(share) * 100.0;
        let line = points.iter().map(|(x, y, _)| (*x, *y)).collect();
        let legend = format!("model: {percent:.0} % multi-partition {variant}");
        let marks = vec![Mark::Dashed(line), Mark::Rings(points)];
        series.push(Series::new(legend, colour(index), marks));
    }
    for (index, (_, curve)) in curves(run, |repeat| Some(repeat.tps)).values().enumerate() {
        let dots = curve.iter().map(|(hosts, spread, _)| {
            (*hosts, spread.median, format!("measured: {}/s", thousands(spread.median)))
        });
        let legend = format!("measured, line {}", index + 1);
        series.push(Series::new(legend, "measured", vec![Mark::Dots(dots.collect())]));
    }
    let x = Axis::log("executor hosts (logarithmic)", first, last);
    let y = Axis::log("transactions per second (logarithmic)", low.max(1.0), high);
    Some(Chart::new("what the model predicts", x, y, series).render())
}

/// The points of each share, by hosts, with median and range of something.
fn curves(run: &Run, of: fn(&Repeat) -> Option<f64>) -> BTreeMap<u64, (Option<f64>, Curve<'_>)> {
    let mut curves: BTreeMap<u64, (Option<f64>, Curve<'_>)> = BTreeMap::new();
    for point in &run.points {
        let Some(spread) = point.spread(of) else { continue };
        let share = point.multi_partition;
        // Shares are not negative, so that their bits are in order.
        let key = share.map_or(0, |share| share.max(0.0).to_bits());
        let (_, curve) = curves.entry(key).or_insert_with(|| (share, Vec::new()));
        curve.push((f64::from(point.hosts), spread, point));
    }
    for (_, curve) in curves.values_mut() {
        curve.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    curves
}

fn measured(share: Option<f64>, index: usize, curve: &Curve<'_>, unit: &str) -> Series {
    let line = curve.iter().map(|(hosts, spread, _)| (*hosts, spread.median)).collect();
    let ranges = curve.iter().map(|(hosts, spread, _)| (*hosts, spread.min, spread.max)).collect();
    let dots = curve.iter().map(|(hosts, spread, point)| {
        let (median, min, max) = (short(spread.median), short(spread.min), short(spread.max));
        let verified = if point.verification.verified { "" } else { ", UNVERIFIED" };
        let title = format!("{hosts} hosts: {median} {unit} ({min} to {max}){verified}");
        (*hosts, spread.median, title)
    });
    let legend = match share {
        Some(share) => format!("measured, {:.0} % multi-partition", share * 100.0),
        None => "measured".to_owned(),
    };
    let marks = vec![Mark::Line(line), Mark::Ranges(ranges), Mark::Dots(dots.collect())];
    Series::new(legend, colour(index), marks)
}

/// The law's curve.
fn fitted(usl: &Usl, index: usize, last: f64) -> Series {
    let steps = 60_u32;
    let at = |step: u32| 1.0 + (last - 1.0) * f64::from(step) / f64::from(steps);
    let line = (0..=steps).map(|step| (at(step), usl.at(at(step)))).collect();
    let legend =
        format!("law: contention {:.3} %, crosstalk {:.4} %", usl.sigma * 100.0, usl.kappa * 100.0);
    Series::new(legend, colour(index), vec![Mark::Dashed(line)])
}

/// What the model says of the measured points themselves: other clusters are not to be compared.
fn predicted(run: &Run, last: f64) -> Option<Series> {
    let measured = run.model.iter().filter(|point| point.measured_tps.is_some());
    let within = measured.filter(|point| f64::from(point.hosts) <= last);
    let rings: Vec<_> = within
        .map(|point| {
            let share = point.multi_partition * 100.0;
            let tps = thousands(point.tps);
            let title = format!("MODEL, {} hosts, {share:.0} %: {tps}/s", point.hosts);
            (f64::from(point.hosts), point.tps, title)
        })
        .collect();
    (!rings.is_empty())
        .then(|| Series::new("model, not measured", "measured", vec![Mark::Rings(rings)]))
}

/// All numbers of hosts, in order.
fn hosts(run: &Run) -> Option<Vec<f64>> {
    let mut hosts: Vec<u16> = run.points.iter().map(|point| point.hosts).collect();
    hosts.sort_unstable();
    hosts.dedup();
    (hosts.len() > 1).then(|| hosts.into_iter().map(f64::from).collect())
}

/// An axis from no host to the most, with a mark for each number that was measured.
fn host_axis(hosts: &[f64]) -> Axis {
    let mut axis = Axis::linear("executor hosts", 0.0, hosts.last().copied().unwrap_or(1.0));
    let mut ticks = vec![0.0];
    ticks.extend(hosts);
    axis.ticks = Ticks(ticks);
    axis
}

fn same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-9,
        (None, None) => true,
        _ => false,
    }
}
