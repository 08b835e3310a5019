//! Checks a history that clients of a cluster recorded: `history FILE`, with one operation a line,
//! in JSON. Says that it is strictly serializable, or why it is not.
//!
//! The exit code is 0 without an anomaly, 1 with one, and 2 if the file holds no history.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use parsec_history::{Consistency, Failure, check, read_history};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [path] = &arguments[..] else { return unusable("usage: history FILE") };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return unusable(format!("{}: {error}", path.display())),
    };
    let operations = match read_history(BufReader::new(file)) {
        Ok(operations) => operations,
        Err(error) => return unusable(format!("{}: {error}", path.display())),
    };
    match check(&operations, Consistency::StrictSerializable) {
        Ok(summary) => {
            println!("{} operations, no anomaly", summary.operations);
            ExitCode::SUCCESS
        }
        Err(Failure::Malformed(malformed)) => unusable(format!("{}: {malformed}", path.display())),
        Err(Failure::Anomaly(anomaly)) => {
            println!("{} operations, and an anomaly: {anomaly}", operations.len());
            ExitCode::FAILURE
        }
    }
}

fn unusable(why: impl std::fmt::Display) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}
