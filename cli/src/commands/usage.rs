//! `parsec usage`: what a process on this machine uses, for a benchmark on another one.

use std::io::{BufRead, Write};
use std::path::Path;

use crate::args::UsageArgs;
use crate::commands::bench::environment;
use crate::failure::{Context, Failure, failed};
use crate::processes::remote::{MachineReport, NodeReport};
use crate::processes::usage::{ProcessUsage, directory_bytes, machine_network};

/// Says what this machine is, and then for each line of standard input what the process has used so
/// far, as a line of JSON; until that ends.
///
/// # Errors
/// If there is no such process.
pub fn usage(args: &UsageArgs) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.process).context(args.process.display())?;
    let process = text.trim().parse().context(args.process.display())?;
    say(&MachineReport { machine: environment::machine() })?;
    for line in std::io::stdin().lock().lines() {
        line.context("standard input")?;
        say(&report(process, &args.log)?)?;
    }
    Ok(())
}

fn report(process: u32, log: &Path) -> Result<NodeReport, Failure> {
    let mut usage = ProcessUsage::of(process)?;
    if usage.network.is_none() {
        usage.network = Some(machine_network()?);
    }
    Ok(NodeReport { usage, log_bytes: directory_bytes(log)? })
}

fn say(report: &impl serde::Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(report).map_err(failed)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).context("standard output")
}
