//! One process, and what it says when it dies.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure, failed};

/// How many of the last lines that a process wrote are shown when it dies.
const LINES_SHOWN: usize = 12;
/// How much of its output is looked at for them, bytes.
const TAIL_BYTES: u64 = 8_192;
/// How often a process is asked whether it has ended.
const ENDED_EVERY: Duration = Duration::from_millis(10);

/// A process that ends when its standard input does. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    /// For people: "node 3".
    name: String,
    child: Child,
    /// Closed to end the process; the system closes it if this process dies.
    input: Option<ChildStdin>,
    errors: PathBuf,
}

impl Process {
    /// Starts the program `argv[0]` with the other arguments. What it writes to standard error
    /// goes to the file `errors`; standard output goes nowhere.
    ///
    /// # Errors
    /// If the file can't be written or the program not be started.
    pub fn start(name: String, argv: &[OsString], errors: PathBuf) -> Result<Self, Failure> {
        let (program, arguments) =
            argv.split_first().ok_or_else(|| failed(format!("{name} has no program")))?;
        let file = File::create(&errors).context(errors.display())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
        // A ctrl-C at the terminal is for this process, which ends the others in order.
        command.process_group(0);
        let started = command.spawn();
        let mut child = started.context(format!("{name}: can't start {}", program.display()))?;
        let input = child.stdin.take();
        Ok(Self { name, child, input, errors })
    }

    /// Its number in the system. If it was started by way of other programs, those must have
    /// become it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    ///
    /// # Errors
    /// How it ended, with the last lines that it wrote.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait().context(&self.name)? {
            None => Ok(()),
            Some(status) => Err(self.epitaph(status)),
        }
    }

    /// Asks it to end, which it does in its own time.
    pub fn ask_to_end(&mut self) {
        self.input = None;
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// If it failed, with the last lines that it wrote, or did not end in time and was killed.
    pub async fn end(mut self, patience: Duration) -> Result<(), Failure> {
        self.ask_to_end();
        let started = Instant::now();
        loop {
            match self.child.try_wait().context(&self.name)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.epitaph(status)),
                None if started.elapsed() > patience => {
                    let name = &self.name;
                    let what = format!("{name} did not end within {patience:?} and is killed");
                    return Err(failed(what + &self.last_words()));
                }
                None => tokio::time::sleep(ENDED_EVERY).await,
            }
        }
    }

    fn epitaph(&self, status: ExitStatus) -> Failure {
        failed(format!("{} ended ({status}){}", self.name, self.last_words()))
    }

    fn last_words(&self) -> String {
        match self.tail() {
            Ok(text) if text.trim().is_empty() => "; it wrote nothing".to_owned(),
            Ok(text) => {
                let lines: Vec<&str> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
                format!("; the last that it wrote:\n  {}", last.join("\n  "))
            }
            Err(error) => format!("; {}: {error}", self.errors.display()),
        }
    }

    fn tail(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.errors)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended of itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, directory: &tempfile::TempDir) -> Process {
        let argv = ["sh", "-c", script].map(OsString::from);
        Process::start("node 7".to_owned(), &argv, directory.path().join("errors")).unwrap()
    }

    #[tokio::test]
    async fn who_dies_is_named_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i >&2; done; exit 3";
        let mut process = start(script, &directory);
        let said = loop {
            match process.check() {
                Ok(()) => tokio::time::sleep(ENDED_EVERY).await,
                Err(failure) => break failure.to_string(),
            }
        };
        assert!(said.contains("node 7 ended") && said.contains('3'), "{said}");
        assert!(said.ends_with("line 40") && !said.contains("line 28"), "{said}");
    }

    #[tokio::test]
    async fn it_ends_in_order_when_its_input_does() {
        let directory = tempfile::tempdir().unwrap();
        start("cat", &directory).end(Duration::from_secs(20)).await.unwrap();
        let failure = start("cat; exit 1", &directory).end(Duration::from_secs(20)).await;
        assert!(failure.unwrap_err().to_string().contains("it wrote nothing"));
    }

    #[tokio::test]
    async fn who_does_not_end_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let process = start("exec sleep 60", &directory);
        let id = process.id();
        let failure = process.end(Duration::from_millis(50)).await.unwrap_err();
        assert!(failure.to_string().contains("killed"), "{failure}");
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_program_that_is_absent_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let argv = [OsString::from("/no/such/program")];
        let failure = Process::start("node 1".to_owned(), &argv, directory.path().join("errors"));
        assert!(failure.unwrap_err().to_string().contains("/no/such/program"));
    }
}
