//! The page: one file, no network, no scripts.

use std::fmt::Write as _;

use super::text::{bytes, escape, shell, short, thousands, utc};
use super::{charts, doubts, resources, scaling};
use crate::record::{
    CheckResult, Counts, Deployment, MedianRange, Pace, Point, Repeat, Run, RunKind,
};

/// Doubts that are shown at once; the others after a click, so that the results are on the first page.
const WARNINGS_SHOWN: usize = 6;

/// Light and dark, for screens and paper.
const STYLE: &str = include_str!("style.css");

/// The report of a run as a page.
#[must_use]
pub fn html(run: &Run) -> String {
    let mut page = Page(String::new());
    let title = escape(&format!("{} – Parsec benchmark", run.name));
    page.add(format_args!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}\
         </style></head><body><main>"
    ));
    page.head(run);
    if run.points.len() > 1 {
        page.scaling(run);
    }
    page.search(run);
    for point in &run.points {
        page.point(run, point);
    }
    page.lines(run);
    page.verification(run);
    page.configuration(run);
    page.caveats(run);
    page.0.push_str("</main></body></html>\n");
    page.0
}

/// A page that is being written.
struct Page(String);

impl Page {
    /// Adds markup: whatever comes from elsewhere must be escaped.
    fn add(&mut self, markup: std::fmt::Arguments<'_>) {
        self.0.write_fmt(markup).expect("a string takes everything");
    }

    fn heading(&mut self, text: &str) {
        self.add(format_args!("<h2>{}</h2>", escape(text)));
    }

    fn text(&mut self, text: &str) {
        self.add(format_args!("<p>{}</p>", escape(text)));
    }

    /// A chart with what it shows; nothing if there is none.
    fn figure(&mut self, heading: &str, caption: &str, chart: Option<String>) {
        if let Some(chart) = chart {
            let (heading, caption) = (escape(heading), escape(caption));
            self.add(format_args!(
                "<figure><h3>{heading}</h3><figcaption>{caption}</figcaption>{chart}</figure>"
            ));
        }
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.0.push_str("<div class=\"wide\"><table>");
        if !head.is_empty() {
            let cells: String =
                head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
            self.add(format_args!("<thead><tr>{cells}</tr></thead>"));
        }
        for row in rows {
            let cells: String =
                row.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
            self.add(format_args!("<tr>{cells}</tr>"));
        }
        self.0.push_str("</table></div>");
    }

    fn head(&mut self, run: &Run) {
        self.add(format_args!("<h1>{}</h1>", escape(&run.name)));
        let kind = match run.kind {
            RunKind::Plain => "One load on one cluster",
            RunKind::Find => "The highest rate that keeps to an objective",
            RunKind::Scale => "One load on clusters of several sizes",
        };
        let about = format!(
            "{kind}. {}. {}. {} UTC, took {} s.",
            run.workload.name,
            describe_pace(run),
            utc(run.started_ms),
            short(run.took_seconds)
        );
        self.text(&about);
        self.0.push_str(match run.verified() {
            true => {
                "<p class=\"verified\">✓ Verified: nothing that was checked afterwards is wrong; see \
                 <a href=\"#verification\">what was checked</a>.</p>"
            }
            false => {
                "<p class=\"alarm\">UNVERIFIED. What follows is no result: see \
                 <a href=\"#verification\">what does not hold</a>.</p>"
            }
        });
        if let [point] = &run.points[..] {
            self.cards(run, point);
        }
        self.warnings(run);
    }

