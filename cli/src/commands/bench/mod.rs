//! `parsec bench`: measures a cluster under load, verifies what came of it, and writes it down.

#![allow(clippy::float_arithmetic, reason = "figures for people; nothing here is replicated")]

mod cluster_files;
mod compare;
mod dashboard;
pub(crate) mod environment;
mod limit;
mod live;
mod run;
mod scale;
mod session;
mod summary;
mod supply;
mod tested;
mod verify;

use std::path::Path;

use parsec_bench::record::Run;
use parsec_bench::report;
use parsec_bench::workload::WorkloadName;

use crate::args::{BenchArgs, BenchCommand};
use crate::failure::{Context, Failure, failed};

/// Measures, compares, or lists.
///
/// # Errors
/// If a part of it fails, the result is not verified, or it misses what was asserted of it.
pub async fn bench(args: BenchArgs) -> Result<(), Failure> {
    match args.command {
        None => run::run(&args.run).await,
        Some(BenchCommand::Compare(args)) => compare::compare(&args),
        Some(BenchCommand::Report { run }) => report_again(&run),
        Some(BenchCommand::Scale(args)) => scale::scale(&args).await,
        Some(BenchCommand::Cluster(args)) => cluster_files::write(&args),
        Some(BenchCommand::Workloads) => print(&list_workloads()),
    }
}

/// Writes run.json, samples.csv and report.html into a directory, which is made.
pub(crate) fn write(run: &Run, directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).context(directory.display())?;
    let mut json = serde_json::to_vec_pretty(run).map_err(failed)?;
    json.push(b'\n');
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).context(path.display())
    };
    file("run.json", &json)?;
    file("samples.csv", report::samples(run).as_bytes())?;
    file("report.html", report::html(run).as_bytes())
}

/// Writes to standard output. That nobody reads on, as behind `| head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(()),
    }
}

fn report_again(path: &Path) -> Result<(), Failure> {
    let run = Run::read(path).map_err(failed)?;
    let directory =
        if path.is_dir() { path } else { path.parent().unwrap_or_else(|| Path::new(".")) };
    write(&run, directory)?;
    eprintln!("{}", directory.join("report.html").display());
    Ok(())
}

fn list_workloads() -> String {
    let mut text = String::new();
    for workload in WorkloadName::ALL {
        text.push_str(&format!("{workload}\n  {}\n", workload.describe().replace('\n', "\n  ")));
        let knobs: Vec<_> = workload.knobs().iter().map(|knob| flag(knob)).collect();
        text.push_str(&format!("  knobs: {}\n\n", knobs.join(" ")));
    }
    text
}

/// The option that sets a knob.
fn flag(knob: &str) -> String {
    match knob {
        "spread" => "--multi-partition --participants".to_owned(),
        knob => format!("--{}", knob.replace('_', "-")),
    }
}
