//! A cluster on machines of its own, which are reached by `ssh`.
//!
//! Each node gets a directory of its own with its file and certificate, which is removed at the
//! end. It runs as a child of an `ssh` here and ends when that does. A second `ssh` to each
//! machine asks there what the node has used, whenever it is wanted.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use parsec_bench::record;
use parsec_client::ClientConfig;
use serde::{Deserialize, Serialize};

use super::hosts_file::{HostsFile, Machine};
use super::owner::Owner;
use super::plan::{data_of, file_of};
use super::scratch::Scratch;
use super::ssh::{Ssh, quoted};
use super::usage::ProcessUsage;
use super::{ClusterUsage, GENESIS_FILE, Place, Processes};
use crate::cluster::log_directory;
use crate::failure::{Context, Failure, failed};

/// Where a node there writes down its number in the system.
const PROCESS_FILE: &str = "process";
/// What ends a file in a script; no line of a certificate or a configuration is it.
const END_OF_FILE: &str = "END-OF-PARSEC-FILE";

/// What a cluster on other machines is to be like.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The machines.
    pub machines: HostsFile,
    /// How many of the hosts are used; the sequencer is one node more.
    pub hosts: u16,
    /// Partitions of each host of which the file says nothing.
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// The text of the genesis file; without one the state begins empty.
    pub genesis: Option<String>,
    /// What reaches them.
    pub ssh: Ssh,
}

/// What the machine of a node says first when it is asked what that uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineReport {
    /// What it is.
    pub machine: record::Machine,
}

/// What a node has used so far, as its machine says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// Of its process. The network is that of the machine.
    pub usage: ProcessUsage,
    /// Bytes of its log.
    pub log_bytes: u64,
}

/// A cluster that runs on other machines. Dropping it ends it and removes what it left there.
// ORDER: fields are dropped in this order: directories are removed when nobody is in them.
#[derive(Debug)]
pub struct Remote {
    processes: Processes,
    /// One for each node, as soon as the cluster is reached.
    reporters: Mutex<Vec<Reporter>>,
    sites: Sites,
    /// Where the log is brought to.
    fetched: Scratch,
}

impl Remote {
    /// Writes the files of all nodes to their machines and starts them.
    ///
    /// # Errors
    /// What could not be made, or on which machine; nothing is left then.
    pub fn start(options: &RemoteOptions) -> Result<Self, Failure> {
        let mut plan = options.machines.plan(options.hosts, options.partitions)?;
        plan.workers_per_partition = options.workers_per_partition;
        let place = Place::new(None)?;
        place.put_genesis(&mut plan, options.genesis.as_deref())?;
        plan.write_issued(&place.directory, &[], |_| plan.nodes.clone())?;
        let sites = Sites::new(&options.ssh, options.machines.machines(options.hosts));
        sites.install(&place.directory)?;
        let fetched = Scratch::new()?;
        let start = |node: u16, argv: Vec<OsString>| sites.start(node).unwrap_or(argv);
        let processes = Processes::start_written(plan, place, Some(Path::new("parsec")), start)?;
        Ok(Self { processes, reporters: Mutex::default(), sites, fetched })
    }

    /// How clients reach the cluster, as soon as all of it answers.
    ///
    /// # Errors
    /// Those of [`Processes::reach`]; if a machine does not tell what its node uses.
    pub async fn reach(&self) -> Result<ClientConfig, Failure> {
        let config = self.processes.reach().await?;
        let reporters = tokio::task::block_in_place(|| {
            self.sites.each(|site| Reporter::start(&self.sites.ssh, site))
        })?;
        *self.reporters.lock().unwrap_or_else(PoisonError::into_inner) = reporters;
        Ok(config)
    }

    /// Its processes; their numbers are those of the `ssh` here.
    #[must_use]
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// What the machines are, one sentence for each node.
    #[must_use]
    pub fn about(&self) -> Vec<String> {
        let reporters = self.reporters.lock().unwrap_or_else(PoisonError::into_inner);
        reporters.iter().map(|reporter| reporter.about.clone()).collect()
    }

