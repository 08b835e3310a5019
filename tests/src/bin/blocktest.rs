//! Runs Ethereum's tests of blocks through Parsec.
//!
//! `blocktest PATH...` runs the tests in these files and directories. It prints each test that fails
//! and why, each reason for which tests were skipped, and how many passed, failed and were
//! skipped. The exit code is 0 only if none failed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use parsec_tests::blocktest::{Runner, run_file};
use parsec_tests::conformance;

/// Runs Ethereum's tests of blocks through Parsec.
#[derive(Debug, Parser)]
struct Args {
    /// Files of tests, or directories of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How many threads run tests; as many as there are processors by default.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    conformance::main(&args.paths, args.jobs, || {
        let mut runner = Runner::new();
        move |file: &Path| run_file(&mut runner, file)
    })
}
