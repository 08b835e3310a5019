//! Quotas of processor time: how much of a core a process may use (control groups, version 1 or 2).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::owner::Owner;
use crate::failure::{Context, Failure, failed};

/// The period in which a quota holds, unless it is so small that its part of that is less than
/// [`QUOTA_US_MIN`]. Short, since a process that has used its part up stands still until the
/// period ends, and whoever waits for it does, too.
const PERIOD_US: u64 = 10_000;
/// The least that the kernel accepts.
const QUOTA_US_MIN: u64 = 1_000;
/// The longest period that the kernel accepts.
const PERIOD_US_MAX: u64 = 1_000_000;
/// How long a control group may take to be empty once its processes were killed.
const EMPTY_MAX: Duration = Duration::from_secs(2);

/// A share of one core, in steps of 0.01 %. More than 100 % is more than one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuShare {
    hundredths: u32,
}

impl CpuShare {
    /// In cores: 0.08 for 8 %.
    #[must_use]
    #[allow(clippy::float_arithmetic, reason = "a figure for people")]
    pub fn cores(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }

    /// How long a process may run in which period, microseconds.
    fn quota(self) -> (u64, u64) {
        let part = |period: u64| period * u64::from(self.hundredths) / 10_000;
        let least = (QUOTA_US_MIN * 10_000).div_ceil(u64::from(self.hundredths));
        let period = PERIOD_US.max(least).min(PERIOD_US_MAX);
        (part(period).max(QUOTA_US_MIN), period)
    }
}

impl std::fmt::Display for CpuShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.hundredths / 100, self.hundredths % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, part) => write!(f, "{whole}.{part:02} %"),
        }
    }
}

impl FromStr for CpuShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a share of a core such as 8% or 150%");
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 2 {
            return Err(wrong());
        }
        let read = format!("{whole}{part:0<2}").parse::<u32>().map_err(|_| wrong())?;
        // Below 0.1 % no period that the kernel accepts holds the least that it grants.
        match (10..=10_000_000).contains(&read) {
            true => Ok(Self { hundredths: read }),
            false => Err(format!("{text:?} is not between 0.1% and 100000%")),
        }
    }
}

/// The controller of processor time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Controller {
    /// Of version 1, mounted there.
    V1(PathBuf),
    /// Of version 2, mounted there.
    V2(PathBuf),
}

impl Controller {
    /// The one that is mounted here.
    ///
    /// # Errors
    /// What is missing.
    pub fn find() -> Result<Self, Failure> {
        let mounts = std::fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
        let has_cpu = |root: &Path| {
            let controllers = std::fs::read_to_string(root.join("cgroup.controllers"));
            controllers.is_ok_and(|list| list.split_ascii_whitespace().any(|one| one == "cpu"))
        };
        mounted(&mounts, has_cpu).ok_or_else(|| failed("no cgroup controller `cpu` is mounted"))
    }

    pub(super) fn root(&self) -> &Path {
        match self {
            Self::V1(root) | Self::V2(root) => root,
        }
    }

    /// What to write to which file of a group so that it has a share.
    fn settings(&self, share: CpuShare) -> Vec<(&'static str, String)> {
        let (quota, period) = share.quota();
        match self {
            // The quota has to fit into the period at any time: it is lifted before.
            Self::V1(_) => vec![
                ("cpu.cfs_quota_us", "-1".to_owned()),
                ("cpu.cfs_period_us", period.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            Self::V2(_) => vec![("cpu.max", format!("{quota} {period}"))],
        }
    }

    /// What to write so that it has all that there is.
    fn lifted(&self) -> (&'static str, &'static str) {
        match self {
            Self::V1(_) => ("cpu.cfs_quota_us", "-1"),
            Self::V2(_) => ("cpu.max", "max"),
        }
    }
}

/// The controller in the text of `/proc/mounts`. `has_cpu` tells whether a mount of version 2 has
/// it; version 1 has it there or nowhere.
fn mounted(mounts: &str, has_cpu: impl Fn(&Path) -> bool) -> Option<Controller> {
    let mut second = None;
    for line in mounts.lines() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(place), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // Spaces in names are written like that.
        let place = PathBuf::from(place.replace("\\040", " "));
        match kind {
            "cgroup" if options.split(',').any(|option| option == "cpu") => {
                return Some(Controller::V1(place));
            }
            "cgroup2" if has_cpu(&place) => second = Some(Controller::V2(place)),
            _ => {}
        }
    }
    second
}

/// How often a process was made to stand still because its quota was used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Periods in which it ran, or wanted to.
    pub periods: u64,
    /// Those of them in which it was made to stand still.
    pub throttled: u64,
}

