//! Where the clusters run, and what each process may use there.

use std::sync::{Mutex, PoisonError};

use parsec_bench::record::{ClusterRecord, Deployment};
use parsec_client::ClientConfig;

use super::super::environment;
use super::super::tested::Tested;
use crate::args::SiteArgs;
use crate::failure::{Failure, failed};
use crate::processes::hosts_file::HostsFile;
use crate::processes::network::NODES_MAX;
use crate::processes::quota::Controller;
use crate::processes::remote::{Remote, RemoteOptions};
use crate::processes::ssh::Ssh;
use crate::processes::testbed::{Abilities, Distance, Testbed, TestbedOptions};

/// Where the clusters run.
pub(super) struct Site {
    args: SiteArgs,
    place: Place,
    /// What could not be had, one sentence each.
    missing: Vec<String>,
    /// What the machines of the largest cluster so far are.
    about: Mutex<Vec<String>>,
}

enum Place {
    /// On this machine.
    Here { namespaces: bool, controller: Option<Controller> },
    /// On those.
    There(HostsFile),
}

impl Site {
    /// Finds out what this machine can do, or reads which machines there are.
    pub(super) fn find(args: &SiteArgs) -> Result<Self, Failure> {
        let mut missing = Vec::new();
        let place = match &args.hosts_file {
            Some(file) => Place::There(HostsFile::load(file)?),
            None => find_here(args, &mut missing),
        };
        missing.iter().for_each(|sentence| eprintln!("{sentence}"));
        Ok(Self { args: args.clone(), place, missing, about: Mutex::default() })
    }

    /// Partitions of a cluster with so many hosts.
    pub(super) fn partitions(&self, hosts: u16) -> u16 {
        match &self.place {
            Place::Here { .. } => hosts.saturating_mul(self.args.partitions),
            Place::There(file) => file.partitions(hosts, self.args.partitions),
        }
    }

    /// Whether there may be so many hosts.
    pub(super) fn check(&self, hosts: u16) -> Result<(), Failure> {
        match &self.place {
            Place::Here { .. } if hosts < NODES_MAX => Ok(()),
            Place::Here { .. } => Err(failed(format!("{hosts} hosts are too many for one bridge"))),
            Place::There(file) => file.plan(hosts, self.args.partitions).map(drop),
        }
    }

    /// Starts a cluster, and says how clients reach it. `genesis` is the text of its genesis file.
    pub(super) async fn start(
        &self,
        hosts: u16,
        genesis: Option<String>,
    ) -> Result<(Tested, ClientConfig), Failure> {
        let workers_per_partition = usize::from(self.args.workers);
        match &self.place {
            Place::Here { namespaces, controller } => {
                let options = TestbedOptions {
                    hosts,
                    partitions: self.partitions(hosts),
                    workers_per_partition,
                    directory: None,
                    program: None,
                    genesis,
                    namespaces: *namespaces,
                    controller: controller.clone(),
                    quota: self.args.quota,
                    sequencer_quota: self.args.sequencer_quota,
                    distance: self.distance(),
                };
                let testbed = tokio::task::block_in_place(|| Testbed::start(&options))?;
                let config = testbed.reach().await?;
                Ok((Tested::Testbed(Box::new(testbed)), config))
            }
            Place::There(machines) => {
                let options = RemoteOptions {
                    machines: machines.clone(),
                    hosts,
                    partitions: self.args.partitions,
                    workers_per_partition,
                    genesis,
                    ssh: Ssh::new(self.args.ssh.clone()),
                };
                let remote = tokio::task::block_in_place(|| Remote::start(&options))?;
                let config = remote.reach().await?;
                let found = remote.about();
                let mut about = self.about.lock().unwrap_or_else(PoisonError::into_inner);
                if found.len() > about.len() {
                    *about = found;
                }
                Ok((Tested::Remote(Box::new(remote)), config))
            }
        }
    }

    fn distance(&self) -> Option<Distance> {
        let SiteArgs { delay, loss, .. } = self.args;
        (delay.is_some() || loss.is_some()).then(|| Distance {
            delay: delay.unwrap_or_default(),
            loss_millionths: loss.unwrap_or(0),
            seed: 1,
        })
    }

