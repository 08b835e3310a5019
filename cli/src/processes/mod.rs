//! A cluster of real processes on this machine: a sequencer and hosts, one process each, or the
//! sequencer in that of the first host.
//!
//! The system tells what each of them uses ([`usage`]). All end when this process does, however
//! it ends: each watches its standard input, which is a pipe from here.

pub mod child;
pub mod hosts_file;
pub mod network;
pub mod owner;
pub mod plan;
pub mod quota;
pub mod relay;
pub mod remote;
pub mod scratch;
pub mod ssh;
pub mod stage;
pub mod testbed;
pub mod usage;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parsec_client::{Client, ClientConfig};
use parsec_protocol::transport::tls::Trust;
use serde::{Deserialize, Serialize};

use crate::cluster::log_directory;
use crate::failure::{Context, Failure, failed};
use child::Process;
use plan::{ClusterPlan, data_of, file_of};
use quota::Throttling;
use scratch::Scratch;
use usage::{ProcessUsage, directory_bytes, machine_busy_ns};

/// How long the cluster may take to answer at first.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to end in order.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How often a cluster that starts is asked whether it answers.
const REACH_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked whether a node has died.
const DEATH_EVERY: Duration = Duration::from_millis(200);

/// What a cluster of processes on loopback is to be like.
#[derive(Debug, Clone)]
pub struct ProcessesOptions {
    /// Hosts; the sequencer is one node more.
    pub hosts: u16,
    /// Partitions of all hosts together, dealt out to them in turn.
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// Where files and data are; a directory that is removed at the end if it is not said.
    pub directory: Option<PathBuf>,
    /// The program that has the command `node`; this program if it is not said.
    pub program: Option<PathBuf>,
    /// The text of the genesis file; without one the state begins empty.
    pub genesis: Option<String>,
    /// Whether the sequencer runs in the process of the first host.
    pub together: bool,
}

impl ProcessesOptions {
    /// So many hosts and partitions, one worker each, in a directory that is removed at the end.
    #[must_use]
    pub fn new(hosts: u16, partitions: u16) -> Self {
        Self {
            hosts,
            partitions,
            workers_per_partition: 1,
            directory: None,
            program: None,
            genesis: None,
            together: false,
        }
    }
}

/// What the processes of a cluster have used, or used between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterUsage {
    /// Of each process of nodes ([`ClusterPlan::processes`]); that of the sequencer first.
    pub nodes: Vec<ProcessUsage>,
    /// Of this process: clients and load generator.
    pub driver: ProcessUsage,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Of the relay between them that makes delay and loss, if there is one.
    pub relay: Option<ProcessUsage>,
    /// Of everything on this machine, if that is known: for how long its cores were at work,
    /// nanoseconds of one core.
    pub machine_busy_ns: Option<u64>,
    /// How often nodes with a quota were made to stand still.
    pub throttling: BTreeMap<u16, Throttling>,
}

impl ClusterUsage {
    /// What was used since `earlier`; memory is as it is now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let nodes = self.nodes.iter().zip(&earlier.nodes).map(|(now, then)| now.since(then));
        let throttling = self.throttling.iter().map(|(node, now)| {
            (*node, now.since(earlier.throttling.get(node).copied().unwrap_or_default()))
        });
        let relay_before = earlier.relay.clone().unwrap_or_default();
        Self {
            nodes: nodes.collect(),
            relay: self.relay.as_ref().map(|relay| relay.since(&relay_before)),
            machine_busy_ns: self
                .machine_busy_ns
                .zip(earlier.machine_busy_ns)
                .map(|(now, then)| now.saturating_sub(then)),
            throttling: throttling.collect(),
            driver: self.driver.since(&earlier.driver),
            log_bytes: self.log_bytes.saturating_sub(earlier.log_bytes),
        }
    }

    /// Of the process of the sequencer.
    #[must_use]
    pub fn sequencer(&self) -> ProcessUsage {
        self.nodes.first().cloned().unwrap_or_default()
    }

    /// Of all other hosts together.
    #[must_use]
    pub fn executors(&self) -> ProcessUsage {
        let mut sum = ProcessUsage::default();
        self.nodes.iter().skip(1).for_each(|node| sum.add(node));
        sum
    }

    /// Processor time of everything but the relay, nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.nodes.iter().map(|node| node.cpu_ns).sum::<u64>() + self.driver.cpu_ns
    }
}

/// A cluster that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Processes {
    plan: ClusterPlan,
    /// That of node 0 first.
    nodes: Mutex<Vec<Process>>,
    directory: PathBuf,
    /// Removes the directory, if it is nobody's. ORDER: dropped after the processes.
    _scratch: Option<Scratch>,
}

impl Processes {
    /// Starts a cluster on loopback.
    ///
    /// # Errors
    /// If its files can't be written or a process not be started.
    pub fn start(options: &ProcessesOptions) -> Result<Self, Failure> {
        let count = usize::from(options.hosts) + 2;
        let ports = free_ports(Ipv4Addr::LOCALHOST, count).context("can't find free ports")?;
        let addresses: Vec<SocketAddr> =
            ports.into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
        let (clients, nodes) = addresses.split_first().ok_or_else(|| failed("no ports"))?;
        let mut plan = ClusterPlan::new(*clients, nodes, options.partitions);
        plan.workers_per_partition = options.workers_per_partition;
        plan.together = options.together;
        let place = Place::new(options.directory.clone())?;
        place.put_genesis(&mut plan, options.genesis.as_deref())?;
        plan.write(&place.directory, &[])?;
        Self::start_written(plan, place, options.program.as_deref(), |_, argv| argv)
    }

