use proptest::prelude::*;

use super::*;
use crate::record::tests::example;
use crate::record::{
    Cost, CpuUse, MemorySample, ModelPoint, Probe, Resources, Role, RunKind, Search, Usl, UslPoint,
};

/// A run of several points with everything that a report can show.
fn rich() -> Run {
    let mut run = example(&[900.0, 1_000.0, 1_100.0], &[500, 1_500, 20_000, 400_000]);
    let mut other = run.points[0].clone();
    other.hosts = 4;
    run.points.push(other);
    run.usl = vec![Usl {
        multi_partition: Some(0.1),
        lambda: 500.0,
        sigma: 0.02,
        kappa: 0.001,
        r_squared: 0.99,
        points: vec![UslPoint { hosts: 2, measured_tps: 1.0, fitted_tps: 1.0, efficiency: 0.97 }],
    }];
    run.model = [2, 256]
        .map(|hosts| ModelPoint {
            hosts,
            multi_partition: 0.1,
            variant: "one token".into(),
            tps: 1_000.0 * f64::from(hosts),
            p50_ms: 5.0,
            p99_ms: 9.0,
            mbit_per_host: 80.0,
            saturated: "<sequencer>".into(),
            measured_tps: None,
        })
        .to_vec();
    let probe = |rate: f64, kept| Probe {
        rate,
        tps: rate,
        p50_ms: 2.0,
        p99_ms: rate / 100.0,
        kept,
        reason: "p99<50ms".into(),
    };
    run.search = Some(Search {
        objective: "p99<50ms".into(),
        probes: vec![probe(1_000.0, true), probe(8_000.0, false)],
        found: Some(1_000.0),
    });
    if let Some(lines) = &mut run.lines {
        lines.costs.push(Cost { stage: "signature recovery".into(), micros: 40.0 });
    }
    run
}

fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

#[test]
fn a_page_is_whole_and_needs_nothing_else() {
    let page = html(&rich());
    for tag in ["svg", "figure", "table", "ul", "details", "main", "g", "div"] {
        let (opened, closed) =
            (count(&page, &format!("<{tag}")), count(&page, &format!("</{tag}>")));
        let self_closed = if tag == "g" { opened.min(closed) } else { opened };
        assert_eq!(self_closed, closed, "{tag}");
    }
    // One picture for each figure, and nothing from elsewhere.
    assert_eq!(count(&page, "<svg"), count(&page, "<figure"));
    assert!(count(&page, "<svg") >= 12, "{}", count(&page, "<svg"));
    for foreign in ["http://", "https://", "<script", "@import", "url(", "src="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf,"));
    assert!(
        page.contains("&lt;rejected&gt; &amp; more") && page.contains("A &amp; B &lt;fast&gt;")
    );
}

#[test]
fn the_chart_of_memory_leaves_the_load_generator_out() {
    let mut run = rich();
    let Resources { cpu, memory_samples, .. } = &mut run.points[0].repeats[2].resources;
    let generator = || "what sends".to_owned();
    cpu.push(CpuUse { host: generator(), role: Role::Client, stage: "main".into(), seconds: 1.0 });
    memory_samples.push(MemorySample { host: generator(), end: 1.0, bytes: 1 << 40 });
    let chart = charts::memory(&run, &run.points[0]).unwrap();
    assert!(chart.contains("host-1, second") && !chart.contains(&generator()), "{chart}");
}

#[test]
fn what_is_not_verified_says_so_first() {
    let mut run = rich();
    assert!(!html(&run).contains("UNVERIFIED"));
    run.points[0].verification.verified = false;
    let page = html(&run);
    assert!(page.find("UNVERIFIED").unwrap() < page.find("<h2>").unwrap());
}

#[test]
fn a_run_with_nothing_in_it_is_still_a_page() {
    let mut run = example(&[], &[]);
    run.lines = None;
    assert!(html(&run).contains("</html>"));
    run.points.clear();
    assert!(html(&run).contains("UNVERIFIED"));
}

#[test]
fn one_thread_is_drawn_where_it_is_or_said_to_be_above() {
    let mut run = rich();
    run.kind = RunKind::Scale;
    let lines = run.lines.as_mut().unwrap();
    // Two hosts do a thousand; so does the thread, about.
    (lines.one_thread_with_signatures_tps, lines.one_thread_tps) = (1_200.0, 250_000.0);
    let page = html(&run);
    assert!(page.contains("checking signatures: 1,200/s<"), "it is on the chart");
    assert!(page.contains("no signatures: 250,000/s, above this chart<"));
}

#[test]
fn a_cost_that_is_unavoidable_belongs_to_its_stage() {
    let mut run = rich();
    assert!(html(&run).contains("unavoidable: execution"), "no stage does that here");
    for repeat in run.points.iter_mut().flat_map(|point| &mut point.repeats) {
        repeat.resources.cpu[0].stage = "scheduling, execution".into();
    }
    assert!(!html(&run).contains("unavoidable: execution"));
}

#[test]
fn few_doubts_stand_before_the_results_and_none_is_lost() {
    let mut run = rich();
    let repeat = run.points[0].repeats[0].clone();
    run.points[0].repeats = vec![repeat; 9];
    for repeat in &mut run.points[0].repeats {
        repeat.counts.lost = 1;
        repeat.steady.steady = Some(false);
    }
    let all: usize = run.points.iter().map(|point| doubts(run.load.pace, point).len()).sum();
    assert!(all >= 9, "{all}");
    let page = html(&run);
    let list = &page[page.find("<ul class=\"warn\">").unwrap()..];
    let shown = &list[..list.find("<details>").unwrap()];
    assert_eq!(count(shown, "repeat "), 6, "{shown}");
    assert!(page.contains(&format!("and {} more like these", all - 6)));
}

#[test]
fn every_sample_is_a_line() {
    let csv = samples(&rich());
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 3);
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{csv}");
    assert_eq!(lines[1], "2,0.1,1,1.000,1.000,measuring,10,10,10,9,1,3,1.500,,2.000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_name_becomes_markup(name in any::<String>()) {
        let mut run = example(&[1.0], &[1]);
        let evil = format!("</title><script>{name}\"'");
        run.name.clone_from(&evil);
        run.workload.name.clone_from(&evil);
        run.command.push(evil.clone());
        run.caveats.push(evil.clone());
        run.cluster.notes.push(evil.clone());
        run.points[0].verification.checks[0].detail.clone_from(&evil);
        run.points[0].repeats[0].resources.cpu[0].host.clone_from(&evil);
        run.points[0].repeats[0].resources.cpu[0].stage = evil;
        let page = html(&run);
        prop_assert!(!page.contains("<script"));
        prop_assert_eq!(page.matches("</title>").count(), page.matches("<title>").count());
    }
}
