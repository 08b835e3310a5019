//! What is made of a [`Run`]: a page with charts, a table of samples, and the
//! comparison with another run.
//!
//! The page is one file that needs no network and no scripts: the charts are SVG, drawn here.

mod charts;
pub mod compare;
mod doubts;
mod html;
mod lines;
mod resources;
mod scaling;
mod svg;
mod text;
mod ticks;

use std::fmt::Write as _;

use crate::record::{Phase, Run};

pub use doubts::doubts;
pub use html::html;
pub use lines::lines;
pub use text::{bytes, escape, shell, short, thousands, utc};

/// Every sample of every repeat as CSV, one line a second.
#[must_use]
pub fn samples(run: &Run) -> String {
    let mut csv = String::from(
        "hosts,multi_partition,repeat,end_s,seconds,phase,offered,sent,accepted,committed,failed,\
         in_flight,p50_ms,p99_ms,max_ms\n",
    );
    for point in &run.points {
        let share = point.multi_partition.map(|share| share.to_string()).unwrap_or_default();
        for (number, repeat) in (1..).zip(&point.repeats) {
            for sample in &repeat.samples {
                let phase = match sample.phase {
                    Phase::WarmUp => "warm-up",
                    Phase::Measuring => "measuring",
                    Phase::Draining => "draining",
                };
                let ms =
                    |value: Option<f64>| value.map(|ms| format!("{ms:.3}")).unwrap_or_default();
                writeln!(
                    csv,
                    "{},{share},{number},{:.3},{:.3},{phase},{},{},{},{},{},{},{},{},{}",
                    point.hosts,
                    sample.end,
                    sample.seconds,
                    sample.offered,
                    sample.sent,
                    sample.accepted,
                    sample.committed,
                    sample.failed,
                    sample.in_flight,
                    ms(sample.p50_ms),
                    ms(sample.p99_ms),
                    ms(sample.max_ms)
                )
                .expect("a string takes everything");
            }
        }
    }
    csv
}

#[cfg(test)]
mod tests;
