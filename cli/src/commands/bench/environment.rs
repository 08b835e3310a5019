//! What a run was made on, and with what.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use parsec_bench::record::{Machine, Versions};

/// This machine, as far as it tells.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kernel = [read("/proc/sys/kernel/ostype"), read("/proc/sys/kernel/osrelease")];
    let kilobytes = field(&memory, "MemTotal").and_then(|text| {
        text.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok())
    });
    Machine {
        cpu: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
        cores: cores(),
        memory_bytes: kilobytes.unwrap_or(0) * 1_024,
        kernel: kernel.map(|part| part.trim().to_owned()).join(" ").trim().to_owned(),
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

/// This program, and the commit that is checked out where it is run.
pub(crate) fn versions() -> Versions {
    let commit = git(&["rev-parse", "HEAD"]).map(|text| text.trim().to_owned());
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    Versions {
        parsec: env!("CARGO_PKG_VERSION").to_owned(),
        modified: commit.as_ref().and(changes).map(|text| !text.trim().is_empty()),
        commit,
        profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
    }
}

/// The command line that does this run again.
pub(crate) fn command() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program).file_name().and_then(|name| name.to_str());
        *program = name.unwrap_or("parsec").to_owned();
    }
    words
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The value of a line "name : value".
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    let output = command.args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let machine = machine();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert_eq!(field("a : 1\nmodel name\t: X : Y\n", "model name"), Some("X : Y"));
        assert_eq!(field("model names: 1", "model name"), None);
    }
}
