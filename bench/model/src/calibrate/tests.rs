//! A run that the model itself made, with costs that are known: they have to be found again.

use parsec_bench::record::Run;
use parsec_bench::workload::{WorkloadName, WorkloadSpec};
use serde_json::{Value, json};

use super::*;
use crate::predict::{Assumptions, predict};

const ASSUMED: Assumed = Assumed {
    sync_us: 1_000.0,
    link: Link {
        bits_per_second: Some(1e9),
        latency_us: 100.0,
        packet_bytes: 1_432,
        header_bytes: 106,
    },
};

/// Costs that are known.
fn costs() -> Costs {
    let cost = |transaction, part, event| Cost { transaction, part, event };
    Costs(BTreeMap::from([
        (Stage::Admission, cost(6.0, 0.0, 0.0)),
        (Stage::Ordering, cost(9.0, 0.0, 12.0)),
        (Stage::Log, cost(2.0, 0.0, 30.0)),
        (Stage::Dispatch, cost(1.0, 0.5, 2.0)),
        (Stage::Index, cost(1.5, 0.0, 0.0)),
        (Stage::Execution, cost(8.0, 4.0, 10.0)),
        (Stage::Storage, cost(10.0, 0.0, 20.0)),
        (Stage::Messages, cost(4.0, 2.0, 12.0)),
        (Stage::Generator, cost(5.0, 0.0, 0.0)),
    ]))
}

/// The name under which a run lists a stage, and whose it is.
fn listed(stage: Stage) -> (&'static str, &'static str, &'static str) {
    match stage {
        Stage::Admission => ("sequencer", "sequencer", "admission"),
        Stage::Ordering => ("sequencer", "sequencer", "network"),
        Stage::Log => ("sequencer", "sequencer", "log"),
        Stage::Dispatch => ("sequencer", "sequencer", "dispatch"),
        Stage::Index => ("sequencer", "sequencer", "storage"),
        Stage::Execution => ("host-1", "executor", "scheduling, execution"),
        Stage::Storage => ("host-1", "executor", "storage"),
        Stage::Messages => ("host-1", "executor", "network"),
        Stage::Generator => ("client", "client", "load generator"),
    }
}

fn point(hosts: u16, share: f64, outcome: &Outcome) -> Value {
    let costs = costs();
    let cpu = outcome.work.iter().map(|(stage, work)| {
        let (host, role, name) = listed(*stage);
        let seconds = costs.of(*stage).micros(*work) / 1e6;
        json!({ "host": host, "role": role, "stage": name, "seconds": seconds })
    });
    let latency = json!({
        "count": 1, "mean_ms": 1.0, "p50_ms": outcome.p50_ms, "p90_ms": 1.0, "p95_ms": 1.0,
        "p99_ms": outcome.p99_ms, "p999_ms": 1.0, "p9999_ms": 1.0, "max_ms": 1.0, "histogram": "",
    });
    let mut counts = json!({ "completed": outcome.transactions });
    for name in [
        "offered",
        "sent",
        "accepted",
        "committed",
        "reverted",
        "invalid",
        "rejected",
        "lost",
        "unsent",
        "strayed",
        "retried",
        "late",
    ] {
        counts[name] = json!(0);
    }
    let repeat = json!({
        "seconds": outcome.seconds, "tps": outcome.tps, "counts": counts, "latency": latency,
        "first_failure": null, "samples": [],
        "steady": {
            "steady": true, "first_half_tps": 1.0, "second_half_tps": 1.0, "trend": 0.0,
            "variation": 0.0, "tolerance": 0.1,
        },
        "generator": {
            "limited": false, "reasons": [], "timer_p99_ms": 0.0, "pacing_p99_ms": null,
            "cores_used": null,
        },
        "resources": { "cpu": cpu.collect::<Vec<_>>() },
    });
    let verification = json!({ "verified": true, "checks": [] });
    json!({
        "hosts": hosts, "multi_partition": share, "repeats": [repeat],
        "verification": verification,
    })
}

