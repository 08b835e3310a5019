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
        super::print(&(serde_json::to_string_pretty(&comparison).map_err(failed)? + "\n"))?;
    } else {
        let mut text = describe_differences(&comparison);
        if comparison.comparable || args.force {
            text.push_str(&describe_points(&comparison));
        }
        super::print(&text)?;
    }
    match comparison.comparable || args.force {
        true => Ok(()),
        false => Err(failed(
            "the runs can't be compared, since what was run differs (see above); with --force they \
             are compared all the same",
        )),
    }
}

fn describe_differences(comparison: &Comparison) -> String {
    let mut text = String::new();
    for difference in &comparison.differences {
        text.push_str(&format!("settings differ: {difference}\n"));
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("note: {warning}\n"));
    }
    text
}

fn describe_points(comparison: &Comparison) -> String {
    let mut text = String::new();
    for point in &comparison.points {
        text.push_str(&format!(
            "\n{}\n{:<24} {:>32} {:>32} {:>9} {:>9}  verdict\n",
            point.title, "", "before", "after", "change", "noise"
        ));
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
            text.push_str(&format!(
                "{:<24} {:>32} {:>32} {:>+8.1}% {:>8.1}%  {verdict}\n",
                row.name,
                show(&row.before),
                show(&row.after),
                row.change * 100.0,
                row.noise * 100.0
            ));
        }
    }
    text.push_str(&format!("\n{}\n", Comparison::METHOD));
    text
}
