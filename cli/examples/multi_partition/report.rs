//! What was measured, as a table.

use crate::Options;
use crate::measure::Measurement;
use crate::points::{Kind, PARTITIONS, Point};

/// The median of some numbers, the least and the most.
struct Spread3 {
    median: f64,
    least: f64,
    most: f64,
}

/// Of no numbers: not a number.
fn spread(numbers: impl Iterator<Item = f64>) -> Spread3 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 if middle > 0 => (at(middle - 1) + at(middle)) / 2.0,
        _ => at(middle),
    };
    Spread3 { median, least: at(0), most: at(sorted.len().wrapping_sub(1)) }
}

/// Microseconds of each transaction.
fn micros(cpu_ns: u64, measurement: &Measurement) -> f64 {
    cpu_ns as f64 / 1e3 / measurement.transactions as f64
}

fn per_second(measurement: &Measurement) -> f64 {
    measurement.per_second
}

fn total(measurement: &Measurement) -> f64 {
    micros(measurement.usage.cpu_ns(), measurement)
}

fn executors(measurement: &Measurement) -> f64 {
    micros(measurement.usage.executors().cpu_ns, measurement)
}

fn sequencer(measurement: &Measurement) -> f64 {
    micros(measurement.usage.sequencer().cpu_ns, measurement)
}

fn client(measurement: &Measurement) -> f64 {
    micros(measurement.usage.driver.cpu_ns, measurement)
}

/// Prints what was measured, as Markdown. The first point is the one that all are relative to.
pub(crate) fn print(kind: Kind, options: &Options, points: &[Point]) {
    println!(
        "{}: {PARTITIONS} partitions on {} hosts, {} accounts a point, {} in flight; {} transactions \
         at each point in each of {} rounds. CPU is µs of each committed transaction. Median (least \
         to most); ratios are of each round's figure to the same round's at 0 %.\n",
        kind.name(),
        options.hosts,
        options.accounts,
        options.in_flight,
        options.transactions,
        options.rounds,
    );
    println!(
        "| share | participants | measured share | committed per s | relative | CPU, all | relative \
         | CPU, executors | relative | CPU, sequencer | CPU, client | p50 ms |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let Some(base) = points.first() else { return };
    for point in points {
        print_row(point, base);
    }
    let strays: u64 = points.iter().flat_map(|point| &point.measured).map(|m| m.strayed).sum();
    println!("\n{strays} transactions strayed outside their footprint at first.");
}

fn print_row(point: &Point, base: &Point) {
    let of = |figure: fn(&Measurement) -> f64, digits: usize| {
        let Spread3 { median, least, most } = spread(point.measured.iter().map(figure));
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    };
    let relative = |figure: fn(&Measurement) -> f64| {
        let pairs = point.measured.iter().zip(&base.measured);
        let ratios = pairs.map(|(here, there)| figure(here) / figure(there));
        let Spread3 { median, least, most } = spread(ratios);
        format!("{median:.2} ({least:.2} to {most:.2})")
    };
    let multi: u64 = point.measured.iter().map(|each| each.multi_partition).sum();
    let all: u64 = point.measured.iter().map(|each| each.transactions).sum();
    println!(
        "| {} % | {} | {:.1} % | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        point.spread.percent,
        if point.spread.percent == 0 { 1 } else { point.spread.participants },
        100.0 * multi as f64 / all as f64,
        of(per_second, 0),
        relative(per_second),
        of(total, 1),
        relative(total),
        of(executors, 1),
        relative(executors),
        of(sequencer, 1),
        of(client, 1),
        of(|measurement| measurement.p50_ms, 0),
    );
}
