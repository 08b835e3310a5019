//! What is to be said of one thread and of what can't be avoided: as sentences, for page and
//! terminal.

use super::text::{short, thousands};
use crate::record::{Lines, MedianRange, Repeat, Run, RunKind};

/// How a run compares with one thread and with what can't be avoided; nothing if that was not
/// measured.
#[must_use]
pub fn lines(run: &Run) -> Vec<String> {
    let Some(lines) = &run.lines else { return Vec::new() };
    let mut all = vec![format!(
        "One thread with a core of its own that executes the same transactions in order, with no \
         network, log or scheduling, does {} a second without checking signatures and {} with it.",
        thousands(lines.one_thread_tps),
        thousands(lines.one_thread_with_signatures_tps)
    )];
    if run.kind == RunKind::Scale {
        all.extend(shares(run).into_iter().map(|share| passing(run, lines, share)));
    }
    all.extend(limit(run, lines));
    all
}

/// The shares of multi-partition transactions, in the order of the points.
fn shares(run: &Run) -> Vec<Option<f64>> {
    let mut shares: Vec<Option<f64>> =
        run.points.iter().map(|point| point.multi_partition).collect();
    shares.dedup();
    shares
}

/// At how many hosts a share passes one thread that also checks signatures, as the hosts do.
fn passing(run: &Run, lines: &Lines, share: Option<f64>) -> String {
    let name = share.map_or(String::new(), |share| {
        format!("With {:.0} % multi-partition transactions, ", share * 100.0)
    });
    let whole = at_hosts(run, share, lines.one_thread_with_signatures_tps);
    let mut text = match &name[..] {
        "" => format!("Parsec passes that thread, signatures included, {whole}"),
        name => format!("{name}Parsec passes that thread, signatures included, {whole}"),
    };
    if let Some(quota) = run.cluster.quota {
        let slow = at_hosts(run, share, lines.one_thread_with_signatures_tps * quota);
        text += &format!(
            "; a thread that has {:.0} % of a core, as each host has, it passes {slow}",
            quota * 100.0
        );
    }
    text + "."
}

/// At the fewest hosts that did more than so many a second.
fn at_hosts(run: &Run, share: Option<f64>, tps: f64) -> String {
    let of_share = || run.points.iter().filter(|point| point.multi_partition == share);
    let faster = of_share().filter(|point| {
        point.spread(|repeat| Some(repeat.tps)).is_some_and(|spread| spread.median > tps)
    });
    let most = of_share().map(|point| point.hosts).max().unwrap_or(0);
    match faster.map(|point| point.hosts).min() {
        Some(1) => "at 1 host".to_owned(),
        Some(hosts) => format!("at {hosts} hosts"),
        None => format!("at none of the numbers of hosts that were measured, {most} at most"),
    }
}

/// Which part of the time is spent on what can't be avoided.
fn limit(run: &Run, lines: &Lines) -> Option<String> {
    let unavoidable = lines.limit_micros();
    let cores = f64::from(run.machine.cores);
    let limit = lines.limit_tps(cores)?;
    let mut text = format!(
        "What can't be avoided for each transaction takes {} µs of a core: {} a second on \
         {cores:.0} cores that do nothing else.",
        short(unavoidable),
        thousands(limit)
    );
    let beside = run.points.iter().filter_map(|point| point.spread(Repeat::unavoidable_percent));
    let beside: Vec<_> = beside.collect();
    for MedianRange { median, min, max } in &beside {
        text += &format!(
            " Of what all processes together used in a repeat, load generator included, {median:.0} % \
             was unavoidable ({min:.0} to {max:.0}), by what the thread took right after it."
        );
    }
    let cpu = run.points.iter().filter_map(|point| point.spread(Repeat::cpu_micros));
    let cpu = cpu.filter(|_| beside.is_empty());
    if let Some(least) = cpu.map(|spread| spread.median).reduce(f64::min) {
        text += &format!(
            " At best, all processes together used {} µs, load generator included: {:.0} % of it was \
             unavoidable.",
            short(least),
            unavoidable / least * 100.0
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::example;
    use crate::record::{Cost, Point};

    fn point(hosts: u16, tps: f64) -> Point {
        Point { hosts, ..example(&[tps], &[1_000]).points.remove(0) }
    }

    #[test]
    fn it_is_said_from_how_many_hosts_on_one_thread_is_passed() {
        let mut run = example(&[], &[]);
        run.kind = RunKind::Scale;
        run.points = vec![point(1, 500.0), point(2, 1_700.0), point(4, 3_000.0)];
        let said = |run: &Run| lines(run).join("\n");
        let text = said(&run);
        assert!(text.contains("With 10 % multi-partition transactions, Parsec passes"), "{text}");
        let none = "at none of the numbers of hosts that were measured, 4 at most;";
        assert!(text.contains(none), "{text}");
        assert!(text.contains("8 % of a core, as each host has, it passes at 2 hosts."), "{text}");
        assert!(text.contains("takes 4 µs of a core: 500,000 a second on 2 cores"), "{text}");
        run.points.push(point(64, 20_001.0));
        assert!(said(&run).contains("signatures included, at 64 hosts;"));
        run.lines = None;
        assert_eq!(said(&run), "");
    }

    #[test]
    fn shares_are_of_the_repeats_that_the_thread_was_measured_beside() {
        let mut run = example(&[1_000.0, 1_000.0, 1_000.0], &[1_000]);
        assert!(lines(&run).join(" ").contains("At best, all processes"));
        let repeats = &mut run.points[0].repeats;
        let micros = repeats[0].cpu_micros().unwrap();
        for (repeat, share) in repeats.iter_mut().zip([0.5, 0.7, 0.6]) {
            let costs = vec![Cost { stage: "execution".into(), micros: micros * share }];
            repeat.lines = Some(Lines { costs, ..Lines::default() });
        }
        let text = lines(&run).join(" ");
        assert!(text.contains("60 % was unavoidable (50 to 70), by what"), "{text}");
        assert!(!text.contains("At best"), "{text}");
    }
}
