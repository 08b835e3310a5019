use hdrhistogram::Histogram;
use proptest::prelude::*;

use super::*;

fn histogram(micros: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 120_000_000, 3).unwrap();
    micros.iter().for_each(|value| histogram.record(*value).unwrap());
    histogram
}

fn repeat(tps: f64, latencies: &[u64]) -> Repeat {
    Repeat {
        seconds: 10.0,
        tps,
        counts: Counts { offered: 100, sent: 100, completed: 100, ..Counts::default() },
        failures: [("Busy".to_owned(), 3)].into(),
        first_failure: Some("<rejected> & more".into()),
        latency: Latency::new(&histogram(latencies)),
        samples: vec![Sample {
            end: 1.0,
            seconds: 1.0,
            phase: Phase::Measuring,
            offered: 10,
            sent: 10,
            accepted: 10,
            committed: 9,
            failed: 1,
            in_flight: 3,
            p50_ms: Some(1.5),
            p99_ms: None,
            max_ms: Some(2.0),
        }],
        steady: Steady {
            steady: Some(true),
            first_half_tps: 9.0,
            second_half_tps: 9.5,
            trend: 0.01,
            variation: 0.02,
            tolerance: 0.1,
        },
        generator: Generator::default(),
        resources: Resources {
            cpu: vec![CpuUse {
                host: "host-1".into(),
                role: Role::Executor,
                stage: "execution".into(),
                seconds: 0.5,
            }],
            memory_samples: vec![MemorySample { host: "host-1".into(), end: 1.0, bytes: 1 << 20 }],
            ..Resources::default()
        },
        lines: None,
    }
}

/// A run with something in each of its lists.
pub(crate) fn example(tps: &[f64], latencies: &[u64]) -> Run {
    let check = Check {
        kind: CheckKind::Audit,
        result: CheckResult::Passed,
        detail: "sums are right".into(),
        transactions: Some(100),
    };
    Run {
        schema: SCHEMA,
        name: "example".into(),
        kind: RunKind::Plain,
        started_ms: 1_800_000_000_000,
        took_seconds: 20.5,
        command: vec!["parsec".into(), "bench".into()],
        machine: Machine { cpu: "A & B <fast>".into(), cores: 2, ..Machine::default() },
        versions: Versions { profile: "release".into(), ..Versions::default() },
        workload: WorkloadRecord {
            name: "erc20".into(),
            spec: serde_json::json!({ "workload": "erc20", "seed": 7 }),
        },
        load: LoadSettings {
            pace: Pace::Open { rate: 1_000.0, pacing: Pacing::Poisson, seed: 3 },
            in_flight: 2_000,
            batch: 250,
            connections: 4,
            warm_up_seconds: 2.0,
            seconds: 10.0,
            repeats: 3,
        },
        cluster: ClusterRecord { hosts: 2, quota: Some(0.08), ..ClusterRecord::default() },
        points: vec![Point {
            hosts: 2,
            multi_partition: Some(0.1),
            repeats: tps.iter().map(|tps| repeat(*tps, latencies)).collect(),
            verification: Verification { verified: true, checks: vec![check] },
        }],
        search: None,
        lines: Some(Lines {
            one_thread_tps: 250_000.0,
            one_thread_with_signatures_tps: 20_000.0,
            costs: vec![Cost { stage: "execution".into(), micros: 4.0 }],
        }),
        usl: Vec::new(),
        model: Vec::new(),
        caveats: vec!["client and cluster share a machine".into()],
    }
}