    fn cards(&mut self, run: &Run, point: &Point) {
        let mut cards = Vec::new();
        let mut card = |label: &str, unit: &str, of: fn(&Repeat) -> Option<f64>| {
            if let Some(spread) = point.spread(of) {
                cards.push((label.to_owned(), unit.to_owned(), spread));
            }
        };
        card("committed", "transactions per second", |repeat| Some(repeat.tps));
        card("median latency (p50)", "milliseconds", |repeat| timed(repeat, repeat.latency.p50_ms));
        card("99 of 100 within (p99)", "milliseconds", |repeat| {
            timed(repeat, repeat.latency.p99_ms)
        });
        let unit = "µs of a core per transaction, client included";
        card("processor time", unit, Repeat::cpu_micros);
        let unit = "% of that, by one thread right after each repeat";
        card("could not be avoided", unit, Repeat::unavoidable_percent);
        self.0.push_str("<div class=\"cards\">");
        for (label, unit, spread) in cards {
            let MedianRange { median, min, max } = spread;
            let range = match point.repeats.len() {
                1 => "one repeat".to_owned(),
                count => format!("{} to {} in {count} repeats", short(min), short(max)),
            };
            self.add(format_args!(
                "<div class=\"card\"><span>{}</span><strong>{}</strong><em>{}</em><small>{}\
                 </small></div>",
                escape(&label),
                short(median),
                escape(&unit),
                escape(&range)
            ));
        }
        if let Some(found) = run.search.as_ref().and_then(|search| search.found) {
            self.add(format_args!(
                "<div class=\"card\"><span>highest rate found</span><strong>{}</strong><em>\
                 transactions per second</em></div>",
                thousands(found)
            ));
        }
        self.0.push_str("</div>");
    }

    /// What makes the numbers doubtful.
    fn warnings(&mut self, run: &Run) {
        let mut warnings = Vec::new();
        for point in &run.points {
            for (number, doubt) in doubts(run.load.pace, point) {
                warnings.push(match run.points.len() {
                    1 => format!("Repeat {number}: {doubt}."),
                    _ => format!("{}, repeat {number}: {doubt}.", point_name(point)),
                });
            }
        }
        if warnings.is_empty() {
            return;
        }
        let items = |warnings: &[String]| -> String {
            warnings.iter().map(|warning| format!("<li>{}</li>", escape(warning))).collect()
        };
        let (first, rest) = warnings.split_at(warnings.len().min(WARNINGS_SHOWN));
        let more = match rest.len() {
            0 => String::new(),
            count => format!(
                "<li><details><summary>and {count} more like these</summary><ul>{}</ul></details></li>",
                items(rest)
            ),
        };
        self.add(format_args!("<ul class=\"warn\">{}{more}</ul>", items(first)));
    }