    /// Starts the processes of a plan whose files are in `place`. `wrap` may put other programs
    /// before that of a process, which must become it; it is told its first node.
    pub(crate) fn start_written(
        plan: ClusterPlan,
        place: Place,
        program: Option<&Path>,
        wrap: impl Fn(u16, Vec<OsString>) -> Vec<OsString>,
    ) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe().context("can't find this program")?,
        };
        let mut nodes = Vec::new();
        for members in plan.processes() {
            let Some(first) = members.first().copied() else { continue };
            let files = members.iter().map(|node| place.directory.join(file_of(*node)).into());
            let mut argv: Vec<OsString> = vec![program.clone().into(), "node".into()];
            argv.extend(files.chain([STOP_AT_EOF.into()]));
            let errors = place.directory.join(format!("node-{first}.stderr"));
            let names: Vec<_> = members.iter().map(|node| format!("node {node}")).collect();
            nodes.push(Process::start(names.join(" and "), &wrap(first, argv), errors)?);
        }
        let Place { directory, scratch } = place;
        Ok(Self { plan, nodes: Mutex::new(nodes), directory, _scratch: scratch })
    }

    /// How clients reach the cluster, as soon as all of it answers.
    ///
    /// # Errors
    /// If it does not in time, or a node died; then what that said last.
    pub async fn reach(&self) -> Result<ClientConfig, Failure> {
        self.reach_at(self.plan.clients).await
    }

    /// The same by way of another address.
    pub(crate) async fn reach_at(&self, address: SocketAddr) -> Result<ClientConfig, Failure> {
        let started = Instant::now();
        loop {
            self.check()?;
            let result = self.try_reach(address).await;
            if result.is_ok() || started.elapsed() > START_MAX {
                return result;
            }
            tokio::time::sleep(REACH_EVERY).await;
        }
    }

    async fn try_reach(&self, address: SocketAddr) -> Result<ClientConfig, Failure> {
        let trust = Trust::load(&self.directory.join("certs/ca/ca.pem")).map_err(failed)?;
        let config = ClientConfig::new(vec![address], trust);
        let client = Client::connect(config.clone()).await.context("can't connect")?;
        let status = client.status().await.context("status")?;
        match status.partitions.len() == self.plan.partitions() {
            true => Ok(config),
            false => Err(failed("not every partition answers")),
        }
    }

    /// Where the recorded order is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        log_directory(&self.directory.join(data_of(0)))
    }

    /// The nodes, and where they listen.
    #[must_use]
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// The processes; that of node 0 first.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.lock().iter().map(Process::id).collect()
    }

    /// What they, and this process, have used so far.
    ///
    /// # Errors
    /// If a node died; then what it said last.
    pub fn usage(&self) -> Result<ClusterUsage, Failure> {
        self.check()?;
        Ok(ClusterUsage {
            nodes: self.ids().into_iter().map(ProcessUsage::of).collect::<Result<_, _>>()?,
            driver: ProcessUsage::of(std::process::id())?,
            log_bytes: directory_bytes(&self.log())?,
            machine_busy_ns: machine_busy_ns().ok(),
            ..ClusterUsage::default()
        })
    }

    /// Whether all nodes run still.
    ///
    /// # Errors
    /// Which does not, and what it said last.
    pub fn check(&self) -> Result<(), Failure> {
        self.lock().iter_mut().try_for_each(Process::check)
    }

    /// Returns when a node has died, with what it said last.
    pub async fn died(&self) -> Failure {
        loop {
            if let Err(failure) = self.check() {
                return failure;
            }
            tokio::time::sleep(DEATH_EVERY).await;
        }
    }

    /// Stops all processes in order, that of the sequencer first: what was acknowledged is on disk.
    ///
    /// # Errors
    /// Those nodes that failed, or did not end in time and were killed.
    pub async fn stop(self) -> Result<(), Failure> {
        let nodes = std::mem::take(&mut *self.lock());
        let mut failures = Vec::new();
        for node in nodes {
            failures.extend(node.end(STOP_MAX).await.err().map(|failure| failure.to_string()));
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failed(failures.join("\n"))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Process>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The genesis file, beside the configuration files.
const GENESIS_FILE: &str = "genesis.json";
/// Makes a node end when its standard input does.
const STOP_AT_EOF: &str = "--stop-at-eof";

/// Where the files and data of a cluster are.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// Removes the directory.
    scratch: Option<Scratch>,
}

impl Place {
    /// This directory, which is made; or one that is removed at the end.
    pub(crate) fn new(directory: Option<PathBuf>) -> Result<Self, Failure> {
        match directory {
            Some(directory) => {
                std::fs::create_dir_all(&directory).context(directory.display())?;
                let directory = std::path::absolute(&directory).context(directory.display())?;
                Ok(Self { directory, scratch: None })
            }
            None => {
                let scratch = Scratch::new()?;
                Ok(Self { directory: scratch.path().to_owned(), scratch: Some(scratch) })
            }
        }
    }
}

impl Place {
    /// Writes the genesis file of a cluster, if it has one.
    fn put_genesis(&self, plan: &mut ClusterPlan, text: Option<&str>) -> Result<(), Failure> {
        let Some(text) = text else { return Ok(()) };
        plan.genesis = Some(GENESIS_FILE.into());
        let file = self.directory.join(GENESIS_FILE);
        std::fs::write(&file, text).context(file.display())
    }
}

/// UDP ports of an address of this machine that nobody has at the moment.
fn free_ports(ip: Ipv4Addr, count: usize) -> std::io::Result<Vec<u16>> {
    // All at once, so that they differ.
    let sockets: Result<Vec<_>, _> = (0..count).map(|_| UdpSocket::bind((ip, 0))).collect();
    sockets?.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect()
}
