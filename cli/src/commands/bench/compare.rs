//! `parsec bench compare`: what differs between two runs by more than the noise.

use parsec_bench::record::{MedianRange, Run};
use parsec_bench::report::compare::{Comparison, Verdict};
use parsec_bench::report::short;

use crate::args::CompareArgs;
use crate::failure::{Failure, failed};

/// Compares two runs.
///
/// # Errors
/// If one can't be read, or their settings differ and nobody insists.
pub(super) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let before = Run::read(&args.before).map_err(failed)?;
    let after = Run::read(&args.after).map_err(failed)?;
    let comparison = Comparison::new(&before, &after);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&comparison).map_err(failed)?);
    } else {
        print_differences(&comparison);
        if comparison.comparable || args.force {
            print_points(&comparison);
        }
    }
    match comparison.comparable || args.force {
        true => Ok(()),
        false => Err(failed(
            "the runs can't be compared, since what was run differs (see above); with --force they \
             are compared all the same",
        )),
    }
}

fn print_differences(comparison: &Comparison) {
    for difference in &comparison.differences {
        println!("settings differ: {difference}");
    }
    for warning in &comparison.warnings {
        println!("note: {warning}");
    }
}

fn print_points(comparison: &Comparison) {
    for point in &comparison.points {
        println!("\n{}", point.title);
        println!(
            "{:<24} {:>32} {:>32} {:>9} {:>9}  verdict",
            "", "before", "after", "change", "noise"
        );
        for row in &point.rows {
            let show = |spread: &MedianRange| {
                let MedianRange { median, min, max } = *spread;
                format!("{} ({} to {})", short(median), short(min), short(max))
            };
            let verdict = match row.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
                Verdict::Noise => "within the noise",
                Verdict::Unknown => "too few repeats to tell",
            };
            println!(
                "{:<24} {:>32} {:>32} {:>+8.1}% {:>8.1}%  {verdict}",
                row.name,
                show(&row.before),
                show(&row.after),
                row.change * 100.0,
                row.noise * 100.0
            );
        }
    }
    println!("\n{}", Comparison::METHOD);
}
