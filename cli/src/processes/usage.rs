//! What processes use of the machine, as `/proc` tells.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stage;
use crate::failure::{Context, Failure, failed};

/// What one process has used so far, or between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// Processor time of all its threads, nanoseconds; to 10 ms.
    pub cpu_ns: u64,
    /// The same by stage ([`stage::of_thread`]), nanoseconds. Threads that have ended are
    /// [`stage::ENDED`].
    pub stages: BTreeMap<String, u64>,
    /// The same of each thread that runs still, by its number; nothing between two moments.
    pub(crate) threads: BTreeMap<u32, ThreadUsage>,
    /// Memory that it holds now, bytes.
    pub rss_bytes: u64,
    /// The most that it has held since it started, bytes.
    pub rss_peak_bytes: u64,
    /// What it received and sent, if it has a network of its own.
    pub network: Option<NetworkUsage>,
}

/// What one thread has used so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ThreadUsage {
    stage: String,
    cpu_ns: u64,
}

/// What passed the interfaces of a network namespace, loopback excepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUsage {
    /// Bytes received, headers included.
    pub received_bytes: u64,
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
}

impl ProcessUsage {
    /// What a process of this machine has used so far.
    ///
    /// # Errors
    /// If there is no such process, or `/proc` is not as expected.
    pub fn of(process: u32) -> Result<Self, Failure> {
        let home = format!("/proc/{process}");
        let home = Path::new(&home);
        let threads = threads(home, process)?;
        let cpu_ns = cpu_of_stat(&read(&home.join("stat"))?)
            .ok_or_else(|| failed(format!("{}/stat is not as expected", home.display())))?;
        let seen = threads.values().map(|thread| thread.cpu_ns).sum();
        let used = threads.values().map(|thread| (thread.stage.as_str(), thread.cpu_ns));
        let stages = by_stage(used, cpu_ns);
        let status = read(&home.join("status"))?;
        let rss = |what| kilobytes(&status, what).unwrap_or(0) * 1_024;
        Ok(Self {
            cpu_ns: cpu_ns.max(seen),
            stages,
            threads,
            rss_bytes: rss("VmRSS:"),
            rss_peak_bytes: rss("VmHWM:"),
            network: own_network(home)?,
        })
    }

    /// What was used since `earlier`; memory is as it is now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let cpu_ns = self.cpu_ns.saturating_sub(earlier.cpu_ns);
        // Thread by thread: of one that has ended, what it had used before is not of this time,
        // although it is among what threads used that have ended.
        let used = self.threads.iter().map(|(number, now)| {
            let before = earlier.threads.get(number).map_or(0, |then| then.cpu_ns);
            (now.stage.as_str(), now.cpu_ns.saturating_sub(before))
        });
        let stages = by_stage(used, cpu_ns);
        let network = self.network.map(|now| {
            let before = earlier.network.unwrap_or_default();
            NetworkUsage {
                received_bytes: now.received_bytes.saturating_sub(before.received_bytes),
                sent_bytes: now.sent_bytes.saturating_sub(before.sent_bytes),
            }
        });
        let (rss_bytes, rss_peak_bytes) = (self.rss_bytes, self.rss_peak_bytes);
        Self { cpu_ns, stages, threads: BTreeMap::new(), rss_bytes, rss_peak_bytes, network }
    }

    /// Adds what another process used. Memory adds up, too.
    pub fn add(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        for (stage, used) in &other.stages {
            *self.stages.entry(stage.clone()).or_default() += used;
        }
        self.rss_bytes += other.rss_bytes;
        self.rss_peak_bytes += other.rss_peak_bytes;
        if let Some(more) = other.network {
            let sum = self.network.get_or_insert_default();
            sum.received_bytes += more.received_bytes;
            sum.sent_bytes += more.sent_bytes;
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).context(path.display())
}