    /// What everything has used so far. Waits for the machines.
    ///
    /// # Errors
    /// If a node died; then what it said last. If a machine does not answer.
    pub fn usage(&self) -> Result<ClusterUsage, Failure> {
        self.processes.check()?;
        let mut reporters = self.reporters.lock().unwrap_or_else(PoisonError::into_inner);
        // All are asked before the first is waited for.
        reporters.iter_mut().try_for_each(Reporter::ask)?;
        let reports: Vec<NodeReport> =
            reporters.iter_mut().map(Reporter::answer).collect::<Result<_, _>>()?;
        Ok(ClusterUsage {
            log_bytes: reports.first().map_or(0, |sequencer| sequencer.log_bytes),
            nodes: reports.into_iter().map(|report| report.usage).collect(),
            driver: ProcessUsage::of(std::process::id())?,
            ..ClusterUsage::default()
        })
    }

    /// Brings the log here as it is now. Returns its directory.
    ///
    /// # Errors
    /// If it can't be read there or written here.
    pub async fn fetch_log(&self) -> Result<PathBuf, Failure> {
        let directory = self.fetched.path().to_owned();
        tokio::task::block_in_place(|| self.sites.fetch_log(&directory))?;
        Ok(directory)
    }

    /// Stops all nodes in order and removes what is left on the machines.
    ///
    /// # Errors
    /// Those of [`Processes::stop`].
    pub async fn stop(self) -> Result<(), Failure> {
        let Self { processes, reporters, sites, .. } = self;
        drop(reporters);
        let stopped = processes.stop().await;
        tokio::task::block_in_place(|| drop(sites));
        stopped
    }
}

/// A machine, and where on it a node has its files.
#[derive(Debug, Clone)]
struct Site {
    machine: Machine,
    directory: String,
}

impl Site {
    /// A command that runs `command` in the directory.
    fn within(&self, command: &str) -> String {
        format!("cd {} && {command}", quoted(&self.directory))
    }
}

/// All of them. Dropping them removes the directories.
#[derive(Debug)]
struct Sites {
    ssh: Ssh,
    sites: Vec<Site>,
}