impl Throttling {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            periods: self.periods.saturating_sub(earlier.periods),
            throttled: self.throttled.saturating_sub(earlier.throttled),
        }
    }

    /// Adds what happened to another process.
    pub fn add(&mut self, other: Self) {
        self.periods += other.periods;
        self.throttled += other.throttled;
    }

    /// In which share of the periods it stood still, 0 to 1; `None` if there were none.
    #[must_use]
    #[allow(clippy::float_arithmetic, reason = "a figure for people")]
    pub fn share(self) -> Option<f64> {
        (self.periods > 0).then(|| self.throttled as f64 / self.periods as f64)
    }
}

/// In the text of a `cpu.stat` file.
fn throttling(text: &str) -> Throttling {
    let field = |name: &str| {
        let fields = text.lines().filter_map(|line| line.split_once(' '));
        let value = fields.clone().find(|(field, _)| *field == name).map(|(_, value)| value);
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    Throttling { periods: field("nr_periods"), throttled: field("nr_throttled") }
}

/// A group of processes with a quota. Dropping it removes it; its processes must have ended.
#[derive(Debug)]
pub struct Group {
    controller: Controller,
    directory: PathBuf,
    share: CpuShare,
}

impl Group {
    /// Makes the group of a node, without a quota yet.
    ///
    /// # Errors
    /// What could not be written.
    pub fn new(
        controller: &Controller,
        owner: Owner,
        node: u16,
        share: CpuShare,
    ) -> Result<Self, Failure> {
        let root = controller.root();
        if let Controller::V2(_) = controller {
            // Harmless where it is so already.
            let file = root.join("cgroup.subtree_control");
            std::fs::write(&file, "+cpu").context(file.display())?;
        }
        let directory = root.join(owner.name(node));
        std::fs::create_dir(&directory).context(directory.display())?;
        Ok(Self { controller: controller.clone(), directory, share })
    }

    /// The share of a core that its processes have together, while it is imposed.
    #[must_use]
    pub fn share(&self) -> CpuShare {
        self.share
    }

    /// Imposes the quota.
    ///
    /// # Errors
    /// What could not be written.
    pub fn impose(&self) -> Result<(), Failure> {
        let settings = self.controller.settings(self.share);
        settings.iter().try_for_each(|(file, value)| self.write(file, value))
    }

    /// Lifts the quota.
    ///
    /// # Errors
    /// What could not be written.
    pub fn lift(&self) -> Result<(), Failure> {
        let (file, value) = self.controller.lifted();
        self.write(file, value)
    }

    /// How often its processes were made to stand still so far.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn throttling(&self) -> Result<Throttling, Failure> {
        let file = self.directory.join("cpu.stat");
        Ok(throttling(&std::fs::read_to_string(&file).context(file.display())?))
    }

    /// What is put before a command so that it runs in this group from its first instruction.
    #[must_use]
    pub fn enter(&self) -> Vec<OsString> {
        let script = r#"echo $$ > "$0" && exec "$@""#;
        let list = self.directory.join("cgroup.procs");
        vec!["sh".into(), "-c".into(), script.into(), list.into()]
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Failure> {
        let file = self.directory.join(file);
        std::fs::write(&file, value).context(format!("{}: {value}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %error, "a group is left behind");
        }
    }
}

/// Removes a group as soon as it is empty.
fn remove(directory: &Path) -> std::io::Result<()> {
    let started = Instant::now();
    loop {
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Processes that were killed leave a little later.
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy
                    && started.elapsed() < EMPTY_MAX =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Removes the groups of those owners that `is_gone` tells, after killing what still runs in them;
/// returns their names.
///
/// # Errors
/// If the groups can't be listed.
pub fn remove_of(
    controller: &Controller,
    is_gone: impl Fn(Owner) -> bool,
) -> Result<Vec<String>, Failure> {
    let root = controller.root();
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(root).context(root.display())? {
        let entry = entry.context(root.display())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if Owner::of_name(&name).is_some_and(&is_gone) {
            kill_all(&entry.path());
            if remove(&entry.path()).is_ok() {
                removed.push(name);
            }
        }
    }
    Ok(removed)
}

/// Kills the processes of a group.
fn kill_all(directory: &Path) {
    let processes = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    if processes.trim().is_empty() {
        return;
    }
    let mut kill = Command::new("kill");
    kill.arg("-KILL").args(processes.split_ascii_whitespace()).stderr(Stdio::null());
    if let Err(error) = kill.status() {
        tracing::warn!(%error, "processes of a group can't be killed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> CpuShare {
        text.parse().unwrap()
    }

    #[test]
    fn shares_are_read_and_shown() {
        for (text, hundredths, shown) in [
            ("8%", 800, "8 %"),
            ("0.5 %", 50, "0.50 %"),
            ("150%", 15_000, "150 %"),
            ("2.25%", 225, "2.25 %"),
        ] {
            assert_eq!(share(text), CpuShare { hundredths }, "{text}");
            assert_eq!(share(text).to_string(), shown);
        }
        for text in ["8", "%", "0%", "0.01%", "-1%", "1.234%", "x%", "1e3%", "999999999999%", "+8%"]
        {
            assert!(text.parse::<CpuShare>().is_err(), "{text}");
        }
    }

    #[test]
    fn periods_are_short_but_hold_the_least_that_the_kernel_grants() {
        assert_eq!(share("50%").quota(), (5_000, 10_000));
        assert_eq!(share("200%").quota(), (20_000, 10_000));
        assert_eq!(share("8%").quota(), (1_000, 12_500));
        assert_eq!(share("3%").quota(), (1_000, 33_334));
        assert_eq!(share("0.1%").quota(), (1_000, 1_000_000));
    }

    const V1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n";

    #[test]
    fn whichever_version_has_the_controller_is_found() {
        let first = Controller::V1("/sys/fs/cgroup/cpu,cpuacct".into());
        assert_eq!(mounted(V1, |_| false), Some(first));
        let second = "cgroup2 /sys/fs/c\\040group cgroup2 rw 0 0\n";
        assert_eq!(mounted(second, |_| true), Some(Controller::V2("/sys/fs/c group".into())));
        assert_eq!(mounted(second, |_| false), None);
        assert_eq!(mounted("proc /proc proc rw 0 0\nodd\n", |_| true), None);
    }

    #[test]
    fn each_version_is_told_in_its_own_words() {
        let old = Controller::V1("/a".into()).settings(share("8%"));
        let value = |file: &str| old.iter().rfind(|(each, _)| *each == file).unwrap().1.clone();
        assert_eq!(
            (value("cpu.cfs_quota_us"), value("cpu.cfs_period_us")),
            ("1000".into(), "12500".into())
        );
        assert_eq!(old[0].1, "-1", "a shorter period would be refused with the old quota");
        let new = Controller::V2("/a".into()).settings(share("8%"));
        assert_eq!(new, [("cpu.max", "1000 12500".to_owned())]);
    }

    #[test]
    fn the_time_in_which_a_group_stood_still_is_read_in_both_versions() {
        let text = "nr_periods 40\nnr_throttled 10\nthrottled_time 7\n";
        let found = throttling(text);
        assert_eq!(found, Throttling { periods: 40, throttled: 10 });
        assert_eq!(found.share(), Some(0.25));
        let text = "usage_usec 5\nnr_periods 8\nnr_throttled 2\nthrottled_usec 9\n";
        assert_eq!(found.since(throttling(text)), Throttling { periods: 32, throttled: 8 });
        assert_eq!(throttling("").share(), None);
    }
}