/// What each stage has used of a total; what no thread has used that runs still, those have that
/// ended.
fn by_stage<'a>(
    threads: impl Iterator<Item = (&'a str, u64)>,
    total_ns: u64,
) -> BTreeMap<String, u64> {
    let mut stages = BTreeMap::new();
    let mut seen = 0;
    for (stage, used) in threads.filter(|(_, used)| *used > 0) {
        *stages.entry(stage.to_owned()).or_default() += used;
        seen += used;
    }
    // Below that it is what totals are rounded by.
    if total_ns > seen + 2 * tick_ns() {
        stages.insert(stage::ENDED.to_owned(), total_ns - seen);
    }
    stages
}

/// What each thread has used that runs still.
fn threads(home: &Path, process: u32) -> Result<BTreeMap<u32, ThreadUsage>, Failure> {
    let tasks = home.join("task");
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(&tasks).context(tasks.display())? {
        let task = task.context(tasks.display())?;
        let number = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // It may end meanwhile.
        let Some((number, (name, cpu_ns))) = number.zip(thread(&task.path())) else { continue };
        let stage = if number == process { stage::MAIN } else { stage::of_thread(&name) };
        threads.insert(number, ThreadUsage { stage: stage.to_owned(), cpu_ns });
    }
    Ok(threads)
}

/// The name of a thread, and what it has used, nanoseconds.
fn thread(home: &Path) -> Option<(String, u64)> {
    let name = std::fs::read_to_string(home.join("comm")).ok()?.trim_end().to_owned();
    // To the nanosecond; absent where the kernel was built without it.
    let exact = std::fs::read_to_string(home.join("schedstat")).ok();
    let exact = exact.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
    let used = exact.or_else(|| cpu_of_stat(&std::fs::read_to_string(home.join("stat")).ok()?));
    Some((name, used?))
}

/// User and system time in the text of a `stat` file, nanoseconds.
fn cpu_of_stat(text: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th
    // field after it, in ticks.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    Some((next()? + next()?) * tick_ns())
}

fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second()
}

/// A field of a `status` file, kilobytes.
fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// What passed the network of a process, if that is not the one of this process.
fn own_network(home: &Path) -> Result<Option<NetworkUsage>, Failure> {
    let namespace = |home: &Path| std::fs::read_link(home.join("ns/net"));
    match (namespace(home), namespace(Path::new("/proc/self"))) {
        (Ok(theirs), Ok(ours)) if theirs != ours => Ok(Some(passed(&read(&home.join("net/dev"))?))),
        _ => Ok(None),
    }
}

/// What passed the network of this machine, or of the namespace that this process is in, whoever
/// sent it.
///
/// # Errors
/// If the system does not tell.
pub fn machine_network() -> Result<NetworkUsage, Failure> {
    Ok(passed(&read(Path::new("/proc/net/dev"))?))
}

/// For how long the processors of this machine were at work, for whomever, or were taken away by
/// the machine that it runs on, nanoseconds of one core.
///
/// # Errors
/// If the system does not tell.
pub fn machine_busy_ns() -> Result<u64, Failure> {
    busy_ticks(&read(Path::new("/proc/stat"))?)
        .map(|ticks| ticks * tick_ns())
        .ok_or_else(|| failed("/proc/stat is not as expected"))
}

/// The same in the text of `/proc/stat`, in ticks.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _wait) = (next()?, next()?);
    // The guests that follow are in user time, too.
    Some(user + nice + system + next()? + next()? + next()?)
}

/// The sums over all interfaces of a `net/dev` file but loopback.
fn passed(text: &str) -> NetworkUsage {
    let mut sum = NetworkUsage::default();
    for (interface, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if interface.trim() == "lo" {
            continue;
        }
        let counter = |index: usize| {
            let field = counters.split_ascii_whitespace().nth(index);
            field.and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
        };
        sum.received_bytes += counter(0);
        sum.sent_bytes += counter(8);
    }
    sum
}

