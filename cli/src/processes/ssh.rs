//! Commands on other machines, by the program `ssh`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::failure::{Context, Failure, failed};

/// What the program is told on each call: no terminal, no questions, and that a machine which does
/// not answer is given up.
const OPTIONS: [&str; 4] =
    ["-T", "-oBatchMode=yes", "-oServerAliveInterval=5", "-oServerAliveCountMax=3"];

/// The program that reaches other machines. It is called as `ssh OPTIONS TARGET COMMAND`, and hands
/// the command, one string, to the shell there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    program: PathBuf,
}

impl Ssh {
    /// That program.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// The arguments, the program first, that run a command there.
    #[must_use]
    pub fn argv(&self, target: &str, command: &str) -> Vec<OsString> {
        let program = self.program.clone().into_os_string();
        let options = OPTIONS.into_iter().map(OsString::from);
        std::iter::once(program).chain(options).chain([target.into(), command.into()]).collect()
    }

    /// Starts a command there whose standard input and output are pipes.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn start(&self, target: &str, command: &str) -> Result<Child, Failure> {
        let argv = self.argv(target, command);
        let mut started = Command::new(&argv[0]);
        started.args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = started.stderr(Stdio::piped()).spawn();
        started.context(format!("can't start {}", self.program.display()))
    }

    /// Runs a command there to its end, with this standard input. Returns what it prints.
    ///
    /// # Errors
    /// If it can't be run or fails; then what it said.
    pub fn run(&self, target: &str, command: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut child = self.start(target, command)?;
        let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input));
        let output = child.wait_with_output().context(target)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let what = format!("`{command}` on {target} failed ({})", output.status);
            return Err(failed(format!("{what}: {}", said.trim())));
        }
        written.context(target)?;
        Ok(output.stdout)
    }
}

/// A text as one word of a shell.
#[must_use]
pub fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// What does here what `ssh` would do there.
    pub(crate) fn stub(directory: &Path) -> Ssh {
        let program = directory.join("stub");
        let script = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nshift\n\
            exec sh -c \"$*\"\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Ssh::new(program)
    }

    #[test]
    fn commands_get_their_input_and_failures_tell_what_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let ssh = stub(directory.path());
        assert_eq!(ssh.run("a@b", "cat; echo x", b"in\n").unwrap(), b"in\nx\n");
        let said = ssh.run("a@b", "echo no room >&2; exit 3", b"").unwrap_err().to_string();
        assert!(said.contains("a@b") && said.contains("no room") && said.contains('3'), "{said}");
        assert!(Ssh::new("/no/ssh".into()).run("a", "true", b"").is_err());
    }

    #[test]
    fn whatever_is_quoted_is_one_word() {
        let directory = tempfile::tempdir().unwrap();
        let ssh = stub(directory.path());
        for text in ["/plain/path-1.2", "two words", "it's", "", "$HOME;`id`", "a\"b\\"] {
            let printed = ssh.run("a", &format!("printf %s {}", quoted(text)), b"").unwrap();
            assert_eq!(String::from_utf8(printed).unwrap(), text);
        }
    }
}