impl Sites {
    fn new(ssh: &Ssh, machines: Vec<Machine>) -> Self {
        let owner = Owner::next();
        // Another machine may have a run of the same number.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let site = |machine: Machine| {
            let parent = machine.directory.trim_end_matches('/');
            let name = owner.name(machine.node);
            Site { directory: format!("{parent}/{name}-{since:x}"), machine }
        };
        Self { ssh: ssh.clone(), sites: machines.into_iter().map(site).collect() }
    }

    /// Does something for each of them at the same time.
    fn each<T: Send>(
        &self,
        work: impl Fn(&Site) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.sites.iter().map(|site| scope.spawn(move || work(site))).collect();
            let panicked = |_| Err(failed("a thread that reached a machine has panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }

    /// Writes the files of each node, which are in `written`, to its machine.
    fn install(&self, written: &Path) -> Result<(), Failure> {
        let install = |site: &Site| {
            let script = installer(site.machine.node, &site.directory, written)?;
            self.ssh.run(&site.machine.target, "sh -s", script.as_bytes()).map(drop)
        };
        self.each(install).map(drop)
    }

    /// What starts a node.
    fn start(&self, node: u16) -> Option<Vec<OsString>> {
        let site = self.sites.iter().find(|site| site.machine.node == node)?;
        let program = quoted(&site.machine.program);
        let file = file_of(node);
        let run = format!(
            "echo $$ > {PROCESS_FILE} && exec {program} node {} --stop-at-eof",
            file.display()
        );
        Some(self.ssh.argv(&site.machine.target, &site.within(&run)))
    }

    fn fetch_log(&self, into: &Path) -> Result<(), Failure> {
        let site = self.sites.first().ok_or_else(|| failed("there is no sequencer"))?;
        let log = log_directory(&data_of(0));
        let pack = site.within(&format!("tar -c -f - -C {} .", quoted(&log.to_string_lossy())));
        let mut packing = self.ssh.start(&site.machine.target, &pack)?;
        let packed = packing.stdout.take().ok_or_else(|| failed("there is no pipe"))?;
        let mut unpack = Command::new("tar");
        unpack.args(["-x", "-f", "-", "-C"]).arg(into).stdin(packed).stderr(Stdio::piped());
        let unpacked = unpack.output().context("can't run tar")?;
        let output = packing.wait_with_output().context(&site.machine.target)?;
        for (status, said) in [(output.status, &output.stderr), (unpacked.status, &unpacked.stderr)]
        {
            if !status.success() {
                let said = String::from_utf8_lossy(said);
                return Err(failed(format!("the log was not brought here: {}", said.trim())));
            }
        }
        Ok(())
    }
}

impl Drop for Sites {
    fn drop(&mut self) {
        let removed = self.each(|site| {
            let command = format!("rm -rf {}", quoted(&site.directory));
            self.ssh.run(&site.machine.target, &command, b"").map(drop)
        });
        if let Err(failure) = removed {
            tracing::warn!(%failure, "files are left on a machine");
        }
    }
}

/// A script that writes the files of a node into a directory.
fn installer(node: u16, directory: &str, written: &Path) -> Result<String, Failure> {
    let home = PathBuf::from(format!("certs/node-{node}"));
    let mut script = format!(
        "set -e\numask 077\nmkdir -p {directory}\ncd {directory}\nmkdir -p {}\n",
        home.display(),
        directory = quoted(directory)
    );
    let names = ["ca.pem", "node.pem", "node.key"].map(|name| home.join(name));
    let genesis = Some(PathBuf::from(GENESIS_FILE)).filter(|file| written.join(file).exists());
    for file in names.into_iter().chain([file_of(node)]).chain(genesis) {
        let path = written.join(&file);
        let text = std::fs::read_to_string(&path).context(path.display())?;
        let text = text.trim_end();
        script += &format!("cat > {} <<'{END_OF_FILE}'\n{text}\n{END_OF_FILE}\n", file.display());
    }
    Ok(script)
}

/// Asks the machine of a node what that uses.
#[derive(Debug)]
struct Reporter {
    name: String,
    about: String,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reporter {
    fn start(ssh: &Ssh, site: &Site) -> Result<Self, Failure> {
        let Machine { node, target, program, .. } = &site.machine;
        let log = log_directory(&data_of(*node));
        let run = format!(
            "exec {} usage --process {PROCESS_FILE} --log {}",
            quoted(program),
            quoted(&log.to_string_lossy())
        );
        let name = format!("node {node} on {target}");
        let mut child = ssh.start(target, &site.within(&run))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(questions), Some(answers)) = pipes else { return Err(failed("no pipes")) };
        let answers = BufReader::new(answers);
        let mut reporter = Self { name, about: String::new(), child, questions, answers };
        let MachineReport { machine } = reporter.read()?;
        let record::Machine { cpu, cores, memory_bytes, kernel } = machine;
        let memory = memory_bytes / (1 << 20);
        reporter.about =
            format!("{}: {cores} cores of {cpu}, {memory} MiB, {kernel}", reporter.name);
        Ok(reporter)
    }

    fn ask(&mut self) -> Result<(), Failure> {
        let written = self.questions.write_all(b"\n").and_then(|()| self.questions.flush());
        written.context(&self.name)
    }

    fn answer(&mut self) -> Result<NodeReport, Failure> {
        self.read()
    }

    fn read<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context(&self.name)?;
        if line.is_empty() {
            let mut said = String::new();
            if let Some(errors) = &mut self.child.stderr {
                errors.read_to_string(&mut said).context(&self.name)?;
            }
            let name = &self.name;
            return Err(failed(format!("{name} does not tell what it uses: {}", said.trim())));
        }
        serde_json::from_str(&line).context(format!("{}: {line:?}", self.name))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        // It may have ended of itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