    /// What is written down of clusters of which the largest has so many hosts.
    pub(super) fn record(&self, hosts: u16) -> ClusterRecord {
        let (how, has_quotas) = match &self.place {
            Place::Here { namespaces: true, controller } => {
                (Deployment::Namespaces, controller.is_some())
            }
            Place::Here { namespaces: false, controller } => {
                (Deployment::Processes, controller.is_some())
            }
            Place::There(_) => (Deployment::Remote, false),
        };
        let quota = self.args.quota.filter(|_| has_quotas);
        let sequencer_quota = self.args.sequencer_quota.filter(|_| has_quotas);
        let distance = self.distance();
        ClusterRecord {
            how,
            hosts,
            partitions_per_host: self.partitions(1),
            workers_per_partition: self.args.workers,
            together: false,
            quota: quota.map(|share| share.cores()),
            sequencer_quota: sequencer_quota.map(|share| share.cores()),
            delay_ms: distance.map(|distance| distance.delay.as_secs_f64() * 1e3),
            loss: distance.map(|distance| f64::from(distance.loss_millionths) / 1e6),
            notes: self.about.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What the figures do not show, one sentence each.
    pub(super) fn caveats(&self) -> Vec<String> {
        let mut caveats = self.missing.clone();
        let Place::Here { controller, .. } = &self.place else {
            caveats.push(
                "The network of a machine is all that passed its interfaces, whoever sent it."
                    .to_owned(),
            );
            return caveats;
        };
        let cores = environment::cores();
        let (quota, sequencer) = (self.args.quota, self.args.sequencer_quota);
        let quotas = controller.is_some() && quota.or(sequencer).is_some();
        caveats.push(if quotas {
            let says = |share: Option<crate::processes::quota::CpuShare>| {
                share.map_or_else(|| "no quota".to_owned(), |share| format!("{share} of a core"))
            };
            format!(
                "Quotas while it was measured: {} for each host, {} for the sequencer, none for the \
                 load generator{}. A quota makes hosts slow so that several fit on one machine with \
                 {cores} cores: the curve shows how work is divided among them, and what it costs \
                 more; not how fast a machine is, nor what shared caches and memory hide or cost.",
                says(quota),
                says(sequencer),
                if self.distance().is_some() { " and the relay" } else { "" }
            )
        } else {
            format!(
                "Hosts had no quota: they share {cores} cores with the sequencer and the load \
                 generator, so that throughput can't grow with them beyond what these give. \
                 Processor time for each transaction shows what more hosts cost."
            )
        });
        if self.distance().is_some() {
            caveats.push(
                "Delay and loss were made by a relay in user space, through which every datagram \
                 between processes went. What it used is in none of the figures but its own, and is \
                 outside the quotas."
                    .to_owned(),
            );
        }
        caveats
    }
}

/// What is possible here of what is wanted; the rest is told.
fn find_here(args: &SiteArgs, missing: &mut Vec<String>) -> Place {
    let Abilities { namespaces, quotas, removed } = Abilities::find();
    if !removed.is_empty() {
        eprintln!("removed what a run had left behind that was killed: {}", removed.join(", "));
    }
    let namespaces = match namespaces {
        Ok(()) => !args.loopback,
        Err(reason) => {
            missing.push(format!(
                "No network namespaces are possible here ({reason}): nodes were plain processes on \
                 loopback, and what passed between them was not counted."
            ));
            false
        }
    };
    if args.loopback {
        missing.push("Nodes were plain processes on loopback, as was asked for.".to_owned());
    }
    let wants_quotas = args.quota.or(args.sequencer_quota).is_some();
    let controller = match quotas {
        Ok(controller) => wants_quotas.then_some(controller),
        Err(reason) if wants_quotas => {
            missing.push(format!(
                "No quotas were imposed, although they were asked for: they are not possible here \
                 ({reason})."
            ));
            None
        }
        Err(_) => None,
    };
    Place::Here { namespaces, controller }
}