/// Bytes of the files below a directory; 0 if it is absent.
///
/// # Errors
/// If a part of it can't be read.
pub fn directory_bytes(directory: &Path) -> Result<u64, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.context(directory.display())?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.context(directory.display())?;
        // Stores remove files of their own while they are looked at.
        let Ok(about) = entry.metadata() else { continue };
        bytes += if about.is_dir() { directory_bytes(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_anything_in_them_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_of_stat(stat), Some(42 * tick_ns()));
        assert_eq!(cpu_of_stat("7 (short) S 1"), None);
    }

    #[test]
    fn waiting_is_no_work() {
        let text = "cpu  1 20 300 4000 50000 600000 7000000 80000000 900000000 5\ncpu0 1 1\n";
        assert_eq!(busy_ticks(text), Some(87_600_321));
        assert_eq!(busy_ticks("cpu 1 2 3\n"), None);
        let before = machine_busy_ns().unwrap();
        let started = std::time::Instant::now();
        while machine_busy_ns().unwrap() == before {
            assert!(started.elapsed().as_secs() < 20);
        }
    }

    #[test]
    fn loopback_is_no_network() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame \
            compressed multicast|bytes packets\n    lo: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n  eth0: \
            100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n  eth1:10 2 0 0 0 0 0 0 20 3 0 0 0 0 0 0\n";
        assert_eq!(passed(text), NetworkUsage { received_bytes: 110, sent_bytes: 220 });
    }

    #[test]
    fn a_thread_that_works_is_seen_under_its_name_and_then_under_those_that_ended() {
        // By its own time, however many others want the processor.
        let work = || {
            let own = Path::new("/proc/thread-self");
            while thread(own).unwrap().1 < 100_000_000 {
                (0..10_000).for_each(|_| std::hint::spin_loop());
            }
        };
        let before = ProcessUsage::of(std::process::id()).unwrap();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let (done, is_done) = std::sync::mpsc::channel();
        let builder = std::thread::Builder::new().name("worker-p7-0".to_owned());
        let thread = builder.spawn(move || {
            work();
            done.send(()).unwrap();
            finished.recv().ok();
        });
        is_done.recv().unwrap();
        let during = ProcessUsage::of(std::process::id()).unwrap().since(&before);
        let idle = ProcessUsage::of(std::process::id()).unwrap();
        drop(finish);
        thread.unwrap().join().unwrap();
        let used = during.stages["scheduling, execution"];
        assert!((100_000_000..1_000_000_000).contains(&used), "{during:?}");
        assert!(during.rss_peak_bytes >= during.rss_bytes && during.rss_bytes > 100_000);
        assert_eq!(during.network, None, "it is this process's network");
        // The system forgets a thread a little after it can be joined.
        let ended = || {
            let now = ProcessUsage::of(std::process::id()).unwrap();
            now.stages.get(stage::ENDED).copied().unwrap_or(0)
        };
        let started = std::time::Instant::now();
        while ended() < used - tick_ns() {
            assert!(started.elapsed().as_secs() < 20, "{} of {used}", ended());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // What it used before it was idle is not used again by its end.
        let after = ProcessUsage::of(std::process::id()).unwrap().since(&idle);
        let sum = |stages: &BTreeMap<String, u64>| stages.values().sum::<u64>();
        assert!(sum(&after.stages) <= after.cpu_ns + 2 * tick_ns(), "{after:?}");
    }

    #[test]
    fn what_was_used_since_leaves_memory_as_it_is() {
        let usage = |cpu_ns, rss_bytes| ProcessUsage {
            cpu_ns,
            stages: BTreeMap::from([("log".to_owned(), cpu_ns)]),
            threads: BTreeMap::from([(7, ThreadUsage { stage: "log".to_owned(), cpu_ns })]),
            rss_bytes,
            ..ProcessUsage::default()
        };
        let between = |cpu_ns, rss_bytes| ProcessUsage {
            threads: BTreeMap::new(),
            ..usage(cpu_ns, rss_bytes)
        };
        let mut used = usage(70, 500).since(&usage(50, 900));
        assert_eq!(used, between(20, 500));
        used.add(&usage(1, 1));
        assert_eq!(used, between(21, 501));
    }

    #[test]
    fn bytes_of_a_directory_are_those_of_all_files_below_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("below")).unwrap();
        std::fs::write(directory.path().join("below/file"), [0; 700]).unwrap();
        std::fs::write(directory.path().join("file"), [0; 30]).unwrap();
        assert_eq!(directory_bytes(directory.path()).unwrap(), 730);
        assert_eq!(directory_bytes(&directory.path().join("absent")).unwrap(), 0);
    }
}
