//! What was measured, as tables.

use std::path::Path;

use parsec_bench::record::{CheckResult, MedianRange, Point, Repeat, Role, Run, Usl};
use parsec_bench::report::{doubts, lines};

/// Prints the points, the law, and what is to be known.
pub(super) fn print(run: &Run, directory: &Path) {
    let mut text = format!("\n{}\n\n", run.workload.name);
    if !run.verified() {
        text += "UNVERIFIED: what follows is no result\n\n";
    }
    text += "| hosts | multi-partition | committed/s | efficiency | p50 ms | p99 ms | CPU µs/tx \
             | sequencer | hosts | client | peak MB/host | used up | verified |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|---|\n";
    run.points.iter().for_each(|point| text += &row(run, point));
    run.usl.iter().for_each(|usl| text += &law(usl));
    text += "\n";
    for sentence in lines(run) {
        text += &format!("{sentence}\n");
    }
    text += "\nCPU µs of each transaction by stage, median of the repeats:\n";
    run.points.iter().for_each(|point| text += &stages(point));
    text += "\n";
    for point in &run.points {
        for (number, doubt) in doubts(run.load.pace, point) {
            let share = percent(point.multi_partition);
            text += &format!("{} hosts, {share}, repeat {number}: {doubt}\n", point.hosts);
        }
    }
    for caveat in &run.caveats {
        text += &format!("- {caveat}\n");
    }
    for check in run.points.iter().flat_map(|point| &point.verification.checks) {
        if check.result != CheckResult::Passed {
            text += &format!("{:?} {:?}: {}\n", check.kind, check.result, check.detail);
        }
    }
    println!("{text}\nreport: {}", directory.join("report.html").display());
}

fn row(run: &Run, point: &Point) -> String {
    let show = |of: &dyn Fn(&Repeat) -> Option<f64>, digits: usize| {
        point.spread(of).map_or_else(|| "-".to_owned(), |spread| shown(spread, digits))
    };
    let role = |role: Role| {
        show(&move |repeat: &Repeat| micros(repeat, repeat.resources.cpu_seconds_of(role)), 1)
    };
    let cells = [
        point.hosts.to_string(),
        percent(point.multi_partition),
        show(&|repeat| Some(repeat.tps), 0),
        run.efficiency(point).map_or_else(|| "-".to_owned(), |value| format!("{value:.2}")),
        show(&|repeat| Some(repeat.latency.p50_ms), 1),
        show(&|repeat| Some(repeat.latency.p99_ms), 1),
        show(&Repeat::cpu_micros, 1),
        role(Role::Sequencer),
        role(Role::Executor),
        role(Role::Client),
        show(&|repeat| peak_megabytes(repeat), 0),
        used_up(point),
        if point.verification.verified { "yes" } else { "NO" }.to_owned(),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn used_up(point: &Point) -> String {
    let Some(mut names) = point.used_up() else { return "-".to_owned() };
    let limited = point.repeats.iter().filter(|repeat| repeat.generator.limited).count();
    if 2 * limited > point.repeats.len() {
        names.push("generator");
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Microseconds of each transaction.
fn micros(repeat: &Repeat, seconds: Option<f64>) -> Option<f64> {
    let seconds = seconds?;
    (repeat.counts.completed > 0).then(|| seconds * 1e6 / repeat.counts.completed as f64)
}

/// Of the host that held most.
fn peak_megabytes(repeat: &Repeat) -> Option<f64> {
    let hosts = repeat.resources.memory.iter().filter(|memory| memory.host.starts_with("host-"));
    hosts.map(|memory| memory.peak_bytes).max().map(|bytes| bytes as f64 / 1e6)
}

fn shown(MedianRange { median, min, max }: MedianRange, digits: usize) -> String {
    match min == max {
        true => format!("{median:.digits$}"),
        false => format!("{median:.digits$} ({min:.digits$} to {max:.digits$})"),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

fn law(usl: &Usl) -> String {
    let mut text = format!(
        "\nUniversal Scalability Law at {}: λ = {:.0}/s, contention σ = {:.4}, crosstalk κ = {:.6}, \
         R² = {:.4}\n",
        percent(usl.multi_partition),
        usl.lambda,
        usl.sigma,
        usl.kappa,
        usl.r_squared,
    );
    for point in &usl.points {
        text += &format!(
            "  {:>3} hosts: measured {:>9.0}, law {:>9.0}, residual {:>+8.0}, efficiency {:.2}\n",
            point.hosts,
            point.measured_tps,
            point.fitted_tps,
            point.measured_tps - point.fitted_tps,
            point.efficiency,
        );
    }
    text
}

/// Processor time by stage.
fn stages(point: &Point) -> String {
    let cpu = point.repeats.iter().flat_map(|repeat| &repeat.resources.cpu);
    let mut stages: Vec<(Role, &str)> = cpu.map(|cpu| (cpu.role, cpu.stage.as_str())).collect();
    stages.sort_unstable();
    stages.dedup();
    let costs = stages.iter().filter_map(|(role, stage)| {
        let spread = point.spread(|repeat| {
            let of = repeat.resources.cpu.iter();
            let of = of.filter(|cpu| cpu.role == *role && cpu.stage == *stage);
            micros(repeat, Some(of.map(|cpu| cpu.seconds).sum()))
        })?;
        let name = format!("{role:?}").to_lowercase();
        (spread.median >= 0.05).then(|| format!("{name} {stage} {:.1}", spread.median))
    });
    let costs: Vec<String> = costs.collect();
    format!("  {} hosts, {}: {}\n", point.hosts, percent(point.multi_partition), costs.join("; "))
}
