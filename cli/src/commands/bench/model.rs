//! `parsec bench model`: what clusters of many hosts would do, by a model that is fitted to a
//! measured run and checked against it.

#![allow(
    clippy::float_arithmetic,
    reason = "what a model says is for people; nothing here is replicated"
)]

use std::path::Path;

use parsec_bench::record::Run;
use parsec_model::calibrate::{Assumed, Check};
use parsec_model::predict::{Assumptions, Prediction, Report, predict};
use parsec_model::{Admission, Costs, Link, Stage};

use crate::args::ModelArgs;
use crate::failure::{Context, Failure, failed};

/// Predicts, prints, and writes the report.
///
/// # Errors
/// If the run can't be read or modelled, or the report not written.
pub(super) fn model(args: &ModelArgs) -> Result<(), Failure> {
    let mut run = Run::read(&args.from).map_err(failed)?;
    let assumptions = assumptions(args, &run);
    let assumed = Assumed { sync_us: assumptions.sync_us, link: assumptions.link };
    let report = predict(&run, &assumed, &assumptions, &|what| eprintln!("MODEL: {what}"))
        .map_err(failed)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(failed)?);
    } else {
        print(&report);
    }
    if let Some(out) = &args.out {
        run.model = report.points();
        run.caveats.extend(report.caveats());
        super::write(&run, out)?;
        write(&report, out)?;
        eprintln!("{}", out.join("report.html").display());
    }
    Ok(())
}

fn assumptions(args: &ModelArgs, run: &Run) -> Assumptions {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
    let shares: Vec<Option<f64>> = match args.multi_partition.is_empty() {
        true => vec![None],
        false => args.multi_partition.iter().copied().map(Some).collect(),
    };
    let multiple = args.tokens.iter().copied().max().unwrap_or(1);
    Assumptions {
        hosts: args.hosts.clone(),
        tokens: args.tokens.clone(),
        accounts: args.accounts.next_multiple_of(multiple),
        shares,
        host_cores: args.cores_per_host.or(run.cluster.quota).unwrap_or(1.0),
        sequencer_cores: args.sequencer_cores,
        partitions_per_host: args.partitions.unwrap_or(run.cluster.partitions_per_host).max(1),
        workers_per_partition: args.workers.unwrap_or(run.cluster.workers_per_partition).max(1),
        link: Link {
            bits_per_second: Some(args.link_gbit * 1e9),
            latency_us: micros(args.link_latency),
            ..Link::default()
        },
        sync_us: micros(args.sync),
        in_flight_per_host: count(args.in_flight),
        in_flight_max: count(args.in_flight_max),
        batch: count(args.batch),
        gateways: !args.as_built,
    }
}

fn write(report: &Report, directory: &Path) -> Result<(), Failure> {
    let path = directory.join("model.json");
    let mut json = serde_json::to_vec_pretty(report).map_err(failed)?;
    json.push(b'\n');
    std::fs::write(&path, json).context(path.display())
}

fn print(report: &Report) {
    println!("MODEL, not measured: {}, costs from the run {}", report.workload, report.from);
    print_costs(&report.calibration.costs);
    print_checks(&report.calibration.checks);
    let mut variants: Vec<&str> = Vec::new();
    for prediction in &report.predictions {
        if !variants.contains(&prediction.variant.as_str()) {
            variants.push(&prediction.variant);
        }
    }
    for variant in variants {
        let of_variant = report.predictions.iter().filter(|next| next.variant == variant);
        print_predictions(variant, &of_variant.collect::<Vec<_>>());
    }
    println!();
    report.caveats().iter().for_each(|caveat| println!("{caveat}"));
}

fn print_costs(costs: &Costs) {
    println!("\nCosts fitted to the run, microseconds of a core:");
    for stage in Stage::ALL.into_iter().filter(|stage| costs.0.contains_key(stage)) {
        let cost = costs.of(stage);
        let owner = match stage {
            Stage::Generator => "client",
            stage if stage.is_of_sequencer() => "sequencer",
            _ => "host",
        };
        let (name, micros) = (stage.name(), cost.transaction);
        let mut line = format!("  {owner:<10}{name:<24}{micros:>9.2} transaction");
        let others = [(stage.part(), cost.part), (stage.event(), cost.event)];
        for (unit, micros) in others.iter().filter(|(_, micros)| *micros > 0.0) {
            line.push_str(&format!("; {micros:.2} {}", unit.unwrap_or_default()));
        }
        println!("{line}");
    }
}

fn print_checks(checks: &[Check]) {
    println!("\nMODEL against what was measured:");
    println!(
        "{:>6} {:>7} {:>11} {:>11} {:>8} {:>17} {:>17} {:>15} {:>17}  MODEL: used up first",
        "hosts",
        "multi",
        "measured/s",
        "MODEL/s",
        "error",
        "p50 ms (MODEL)",
        "p99 ms (MODEL)",
        "CPU us (MODEL)",
        "seq. Mbit/s sent"
    );
    for check in checks {
        let pair = |measured: f64, model: f64| format!("{measured:.1} ({model:.1})");
        println!(
            "{:>6} {:>7} {:>11.0} {:>11.0} {:>+7.1}% {:>17} {:>17} {:>15} {:>17}  {}{}",
            check.hosts,
            percent(check.model.multi_partition),
            check.measured_tps,
            check.model.tps,
            check.error * 100.0,
            pair(check.measured_p50_ms, check.model.p50_ms),
            pair(check.measured_p99_ms, check.model.p99_ms),
            pair(check.measured_micros, check.model_micros),
            check.measured_sequencer_mbit.map_or_else(
                || "-".to_owned(),
                |measured| { pair(measured, check.model.wire.sequencer_sent_mbit) }
            ),
            saturated(check.model.saturated(), check.model.utilisation()),
            if check.held_out { " [fitted without this number of hosts]" } else { "" },
        );
    }
}

fn print_predictions(variant: &str, predictions: &[&Prediction]) {
    println!("\nMODEL, {variant}:");
    println!(
        "{:>6} {:>7} {:>11} {:>10} {:>9} {:>9} {:>12} {:>12} {:>9}  used up first",
        "hosts",
        "multi",
        "tps",
        "efficiency",
        "p50 ms",
        "p99 ms",
        "Mbit/s host",
        "Mbit/s seq.",
        "in flight"
    );
    for prediction in predictions {
        let outcome = &prediction.outcome;
        println!(
            "{:>6} {:>7} {:>11.0} {:>10.3} {:>9.1} {:>9.1} {:>12.2} {:>12.1} {:>9}  {}",
            outcome.hosts,
            percent(outcome.multi_partition),
            outcome.tps,
            prediction.efficiency,
            outcome.p50_ms,
            outcome.p99_ms,
            outcome.wire.host_sent_mbit.max(outcome.wire.host_received_mbit),
            outcome.wire.sequencer_sent_mbit.max(outcome.wire.sequencer_received_mbit),
            prediction.in_flight,
            saturated(outcome.saturated(), outcome.utilisation()),
        );
    }
    if predictions.iter().any(|next| next.admission != Admission::Sequencer) {
        println!("  Admission at gateways is not built.");
    }
}

fn saturated(what: String, utilisation: f64) -> String {
    format!("{what} ({})", percent(utilisation))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