proptest! {
    #[test]
    fn a_run_survives_its_file(
        // Eighths: what a run's numbers are rounded by when they are read is no matter here.
        tps in prop::collection::vec((0u32..8_000_000).prop_map(|tps| f64::from(tps) / 8.0), 1..4),
        latencies in prop::collection::vec(1u64..120_000_000, 0..50),
    ) {
        let mut run = example(&tps, &latencies);
        run.points[0].repeats[0].lines = run.lines.clone();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&run).unwrap()).unwrap();
        prop_assert_eq!(&Run::read(&file).unwrap(), &run);
        prop_assert_eq!(&Run::read(directory.path()).unwrap(), &run);
        let read = run.points[0].repeats[0].latency.histogram.read().unwrap().unwrap();
        prop_assert_eq!(read, histogram(&latencies));
    }

    #[test]
    fn merged_histograms_equal_one_of_everything(
        parts in prop::collection::vec(prop::collection::vec(1u64..120_000_000, 0..40), 1..6),
    ) {
        let mut merged = histogram(&[]);
        for part in &parts {
            let text = HistogramText::new(&histogram(part));
            merged.add(text.read().unwrap().unwrap()).unwrap();
        }
        let all: Vec<u64> = parts.concat();
        prop_assert_eq!(Latency::new(&merged), Latency::new(&histogram(&all)));
    }

    #[test]
    fn the_median_is_in_the_middle(values in prop::collection::vec(-1e9..1e9f64, 1..20)) {
        let spread = MedianRange::of(values.iter().copied()).unwrap();
        prop_assert!(spread.min <= spread.median && spread.median <= spread.max);
        let below = values.iter().filter(|value| **value < spread.median).count();
        let above = values.iter().filter(|value| **value > spread.median).count();
        prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
    }
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.json");
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Run::read(directory.path()).unwrap_err()
    };
    assert!(matches!(read("{"), BadRun::NotARun { .. }));
    assert!(matches!(read("{}"), BadRun::NotARun { .. }));
    assert!(matches!(read(r#"{"schema": 2}"#), BadRun::Schema { found: 2, .. }));
    assert!(matches!(read(r#"{"schema": 1}"#), BadRun::NotARun { .. }));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(Run::read(directory.path()), Err(BadRun::Unread { .. })));
}

#[test]
fn a_damaged_histogram_is_an_error_and_none_is_none() {
    assert_eq!(HistogramText::default().read(), Ok(None));
    let bad: HistogramText = serde_json::from_str("\"AAAA\"").unwrap();
    assert!(bad.read().is_err());
    let bad: HistogramText = serde_json::from_str("\"%\"").unwrap();
    assert!(bad.read().is_err());
}

#[test]
fn the_law_and_the_limit_are_their_formulas() {
    let usl = Usl {
        multi_partition: None,
        lambda: 100.0,
        sigma: 0.1,
        kappa: 0.01,
        r_squared: 1.0,
        points: Vec::new(),
    };
    assert!((usl.at(1.0) - 100.0).abs() < 1e-9);
    assert!((usl.at(3.0) - 300.0 / 1.26).abs() < 1e-9);
    let cost = |micros| Cost { stage: "x".into(), micros };
    let lines = Lines { costs: vec![cost(40.0), cost(10.0)], ..Lines::default() };
    assert_eq!(lines.limit_tps(2.0), Some(40_000.0));
    assert_eq!(Lines::default().limit_tps(2.0), None);
}

#[test]
fn lines_are_medians_stage_by_stage() {
    assert_eq!(Lines::median(&[]), None);
    let measured = |tps: f64, micros: [f64; 2]| {
        let cost = |(stage, micros): (&str, f64)| Cost { stage: stage.into(), micros };
        Lines {
            one_thread_tps: tps,
            one_thread_with_signatures_tps: tps / 10.0,
            costs: ["admission", "log"].into_iter().zip(micros).map(cost).collect(),
        }
    };
    // Each of the medians is of another measurement.
    let all = [measured(20.0, [3.0, 9.0]), measured(10.0, [2.0, 7.0]), measured(30.0, [1.0, 8.0])];
    let median = Lines::median(&all.each_ref());
    assert_eq!(median, Some(measured(20.0, [2.0, 8.0])));
}

#[test]
fn efficiency_is_by_the_smallest_cluster_of_the_same_share() {
    let mut run = example(&[], &[]);
    let point = |hosts, share, tps: &[f64]| {
        let mut point = example(tps, &[]).points.remove(0);
        (point.hosts, point.multi_partition) = (hosts, Some(share));
        point
    };
    run.points = vec![
        point(8, 0.0, &[700.0, 600.0, 900.0]),
        point(2, 0.0, &[200.0]),
        point(1, 1.0, &[10.0]),
        point(4, 1.0, &[]),
    ];
    let efficiency: Vec<_> = run.points.iter().map(|point| run.efficiency(point)).collect();
    assert_eq!(efficiency, [Some(0.875), Some(1.0), Some(1.0), None]);
}

#[test]
fn who_was_at_its_limit_in_most_repeats_was_at_its_limit() {
    let mut point = example(&[1.0, 1.0, 1.0], &[]).points.remove(0);
    assert_eq!(point.used_up(), None);
    for (repeat, names) in
        point.repeats.iter_mut().zip([vec!["hosts"], vec!["machine"], vec!["hosts", "sequencer"]])
    {
        repeat.resources.limits.used_up = Some(names.into_iter().map(str::to_owned).collect());
    }
    assert_eq!(point.used_up(), Some(vec!["hosts"]));
}
