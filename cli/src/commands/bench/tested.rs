//! The cluster that is measured: one that is started for it, or one that is there.

use std::path::{Path, PathBuf};

use parsec_bench::record::{
    ClusterRecord, CpuUse, Deployment, Limits, LogUse, MemoryUse, NetworkUse, Resources, Role,
};
use parsec_client::ClientConfig;
use parsec_protocol::transport::tls::Trust;

use super::environment;
use super::limit::{self, Capacity};
use crate::args::ClusterArgs;
use crate::cluster::{Cluster, ClusterOptions};
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;
use crate::processes::remote::Remote;
use crate::processes::scratch::Scratch;
use crate::processes::testbed::Testbed;
use crate::processes::usage::{ProcessUsage, directory_bytes};
use crate::processes::{ClusterUsage, Processes, ProcessesOptions};

/// The cluster that is measured.
pub(super) enum Tested {
    /// Processes of its own.
    Processes(Box<Processes>),
    /// Processes with networks and quotas of their own.
    Testbed(Box<Testbed>),
    /// Processes on machines of their own.
    Remote(Box<Remote>),
    /// In this process.
    Embedded { cluster: Box<Cluster>, log: PathBuf, _scratch: Option<Scratch> },
    /// One that is there.
    Existing,
}

impl Tested {
    /// Starts it, or finds it, and says how clients reach it. `genesis` is the text of the genesis
    /// file of one that is started.
    pub(super) async fn start(
        args: &ClusterArgs,
        genesis: Option<String>,
    ) -> Result<(Self, ClientConfig), Failure> {
        match (&args.connect, &args.ca) {
            (Some(address), Some(ca)) => {
                let trust = Trust::load(ca).context(ca.display())?;
                Ok((Self::Existing, ClientConfig::new(vec![*address], trust)))
            }
            _ if args.embedded => Self::embedded(args, genesis).await,
            _ => Self::processes(args, genesis).await,
        }
    }

    async fn processes(
        args: &ClusterArgs,
        genesis: Option<String>,
    ) -> Result<(Self, ClientConfig), Failure> {
        let partitions = partitions(args)?;
        let options = ProcessesOptions {
            workers_per_partition: usize::from(args.workers),
            directory: args.data.clone(),
            together: args.together,
            genesis,
            ..ProcessesOptions::new(args.hosts, partitions)
        };
        let processes = Processes::start(&options)?;
        let config = processes.reach().await?;
        Ok((Self::Processes(Box::new(processes)), config))
    }

    async fn embedded(
        args: &ClusterArgs,
        genesis: Option<String>,
    ) -> Result<(Self, ClientConfig), Failure> {
        partitions(args)?;
        let scratch = match &args.data {
            Some(_) => None,
            None => Some(Scratch::new()?),
        };
        let data = scratch.as_ref().map(|scratch| scratch.path().to_owned());
        let data = data.or_else(|| args.data.clone()).unwrap_or_default();
        let mut options = ClusterOptions::new(data);
        options.hosts = args.hosts;
        options.partitions_per_host = args.partitions;
        options.workers_per_partition = usize::from(args.workers);
        options.linked_by_memory = args.together;
        if let Some(text) = genesis {
            options.genesis = Genesis::parse(&text, options.chain_id)?;
        }
        let cluster = Box::new(Cluster::start(&options).await?);
        let config = cluster.client_config().clone();
        Ok((Self::Embedded { cluster, log: options.log(), _scratch: scratch }, config))
    }

    /// What is written down of it. `partitions` is how many it said that it has.
    pub(super) fn record(&self, args: &ClusterArgs, partitions: u16) -> ClusterRecord {
        let how = match self {
            Self::Processes(_) => Deployment::Processes,
            Self::Testbed(testbed) if testbed.has_namespaces() => Deployment::Namespaces,
            Self::Testbed(_) => Deployment::Processes,
            Self::Remote(_) => Deployment::Remote,
            Self::Embedded { .. } => Deployment::Embedded,
            Self::Existing => Deployment::Existing,
        };
        let own = ClusterRecord {
            how,
            hosts: args.hosts,
            partitions_per_host: args.partitions,
            workers_per_partition: args.workers,
            together: args.together,
            ..ClusterRecord::default()
        };
        if how != Deployment::Existing {
            return own;
        }
        let note = format!(
            "a cluster that was there, with {partitions} partitions; on how many hosts, and with \
             how many threads, is not known"
        );
        let unknown = ClusterRecord { hosts: 0, partitions_per_host: 0, ..own };
        ClusterRecord { workers_per_partition: 0, notes: vec![note], ..unknown }
    }

    /// What it, and this process, have used so far.
    pub(super) fn used(&self) -> Result<ClusterUsage, Failure> {
        match self {
            Self::Processes(processes) => processes.usage(),
            Self::Testbed(testbed) => testbed.usage(),
            // It waits for other machines.
            Self::Remote(remote) => tokio::task::block_in_place(|| remote.usage()),
            Self::Embedded { log, .. } => Ok(ClusterUsage {
                driver: ProcessUsage::of(std::process::id())?,
                log_bytes: directory_bytes(log)?,
                ..ClusterUsage::default()
            }),
            Self::Existing => Ok(ClusterUsage {
                driver: ProcessUsage::of(std::process::id())?,
                ..ClusterUsage::default()
            }),
        }
    }