    fn scaling(&mut self, run: &Run) {
        self.heading("Scaling");
        self.figure(
            "Throughput by number of hosts",
            "Each dot is the median of the repeats with so many hosts; the bar through it goes from \
             the least to the most. The dashed straight line is what perfect scaling from the \
             smallest cluster would be. Dashed curves are the Universal Scalability Law fitted to \
             the dots, and rings are predictions of a model: neither is a measurement.",
            scaling::throughput(run),
        );
        self.figure(
            "Processor time for each transaction by number of hosts",
            "All processes together, load generator included. A flat line means that more hosts do \
             more work without wasting any; no limit on the hosts' processors can flatter it.",
            scaling::cpu(run),
        );
        let rows: Vec<Vec<String>> = run.points.iter().map(|point| point_row(run, point)).collect();
        self.table(
            &[
                "hosts",
                "multi-partition",
                "committed/s",
                "efficiency",
                "p50 ms",
                "p99 ms",
                "CPU µs",
                "used up",
                "verified",
            ],
            &rows,
        );
        self.text(
            "Medians of the repeats, with their range. Efficiency is throughput for each host, \
             relative to the smallest cluster with the same share. Used up: who had used all that it \
             may in most repeats; where nothing was, the number of transactions in flight was the \
             limit.",
        );
        for usl in &run.usl {
            let share = usl
                .multi_partition
                .map_or(String::new(), |share| format!("{:.0} % multi-partition: ", share * 100.0));
            self.text(&format!(
                "{share}contention σ = {:.4}, crosstalk κ = {:.6}, R² = {:.4}; efficiency {}.",
                usl.sigma,
                usl.kappa,
                usl.r_squared,
                usl.points
                    .iter()
                    .map(|point| format!("{:.2} at {}", point.efficiency, point.hosts))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        self.figure(
            "What the model predicts for more hosts",
            "A MODEL, not a measurement: the production state machines in virtual time, with costs \
             and message sizes taken from measured runs. Point at a ring to see what is used up \
             first. Dots are measured.",
            scaling::model(run),
        );
    }

    fn search(&mut self, run: &Run) {
        let Some(search) = &run.search else { return };
        self.heading("Search for the highest rate");
        self.figure(
            "Latency by rate",
            &format!(
                "Each rate was tried in a short run of its own; the last one was then measured in \
                 whole repeats. The rate that was found is the highest that kept to {} in those, \
                 too, and of which at least 95 % committed in time.",
                search.objective
            ),
            charts::search(search),
        );
        let row = |probe: &crate::record::Probe| {
            vec![
                thousands(probe.rate),
                thousands(probe.tps),
                short(probe.p50_ms),
                short(probe.p99_ms),
                if probe.kept { "kept" } else { "not kept" }.to_owned(),
                probe.reason.clone(),
            ]
        };
        let rows: Vec<_> = search.probes.iter().map(row).collect();
        self.table(&["offered/s", "committed/s", "p50 ms", "p99 ms", "", ""], &rows);
    }

    fn point(&mut self, run: &Run, point: &Point) {
        let several = run.points.len() > 1;
        if several {
            let name = escape(&point_name(point));
            self.add(format_args!("<details><summary>{name}</summary>"));
        }
        self.figure(
            "Throughput over time",
            "Transactions that committed in each second. What lies in the grey is not counted: the \
             load warms up before, and what is in flight is waited for after. A level line means \
             that the figure would be the same had it been measured for longer.",
            charts::throughput(run, point),
        );
        self.figure(
            "Latency over time",
            "From when a transaction was to be sent until its receipt was there, by the second in \
             which that was; the median of the repeats, and as a band their range. Mind the scale: \
             equal steps upwards multiply the time.",
            charts::latency(run, point),
        );
        self.figure(
            "Distribution of latencies",
            "How long the slowest one in so many transactions took, at least: one in a hundred took \
             as long as the curve says at p99, or longer. Further right is rarer; a curve that stays \
             low to the right means that nobody waits long.",
            charts::distribution(point),
        );
        self.figure(
            "Processor time by process and stage",
            "What each process used for each transaction that committed, by what its threads do; \
             the number at the end is the sum. Admission checks what clients send, signatures \
             above all; dispatch hands what is ordered to the hosts; the client is the load \
             generator. Mean of the repeats.",
            resources::by_host(point),
        );
        self.figure(
            "Processor time by stage, and what can't be avoided",
            "All processes together, the mean of the repeats. Below it, if it was measured in the same run, what each \
             transaction costs at least: checking its signature, executing it, encoding it, each in the \
             colour of the stage that does it. What is between the two is what ordering, network, \
             storage and scheduling add.",
            resources::by_stage(point, run.lines.as_ref()),
        );
        self.figure(
            "Memory over time",
            "What each process held in main memory during the last repeat. A line that rises for as \
             long as it is measured will end somewhere. The load generator, which holds the \
             transactions that were built ahead, is left out: the table below says what it had.",
            charts::memory(run, point),
        );
        self.counts(point);
        self.used(point);
        if several {
            self.0.push_str("</details>");
        }
    }

    fn counts(&mut self, point: &Point) {
        type Row = (&'static str, &'static str, fn(&Counts) -> u64);
        let what: [Row; 13] = [
            ("offered", "were to be sent in the measured time", |counts| counts.offered),
            ("sent", "were sent", |counts| counts.sent),
            ("accepted", "were checked and taken by the cluster", |counts| counts.accepted),
            ("committed", "took effect", |counts| counts.committed),
            ("reverted", "ran and gave up", |counts| counts.reverted),
            ("invalid", "could not run", |counts| counts.invalid),
            ("rejected", "were refused for good", |counts| counts.rejected),
            ("lost", "got no answer", |counts| counts.lost),
            ("unsent", "were due, but the time was over", |counts| counts.unsent),
            ("late", "were sent over 10 ms after they were due", |counts| counts.late),
            ("strayed", "ran again with a wider footprint", |counts| counts.strayed),
            ("retried", "times one was sent again after a refusal", |counts| counts.retried),
            ("completed", "committed within the measured time: the rate", |counts| {
                counts.completed
            }),
        ];
        let rows: Vec<Vec<String>> = what
            .iter()
            .map(|(name, meaning, of)| {
                let each = point.repeats.iter().map(|repeat| thousands(of(&repeat.counts) as f64));
                [(*name).to_owned(), (*meaning).to_owned()].into_iter().chain(each).collect()
            })
            .collect();
        let repeats: Vec<String> =
            (1..=point.repeats.len()).map(|number| format!("repeat {number}")).collect();
        let head: Vec<&str> = ["transactions that", ""]
            .into_iter()
            .chain(repeats.iter().map(String::as_str))
            .collect();
        self.0.push_str("<h3>What became of the transactions</h3>");
        self.table(&head, &rows);
        let failures = point.repeats.iter().filter_map(|repeat| repeat.first_failure.as_ref());
        if let Some(failure) = failures.into_iter().next() {
            self.text(&format!("The first one that did not commit: {failure}"));
        }
    }

    /// Memory, network and log.
    fn used(&mut self, point: &Point) {
        let Some(repeat) = point.repeats.last() else { return };
        let resources = &repeat.resources;
        let mut rows = Vec::new();
        for memory in &resources.memory {
            let peak = bytes(memory.peak_bytes);
            rows.push(vec![memory.host.clone(), "most memory so far".to_owned(), peak]);
        }
        for network in &resources.network {
            let (sent, received) = (bytes(network.sent_bytes), bytes(network.received_bytes));
            let text = format!("{sent} sent, {received} received");
            rows.push(vec![network.host.clone(), "network".to_owned(), text]);
        }
        for log in &resources.logs {
            let each = log.bytes as f64 / repeat.counts.completed.max(1) as f64;
            let text = format!("{}: {} bytes per transaction", bytes(log.bytes), short(each));
            rows.push(vec![log.host.clone(), "log grew by".to_owned(), text]);
        }
        if !rows.is_empty() {
            self.0.push_str("<h3>Memory, network and log, in the last repeat</h3>");
            self.table(&["process", "", ""], &rows);
        }
    }

    fn lines(&mut self, run: &Run) {
        let Some(lines) = &run.lines else { return };
        self.heading("One thread, and what can't be avoided");
        super::lines(run).iter().for_each(|sentence| self.text(sentence));
        let row = |cost: &crate::record::Cost| vec![cost.stage.clone(), short(cost.micros)];
        let rows: Vec<_> = lines.costs.iter().map(row).collect();
        self.table(&["unavoidable", "µs per transaction"], &rows);
    }

    fn verification(&mut self, run: &Run) {
        self.0.push_str("<h2 id=\"verification\">Verification</h2>");
        let mut rows = Vec::new();
        for point in &run.points {
            for check in &point.verification.checks {
                let result = match check.result {
                    CheckResult::Passed => "✓ holds",
                    CheckResult::Failed => "✗ WRONG",
                    CheckResult::Skipped => "– not checked",
                };
                rows.push(vec![
                    point_name(point),
                    format!("{:?}", check.kind).to_lowercase(),
                    result.to_owned(),
                    check.detail.clone(),
                ]);
            }
        }
        self.table(&["cluster", "check", "", ""], &rows);
    }

    fn configuration(&mut self, run: &Run) {
        self.heading("Configuration");
        let commit = run.versions.commit.as_deref().unwrap_or("unknown");
        let modified = match run.versions.modified {
            Some(true) => ", with local changes",
            _ => "",
        };
        let load = &run.load;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = vec![
            row("workload", run.workload.name.clone()),
            row("specification", run.workload.spec.to_string()),
            row("load", describe_pace(run)),
            row(
                "measured",
                format!(
                    "{} of {} s, each after {} s of warm-up; {}, submissions of up to {}",
                    several(load.repeats, "repeat"),
                    load.seconds,
                    load.warm_up_seconds,
                    several(u32::try_from(load.connections).unwrap_or(u32::MAX), "connection"),
                    thousands(load.batch as f64)
                ),
            ),
            row("cluster", describe_cluster(run)),
            row(
                "machine",
                format!(
                    "{}, {} cores, {}, {}",
                    run.machine.cpu,
                    run.machine.cores,
                    bytes(run.machine.memory_bytes),
                    run.machine.kernel
                ),
            ),
            row(
                "program",
                format!(
                    "parsec {}, {} profile, commit {commit}{modified}",
                    run.versions.parsec, run.versions.profile
                ),
            ),
        ];
        self.table(&[], &rows);
        self.heading("How to do it again");
        self.add(format_args!("<pre>{}</pre>", escape(&shell(&run.command))));
    }

    fn caveats(&mut self, run: &Run) {
        self.heading("What this does not show");
        let mut caveats = run.caveats.clone();
        caveats.push(
            "Shared machines drift by a fifth and more from run to run: compare runs that were \
             made in turns, with `parsec bench compare`, and ratios rather than absolute figures."
                .to_owned(),
        );
        let items: String =
            caveats.iter().map(|caveat| format!("<li>{}</li>", escape(caveat))).collect();
        self.add(format_args!("<ul>{items}</ul>"));
    }
}

fn timed(repeat: &Repeat, value: f64) -> Option<f64> {
    (repeat.latency.count > 0).then_some(value)
}

fn point_name(point: &Point) -> String {
    let hosts = match point.hosts {
        0 => "cluster".to_owned(),
        1 => "1 host".to_owned(),
        hosts => format!("{hosts} hosts"),
    };
    match point.multi_partition {
        Some(share) => format!("{hosts}, {:.0} % multi-partition", share * 100.0),
        None => hosts,
    }
}

fn point_row(run: &Run, point: &Point) -> Vec<String> {
    let cell = |of: fn(&Repeat) -> Option<f64>| match point.spread(of) {
        Some(MedianRange { median, min, max }) => {
            format!("{} ({} to {})", short(median), short(min), short(max))
        }
        None => "not known".to_owned(),
    };
    vec![
        point.hosts.to_string(),
        point
            .multi_partition
            .map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
        cell(|repeat| Some(repeat.tps)),
        run.efficiency(point)
            .map_or_else(|| "–".to_owned(), |efficiency| format!("{efficiency:.2}")),
        cell(|repeat| timed(repeat, repeat.latency.p50_ms)),
        cell(|repeat| timed(repeat, repeat.latency.p99_ms)),
        cell(Repeat::cpu_micros),
        match point.used_up() {
            None => "not known".to_owned(),
            Some(names) if names.is_empty() => "nothing".to_owned(),
            Some(names) => names.join(", "),
        },
        if point.verification.verified { "yes" } else { "NO" }.to_owned(),
    ]
}

fn describe_pace(run: &Run) -> String {
    match run.load.pace {
        Pace::Closed => format!(
            "Closed loop: up to {} transactions in flight, and as those are answered, as many are \
             sent",
            thousands(run.load.in_flight as f64)
        ),
        Pace::Open { rate, pacing, .. } => format!(
            "Open loop: {} transactions per second whatever the cluster does ({} distances), \
             latency from the intended start, at most {} in flight",
            thousands(rate),
            match pacing {
                crate::record::Pacing::Poisson => "random",
                crate::record::Pacing::Fixed => "equal",
            },
            thousands(run.load.in_flight as f64)
        ),
    }
}

/// A number of things.
fn several(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn describe_cluster(run: &Run) -> String {
    let cluster = &run.cluster;
    let how = match cluster.how {
        Deployment::Embedded => "all in one process",
        Deployment::Processes => "a process each on one machine",
        Deployment::Namespaces => "a process each in a network namespace of its own",
        Deployment::Remote => "machines of their own",
        Deployment::Existing => "a cluster that was there",
    };
    let mut parts = vec![how.to_owned()];
    if cluster.hosts > 0 {
        parts.push(format!(
            "{} of {}, each with {}",
            several(u32::from(cluster.hosts), "executor host"),
            several(u32::from(cluster.partitions_per_host), "partition"),
            several(u32::from(cluster.workers_per_partition), "worker")
        ));
    }
    if cluster.together {
        parts.push(match cluster.how {
            Deployment::Embedded => "nodes linked by memory".to_owned(),
            _ => "the sequencer in the process of host 1, linked by memory".to_owned(),
        });
    }
    let percent = |share: f64| format!("{} % of a core", short(share * 100.0));
    parts.extend(cluster.quota.map(|quota| format!("each host may use {}", percent(quota))));
    parts.extend(cluster.sequencer_quota.map(|quota| format!("the sequencer {}", percent(quota))));
    parts.extend(cluster.delay_ms.map(|delay| format!("{} ms of delay one way", short(delay))));
    parts.extend(cluster.loss.map(|loss| format!("{} % of packets lost", short(loss * 100.0))));
    parts.extend(cluster.notes.iter().cloned());
    parts.join("; ")
}