/// A run without points.
fn empty() -> Run {
    let spec = WorkloadSpec::new(WorkloadName::NativeTransfer, 3, 0xcbdc);
    let spec = WorkloadSpec { accounts: Some(2_000), ..spec };
    let run = json!({
        "schema": parsec_bench::record::SCHEMA, "name": "made by the model", "kind": "scale",
        "started_ms": 0, "took_seconds": 1.0, "command": [],
        "machine": { "cpu": "none", "cores": 8, "memory_bytes": 0, "kernel": "none" },
        "versions": { "parsec": "0", "commit": null, "modified": null, "profile": "release" },
        "workload": { "name": "transfers", "spec": spec },
        "load": {
            "pace": { "loop": "closed" }, "in_flight": 400, "batch": 50, "connections": 2,
            "warm_up_seconds": 0.0, "seconds": 1.0, "repeats": 1,
        },
        "cluster": {
            "how": "namespaces", "hosts": 4, "partitions_per_host": 1,
            "workers_per_partition": 1, "quota": 0.1, "sequencer_quota": 1.0, "delay_ms": null,
            "loss": null, "notes": [],
        },
        "points": [], "search": null, "lines": null,
    });
    serde_json::from_value(run).unwrap()
}

/// A run of which the model made the points.
fn made() -> Run {
    let mut run = empty();
    let mut points = Vec::new();
    for (hosts, share) in [(1, 0.0), (2, 0.0), (2, 1.0), (4, 0.0), (4, 0.5), (4, 1.0)] {
        // How many are in flight depends on the most hosts among the points.
        run.points = vec![serde_json::from_value(point(4, 0.0, &nothing())).unwrap()];
        let options = options(&run, &ASSUMED, hosts);
        let spec = spread(&workload(&run).unwrap(), options.partitions(), Some(share));
        let load = Load::build(&spec, 6_000).unwrap();
        let outcome = Simulation::new(&load, &costs(), options).unwrap().run().unwrap();
        points.push(serde_json::from_value(point(hosts, share, &outcome)).unwrap());
    }
    run.points = points;
    run
}

fn nothing() -> Outcome {
    let load = Load::build(&workload(&empty()).unwrap(), 500).unwrap();
    let run = empty();
    let options = Options { in_flight: 20, ..options(&run, &ASSUMED, 1) };
    Simulation::new(&load, &costs(), options).unwrap().run().unwrap()
}

#[test]
fn costs_that_are_known_are_found_again_and_predict_what_was_left_out() {
    let run = made();
    let calibration = calibrate(&run, &ASSUMED, &|_| ()).unwrap();
    assert_eq!(calibration.checks.len(), 6 + 3, "the largest number of hosts twice");
    for check in &calibration.checks {
        let most = if check.held_out { 0.15 } else { 0.08 };
        assert!(check.error.abs() < most, "{check:?}");
        assert!((check.model_micros / check.measured_micros - 1.0).abs() < most, "{check:?}");
    }
    let execution = calibration.costs.of(Stage::Execution);
    assert!((execution.transaction - 8.0).abs() < 2.5, "{execution:?}");
    assert!((execution.part - 4.0).abs() < 1.5, "{execution:?}");
    assert!((calibration.costs.of(Stage::Messages).event - 12.0).abs() < 4.0, "{calibration:?}");
}

#[test]
fn the_same_run_gives_the_same_report_byte_for_byte() {
    let run = made();
    let assumptions = Assumptions {
        hosts: vec![1, 16],
        tokens: vec![1],
        accounts: 1_000,
        shares: vec![None, Some(0.1)],
        host_cores: 0.1,
        sequencer_cores: 1.0,
        partitions_per_host: 1,
        workers_per_partition: 1,
        link: ASSUMED.link,
        sync_us: 1_000.0,
        in_flight_per_host: 100,
        in_flight_max: 800,
        batch: 50,
        gateways: true,
    };
    let text = || {
        let report = predict(&run, &ASSUMED, &assumptions, &|_| ()).unwrap();
        assert_eq!(report.predictions.len(), 2 * 2 * 2);
        assert!(report.points().iter().any(|point| point.measured_tps.is_some()));
        assert!(report.caveats().iter().all(|caveat| caveat.starts_with("MODEL")));
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(text(), text());
}

#[test]
fn a_run_that_says_nothing_of_stages_is_refused() {
    let mut run = made();
    for used in run.points.iter_mut().flat_map(|point| &mut point.repeats) {
        used.resources.cpu.retain(|used| used.role == Role::Client);
    }
    assert!(matches!(measured(&run), Err(Unfit::NoCosts(_))));
    run.points.clear();
    assert!(matches!(calibrate(&run, &ASSUMED, &|_| ()), Err(Unfit::NoCosts(_))));
}