    /// What was used between two moments, for the record.
    pub(super) fn resources(&self, used: &ClusterUsage) -> Resources {
        let role =
            if matches!(self, Self::Embedded { .. }) { Role::Everything } else { Role::Client };
        let mut resources = Resources::default();
        for ((name, role), node) in self.nodes().into_iter().zip(&used.nodes) {
            add(&mut resources, &name, role, node);
        }
        let name = if role == Role::Client { "client" } else { "everything" };
        add(&mut resources, name, role, &used.driver);
        if !matches!(self, Self::Existing) {
            let sequencer = self.nodes().into_iter().next().map(|(sequencer, _)| sequencer);
            let host = sequencer.unwrap_or_else(|| name.to_owned());
            resources.logs.push(LogUse { host, bytes: used.log_bytes });
        }
        resources
    }

    /// What each process holds in memory now, bytes, by its name.
    pub(super) fn memory(&self) -> Vec<(String, u64)> {
        let mut processes = match self {
            Self::Processes(processes) => processes.ids(),
            Self::Testbed(testbed) => testbed.processes().ids(),
            // Of nodes on other machines it is known at the end.
            Self::Remote(_) | Self::Embedded { .. } | Self::Existing => Vec::new(),
        };
        let mut names: Vec<String> = match processes.is_empty() {
            true => Vec::new(),
            false => self.nodes().into_iter().map(|(name, _)| name).collect(),
        };
        processes.push(std::process::id());
        names.push(if self.is_apart() { "client" } else { "everything" }.to_owned());
        let held = processes.into_iter().map(resident);
        names.into_iter().zip(held).filter_map(|(name, held)| Some((name, held?))).collect()
    }

    /// The processes that were started, what they are called in records, and what for; the
    /// sequencer's first.
    fn nodes(&self) -> Vec<(String, Role)> {
        let plan = match self {
            Self::Processes(processes) => processes.plan(),
            Self::Testbed(testbed) => testbed.processes().plan(),
            Self::Remote(remote) => remote.processes().plan(),
            Self::Embedded { .. } | Self::Existing => return Vec::new(),
        };
        let named = |nodes: Vec<u16>| match nodes[..] {
            [0] => ("sequencer".to_owned(), Role::Sequencer),
            [0, host, ..] => (format!("host-{host}"), Role::Both),
            [host, ..] => (format!("host-{host}"), Role::Executor),
            [] => (String::new(), Role::Both),
        };
        plan.processes().into_iter().map(named).collect()
    }

    /// Whether what this process uses is the load generator's alone.
    pub(super) fn is_apart(&self) -> bool {
        !matches!(self, Self::Embedded { .. })
    }

    /// Where its log is, if that is within reach.
    pub(super) async fn log(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(match self {
            Self::Processes(processes) => Some(processes.log()),
            Self::Testbed(testbed) => Some(testbed.processes().log()),
            Self::Remote(remote) => Some(remote.fetch_log().await?),
            Self::Embedded { log, .. } => Some(Path::to_owned(log)),
            Self::Existing => None,
        })
    }

    /// Imposes the quotas, if there are any: set-up and verification are not held to them.
    pub(super) fn impose(&self) -> Result<(), Failure> {
        match self {
            Self::Testbed(testbed) => testbed.impose(),
            Self::Processes(_) | Self::Remote(_) | Self::Embedded { .. } | Self::Existing => Ok(()),
        }
    }

    /// Lifts them.
    pub(super) fn lift(&self) -> Result<(), Failure> {
        match self {
            Self::Testbed(testbed) => testbed.lift(),
            Self::Processes(_) | Self::Remote(_) | Self::Embedded { .. } | Self::Existing => Ok(()),
        }
    }

    /// Who used up what it may in so many seconds, and what else quotas and network did.
    pub(super) fn limits(&self, used: &ClusterUsage, seconds: f64) -> Limits {
        let cores = u64::from(environment::cores());
        match self {
            Self::Processes(_) => limit::limits(Capacity::new(cores), used, seconds),
            Self::Testbed(testbed) => {
                let (host, sequencer) = testbed.quotas();
                limit::limits(Capacity { host, sequencer, ..Capacity::new(cores) }, used, seconds)
            }
            Self::Remote(_) | Self::Embedded { .. } | Self::Existing => Limits::default(),
        }
    }

    /// Returns when a part of it has stopped of itself, with the reason.
    pub(super) async fn died(&self) -> Failure {
        match self {
            Self::Processes(processes) => processes.died().await,
            Self::Testbed(testbed) => testbed.processes().died().await,
            Self::Remote(remote) => remote.processes().died().await,
            Self::Embedded { cluster, .. } => cluster.failed().await,
            Self::Existing => std::future::pending().await,
        }
    }

    /// Stops it in order, if it was started for this.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        match self {
            Self::Processes(processes) => processes.stop().await,
            Self::Testbed(testbed) => testbed.stop().await,
            Self::Remote(remote) => remote.stop().await,
            Self::Embedded { cluster, .. } => cluster.stop().await,
            Self::Existing => Ok(()),
        }
    }
}

/// Partitions of the whole cluster.
pub(super) fn partitions(args: &ClusterArgs) -> Result<u16, Failure> {
    args.hosts.checked_mul(args.partitions).ok_or_else(|| failed("too many partitions"))
}

/// What a process holds in memory now, bytes; nothing if it is no more.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

/// Adds what one process used.
fn add(resources: &mut Resources, host: &str, role: Role, used: &ProcessUsage) {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let stage = |stage: &str, nanos: u64| CpuUse {
        host: host.to_owned(),
        role,
        stage: stage.to_owned(),
        seconds: seconds(nanos),
    };
    resources.cpu.extend(used.stages.iter().map(|(name, nanos)| stage(name, *nanos)));
    let host = || host.to_owned();
    resources.memory.push(MemoryUse { host: host(), peak_bytes: used.rss_peak_bytes });
    if let Some(network) = used.network {
        resources.network.push(NetworkUse {
            host: host(),
            sent_bytes: network.sent_bytes,
            received_bytes: network.received_bytes,
        });
    }
}
