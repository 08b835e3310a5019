//! The binary as a process of its own.

#![allow(dead_code, reason = "each test has use for a part of it")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// `parsec` with these arguments, in a directory.
pub(crate) fn parsec(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parsec"));
    command.current_dir(directory).args(arguments).env_remove("PARSEC_LOG");
    command.stdin(Stdio::null());
    command
}

/// Runs `parsec` to its end.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Output {
    let child = parsec(directory, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    finish(Process(child.unwrap()))
}

/// A process that is killed when the test is done with it, however that ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Ends it as a power cut would: SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Fails the test if it has ended.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.0.try_wait().unwrap() {
            panic!("it ended of itself: {status}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a process came to; its output must be piped.
pub(crate) fn finish(mut process: Process) -> Output {
    // Read while it runs: a pipe that nobody reads would stop it.
    let (stdout, stderr) = (process.0.stdout.take().unwrap(), process.0.stderr.take().unwrap());
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let status = eventually("the end of a process", || process.0.try_wait().unwrap());
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Standard output, of a process that must have succeeded.
#[track_caller]
pub(crate) fn succeeded(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error, of a process that must have failed.
#[track_caller]
pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it should have failed");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
